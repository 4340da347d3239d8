"""What a Ctrl-C and a SIGTERM do to a verb that runs for long: the first asks it to end well, the second ends it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, Self

from morpheus_worker.sync.terms import SyncCode, SyncError

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
SAID: Final = "stopping; the next run goes on from here"
LONGEST_SAYING_S: Final = 1.0
"""Standard error may be a pipe that nobody reads."""
SHOW_CURSOR: Final = b"\x1b[?25h"


class Stopping:
    """Within it, the first signal sets `stop` and is said; the second one ends the process at once, as by itself.

    `say` is called in a thread of its own, because a handler interrupts its thread anywhere, also within a print.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.stop = threading.Event()
        self.signum: int | None = None
        self._say = say
        self._before: dict[int, Any] = {}
        self._saying: threading.Thread | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            # What is ignored stays so: a shell says by that, and nohup, that a command runs in the background.
            heard = [signum for signum in SIGNALS if signal.getsignal(signum) is not signal.SIG_IGN]
            self._before = {signum: signal.signal(signum, self._asked) for signum in heard}
        return self

    def __exit__(self, _kind: object, failure: BaseException | None, _trace: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        if self._saying is not None:
            self._saying.join(LONGEST_SAYING_S)
        if self.signum is not None and isinstance(failure, SyncError) and failure.code is SyncCode.INTERRUPTED:
            # Whoever asked for it knows why; all there is to tell is the exit code.
            raise SystemExit(128 + self.signum) from failure

    def exit_code(self, code: int) -> int:
        """`code`, unless a signal ended the run: then what shells expect of that."""
        return code if self.signum is None else 128 + self.signum

    def _asked(self, signum: int, _frame: FrameType | None) -> None:
        if self.signum is not None:
            _end_by(signum)
        self.signum = signum
        self.stop.set()
        self._saying = threading.Thread(target=self._say, args=(SAID,), daemon=True)
        self._saying.start()


def _end_by(signum: int) -> None:
    """Ends this process as the signal would have. A terminal whose cursor a progress bar hid gets it back."""
    if sys.stdout is not None and sys.stdout.isatty():
        os.write(sys.stdout.fileno(), SHOW_CURSOR)
    signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)

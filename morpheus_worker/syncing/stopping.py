"""Two reasons to stop as one: the transfer below asks a single event."""

from __future__ import annotations

import threading
import time
from typing import Final

POLL_S: Final = 0.1
"""How late the second reason may be noticed by who waits."""


class EitherStop(threading.Event):
    """Set as soon as one of its reasons is."""

    def __init__(self, *reasons: threading.Event) -> None:
        super().__init__()
        self._reasons = reasons

    def is_set(self) -> bool:
        return super().is_set() or any(reason.is_set() for reason in self._reasons)

    def wait(self, timeout: float | None = None) -> bool:
        until = None if timeout is None else time.monotonic() + timeout
        while not self.is_set():
            left = POLL_S if until is None else until - time.monotonic()
            if left <= 0:
                return False
            super().wait(min(POLL_S, left))
        return True

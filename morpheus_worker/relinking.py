"""Linking anew while a worker runs: a model that another machine put onto the volume is found without a restart.

It is asked for when a job names a model that is not there, and a volume can be slow: so the look is made in a thread of
its own, jobs that ask at once share it and wait for it only so long, and the next one is not made before a while has
passed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from morpheus_worker.deadlines import Clock, Deadline
from morpheus_worker.errors import MorpheusError
from morpheus_worker.linking import LinkReport

log = logging.getLogger(__name__)

LEAST_GAP_S: Final = 5.0
"""From the end of one look to the next."""
SHARE: Final = 20.0
"""Looks take at most one part in so many of the time: after a long one, the gap is longer."""
PATIENCE_S: Final = 10.0
"""How long jobs wait for a look, from its beginning. What it finds later is there for the next job."""


@dataclass(slots=True)
class _Look:
    """`changed` counts once it is `done`."""

    until: Deadline
    done: threading.Event = field(default_factory=threading.Event)
    changed: bool = False


class Relinking:
    """`link` is what the boot did. May be called from several threads."""

    def __init__(self, link: Callable[[], LinkReport], *, clock: Clock = time.monotonic) -> None:
        self._link, self._clock = link, clock
        self._guard = threading.Lock()
        self._look: _Look | None = None
        self._not_before_s = float("-inf")

    def __call__(self, deadline: Deadline) -> bool:
        """Links what came since, if the last look is long enough ago; whether anything was linked by now. It never
        fails: what cannot be linked is said in the log, and stays missing."""
        look = self._shared()
        return look is not None and look.done.wait(min(look.until.remaining_s, deadline.remaining_s)) and look.changed

    def _shared(self) -> _Look | None:
        """The look that is under way, or a new one; None when it is too early for one."""
        with self._guard:
            if self._look is None and self._clock() >= self._not_before_s:
                look = _Look(Deadline.after(PATIENCE_S, clock=self._clock))
                try:
                    threading.Thread(target=self._run, args=(look,), name="relinking", daemon=True).start()
                except RuntimeError as failure:
                    log.warning("what came onto the volume since the boot could not be looked for: %s", failure)
                    return None
                self._look = look
            return self._look

    def _run(self, look: _Look) -> None:
        began_s = self._clock()
        try:
            report = self._link()
            look.changed = report.changed
            if report.changed:
                log.info("linked anew: %s", report.summary())
        except MorpheusError as failure:
            log.warning("what came onto the volume since the boot could not be linked: %s", failure.message)
        finally:
            with self._guard:
                ended_s = self._clock()
                self._not_before_s = ended_s + max(LEAST_GAP_S, SHARE * (ended_s - began_s))
                self._look = None
            look.done.set()

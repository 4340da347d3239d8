"""When ComfyUI itself is asked about a prompt, and how long it may stay silent."""

from __future__ import annotations

import time
from typing import Final

from morpheus_worker.comfy.http import NotAnsweringError
from morpheus_worker.comfy.tracker import PromptTracker, State

RECONCILE_S: Final = 5.0
RECONCILE_DEAF_S: Final = 1.0
RECONCILE_SETTLING_S: Final = 0.05
UNREACHABLE_S: Final = 30.0
"""An unanswering ComfyUI whose process we do not own is given up after this long."""


class Silence:
    """How long ComfyUI has given no answer."""

    def __init__(self) -> None:
        self._since_s: float | None = None

    def ended(self) -> None:
        self._since_s = None

    def heard_nothing(self, failure: NotAnsweringError) -> None:
        """Raises the failure once the silence has lasted too long."""
        now_s = time.monotonic()
        self._since_s = self._since_s or now_s
        if now_s - self._since_s > UNREACHABLE_S:
            raise failure


class Watch:
    """When to ask ComfyUI itself: slowly while events flow, faster when they may be missing."""

    def __init__(self) -> None:
        self._next_s = time.monotonic() + RECONCILE_DEAF_S
        self.silence = Silence()

    @property
    def wait_s(self) -> float:
        return max(0.0, self._next_s - time.monotonic())

    @property
    def due(self) -> bool:
        return time.monotonic() >= self._next_s

    def hurry(self, within_s: float = 0.0) -> None:
        self._next_s = min(self._next_s, time.monotonic() + within_s)

    def noticed(self, tracker: PromptTracker) -> None:
        """The entry is filed before the end is announced, and a moment after success is."""
        if tracker.state == State.SETTLING:
            self.hurry(0.0 if tracker.end_was_announced else RECONCILE_SETTLING_S)

    def rest(self, tracker: PromptTracker, *, connected: bool) -> None:
        if tracker.state == State.SETTLING:
            pause_s = RECONCILE_SETTLING_S
        else:
            pause_s = RECONCILE_S if connected and tracker.state != State.MISSING else RECONCILE_DEAF_S
        self._next_s = time.monotonic() + pause_s

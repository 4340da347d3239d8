"""Whether a fetch has taken too long: a decision over what it did and when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from morpheus_worker.fetching.terms import Pace


@dataclass(slots=True)
class Watch:
    """What a fetch is doing and since when, in seconds on `clock`."""

    clock: Callable[[], float]
    phase: Literal["queued", "connecting", "answering", "receiving"] = "queued"
    started_s: float = 0.0
    since_s: float = 0.0
    size: int = 0
    window_s: float = 0.0
    window_size: int = 0

    def start(self) -> None:
        self.phase, self.started_s = "connecting", self.clock()

    def connect(self) -> None:
        self.phase = "connecting"

    def ask(self) -> None:
        self.phase, self.since_s = "answering", self.clock()

    def receive(self) -> None:
        self.phase, self.size, self.window_size = "receiving", 0, 0
        self.since_s = self.window_s = self.clock()

    def hear(self, size: int) -> None:
        """`size` bytes have come so far."""
        self.since_s, self.size = self.clock(), size

    def complaint(self, pace: Pace, timeout_s: float) -> str | None:
        """Why the fetch must end now, if it must. How long connecting may take is the connection's own matter."""
        now_s = self.clock()
        if self.phase == "queued":
            return None
        if now_s - self.started_s > timeout_s:
            return f"did not arrive within {timeout_s:g} s"
        if self.phase == "answering" and now_s - self.since_s > pace.answer_s:
            return f"did not answer within {pace.answer_s:g} s"
        return self._slowness(now_s, pace) if self.phase == "receiving" else None

    def _slowness(self, now_s: float, pace: Pace) -> str | None:
        if now_s - self.since_s > pace.stall_s:
            return f"stopped sending for {pace.stall_s:g} s"
        if now_s - self.window_s < pace.slow_window_s:
            return None
        if self.size - self.window_size < pace.slow_bytes_per_s * (now_s - self.window_s):
            return f"sends less than {pace.slow_bytes_per_s:g} bytes a second"
        self.window_s, self.window_size = now_s, self.size
        return None

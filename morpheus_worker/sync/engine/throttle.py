"""How many connections a host bears, learnt from how often it refuses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

CALM_S: Final = 1.0
"""Refusals within this time are one: they were all on their way together. Seconds."""


@dataclass(slots=True)
class Throttle:
    """Halves the connections of the whole file when the host turns one away, and lets one more come for every round of
    requests that went well. Moments are of one monotonic clock, in seconds."""

    most: int
    allowed: int = 0
    until: float = 0.0
    """No request before."""
    _calm: float = field(default=0.0)
    _good: int = field(default=0)

    def __post_init__(self) -> None:
        self.allowed = self.allowed or self.most

    def refused(self, after_s: float, now: float) -> None:
        """The host turned a request away, and asks to be left alone for `after_s`, which may be 0."""
        if now >= self._calm:
            self.allowed = max(1, self.allowed // 2)
        self._good = 0
        self._calm = max(self._calm, now + max(after_s, CALM_S))
        self.until = max(self.until, now + after_s)

    def went_well(self) -> None:
        """One request brought what it was asked for."""
        self._good += 1
        if self._good >= self.allowed and self.allowed < self.most:
            self.allowed, self._good = self.allowed + 1, 0

"""What is fetched, what comes of it, and the terms on which."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from morpheus_worker.addresses import PrivateHosts
from morpheus_worker.errors import Code, MediaRefusedError
from morpheus_worker.fetching.lookup import Lookup

if TYPE_CHECKING:
    import ssl

DOING: Final = "fetching its media"


@dataclass(frozen=True, slots=True)
class Remote:
    """One medium to fetch. `target` does not exist yet; it is written, and gone again when the medium is refused."""

    url: str
    target: Path
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """What arrived. `size` is in bytes; `filename` and `media_type` are what the sender says, which nobody checked."""

    size: int
    filename: str | None
    media_type: str | None


@dataclass(frozen=True, slots=True)
class Pace:
    """How patient a fetch is."""

    connect_s: float = 10.0
    """For looking the name up, and again for the connection."""
    answer_s: float = 30.0
    """From the start of the connection to the answer's headers."""
    stall_s: float = 15.0
    """Without a byte of the body."""
    slow_window_s: float = 30.0
    slow_bytes_per_s: float = 1024.0
    """A sender slower than this over a whole window would hold a GPU until the deadline."""
    tries: int = 3
    first_wait_s: float = 0.5
    longest_wait_s: float = 10.0
    """Between tries. A sender that asks to be left alone for longer is not asked again."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for every fetch of a job."""

    private_hosts: PrivateHosts
    timeout_s: float
    pace: Pace
    lookup: Lookup
    tls: ssl.SSLContext | None


class PassingError(MediaRefusedError):
    """A medium that may be had the next moment; `after_s` is how long its sender asks to wait."""

    def __init__(self, what: str, *, after_s: float = 0.0) -> None:
        super().__init__(Code.INPUT_UNREACHABLE, what)
        self.after_s = after_s

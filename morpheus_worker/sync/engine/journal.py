"""What a part file holds, in lines of text beside it, each appended after the fact that it states.

The first line is a JSON object: which file, in which version, in segments of which size, and the boot that it is about.
Then `w SEGMENT [CRC]`: the segment's bytes were written; and `s SEGMENT…`: they were synced to the disk since.

A killed process loses nothing that it had written, so during the same boot of the same machine every `w` counts. After
another boot, or on another machine, only an `s` does. Whatever comes after a line that makes no sense is not believed:
a crash may tear the last one, and leave zeros. The journal is never the last word on a file: what is published was
hashed from the disk, and where no hash is known to compare with, each segment that it claims is held to its CRC.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

_FORM: Final = 1
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class About:
    """What the bytes are: `version` as a `Resolved` says it, sizes in bytes."""

    version: str
    size: int
    segment_bytes: int


@dataclass(slots=True)
class Held:
    """What a journal claims: the segments that are there, each with the CRC-32 of its bytes where it is known."""

    segments: dict[int, int | None] = field(default_factory=dict)
    synced: set[int] = field(default_factory=set)


def journal_of(part: Path) -> Path:
    """Where the journal of a part file lies."""
    return part.with_name(part.name + ".journal")


def this_boot() -> str:
    """Names this machine's boot; empty where the system does not tell."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def read_journal(path: Path) -> tuple[About, Held] | None:
    """What the journal says, or None where there is none that can be used.

    Raises:
        OSError: when it cannot be read.
    """
    try:
        text = path.read_bytes().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return None
    first, *lines = text.split("\n")[:-1] or [""]
    header = _header(first)
    if header is None:
        return None
    about, boot = header
    held = _held(lines, count=-(-about.size // about.segment_bytes))
    if not boot or boot != this_boot():
        held.segments = {segment: held.segments[segment] for segment in sorted(held.synced)}
    return about, held


def _header(line: str) -> tuple[About, str] | None:
    with contextlib.suppress(ValueError, RecursionError):
        told = json.loads(line)
        match told:
            case {"part": 1, "version": str(version), "size": int(size), "segment": int(segment), "boot": str(boot)}:
                if size > 0 and segment > 0:
                    return About(version, size, segment), boot
    return None


def _held(lines: Iterable[str], count: int) -> Held:
    held = Held()
    for line in lines:
        match line.split(" "):
            case ["w", segment, *crc] if _number(segment, count) is not None and len(crc) <= 1:
                held.segments[int(segment)] = _number(crc[0], 1 << 32) if crc else None
            case ["s", *segments] if all(_number(each, count) in held.segments for each in segments):
                held.synced.update(map(int, segments))
            case ["x", segment] if _number(segment, count) in held.segments:
                del held.segments[int(segment)]
                held.synced.discard(int(segment))
            case _:
                break
    return held


def _number(text: str, count: int) -> int | None:
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 12 else count
    return number if number < count else None


class Journal:
    """A journal that is being written. Each line is one append; two calls must not overlap.

    Raises:
        OSError: from every method, when the disk refuses.
    """

    def __init__(self, path: Path, about: About) -> None:
        self._path, self._about = path, about
        self._file: int | None = None

    @classmethod
    def anew(cls, path: Path, about: About, held: Held) -> Self:
        """A journal in the place of the one that is there, in one rename, saying what of it still holds."""
        journal = cls(path, about)
        fresh = path.with_name(path.name + ".new")
        with open(fresh, "wb") as file:
            file.write(journal._begin() + _as_lines(held))
        os.replace(fresh, path)
        return journal

    def written(self, segment: int, crc: int | None) -> None:
        self._append(_written(segment, crc))

    def synced(self, segments: Iterable[int]) -> None:
        """They are on the disk."""
        self._append(_synced(segments))

    def wrong(self, segment: int) -> None:
        """What was said of the segment does not hold."""
        self._append(b"x %d\n" % segment)

    def flush(self) -> None:
        """What was noted is on the disk when this returns. May overlap with the other calls, but `close`."""
        if self._file is not None:
            os.fdatasync(self._file)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _append(self, line: bytes) -> None:
        if self._file is None:
            # The first fact brings the file into being: what never got so far leaves none.
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self._file = os.open(self._path, flags, 0o666)
            if os.fstat(self._file).st_size == 0:
                line = self._begin() + line
        while line:
            line = line[os.write(self._file, line) :]

    def _begin(self) -> bytes:
        about = self._about
        told: Mapping[str, Any] = {
            "part": _FORM,
            "version": about.version,
            "size": about.size,
            "segment": about.segment_bytes,
            "boot": this_boot(),
        }
        return json.dumps(told).encode() + b"\n"


def _written(segment: int, crc: int | None) -> bytes:
    return b"w %d\n" % segment if crc is None else b"w %d %d\n" % (segment, crc)


def _synced(segments: Iterable[int]) -> bytes:
    return b"s " + b" ".join(b"%d" % segment for segment in segments) + b"\n"


def _as_lines(held: Held) -> bytes:
    lines = b"".join(_written(segment, crc) for segment, crc in sorted(held.segments.items()))
    return lines + (_synced(sorted(held.synced)) if held.synced else b"")

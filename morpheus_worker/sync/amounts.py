"""How many bytes, in words."""

from __future__ import annotations

from typing import Final

UNITS: Final = ("kB", "MB", "GB", "TB", "PB")


def size_text(count: int) -> str:
    """Bytes in decimal units, as hosts and disks count them: `6.9 GB`, `335 MB`, `12 bytes`."""
    if count < 1000:
        return f"{count} {'byte' if count == 1 else 'bytes'}"
    value, unit = count / 1000, UNITS[0]
    for larger in UNITS[1:]:
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.1f} {unit}" if value < 99.95 else f"{value:.0f} {unit}"

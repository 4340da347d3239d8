"""Where a rehearsal sees a face. It detects none: a picture counts as having one, in the middle, unless all of it is of
one colour. So whoever sends a plain picture rehearses a picture without a face.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from PIL.Image import Image

FACE_SHARE: Final = 0.6
"""A face's side, of the picture's shorter one."""

FACE_HEIGHT: Final = 0.42
"""Where its middle is, of the picture's height from the top."""


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a picture, in pixels; right and lower edge are outside."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def size(self) -> tuple[int, int]:
        return self.right - self.left, self.bottom - self.top

    @property
    def box(self) -> tuple[int, int, int, int]:
        return self.left, self.top, self.right, self.bottom


def has_face(picture: Image) -> bool:
    """Whether the picture has more than one colour."""
    return any(low != high for low, high in (picture.getchannel(band).getextrema() for band in picture.getbands()))


def face_region(size: tuple[int, int]) -> Region:
    """Where the face is in a picture of this size that has one."""
    width, height = size
    side = max(1, round(min(size) * FACE_SHARE))
    left, top = (width - side) // 2, max(0, round(height * FACE_HEIGHT) - side // 2)
    return Region(left, top, left + side, min(height, top + side))

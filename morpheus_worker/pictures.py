"""What a picture's header says, without decoding it."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, Final

FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "MPO", "AVIF", "PPM", "ICO", "TGA")
"""What counts as a picture, in Pillow's names. Formats that hand their content to another program (EPS) do not."""


class NotAPictureError(ValueError):
    """There is no picture's header."""


def size_of(source: Path | BinaryIO) -> tuple[int, int]:
    """(width, height) in pixels.

    Raises:
        NotAPictureError: for anything but a picture in one of `FORMATS`.
    """
    # Imported here, because only jobs with pictures need it and it takes a tenth of a second.
    from PIL import Image

    Image.init()
    # Pillow's guard against bombs is for those who decode; here it would only keep a large picture's size from us.
    Image.MAX_IMAGE_PIXELS = None
    known: list[str] = [name for name in FORMATS if name in Image.OPEN]
    try:
        with Image.open(source, formats=known) as picture:
            return picture.size
    except (OSError, ValueError, SyntaxError, UserWarning) as failure:
        raise NotAPictureError(str(failure)) from None

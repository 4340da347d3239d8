"""Draws a portrait with an expression: the picture itself, its face a little turned, eyelids and mouth painted on.

The amounts are for the eye only: they are in the ranges of ExpressionEditor's inputs, and what they look like is no
measure of what the real models do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from PIL import Image, ImageDraw, ImageFilter, ImageStat

from morpheus_worker.rehearsal.faces import Region, face_region, has_face
from morpheus_worker.rehearsal.packs.motion import Expression

SHIFT_AT: Final = 250.0
"""Degrees of yaw or pitch that move a face by its own size."""

ROLL: Final = 0.5
"""Degrees that a face turns in the picture, for each degree of roll."""

CLOSED_AT: Final = -15.0
"""Blink at which the eyes are closed."""

OPEN_AT: Final = 120.0
"""`aaa` at which the mouth is wide open."""

_EYES: Final = ((0.32, 0.42), (0.68, 0.42))
_EYE: Final = (0.11, 0.06)
_MOUTH: Final = (0.5, 0.76)
"""Middle and half the size, of the face's own."""


def region_of(picture: Image.Image, *, faceless: bool) -> Region:
    """The face; the whole picture where there is none, as the pack has it."""
    if faceless or not has_face(picture):
        return Region(0, 0, *picture.size)
    return face_region(picture.size)


def posed(picture: Image.Image, region: Region, expression: Expression) -> Image.Image:
    """A new picture of the same size, with the face in this expression."""
    face = picture.crop(region.box)
    if face.size[0] < 2 or face.size[1] < 2:
        return picture.copy()
    painted = _moved(_with_mouth(_with_eyelids(face, expression), expression), expression)
    image = picture.copy()
    image.paste(painted, region.box, _soft_edge(face.size))
    return image


def face_of(picture: Image.Image, region: Region, side: int) -> Image.Image:
    """The face alone, as a square of this side."""
    return picture.crop(region.box).resize((side, side), Image.Resampling.BILINEAR)


def _moved(face: Image.Image, expression: Expression) -> Image.Image:
    width, height = face.size
    shift_x = expression["rotate_yaw"] / SHIFT_AT * width
    shift_y = (expression["rotate_pitch"] / -SHIFT_AT - expression["smile"] / 100) * height
    angle = math.radians(expression["rotate_roll"] * ROLL)
    if not (shift_x or shift_y or angle):
        return face
    across, down, cos, sin = width / 2 + shift_x, height / 2 + shift_y, math.cos(angle), math.sin(angle)
    # Where each point comes from: turned back around the middle, which has moved.
    matrix = (cos, sin, width / 2 - cos * across - sin * down, -sin, cos, height / 2 + sin * across - cos * down)
    turned = face.transform(face.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    # What the turn left empty shows the face as it was.
    filled = Image.new("L", face.size, 255).transform(face.size, Image.Transform.AFFINE, matrix)
    return Image.composite(turned, face, filled)


def _with_eyelids(face: Image.Image, expression: Expression) -> Image.Image:
    shut = [min(1.0, max(0.0, expression["blink"] / CLOSED_AT))] * 2
    shut[0] = max(shut[0], min(1.0, max(0.0, expression["wink"] / 25)))
    if not any(shut):
        return face
    shades = [_shade(face, x, y) for x, y in _EYES]
    return _ovals(
        face, ((*eye, _EYE[0], _EYE[1] * lid, shade) for eye, lid, shade in zip(_EYES, shut, shades, strict=True))
    )


def _with_mouth(face: Image.Image, expression: Expression) -> Image.Image:
    wide = min(1.0, max(0.0, expression["aaa"] / OPEN_AT))
    return _ovals(face, [(*_MOUTH, 0.1, 0.08 * wide, (70, 20, 20))]) if wide else face


def _ovals(face: Image.Image, ovals: Iterable[tuple[float, float, float, float, tuple[int, int, int]]]) -> Image.Image:
    image, (width, height) = face.copy(), face.size
    draw = ImageDraw.Draw(image)
    for x, y, half_width, half_height, colour in ovals:
        box = (
            (x - half_width) * width,
            (y - half_height) * height,
            (x + half_width) * width,
            (y + half_height) * height,
        )
        draw.ellipse(box, fill=colour)
    return image


def _shade(face: Image.Image, x: float, y: float) -> tuple[int, int, int]:
    """What the picture is like above an eye."""
    width, height = face.size
    left, top = round((x - 0.08) * width), round((y - 0.16) * height)
    patch = face.crop((left, top, left + max(1, width // 6), top + max(1, height // 12)))
    red, green, blue = (round(part * 0.9) for part in ImageStat.Stat(patch).mean[:3])
    return red, green, blue


@lru_cache(maxsize=4)
def _soft_edge(size: tuple[int, int]) -> Image.Image:
    width, height = size
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).ellipse((width * 0.06, height * 0.06, width * 0.94, height * 0.94), fill=255)
    return mask.filter(ImageFilter.GaussianBlur(max(1, min(size) // 24)))

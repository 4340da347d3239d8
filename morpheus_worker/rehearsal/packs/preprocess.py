"""The preprocessors of comfyui_controlnet_aux: a picture made of the one that came in, of the size that theirs has.

Source: comfyui_controlnet_aux, node_wrappers/, utils.py `common_annotator_call`, src/custom_controlnet_aux/util.py
`resize_image_with_pad`: the shorter side becomes the `resolution`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from PIL import Image, ImageDraw, ImageFilter, ImageOps

from morpheus_worker.rehearsal import render
from morpheus_worker.rehearsal.call import Call, Outcome
from morpheus_worker.rehearsal.standins import stand_ins
from morpheus_worker.rehearsal.values import Images

DEFAULT_RESOLUTION: Final = 512
LEAST_RESOLUTION: Final = 64
"""In pixels. A smaller one counts as the default."""

SUFFIX: Final = "Preprocessor"
"""What the names of these classes have in them."""

_LINES: Final = ("canny", "lineart", "line", "hed", "pidinet", "scribble", "mlsd", "binary", "teed", "edge", "sketch")
_DEPTHS: Final = ("depth", "midas", "zoe", "leres", "normal", "dsine", "bae")
_POSES: Final = ("pose", "dwpreprocessor", "animal")
_POSE_CLASSES: Final = frozenset({"OpenposePreprocessor", "DWPreprocessor", "AnimalPosePreprocessor"})
"""They report what they found as text, too."""

_JOINTS: Final = (
    (0.50, 0.16),
    (0.50, 0.30),
    (0.36, 0.31),
    (0.30, 0.48),
    (0.28, 0.64),
    (0.64, 0.31),
    (0.70, 0.48),
    (0.72, 0.64),
    (0.42, 0.60),
    (0.41, 0.78),
    (0.40, 0.95),
    (0.58, 0.60),
    (0.59, 0.78),
    (0.60, 0.95),
)
_BONES: Final = (
    *((0, 1), (1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7)),
    *((1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13)),
)
"""A standing person as OpenPose draws one: parts of width and height, and what is joined to what."""


def is_preprocessor(call: Call) -> bool:
    """Whether a class makes a control image of a picture, by its name and outputs."""
    return (
        SUFFIX in call.class_type
        and call.node.outputs[:1] == ("IMAGE",)
        and isinstance(call.inputs.get("image"), Images)
    )


def preprocess(call: Call) -> Outcome:
    images = call.images("image")
    kind = call.text("preprocessor", call.class_type).lower()
    size = _target(images.size, call.integer("resolution", DEFAULT_RESOLUTION))
    look = _look(kind)
    frames = tuple(
        render.labelled(look(frame.resize(size, Image.Resampling.BOX)), render.heading(call.class_type))
        for frame in images.frames
    )
    others = stand_ins(call)[1:]
    if call.class_type in _POSE_CLASSES:
        people = [_people(size) for _ in frames]
        return Outcome((Images(frames), *(people for _ in others)), {"openpose_json": [json.dumps(people, indent=4)]})
    return Outcome((Images(frames), *others))


def _target(size: tuple[int, int], resolution: int) -> tuple[int, int]:
    wanted = resolution if resolution >= LEAST_RESOLUTION else DEFAULT_RESOLUTION
    factor = wanted / min(size)
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _look(kind: str) -> Callable[[Image.Image], Image.Image]:
    for words, look in _LOOKS.items():
        if any(word in kind for word in words):
            return look
    return lambda image: ImageOps.posterize(image, 2)


def _lines(image: Image.Image) -> Image.Image:
    edges = image.convert("L").filter(ImageFilter.FIND_EDGES)
    return ImageOps.autocontrast(edges).convert("RGB")


def _depth(image: Image.Image) -> Image.Image:
    soft = image.convert("L").filter(ImageFilter.GaussianBlur(max(1, min(image.size) // 32)))
    return ImageOps.autocontrast(soft).convert("RGB")


def _pose(image: Image.Image) -> Image.Image:
    """A standing person on black, wherever the one in the picture is."""
    drawn = Image.new("RGB", image.size)
    draw = ImageDraw.Draw(drawn)
    width, height = image.size
    points = [(x * width, y * height) for x, y in _JOINTS]
    thick = max(1, min(image.size) // 96)
    for place, (start, end) in enumerate(_BONES):
        draw.line((*points[start], *points[end]), fill=_colour(place), width=thick)
    for place, (x, y) in enumerate(points):
        draw.ellipse((x - thick, y - thick, x + thick, y + thick), fill=_colour(place))
    return drawn


def _colour(place: int) -> tuple[int, int, int]:
    return (255 - place * 17, 85 + place * 12, place * 18)


def _people(size: tuple[int, int]) -> dict[str, Any]:
    """One person, as OpenPose writes it: x, y and how sure it is, of each joint."""
    keypoints = [part for x, y in _JOINTS for part in (x * size[0], y * size[1], 1.0)]
    person = {
        "pose_keypoints_2d": keypoints,
        "face_keypoints_2d": None,
        "hand_left_keypoints_2d": None,
        "hand_right_keypoints_2d": None,
    }
    return {"people": [person], "canvas_height": size[1], "canvas_width": size[0]}


_LOOKS: Final[Mapping[tuple[str, ...], Callable[[Image.Image], Image.Image]]] = {
    _POSES: _pose,
    _DEPTHS: _depth,
    _LINES: _lines,
}

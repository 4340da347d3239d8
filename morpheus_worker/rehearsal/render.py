"""Pictures, tones and meshes that say what they are. Deterministic: the same facts give the same bytes."""

from __future__ import annotations

import array
import colorsys
import hashlib
import json
import math
import random
import struct
import textwrap
import unicodedata
from collections.abc import Sequence
from typing import Any, Final

from PIL import Image, ImageDraw, ImageFont

from morpheus_worker.rehearsal.facts import Facts
from morpheus_worker.rehearsal.flac import flac
from morpheus_worker.rehearsal.values import Sound

LONGEST_TONE_S: Final = 30.0
LONGEST_SILENCE_S: Final = 600.0
"""A longer sound is cut to this, so that a rehearsal of an hour of music stays one."""

LOUDNESS: Final = 8000
"""Of a tone, where 32,767 is the loudest."""

SHOWN_PROMPT: Final = 240
"""Characters of the prompt that a picture shows."""

SHOWN_UNWANTED: Final = 80
"""Characters of the negative prompt that it shows."""

DISTINCT_PICTURES: Final = 48

_MESH: Final = ((0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.5, 1.0, 0.0))


def pictures(facts: Facts, class_type: str, size: tuple[int, int], count: int) -> tuple[Image.Image, ...]:
    """A batch of soft gradients with text: that this is a rehearsal, the class it stands for, what the graph said.

    The pictures of a batch differ in a bar along the lower edge; a batch longer than `DISTINCT_PICTURES` repeats some.
    """
    base = _gradient(facts, class_type, size)
    lines = [
        *heading(class_type),
        *([f"seed {facts.seed}"] if facts.seed is not None else []),
        *([f"{facts.steps} steps"] if facts.steps is not None else []),
        f"{size[0]} x {size[1]}" + (f", {count} pictures" if count > 1 else ""),
        *facts.settings,
        *facts.model_lines(),
    ]
    _write(base, lines, _words(facts))
    if count == 1:
        return (base,)
    distinct = min(count, DISTINCT_PICTURES)
    drawn = [with_bar(base, (index + 1) / distinct) for index in range(distinct)]
    return spread(drawn, count)


def spread(drawn: Sequence[Image.Image], count: int) -> tuple[Image.Image, ...]:
    """As many pictures as asked for, of fewer: each is shown for a while."""
    return tuple(drawn[index * len(drawn) // count] for index in range(count))


def heading(class_type: str) -> list[str]:
    """What every made picture says first."""
    return ["rehearsal", f"stands for {class_type}"]


def labelled(picture: Image.Image, lines: Sequence[str]) -> Image.Image:
    """A copy of the picture with small words at its upper left."""
    image = picture.copy()
    _write(image, lines, "", smaller=2)
    return image


def _words(facts: Facts) -> str:
    unwanted = f" | without {facts.unwanted[:SHOWN_UNWANTED]}" if facts.unwanted else ""
    return facts.prompt[:SHOWN_PROMPT] + unwanted


def _gradient(facts: Facts, class_type: str, size: tuple[int, int]) -> Image.Image:
    seed = hashlib.sha256(f"{facts.seed}|{facts.prompt}|{class_type}".encode()).digest()
    dice = random.Random(seed)
    hue = dice.random()
    corners = Image.new("RGB", (3, 3))
    for corner in range(9):
        shade = colorsys.hsv_to_rgb(
            (hue + dice.uniform(-0.12, 0.12)) % 1.0, dice.uniform(0.35, 0.7), dice.uniform(0.35, 0.75)
        )
        red, green, blue = (round(255 * part) for part in shade)
        corners.putpixel((corner % 3, corner // 3), (red, green, blue))
    return corners.resize(size, Image.Resampling.BICUBIC)


def _write(image: Image.Image, lines: Sequence[str], prompt: str, *, smaller: int = 1) -> None:
    width, height = image.size
    points = max(8, min(width, height) // (24 * smaller))
    font = ImageFont.load_default(points)
    draw = ImageDraw.Draw(image)
    columns = max(8, int(width * 0.9 / (points * 0.55)))
    text = _plain("\n".join([*lines, *textwrap.wrap(" ".join(prompt.split()), columns)]))
    margin = max(2, width // 24)
    # Dark behind light, so that the words can be read on any colour.
    draw.multiline_text((margin + 1, margin + 1), text, font=font, fill=(0, 0, 0), spacing=points // 3)
    draw.multiline_text((margin, margin), text, font=font, fill=(255, 255, 255), spacing=points // 3)


def _plain(text: str) -> str:
    """In the letters that Pillow's own font has."""
    folded = unicodedata.normalize("NFKD", text).replace("\u2014", "-").replace("\u2013", "-")
    kept = "".join(letter for letter in folded if not unicodedata.combining(letter))
    return kept.encode("ascii", "replace").decode()


def with_bar(base: Image.Image, share: float) -> Image.Image:
    """A copy of the picture with a white bar along this share of its lower edge."""
    image = base.copy()
    width, height = image.size
    bar = (0, height - max(1, height // 64), max(1, round(width * share)), height)
    ImageDraw.Draw(image).rectangle(bar, fill=(255, 255, 255))
    return image


def pitch_of(facts: Facts) -> float:
    """A tone between 220 and 880 Hz that belongs to the facts."""
    seed = hashlib.sha256(f"{facts.seed}|{facts.prompt}".encode()).digest()
    return 220.0 * 2 ** (seed[0] / 128)


def sound_file(sound: Sound) -> bytes:
    """The sound as a FLAC file; a tone is at most `LONGEST_TONE_S` long, silence as long as it should be."""
    seconds = min(sound.seconds, LONGEST_TONE_S) if sound.pitch_hz else sound.seconds
    count = max(1, round(min(seconds, LONGEST_SILENCE_S) * sound.rate))
    step = 2 * math.pi * sound.pitch_hz / sound.rate
    tone = (round(LOUDNESS * math.sin(step * index)) for index in range(count))
    return flac(
        array.array("h", tone) if sound.pitch_hz else array.array("h", bytes(2 * count)), sound.rate, sound.channels
    )


def glb(metadata: dict[str, str]) -> bytes:
    """A triangle as a binary glTF 2.0 file."""
    points = b"".join(struct.pack("<3f", *point) for point in _MESH)
    faces = struct.pack("<3I", 0, 1, 2)
    views = [
        {"buffer": 0, "byteOffset": 0, "byteLength": len(points), "target": 34962},
        {"buffer": 0, "byteOffset": len(points), "byteLength": len(faces), "target": 34963},
    ]
    bounds = {
        "min": [min(axis) for axis in zip(*_MESH, strict=True)],
        "max": [max(axis) for axis in zip(*_MESH, strict=True)],
    }
    described: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "rehearsal", **({"extras": metadata} if metadata else {})},
        "buffers": [{"byteLength": len(points) + len(faces)}],
        "bufferViews": views,
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3", **bounds},
            {"bufferView": 1, "componentType": 5125, "count": 3, "type": "SCALAR"},
        ],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1, "mode": 4}]}],
        "nodes": [{"mesh": 0}],
        "scenes": [{"nodes": [0]}],
        "scene": 0,
    }
    text = json.dumps(described).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text
    chunks += struct.pack("<I4s", len(points) + len(faces), b"BIN\0") + points + faces
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def blank_mask(size: tuple[int, int]) -> Image.Image:
    return Image.new("L", size, 255)

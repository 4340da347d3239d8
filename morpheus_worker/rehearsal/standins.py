"""What stands for the work of a real ComfyUI: a labelled picture, a tone, a value that says what it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from morpheus_worker.rehearsal import render
from morpheus_worker.rehearsal.call import Call
from morpheus_worker.rehearsal.faces import face_region, has_face
from morpheus_worker.rehearsal.footage import DEFAULT_FPS, Footage, read_footage
from morpheus_worker.rehearsal.values import DEFAULT_SIDE, Clip, Images, Latent, Masks, Segments, Sound, StandIn

DEFAULT_SOUND_S: Final = 5.0
LARGEST_BATCH: Final = 1024


def stand_ins(call: Call) -> tuple[Any, ...]:
    """One value for each of the class's outputs."""
    return tuple(_MAKERS[kind](call) if kind in _MAKERS else _stand_in(call, kind) for kind in call.node.outputs)


def _images(call: Call) -> Images:
    latent, given = call.first(Latent), call.first(Images)
    count = latent.batch if latent else len(given.frames) if given else _count(call)
    return Images(render.pictures(call.facts, call.class_type, _size(call), min(count, LARGEST_BATCH)))


def _masks(call: Call) -> Masks:
    return call.first(Masks) or Masks((render.blank_mask(_size(call)),))


def _latent(call: Call) -> Latent:
    given = call.first(Latent) or Latent(batch=0)
    images = call.first(Images)
    width, height = _size(call)
    batch = given.batch or (len(images.frames) if images else 1)
    batch = _count(call) if any(name in call.inputs for name in ("length", "video_frames", "batch_size")) else batch
    seconds = call.number("seconds", 0.0) or given.seconds
    return Latent(width, height, batch * max(1, call.integer("amount", 1)), seconds)


def _count(call: Call) -> int:
    """Pictures in a batch, by the inputs that name such a number."""
    frames = call.integer("length", 0) or call.integer("video_frames", 0) or 1
    return max(1, call.integer("batch_size", 1)) * max(1, frames)


def _size(call: Call) -> tuple[int, int]:
    """Width and height: as asked for, else as large as what came in, else the default."""
    width, height = call.integer("width", 0), call.integer("height", 0)
    if width > 0 and height > 0:
        return width, height
    factor = call.number("scale_by", 1.0)
    if (latent := call.first(Latent)) is not None:
        return max(1, round(latent.width * factor)), max(1, round(latent.height * factor))
    given = call.first(Images) or call.first(Masks)
    return given.size if given is not None else (DEFAULT_SIDE, DEFAULT_SIDE)


def _sound(call: Call) -> Sound:
    if (given := call.first(Sound)) is not None:
        return given
    latent = call.first(Latent)
    latent_s = latent.seconds if latent else None
    seconds = latent_s or call.number("seconds", 0.0) or call.number("duration", 0.0) or DEFAULT_SOUND_S
    return Sound(seconds, pitch_hz=render.pitch_of(call.facts))


def _clip(call: Call) -> Clip:
    if "file" not in call.inputs:
        return Clip(_images(call), call.number("fps", DEFAULT_FPS))
    path = call.folders.annotated(call.text("file"))
    footage = read_footage(path, LARGEST_BATCH)
    return Clip(
        pictures_of(call, footage), footage.fps, str(path), Sound(footage.seconds) if footage.has_sound else None
    )


def pictures_of(call: Call, footage: Footage) -> Images:
    """Those of a clip, or, where they cannot be read, as many that say what they stand for."""
    count = min(footage.count, LARGEST_BATCH)
    return Images(footage.pictures or render.pictures(call.facts, call.class_type, footage.size, count))


def _segments(call: Call) -> Segments:
    """Those that came in, or what a detector finds in the first picture."""
    return call.first(Segments) or segments_in(call)


def segments_in(call: Call) -> Segments:
    """The face of the first picture that came in; none where it has none."""
    images = call.first(Images)
    if images is None:
        return Segments(_size(call), ())
    seen = has_face(images.frames[0]) and not call.faceless
    return Segments(images.size, (face_region(images.size),) if seen else ())


def _literal(kind: type[int] | type[float] | type[str] | type[bool]) -> Callable[[Call], Any]:
    """The first input of this very type, else an empty value."""
    return lambda call: next((value for value in call.inputs.values() if type(value) is kind), kind())


def _stand_in(call: Call, kind: str) -> StandIn:
    given = next((value.label for value in call.inputs.values() if isinstance(value, StandIn) and value.label), "")
    return StandIn(kind, call.class_type, ", ".join(call.facts.models) or given)


_MAKERS: Final[Mapping[str, Callable[[Call], Any]]] = {
    "IMAGE": _images,
    "MASK": _masks,
    "LATENT": _latent,
    "AUDIO": _sound,
    "VIDEO": _clip,
    "SEGS": _segments,
    "INT": _literal(int),
    "FLOAT": _literal(float),
    "STRING": _literal(str),
    "BOOLEAN": _literal(bool),
}

"""What stands for the work of a real ComfyUI: a labelled picture, a tone, a value that says what it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from morpheus_worker.rehearsal import render
from morpheus_worker.rehearsal.call import Call
from morpheus_worker.rehearsal.values import DEFAULT_SIDE, Clip, Images, Latent, Masks, Sound, StandIn

DEFAULT_SOUND_S: Final = 5.0
DEFAULT_FPS: Final = 24.0
LARGEST_BATCH: Final = 1024


def stand_ins(call: Call) -> tuple[Any, ...]:
    """One value for each of the class's outputs."""
    return tuple(_MAKERS[kind](call) if kind in _MAKERS else _stand_in(call, kind) for kind in call.node.outputs)


def _images(call: Call) -> Images:
    latent, given = call.first(Latent), call.first(Images)
    count = latent.batch if latent else len(given.frames) if given else _count(call)
    return Images(render.pictures(call.facts, call.class_type, _size(call), min(count, LARGEST_BATCH)))


def _masks(call: Call) -> Masks:
    given: Masks | None = call.first(Masks)
    return given or Masks((render.blank_mask(_size(call)),))


def _latent(call: Call) -> Latent:
    given: Latent = call.first(Latent) or Latent(batch=0)
    images: Images | None = call.first(Images)
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
    given = next((value for value in call.inputs.values() if isinstance(value, Sound)), None)
    if given is not None:
        return given
    latent: Latent | None = call.first(Latent)
    latent_s = latent.seconds if latent else None
    seconds = latent_s or call.number("seconds", 0.0) or call.number("duration", 0.0) or DEFAULT_SOUND_S
    return Sound(seconds, pitch_hz=render.pitch_of(call.facts))


def _clip(call: Call) -> Clip:
    source = str(call.folders.annotated(call.text("file"))) if "file" in call.inputs else None
    return Clip(_images(call), call.number("fps", DEFAULT_FPS), source)


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
    "INT": _literal(int),
    "FLOAT": _literal(float),
    "STRING": _literal(str),
    "BOOLEAN": _literal(bool),
}

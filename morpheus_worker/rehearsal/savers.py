"""Output nodes: they write files as ComfyUI does, and report them as it does.

Source: ComfyUI 0.3.64, nodes.py, comfy_api/latest/_ui.py, comfy_extras/nodes_images.py, nodes_audio.py, nodes_video.py,
nodes_hunyuan3d.py, nodes_preview_any.py, nodes_model_merging.py, nodes_lora_extract.py, nodes_train.py. Names, folders
and reports are ComfyUI's. Where it would need an encoder, the content is of another kind and the name says so: every
sound is a FLAC file, every clip Motion JPEG in MP4.
"""

from __future__ import annotations

import json
import random
import string
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from PIL.Image import Image
from PIL.PngImagePlugin import PngInfo

from morpheus_worker.rehearsal import render
from morpheus_worker.rehearsal.call import Call
from morpheus_worker.rehearsal.clip import mp4
from morpheus_worker.rehearsal.folders import FolderType
from morpheus_worker.rehearsal.values import Clip, Latent, Sound
from morpheus_worker.rehearsal.weights import latent_file, model_file

DEFAULT_PREFIX: Final = "ComfyUI"
_EXIF_MODEL: Final = 0x0110
_EXIF_MAKE: Final = 0x010F
_WEBP_METHODS: Final = {"default": 4, "fastest": 0, "slowest": 6}

_TEXT_ENCODER: Final = "clip_l"
"""CLIPSave writes a file for each of a model's text encoders; the models of a rehearsal have one."""

Report = dict[str, Any]


def save_image(call: Call) -> Report:
    return _pictures(call, call.images("images").frames, "output", compress_level=4)


def preview_image(call: Call) -> Report:
    return _pictures(call, call.images("images").frames, "temp", compress_level=1)


def preview_mask(call: Call) -> Report:
    frames = [frame.convert("RGB") for frame in call.masks("mask").frames]
    return _pictures(call, frames, "temp", compress_level=4)


def _pictures(call: Call, frames: Sequence[Image], kind: FolderType, *, compress_level: int) -> Report:
    saved = []
    target = call.folders.target(_prefix(call, kind), kind, *frames[0].size)
    for index, frame in enumerate(frames):
        name = target.file(index, ".png")
        frame.save(target.folder / name, "PNG", pnginfo=_png_notes(call), compress_level=compress_level)
        saved.append(_ref(name, target.subfolder, kind))
    return {"images": saved}


def _prefix(call: Call, kind: FolderType) -> str:
    """A preview's name has a part of its own, so that two nodes do not count on from each other."""
    prefix = call.text("filename_prefix", DEFAULT_PREFIX)
    return prefix if kind != "temp" else f"{prefix}_temp_{''.join(random.choices(string.ascii_lowercase, k=5))}"


def _png_notes(call: Call) -> PngInfo | None:
    notes = PngInfo()
    for name, text in call.notes().items():
        notes.add_text(name, text)
    return notes if call.metadata else None


def _ref(name: str, subfolder: str, kind: str) -> dict[str, str]:
    return {"filename": name, "subfolder": subfolder, "type": kind}


def save_animated_webp(call: Call) -> Report:
    frames = call.images("images").frames
    exif = frames[0].getexif()
    for tag, (name, text) in zip((_EXIF_MODEL, *range(_EXIF_MAKE, 0, -1)), call.notes().items(), strict=False):
        exif[tag] = f"{name}:{text}"
    return _animated(
        call,
        ".webp",
        animated=len(frames) != 1,
        exif=exif,
        lossless=bool(call.inputs.get("lossless", True)),
        quality=call.integer("quality", 80),
        method=_WEBP_METHODS.get(call.text("method"), 4),
    )


def save_animated_png(call: Call) -> Report:
    notes = PngInfo()
    for name, text in call.notes().items():
        notes.add(
            b"comf", name.encode("latin-1", "replace") + b"\0" + text.encode("latin-1", "replace"), after_idat=True
        )
    return _animated(call, ".png", animated=True, pnginfo=notes, compress_level=call.integer("compress_level", 4))


def _animated(call: Call, suffix: str, *, animated: bool, **how: Any) -> Report:
    frames = call.images("images").frames
    target = call.folders.target(call.text("filename_prefix", DEFAULT_PREFIX), "output", *frames[0].size)
    name = target.file(0, suffix)
    duration_ms = int(1000.0 / call.number("fps", 6.0))
    frames[0].save(target.folder / name, save_all=True, duration=duration_ms, append_images=frames[1:], **how)
    return {"images": [_ref(name, target.subfolder, "output")], "animated": [animated]}


def save_audio(call: Call) -> Report:
    return _sound(call, "output")


def preview_audio(call: Call) -> Report:
    return _sound(call, "temp")


def _sound(call: Call, kind: FolderType) -> Report:
    sound = call.inputs.get("audio")
    if not isinstance(sound, Sound):
        raise TypeError(f"{call.class_type}: audio is not a sound but {sound!s}")
    return {"audio": [_written(call, kind, ".flac", render.sound_file(sound))]}


def save_video(call: Call) -> Report:
    clip = call.inputs.get("video")
    if not isinstance(clip, Clip):
        raise TypeError(f"{call.class_type}: video is not a clip but {clip!s}")
    if clip.source is not None:
        source = Path(clip.source)
        return _moving(_written(call, "output", source.suffix or ".mp4", source.read_bytes()))
    return _moving(_written(call, "output", ".mp4", mp4(clip.images.frames, clip.fps), clip.images.size))


def save_webm(call: Call) -> Report:
    images = call.images("images")
    content = mp4(images.frames, call.number("fps", 24.0))
    return _moving(_written(call, "output", ".mp4", content, images.size))


def _moving(ref: dict[str, str]) -> Report:
    return {"images": [ref], "animated": [True]}


def save_latent(call: Call) -> Report:
    latent = call.inputs.get("samples")
    if not isinstance(latent, Latent):
        raise TypeError(f"{call.class_type}: samples is not a latent but {latent!s}")
    shape = (latent.batch, 4, max(1, latent.height // 8), max(1, latent.width // 8))
    return {"latents": [_written(call, "output", ".latent", latent_file(shape, call.notes()))]}


def save_glb(call: Call) -> Report:
    return {"3d": [_written(call, "output", ".glb", render.glb(call.notes()))]}


def _written(
    call: Call, kind: FolderType, suffix: str, content: bytes, size: tuple[int, int] = (0, 0)
) -> dict[str, str]:
    target = call.folders.target(_prefix(call, kind), kind, *size)
    name = target.file(0, suffix)
    (target.folder / name).write_bytes(content)
    return _ref(name, target.subfolder, kind)


def save_model(call: Call) -> None:
    """Writes a file and reports nothing, as ComfyUI's savers of checkpoints, models and LoRAs do."""
    given = call.text("filename_prefix") or call.text("prefix", DEFAULT_PREFIX)
    prefix = f"{given}_{_TEXT_ENCODER}" if call.class_type == "CLIPSave" else given
    target = call.folders.target(prefix, "output")
    steps = f"{call.integer('steps', 0)}_steps_" if "steps" in call.inputs else ""
    name = f"{target.name}_{steps}{target.first:05}_.safetensors"
    (target.folder / name).write_bytes(model_file(call.notes()))


def preview_any(call: Call) -> Report:
    source = call.inputs.get("source")
    if isinstance(source, str):
        return {"text": [source]}
    if isinstance(source, (int, float)):
        return {"text": [str(source)]}
    try:
        return {"text": [json.dumps(source) if source is not None else "None"]}
    except TypeError:
        return {"text": [str(source)]}


def preview_3d(call: Call) -> Report:
    return {"result": [call.text("model_file"), None]}


SAVERS: Final[Mapping[str, Callable[[Call], Report | None]]] = {
    "SaveImage": save_image,
    "PreviewImage": preview_image,
    "MaskPreview": preview_mask,
    "SaveAnimatedWEBP": save_animated_webp,
    "SaveAnimatedPNG": save_animated_png,
    "SaveAudio": save_audio,
    "SaveAudioMP3": save_audio,
    "SaveAudioOpus": save_audio,
    "PreviewAudio": preview_audio,
    "SaveVideo": save_video,
    "SaveWEBM": save_webm,
    "SaveLatent": save_latent,
    "SaveGLB": save_glb,
    "PreviewAny": preview_any,
    "Preview3D": preview_3d,
    "Preview3DAnimation": preview_3d,
    **dict.fromkeys(
        ("CheckpointSave", "ImageOnlyCheckpointSave", "ModelSave", "CLIPSave", "VAESave", "LoraSave", "SaveLoRANode"),
        save_model,
    ),
}
"""By class type: what the node reports to show, once it has written its files; None where it says nothing of them.
Other output nodes report nothing."""

"""ComfyUI-VideoHelperSuite's node that joins pictures to a clip.

Source: ComfyUI-VideoHelperSuite, videohelpersuite/nodes.py `VideoCombine`, video_formats/. Names, numbers and reports
are the pack's. It would encode with ffmpeg; here every clip is Motion JPEG in MP4, without sound, so where the asked
format's file would have another ending, the name ends in `.mp4` all the same.
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from morpheus_worker.rehearsal import render
from morpheus_worker.rehearsal.call import Call, Outcome
from morpheus_worker.rehearsal.clip import mp4
from morpheus_worker.rehearsal.folders import Target
from morpheus_worker.rehearsal.standins import LARGEST_BATCH
from morpheus_worker.rehearsal.values import Images, Latent, Sound

DEFAULT_PREFIX: Final = "AnimateDiff"
DEFAULT_RATE: Final = 8.0
_EVEN: Final = 2
"""What a clip's width and height are multiples of; the pack adds to the edges what is missing."""

_SEQUENCES: Final = frozenset({"8bit-png", "16bit-png"})
_GIFS: Final = frozenset({"ffmpeg-gif", "gifski"})
_SILENT: Final = frozenset({"gifski"})


def combine(call: Call) -> Outcome:
    """A still with the graph, the clip, and, with sound, the clip again: the last of them is reported."""
    images = _given_pictures(call)
    kept = bool(call.inputs.get("save_output", True))
    if images is None:
        return Outcome(((kept, ()),))
    made = _Making(call, images, call.folders.target(call.text("filename_prefix", DEFAULT_PREFIX), _kind(kept)))
    files = made.files()
    preview = {
        "filename": _reported_name(files[-1], len(images.frames)),
        "subfolder": made.target.subfolder,
        "type": _kind(kept),
        "format": made.reported_format,
        "frame_rate": call.inputs.get("frame_rate", DEFAULT_RATE),
        "workflow": files[0],
        "fullpath": str(made.target.folder / files[-1]),
    }
    paths = tuple(str(made.target.folder / name) for name in files)
    return Outcome(((kept, paths),), {"gifs": [preview]})


def _kind(kept: bool) -> Any:
    return "output" if kept else "temp"


def _reported_name(name: str, count: int) -> str:
    """A sequence is reported by its pattern, unless it is one picture."""
    return name.replace("%03d", "001") if count == 1 else name


def _given_pictures(call: Call) -> Images | None:
    """With a VAE, latents count as pictures."""
    latent = call.given("images", Latent)
    if latent is not None and call.inputs.get("vae") is not None:
        size = latent.width, latent.height
        return Images(render.pictures(call.facts, call.class_type, size, min(latent.batch, LARGEST_BATCH)))
    return call.images("images") if call.inputs.get("images") is not None else None


@dataclass(frozen=True, slots=True)
class _Making:
    """One clip on its way to the folder."""

    call: Call
    images: Images
    target: Target

    @property
    def format(self) -> str:
        return self.call.text("format", "image/gif")

    @property
    def reported_format(self) -> str:
        if self.format == "video/gifski":
            return "image/gif"
        return "image/png" if self._is_sequence and len(self.images.frames) == 1 else self.format

    @property
    def _codec(self) -> str:
        return self.format.partition("/")[2]

    @property
    def _is_sequence(self) -> bool:
        return self._codec in _SEQUENCES

    def files(self) -> list[str]:
        """Writes them, and gives their names: the still first, what is to be shown last."""
        stem = f"{self.target.name}_{_next_number(self.target):05}"
        still = f"{stem}.png"
        if self._workflow_wish("VHS_MetadataImage"):
            notes = _png_notes(self.call)
            self.images.frames[0].save(self.target.folder / still, pnginfo=notes, compress_level=4)
        return [still, *self._moving(stem)]

    def _workflow_wish(self, name: str) -> bool:
        """What the editor's own settings ask for, which travel with the workflow; yes by default."""
        workflow = self.call.extra_pnginfo().get("workflow")
        extra = workflow.get("extra") if isinstance(workflow, Mapping) else None
        return not isinstance(extra, Mapping) or extra.get(name, True) is not False

    def _moving(self, stem: str) -> list[str]:
        rate = self.call.number("frame_rate", DEFAULT_RATE)
        frames = _pingpong(self.images.frames) if self.call.inputs.get("pingpong") else self.images.frames
        if self.format.startswith("image/") or self._codec in _GIFS:
            return [self._animation(stem, frames, rate)]
        if self._is_sequence:
            for number, frame in enumerate(frames, 1):
                frame.save(self.target.folder / f"{stem}.{number:03d}.png")
            return [f"{stem}.%03d.png"]
        return self._video(stem, frames * (1 + max(0, self.call.integer("loop_count", 0))), rate)

    def _animation(self, stem: str, frames: Sequence[Image.Image], rate: float) -> str:
        kind = "gif" if self._codec in _GIFS else self._codec
        name = f"{stem}.{kind}"
        how = {"lossless": bool(self.call.inputs.get("lossless", True))} if kind == "webp" else {"disposal": 2}
        frames[0].save(
            self.target.folder / name,
            format=kind.upper(),
            save_all=True,
            append_images=frames[1:],
            duration=round(1000 / rate),
            loop=self.call.integer("loop_count", 0),
            **how,
        )
        return name

    def _video(self, stem: str, frames: Sequence[Image.Image], rate: float) -> list[str]:
        content = mp4(_even(frames), rate)
        with_sound = isinstance(self.call.inputs.get("audio"), Sound) and self._codec not in _SILENT
        names = [f"{stem}.mp4", *([f"{stem}-audio.mp4"] if with_sound else [])]
        for name in names:
            (self.target.folder / name).write_bytes(content)
        if with_sound and not self._workflow_wish("VHS_KeepIntermediate"):
            (self.target.folder / names.pop(0)).unlink()
        return names


def _next_number(target: Target) -> int:
    """One more than any file of the name has, whatever its ending."""
    taken = re.compile(rf"{re.escape(target.name)}_(\d+)\D*\..+", re.IGNORECASE)
    return max((int(found[1]) for name in os.listdir(target.folder) if (found := taken.fullmatch(name))), default=0) + 1


def _png_notes(call: Call) -> PngInfo:
    notes = PngInfo()
    for name, text in call.notes().items():
        notes.add_text(name, text)
    notes.add_text("CreationTime", datetime.datetime.now().isoformat(" ")[:19])
    return notes


def _pingpong(frames: tuple[Image.Image, ...]) -> tuple[Image.Image, ...]:
    """There and back, neither end twice."""
    return frames + frames[-2:0:-1]


def _even(frames: Sequence[Image.Image]) -> Sequence[Image.Image]:
    """An odd edge is repeated. Equal pictures stay one."""
    width, height = frames[0].size
    size = width + width % _EVEN, height + height % _EVEN
    if size == (width, height):
        return frames
    padded = {id(frame): frame.transform(size, Image.Transform.EXTENT, (0, 0, *size)) for frame in frames}
    for frame in frames:
        wide = padded[id(frame)]
        wide.paste(frame.crop((width - 1, 0, width, height)), (size[0] - 1, 0))
        wide.paste(wide.crop((0, height - 1, size[0], height)), (0, size[1] - 1))
        wide.paste(frame, (0, 0))
    return [padded[id(frame)] for frame in frames]


VIDEO: Final[Mapping[str, Callable[[Call], Outcome]]] = {"VHS_VideoCombine": combine}

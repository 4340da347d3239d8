"""ComfyUI-VideoHelperSuite's nodes that load clips and folders of pictures.

Source: ComfyUI-VideoHelperSuite, videohelpersuite/load_video_nodes.py, load_images_nodes.py, nodes.py `VideoInfo`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from PIL import Image

from morpheus_worker.rehearsal.call import Call, Outcome
from morpheus_worker.rehearsal.footage import Footage, read_footage
from morpheus_worker.rehearsal.plumbing import centre_scaled, pictures_in
from morpheus_worker.rehearsal.standins import pictures_of
from morpheus_worker.rehearsal.values import Images, Masks, Sound

MOST_LOADED: Final = 4096
"""Pictures that are read of a clip before some are chosen."""

_ALIGNED: Final[Mapping[str, int]] = {
    "AnimateDiff": 8,
    "Mochi": 16,
    "LTXV": 32,
    "Hunyuan": 16,
    "Cosmos": 16,
    "Wan": 8,
}
"""By the load format: what width and height are multiples of."""

_GROUPS: Final[Mapping[str, tuple[int, int]]] = {
    "Mochi": (6, 1),
    "LTXV": (8, 1),
    "Hunyuan": (4, 1),
    "Cosmos": (8, 1),
    "Wan": (4, 1),
}
"""By the load format: a number of pictures that does not leave this rest is cut to one that does."""


def load_video(call: Call) -> Outcome:
    """The chosen pictures of a clip, their number, its sound, and what there is to say of it.

    Raises:
        OSError: when the file cannot be read.
        RuntimeError: when nothing is left of it.
    """
    path = _video_path(call)
    footage = read_footage(path, MOST_LOADED)
    rate = call.number("force_rate", 0.0) or footage.fps
    frames = _chosen(call, pictures_of(call, footage).frames, footage, rate)
    if not frames:
        raise RuntimeError("No frames generated")
    images = _resized(call, Images(frames))
    sound = Sound(len(images.frames) / rate) if footage.has_sound else None
    told = _told(footage, images, rate / max(1, call.integer("select_every_nth", 1)))
    second: Any = len(images.frames) if call.node.outputs[1:2] == ("INT",) else Masks((Image.new("L", (64, 64)),))
    return Outcome((images, second, sound, told))


def _video_path(call: Call) -> Path:
    name = call.text("video").strip().strip('"')
    return Path(name) if call.class_type.endswith("Path") else call.folders.annotated(name)


def _chosen(call: Call, frames: Sequence[Image.Image], footage: Footage, rate: float) -> tuple[Image.Image, ...]:
    """At the forced rate pictures are shown for longer or left out; then the first ones are skipped, of the others one
    in so many is taken, and no more than asked for."""
    count = min(len(frames), footage.count)
    timed = [
        frames[min(count - 1, int(index * footage.fps / rate))] for index in range(int(count * rate / footage.fps))
    ]
    first = call.integer("skip_first_frames", 0) or int(call.number("start_time", 0.0) * rate)
    chosen = timed[first :: max(1, call.integer("select_every_nth", 1))]
    most = call.integer("frame_load_cap", 0)
    chosen = chosen[:most] if most else chosen
    group, rest = _GROUPS.get(call.text("format"), (1, 0))
    return tuple(chosen[: (len(chosen) - rest) // group * group + rest])


def _resized(call: Call, images: Images) -> Images:
    width, height = images.size
    wide, high = call.integer("custom_width", 0), call.integer("custom_height", 0)
    multiple = _ALIGNED.get(call.text("format"), 1)
    if wide and not high:
        wide, high = wide, round(height * wide / width)
    elif high and not wide:
        wide, high = round(width * high / height), high
    target = [int((side or own) / multiple + 0.5) * multiple for side, own in ((wide, width), (high, height))]
    size = max(1, target[0]), max(1, target[1])
    return images if size == images.size else centre_scaled(images, size, Image.Resampling.LANCZOS)


def _told(footage: Footage, images: Images, rate: float) -> dict[str, Any]:
    """The pack's `VHS_VIDEOINFO`."""
    source = (footage.fps, footage.count, footage.seconds, *footage.size)
    loaded = (rate, len(images.frames), len(images.frames) / rate, *images.size)
    names = ("fps", "frame_count", "duration", "width", "height")
    return {
        f"{side}_{name}": value
        for side, values in (("source", source), ("loaded", loaded))
        for name, value in zip(names, values, strict=True)
    }


def video_info(*sides: str) -> Callable[[Call], Outcome]:
    """The numbers of one side, or of both."""

    def told(call: Call) -> Outcome:
        info = call.inputs.get("video_info")
        known = info if isinstance(info, Mapping) else {}
        names = ("fps", "frame_count", "duration", "width", "height")
        return Outcome(tuple(known.get(f"{side}_{name}", 0) for side in sides for name in names))

    return told


def load_images(call: Call) -> Outcome:
    """The pictures of a folder, in the order of their names, all of the size that most of them have.

    Raises:
        FileNotFoundError: when there is no such folder, or no picture in it.
    """
    named = call.text("directory")
    directory = Path(named) if call.class_type.endswith("Path") else call.folders.annotated(named)
    if not directory.is_dir():
        raise FileNotFoundError(f"Directory '{directory} cannot be found.")
    nth, first = max(1, call.integer("select_every_nth", 1)), call.integer("skip_first_images", 0)
    pictures = pictures_in(directory, turned=True)[first::nth]
    most = call.integer("image_load_cap", 0)
    pictures = pictures[:most] if most else pictures
    if not pictures:
        raise FileNotFoundError(f"No files in directory '{directory}'.")
    sizes = [picture.size for picture in pictures]
    common = max(dict.fromkeys(sizes), key=sizes.count)
    frames = [centre_scaled(Images((picture,)), common, Image.Resampling.LANCZOS).frames[0] for picture in pictures]
    masks = Masks(tuple(Image.new("L", (64, 64)) for _ in frames))
    return Outcome((Images(tuple(frames)), masks, len(frames)))


LOADING: Final[Mapping[str, Callable[[Call], Outcome]]] = {
    **dict.fromkeys(
        ("VHS_LoadVideo", "VHS_LoadVideoPath", "VHS_LoadVideoFFmpeg", "VHS_LoadVideoFFmpegPath"), load_video
    ),
    **dict.fromkeys(("VHS_LoadImages", "VHS_LoadImagesPath"), load_images),
    "VHS_VideoInfo": video_info("source", "loaded"),
    "VHS_VideoInfoSource": video_info("source"),
    "VHS_VideoInfoLoaded": video_info("loaded"),
}

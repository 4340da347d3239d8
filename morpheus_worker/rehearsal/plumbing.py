"""Nodes of ComfyUI that a rehearsal carries out for real: they load, make, scale, turn and join pictures.

Source: ComfyUI 0.3.64, nodes.py, comfy_extras/nodes_images.py, nodes_mask.py, nodes_post_processing.py, and
comfy/utils.py `common_upscale`.
"""

from __future__ import annotations

import contextlib
import math
import wave
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from PIL import Image, ImageFile, ImageOps, ImageSequence

from morpheus_worker.rehearsal.call import Call
from morpheus_worker.rehearsal.values import Clip, Images, Latent, Masks, Sound, StandIn

_NO_MASK: Final = (64, 64)
"""Size of the mask of a picture without transparency, in pixels."""

UNKNOWN_SOUND_S: Final = 1.0
"""Length of a loaded sound that is no WAV file, in seconds."""

_PICTURE_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".webp"})
"""What ComfyUI loads of a folder."""

_METHODS: Final[Mapping[str, Image.Resampling]] = {
    "nearest-exact": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_CHANNELS: Final = {"red": "R", "green": "G", "blue": "B", "alpha": "A"}


def _method(call: Call) -> Image.Resampling:
    return _METHODS.get(call.text("upscale_method"), Image.Resampling.BICUBIC)


def _resized(images: Images, size: tuple[int, int], method: Image.Resampling) -> Images:
    return Images(tuple(frame.resize(size, method) for frame in images.frames))


def _centre_cropped(images: Images, width: int, height: int) -> Images:
    """Cut to the proportions of width and height, around the middle."""
    old_width, old_height = images.size
    old, new = old_width / old_height, width / height
    x = round((old_width - old_width * new / old) / 2) if old > new else 0
    y = round((old_height - old_height * old / new) / 2) if old < new else 0
    return Images(tuple(frame.crop((x, y, old_width - x, old_height - y)) for frame in images.frames))


def centre_scaled(images: Images, size: tuple[int, int], method: Image.Resampling) -> Images:
    """Cut to the proportions of the size, around the middle, and scaled to it."""
    return images if images.size == size else _resized(_centre_cropped(images, *size), size, method)


def empty_image(call: Call) -> tuple[Any, ...]:
    colour = call.integer("color", 0)
    size = (call.integer("width", 512), call.integer("height", 512))
    frame = Image.new("RGB", size, ((colour >> 16) & 255, (colour >> 8) & 255, colour & 255))
    return (Images((frame,) * call.integer("batch_size", 1)),)


def load_image(call: Call) -> tuple[Any, ...]:
    path = call.folders.annotated(call.text("image"))
    frames: list[Image.Image] = []
    masks: list[Image.Image] = []
    with _opened(path) as opened:
        for raw in ImageSequence.Iterator(opened):
            turned = ImageOps.exif_transpose(raw)
            frame = turned.convert("RGB")
            # A picture of another size cannot join the batch, and MPO holds second views of the same picture.
            if frames and (frame.size != frames[0].size or opened.format == "MPO"):
                continue
            frames.append(frame)
            masks.append(_transparency(turned))
    return Images(tuple(frames)), Masks(tuple(masks))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """ComfyUI takes what there is of a picture that was cut short (0.3.64, node_helpers.py `pillow`)."""
    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
    try:
        with Image.open(path) as opened:
            yield opened
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def _transparency(image: Image.Image) -> Image.Image:
    if "A" in image.getbands():
        return ImageOps.invert(image.getchannel("A"))
    if image.mode == "P" and "transparency" in image.info:
        return ImageOps.invert(image.convert("RGBA").getchannel("A"))
    return Image.new("L", _NO_MASK, 0)


def load_image_mask(call: Call) -> tuple[Any, ...]:
    channel = _CHANNELS.get(call.text("channel"), "A")
    with _opened(call.folders.annotated(call.text("image"))) as opened:
        mask = ImageOps.exif_transpose(opened).convert("RGBA").getchannel(channel)
    return (Masks((ImageOps.invert(mask) if channel == "A" else mask,)),)


def pictures_in(folder: Path, *, turned: bool) -> list[Image.Image]:
    """The pictures of a folder, in the order of their names; `turned` as they say that they are to be shown.

    Raises:
        OSError: when the folder or a picture cannot be read.
    """
    return [_read(path, turned=turned) for path in sorted(folder.iterdir()) if path.suffix.lower() in _PICTURE_SUFFIXES]


def _read(path: Path, *, turned: bool) -> Image.Image:
    with _opened(path) as opened:
        return (ImageOps.exif_transpose(opened) if turned else opened).convert("RGB")


def load_image_set(call: Call) -> tuple[Any, ...]:
    """All pictures of a folder, of the first one's size or made to be.

    Raises:
        ValueError: in ComfyUI's words, when there are none, or of several sizes that are to stay.
    """
    pictures = pictures_in(call.folders.input / call.text("folder"), turned=False)
    if not pictures:
        raise ValueError("No valid images found in input")
    size = pictures[0].size
    asked = call.integer("width", -1), call.integer("height", -1)
    size = asked if min(asked) > 0 else size
    return (Images(tuple(_fitted(picture, size, call.text("resize_method", "None")) for picture in pictures)),)


def _fitted(picture: Image.Image, size: tuple[int, int], method: str) -> Image.Image:
    if picture.size == size:
        return picture
    if method == "None":
        raise ValueError(
            "Your input image size does not match the first image in the dataset. Either select a valid resize method "
            "or use the same size for all images."
        )
    return picture.crop((0, 0, *size)) if method == "Crop" else picture.resize(size, Image.Resampling.LANCZOS)


def load_image_text_set(call: Call) -> tuple[Any, ...]:
    return (*load_image_set(call), StandIn("CONDITIONING", call.class_type, call.text("folder")))


def image_scale(call: Call) -> tuple[Any, ...]:
    images = call.images("image")
    width, height = call.integer("width", 0), call.integer("height", 0)
    if width == 0 and height == 0:
        return (images,)
    width = width or max(1, round(images.size[0] * height / images.size[1]))
    height = height or max(1, round(images.size[1] * width / images.size[0]))
    if call.text("crop") == "center":
        images = _centre_cropped(images, width, height)
    return (_resized(images, (width, height), _method(call)),)


def image_scale_to_max_dimension(call: Call) -> tuple[Any, ...]:
    images, longest = call.images("image"), call.integer("largest_size", 512)
    width, height = (max(1, round(side / max(images.size) * longest)) for side in images.size)
    return (_resized(images, (width, height), _method(call)),)


def image_scale_by(call: Call) -> tuple[Any, ...]:
    return (_scaled(call, call.number("scale_by", 1.0)),)


def image_scale_to_total_pixels(call: Call) -> tuple[Any, ...]:
    width, height = call.images("image").size
    return (_scaled(call, math.sqrt(call.number("megapixels", 1.0) * 1024 * 1024 / (width * height))),)


def _scaled(call: Call, factor: float) -> Images:
    images = call.images("image")
    size = (max(1, round(images.size[0] * factor)), max(1, round(images.size[1] * factor)))
    return _resized(images, size, _method(call))


def image_upscale_with_model(call: Call) -> tuple[Any, ...]:
    images, model = call.images("image"), call.inputs.get("upscale_model")
    factor = upscale_factor(model.label if isinstance(model, StandIn) else "")
    size = (images.size[0] * factor, images.size[1] * factor)
    return (_resized(images, size, Image.Resampling.LANCZOS),)


def upscale_factor(name: str) -> int:
    """How many times larger an upscale model makes a picture, by its name: `4x-…`, `…_x2`; 4 when it does not say.

    >>> upscale_factor("RealESRGAN_x2plus.pth"), upscale_factor("8x_NMKD.pth"), upscale_factor("unknown.pth")
    (2, 8, 4)
    """
    lowered = name.lower()
    for at, letter in enumerate(lowered):
        if letter != "x":
            continue
        for digit in (lowered[at - 1 : at], lowered[at + 1 : at + 2]):
            if digit.isdigit() and digit in "123468":
                return int(digit)
    return 4


def image_invert(call: Call) -> tuple[Any, ...]:
    return (Images(tuple(ImageOps.invert(frame) for frame in call.images("image").frames)),)


def image_batch(call: Call) -> tuple[Any, ...]:
    first, second = call.images("image1"), call.images("image2")
    if first.size != second.size:
        second = _resized(_centre_cropped(second, *first.size), first.size, Image.Resampling.BILINEAR)
    return (Images(first.frames + second.frames),)


def image_crop(call: Call) -> tuple[Any, ...]:
    images = call.images("image")
    x, y = min(call.integer("x", 0), images.size[0] - 1), min(call.integer("y", 0), images.size[1] - 1)
    right = min(images.size[0], x + call.integer("width", 512))
    lower = min(images.size[1], y + call.integer("height", 512))
    return (Images(tuple(frame.crop((x, y, right, lower)) for frame in images.frames)),)


def image_from_batch(call: Call) -> tuple[Any, ...]:
    frames = call.images("image").frames
    first = min(len(frames) - 1, call.integer("batch_index", 0))
    return (Images(frames[first : first + call.integer("length", 1)]),)


def repeat_image_batch(call: Call) -> tuple[Any, ...]:
    return (Images(call.images("image").frames * call.integer("amount", 1)),)


def get_image_size(call: Call) -> tuple[Any, ...]:
    images = call.images("image")
    return (*images.size, len(images.frames))


def image_composite_masked(call: Call) -> tuple[Any, ...]:
    """The source, where the mask is white, on top of the destination; a shorter batch is repeated."""
    under, over, masks = call.images("destination"), call.images("source"), call.given("mask", Masks)
    if call.inputs.get("resize_source"):
        over = _resized(over, under.size, Image.Resampling.BILINEAR)
    place, joined = (call.integer("x", 0), call.integer("y", 0)), []
    for index, frame in enumerate(under.frames):
        source = over.frames[index % len(over.frames)]
        mask = masks.frames[index % len(masks.frames)].resize(source.size, Image.Resampling.BILINEAR) if masks else None
        image = frame.copy()
        image.paste(source, place, mask)
        joined.append(image)
    return (Images(tuple(joined)),)


def solid_mask(call: Call) -> tuple[Any, ...]:
    size = (call.integer("width", 512), call.integer("height", 512))
    return (Masks((Image.new("L", size, round(255 * call.number("value", 1.0))),)),)


def invert_mask(call: Call) -> tuple[Any, ...]:
    return (Masks(tuple(ImageOps.invert(frame) for frame in call.masks("mask").frames)),)


def mask_to_image(call: Call) -> tuple[Any, ...]:
    return (Images(tuple(frame.convert("RGB") for frame in call.masks("mask").frames)),)


def image_to_mask(call: Call) -> tuple[Any, ...]:
    channel = _CHANNELS.get(call.text("channel"), "R")
    frames = call.images("image").frames
    if channel == "A":
        return (Masks(tuple(Image.new("L", frame.size, 255) for frame in frames)),)
    return (Masks(tuple(frame.getchannel(channel) for frame in frames)),)


def empty_latent(call: Call) -> tuple[Any, ...]:
    return (Latent(call.integer("width", 512), call.integer("height", 512), call.integer("batch_size", 1)),)


def empty_latent_audio(call: Call) -> tuple[Any, ...]:
    return (Latent(batch=call.integer("batch_size", 1), seconds=call.number("seconds", 47.6)),)


def empty_audio(call: Call) -> tuple[Any, ...]:
    return (Sound(call.number("duration", 60.0), call.integer("sample_rate", 44_100), call.integer("channels", 2)),)


def load_audio(call: Call) -> tuple[Any, ...]:
    """The sound's length, where the standard library can read it, and nothing of what is to be heard."""
    path = call.folders.annotated(call.text("audio"))
    try:
        with wave.open(str(path), "rb") as file:
            return (Sound(file.getnframes() / file.getframerate(), file.getframerate(), file.getnchannels()),)
    except (wave.Error, EOFError):
        return (Sound(UNKNOWN_SOUND_S),)


def create_video(call: Call) -> tuple[Any, ...]:
    return (Clip(call.images("images"), call.number("fps", 30.0)),)


def video_components(call: Call) -> tuple[Any, ...]:
    clip = call.inputs.get("video")
    if not isinstance(clip, Clip):
        raise TypeError(f"{call.class_type}: video is not a clip but {clip!s}")
    return clip.images, clip.sound or Sound(len(clip.images.frames) / clip.fps), clip.fps


def given_value(call: Call) -> tuple[Any, ...]:
    """The Primitive… nodes hand on what they were given."""
    return (call.inputs.get("value"),)


def concatenated(call: Call) -> tuple[Any, ...]:
    return (call.text("delimiter").join((call.text("string_a"), call.text("string_b"))),)


PLUMBING: Final[Mapping[str, Callable[[Call], tuple[Any, ...]]]] = {
    "EmptyImage": empty_image,
    "LoadImage": load_image,
    "LoadImageOutput": load_image,
    "LoadImageMask": load_image_mask,
    "LoadImageSetFromFolderNode": load_image_set,
    "LoadImageTextSetFromFolderNode": load_image_text_set,
    "ImageScale": image_scale,
    "ImageScaleBy": image_scale_by,
    "ImageScaleToMaxDimension": image_scale_to_max_dimension,
    "ImageScaleToTotalPixels": image_scale_to_total_pixels,
    "ImageUpscaleWithModel": image_upscale_with_model,
    "ImageInvert": image_invert,
    "ImageBatch": image_batch,
    "ImageCrop": image_crop,
    "ImageFromBatch": image_from_batch,
    "RepeatImageBatch": repeat_image_batch,
    "GetImageSize": get_image_size,
    "ImageCompositeMasked": image_composite_masked,
    "SolidMask": solid_mask,
    "InvertMask": invert_mask,
    "MaskToImage": mask_to_image,
    "ImageToMask": image_to_mask,
    "EmptyLatentImage": empty_latent,
    "EmptySD3LatentImage": empty_latent,
    "EmptyLatentAudio": empty_latent_audio,
    "EmptyAudio": empty_audio,
    "LoadAudio": load_audio,
    "CreateVideo": create_video,
    "GetVideoComponents": video_components,
    "StringConcatenate": concatenated,
    **dict.fromkeys(
        ("PrimitiveString", "PrimitiveStringMultiline", "PrimitiveInt", "PrimitiveFloat", "PrimitiveBoolean"),
        given_value,
    ),
}
"""By class type: a node's outputs, from its inputs."""

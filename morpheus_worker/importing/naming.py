"""Names for params, from the titles that people give their nodes."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

LONGEST_TAG: Final = 3
"""Words of a title that a name takes."""

_ONE_WORD: Final = ("KSampler", "ControlNet", "LoRA", "InstantID", "PuLID")
"""What their own capitals would break up."""
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+|[0-9]+")
_UPLOADS: Final = frozenset(
    {"load", "loader", "upload", "input", "choose", "select", "your", "my", "here", "the", "a", "an", "as", "of", "s",
     "from", "file", "to"}
)  # fmt: skip
_NOUNS: Final = frozenset(
    {"image", "images", "picture", "photo", "portrait", "video", "clip", "audio", "sound", "mask"}
)
_USUAL: Final = frozenset(
    {"a", "an", "and", "as", "the", "of", "s", "for", "with", "to", "from", "in", "here", "your", "node", "nodes",
     "text", "multiline", "string", "prompt", "prompts", "positive", "negative", "clip", "encode", "encoder",
     "conditioning", "sampler", "samplers", "ksampler", "advanced", "custom", "simple", "sampling", "select", "basic",
     "random", "noise", "guider", "scheduler", "sigmas", "seed", "steps", "cfg", "load", "loader", "apply",
     "checkpoint", "checkpoints", "ckpt", "model", "models", "diffusion", "unet", "vae", "lora", "loras", "controlnet",
     "control", "net", "empty", "latent", "image", "mask", "size", "only", "dual", "sd", "sd15", "sdxl", "flux",
     "img2vid", "img2img", "txt2img"}
)  # fmt: skip
"""Words that ComfyUI's own titles are made of: they tell no two nodes apart."""


class Names:
    """Keys that have been given. No two params get the same."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, *wished: str) -> str:
        """The first of `wished` that is free, else the last of them with a number."""
        key = next((name for name in wished if name not in self._taken), None)
        number = 2
        while key is None:
            numbered = f"{wished[-1]}_{number}"
            key = None if numbered in self._taken else numbered
            number += 1
        self._taken.add(key)
        return key


def words(text: str) -> list[str]:
    """The plain words of a title or a class type, in small letters: `FaceDetailer – Façade` is face, detailer,
    facade."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    for name in _ONE_WORD:
        plain = plain.replace(name, name.capitalize())
    return [word.lower() for word in _WORD.findall(plain)]


def tag(title: str, class_type: str) -> str:
    """What a title says beyond the kind of its node: `refiner` of `KSampler (Advanced) - REFINER`, nothing of
    `KSampler`."""
    own = {*words(class_type), *_USUAL}
    return "_".join([word for word in words(title) if word not in own][:LONGEST_TAG])


def media_key(title: str, class_type: str, kind: str) -> str:
    """A key for what a loader loads: `face_photo` of `Face photo`, `pose_image` of `Load Image (pose)`, `image` of
    `Load Image`."""
    said = [word for word in words(title) if word not in _UPLOADS]
    telling = [word for word in said if word not in {*_NOUNS, *words(class_type)}][:LONGEST_TAG]
    if not telling:
        return kind
    noun = said[-1] if said[-1] in _NOUNS else kind
    return "_".join([*telling, noun])


def class_tag(class_type: str) -> str:
    """A class type as part of a key: `face_detailer`."""
    return "_".join(words(class_type)[:LONGEST_TAG])

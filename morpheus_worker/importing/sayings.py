"""What the usual params are for, in words, and how far they sensibly go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from morpheus_worker.importing.export import Export
from morpheus_worker.importing.naming import tag
from morpheus_worker.importing.proposal import Proposal, is_number

LONGEST_TITLE: Final = 60
"""Characters of a node's title that a description repeats."""

SAID: Final[Mapping[str, str]] = {
    "prompt": "what the {thing} shows",
    "negative_prompt": "what the {thing} must not show",
    "width": "width in pixels",
    "height": "height in pixels",
    "size": "width and height in pixels",
    "length": "how many frames",
    "seed": "the same seed and params give the same result; absent or -1 draws another one each time",
    "steps": "sampling steps: more take longer and refine",
    "switch_at_step": "the step at which the second sampler takes over",
    "cfg": "how closely the result follows the prompt",
    "guidance": "how closely the result follows the prompt, for models that are told rather than guided",
    "sampler_name": "sampling method",
    "scheduler": "how the noise falls from step to step",
    "denoise": "how much is drawn anew: 0 keeps what is there, 1 keeps nothing",
    "batch_size": "how many at once",
    "checkpoint_name": "file name of a checkpoint",
    "unet_name": "file name of a diffusion model",
    "vae_name": "file name of a VAE",
    "lora_name": "file name of a LoRA",
    "lora_strength": "how strongly the LoRA works; 0 is not at all",
    "lora_clip_strength": "how strongly the LoRA works on the text; 0 is not at all",
    "controlnet_name": "file name of a ControlNet",
    "controlnet_strength": "how strongly the ControlNet works; 0 is not at all",
    "upscale_model": "file name of an upscale model",
    "image": "the picture",
    "mask": "the picture whose mask says where",
    "video": "the video",
    "audio": "the sound",
    "file": "the file",
    "dir": "the folder",
}

TIGHTER: Final[Mapping[str, tuple[float, float]]] = {
    "width": (64, 4096),
    "height": (64, 4096),
    "size": (64, 4096),
    "steps": (1, 150),
    "cfg": (0, 30),
    "batch_size": (1, 16),
    "lora_strength": (-10, 10),
    "lora_clip_strength": (-10, 10),
}
"""Ranges within ComfyUI's own in which a mistyped number is found before it costs an hour or the memory."""


def thing_of(export: Export) -> str:
    """What comes of the graph, by the classes of its nodes, in one word."""
    classes = [export.class_of(node_id).lower() for node_id in export.graph if node_id in export.live]
    marks = {"video": "video", "animated": "video", "audio": "sound", "glb": "mesh"}
    return next(
        (thing for mark, thing in marks.items() if any(mark in class_type for class_type in classes)), "picture"
    )


def described(export: Export, said: str, node_id: str) -> str:
    """The words, and the node's title where that says something of its own."""
    title = " ".join(export.title(node_id).split())
    is_telling = bool(tag(title, export.class_of(node_id))) and len(title) <= LONGEST_TITLE
    return f"{said} ({title})" if is_telling else said


def within(made: Proposal, role: str) -> Proposal:
    """The param with the range of its role, unless the graph itself goes beyond it."""
    lowest, highest = TIGHTER.get(role, (None, None))
    if lowest is None or highest is None or not is_number(made.default) or not lowest <= made.default <= highest:
        return made
    return replace(made, minimum=lowest, maximum=highest)

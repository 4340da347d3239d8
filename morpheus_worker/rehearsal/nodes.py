"""Runs one node: for real where that is image plumbing, else by a stand-in."""

from __future__ import annotations

import math
from typing import Final

from morpheus_worker.rehearsal.call import Call, Outcome
from morpheus_worker.rehearsal.packs import (
    LOOKS_FOR_A_FACE,
    PACK_NODES,
    NoFaceError,
    frames_of,
    is_preprocessor,
    preprocess,
)
from morpheus_worker.rehearsal.plumbing import PLUMBING
from morpheus_worker.rehearsal.savers import SAVERS
from morpheus_worker.rehearsal.standins import stand_ins
from morpheus_worker.rehearsal.values import Images

__all__ = ["Outcome", "run", "steps_of"]

TILE: Final = 512
TILE_OVERLAP: Final = 32
"""In pixels, as ImageUpscaleWithModel cuts its pictures (ComfyUI 0.3.64, comfy_extras/nodes_upscale_model.py)."""

DEFAULT_STEPS: Final = 20
_SAMPLES_PICTURES: Final = frozenset({"FaceDetailer", "FaceDetailerPipe", "DetailerForEach", "DetailerForEachPipe"})
"""Classes that have a sampler of their own and give pictures, not latents."""


def run(call: Call) -> Outcome:
    """Whatever a node raises, this raises: ComfyUI calls it the node's error."""
    if call.faceless and call.class_type not in LOOKS_FOR_A_FACE:
        raise NoFaceError("No face detected.")
    if call.class_type in PACK_NODES:
        return PACK_NODES[call.class_type](call)
    if call.class_type in SAVERS:
        return Outcome((), SAVERS[call.class_type](call))
    if call.class_type in PLUMBING:
        return Outcome(PLUMBING[call.class_type](call))
    if is_preprocessor(call):
        return preprocess(call)
    return Outcome(stand_ins(call))


def steps_of(call: Call) -> int:
    """How many times the node reports progress: a sampler once a step, an upscaler once a tile, a portrait that moves
    once a picture, most never."""
    if call.class_type == "ImageUpscaleWithModel":
        return _tiles(call)
    if call.class_type == "AdvancedLivePortrait":
        return frames_of(call)
    if call.class_type in _SAMPLES_PICTURES:
        return call.integer("steps", 0) * max(1, call.integer("cycle", 1))
    if "LATENT" not in call.node.outputs:
        return 0
    if "sigmas" in call.inputs:
        return call.facts.steps or DEFAULT_STEPS
    steps = call.integer("steps", 0)
    first, last = call.integer("start_at_step", 0), call.integer("end_at_step", steps)
    return max(0, min(steps, last) - first)


def _tiles(call: Call) -> int:
    images = call.inputs.get("image")
    if not isinstance(images, Images):
        return 0
    return len(images.frames) * math.prod(
        1 if side <= TILE else math.ceil((side - TILE_OVERLAP) / (TILE - TILE_OVERLAP)) for side in images.size
    )

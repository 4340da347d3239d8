"""Runs one node: for real where that is image plumbing, else by a stand-in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from morpheus_worker.rehearsal.call import Call
from morpheus_worker.rehearsal.plumbing import PLUMBING
from morpheus_worker.rehearsal.savers import SAVERS
from morpheus_worker.rehearsal.standins import stand_ins
from morpheus_worker.rehearsal.values import Images

TILE: Final = 512
TILE_OVERLAP: Final = 32
"""In pixels, as ImageUpscaleWithModel cuts its pictures (ComfyUI 0.3.64, comfy_extras/nodes_upscale_model.py)."""

DEFAULT_STEPS: Final = 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """A node's outputs, and what it reports to show, if anything."""

    outputs: tuple[Any, ...]
    report: Mapping[str, Any] | None = None


def run(call: Call) -> Outcome:
    """Whatever a node raises, this raises: ComfyUI calls it the node's error."""
    if call.class_type in SAVERS:
        return Outcome((), SAVERS[call.class_type](call))
    if call.class_type in PLUMBING:
        return Outcome(PLUMBING[call.class_type](call))
    return Outcome(stand_ins(call))


def steps_of(call: Call) -> int:
    """How many times the node reports progress: a sampler once a step, an upscaler once a tile, most never."""
    if call.class_type == "ImageUpscaleWithModel":
        return _tiles(call)
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

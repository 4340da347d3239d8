"""Nodes of ComfyUI-Impact-Pack that detect and redraw: the picture stays, and what was found in it is marked.

Source: ComfyUI-Impact-Pack, modules/impact/impact_pack.py `FaceDetailer`, `DetailerForEach`, detectors.py,
segs_nodes.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from PIL import Image, ImageDraw, ImageFilter

from morpheus_worker.rehearsal import render
from morpheus_worker.rehearsal.call import Call, Outcome
from morpheus_worker.rehearsal.faces import Region, face_region, has_face
from morpheus_worker.rehearsal.standins import segments_in, stand_ins
from morpheus_worker.rehearsal.values import Images, Masks, Segments

_NOTHING: Final = (64, 64)
"""Size of the black picture that stands for parts where none was found."""


def face_detailer(call: Call) -> Outcome:
    """Redraws the face of every picture that has one."""
    images = call.images("image")
    found = [_regions_of(call, frame) for frame in images.frames]
    return _detailed(call, images, found)


def detailer(call: Call) -> Outcome:
    """Redraws what came in as segments."""
    images, segments = call.images("image"), call.given("segs", Segments)
    return _detailed(call, images, [segments.regions if segments else ()] * len(images.frames))


def _regions_of(call: Call, frame: Image.Image) -> tuple[Region, ...]:
    return (face_region(frame.size),) if has_face(frame) and not call.faceless else ()


def _detailed(call: Call, images: Images, found: Sequence[tuple[Region, ...]]) -> Outcome:
    """The outputs by their kind and place: the picture first, then the parts; other values as everywhere."""
    frames = [
        _redrawn(call, frame, regions, index)
        for index, (frame, regions) in enumerate(zip(images.frames, found, strict=True))
    ]
    parts = [frame.crop(region.box) for frame, regions in zip(frames, found, strict=True) for region in regions]
    whole, cut = Images(tuple(frames)), Images(tuple(parts) or (Image.new("RGB", _NOTHING),))
    masks = Masks(tuple(_mask(images.size, regions) for regions in found))
    outputs: list[Any] = []
    for kind, other in zip(call.node.outputs, stand_ins(call), strict=True):
        pictures = cut if any(isinstance(value, Images) for value in outputs) else whole
        outputs.append(pictures if kind == "IMAGE" else masks if kind == "MASK" else other)
    return Outcome(tuple(outputs))


def _redrawn(call: Call, frame: Image.Image, regions: Sequence[Region], index: int) -> Image.Image:
    image = frame
    for region in regions:
        seed = "" if call.facts.seed is None else f"seed {call.integer('seed', call.facts.seed) + index}"
        lines = [*render.heading(call.class_type), seed, *call.facts.settings]
        part = render.labelled(image.crop(region.box).filter(ImageFilter.SMOOTH_MORE), [line for line in lines if line])
        image = image.copy()
        image.paste(part, region.box)
        ImageDraw.Draw(image).rectangle(
            (region.left, region.top, region.right - 1, region.bottom - 1), outline=(255, 255, 255)
        )
    return image


def _mask(size: tuple[int, int], regions: Sequence[Region]) -> Image.Image:
    mask = Image.new("L", size, 0)
    for region in regions:
        mask.paste(255, region.box)
    return mask


def detected_mask(call: Call) -> Outcome:
    """What a detector finds, or what came in as segments, as one mask."""
    segments = call.first(Segments) or segments_in(call)
    return Outcome((Masks((_mask(segments.size, segments.regions),)),))


def detected(call: Call) -> Outcome:
    return Outcome(stand_ins(call))


def is_not_empty(call: Call) -> Outcome:
    segments = call.first(Segments)
    return Outcome((bool(segments and segments.regions),))


def count_elements(call: Call) -> Outcome:
    segments = call.first(Segments)
    return Outcome((len(segments.regions) if segments else 0,))


def branch(call: Call) -> Outcome:
    return Outcome((call.inputs.get("tt_value" if call.inputs.get("cond") else "ff_value"),))


IMPACT: Final[Mapping[str, Callable[[Call], Outcome]]] = {
    **dict.fromkeys(("FaceDetailer", "FaceDetailerPipe"), face_detailer),
    **dict.fromkeys(
        ("DetailerForEach", "DetailerForEachDebug", "DetailerForEachPipe", "DetailerForEachDebugPipe"), detailer
    ),
    **dict.fromkeys(
        (
            "BboxDetectorSEGS",
            "SegmDetectorSEGS",
            "ONNXDetectorSEGS",
            "ImpactSimpleDetectorSEGS",
            "ImpactSimpleDetectorSEGSPipe",
        ),
        detected,
    ),
    **dict.fromkeys(("BboxDetectorCombined_v2", "SegmDetectorCombined_v2", "SegsToCombinedMask"), detected_mask),
    **dict.fromkeys(("ImpactConditionalBranch", "ImpactConditionalBranchSelMode"), branch),
    "ImpactIsNotEmptySEGS": is_not_empty,
    "ImpactCount_Elts_in_SEGS": count_elements,
}
LOOKS_FOR_A_FACE: Final = frozenset(
    name
    for name, node in IMPACT.items()
    if node in (face_detailer, detected, detected_mask) and name != "SegsToCombinedMask"
)

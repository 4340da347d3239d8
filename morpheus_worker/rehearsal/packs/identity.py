"""Nodes that take a face from a picture: InstantID's, PuLID's, IPAdapter's; and IPAdapter's files of embeddings.

Sources: ComfyUI_InstantID, InstantID.py `extractFeatures`, `apply_instantid`; PuLID_ComfyUI, pulid.py `apply_pulid`;
ComfyUI_IPAdapter_plus, IPAdapterPlus.py `ipadapter_execute`, `IPAdapterSaveEmbeds`, `IPAdapterLoadEmbeds`. They
raise in the packs' own words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageOps

from morpheus_worker.rehearsal.call import Call, Outcome
from morpheus_worker.rehearsal.faces import has_face
from morpheus_worker.rehearsal.standins import stand_ins
from morpheus_worker.rehearsal.values import Images
from morpheus_worker.rehearsal.weights import tensor_file

TOKENS: Final = (257, 1280)
"""What IPAdapter's "plus" models keep of a picture: the penultimate layer of the ViT-H image encoder."""

ENCODED_SIDE: Final = 224
"""Side of the pictures that the image encoder takes, in pixels."""

DEFAULT_PREFIX: Final = "IP_embeds"


class NoFaceError(Exception):
    """What a pack raises when it finds no face."""

    exception_type: Final = "Exception"
    """They raise a plain one."""


@dataclass(frozen=True, slots=True)
class Embeds:
    """What is kept of pictures: only how many there were."""

    count: int

    def __str__(self) -> str:
        return f"rehearsal: embeddings of {self.count} picture(s)"


def _seen(call: Call, name: str = "image") -> list[bool]:
    """Of each picture, whether it has a face."""
    return [has_face(frame) and not call.faceless for frame in call.images(name).frames]


def instant_id(call: Call) -> Outcome:
    if not any(_seen(call)):
        raise NoFaceError("Reference Image: No face detected.")
    return Outcome(stand_ins(call))


def face_keypoints(call: Call) -> Outcome:
    """A black picture where there is no face, as the node has it."""
    if any(_seen(call)):
        return Outcome(stand_ins(call))
    images = call.images("image")
    return Outcome((Images(tuple(Image.new("RGB", frame.size) for frame in images.frames)),))


def pulid(call: Call) -> Outcome:
    """Without a face the model goes on as it came, and the node only prints a warning."""
    if any(_seen(call)):
        return Outcome(stand_ins(call))
    warning = "pulid warning: No faces detected in any of the given images, returning unmodified model."
    return Outcome((call.inputs.get("model"),), said=(warning,))


def face_id(call: Call) -> Outcome:
    """Every picture must have a face."""
    if not all(_seen(call)):
        raise NoFaceError("InsightFace: No face detected.")
    return Outcome(stand_ins(call))


def prepare_image(call: Call) -> Outcome:
    """Squares of the side that the image encoder takes."""
    images, position = call.images("image"), call.text("crop_position", "center")
    width, height = images.size
    side = min(images.size)
    x = 0 if "left" in position else width - side if "right" in position else (width - side) // 2
    y = 0 if "top" in position else height - side if "bottom" in position else (height - side) // 2
    method = Image.Resampling[call.text("interpolation", "LANCZOS")]
    frames = images.frames
    if position == "pad":
        squares = [ImageOps.pad(frame, (max(images.size),) * 2) for frame in frames]
    else:
        squares = [frame.crop((x, y, x + side, y + side)) for frame in frames]
    return Outcome((Images(tuple(square.resize((ENCODED_SIDE, ENCODED_SIDE), method) for square in squares)),))


def encode(call: Call) -> Outcome:
    count = len(call.images("image").frames)
    return Outcome((Embeds(count),) * len(call.node.outputs))


def combine_embeds(call: Call) -> Outcome:
    given = [value for value in call.inputs.values() if isinstance(value, Embeds)]
    together = sum(each.count for each in given) if call.text("method") == "concat" else 1
    return Outcome((Embeds(max(1, together)),))


def save_embeds(call: Call) -> Outcome:
    """The node reports nothing of its file."""
    embeds = call.given("embeds", Embeds) or Embeds(1)
    target = call.folders.target(call.text("filename_prefix", DEFAULT_PREFIX), "output")
    (target.folder / f"{target.name}_{target.first:05}.ipadpt").write_bytes(tensor_file((embeds.count, *TOKENS)))
    return Outcome(())


def load_embeds(call: Call) -> Outcome:
    """The file must be there; what is in it is not looked at.

    Raises:
        OSError: when it is not.
    """
    with call.folders.annotated(call.text("embeds")).open("rb"):
        return Outcome((Embeds(1),))


IDENTITY: Final[Mapping[str, Callable[[Call], Outcome]]] = {
    **dict.fromkeys(("ApplyInstantID", "ApplyInstantIDAdvanced", "InstantIDAttentionPatch"), instant_id),
    "FaceKeypointsPreprocessor": face_keypoints,
    **dict.fromkeys(("ApplyPulid", "ApplyPulidAdvanced"), pulid),
    **dict.fromkeys(("IPAdapterFaceID", "IPAAdapterFaceIDBatch", "IPAdapterFaceIDKolors"), face_id),
    "PrepImageForClipVision": prepare_image,
    "IPAdapterEncoder": encode,
    "IPAdapterCombineEmbeds": combine_embeds,
    "IPAdapterSaveEmbeds": save_embeds,
    "IPAdapterLoadEmbeds": load_embeds,
}
LOOKS_FOR_A_FACE: Final = frozenset(
    name for name, node in IDENTITY.items() if node in (instant_id, face_keypoints, pulid, face_id)
)

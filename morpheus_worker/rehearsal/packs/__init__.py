"""What the node packs' classes do in a rehearsal, where a stand-in would not do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from morpheus_worker.rehearsal.call import Call, Outcome
from morpheus_worker.rehearsal.packs import identity, impact, liveportrait
from morpheus_worker.rehearsal.packs.identity import NoFaceError
from morpheus_worker.rehearsal.packs.liveportrait import frames_of
from morpheus_worker.rehearsal.packs.loading import LOADING
from morpheus_worker.rehearsal.packs.preprocess import is_preprocessor, preprocess
from morpheus_worker.rehearsal.packs.selecting import SELECTING
from morpheus_worker.rehearsal.packs.video import VIDEO

PACK_NODES: Final[Mapping[str, Callable[[Call], Outcome]]] = {
    **identity.IDENTITY,
    **impact.IMPACT,
    **liveportrait.LIVE_PORTRAIT,
    **VIDEO,
    **LOADING,
    **SELECTING,
}
"""By class type: what a node makes and reports."""

LOOKS_FOR_A_FACE: Final = identity.LOOKS_FOR_A_FACE | impact.LOOKS_FOR_A_FACE | liveportrait.LOOKS_FOR_A_FACE
"""Classes that know what to do about a picture without a face."""

__all__ = ["LOOKS_FOR_A_FACE", "PACK_NODES", "NoFaceError", "frames_of", "is_preprocessor", "preprocess"]

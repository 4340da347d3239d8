"""Which node packs a rehearsal has, beside ComfyUI's own classes."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.comfy.recorded import load_known, load_recorded, pack_of, recorded_packs
from morpheus_worker.errors import Problem, did_you_mean

ALL: Final = "all"
NONE: Final = "none"


class PacksError(ValueError):
    """Ids of which no pack is known. `problems` holds all of them."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("packs: " + "; ".join(str(problem) for problem in problems))


def parse_packs(words: str) -> frozenset[str]:
    """Pack ids from `all`, `none`, or ids with commas between.

    Raises:
        PacksError: with every id that is not known, at once.
    """
    if words.strip() == ALL:
        return frozenset(recorded_packs())
    if words.strip() == NONE:
        return frozenset()
    return known_packs(word.strip() for word in words.split(",") if word.strip())


def known_packs(ids: Iterable[str]) -> frozenset[str]:
    """The ids, if all of them are known.

    Raises:
        PacksError: when some are not.
    """
    asked, known = frozenset(ids), recorded_packs()
    problems = [
        Problem(pack_id, "no such pack", did_you_mean(pack_id, known) or f"{ALL}, {NONE}, or of {', '.join(known)}")
        for pack_id in sorted(asked)
        if pack_id not in known
    ]
    if problems:
        raise PacksError(problems)
    return asked


def offered(packs: Collection[str] | None = None) -> ObjectInfo:
    """The classes of ComfyUI and of these packs; of all known ones by default.

    Raises:
        PacksError: when a pack is not known.
    """
    known = load_known()
    if packs is None:
        return known
    chosen, core = known_packs(packs), load_recorded().raw
    return ObjectInfo(
        {name: raw for name, raw in known.raw.items() if name in core or pack_of(name) in chosen}, known.own_checks
    )

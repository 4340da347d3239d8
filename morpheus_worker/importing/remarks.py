"""What an author should look at in a graph that has become a template."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from morpheus_worker.errors import Problem
from morpheus_worker.importing.export import Export, Spot
from morpheus_worker.importing.proposal import Proposal, media_kind
from morpheus_worker.templates.places import MISSING

PackOf = Callable[[str], str | None]
"""The node pack that has a class, None for ComfyUI's own and for what nobody has recorded."""

_ABSOLUTE: Final = re.compile(r"(/|~/|[A-Za-z]:[\\/]|\\\\)[^\s/\\].*[^\s]|file://.+", re.DOTALL)


def packs_of(export: Export, pack_of: PackOf) -> list[str]:
    """The node packs that the graph needs, as far as they are known."""
    packs = (pack_of(export.class_of(node_id)) for node_id in export.graph)
    return list(dict.fromkeys(pack for pack in packs if pack is not None))


def remarks(export: Export, params: Sequence[Proposal], pack_of: PackOf) -> Iterator[Problem]:
    """Unknown classes, files and paths of the author's machine, params that change more than they show or nothing."""
    filled = {spot: param for param in params for spot in param.spots}
    if not params:
        yield Problem("", "no params: nothing usual was found in the graph", "name them, --param KEY=NODE.INPUT")
    for node_id in export.graph:
        yield from _of_class(export, node_id, pack_of)
        for name in export.inputs(node_id):
            if export.literal(node_id, name):
                yield from _of_value(export, Spot(node_id, name), filled)
    yield from _previews(export)
    for param in params:
        yield from _of_param(export, param)


def _previews(export: Export) -> Iterator[Problem]:
    """Nodes that show what is under way, beside others that save: their files are in no job's result."""
    outputs = [node_id for node_id in export.graph if export.info.is_output(export.class_of(node_id))]
    previews = [node_id for node_id in outputs if "preview" in export.class_of(node_id).lower()]
    for node_id in previews if len(previews) < len(outputs) else ():
        what = "shows something on the way: it is in no job's result, and keeps what it reads from in every job"
        yield Problem(f"node {node_id} ({export.class_of(node_id)})", what, "remove it, unless that is meant")


def _of_class(export: Export, node_id: str, pack_of: PackOf) -> Iterator[Problem]:
    class_type = export.class_of(node_id)
    if class_type in export.info:
        return
    pack = pack_of(class_type)
    what = f"is of the class '{class_type}', which is not known here, so its inputs are not checked"
    hint = f"it is in the node pack {pack}" if pack else "name its node pack in _about, under 'packs'"
    yield Problem(f"node {node_id}", what, hint)


def _of_value(export: Export, spot: Spot, filled: dict[Spot, Proposal]) -> Iterator[Problem]:
    value, param = export.value(spot), filled.get(spot)
    at = f"node {spot.node_id} ({export.class_of(spot.node_id)}) input {spot.input}"
    if not isinstance(value, str) or (param is not None and param.default is MISSING):
        return
    if media_kind(export, spot) is not None:
        hint = f"make it a param, --param {media_kind(export, spot)}={spot}"
        yield Problem(at, f"loads '{value}', a file of the machine that the graph comes from", hint)
    elif "\n" not in value and _ABSOLUTE.fullmatch(value):
        whose = f", now the default of '{param.key}'" if param is not None else ""
        yield Problem(at, f"has '{value}'{whose}: a path of the machine that the graph comes from")


def _of_param(export: Export, param: Proposal) -> Iterator[Problem]:
    if not any(spot.node_id in export.live for spot in param.spots):
        yield Problem(f"param {param.key}", f"changes nothing: node {param.spots[0].node_id} leads to no output")
    values: list[Any] = [export.value(spot) for spot in param.spots]
    for spot, value in zip(param.spots[1:], values[1:], strict=True):
        if value != values[0] and param.default is not MISSING:
            what = f"also fills {spot}, which was {value!r} and now is {values[0]!r} by default"
            yield Problem(f"param {param.key}", what)

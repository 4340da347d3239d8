"""The params that an author names: `prompt=6.text`, a key, a node and one of its inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from morpheus_worker.errors import Problem, did_you_mean
from morpheus_worker.importing.export import Export, Spot
from morpheus_worker.importing.proposal import Proposal, media_kind, proposal
from morpheus_worker.importing.sayings import SAID, thing_of, within
from morpheus_worker.importing.tracing import Polarity, Tracing
from morpheus_worker.templates.declared import WORKER_PARAMS
from morpheus_worker.templates.scan import Placeholder, split
from morpheus_worker.templates.values import listed

FORM: Final = "KEY=NODE.INPUT, such as prompt=6.text"
_KEY_HINT: Final = "it has letters, digits, '-' and '.', and single '_' between them"


class _RefusedError(ValueError):
    def __init__(self, what: str, hint: str | None = None) -> None:
        super().__init__(what)
        self.what, self.hint = what, hint


def asked(export: Export, given: Sequence[str]) -> tuple[list[Proposal], list[Problem]]:
    """The params, in the order in which they are named, and everything that is wrong with the rest. A key that is named
    twice fills both inputs."""
    spots: dict[str, list[Spot]] = {}
    problems: list[Problem] = []
    for text in given:
        try:
            key, spot = _read(export, text)
            taker = next((other for other, taken in spots.items() if spot in taken), None)
            if taker is not None:
                raise _RefusedError(f"{spot} is taken by the param '{taker}'", "one input has one param")
        except _RefusedError as refused:
            problems.append(Problem(f"--param {text}", refused.what, refused.hint))
        else:
            spots.setdefault(key, []).append(spot)
    return [_proposal(export, key, places) for key, places in spots.items()], problems


def _read(export: Export, text: str) -> tuple[str, Spot]:
    key, equals, place = (part.strip() for part in text.partition("="))
    if not equals or not key or not place:
        raise _RefusedError(f"is not of the form {FORM}")
    if split(f"__param:{key}__") != (Placeholder("param", key),):
        raise _RefusedError(f"'{key}' cannot be a param's key", _KEY_HINT)
    if key in WORKER_PARAMS:
        raise _RefusedError(f"the param '{key}' belongs to the worker", "choose another key")
    return key, _spot(export, place, key)


def _spot(export: Export, place: str, key: str) -> Spot:
    """An id or a name may have dots of its own: the node that is there decides."""
    ways = list(_ways(place))
    if not ways:
        raise _RefusedError(f"'{place}' names no input of a node", f"it is of the form {FORM}")
    node_id, name = next((way for way in ways if way[0] in export.graph), ways[0])
    if node_id not in export.graph:
        raise _RefusedError(f"there is no node '{node_id}'", _other_nodes(export, node_id, name))
    inputs = export.inputs(node_id)
    class_type = export.class_of(node_id)
    if name not in inputs:
        hint = did_you_mean(name, inputs) or (f"inputs: {listed(list(inputs))}" if inputs else "it has none")
        raise _RefusedError(f"node {node_id} ({class_type}) has no input '{name}'", hint)
    if (link := export.links(node_id).get(name)) is not None:
        what = f"input {name} of node {node_id} ({class_type}) is linked to node {link[0]} ({export.class_of(link[0])})"
        behind = _value_behind(export, Spot(node_id, name))
        raise _RefusedError(
            what, f"a param fills a value, such as {key}={behind}" if behind else "a param fills a value"
        )
    return Spot(node_id, name)


def _value_behind(export: Export, spot: Spot) -> Spot | None:
    """The value that a person means who names a link."""
    tracing = Tracing(export)
    sides: tuple[Polarity, Polarity] = ("positive", "negative")
    for side in sides:
        if spot.input == side:
            return next(iter(tracing.texts(spot.node_id, side)), None)
    return tracing.literal(spot, lambda _value: True)


def _ways(place: str) -> Iterator[tuple[str, str]]:
    for dot, character in enumerate(place):
        if character == "." and 0 < dot < len(place) - 1:
            yield place[:dot], place[dot + 1 :]


def _other_nodes(export: Export, node_id: str, name: str) -> str | None:
    having = [other for other in export.graph if export.literal(other, name)]
    if having:
        return f"nodes with a value for {name}: {listed([f'{one} ({export.class_of(one)})' for one in having])}"
    return did_you_mean(node_id, export.graph)


def _proposal(export: Export, key: str, spots: Sequence[Spot]) -> Proposal:
    first = spots[0]
    kind = media_kind(export, first)
    said = (SAID.get(key) or SAID.get(kind or "", "")).format(thing=thing_of(export))
    if not said:
        whose = " ".join(export.title(first.node_id).split()) or export.class_of(first.node_id)
        said = f"{first.input.replace('_', ' ')} of {whose}"
    return within(proposal(export, key, spots, said), key)

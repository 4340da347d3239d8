"""Graphs made wrong on purpose, one way at a time, and graphs made otherwise that are as good as before.

Nothing here knows how the check works: it asks the object info only for what an input may be.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from morpheus_worker.comfy.graphs import is_link
from morpheus_worker.comfy.objectinfo import InputInfo, ObjectInfo

Graph = dict[str, Any]
Place = tuple[str, str | None]
"""A node and an input of it; None for the node itself."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """A graph with one thing changed, at `place`; None means in the whole of it."""

    kind: str
    graph: Graph
    place: Place | None


def mutated(kind: str, graph: Mapping[str, Any], info: ObjectInfo, random: Random) -> Mutation | None:
    """The graph, changed in one way of that kind at a place drawn by lot, or None where the graph has no such place."""
    changed = copy.deepcopy(dict(graph))
    place = _WAYS[kind](changed, info, random)
    return None if place is None else Mutation(kind, changed, place if place[0] else None)


def _inputs(graph: Graph, info: ObjectInfo) -> Iterator[tuple[str, InputInfo, Any]]:
    """Every input that is there and declared: its node, what it is, its value."""
    for node_id, node in graph.items():
        known = info.get(node["class_type"])
        for wanted in known.inputs.values() if known else ():
            if wanted.name in node["inputs"]:
                yield node_id, wanted, node["inputs"][wanted.name]


def _drop(graph: Graph, info: ObjectInfo, random: Random) -> Place | None:
    found = [(node_id, wanted.name) for node_id, wanted, _ in _inputs(graph, info) if wanted.required]
    if not found:
        return None
    node_id, name = random.choice(found)
    del graph[node_id]["inputs"][name]
    return node_id, name


def _set(graph: Graph, place: tuple[str, str], value: Any) -> Place:
    graph[place[0]]["inputs"][place[1]] = value
    return place


def _wrong_type(graph: Graph, info: ObjectInfo, random: Random) -> Place | None:
    found = [(node_id, wanted.name) for node_id, wanted, _ in _inputs(graph, info) if wanted.type in ("INT", "FLOAT")]
    wrong: tuple[Any, ...] = ("much", "", "12 steps", None, {}, {"value": 3}, [1, 2, 3], [])
    return _set(graph, random.choice(found), random.choice(wrong)) if found else None


def _wrong_link(graph: Graph, info: ObjectInfo, random: Random) -> Place | None:
    """Mostly an output of another type; now and then one that is not there, or of a node that is not there."""
    found = [(node_id, wanted) for node_id, wanted, value in _inputs(graph, info) if isinstance(value, list)]
    if not found:
        return None
    node_id, wanted = random.choice(found)
    draw = random.random()
    if draw < 0.1:
        link = ["no such node", 0]
    elif draw < 0.2:
        link = [sorted(graph)[0], 40]
    else:
        others = [link for link, kind in _outputs(graph, info) if kind not in (wanted.type, "*") and link[0] != node_id]
        if not others or wanted.type == "*":
            return None
        link = random.choice(others)
    return _set(graph, (node_id, wanted.name), link)


def _outputs(graph: Graph, info: ObjectInfo) -> Iterator[tuple[list[Any], str]]:
    for node_id, node in graph.items():
        known = info.get(node["class_type"])
        for slot, kind in enumerate(known.outputs if known else ()):
            yield [node_id, slot], kind


def _unknown_class(graph: Graph, _info: ObjectInfo, random: Random) -> Place | None:
    node_id = random.choice(sorted(graph))
    name = graph[node_id]["class_type"]
    graph[node_id]["class_type"] = random.choice([name + "X", name[:-1] + "zz", "Custom" + name, name.lower() + "_"])
    return node_id, None


def _unknown_choice(graph: Graph, info: ObjectInfo, random: Random) -> Place | None:
    found = [(node_id, wanted) for node_id, wanted, _ in _inputs(graph, info) if wanted.choices and not wanted.upload]
    if not found:
        return None
    node_id, wanted = random.choice(found)
    some = str(random.choice(wanted.choices or ("",)))
    wrong = random.choice([some + "x", some[:-1] + "~", "no such choice", "", some.upper() + "_", 7])
    return _set(graph, (node_id, wanted.name), wrong)


def _out_of_range(graph: Graph, info: ObjectInfo, random: Random) -> Place | None:
    found = [
        ((node_id, wanted.name), limit, sign)
        for node_id, wanted, value in _inputs(graph, info)
        for name, sign in (("min", -1), ("max", 1))
        if not isinstance(value, list) and isinstance(limit := wanted.options.get(name), (int, float))
    ]
    if not found:
        return None
    place, limit, sign = random.choice(found)
    wrong = limit + sign * random.choice([1, 2, 1000])
    return _set(graph, place, random.choice([wrong, str(wrong), {"__value__": wrong}]))


def _cycle(graph: Graph, info: ObjectInfo, random: Random) -> Place | None:
    found = [
        ((node_id, wanted.name), link)
        for node_id, wanted, value in _inputs(graph, info)
        if isinstance(value, list)
        for link, kind in _outputs(graph, info)
        if kind in (wanted.type, "*") and node_id in _above(graph, link[0])
    ]
    return _set(graph, *random.choice(found)) if found else None


def _above(graph: Graph, node_id: str) -> set[str]:
    """The node and all that it reads from."""
    found: set[str] = set()
    waiting = [node_id]
    while waiting:
        current = waiting.pop()
        if current not in found and current in graph:
            found.add(current)
            waiting += [value[0] for value in graph[current]["inputs"].values() if is_link(value)]
    return found


def _no_output(graph: Graph, info: ObjectInfo, _random: Random) -> Place | None:
    for node_id in [key for key, node in graph.items() if info.is_output(node["class_type"])]:
        del graph[node_id]
    return ("", None) if graph else None


_WAYS: Final[Mapping[str, Callable[[Graph, ObjectInfo, Random], Place | None]]] = {
    "dropped input": _drop,
    "wrong type": _wrong_type,
    "wrong link": _wrong_link,
    "unknown class": _unknown_class,
    "unknown choice": _unknown_choice,
    "out of range": _out_of_range,
    "cycle": _cycle,
    "no output": _no_output,
}
KINDS: Final = tuple(_WAYS)


def varied(graph: Mapping[str, Any], info: ObjectInfo, random: Random) -> Graph:
    """A graph that is as good as this one: other values within their ranges, numbers as text, other choices, optional
    inputs left out, inputs that no class declares, idle nodes, links to another output of the same type."""
    changed = copy.deepcopy(dict(graph))
    for node_id, wanted, value in list(_inputs(changed, info)):
        if random.random() < 0.5:
            continue
        inputs = changed[node_id]["inputs"]
        if isinstance(value, list):
            _relink(changed, (node_id, wanted), info, random)
        elif not wanted.required and random.random() < 0.3:
            del inputs[wanted.name]
        else:
            inputs[wanted.name] = _other_value(wanted, value, random)
    if random.random() < 0.3:
        changed[random.choice(sorted(changed))]["inputs"]["upload"] = "image"
    if random.random() < 0.3:
        changed["idle"] = copy.deepcopy(changed[random.choice(sorted(changed))])
        changed["idle"]["inputs"] = {}
        if info.is_output(changed["idle"]["class_type"]) and random.random() < 0.5:
            changed["idle"] = {"class_type": "EmptyImage", "inputs": {"width": "not looked at"}}
    return changed


def _relink(graph: Graph, place: tuple[str, InputInfo], info: ObjectInfo, random: Random) -> None:
    node_id, wanted = place
    same = [
        link for link, kind in _outputs(graph, info) if kind == wanted.type and node_id not in _above(graph, link[0])
    ]
    if same:
        graph[node_id]["inputs"][wanted.name] = random.choice(same)


def _other_value(wanted: InputInfo, value: Any, random: Random) -> Any:
    least, most = wanted.options.get("min"), wanted.options.get("max")
    if wanted.choices and wanted.upload is None:
        return random.choice(wanted.choices)
    if wanted.type == "INT" and isinstance(least, int) and isinstance(most, int):
        number = random.choice([least, most, random.randint(least, most)])
        return random.choice([number, str(number), {"__value__": number}])
    if wanted.type == "FLOAT" and isinstance(least, (int, float)) and isinstance(most, (int, float)):
        fraction = random.choice([float(least), float(most), round(random.uniform(least, most), 3)])
        return random.choice([fraction, str(fraction)])
    if wanted.type == "BOOLEAN":
        return random.choice([True, False, 0, "no", ""])
    if wanted.type == "STRING":
        return random.choice(["", "a lighthouse", 5, None, {"any": "thing"}])
    return value

"""Who reads from whom in a graph once inputs are rewired and nodes are taken out."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from morpheus_worker.comfy.graphs import is_link

Links = Mapping[tuple[str, str], list[Any]]
"""(node id, input name) → the link that the input is rewired to."""

Bypass = Mapping[str, Sequence[str]]
"""The id of a node that is taken out → for each of its outputs, the input whose link stands in for it."""

LinkOf = Callable[[str, str], list[Any] | None]
"""The link of a node's input, or None where it has none."""


def linked(graph: Mapping[str, Any]) -> dict[str, dict[str, list[Any]]]:
    """The links of every node by their input's name."""
    return {
        node_id: {name: value for name, value in node["inputs"].items() if is_link(value)}
        for node_id, node in graph.items()
    }


def meant_link(value: object) -> list[Any] | None:
    """The link that was probably meant by a node id and an output whose JSON types are the wrong ones, `[5, 0]` or
    `["5", "0"]`; None for anything else, a proper link among it."""
    if not isinstance(value, list) or len(value) != 2 or any(isinstance(part, bool) for part in value):
        return None
    node_id, output = value
    if isinstance(output, str):
        output = int(output) if output.isascii() and output.isdigit() and len(output) < 4 else None
    if not isinstance(node_id, (int, str)) or not isinstance(output, int) or output < 0:
        return None
    meant = [str(node_id), output]
    return None if meant == value else meant


def how_to_write_link(link: list[Any]) -> str:
    return f"write {json.dumps(link)}: the node id is a text, the output a number"


class LostLinkError(ValueError):
    """A link that leads nowhere once nodes are taken out; the message says why.

    `node_id` is the one that is taken out, and `output` what nothing stands in for; None where the way is a circle.
    """

    def __init__(self, why: str, node_id: str, output: int | None = None) -> None:
        super().__init__(why)
        self.node_id, self.output = node_id, output


def followed(link: list[Any], bypass: Bypass, link_of: LinkOf) -> list[Any]:
    """Where a link leads once it has passed the nodes that are taken out.

    Raises:
        LostLinkError: when nothing stands in for an output, or the way goes in a circle.
    """
    passed: set[tuple[str, float]] = set()
    while (node_id := link[0]) in bypass:
        index, inputs = link[1], bypass[node_id]
        if (node_id, index) in passed:
            raise LostLinkError(f"reads from node {node_id}, which is taken out and reads from itself", node_id)
        passed.add((node_id, index))
        onward = link_of(node_id, inputs[int(index)]) if 0 <= index < len(inputs) else None
        if onward is None:
            why = f"reads output {index} of node {node_id}, and nothing stands in for that"
            raise LostLinkError(why, node_id, int(index))
        link = onward
    return link


def sources_past(links: Mapping[str, Mapping[str, list[Any]]], bypass: Bypass) -> dict[str, dict[str, str]]:
    """Node id → input name → id of the node that it reads from, once nodes are taken out. Lost links are left out."""
    return {
        node_id: {name: source for name, link in inputs.items() if (source := _source(link, bypass, links)) is not None}
        for node_id, inputs in links.items()
        if node_id not in bypass
    }


def _source(link: list[Any], bypass: Bypass, links: Mapping[str, Mapping[str, list[Any]]]) -> str | None:
    if link[0] not in bypass:
        return str(link[0])
    try:
        return str(followed(link, bypass, lambda node_id, name: links[node_id].get(name))[0])
    except LostLinkError:
        return None


def lost_links(
    links: Mapping[str, Mapping[str, list[Any]]], bypass: Bypass, nodes: Iterable[str]
) -> Iterator[tuple[str, str, LostLinkError]]:
    """The inputs of these nodes whose link is lost once nodes are taken out: node id, input name, why."""
    for node_id in nodes:
        for name, link in links[node_id].items():
            try:
                followed(link, bypass, lambda node_id, name: links[node_id].get(name))
            except LostLinkError as lost:
                yield node_id, name, lost


def relinked(links: Mapping[str, Mapping[str, list[Any]]], more: Links) -> dict[str, Mapping[str, list[Any]]]:
    """The links with some of them changed."""
    changed = dict(links)
    for (node_id, name), link in more.items():
        changed[node_id] = {**changed[node_id], name: link}
    return changed


def rewire(graph: dict[str, Any], links: Links, bypass: Bypass) -> None:
    """Rewires a graph of one's own: links first, then the nodes are taken out. A lost link stays as it is."""
    for (node_id, name), link in links.items():
        graph[node_id]["inputs"][name] = list(link)
    if not bypass:
        return
    wired = linked(graph)
    for node_id, by_name in wired.items():
        for name, link in by_name.items():
            if link[0] in bypass:
                with contextlib.suppress(LostLinkError):
                    onward = followed(link, bypass, lambda node_id, name: wired[node_id].get(name))
                    graph[node_id]["inputs"][name] = list(onward)
    for node_id in bypass:
        del graph[node_id]

"""Binding a template to a job, in two steps, so that media can be staged between them.

`resolve` decides the value of every param and tells which media it needs; `fill` puts the values into a copy of the
graph. Both go by what was found when the template was parsed: a value that looks like a placeholder is a value.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from morpheus_worker.templates.document import Slot
from morpheus_worker.templates.resolving import MediaSlot, OutputPath, Resolved, draw_seed, resolve
from morpheus_worker.templates.scan import Placeholder
from morpheus_worker.templates.template import Template
from morpheus_worker.templates.values import as_text, shown_media

__all__ = ["Bound", "MediaSlot", "OutputPath", "Resolved", "draw_seed", "fill", "resolve"]


@dataclass(frozen=True, slots=True, eq=False)
class Bound:
    """A graph for ComfyUI, and the params as used: defaults and drawn seeds among them, inline media described."""

    graph: dict[str, Any]
    params: dict[str, Any]
    warnings: tuple[str, ...]


def fill(resolved: Resolved, placed: Mapping[str, str] | None = None) -> Bound:
    """The graph with its values in it. `placed` gives, by key, what the graph gets for each of `media` and
    `output_paths`.

    Null for an input that its node does without leaves the input out: ComfyUI would read it as a value.

    Raises:
        ValueError: when `placed` lacks one of them. Filling in the caller's own path would be an escape.
    """
    placed = placed or {}
    wanted = [medium.key for medium in resolved.media] + [path.key for path in resolved.output_paths]
    if lacking := [key for key in wanted if key not in placed]:
        raise ValueError(f"not placed: {', '.join(lacking)}")
    template, live = resolved.template, resolved.live
    values = {**resolved.worker_values, **resolved.values, **{key: placed[key] for key in wanted}}
    graph = template.graph()
    for slot in template.slots:
        if slot.path[0] in live:
            _put(graph, slot, values, template)
    for (node_id, name), link in resolved.links.items():
        graph[node_id]["inputs"][name] = list(link)
    if len(live) < len(graph):
        graph = {node_id: node for node_id, node in graph.items() if node_id in live}
    return Bound(graph, _as_used(resolved), resolved.warnings)


def _put(graph: dict[str, Any], slot: Slot, values: Mapping[str, Any], template: Template) -> None:
    target: Any = graph
    for step in slot.around:
        target = target[step]
    if slot.whole is None:
        target[slot.last] = "".join(
            as_text(values[part.key]) if isinstance(part, Placeholder) else part for part in slot.parts
        )
        return
    value = values[slot.whole]
    if value is None and slot.is_input and _is_optional(template, slot.whole, slot):
        del target[slot.last]
    else:
        target[slot.last] = copy.deepcopy(value) if isinstance(value, (list, dict)) else value


def _is_optional(template: Template, key: str, slot: Slot) -> bool:
    param = template.params.get(key)
    return param is not None and any(
        place.optional for place in param.places if (place.node_id, place.input) == (slot.node_id, slot.input)
    )


def _as_used(resolved: Resolved) -> dict[str, Any]:
    media = [param.key for param in resolved.template.demanding if param.media is not None]
    described = {key: shown_media(resolved.values[key]) for key in media if key in resolved.values}
    return {**resolved.values, **described}

"""Binding a template to a job, in two steps, so that media can be staged between them.

`resolve` decides the value of every param and tells which media it needs; `fill` puts the values into a copy of the
graph. Both go by what was found when the template was parsed: a value that looks like a placeholder is a value.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from morpheus_worker.templates.brackets import weighed
from morpheus_worker.templates.document import Slot
from morpheus_worker.templates.repeating import Copies
from morpheus_worker.templates.resolving import MediaSlot, OutputPath, Resolved, draw_seed, resolve
from morpheus_worker.templates.scan import Placeholder
from morpheus_worker.templates.template import Template
from morpheus_worker.templates.values import as_text, shown_media
from morpheus_worker.templates.wiring import rewire

__all__ = ["Bound", "MediaSlot", "OutputPath", "Resolved", "draw_seed", "fill", "resolve"]


@dataclass(frozen=True, slots=True, eq=False)
class Bound:
    """A graph for ComfyUI, and the params as used: defaults and drawn seeds among them, inline media described.

    `copies` leads from the id of each copy of a repeated node to the template's node and its item's index.
    """

    graph: dict[str, Any]
    params: dict[str, Any]
    warnings: tuple[str, ...]
    template: Template
    copies: Mapping[str, tuple[str, int]]

    def where(self, node_id: str, input_name: str) -> str | None:
        """How a caller knows this input of a node: `params.steps`, `params.loras[1].name`, or None when no param fills
        it."""
        return self.template.where(*self._origin(node_id, input_name))

    def _origin(self, node_id: str, input_name: str) -> tuple[str, str, int]:
        own_id, item = self.copies.get(node_id, (node_id, 0))
        return own_id, input_name, item


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
    if template.bracket_keys:
        values |= _weighed(values, template.bracket_keys)
    graph = template.graph()
    for slot in template.shared_slots:
        if slot.path[0] in live:
            _put(graph, slot, values, template)
    if resolved.links or resolved.bypass:
        rewire(graph, resolved.links, resolved.bypass)
    if len(live) < len(graph):
        graph = {node_id: node for node_id, node in graph.items() if node_id in live}
    copies: Mapping[str, tuple[str, int]] = {}
    if template.repeats:
        graph, copies = _repeated(graph, template, values)
    return Bound(graph, _as_used(resolved), resolved.warnings, template, copies)


def _repeated(
    graph: dict[str, Any], template: Template, values: Mapping[str, Any]
) -> tuple[dict[str, Any], Mapping[str, tuple[str, int]]]:
    copies = Copies.of(graph, template.repeats, values)
    if not copies.ids:
        return graph, {}
    repeated = {own_id: copy for node_id, node in graph.items() for own_id, copy in copies.of_node(node_id, node)}
    origins = copies.origins
    for own_id, (node_id, index) in origins.items():
        repeat = copies.repeats[node_id]
        item = {f"{repeat.key}.{name}": value for name, value in values[repeat.key][index].items()}
        item |= _weighed(item, template.bracket_keys)
        for slot in repeat.slots:
            _put({node_id: repeated[own_id]}, slot, {**values, **item}, template)
    return repeated, origins


def _weighed(values: Mapping[str, Any], keys: Collection[str]) -> dict[str, str]:
    """The texts whose brackets ComfyUI does not know, in its own words."""
    return {key: weighed(values[key]) for key in keys if isinstance(values.get(key), str)}


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
    param = template.params.get(key) or template.fields.get(key)
    return param is not None and any(
        place.optional for place in param.places if (place.node_id, place.input) == (slot.node_id, slot.input)
    )


def _as_used(resolved: Resolved) -> dict[str, Any]:
    media = [param.key for param in resolved.template.demanding if param.media is not None]
    described = {key: shown_media(resolved.values[key]) for key in media if key in resolved.values}
    return {**resolved.values, **described}

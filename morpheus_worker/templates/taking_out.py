"""Who is left without an input when a template's effects and lists take nodes out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from morpheus_worker.errors import Problem
from morpheus_worker.templates.params import Choice
from morpheus_worker.templates.places import MISSING
from morpheus_worker.templates.reading import Path
from morpheus_worker.templates.wiring import Bypass, Links, LostLinkError, lost_links

if TYPE_CHECKING:
    from morpheus_worker.templates.template import Template

ANY: Final = object()
"""Some value that has no effect of its own."""


def left_without(template: Template) -> Iterator[Problem]:
    """Outputs that a bypass or an empty list leaves somebody without, each effect looked at by itself. What the other
    params' defaults link elsewhere is not lost."""
    for key, param in template.params.items():
        taken_out: list[tuple[Path, Links, Bypass, Any]] = [
            ((*effect.at, "bypass"), effect.links, effect.bypass, effect.value if isinstance(effect, Choice) else ANY)
            for effect in param.all_effects
            if effect.bypass
        ]
        if param.repeat and not param.minimum:
            taken_out.append((("_params", key, "repeat"), {}, param.repeat, []))
        for at, links, bypass, value in taken_out:
            wired, live = template.wired(links, bypass)
            told: set[tuple[str, int | None]] = set()
            by_default = _lost(template, *template.default_wiring({**_first_choices(template), key: value}))
            for node_id, name, lost in lost_links(wired, bypass, (node_id for node_id in wired if node_id in live)):
                if (lost.node_id, lost.output) not in told and (node_id, name) in by_default:
                    told.add((lost.node_id, lost.output))
                    what, hint = f"node {node_id} input {name} {lost}", _stand_ins(template, wired, bypass, lost)
                    yield template.document.tree.problem((*at, lost.node_id), what, hint)


def _first_choices(template: Template) -> dict[str, Any]:
    """Some value of each param that has no default, and choices."""
    required = (param for param in template.params.values() if param.default is MISSING and param.choices)
    return {param.key: param.choices[0].value for param in required}


def _lost(template: Template, links: Links, bypass: Bypass) -> set[tuple[str, str]]:
    wired, live = template.wired(links, bypass)
    return {(node_id, name) for node_id, name, _ in lost_links(wired, bypass, (one for one in wired if one in live))}


def _stand_ins(
    template: Template, wired: Mapping[str, Mapping[str, list[Any]]], bypass: Bypass, lost: LostLinkError
) -> str | None:
    """How to name inputs for all outputs up to the one that is lost: those of its type, as far as that is known."""
    if lost.output is None:
        return None
    class_type = template.document.graph[lost.node_id]["class_type"]
    known = template.object_info.get(class_type) if template.object_info is not None else None
    linked_inputs, names = list(wired[lost.node_id]), list(bypass[lost.node_id])
    for output in range(len(names), lost.output + 1):
        free = [name for name in linked_inputs if name not in names]
        if known is not None and output < len(known.outputs):
            free = [name for name in free if name in known.inputs and known.inputs[name].type == known.outputs[output]]
        names.append(free[0] if len(free) == 1 else "…" if free else "")
    if "" in names:
        return f"node {lost.node_id} has no link that could stand in for it: link its readers elsewhere instead"
    example = f"name an input for each output that is read: {json.dumps({lost.node_id: names}, ensure_ascii=False)}"
    return f"{example}, of {', '.join(linked_inputs)}" if "…" in names else example

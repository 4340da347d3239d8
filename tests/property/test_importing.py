"""What importing promises for every graph: filled with its own values, the template gives back the graph."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from morpheus_worker.comfy.graphs import is_link
from morpheus_worker.comfy.recorded import load_known
from morpheus_worker.importing.asked import asked
from morpheus_worker.importing.export import Export, read_export
from morpheus_worker.importing.proposal import Proposal
from morpheus_worker.importing.usual import usual
from morpheus_worker.importing.writing import template_text
from morpheus_worker.templates.bind import fill, resolve
from morpheus_worker.templates.template import parse_template
from tests.exports import EXPORTS

AWKWARD = st.sampled_from(
    ['"', "\\", "\n", "\t", "{x}", "${x}", "%s", "雪", "🜚", "\x00", "__hair__", "[a]", "(a:1.2)", " "]
)
TEXTS = st.lists(AWKWARD | st.text(max_size=12), max_size=6).map("".join)
"""Half a surrogate pair is left out: a job refuses it as no text."""

FREE = (
    "text",
    "value",
    "string_a",
    "string_b",
    "text_g",
    "clip_l",
    "t5xxl",
    "filename_prefix",
    "wildcard",
    "ckpt_name",
)


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Any]:
    """One of the exports with other values of the same types, other ids and other titles."""
    graph = copy.deepcopy(EXPORTS[draw(st.sampled_from(sorted(EXPORTS)))])
    for node in graph.values():
        for name, value in node["inputs"].items():
            if isinstance(value, str) and name in FREE:
                node["inputs"][name] = draw(TEXTS)
            elif name in ("seed", "noise_seed"):
                node["inputs"][name] = value if is_link(value) else draw(st.integers(0, 2**53))
            elif name in ("steps", "width", "height") and isinstance(value, int):
                node["inputs"][name] = draw(st.integers(16, 4096))
            elif name in ("cfg", "denoise", "strength") and isinstance(value, (int, float)):
                node["inputs"][name] = draw(st.sampled_from([0, 1, 0.5]) | st.floats(0, 1))
        node["_meta"]["title"] = draw(st.just(node["_meta"]["title"]) | TEXTS)
    return _renamed(graph, draw(st.sampled_from(["", "12:", "a.b."])))


def _renamed(graph: dict[str, Any], prefix: str) -> dict[str, Any]:
    renamed = {}
    for node_id, node in graph.items():
        inputs = {
            name: [prefix + value[0], value[1]] if is_link(value) else value for name, value in node["inputs"].items()
        }
        renamed[prefix + node_id] = {**node, "inputs": inputs}
    return renamed


def given_back(export: Export, params: list[Proposal]) -> dict[str, Any]:
    """What comes of the template of these params when a job sends nothing but the exported seeds and media."""
    template = parse_template(template_text("t", export, params), name="t", object_info=load_known())
    values = {param.key: export.value(param.spots[0]) for param in params}
    sent = {param.key: values[param.key] for param in params if template.params[param.key].demanding}
    sent |= {key: values[key] for key in template.seed_keys}
    resolved = resolve(template, sent)
    return fill(resolved, {medium.key: values[medium.key] for medium in resolved.media}).graph


def lead_to_something(export: Export) -> dict[str, Any]:
    return {node_id: dict(node) for node_id, node in export.graph.items() if node_id in export.live}


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=50)
@given(graphs())
def test_the_usual_params_give_back_the_graph(graph: dict[str, Any]) -> None:
    export = read_export(json.dumps(graph).encode(), name="t", info=load_known())
    params = usual(export)
    assert given_back(export, params) == lead_to_something(export)
    spots = [spot for param in params for spot in param.spots]
    assert len(spots) == len(set(spots))
    assert len(params) == len({param.key for param in params})


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=40)
@given(graphs(), st.data())
def test_params_that_are_named_give_back_the_graph(graph: dict[str, Any], data: st.DataObject) -> None:
    export = read_export(json.dumps(graph).encode(), name="t", info=load_known())
    spots = [spot for spot in export.live_spots() if spot.input != "wildcard"]
    chosen = data.draw(st.lists(st.sampled_from(spots), min_size=1, max_size=6, unique=True))
    params, problems = asked(export, [f"key-{number}={spot}" for number, spot in enumerate(chosen)])
    assert problems == []
    assert [param.spots for param in params] == [(spot,) for spot in chosen]
    assert given_back(export, params) == lead_to_something(export)

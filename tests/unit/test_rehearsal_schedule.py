"""Nodes run in ComfyUI's order, and equal nodes have equal signatures."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import pytest

from morpheus_worker.comfy.graphs import is_link
from morpheus_worker.rehearsal.schedule import DeadlyGraphError, Schedule, Signatures


def graph(**links: list[str]) -> dict[str, Any]:
    """Nodes with links to others; a name that begins with `out` is an output node's."""
    return {
        name: {
            "class_type": "Out" if name.startswith("out") else "Node",
            "inputs": {f"i{n}": [s, 0] for n, s in enumerate(to)},
        }
        for name, to in links.items()
    }


def order(nodes: dict[str, Any], outputs: list[str], cached: set[str] | None = None) -> list[str]:
    schedule = Schedule(
        nodes, is_output=lambda name: name.startswith("out"), is_cached=lambda name: name in (cached or set())
    )
    for output in outputs:
        schedule.add(output)
    ran = []
    while (node_id := schedule.next()) is not None:
        ran.append(node_id)
        schedule.done(node_id)
    assert not schedule
    return ran


def test_what_a_node_needs_runs_before_it() -> None:
    assert order(graph(out=["b"], b=["a"], a=[]), ["out"]) == ["a", "b", "out"]


def test_an_output_runs_as_soon_as_it_can() -> None:
    nodes = graph(out1=["a"], out2=["c"], a=[], b=[], c=["a", "b"])
    assert order(nodes, ["out1", "out2"]) == ["a", "out1", "b", "c", "out2"]


def test_what_an_output_waits_for_comes_first() -> None:
    nodes = graph(out=["d"], d=["x", "y"], x=["v"], y=[], v=[])
    assert order(nodes, ["out"])[0] == "y"


def test_cached_nodes_do_not_run_but_an_output_is_told_of() -> None:
    nodes = graph(out=["b"], b=["a"], a=[])
    assert order(nodes, ["out"], {"b", "a"}) == ["out"]
    assert order(nodes, ["out"], {"a"}) == ["b", "out"]


def test_nodes_that_lead_nowhere_do_not_run() -> None:
    assert order(graph(out=["a"], a=[], lost=["a"]), ["out"]) == ["a", "out"]


def test_in_a_cycle_nothing_can_run() -> None:
    schedule = Schedule(
        graph(out=["b"], b=["a"], a=["b"]), is_output=lambda name: name == "out", is_cached=lambda name: False
    )
    schedule.add("out")
    assert schedule
    assert schedule.next() is None
    assert schedule.blamed() == "out"


def test_a_link_to_a_node_that_does_not_exist_is_deadly() -> None:
    with pytest.raises(DeadlyGraphError, match="node gone not found"):
        order(graph(out=["gone"]), ["out"])


def test_what_a_lazy_input_links_to_runs_when_it_is_asked_for() -> None:
    nodes = graph(out=["a", "b"], a=[], b=["c"], c=[])
    schedule = Schedule(
        nodes,
        is_output=lambda name: name == "out",
        is_cached=lambda name: False,
        is_lazy=lambda node_id, name: node_id == "out",
    )
    schedule.add("out")
    assert schedule.next() == "out", "it waits for nothing yet"
    schedule.need("out", "i1")
    ran = []
    while (node_id := schedule.next()) is not None:
        ran.append(node_id)
        schedule.done(node_id)
    assert ran == ["c", "b", "out"], "the other input never ran"


def test_a_cached_node_is_not_waited_for_when_it_is_asked_for() -> None:
    schedule = Schedule(
        graph(out=["a"], a=[]),
        is_output=lambda name: name == "out",
        is_cached=lambda name: name == "a",
        is_lazy=lambda node_id, name: True,
    )
    schedule.add("out")
    schedule.need("out", "i0")
    assert schedule.next() == "out"


@pytest.mark.parametrize(
    ("value", "link"),
    [(["1", 0], True), (["1", 0.5], True), ([1, 0], False), (["1", "0"], False), (["1"], False), ("1", False)],
)
def test_is_link(value: Any, link: bool) -> None:
    assert is_link(value) is link


def signatures(nodes: dict[str, Any], fingerprints: dict[str, Hashable] | None = None) -> Signatures:
    return Signatures(
        nodes,
        fingerprint=lambda node_id: (fingerprints or {}).get(node_id),
        knows_its_id=lambda class_type: class_type == "KnowsItsId",
    )


def test_names_of_nodes_do_not_count() -> None:
    one = signatures(graph(out=["b"], b=["a"], a=[]))
    two = signatures(graph(out_z=["y"], y=["x"], x=[]))
    assert one["out"] == two["out_z"]
    assert one["b"] == two["y"]
    assert one["a"] != one["b"]
    assert one.used() == two.used()


def test_every_input_counts_even_one_that_the_class_does_not_have() -> None:
    plain, marked = graph(out=["a"], a=[]), graph(out=["a"], a=[])
    marked["a"]["inputs"]["_mark"] = {"any": ["thing", 1]}
    assert signatures(plain)["a"] != signatures(marked)["a"]
    assert signatures(plain)["out"] != signatures(marked)["out"], "what comes from it changes too"


def test_a_changed_file_counts() -> None:
    nodes = graph(out=["a"], a=[])
    assert signatures(nodes, {"a": "hash 1"})["out"] == signatures(nodes, {"a": "hash 1"})["out"]
    assert signatures(nodes, {"a": "hash 1"})["out"] != signatures(nodes, {"a": "hash 2"})["out"]
    assert signatures(nodes, {"a": object()})["out"] != signatures(nodes, {"a": object()})["out"]


def test_a_class_that_knows_its_id_is_never_the_same_under_another() -> None:
    nodes = {name: {"class_type": "KnowsItsId", "inputs": {}} for name in ("a", "b")}
    made = signatures(nodes)
    assert made["a"] != made["b"]


def test_the_shape_of_the_links_counts() -> None:
    shared = signatures(graph(out=["a", "a"], a=[], b=[]))
    apart = signatures(graph(out=["a", "b"], a=[], b=[]))
    assert shared["out"] != apart["out"]


def test_cycles_and_missing_nodes_have_signatures() -> None:
    made = signatures(graph(a=["b"], b=["a", "gone"]))
    assert made["a"] != made["b"]


def test_inputs_that_are_no_object_are_deadly() -> None:
    with pytest.raises(DeadlyGraphError, match="node 9"):
        signatures({"9": {"class_type": "Node", "inputs": None}})

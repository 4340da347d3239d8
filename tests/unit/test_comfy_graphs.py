from __future__ import annotations

from typing import Any

import pytest

from morpheus_worker.comfy.graphs import (
    MAX_FINDINGS,
    check_graph_shape,
    circles,
    dangling_links,
    leading_to,
    reading_from,
    sources_of,
    wiring_findings,
)
from morpheus_worker.comfy.objectinfo import ObjectInfo, OwnChecks

INFO = ObjectInfo(
    {
        "Make": {"input": {"required": {"size": ["INT"]}}, "output": ["IMAGE", "MASK"]},
        "Turn": {"input": {"required": {"image": ["IMAGE"]}, "optional": {"mask": ["MASK,IMAGE"]}}, "output": ["*"]},
        "Save": {"input": {"required": {"images": ["IMAGE"]}}, "output": [], "output_node": True},
    }
)


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def chain() -> dict[str, Any]:
    return {
        "1": node("Make", size=1),
        "2": node("Turn", image=["1", 0]),
        "3": node("Save", images=["2", 0]),
        "4": node("Turn", image=["2", 0]),
    }


def test_a_graph_in_api_format_has_no_problems() -> None:
    assert check_graph_shape(chain()) == []
    assert check_graph_shape({"1": node("Make")}) == []


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        ([], "workflow: must be a JSON object of nodes by their id"),
        (None, "workflow: must be a JSON object of nodes by their id"),
        ({}, "workflow: has no nodes"),
        ({"nodes": [], "links": []}, "workflow: is in the editor's own format, which ComfyUI does not run"),
        ({"prompt": chain(), "client_id": "x"}, "workflow: is a whole request to ComfyUI"),
        ({"1": []}, "node 1: is not an object with class_type and inputs"),
        ({"1": {"inputs": {}}}, "node 1: has no class_type"),
        ({"1": {"class_type": 7, "inputs": {}}}, "node 1: has a class_type that is not a name"),
        ({"1": {"class_type": "Make"}}, "node 1: has no inputs"),
        ({"1": {"class_type": "Make", "inputs": []}}, "node 1: has inputs that are not an object"),
    ],
)
def test_what_keeps_a_graph_from_being_one(graph: object, said: str) -> None:
    (problem,) = check_graph_shape(graph)
    assert str(problem).startswith(said)


def test_the_editor_format_comes_with_the_way_out() -> None:
    (problem,) = check_graph_shape({"nodes": [{"id": 1}], "links": [], "version": 0.4})
    assert "Export (API)" in str(problem.hint)
    assert "Save (API Format)" in str(problem.hint)


def test_every_node_is_named_at_once() -> None:
    problems = check_graph_shape({"1": {}, "2": 5, "3": node("Make")})
    assert [problem.at for problem in problems] == ["node 1", "node 1", "node 2"]


def test_a_file_that_is_no_graph_does_not_flood() -> None:
    problems = check_graph_shape({str(number): number for number in range(500)})
    assert len(problems) == MAX_FINDINGS + 1
    assert problems[-1].what == f"and {500 - MAX_FINDINGS} more problems like these"


def test_a_long_id_is_not_told_whole() -> None:
    (problem,) = check_graph_shape({"a" * 1000: 7})
    assert problem.at == f"node {'a' * 200}…"


def test_what_reads_from_a_node() -> None:
    sources = {"2": {"a": "1"}, "3": {"a": "2"}, "4": {"a": "9"}, "5": {"a": "6"}, "6": {"a": "5"}}
    assert reading_from(["1"], sources) == {"1", "2", "3"}
    assert reading_from(["5"], sources) == {"5", "6"}


def test_who_reads_from_whom() -> None:
    assert sources_of(chain()) == {"2": {"image": "1"}, "3": {"images": "2"}, "4": {"image": "2"}}


def test_what_leads_to_an_output() -> None:
    assert leading_to(["3"], sources_of(chain())) == {"1", "2", "3"}


def test_a_circle_ends() -> None:
    graph = {"1": node("Turn", image=["2", 0]), "2": node("Turn", image=["1", 0])}
    assert leading_to(["1"], sources_of(graph)) == {"1", "2"}


def test_links_to_nowhere() -> None:
    graph = chain() | {"5": node("Turn", image=["9", 0])}
    (finding,) = dangling_links(graph)
    assert str(finding.as_problem()) == "node 5: input image is linked to node 9, which is not there"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (node("Sav", images=["2", 0]), "node 3: this ComfyUI has no node class 'Sav' (did you mean 'Save'?)"),
        (node("Save"), "node 3: (Save) lacks its required input images"),
        (node("Save", images=["1", 1]), "node 3: (Save) input images takes IMAGE, but its link to Make brings MASK"),
        (node("Save", images=["1", 2]), "node 3: (Save) input images is linked to output 2 of Make, which has 2"),
    ],
)
def test_wiring(changed: dict[str, Any], said: str) -> None:
    graph = chain() | {"3": changed}
    assert [str(finding.as_problem()) for finding in wiring_findings(graph, INFO, graph.keys())] == [said]


def test_wiring_accepts_any_and_one_of_several_types() -> None:
    graph = {
        "1": node("Make", size=1),
        "2": node("Turn", image=["1", 0], mask=["1", 1]),
        "3": node("Save", images=["2", 0]),
    }
    assert list(wiring_findings(graph, INFO, graph.keys())) == []


def test_wiring_lets_pass_what_a_type_that_stands_for_others_may_be() -> None:
    switch = {"input": {"required": {"on": ["COMFY_MATCHTYPE_V3", {}], "more": ["COMFY_AUTOGROW_V3", {}]}}}
    info = ObjectInfo({**INFO.raw, "Switch": {**switch, "output": ["COMFY_MATCHTYPE_V3"]}})
    graph = {"1": node("Make", size=1), "2": node("Switch", on=["1", 0]), "3": node("Save", images=["2", 0])}
    assert list(wiring_findings(graph, info, graph.keys())) == []


def test_wiring_judges_only_the_nodes_it_is_asked_about() -> None:
    assert list(wiring_findings({"1": node("Gone")}, INFO, ())) == []


def test_a_circle_is_the_links_that_it_is_made_of() -> None:
    sources = {"1": {"a": "2"}, "2": {"b": "3", "x": "9"}, "3": {"c": "2"}, "4": {"d": "4"}, "5": {"e": "1"}}
    assert list(circles(sources)) == [(("2", "b"), ("3", "c")), (("4", "d"),)]


def test_two_ways_to_one_node_are_no_circle() -> None:
    assert list(circles({"1": {"a": "2", "b": "3"}, "2": {"c": "4"}, "3": {"d": "4"}})) == []


def test_a_class_that_judges_the_types_of_its_links_takes_any() -> None:
    known = ObjectInfo(INFO.raw, lambda _: OwnChecks(types=True))
    graph = {"1": node("Make", size=1), "2": node("Save", images=["1", 1])}
    assert [finding.node_id for finding in wiring_findings(graph, INFO, graph.keys())] == ["2"]
    assert list(wiring_findings(graph, known, graph.keys())) == []

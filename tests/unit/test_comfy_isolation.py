"""Each job saves into a folder of its own, and is never answered with another's files."""

from __future__ import annotations

import copy
import os.path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from morpheus_worker.comfy.habits import Habits
from morpheus_worker.comfy.isolation import MARK_INPUT, isolate
from morpheus_worker.comfy.objectinfo import ObjectInfo

INFO = ObjectInfo(
    {
        "EmptyImage": {"input": {}, "output": ["IMAGE"], "output_node": False},
        "SaveImage": {"input": {}, "output": [], "output_node": True},
        "SaveAndPass": {"input": {}, "output": ["IMAGE"], "output_node": True},
        "PreviewImage": {"input": {}, "output": [], "output_node": True},
        "Invert": {"input": {}, "output": ["IMAGE"], "output_node": False},
    }
)


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def inputs_of(graph: dict[str, Any], node_id: str) -> dict[str, Any]:
    inputs = isolate(graph, "tok", Habits(INFO))[node_id]["inputs"]
    assert isinstance(inputs, dict)
    return inputs


GRAPH = {
    "1": node("EmptyImage", width=8),
    "2": node("Invert", image=["1", 0]),
    "8": node("PreviewImage", images=["2", 0]),
    "9": node("SaveImage", images=["2", 0], filename_prefix="cats/cat"),
}


def test_a_saved_file_goes_into_the_jobs_folder() -> None:
    assert inputs_of(GRAPH, "9")["filename_prefix"] == "tok/cats/cat"


def test_an_output_without_a_folder_is_marked() -> None:
    assert inputs_of(GRAPH, "8") == {"images": ["2", 0], MARK_INPUT: "tok"}


def test_what_computes_stays_as_it_is_so_that_its_cached_results_are_used() -> None:
    isolated = isolate(GRAPH, "tok", Habits(INFO))
    assert isolated["1"] == GRAPH["1"]
    assert isolated["2"] == GRAPH["2"]


def test_the_graph_that_came_in_is_not_changed() -> None:
    before = copy.deepcopy(GRAPH)
    isolate(GRAPH, "tok", Habits(INFO))
    assert before == GRAPH


def test_two_jobs_never_share_an_output_node() -> None:
    one, other = isolate(GRAPH, "one", Habits(INFO)), isolate(GRAPH, "other", Habits(INFO))
    assert {key for key in GRAPH if one[key] != other[key]} == {"8", "9"}


def test_a_prefix_that_is_a_link_stays_one_and_the_node_is_marked() -> None:
    graph = {"1": node("EmptyImage"), "9": node("SaveImage", images=["1", 0], filename_prefix=["1", 0])}
    assert inputs_of(graph, "9") == {"images": ["1", 0], "filename_prefix": ["1", 0], MARK_INPUT: "tok"}


def test_an_output_that_feeds_others_saves_into_the_folder_too() -> None:
    graph = {
        "1": node("EmptyImage"),
        "5": node("SaveAndPass", images=["1", 0], filename_prefix="x"),
        "6": node("Invert", image=["5", 0]),
    }
    assert inputs_of(graph, "5")["filename_prefix"] == "tok/x"


def test_an_output_that_feeds_others_and_names_no_folder_is_marked_too() -> None:
    """Its cached answer would name files that the job before has taken away."""
    graph = {"5": node("SaveAndPass"), "6": node("Invert", image=["5", 0])}
    assert inputs_of(graph, "5") == {MARK_INPUT: "tok"}


def test_a_class_that_this_comfyui_does_not_describe_counts_as_an_output() -> None:
    assert inputs_of({"1": node("NoSuchNode", x=1)}, "1") == {"x": 1, MARK_INPUT: "tok"}


def test_a_prefix_of_a_node_that_saves_nothing_is_its_own_business() -> None:
    assert inputs_of({"1": node("Invert", filename_prefix="x")}, "1") == {"filename_prefix": "x"}


@given(st.lists(st.sampled_from(["/", ".", "..", "a", "%date%", " ", "\\", ""]), max_size=6).map("".join))
@example("")
@example("..")
@example("../x")
@example("/etc/x")
def test_whatever_the_prefix_the_file_lands_in_the_jobs_folder(prefix: str) -> None:
    """ComfyUI normalises the prefix and takes what follows the last slash as the beginning of the file's name
    (0.3.64, folder_paths.py `get_save_image_path`)."""
    bound = inputs_of({"9": node("SaveImage", filename_prefix=prefix)}, "9")["filename_prefix"]
    normal = os.path.normpath(bound)
    assert os.path.dirname(normal).split("/")[0] == "tok"


@pytest.mark.parametrize(
    ("prefix", "bound"), [({"__value__": "w"}, "tok/w"), (7, "tok/7"), ({"__value__": 7}, "tok/7")]
)
def test_a_prefix_that_comfyui_makes_a_text_of_is_bound_too(prefix: Any, bound: str) -> None:
    assert inputs_of({"3": node("SaveImage", filename_prefix=prefix)}, "3")["filename_prefix"] == bound

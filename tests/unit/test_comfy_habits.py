"""Which node classes report something, as far as their runs have told."""

from __future__ import annotations

from typing import Any

import pytest

from morpheus_worker.comfy.habits import Habits
from morpheus_worker.comfy.objectinfo import ObjectInfo

INFO = ObjectInfo(
    {
        "Make": {"input": {}, "output": ["IMAGE"]},
        "Show": {"input": {}, "output": ["IMAGE"]},
        "Save": {"input": {}, "output": [], "output_node": True},
    }
)
GRAPH: dict[str, Any] = {
    "1": {"class_type": "Make", "inputs": {}},
    "2": {"class_type": "Show", "inputs": {}},
    "3": {"class_type": "Save", "inputs": {}},
}
FILE = {"images": [{"filename": "x.png"}]}


@pytest.fixture
def habits() -> Habits:
    return Habits(INFO)


def test_before_a_run_nobody_but_an_output_node_is_known(habits: Habits) -> None:
    assert [habits.reports(name) for name in ("Make", "Show", "Save", "Unheard of")] == [False, False, True, True]
    assert not any(habits.is_silent(name) for name in ("Make", "Show", "Save", "Unheard of"))


def test_a_run_tells_who_reports_and_who_is_silent(habits: Habits) -> None:
    habits.learn(GRAPH, ["1", "2", "3"], {"2": {"text": ["32x32"]}, "3": FILE}, {})
    assert (habits.is_silent("Make"), habits.reports("Make")) == (True, False)
    assert (habits.is_silent("Show"), habits.reports("Show")) == (False, True)


def test_only_one_that_left_files_is_bound_to_its_job(habits: Habits) -> None:
    habits.learn(GRAPH, ["1", "2", "3"], {"2": {"text": ["32x32"]}, "3": FILE}, {})
    assert [habits.saves(name) for name in ("Make", "Show", "Save", "Unheard of")] == [False, False, True, True]
    habits.learn(GRAPH, ["1", "2", "3"], {"2.0.0.1": FILE, "3": FILE}, {"2.0.0.1": "2"})
    assert habits.saves("Show")


def test_a_node_that_was_not_reached_tells_nothing(habits: Habits) -> None:
    habits.learn(GRAPH, ["3"], {"3": FILE}, {})
    assert not habits.is_silent("Make")


def test_what_a_node_made_of_itself_is_its_own_report(habits: Habits) -> None:
    habits.learn(GRAPH, ["1", "2", "3"], {"2.0.0.1": FILE, "3": FILE}, {"2.0.0.1": "2"})
    assert habits.reports("Show")


def test_one_report_counts_for_more_than_any_silence(habits: Habits) -> None:
    for outputs in ({}, {"2": {"text": ["x"]}}, {}):
        habits.learn(GRAPH, ["1", "2"], outputs, {})
    assert habits.reports("Show")
    assert not habits.is_silent("Show")


def test_a_report_without_content_is_none(habits: Habits) -> None:
    habits.learn(GRAPH, ["1"], {"1": {}}, {})
    assert habits.is_silent("Make")

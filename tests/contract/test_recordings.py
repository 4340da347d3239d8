"""The recordings of the real ComfyUI say what the contract says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from .model import DATA, Frame, load, recorded, save
from .scenarios import SCENARIOS, Scenario


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=lambda scenario: scenario.name)
def test_recording(scenario: Scenario) -> None:
    scenario.check(load(DATA / f"{scenario.name}.json"))


def test_every_recording_has_its_scenario() -> None:
    assert {path.stem for path in recorded()} == set(SCENARIOS)


def test_a_recording_says_where_it_comes_from() -> None:
    for path in recorded():
        head = load(path).header
        assert set(head["recorded"]) == {"comfyui", "python", "torch", "date"}


@pytest.mark.parametrize("path", recorded(), ids=lambda path: path.stem)
def test_a_recording_survives_being_saved(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / path.name
    save(load(path), copy)
    assert json.loads(copy.read_text(encoding="utf-8")) == json.loads(path.read_text(encoding="utf-8"))


def test_the_recordings_stay_small() -> None:
    assert sum(path.stat().st_size for path in recorded()) < 400_000


def test_the_assertions_miss_no_message() -> None:
    """Whatever message but progress is taken out of a good story, its assertion objects."""
    seen = load(DATA / "success.json")
    for index, frame in enumerate(seen.exchanges):
        if isinstance(frame, Frame) and frame.type != "progress_state":
            without = replace(seen, exchanges=[*seen.exchanges[:index], *seen.exchanges[index + 1 :]])
            with pytest.raises((AssertionError, ValueError)):
                SCENARIOS["success"].check(without)

"""The rehearsal engine says what the recordings of the real ComfyUI say: the same scenarios, the same assertions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from morpheus_worker.rehearsal import RehearsalEngine, running_engine

from .live import Models, live
from .scenarios import SCENARIOS, Scenario

MODELS = Models("tiny_2x.safetensors", "random_sd15.safetensors")

STEP_S = 0.1
"""What a tile takes, in seconds: long enough to interrupt a prompt, and to come back while it runs."""

# ComfyUI sends previews only when it is told to (--preview-method), and the engine plays one that is not.
PLAYED = [scenario for scenario in SCENARIOS.values() if "previews" not in scenario.needs]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RehearsalEngine]:
    base: Path = tmp_path_factory.mktemp("rehearsal")
    offered = {"upscale_models": [MODELS.upscaler], "checkpoints": [str(MODELS.checkpoint)]}
    with running_engine(base, model_names=offered, step_s=STEP_S) as engine:
        yield engine


@pytest.mark.parametrize("scenario", PLAYED, ids=lambda scenario: scenario.name)
def test_scenario(scenario: Scenario, engine: RehearsalEngine) -> None:
    with live(engine.url, scenario.name, MODELS) as driver:
        scenario.play(driver)
        scenario.check(driver.recording())

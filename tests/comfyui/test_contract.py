"""The contract's assertions, judged again by the ComfyUI at hand."""

from __future__ import annotations

import pytest

from tests.contract.live import live
from tests.contract.scenarios import SCENARIOS, Scenario

from .conftest import CHECKPOINT
from .process import RealComfyUI


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=lambda scenario: scenario.name)
def test_scenario(scenario: Scenario, real_comfyui: RealComfyUI) -> None:
    if "checkpoint" in scenario.needs and real_comfyui.models.checkpoint is None:
        pytest.skip(f"needs a checkpoint: set {CHECKPOINT} to one made by tests/tools/make_tiny_models.py --sd15")
    with live(real_comfyui.url, scenario.name, real_comfyui.models) as driver:
        scenario.play(driver)
        scenario.check(driver.recording())

"""The check beside a real ComfyUI's own answers: it finds what ComfyUI refuses, and refuses nothing that it accepts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from morpheus_worker.comfy.objectinfo import ObjectInfo

from .answers import HOLDING_PACK, HeldComfyUI, compared
from .bases import place_files, shipped_graphs
from .mutations import KINDS, Mutation, mutated, varied
from .process import Installation, running_comfyui

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
SAMPLE = 25
SEED = 7

Graphs = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def held(comfyui_installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HeldComfyUI]:
    """A ComfyUI with the files that the shipped templates name, all of them empty, which executes nothing."""
    base = tmp_path_factory.mktemp("held")
    place_files(shipped_graphs(WORKFLOWS).values(), base)
    (base / "custom_nodes").mkdir()
    (base / "custom_nodes" / "hold.py").write_text(HOLDING_PACK, encoding="utf-8")
    with running_comfyui(comfyui_installation, base) as running:
        comfyui = HeldComfyUI(running.url)
        yield comfyui
        comfyui.close()


@pytest.fixture(scope="module")
def info(held: HeldComfyUI) -> ObjectInfo:
    return held.object_info()


@pytest.fixture(scope="module")
def graphs(info: ObjectInfo) -> Graphs:
    """Those of which this ComfyUI has every class."""
    shipped = shipped_graphs(WORKFLOWS)
    return {
        name: graph for name, graph in shipped.items() if all(node["class_type"] in info for node in graph.values())
    }


def test_the_shipped_graphs_are_accepted_by_both(held: HeldComfyUI, info: ObjectInfo, graphs: Graphs) -> None:
    assert graphs
    results = {name: compared(held, Mutation("", graph, None), info) for name, graph in graphs.items()}
    refused = [name for name, result in results.items() if result.answer.refused or result.judgement.refused]
    assert refused == []


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_made_wrong_is_found_where_comfyui_finds_it(
    kind: str, held: HeldComfyUI, info: ObjectInfo, graphs: Graphs
) -> None:
    random, bases = Random(SEED), list(graphs.values())
    made = [found for _ in range(SAMPLE) if (found := mutated(kind, random.choice(bases), info, random)) is not None]
    results = [compared(held, mutation, info) for mutation in made]
    assert [result for result in results if result.falsely_refused] == []
    refused = [result for result in results if result.answer.refused]
    assert refused, "nothing of it was wrong"
    assert [result.mutation.place for result in refused if not result.caught] == []


def test_what_is_as_good_is_not_refused(held: HeldComfyUI, info: ObjectInfo, graphs: Graphs) -> None:
    random, bases = Random(SEED), list(graphs.values())
    made = [Mutation("", varied(random.choice(bases), info, random), None) for _ in range(SAMPLE)]
    results = [compared(held, mutation, info) for mutation in made]
    assert [result.answer for result in results if result.answer.refused] == [], "it was to be as good"
    assert [result for result in results if result.falsely_refused] == []

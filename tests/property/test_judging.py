"""Whatever is done to a graph, the judgement refuses it only when the twin of ComfyUI's own validation does."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from morpheus_worker.comfy.check import validate
from morpheus_worker.comfy.judging import judge
from morpheus_worker.comfy.recorded import load_recorded
from morpheus_worker.comfy.wording import DANGLING
from tests.comfyui.mutations import KINDS, mutated, varied


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


BASE = {
    "1": node("EmptyImage", width=64, height=64, batch_size=1, color=0),
    "2": node("ImageScale", image=["1", 0], upscale_method="area", width=32, height=32, crop="disabled"),
    "3": node("ImageInvert", image=["2", 0]),
    "4": node("ImageBatch", image1=["3", 0], image2=["1", 0]),
    "5": node("SaveImage", images=["4", 0], filename_prefix="x"),
    "6": node("PreviewImage", images=["3", 0]),
    "7": node("LoadImage", image="a.png"),
    "8": node(
        "ImageCompositeMasked", destination=["7", 0], source=["2", 0], x=0, y=0, resize_source=False, mask=["7", 1]
    ),
    "9": node(
        "SaveAnimatedWEBP", images=["8", 0], filename_prefix="x", fps=6.0, lossless=True, quality=80, method="default"
    ),
}


def changed(seed: int, times: int) -> dict[str, Any]:
    random, graph = Random(seed), dict(BASE)
    for _ in range(times):
        if random.random() < 0.3:
            graph = varied(graph, load_recorded(), random)
        found = mutated(random.choice(KINDS), graph, load_recorded(), random)
        graph = found.graph if found is not None else graph
        if graph and random.random() < 0.2:
            some = random.choice(sorted(graph))
            graph[some]["inputs"]["other"] = [random.choice([*sorted(graph), "nowhere"]), 0]
    return graph


@given(st.integers(min_value=0), st.integers(min_value=0, max_value=3))
def test_it_refuses_what_comfyui_refuses(seed: int, times: int) -> None:
    graph = changed(seed, times)
    judgement, verdict = judge(graph, load_recorded()), validate(graph, load_recorded())
    if judgement.refused != (not verdict.ok):
        # The one thing that ComfyUI accepts and must not get.
        assert judgement.refused
        assert [fault for fault in judgement.faults if (fault.kind, fault.input) == (DANGLING, "other")]
    if judgement.refused:
        assert judgement.faults
        assert judgement.as_error(lambda *_: None).problems

"""What a graph says about one of its pictures: the words, the seed, the steps, the models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from morpheus_worker.comfy.graphs import is_link
from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.comfy.recorded import INPUT_FOLDER, folder_of
from morpheus_worker.rehearsal.schedule import Graph

_SEEDS: Final = ("seed", "noise_seed")
_TEXTS: Final = frozenset({"text", "prompt", "positive", "positive_prompt", "text_g", "caption", "value", "string"})
_UNWANTED: Final = "negative"
"""An input of this name leads to what the picture should not show."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the nodes before a picture were told."""

    prompt: str = ""
    seed: int | None = None
    steps: int | None = None
    models: tuple[str, ...] = ()


def facts_of(graph: Graph, node_id: str, object_info: ObjectInfo) -> Facts:
    """Reads the node and all that it comes from, the nearest first."""
    prompts, seeds, steps = [], [], []
    models: dict[str, None] = {}
    for class_type, name, value in _widgets(graph, node_id):
        if name in _SEEDS and isinstance(value, int):
            seeds.append(value)
        elif name == "steps" and isinstance(value, int):
            steps.append(value)
        elif isinstance(value, str) and value.strip():
            folder = folder_of(class_type, name, _config(object_info, class_type, name))
            if folder not in (None, INPUT_FOLDER):
                models[value] = None
            elif folder is None and _is_prose(object_info, class_type, name):
                prompts.append(value)
    prompt = prompts[0] if prompts else ""
    return Facts(prompt, seeds[0] if seeds else None, steps[0] if steps else None, tuple(models))


def _widgets(graph: Graph, node_id: str) -> Iterator[tuple[str, str, Any]]:
    """(class type, input, value) of every value that is no link, from this node backwards."""
    seen = {node_id}
    waiting = [node_id]
    while waiting:
        node = graph[waiting.pop(0)]
        for name, value in node["inputs"].items():
            if not is_link(value):
                yield node["class_type"], name, value
            elif name != _UNWANTED and value[0] not in seen and value[0] in graph:
                seen.add(value[0])
                waiting.append(value[0])


def _config(object_info: ObjectInfo, class_type: str, name: str) -> Any:
    inputs = object_info.raw[class_type].get("input", {})
    return next((names[name] for names in inputs.values() if name in names), None)


def _is_prose(object_info: ObjectInfo, class_type: str, name: str) -> bool:
    declared = object_info.input(class_type, name)
    if declared is None or declared.type != "STRING":
        return False
    return name in _TEXTS or bool(declared.options.get("multiline"))

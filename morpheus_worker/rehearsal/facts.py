"""What a graph says about one of its pictures: the words, the seed, the steps, the models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from morpheus_worker.comfy.graphs import is_link
from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.comfy.recorded import INPUT_FOLDER, folder_of
from morpheus_worker.rehearsal.schedule import Graph

_SEEDS: Final = ("seed", "noise_seed")
_TEXTS: Final = frozenset({"text", "prompt", "positive", "positive_prompt", "text_g", "caption", "value", "string"})
_NO_PROSE: Final = frozenset({"command"})
"""Texts of several lines that are no words for a picture."""

_UNWANTED: Final = "negative"
"""An input of this name leads to what the picture should not show."""

LONGEST_JOINED: Final = 10_000
DEEPEST_JOINED: Final = 100
"""Characters of a joined text, and nodes in a row, that a picture's label goes into."""

_JOINER: Final = "StringConcatenate"
_JOINED: Final = ("string_a", "string_b")
_STRENGTHS: Final = ("strength_model", "strength")


@dataclass(frozen=True, slots=True)
class Facts:
    """What the nodes before a picture were told. `strengths` are those of LoRAs, by their names among `models`;
    `settings` are the sampler's, in words."""

    prompt: str = ""
    seed: int | None = None
    steps: int | None = None
    models: tuple[str, ...] = ()
    unwanted: str = ""
    strengths: tuple[tuple[str, float], ...] = ()
    settings: tuple[str, ...] = ()

    def model_lines(self) -> list[str]:
        """The models, LoRAs with their strengths."""
        strengths = dict(self.strengths)
        return [f"{name} at {strengths[name]:g}" if name in strengths else name for name in self.models]


def facts_of(graph: Graph, node_id: str, object_info: ObjectInfo) -> Facts:
    """Reads the node and all that it comes from, the nearest first."""
    prompts, seeds, steps = [], [], []
    models: dict[str, None] = {}
    strengths: dict[str, float] = {}
    settings: tuple[str, ...] = ()
    for node in _upstream(graph, node_id):
        settings = settings or _settings(node["inputs"])
        prompts += _prose(graph, node, object_info)
        for name, value in node["inputs"].items():
            if name in _SEEDS and isinstance(value, int):
                seeds.append(value)
            elif name == "steps" and isinstance(value, int):
                steps.append(value)
            elif (
                isinstance(value, str)
                and value
                and (folder := _folder(object_info, node["class_type"], name)) is not None
            ):
                models[value] = None
                if folder == "loras":
                    strengths |= _strength(value, node["inputs"])
    return Facts(
        prompts[0] if prompts else "",
        seeds[0] if seeds else None,
        steps[0] if steps else None,
        tuple(models),
        _unwanted(graph, node_id, object_info),
        tuple(strengths.items()),
        settings,
    )


def _upstream(graph: Graph, node_id: str) -> Iterator[Mapping[str, Any]]:
    """This node and those it comes from, but not what the picture should not show, nor the parts of a joined text."""
    seen = {node_id}
    waiting = [node_id]
    while waiting:
        node = graph[waiting.pop(0)]
        yield node
        for name, value in node["inputs"].items() if node["class_type"] != _JOINER else ():
            if is_link(value) and name != _UNWANTED and value[0] not in seen and value[0] in graph:
                seen.add(value[0])
                waiting.append(value[0])


def _unwanted(graph: Graph, node_id: str, object_info: ObjectInfo) -> str:
    """The words of the nearest negative prompt."""
    link = next((link for node in _upstream(graph, node_id) if is_link(link := node["inputs"].get(_UNWANTED))), None)
    seen: set[str] = set()
    # Nodes that change both prompts (ControlNet's, say) hand them on under the same two names.
    while link is not None and (source := link[0]) in graph and source not in seen:
        seen.add(source)
        further = graph[source]["inputs"].get(_UNWANTED)
        if not is_link(further):
            words = (text for node in _upstream(graph, source) for text in _prose(graph, node, object_info))
            return next(words, "")
        link = further
    return ""


def _prose(graph: Graph, node: Mapping[str, Any], object_info: ObjectInfo) -> list[str]:
    """The words that this node was given, those that were joined for it included."""
    if node["class_type"] == _JOINER:
        texts = [_joined(graph, node, {})]
    else:
        texts = [
            value
            for name, value in node["inputs"].items()
            if isinstance(value, str) and _is_prose(object_info, node["class_type"], name)
        ]
    return [text for text in texts if text.strip()]


def _joined(graph: Graph, node: Mapping[str, Any], known: dict[str, str], depth: int = 0) -> str:
    """`known` are the texts of nodes that have been asked already: many may read from one."""
    delimiter = node["inputs"].get("delimiter")
    parts = (_text(graph, node["inputs"].get(name), known, depth) for name in _JOINED)
    return (delimiter if isinstance(delimiter, str) else "").join(parts)[:LONGEST_JOINED]


def _text(graph: Graph, value: Any, known: dict[str, str], depth: int) -> str:
    if isinstance(value, str):
        return value
    if not is_link(value) or value[0] not in graph or depth > DEEPEST_JOINED:
        return ""
    if value[0] not in known:
        known[value[0]], source = "", graph[value[0]]
        if source["class_type"] == _JOINER:
            known[value[0]] = _joined(graph, source, known, depth + 1)
        else:
            known[value[0]] = _text(graph, source["inputs"].get("value"), known, depth + 1)
    return known[value[0]]


def _settings(inputs: Mapping[str, Any]) -> tuple[str, ...]:
    """The sampler's, if this node has a sampler."""
    if not isinstance(inputs.get("sampler_name"), str):
        return ()
    named = [f"{name} {inputs[name]:g}" for name in ("cfg", "denoise") if _is_number(inputs.get(name))]
    chosen = [inputs[name] for name in ("sampler_name", "scheduler") if isinstance(inputs.get(name), str)]
    return (", ".join([*named, *chosen]),)


def _strength(lora: str, inputs: Mapping[str, Any]) -> dict[str, float]:
    given = next((inputs[name] for name in _STRENGTHS if _is_number(inputs.get(name))), None)
    return {} if given is None else {lora: float(given)}


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _folder(object_info: ObjectInfo, class_type: str, name: str) -> str | None:
    """The model folder that the input lists, if any."""
    inputs = object_info.raw[class_type].get("input", {})
    config = next((names[name] for names in inputs.values() if name in names), None)
    folder = folder_of(class_type, name, config)
    return None if folder == INPUT_FOLDER else folder


def _is_prose(object_info: ObjectInfo, class_type: str, name: str) -> bool:
    declared = object_info.input(class_type, name)
    if declared is None or declared.type != "STRING" or name in _NO_PROSE:
        return False
    return name in _TEXTS or bool(declared.options.get("multiline"))

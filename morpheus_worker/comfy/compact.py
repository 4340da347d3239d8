"""Object info in few bytes: the facts of each node class, without what follows from them and without prose.

Facts are types, ranges, defaults, choices, flags and the order of inputs. Left out are tooltips, descriptions, names
and categories for display, and whatever only the editor reads. `expand` gives a class back in ComfyUI's own form.

Three keys are ours, since ComfyUI does not say these things in its object info: `validates`, `types` and `takes`, as
`OwnChecks` has them; `"validates": "*"` stands for every input.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from morpheus_worker.comfy.folders import folder_of
from morpheus_worker.comfy.objectinfo import OwnChecks

KEPT_OPTIONS: Final = frozenset(
    {
        *("default", "min", "max", "step", "round", "multiline", "multiselect", "options", "forceInput", "lazy"),
        *("image_upload", "audio_upload", "video_upload", "file_upload", "image_folder", "control_after_generate"),
        *("dynamicPrompts", "rawLink"),
    }
)
CONSTANT_CHOICES: Final = frozenset({"pixel_space", "[None]", "Select the LoRA to add to the text"})
"""Choices that stand in a list of files without being one."""

OWN_KEYS: Final = ("validates", "types", "takes")
NODES_KEY: Final = "nodes"


def compact(described: Mapping[str, Any], *, files: bool = True) -> dict[str, Any]:
    """The facts of each class by its name, from what `GET /object_info` answers.

    Without `files`, inputs that list the files of a machine keep no more of their choices than every machine has.
    """
    return {class_type: _facts(class_type, raw, files=files) for class_type, raw in described.items()}


def _facts(class_type: str, raw: Mapping[str, Any], *, files: bool) -> dict[str, Any]:
    output = raw.get("output")
    facts: dict[str, Any] = {
        "input": {
            category: {name: _input(class_type, name, config, files=files) for name, config in inputs.items()}
            if isinstance(inputs, Mapping)
            else inputs
            for category, inputs in raw["input"].items()
        },
        "output": output,
        **({"python_module": raw["python_module"]} if "python_module" in raw else {}),
    }
    if _says_something(raw.get("output_is_list")):
        facts["output_is_list"] = raw["output_is_list"]
    if raw.get("output_name", output) != output:
        facts["output_name"] = raw["output_name"]
    if raw.get("output_node"):
        facts["output_node"] = True
    if raw.get("api_node") is not None:
        facts["api_node"] = raw["api_node"]
    return facts | {key: raw[key] for key in OWN_KEYS if key in raw}


def _says_something(flags: Any) -> bool:
    return any(flags) if isinstance(flags, list) else bool(flags)


def _input(class_type: str, name: str, config: Any, *, files: bool) -> Any:
    if not isinstance(config, list) or not config:
        return config
    kind, *rest = config
    emptied = not files and folder_of(class_type, name, config) is not None
    if isinstance(kind, list) and emptied:
        kind = _constants(kind)
    if not rest or not isinstance(rest[0], Mapping):
        return [kind]
    options = {option: value for option, value in rest[0].items() if option in KEPT_OPTIONS}
    if emptied and "options" in options:
        options["options"] = _constants(options["options"])
    return [kind, options]


def _constants(choices: Sequence[Any]) -> list[Any]:
    return [choice for choice in choices if choice in CONSTANT_CHOICES]


def expand(class_type: str, facts: Mapping[str, Any], *, python_module: str = "nodes") -> dict[str, Any]:
    """One class as ComfyUI describes it, from its facts. `python_module` is that of facts which name none."""
    inputs, output = facts["input"], facts.get("output")
    return {
        "input": inputs,
        "input_order": {category: list(names or ()) for category, names in inputs.items()},
        "output": output,
        "output_is_list": facts.get("output_is_list", [False] * len(output or ())),
        "output_name": facts.get("output_name", output),
        "name": class_type,
        "display_name": class_type,
        "description": "",
        "python_module": facts.get("python_module", python_module),
        "category": "",
        "output_node": facts.get("output_node", False),
        **({"api_node": facts["api_node"]} if "api_node" in facts else {}),
    }


def own_checks_in(facts: Mapping[str, Any]) -> OwnChecks:
    """What the class checks itself, from its facts."""
    named = facts.get("validates", ())
    inputs = input_names(facts) if named == "*" else named
    return OwnChecks(frozenset(inputs), bool(facts.get("types")), facts.get("takes", {}))


def input_names(described: Mapping[str, Any]) -> list[str]:
    """The inputs that ComfyUI knows of the class, required ones first; from its facts, or as ComfyUI describes it."""
    inputs = described.get("input") or {}
    return [*(inputs.get("required") or ()), *(inputs.get("optional") or ())]


def as_text(head: Mapping[str, Any], nodes: Mapping[str, Any]) -> str:
    """`head` with the facts of `nodes` below it: one class a line in alphabetical order, so that a change of one class
    is a change of one line."""
    lines = [f"{json.dumps(name)}: {json.dumps(nodes[name], separators=(',', ':'))}" for name in sorted(nodes)]
    opening = json.dumps(head).removesuffix("}")
    return f'{opening},\n"{NODES_KEY}": {{\n' + ",\n".join(lines) + "\n}}\n"

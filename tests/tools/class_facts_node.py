"""A node pack without nodes: it tells what a ComfyUI knows of its node classes and does not say in its object info.

Put this file into the custom_nodes folder of the ComfyUI to record; the recorders then read `GET /class_facts`:
by class, `validates` (the inputs that its `VALIDATE_INPUTS` takes, or "*" when it takes all), `types` (that method
judges the types of links, too), and `takes` (by input, the types that a link may bring where the class compares in a
way of its own, with commas between; "*" for all). It runs in ComfyUI's Python and imports nothing of this project.
"""

from __future__ import annotations

import inspect
from typing import Any

import nodes  # type: ignore[import-not-found]
from aiohttp import web
from comfy_api.internal import _ComfyNodeInternal, first_real_override  # type: ignore[import-not-found]
from server import PromptServer  # type: ignore[import-not-found]

NODE_CLASS_MAPPINGS: dict[str, type] = {}


def facts_of(node_class: Any, all_types: list[str]) -> dict[str, Any]:
    """The facts of one class; those that say nothing are left out."""
    declared = node_class.INPUT_TYPES()
    inputs = {**(declared.get("required") or {}), **(declared.get("optional") or {})}
    kinds = {name: config[0] for name, config in inputs.items() if isinstance(config, (list, tuple)) and config}
    odd = {name: kind for name, kind in kinds.items() if isinstance(kind, str) and type(kind) is not str}
    takes = {name: _taken(kind, all_types) for name, kind in odd.items()}
    facts = {
        **_own_checks(node_class, list(inputs)),
        "takes": {name: taken for name, taken in takes.items() if taken != str.__str__(odd[name])},
    }
    return {key: value for key, value in facts.items() if value}


def _own_checks(node_class: Any, inputs: list[str]) -> dict[str, Any]:
    if issubclass(node_class, _ComfyNodeInternal):
        method = first_real_override(node_class, "validate_inputs")
    else:
        method = getattr(node_class, "VALIDATE_INPUTS", None)
    if method is None:
        return {}
    taken = inspect.getfullargspec(method)
    named = "*" if taken.varkw is not None else [name for name in inputs if name in taken.args]
    return {"validates": named, "types": "input_types" in taken.args}


def _taken(kind: Any, all_types: list[str]) -> str:
    """The types that ComfyUI lets pass for this one, which has a comparison of its own."""
    fitting = [name for name in all_types if not name != kind]  # noqa: SIM202
    if len(fitting) == len(all_types):
        return "*"
    return ",".join(fitting) if len(fitting) > 1 else str.__str__(kind)


@PromptServer.instance.routes.get("/class_facts")  # type: ignore[untyped-decorator]
async def class_facts(_request: web.Request) -> web.Response:
    classes = nodes.NODE_CLASS_MAPPINGS
    outputs = (kind for node_class in classes.values() for kind in node_class.RETURN_TYPES or ())
    # Everything takes the type "*", and says so by its text.
    all_types = sorted({str.__str__(kind) for kind in outputs if isinstance(kind, str)} - {"*"})
    facts = {name: facts_of(node_class, all_types) for name, node_class in classes.items()}
    return web.json_response({name: found for name, found in facts.items() if found})

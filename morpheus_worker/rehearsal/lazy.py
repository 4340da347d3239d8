"""Inputs that are computed only when their node asks for them.

Source: ComfyUI 0.3.64, comfy_execution/graph.py `add_node`, execution.py `execute` (`check_lazy_status`). Which of them
a node asks for is known to its own code alone; here only those classes are lazy whose code was read. All other nodes
get all of their inputs, whatever the object info says.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from morpheus_worker.comfy.objectinfo import NodeInfo

Wanted = Callable[[Mapping[str, Any]], tuple[str, ...]]


def _branch(inputs: Mapping[str, Any]) -> tuple[str, ...]:
    return ("tt_value",) if inputs.get("cond") else ("ff_value",)


_WANTED: Final[Mapping[str, Wanted]] = {"ImpactConditionalBranch": _branch}
"""By class type: the lazy inputs that the node needs, once it has the others (ComfyUI-Impact-Pack, logics.py)."""


def is_lazy(node: NodeInfo, name: str) -> bool:
    """Whether what this input links to waits until the node asks for it."""
    declared = node.inputs.get(name)
    return node.class_type in _WANTED and declared is not None and bool(declared.options.get("lazy"))


def missing_lazy_inputs(node: NodeInfo, values: Mapping[str, Any], absent: Collection[str]) -> tuple[str, ...]:
    """The lazy inputs that the node needs, of those that are `absent`: what they link to has not run."""
    wanted = _WANTED[node.class_type](values) if node.class_type in _WANTED else ()
    return tuple(name for name in wanted if is_lazy(node, name) and name in absent)

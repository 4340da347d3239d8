"""Makes a graph's outputs this job's own.

ComfyUI caches by a node's inputs. A second job with the same params would get the first one's answer from the cache,
which names files that were moved to the volume long ago. And two jobs that save under one prefix share a folder, where
a failed one cannot be told apart from its neighbour. So each job saves into a folder of its own, and an output node
that names no folder gets an input which it ignores, but the cache does not.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any, Final

from morpheus_worker.comfy.habits import Habits

PREFIX_INPUT: Final = "filename_prefix"
DEFAULT_PREFIX: Final = "ComfyUI"
MARK_INPUT: Final = "_morpheus_job"
"""An input no node has: ComfyUI validates and passes on only the inputs a class declares, but hashes all of them
(0.3.64, comfy_execution/caching.py `get_immediate_node_signature`, execution.py `get_input_data`)."""


def isolate(graph: Mapping[str, Any], token: str, habits: Habits) -> dict[str, Any]:
    """The graph with every node that may leave files bound to the folder `token`. The nodes that only compute stay as
    they are, so their cached results are still used; what a saving node passes on is computed again.
    """
    return {
        node_id: _bound(node, token) if habits.saves(node["class_type"]) else dict(node)
        for node_id, node in graph.items()
    }


def _bound(node: Mapping[str, Any], token: str) -> dict[str, Any]:
    held = node["inputs"].get(PREFIX_INPUT)
    # ComfyUI takes a value out of such an object, and makes text of a number.
    prefix = held["__value__"] if isinstance(held, Mapping) and "__value__" in held else held
    is_value = isinstance(prefix, (str, int, float))
    bound = {PREFIX_INPUT: f"{token}/{_within(str(prefix))}"} if is_value else {MARK_INPUT: token}
    return {**node, "inputs": {**node["inputs"], **bound}}


def _within(prefix: str) -> str:
    """ComfyUI normalises a prefix before it uses it, so an empty one, or one with `..`, would leave the folder."""
    return posixpath.normpath("/" + prefix).lstrip("/") or DEFAULT_PREFIX

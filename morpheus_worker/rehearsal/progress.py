"""The state of a prompt's nodes, and the messages that tell of it.

Source: ComfyUI 0.3.64, comfy_execution/progress.py: each change sends the state of every node that has begun.
"""

from __future__ import annotations

from collections.abc import Callable

from morpheus_worker.comfy.messages import Message, NodeProgress, NodeState, ProgressState


class ProgressBoard:
    """One prompt's nodes. `send` gives a message to the prompt's client."""

    def __init__(self, prompt_id: str, send: Callable[[Message], None]) -> None:
        self._prompt_id = prompt_id
        self._send = send
        self._nodes: dict[str, NodeState] = {}

    def start(self, node_id: str) -> None:
        self._set(node_id, NodeState(0.0, 1.0, "running"))

    def step(self, node_id: str, value: int, maximum: int) -> None:
        self._set(node_id, NodeState(value, maximum, "running"))
        self._send(NodeProgress(self._prompt_id, node_id, value, maximum))

    def finish(self, node_id: str) -> None:
        maximum = self._nodes[node_id].max if node_id in self._nodes else 1
        self._set(node_id, NodeState(maximum, maximum, "finished"))

    def _set(self, node_id: str, state: NodeState) -> None:
        self._nodes[node_id] = state
        self._send(ProgressState(self._prompt_id, dict(self._nodes)))

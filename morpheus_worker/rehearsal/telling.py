"""What is told of one prompt while it runs, to its client and to the history.

Source: ComfyUI 0.3.64, execution.py `add_message`, `handle_execution_error`, `execute`.
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from morpheus_worker.comfy.messages import (
    Executed,
    Executing,
    ExecutionCached,
    ExecutionError,
    ExecutionInterrupted,
    ExecutionStart,
    ExecutionSuccess,
    Message,
)
from morpheus_worker.rehearsal.hub import Hub, event_of
from morpheus_worker.rehearsal.progress import ProgressBoard
from morpheus_worker.rehearsal.queue import Prompt


class InterruptedPromptError(Exception):
    """Somebody asked for the running prompt to stop."""


class DependencyCycleError(Exception):
    """No node can run, since all that are left wait for each other."""

    exception_type: Final = "graph.DependencyCycleError"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a prompt ended at a node, and what the node had been given."""

    node_id: str
    error: Exception
    inputs: Mapping[str, Any] = field(default_factory=dict)


class Teller:
    """One prompt's messages. `messages` are those that its history entry will hold."""

    def __init__(self, hub: Hub, prompt: Prompt) -> None:
        self.messages: list[tuple[str, Any]] = []
        self.board = ProgressBoard(prompt.prompt_id, lambda message: hub.send(message, prompt.client_id))
        self._hub = hub
        self._prompt = prompt
        self._prompt_id = prompt.prompt_id
        self._has_client = prompt.client_id is not None

    def garbage(self, frames: Sequence[str | bytes]) -> None:
        for frame in frames:
            self._hub.send_frame(frame, self._prompt.client_id)

    def started(self) -> None:
        self._announce(ExecutionStart(self._prompt_id))

    def cached(self, nodes: tuple[str, ...]) -> None:
        self._announce(ExecutionCached(self._prompt_id, nodes))

    def succeeded(self) -> None:
        self._announce(ExecutionSuccess(self._prompt_id))

    def executing(self, node_id: str) -> None:
        if self._has_client:
            self._hub.last_node_id = node_id
            self._hub.send(Executing(self._prompt_id, node_id, node_id), self._prompt.client_id)

    def executed(self, node_id: str, output: Mapping[str, Any] | None) -> None:
        if self._has_client:
            self._hub.send(Executed(self._prompt_id, node_id, output, node_id), self._prompt.client_id)

    def filed(self) -> None:
        """The history entry exists."""
        if self._has_client:
            self._hub.send(Executing(self._prompt_id, None), self._prompt.client_id)

    def failed(self, failure: Failure, executed: tuple[str, ...]) -> None:
        error, node_id = failure.error, failure.node_id
        class_type = self._prompt.graph[node_id]["class_type"]
        if isinstance(error, InterruptedPromptError):
            self._announce(ExecutionInterrupted(self._prompt_id, node_id, class_type, executed), to_all=True)
            return
        in_a_cycle = isinstance(error, DependencyCycleError)
        message = ExecutionError(
            prompt_id=self._prompt_id,
            node_id=node_id,
            node_type=class_type,
            exception_type=_name_of(error),
            exception_message=str(error) if in_a_cycle else f"{error}\n{getattr(error, 'tips', '')}",
            traceback=() if in_a_cycle else tuple(traceback.format_tb(error.__traceback__)),
            executed=executed,
        )
        given = {name: [_shown(value)] for name, value in failure.inputs.items()}
        outputs = list(self._prompt.graph)
        self._announce(message, current_inputs=[] if in_a_cycle else given, current_outputs=outputs)

    def _announce(self, message: Message, *, to_all: bool = False, **more: Any) -> None:
        """Sends a message that the history entry will hold too, with the time."""
        kind, data = event_of(message, **more, timestamp=int(time.time() * 1000))
        self.messages.append((kind, data))
        if self._has_client or to_all:
            self._hub.send_frame(json.dumps({"type": kind, "data": data}), self._prompt.client_id)


def _name_of(error: Exception) -> str:
    """The full name of an exception's class; `exception_type` says whose part it plays."""
    played = getattr(error, "exception_type", None)
    if played is not None:
        return str(played)
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _shown(value: object) -> object:
    return value if value is None or isinstance(value, (int, float, str)) else str(value)

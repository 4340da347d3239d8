"""ComfyUI's WebSocket messages as values.

Source: ComfyUI 0.3.64, server.py, execution.py, main.py (`hijack_progress`), comfy_execution/progress.py. How they look
on the wire is the codec's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Status:
    """The queue's length changed. Sent to everybody, and with `sid` to a client that has just connected."""

    queue_remaining: int
    sid: str | None = None


@dataclass(frozen=True, slots=True)
class ExecutionStart:
    """The prompt begins; `timestamp_ms` is when, in milliseconds since the epoch by ComfyUI's clock."""

    prompt_id: str
    timestamp_ms: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class ExecutionCached:
    """Nodes whose outputs are reused: they will not be executed."""

    prompt_id: str
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Executing:
    """A node starts. `node` None: the prompt has ended and its history entry exists.

    `prompt_id` is None only in what a client gets right after it reconnected.
    """

    prompt_id: str | None
    node: str | None
    display_node: str | None = None


@dataclass(frozen=True, slots=True)
class NodeProgress:
    """Step `value` of `max` within a node (ComfyUI's `progress`)."""

    prompt_id: str | None
    node: str | None
    value: float
    max: float


@dataclass(frozen=True, slots=True)
class NodeState:
    """One node's line in a `progress_state`; `state` is `pending`, `running`, `finished` or `error`."""

    value: float
    max: float
    state: str


@dataclass(frozen=True, slots=True)
class ProgressState:
    """The state of every node that has started so far."""

    prompt_id: str
    nodes: Mapping[str, NodeState] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Executed:
    """A node reported something to show. `output` is what its history entry will hold."""

    prompt_id: str
    node: str
    output: Mapping[str, Any] | None
    display_node: str | None = None


@dataclass(frozen=True, slots=True)
class ExecutionSuccess:
    """The prompt ended well. Its history entry may not exist yet."""

    prompt_id: str


@dataclass(frozen=True, slots=True)
class ExecutionError:
    """A node raised. Sent before the history entry exists."""

    prompt_id: str
    node_id: str
    node_type: str
    exception_type: str
    exception_message: str
    traceback: tuple[str, ...] = ()
    executed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExecutionInterrupted:
    prompt_id: str
    node_id: str | None = None
    node_type: str | None = None
    executed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Preview:
    """A picture of the latent while a sampler runs (binary)."""

    media_type: str
    data: bytes
    metadata: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ProgressText:
    """A line of text that a node shows while it runs (binary)."""

    node_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Other:
    """A message of a type that this worker has no use for (`feature_flags`, a custom node's own, …)."""

    type: str
    data: Any = None


Message = (
    Status
    | ExecutionStart
    | ExecutionCached
    | Executing
    | NodeProgress
    | ProgressState
    | Executed
    | ExecutionSuccess
    | ExecutionError
    | ExecutionInterrupted
    | Preview
    | ProgressText
    | Other
)


def prompt_of(message: Message) -> str | None:
    """The prompt a message speaks of, or None."""
    return getattr(message, "prompt_id", None)

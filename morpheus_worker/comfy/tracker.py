"""Where a prompt is, as a table of states. No sockets, no files, no clock but the one handed in.

The tracker is fed two kinds of news: messages from the WebSocket, and observations made over HTTP (`Seen`,
`HistoryEntry`). Either alone suffices to reach an end, so a lost message costs a moment, never a job.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from morpheus_worker.comfy.history import End, HistoryEntry
from morpheus_worker.comfy.messages import (
    Executed,
    Executing,
    ExecutionCached,
    ExecutionError,
    ExecutionInterrupted,
    ExecutionStart,
    ExecutionSuccess,
    Message,
    NodeProgress,
    ProgressState,
)
from morpheus_worker.deadlines import Clock
from morpheus_worker.jobs import Progress


class State(StrEnum):
    QUEUED = "queued"
    EXECUTING = "executing"
    SETTLING = "settling"
    """It ended, and its history entry is about to appear."""
    MISSING = "missing"
    """Once in neither the queue nor the history."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    LOST = "lost"
    """Twice in neither: ComfyUI was restarted, or its queue was cleared."""


class Signal(StrEnum):
    """What a piece of news means for the state."""

    STARTED = "started"
    ENDED = "ended"
    RAISED = "raised"
    STOPPED = "stopped"
    SEEN_PENDING = "seen_pending"
    SEEN_RUNNING = "seen_running"
    SEEN_NOWHERE = "seen_nowhere"
    FILED_SUCCESS = "filed_success"
    FILED_ERROR = "filed_error"
    FILED_INTERRUPTED = "filed_interrupted"


class Place(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    NOWHERE = "nowhere"


@dataclass(frozen=True, slots=True)
class Seen:
    """Where `GET /queue`, and after it `GET /history`, showed the prompt. In that order the two leave no gap: ComfyUI
    files the entry and forgets the running prompt under one lock."""

    place: Place


class IllegalTransitionError(RuntimeError):
    """News for a prompt that has already reached its end."""


ENDED_STATES: Final = frozenset({State.SUCCEEDED, State.FAILED, State.INTERRUPTED, State.LOST})

_FILED: Final = {
    Signal.FILED_SUCCESS: State.SUCCEEDED,
    Signal.FILED_ERROR: State.FAILED,
    Signal.FILED_INTERRUPTED: State.INTERRUPTED,
}
_ANNOUNCED: Final = {
    Signal.ENDED: State.SETTLING,
    Signal.RAISED: State.FAILED,
    Signal.STOPPED: State.INTERRUPTED,
}
# An observation travels more slowly than a message: when it tells of a moment that has passed, it changes nothing.
TRANSITIONS: Final[Mapping[State, Mapping[Signal, State]]] = {
    State.QUEUED: _FILED
    | _ANNOUNCED
    | {
        Signal.STARTED: State.EXECUTING,
        Signal.SEEN_PENDING: State.QUEUED,
        Signal.SEEN_RUNNING: State.EXECUTING,
        Signal.SEEN_NOWHERE: State.MISSING,
    },
    State.EXECUTING: _FILED
    | _ANNOUNCED
    | {
        Signal.STARTED: State.EXECUTING,
        Signal.SEEN_PENDING: State.EXECUTING,
        Signal.SEEN_RUNNING: State.EXECUTING,
        Signal.SEEN_NOWHERE: State.MISSING,
    },
    State.SETTLING: _FILED
    | _ANNOUNCED
    | {
        Signal.STARTED: State.SETTLING,
        Signal.SEEN_PENDING: State.SETTLING,
        Signal.SEEN_RUNNING: State.SETTLING,
        Signal.SEEN_NOWHERE: State.MISSING,
    },
    State.MISSING: _FILED
    | _ANNOUNCED
    | {
        Signal.STARTED: State.EXECUTING,
        Signal.SEEN_PENDING: State.QUEUED,
        Signal.SEEN_RUNNING: State.EXECUTING,
        Signal.SEEN_NOWHERE: State.LOST,
    },
}


class PromptTracker:
    """One prompt's state, its progress, and how it ended."""

    def __init__(self, prompt_id: str, graph: Mapping[str, Any], clock: Clock) -> None:
        self.prompt_id = prompt_id
        self.state = State.QUEUED
        self.error: ExecutionError | None = None
        self.blocked: list[ExecutionError] = []
        self.entry: HistoryEntry | None = None
        self.end_was_announced = False
        self.started_at_s: float | None = None
        self._graph = graph
        self._clock = clock
        self._finished: set[str] = set()
        self._running: dict[str, tuple[float, float]] = {}
        self._node: str | None = None
        self._percent = 0.0

    @property
    def ended(self) -> bool:
        return self.state in ENDED_STATES

    @property
    def progress(self) -> Progress:
        """How far the prompt is; `percent` counts cached and finished nodes, and the steps of running ones."""
        if self.state == State.QUEUED:
            return Progress(stage="queued", percent=self._percent)
        step, steps = self._running.get(self._node or "", (None, None))
        class_type = (self._graph.get(self._node or "") or {}).get("class_type")
        counted = steps is not None and steps > 1
        return Progress(
            stage="executing",
            percent=self._percent,
            node_id=self._node,
            class_type=class_type,
            step=int(step) if counted and step is not None else None,
            steps=int(steps) if counted and steps is not None else None,
        )

    @property
    def finished(self) -> frozenset[str]:
        """The nodes that are known to be done, whether they ran or ComfyUI's cache answered for them."""
        return frozenset(self._finished)

    def observe(self, news: Message | Seen | HistoryEntry) -> None:
        """Takes in a message about this prompt, or an observation of it.

        Raises:
            IllegalTransitionError: when the prompt has already ended.
        """
        signal = self._signal(news)
        if signal is None:
            return
        if signal not in TRANSITIONS.get(self.state, {}):
            raise IllegalTransitionError(f"{signal} after {self.state} for prompt {self.prompt_id}")
        self.state = TRANSITIONS[self.state][signal]
        if self.state in (State.EXECUTING, State.SETTLING) and self.started_at_s is None:
            self.started_at_s = self._clock()
        self._update_percent()

    def _signal(self, news: Message | Seen | HistoryEntry) -> Signal | None:
        match news:
            case Seen(place):
                return Signal(f"seen_{place}")
            case HistoryEntry(end=end):
                self.entry, self.error = news, self.error or news.error
                return {
                    End.SUCCESS: Signal.FILED_SUCCESS,
                    End.ERROR: Signal.FILED_ERROR,
                    End.INTERRUPTED: Signal.FILED_INTERRUPTED,
                }[end]
            case ExecutionError(exception_type="ExecutionBlocked"):
                # The node has met a blocker and does not run; ComfyUI tells it so and goes on with the others (0.3.64,
                # execution.py `execution_block_cb`).
                self.blocked.append(news)
                return Signal.STARTED
            case ExecutionError():
                self.error = news
                return Signal.RAISED
            case ExecutionInterrupted():
                return Signal.STOPPED
            case ExecutionSuccess():
                return Signal.ENDED
            case Executing(node=None):
                self.end_was_announced = True
                return Signal.ENDED
            case ExecutionStart() | ExecutionCached() | Executing() | NodeProgress() | ProgressState() | Executed():
                self._take_progress(news)
                return Signal.STARTED
            case _:
                return None

    def _take_progress(self, news: Message) -> None:
        match news:
            case ExecutionCached(nodes=nodes):
                self._finished.update(nodes)
            case Executing(node=str(node)):
                if self._node is not None and self._node != node:
                    self._finish(self._node)
                self._node = node
            case NodeProgress(node=str(node), value=value, max=maximum):
                self._running[node] = (value, maximum)
            case ProgressState(nodes=nodes):
                for node_id, line in nodes.items():
                    if line.state == "running":
                        self._running[node_id] = (line.value, line.max)
                    elif line.state in ("finished", "error"):
                        self._finish(node_id)
            case Executed(node=node):
                self._finish(node)
            case _:
                pass

    def _finish(self, node_id: str) -> None:
        self._finished.add(node_id)
        self._running.pop(node_id, None)

    def _update_percent(self) -> None:
        """Never back: a node that expands into a subgraph starts again, and a reconnect forgets."""
        if not self._graph:
            return
        done = float(len(self._finished & self._graph.keys()))
        done += sum(
            min(value / maximum, 1.0)
            for node_id, (value, maximum) in self._running.items()
            if maximum > 0 and node_id in self._graph and node_id not in self._finished
        )
        self._percent = max(self._percent, round(min(100.0, 100.0 * done / len(self._graph)), 1))

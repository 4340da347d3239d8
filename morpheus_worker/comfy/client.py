"""Runs one prompt to its end: submits, follows the events, reconciles with the queue and the history, stops.

It never waits for something that cannot come any more: every turn of its loop asks whether the job was cancelled, the
deadline has passed, or ComfyUI's process is gone. Events without a gap suffice; whatever they leave out, the history
and the queue tell.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from morpheus_worker.comfy import faults
from morpheus_worker.comfy.graphs import leading_to, sources_of
from morpheus_worker.comfy.habits import Habits
from morpheus_worker.comfy.history import End, HistoryEntry
from morpheus_worker.comfy.http import (
    READ_TIMEOUT_S,
    Accepted,
    ComfyHttp,
    NotAnsweringError,
    Refusal,
    UnexpectedAnswerError,
)
from morpheus_worker.comfy.messages import Executed, ExecutionStart, ExecutionSuccess, Message
from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.comfy.overheard import Overheard
from morpheus_worker.comfy.recorded import pack_of
from morpheus_worker.comfy.socket import EventStream, Gap, Inbox
from morpheus_worker.comfy.tracker import Place, PromptTracker, Seen, State
from morpheus_worker.comfy.watch import RECONCILE_DEAF_S, Silence, Watch
from morpheus_worker.deadlines import Deadline, backoff_s
from morpheus_worker.errors import Code, MorpheusError
from morpheus_worker.jobs import Progress

log = logging.getLogger(__name__)

CONNECT_WAIT_S: Final = 5.0
"""How long a job waits for the event stream before it goes ahead without: only its progress would be coarser."""
TURN_S: Final = 0.2
"""Longest wait for an event before cancel, deadline and process are looked at again."""
SUBMIT_TRIES: Final = 4
STOP_WAIT_S: Final = 10.0
STOP_TURN_S: Final = 0.25
STOP_READ_S: Final = 2.0
"""How long ComfyUI may take to answer while a prompt is stopped."""
ONE_BY_ONE: Final = 8
"""Node classes that are described anew one by one; of more, all are asked for at once."""

LEAST_READ_S: Final = 0.5
WATCH_READ_S: Final = 5.0
"""And while one is watched. One that holds Python's lock may take seconds; it is asked again."""
STOP_TRIES: Final = 4
"""Requests without an answer, one after another, until ComfyUI is taken for gone, and the prompt with it."""


@dataclass(frozen=True, slots=True)
class Order:
    """A prompt to run. `where` names a node's input in the caller's words; `on_output` hears what a node reported, as
    soon as it did; `on_outputs`, if the events tell, that every node with an output has reported, a moment before the
    prompt is known to have succeeded; `extra_data` goes with the prompt; `fails_on` are parts of lines in ComfyUI's log
    that mean a failure of this code."""

    graph: Mapping[str, Any]
    deadline: Deadline
    cancelled: threading.Event
    where: faults.Where = lambda _node_id, _input_name: None
    on_progress: Callable[[Progress], None] = lambda _progress: None
    on_output: Callable[[str, Mapping[str, Any]], None] = lambda _node_id, _output: None
    on_outputs: Callable[[], None] = lambda: None
    extra_data: Mapping[str, Any] = field(default_factory=dict)
    fails_on: Mapping[str, Code] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finished:
    """A prompt that succeeded, its entry, and the seconds it waited and ran."""

    entry: HistoryEntry
    queued_s: float
    executing_s: float
    warnings: tuple[str, ...] = ()


class ComfyClient:
    """One ComfyUI, over one HTTP session and one event stream. `run` may be called from several threads at once."""

    def __init__(
        self,
        http: ComfyHttp,
        events: EventStream,
        object_info: ObjectInfo,
        *,
        exit_of_process: Callable[[], str | None] = lambda: None,
    ) -> None:
        self.http = http
        self.object_info = object_info
        self.events = events
        self.exit_of_process = exit_of_process
        self.habits = Habits(object_info)
        self.stuck: str | None = None

    def run(self, order: Order) -> Finished:
        """Runs the prompt and returns its history entry.

        Raises:
            MorpheusError: `missing_node`, `missing_model`, `invalid_workflow` or `invalid_params` when ComfyUI refuses
                it; what `faults.from_execution` says when a node raised; `timeout`, `cancelled`, `connection`,
                `comfyui_crashed`. The prompt is then neither queued nor running any more, unless `trouble` says why.
        """
        prompt_id = str(uuid.uuid4())
        with self.events.subscribe(prompt_id) as inbox:
            run = _Run(self, order, prompt_id, inbox)
            try:
                run.check()
                self.events.wait_until_connected(min(CONNECT_WAIT_S, order.deadline.remaining_s))
                warnings = run.submit()
                run.follow()
                return run.finished(warnings)
            except BaseException:
                run.stop()
                run.note_the_rest()
                raise

    def refresh(self, class_types: Iterable[str], deadline: Deadline) -> bool:
        """Asks anew about these node classes; whether the object info changed. It was read at boot, and models may have
        been added since.

        Raises:
            MorpheusError: `connection`.
        """
        known, asked = self.object_info.raw, set(class_types)
        timeout_s = min(WATCH_READ_S, max(LEAST_READ_S, deadline.remaining_s))
        now: dict[str, Any] = {}
        if len(asked) > ONE_BY_ONE:
            now = {name: raw for name, raw in self.http.object_info(timeout_s=timeout_s).items() if name in asked}
        else:
            for class_type in asked:
                now |= self.http.node_info(class_type, timeout_s=timeout_s)
        changed = {name: raw for name, raw in now.items() if known.get(name) != raw}
        if changed:
            self.object_info = ObjectInfo({**known, **changed}, self.object_info.own_checks)
        return bool(changed)

    def trouble(self) -> str | None:
        """Why no further prompt can be expected to run, or None: the process is gone, or a prompt will not stop."""
        exit_said = self.exit_of_process()
        return f"its process ended: {exit_said}" if exit_said is not None else self.stuck


class _Run:
    """One prompt under way."""

    def __init__(self, client: ComfyClient, order: Order, prompt_id: str, inbox: Inbox) -> None:
        self._client = client
        self._http = client.http
        self._order = order
        self._inbox = inbox
        self._prompt_id = prompt_id
        self._client_id = client.events.client_id
        self._tracker = PromptTracker(prompt_id, order.graph, time.monotonic)
        self._watch = Watch()
        self._overheard = Overheard(order.fails_on, lambda: client.http.log_entries(timeout_s=self._patience_s))
        self._may_be_there = False
        self._submitted_at_s = time.monotonic()
        self._outputs: dict[str, Mapping[str, Any]] = {}
        self._shown_by: dict[str, str] = {}
        saving = [key for key, node in order.graph.items() if client.habits.reports(node["class_type"])]
        self._needed = leading_to(saving, sources_of(order.graph))
        self._heard_all = False
        self._heard_end = False
        self._is_reachable = True

    def submit(self) -> list[str]:
        """Queues the prompt, once, whatever happens to ComfyUI's answers. Returns warnings."""
        waits = backoff_s(0.1, 2.0)
        for tries_left in reversed(range(SUBMIT_TRIES)):
            self.check()
            try:
                return self._accepted(self._post())
            except NotAnsweringError as failure:
                if self._arrived():
                    return self._accepted(Accepted(self._prompt_id, {}))
                if not tries_left:
                    raise
                log.warning("%s; trying again", failure)
                self._order.cancelled.wait(next(waits))
        raise AssertionError("unreachable: the last try returns or raises")

    def follow(self) -> None:
        """Until the prompt has ended, however that is learnt."""
        tracker, watch = self._tracker, self._watch
        while not tracker.ended:
            self.check()
            news = _next(self._inbox, min(TURN_S, watch.wait_s, self._order.deadline.remaining_s))
            if isinstance(news, Gap):
                self._heard_all = False
                watch.hurry()
            elif news is not None:
                self._observe(news)
                watch.noticed(tracker)
            if watch.due and not tracker.ended:
                if tracker.started_at_s is not None:
                    self._overheard.check()
                self._reconcile()
                watch.rest(tracker, connected=self._client.events.connected)

    def finished(self, warnings: list[str]) -> Finished:
        ended_at_s = time.monotonic()
        entry = _entry_or_raise(self._tracker)
        self._overheard.check()
        outputs = {**entry.outputs, **self._outputs}
        self._client.habits.learn(self._order.graph, self._tracker.finished, outputs, self._shown_by)
        self._renew_if_deaf()
        started_at_s = self._tracker.started_at_s or self._submitted_at_s
        blocked = [faults.blocked(error) for error in self._tracker.blocked]
        return Finished(entry, started_at_s - self._submitted_at_s, ended_at_s - started_at_s, (*warnings, *blocked))

    def stop(self) -> None:
        """Sees to it that the prompt is neither queued nor running, so that nothing writes into its folders any more.

        The interrupt is repeated: one that arrives while ComfyUI is just starting the prompt is forgotten (0.3.64,
        execution.py `execute_async` resets the flag). So is a request that gets no answer.
        """
        until, lost = Deadline.after(STOP_WAIT_S), 0
        while lost < STOP_TRIES and self._may_still_run():
            try:
                self._http.delete_queued(self._prompt_id, timeout_s=STOP_READ_S)
                if self._http.place(self._prompt_id, timeout_s=STOP_READ_S) == Place.NOWHERE:
                    return
                self._http.interrupt(self._prompt_id, timeout_s=STOP_READ_S)
                lost = 0
            except MorpheusError:
                lost += 1
            self._is_reachable = lost == 0
            if until.passed:
                self._client.stuck = f"a prompt that was told to stop {STOP_WAIT_S:g} s ago still runs"
                log.error("ComfyUI is stuck: %s", self._client.stuck)
                return
            time.sleep(STOP_TURN_S)

    def note_the_rest(self) -> None:
        """What a prompt that failed or was stopped has reported and nobody has heard, so that it can be taken away: the
        events that wait, and the entry, which keeps the outputs of the nodes that ran."""
        while (news := _next(self._inbox, 0)) is not None:
            if isinstance(news, Executed) and news.output:
                self._order.on_output(news.node, news.output)
        if not self._may_be_there or not self._is_reachable or self._client.exit_of_process() is not None:
            return
        with contextlib.suppress(MorpheusError):
            entry = self._http.history(self._prompt_id, timeout_s=STOP_READ_S)
            for node_id, output in (entry.outputs if entry is not None else {}).items():
                self._order.on_output(node_id, output)

    def _may_still_run(self) -> bool:
        has_ended = self._tracker.ended and self._tracker.entry is not None
        return self._may_be_there and not has_ended and self._client.exit_of_process() is None

    def _post(self) -> Accepted | Refusal:
        order = self._order
        self._may_be_there = True
        self._overheard.submitting()
        self._submitted_at_s = time.monotonic()
        self._client_id = self._client.events.client_id
        self._heard_all = self._is_listening()
        try:
            return self._http.submit(
                order.graph,
                prompt_id=self._prompt_id,
                client_id=self._client_id,
                extra_data=order.extra_data,
                timeout_s=min(READ_TIMEOUT_S, max(LEAST_READ_S, order.deadline.remaining_s)),
            )
        except UnexpectedAnswerError:
            self._may_be_there = False
            raise

    def _accepted(self, answer: Accepted | Refusal) -> list[str]:
        order, object_info = self._order, self._client.object_info
        if isinstance(answer, Refusal):
            self._may_be_there = False
            told = (answer.error, answer.node_errors, order.graph, object_info, order.where)
            raise faults.from_refusal(*told, pack_of=pack_of)
        if answer.prompt_id != self._prompt_id:
            # A ComfyUI that names its prompts itself. What it said meanwhile is lost, and will be asked for.
            self._client.events.rename(self._prompt_id, answer.prompt_id)
            self._prompt_id = answer.prompt_id
        order.on_progress(self._tracker.progress)
        return faults.ignored_outputs(answer.node_errors, order.graph, object_info)

    def _arrived(self) -> bool:
        """Whether a submission whose answer was lost arrived all the same. Asked until there is an answer: queued
        again on a guess, the prompt would run twice."""
        waits, silence = backoff_s(0.1, 2.0), Silence()
        while True:
            self.check()
            try:
                return self._place() != Place.NOWHERE or self._history() is not None
            except NotAnsweringError as failure:
                silence.heard_nothing(failure)
            self._order.cancelled.wait(next(waits))

    def _observe(self, news: Message | Seen | HistoryEntry) -> None:
        self._tracker.observe(news)
        if isinstance(news, ExecutionStart):
            self._overheard.started(news.timestamp_ms)
        elif isinstance(news, Executed):
            self._outputs[news.node] = news.output or {}
            self._shown_by[news.node] = news.display_node or news.node
            self._order.on_output(news.node, news.output or {})
            if self._heard_enough():
                self._order.on_outputs()
        elif isinstance(news, ExecutionSuccess):
            self._heard_end = True
            if self._heard_enough():
                self._tracker.observe(HistoryEntry(self._prompt_id, End.SUCCESS, self._outputs))
        self._order.on_progress(self._tracker.progress)

    def _is_listening(self) -> bool:
        """Whether the stream stands now, and everything it says from here on will be heard."""
        while (news := _next(self._inbox, 0)) is not None:
            if not isinstance(news, Gap):
                return False
        return self._client.events.connected

    def _heard_enough(self) -> bool:
        """Whether the events have told what the history will say: without a gap since before the submission, and of
        every node that may have something to say. ComfyUI puts into the history what it sends (0.3.64, execution.py
        `execute`), and of a cached node what it sent before: asking for it would only take time."""
        return self._heard_all and all(
            key in self._outputs or self._client.habits.is_silent(self._order.graph[key]["class_type"])
            for key in self._needed
        )

    @property
    def _patience_s(self) -> float:
        """How long one answer is waited for: no longer than the job may go on."""
        return min(WATCH_READ_S, max(LEAST_READ_S, self._order.deadline.remaining_s))

    def _place(self) -> Place:
        return self._http.place(self._prompt_id, timeout_s=self._patience_s)

    def _history(self) -> HistoryEntry | None:
        return self._http.history(self._prompt_id, timeout_s=self._patience_s)

    def _reconcile(self) -> None:
        try:
            entry = self._history() if self._tracker.state == State.SETTLING else None
            place = self._place() if entry is None else Place.NOWHERE
            if entry is None and place == Place.NOWHERE:
                entry = self._history()
        except NotAnsweringError as failure:
            self._watch.silence.heard_nothing(failure)
            return
        self._watch.silence.ended()
        self._observe(entry if entry is not None else Seen(place))

    def _renew_if_deaf(self) -> None:
        """A prompt that ended in the history without a word on the stream: the stream may have gone deaf. One that was
        submitted under an earlier id could not hear anything."""
        events = self._client.events
        if (
            self._heard_end
            or self._tracker.end_was_announced
            or not events.connected
            or events.client_id != self._client_id
        ):
            return
        for _ in range(int(RECONCILE_DEAF_S / TURN_S)):
            news = _next(self._inbox, TURN_S)
            if news is not None and not isinstance(news, Gap):
                return
        log.warning("ComfyUI ended a prompt without telling; connecting to its events anew")
        events.renew()

    def check(self) -> None:
        """Raises the reason why there is nothing more to wait for, where there is one."""
        if self._order.cancelled.is_set():
            raise MorpheusError(Code.CANCELLED, "The job was cancelled")
        if self._order.deadline.passed:
            raise MorpheusError(Code.TIMEOUT, "The job's deadline passed before ComfyUI was done")
        if (exit_said := self._client.exit_of_process()) is not None:
            raise MorpheusError(Code.COMFYUI_CRASHED, f"ComfyUI's process ended: {exit_said}")


def _entry_or_raise(tracker: PromptTracker) -> HistoryEntry:
    match tracker.state:
        case State.SUCCEEDED if tracker.entry is not None:
            return tracker.entry
        case State.FAILED if tracker.error is not None:
            raise faults.from_execution(tracker.error)
        case State.FAILED:
            raise MorpheusError(Code.EXECUTION_FAILED, "ComfyUI reports that the prompt failed, but not why")
        case State.INTERRUPTED:
            said = "The prompt was interrupted at ComfyUI, by somebody other than this worker"
            raise MorpheusError(Code.CANCELLED, said, retryable=True, refundable=True)
        case _:
            said = "ComfyUI no longer knows the prompt: it was restarted, or its queue was cleared"
            raise MorpheusError(Code.COMFYUI_CRASHED, said)


def _next(inbox: Inbox, wait_s: float) -> Message | Gap | None:
    try:
        return inbox.get(timeout=wait_s) if wait_s > 0 else inbox.get_nowait()
    except queue.Empty:
        return None

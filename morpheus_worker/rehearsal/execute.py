"""Executes prompts one after another, as ComfyUI does.

Source: ComfyUI 0.3.64, execution.py `PromptExecutor`, `execute`, main.py `prompt_worker`, `hijack_progress`.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import os
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from morpheus_worker.comfy.graphs import is_link
from morpheus_worker.comfy.objectinfo import NodeInfo, ObjectInfo
from morpheus_worker.rehearsal.cache import Cache
from morpheus_worker.rehearsal.call import Call
from morpheus_worker.rehearsal.catalog import Catalog
from morpheus_worker.rehearsal.facts import facts_of
from morpheus_worker.rehearsal.faults import CRASH_EXIT_CODE, GARBAGE, Box
from morpheus_worker.rehearsal.folders import Folders
from morpheus_worker.rehearsal.hub import Hub
from morpheus_worker.rehearsal.lazy import is_lazy, missing_lazy_inputs
from morpheus_worker.rehearsal.queue import Ended, Prompt, PromptQueue
from morpheus_worker.rehearsal.schedule import DeadlyGraphError, Schedule
from morpheus_worker.rehearsal.telling import DependencyCycleError, Failure, InterruptedPromptError, Teller

log = logging.getLogger(__name__)

LOG_ENTRIES: Final = 300
"""How much of its log ComfyUI keeps (0.3.64, app/logger.py)."""


@dataclass(slots=True)
class _Run:
    """One prompt under way."""

    prompt: Prompt
    object_info: ObjectInfo
    tell: Teller
    executed: list[str] = field(default_factory=list)

    def class_of(self, node_id: str) -> NodeInfo:
        node = self.object_info.get(self.prompt.graph[node_id]["class_type"])
        assert node is not None, "the graph was checked before it was queued"
        return node


class Executor:
    """The one worker of a rehearsal. Belongs to one event loop. `box` holds its faults."""

    def __init__(
        self,
        queue: PromptQueue,
        hub: Hub,
        catalog: Catalog,
        folders: Folders,
        box: Box,
        *,
        step_s: float,
        metadata: bool,
    ) -> None:
        self.box = box
        self._queue = queue
        self._hub = hub
        self._catalog = catalog
        self._folders = folders
        self._step_s = step_s
        self._metadata = metadata
        self._cache = Cache()
        self._forget = False
        self._stop = asyncio.Event()
        self.written: deque[dict[str, str]] = deque(maxlen=LOG_ENTRIES)
        # As the last node left it: a prompt that fails before its first node inherits it, as in ComfyUI.
        self._success = True

    def _write(self, line: str) -> None:
        log.info("%s", line)
        self.written.append({"t": datetime.datetime.now().isoformat(), "m": f"{line}\n"})

    def interrupt(self) -> None:
        self._stop.set()

    def free(self) -> None:
        """Forgets all cached results before the next prompt."""
        self._forget = True

    async def run_forever(self) -> None:
        while True:
            prompt = await self._queue.get()
            tell = Teller(self._hub, prompt)
            try:
                ended = await self._execute(prompt, tell)
            except DeadlyGraphError as failure:
                # ComfyUI's worker thread dies of it: this prompt stays running, and those behind it wait for ever.
                log.error("the queue has stopped, as ComfyUI's does: %s", failure)
                return
            if self.box.faults.empty_history:
                ended = Ended({}, {}, ended.success, ended.messages)
            self._queue.done(ended, filed=not self.box.faults.no_history)
            tell.filed()

    async def _execute(self, prompt: Prompt, tell: Teller) -> Ended:
        self._begin()
        self._hub.client_id = prompt.client_id
        object_info = self._catalog.for_classes(node["class_type"] for node in prompt.graph.values())
        run = _Run(prompt, object_info, tell)
        tell.garbage(GARBAGE if self.box.faults.garbage_frame else ())
        tell.started()
        self._cache.begin(prompt.graph, object_info, self._folders)
        tell.cached(tuple(node_id for node_id in prompt.graph if self._is_cached(run, node_id)))
        failure = await self._run_all(run)
        if failure is None:
            tell.succeeded()
        else:
            tell.failed(failure, tuple(run.executed))
        self._hub.last_node_id = None
        return self._ended(run)

    def _begin(self) -> None:
        self._stop.clear()
        if self._forget:
            self._cache.forget()
            self._success = True
            self._forget = False

    def _is_cached(self, run: _Run, node_id: str) -> bool:
        return node_id in run.prompt.graph and self._cache.outputs(node_id) is not None

    async def _run_all(self, run: _Run) -> Failure | None:
        schedule = Schedule(
            run.prompt.graph,
            is_output=lambda node_id: run.class_of(node_id).is_output,
            is_cached=lambda node_id: self._is_cached(run, node_id),
            is_lazy=lambda node_id, name: is_lazy(run.class_of(node_id), name),
        )
        for output in run.prompt.outputs:
            schedule.add(output)
        while schedule:
            node_id = schedule.next()
            if node_id is None:
                return Failure(schedule.blamed(), DependencyCycleError("Dependency cycle detected"))
            ended = await self._run_node(run, node_id)
            self._success = not isinstance(ended, Failure)
            if isinstance(ended, Failure):
                return ended
            for name in ended:
                schedule.need(node_id, name)
            if not ended:
                schedule.done(node_id)
        return None

    async def _run_node(self, run: _Run, node_id: str) -> Failure | tuple[str, ...]:
        """What went wrong, or the lazy inputs that the node asks for before it runs; nothing when it is done."""
        if self._is_cached(run, node_id):
            report = self._cache.report(node_id)
            run.tell.executed(node_id, report.output if report else None)
            run.tell.board.finish(node_id)
            return ()
        run.tell.board.start(node_id)
        run.tell.executing(node_id)
        inputs: dict[str, Any] = {}
        try:
            inputs |= self._inputs(run, node_id)
            if asked := missing_lazy_inputs(run.class_of(node_id), inputs, self._absent(run, node_id)):
                return asked
            await self._carry_out(run, node_id, inputs)
        except InterruptedPromptError as failure:
            return Failure(node_id, failure)
        except Exception as failure:  # A node may raise anything; it is the prompt's error, never the engine's.
            log.info("node %s failed", node_id, exc_info=True)
            return Failure(node_id, failure, inputs)
        run.tell.board.finish(node_id)
        run.executed.append(node_id)
        return ()

    async def _carry_out(self, run: _Run, node_id: str, inputs: Mapping[str, Any]) -> None:
        from morpheus_worker.rehearsal import nodes  # Pillow: not before the first node needs it

        node = run.class_of(node_id)
        await self._suffer(node_id, node.class_type)
        await self._pause(self.box.faults.slow_node)
        self.box.check(node_id, node.class_type)
        self._refuse(run, node, inputs)
        prompt = run.prompt
        facts = facts_of(prompt.graph, node_id, run.object_info)
        call = Call(
            node_id,
            node,
            inputs,
            prompt.graph,
            facts,
            self._folders,
            prompt.extra_data,
            self._metadata,
            faceless=self.box.faults.strikes(self.box.faults.no_face, node_id, node.class_type),
        )
        steps = nodes.steps_of(call)
        for step in range(1, steps + 1):
            await self._pause(self._step_s)
            run.tell.board.step(node_id, step, steps)
        outcome = await asyncio.to_thread(nodes.run, call)
        for line in outcome.said:
            self._write(line)
        self._cache.keep(node_id, outcome.outputs, outcome.report)
        if outcome.report:
            run.tell.executed(node_id, outcome.report)

    async def _suffer(self, node_id: str, class_type: str) -> None:
        """The faults that strike before a node runs."""
        faults = self.box.faults
        if self.box.spend("drop_socket"):
            await self._hub.flushed()
            self._hub.cut()
        if faults.strikes(faults.crash, node_id, class_type):
            await self._hub.flushed()
            os._exit(CRASH_EXIT_CODE)
        if faults.strikes(faults.stall, node_id, class_type):
            self._hub.silent = True
            await asyncio.Event().wait()

    async def _pause(self, seconds: float) -> None:
        """Waits, unless and until the prompt is interrupted.

        Raises:
            InterruptedPromptError: when it is.
        """
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), seconds)
        if self._stop.is_set():
            self._stop.clear()
            raise InterruptedPromptError

    def _inputs(self, run: _Run, node_id: str) -> dict[str, Any]:
        """The node's inputs, with values in the place of links."""
        declared = run.class_of(node_id).inputs
        given: dict[str, Any] = {}
        for name, value in run.prompt.graph[node_id]["inputs"].items():
            if is_link(value):
                outputs = self._cache.outputs(value[0])
                # A lazy input that was not asked for has no value.
                given[name] = None if outputs is None else outputs[int(value[1])]
            elif name in declared:
                given[name] = value
        return given

    def _absent(self, run: _Run, node_id: str) -> set[str]:
        """The inputs whose links lead to nodes that have not run."""
        given = run.prompt.graph[node_id]["inputs"].items()
        return {name for name, value in given if is_link(value) and self._cache.outputs(value[0]) is None}

    def _refuse(self, run: _Run, node: NodeInfo, inputs: Mapping[str, Any]) -> None:
        """Raises what the class's own code would: it was given an input that it does not take (ComfyUI passes links on,
        declared or not), or asked for a model that is not there."""
        unknown = inputs.keys() - node.inputs.keys()
        custom = str(run.object_info.raw[node.class_type].get("python_module", "")).startswith("custom_nodes")
        if unknown and not custom:
            raise TypeError(f"{node.class_type} got an unexpected keyword argument '{min(unknown)}'")
        missing = self._catalog.missing_model(node.class_type, inputs)
        if missing is not None:
            raise FileNotFoundError(f"Model in folder '{missing[0]}' with filename '{missing[1]}' not found.")

    def _ended(self, run: _Run) -> Ended:
        found = {node_id: self._cache.report(node_id) for node_id in run.prompt.graph}
        reports = {node_id: report for node_id, report in found.items() if report is not None}
        outputs = {node_id: report.output for node_id, report in reports.items()}
        meta = {node_id: report.meta() for node_id, report in reports.items()}
        return Ended(outputs, meta, self._success, run.tell.messages)

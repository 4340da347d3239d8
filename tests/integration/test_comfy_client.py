"""One prompt to its end, at a peer that loses answers, events, entries and itself."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from morpheus_worker.comfy import client as module
from morpheus_worker.comfy import watch
from morpheus_worker.comfy.client import ComfyClient, Finished, Order
from morpheus_worker.comfy.history import End
from morpheus_worker.comfy.http import ComfyHttp
from morpheus_worker.comfy.socket import EventStream
from morpheus_worker.deadlines import Deadline
from morpheus_worker.errors import Code, MorpheusError
from morpheus_worker.jobs import Progress
from tests.integration.peer import INFO, WAIT_S, Fault, Handler, Peer, answer, cut, cut_after, graph, half

LONG_S = 60.0
SELDOM_S = 3 * WAIT_S


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same client, asking more often."""
    for name, seconds in {
        "TURN_S": 0.02,
        "RECONCILE_S": 0.2,
        "RECONCILE_DEAF_S": 0.1,
        "STOP_TURN_S": 0.02,
    }.items():
        for home in (module, watch):
            monkeypatch.setattr(home, name, seconds, raising=False)


@dataclass
class Running:
    """A prompt that another thread runs."""

    result: Future[Finished]
    cancelled: threading.Event
    progress: list[Progress] = field(default_factory=list)
    _told: threading.Condition = field(default_factory=threading.Condition)

    def tell(self, progress: Progress) -> None:
        with self._told:
            self.progress.append(progress)
            self._told.notify_all()

    def wait_for_percent(self, percent: float) -> None:
        with self._told:
            assert self._told.wait_for(lambda: self.progress and self.progress[-1].percent >= percent, WAIT_S)

    def failure(self) -> MorpheusError:
        failure = self.result.exception(WAIT_S)
        assert isinstance(failure, MorpheusError), failure
        return failure

    def filename(self) -> str:
        entry = self.result.result(WAIT_S).entry
        assert entry.end == End.SUCCESS
        return str(entry.outputs["1"]["images"][0]["filename"])


@dataclass
class Desk:
    """A peer, and a client that runs prompts there in threads."""

    peer: Peer
    http: ComfyHttp
    events: EventStream
    threads: ThreadPoolExecutor
    exit_said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.client = ComfyClient(self.http, self.events, INFO, exit_of_process=self.exit_of_process)

    def exit_of_process(self) -> str | None:
        return self.exit_said[0] if self.exit_said else None

    def start(self, part: str = "success", name: str = "x", *, timeout_s: float = LONG_S, **order: Any) -> Running:
        running = Running(Future(), threading.Event())
        asked = Order(
            order.pop("graph", None) or graph(part, name),
            Deadline.after(timeout_s),
            running.cancelled,
            on_progress=running.tell,
            **order,
        )
        running.result = self.threads.submit(self.client.run, asked)
        return running

    def holding(self) -> Running:
        """A prompt that runs, and is known to run."""
        running = self.start("hold")
        self.peer.wait_for(lambda: self.peer.running == "hold")
        return running


@pytest.fixture
def desk() -> Iterator[Desk]:
    with ExitStack() as stack:
        peer = stack.enter_context(Peer())
        http, events = ComfyHttp(peer.url), EventStream(peer.url)
        stack.callback(http.close)
        stack.callback(events.close)
        with events.subscribe("") as inbox:
            events.start()
            inbox.get(timeout=WAIT_S)
        desk = Desk(peer, http, events, stack.enter_context(ThreadPoolExecutor(8)))
        stack.callback(peer.release_all)
        yield desk


# --- prompts that come to an end


def test_a_prompt_comes_back_with_its_history_entry(desk: Desk) -> None:
    running = desk.start(name="cat", extra_data={"api_key_comfy_org": "sesame"})
    finished = running.result.result(WAIT_S)
    assert running.filename() == "cat.png"
    assert finished.queued_s >= 0.0
    assert finished.executing_s >= 0.0
    assert finished.warnings == ()
    [prompt] = desk.peer.submitted
    assert prompt.client_id == desk.events.client_id
    assert prompt.extra_data == {"api_key_comfy_org": "sesame"}
    assert prompt.prompt_id == finished.entry.prompt_id


def test_progress_is_told_and_never_goes_back(desk: Desk) -> None:
    running = desk.start()
    running.filename()
    percents = [progress.percent for progress in running.progress]
    assert percents == sorted(percents)
    assert percents[-1] == 100.0
    assert any((progress.step, progress.steps) == (1, 2) for progress in running.progress)


def test_a_prompt_that_waits_is_told_to_be_queued(desk: Desk) -> None:
    first = desk.holding()
    second = desk.start()
    desk.peer.wait_for(lambda: len(desk.peer.submitted) == 2)
    desk.peer.wait_for(lambda: second.progress or desk.peer.routes().count("GET /queue") >= 3)
    stages = [progress.stage for progress in second.progress]
    desk.peer.release(desk.peer.submitted[0])
    assert first.filename() == second.filename() == "x.png"
    assert stages[:1] == ["queued"]
    assert second.progress[-1].stage == "executing"


def test_outputs_that_comfyui_ignores_are_warned_of(desk: Desk) -> None:
    error = {"type": "required_input_missing", "message": "…", "extra_info": {"input_name": "steps"}}
    desk.peer.node_errors = {"1": {"errors": [error], "class_type": "Play"}}
    finished = desk.start().result.result(WAIT_S)
    assert finished.warnings == ("ComfyUI left outputs out: node 1 (Play) input steps: is required and missing",)


def test_a_node_that_raises_fails_its_prompt_and_no_other(desk: Desk) -> None:
    failure = desk.start("error").failure()
    assert failure.code == Code.EXECUTION_FAILED
    assert failure.message == "node 1 (Play) failed: It was told to fail"
    assert failure.details["traceback"] == ["here"]
    assert desk.start().filename() == "x.png"


def test_a_prompt_that_is_interrupted_at_comfyui_is_cancelled(desk: Desk) -> None:
    running = desk.holding()
    desk.http.interrupt(desk.peer.submitted[0].prompt_id)
    assert running.failure().code == Code.CANCELLED


# --- prompts that are refused


def refusal(error: dict[str, Any]) -> dict[str, Any]:
    return {
        "error": {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation"},
        "node_errors": {"1": {"errors": [error], "class_type": "Play"}},
    }


def test_a_refused_value_is_told_in_the_callers_words(desk: Desk) -> None:
    extra = {"input_name": "steps", "input_config": ["INT", {"min": 1}], "received_value": 0}
    desk.peer.refusal = refusal({"type": "value_smaller_than_min", "message": "…", "extra_info": extra})
    names = {("1", "steps"): "params.steps"}
    failure = desk.start(where=lambda node_id, name: names.get((node_id, name))).failure()
    assert failure.code == Code.INVALID_PARAMS
    assert failure.message == "The params are refused: params.steps: 0 is below the smallest value, 1"
    assert len(desk.peer.routes(only="POST /prompt")) == 1


def test_a_missing_model_is_told(desk: Desk) -> None:
    extra = {"input_name": "model", "input_config": None, "received_value": "b.safetensors"}
    desk.peer.refusal = refusal({"type": "value_not_in_list", "message": "…", "extra_info": extra})
    failure = desk.start().failure()
    assert failure.code == Code.MISSING_MODEL
    assert "there is no model 'b.safetensors' (there are: a.safetensors)" in failure.message


def test_a_missing_node_is_told(desk: Desk) -> None:
    desk.peer.refusal = {"error": {"type": "invalid_prompt", "message": "…"}, "node_errors": []}
    failure = desk.start(graph={"1": {"class_type": "Plai", "inputs": {}}}).failure()
    assert failure.code == Code.MISSING_NODE
    assert "did you mean 'Play'?" in failure.message


# --- cancel and deadline


def test_cancelled_while_it_runs_it_stops_at_comfyui(desk: Desk) -> None:
    running = desk.holding()
    running.cancelled.set()
    assert running.failure().code == Code.CANCELLED
    assert desk.peer.idle
    assert {"prompt_id": desk.peer.submitted[0].prompt_id} in desk.peer.bodies("POST /interrupt")


def test_cancelled_while_it_waits_it_leaves_the_queue_and_the_running_one_alone(desk: Desk) -> None:
    first = desk.holding()
    second = desk.start()
    desk.peer.wait_for(lambda: len(desk.peer.submitted) == 2)
    second.cancelled.set()
    assert second.failure().code == Code.CANCELLED
    assert {"delete": [desk.peer.submitted[1].prompt_id]} in desk.peer.bodies("POST /queue")
    assert desk.peer.running == "hold"
    assert not desk.peer.submitted[0].interrupted
    desk.peer.release(desk.peer.submitted[0])
    assert first.filename() == "x.png"
    desk.peer.wait_for(lambda: desk.peer.idle)


def test_a_deadline_that_passes_stops_it_too(desk: Desk) -> None:
    failure = desk.start("hold", timeout_s=0.3).failure()
    assert failure.code == Code.TIMEOUT
    assert failure.retryable
    assert desk.peer.idle


def test_a_deadline_that_passes_in_the_queue(desk: Desk) -> None:
    first = desk.holding()
    assert desk.start(timeout_s=0.3).failure().code == Code.TIMEOUT
    desk.peer.release(desk.peer.submitted[0])
    first.filename()
    assert desk.peer.idle


def test_a_job_that_is_cancelled_already_is_not_submitted(desk: Desk) -> None:
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(MorpheusError) as failed:
        desk.client.run(Order(graph(), Deadline.after(LONG_S), cancelled))
    assert failed.value.code == Code.CANCELLED
    assert desk.peer.submitted == []


def test_a_job_whose_deadline_has_passed_is_not_submitted(desk: Desk) -> None:
    assert desk.start(timeout_s=0.0).failure().code == Code.TIMEOUT
    assert desk.peer.submitted == []


def test_an_interrupt_that_comfyui_forgets_is_repeated(desk: Desk) -> None:
    running = desk.holding()
    desk.peer.on("POST /interrupt", answer(200), answer(200))
    running.cancelled.set()
    assert running.failure().code == Code.CANCELLED
    assert desk.peer.idle


@pytest.mark.parametrize("route", ["POST /queue", "GET /queue", "POST /interrupt"])
@pytest.mark.parametrize("fault", [cut, answer(500)], ids=["cut", "500"])
def test_one_lost_answer_does_not_leave_a_cancelled_prompt_running(desk: Desk, route: str, fault: Fault) -> None:
    running = desk.holding()
    desk.peer.on(route, fault)
    running.cancelled.set()
    assert running.failure().code == Code.CANCELLED
    assert desk.peer.idle


def test_a_prompt_that_will_not_stop_does_not_hold_its_job_for_ever(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "STOP_WAIT_S", 0.2)
    running = desk.start("stubborn")
    desk.peer.wait_for(lambda: desk.peer.running == "stubborn")
    running.cancelled.set()
    assert running.failure().code == Code.CANCELLED
    assert "a prompt that was told to stop" in caplog.text


# --- events that are lost


def test_events_that_all_get_lost_cost_only_progress(desk: Desk) -> None:
    desk.peer.muted = True
    assert desk.start().filename() == "x.png"
    assert desk.start("error").failure().code == Code.EXECUTION_FAILED


def test_an_end_without_events_is_found_while_it_runs(desk: Desk) -> None:
    desk.peer.muted = True
    running = desk.holding()
    desk.peer.release(desk.peer.submitted[0])
    assert running.filename() == "x.png"


def test_a_socket_that_breaks_in_the_middle_is_made_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "RECONCILE_S", SELDOM_S)
    running = desk.holding()
    desk.peer.wait_for(lambda: desk.peer.routes(only="GET /queue"))
    desk.peer.cut_sockets()
    desk.peer.wait_for(lambda: len(desk.peer.sockets_opened) == 2 and desk.peer.asked_since("GET /ws", "GET /queue"))
    desk.peer.release(desk.peer.submitted[0])
    assert running.filename() == "x.png"
    assert running.progress[-1].percent == 100.0
    assert desk.peer.sockets_opened == [desk.events.client_id] * 2


def test_an_end_that_comes_while_the_socket_is_down_is_found(desk: Desk) -> None:
    running = desk.holding()
    desk.peer.refuses_sockets = True
    desk.peer.cut_sockets()
    desk.peer.release(desk.peer.submitted[0])
    assert running.filename() == "x.png"


def test_a_job_does_without_a_socket_that_never_comes(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECT_WAIT_S", 0.1)
    desk.peer.refuses_sockets = True
    desk.peer.cut_sockets()
    assert desk.start().filename() == "x.png"


def test_a_new_connection_is_reason_to_ask_at_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was said in between is gone."""
    monkeypatch.setattr(watch, "RECONCILE_S", SELDOM_S)
    running = desk.holding()
    desk.peer.wait_for(lambda: desk.peer.routes(only="GET /queue"))
    desk.peer.refuses_sockets = True
    desk.peer.cut_sockets()
    desk.peer.release(desk.peer.submitted[0])
    desk.peer.wait_for(lambda: desk.peer.idle)
    assert not running.result.done()
    desk.peer.refuses_sockets = False
    assert running.filename() == "x.png"


def test_without_a_connection_it_asks_more_often(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "RECONCILE_S", SELDOM_S)
    monkeypatch.setattr(module, "CONNECT_WAIT_S", 0.1)
    desk.peer.refuses_sockets = True
    desk.peer.cut_sockets()
    running = desk.holding()
    desk.peer.wait_for(lambda: len(desk.peer.routes(only="GET /queue")) >= 2)
    desk.peer.release(desk.peer.submitted[0])
    assert running.filename() == "x.png"


def half_told(part: str) -> dict[str, Any]:
    """A prompt with a second node that makes outputs, of which no event ever tells."""
    return graph(part) | {"2": {"class_type": "Play", "inputs": {"part": "success", "name": "y"}}}


def test_an_entry_that_is_filed_late_is_waited_for_where_the_events_left_something_out(desk: Desk) -> None:
    running = desk.start(graph=half_told("late"))
    desk.peer.wait_for(lambda: desk.peer.routes().count("GET /queue") >= 3)
    assert not running.result.done()
    desk.peer.release(desk.peer.submitted[0])
    assert running.filename() == "x.png"


def test_events_that_told_of_every_output_need_no_entry(desk: Desk) -> None:
    succeeded = threading.Event()
    running = desk.start("late", on_outputs=succeeded.set)
    assert running.filename() == "x.png"
    assert succeeded.is_set()
    desk.peer.release(desk.peer.submitted[0])


@pytest.mark.parametrize("gap", ["a frame that is none", "a new connection"])
def test_after_a_gap_the_history_is_asked(desk: Desk, gap: str) -> None:
    running = desk.holding()
    if gap == "a new connection":
        desk.peer.cut_sockets()
        desk.peer.wait_for(lambda: len(desk.peer.sockets_opened) == 2)
    else:
        desk.peer.send("no json")
    desk.peer.release(desk.peer.submitted[0])
    assert running.filename() == "x.png"
    assert len(desk.peer.routes(only="GET /history")) >= 1


@pytest.mark.parametrize("muted", [False, True])
def test_a_prompt_that_vanishes_is_not_waited_for(desk: Desk, muted: bool) -> None:
    desk.peer.muted = muted
    failure = desk.start("vanish").failure()
    assert failure.code == Code.COMFYUI_CRASHED
    assert failure.retryable
    assert "no longer knows the prompt" in failure.message


def test_a_prompt_whose_queue_is_cleared_is_not_waited_for(desk: Desk) -> None:
    first = desk.holding()
    second = desk.start()
    desk.peer.wait_for(lambda: len(desk.peer.submitted) == 2)
    desk.peer.wipe_queue()
    assert second.failure().code == Code.COMFYUI_CRASHED
    desk.peer.release(desk.peer.submitted[0])
    first.filename()


def test_a_stream_that_has_gone_deaf_is_renewed(desk: Desk) -> None:
    deaf = desk.events.client_id
    desk.peer.deaf_clients.add(deaf)
    assert desk.start().filename() == "x.png"
    desk.peer.wait_for(lambda: len(desk.peer.sockets_opened) == 2)
    assert desk.events.client_id != deaf
    second = desk.holding()
    second.wait_for_percent(50.0)
    second.cancelled.set()
    assert second.failure().code == Code.CANCELLED


def test_a_renewed_stream_is_not_renewed_again_for_those_who_were_queued_before(desk: Desk) -> None:
    """They were submitted under the old id, so they hear nothing; the next ones would not either, and so on."""
    desk.peer.deaf_clients.add(desk.events.client_id)
    running = [desk.start("hold"), desk.start("hold")]
    desk.peer.wait_for(lambda: len(desk.peer.submitted) == 2)
    desk.peer.release(desk.peer.submitted[0])
    desk.peer.wait_for(lambda: len(desk.peer.sockets_opened) == 2)
    assert desk.events.wait_until_connected(WAIT_S)
    renewed = desk.events.client_id
    desk.peer.release(desk.peer.submitted[1])
    assert {one.filename() for one in running} == {"x.png"}
    assert desk.events.client_id == renewed


# --- submissions that are lost


@pytest.mark.parametrize("fault", [cut, half, answer(500), answer(200, "no json")], ids=["cut", "half", "500", "text"])
def test_a_submission_that_was_not_taken_is_repeated(desk: Desk, fault: Fault) -> None:
    desk.peer.on("POST /prompt", fault)
    assert desk.start().filename() == "x.png"
    assert len(desk.peer.submitted) == 1
    ids = {body["prompt_id"] for body in desk.peer.bodies("POST /prompt")}
    assert len(ids) == 1


@pytest.mark.parametrize("part", ["hold", "success"])
def test_a_submission_whose_answer_was_lost_is_not_queued_twice(desk: Desk, part: str) -> None:
    desk.peer.on("POST /prompt", cut_after)
    running = desk.start(part)
    desk.peer.wait_for(lambda: desk.peer.submitted)
    desk.peer.release(desk.peer.submitted[0])
    assert running.filename() == "x.png"
    assert len(desk.peer.submitted) == 1


@pytest.mark.parametrize("fault", [cut, half, answer(500)], ids=["cut", "half", "500"])
def test_a_submission_is_not_repeated_while_nobody_says_whether_it_arrived(desk: Desk, fault: Fault) -> None:
    desk.peer.on("POST /prompt", cut_after)
    desk.peer.on("GET /queue", fault)
    assert desk.start().filename() == "x.png"
    assert len(desk.peer.submitted) == 1


def test_a_job_cancelled_while_it_is_submitted_leaves_nothing_behind(desk: Desk) -> None:
    desk.peer.on("POST /prompt", cut_after)
    desk.peer.on("GET /queue", *[answer(500)] * 2)
    running = desk.start("hold")
    desk.peer.wait_for(lambda: desk.peer.submitted)
    running.cancelled.set()
    assert running.failure().code == Code.CANCELLED
    desk.peer.wait_for(lambda: desk.peer.idle)
    assert len(desk.peer.submitted) == 1


def test_a_comfyui_that_never_takes_it_is_given_up(desk: Desk) -> None:
    desk.peer.on("POST /prompt", *[answer(500)] * 20)
    failure = desk.start().failure()
    assert failure.code == Code.CONNECTION
    assert failure.retryable
    assert desk.peer.idle


# --- a ComfyUI that goes away


def test_a_process_that_ended_is_not_waited_for(desk: Desk) -> None:
    running = desk.holding()
    desk.exit_said.append("killed by SIGKILL")
    failure = running.failure()
    assert failure.code == Code.COMFYUI_CRASHED
    assert "killed by SIGKILL" in failure.message


def test_a_moment_without_answers_is_lived_through(desk: Desk) -> None:
    desk.peer.muted = True
    running = desk.holding()
    desk.peer.on("GET /queue", cut, answer(500), half)
    desk.peer.wait_for(lambda: not desk.peer.faults["GET /queue"])
    desk.peer.release(desk.peer.submitted[0])
    assert running.filename() == "x.png"


def test_a_comfyui_that_stays_silent_is_given_up(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "UNREACHABLE_S", 0.3)
    monkeypatch.setattr(module, "STOP_WAIT_S", 0.2)
    desk.peer.muted = True
    running = desk.holding()
    desk.peer.on("GET /queue", *[cut] * 200)
    desk.peer.on("POST /queue", *[cut] * 200)
    failure = running.failure()
    assert failure.code == Code.CONNECTION
    assert failure.retryable


# --- connections and threads


def test_many_prompts_share_one_connection_and_one_socket(desk: Desk) -> None:
    for number in range(20):
        assert desk.start(name=str(number)).filename() == f"{number}.png"
    assert len(desk.peer.http_connections) == 1
    assert len(desk.peer.sockets_opened) == 1


def test_prompts_of_several_threads_never_mix(desk: Desk) -> None:
    running = {str(number): desk.start(name=str(number)) for number in range(40)}
    for name, one in running.items():
        assert one.filename() == f"{name}.png"
        percents = [progress.percent for progress in one.progress]
        assert percents == sorted(percents)
    assert len({prompt.prompt_id for prompt in desk.peer.submitted}) == 40
    assert len(desk.peer.sockets_opened) == 1


def test_one_failure_among_many_is_its_own(desk: Desk) -> None:
    parts = ["success", "error", "vanish", "success"] * 3
    running = [(part, desk.start(part)) for part in parts]
    codes = {"error": Code.EXECUTION_FAILED, "vanish": Code.COMFYUI_CRASHED}
    for part, one in running:
        if part == "success":
            assert one.filename() == "x.png"
        else:
            assert one.failure().code == codes[part]


def test_the_ordinary_way_needs_few_words(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """A prompt that goes well is asked for no more often than it takes, and nothing is warned of."""
    with caplog.at_level(logging.INFO):
        desk.start().filename()
    assert caplog.records == []
    assert desk.peer.routes(only="GET /queue") == []
    assert desk.peer.routes(only="GET /history") == []


def test_where_the_events_leave_something_out_the_history_is_asked_once(desk: Desk) -> None:
    desk.start(graph=half_told("success")).filename()
    assert len(desk.peer.routes(only="GET /queue")) <= 2
    assert len(desk.peer.routes(only="GET /history")) <= 2


def test_what_a_stopped_prompt_has_made_is_told_after_all(desk: Desk) -> None:
    """What was reported between the last look at the events and the end, so that it can be taken away."""
    told: list[str] = []
    running = desk.start("late", graph=half_told("late"), on_output=lambda node_id, _output: told.append(node_id))
    desk.peer.wait_for(lambda: desk.peer.routes().count("GET /queue") >= 1)
    told.clear()
    running.cancelled.set()
    assert running.failure().code == Code.CANCELLED
    assert "1" in told, "from the history"


async def frozen(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The connection stands, and nothing comes."""
    while request.transport is not None and not request.transport.is_closing():
        await asyncio.sleep(0.02)
    return web.Response()


@pytest.mark.parametrize("why", [Code.TIMEOUT, Code.CANCELLED])
def test_a_comfyui_that_is_frozen_holds_no_job(desk: Desk, monkeypatch: pytest.MonkeyPatch, why: Code) -> None:
    for name in ("STOP_READ_S", "WATCH_READ_S", "LEAST_READ_S"):
        monkeypatch.setattr(module, name, 0.2)
    desk.peer.muted = True
    running = desk.start("hold", timeout_s=1.0 if why == Code.TIMEOUT else LONG_S)
    desk.peer.wait_for(lambda: desk.peer.running == "hold")
    for route in ("GET /queue", "GET /history", "POST /queue", "POST /interrupt"):
        desk.peer.on(route, *[frozen] * 50)
    if why == Code.CANCELLED:
        running.cancelled.set()
    assert running.failure().code == why

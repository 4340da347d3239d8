"""Assertions on prompts that are refused, fail, are interrupted or never run."""

from __future__ import annotations

import re

from morpheus_worker.comfy.messages import ExecutionError, ExecutionInterrupted

from .checks import assert_empty_answer, assert_never_ran, outputs, running_and_pending
from .model import Call, Recording
from .refusals import REFUSALS, Refusal
from .shapes import check_error, check_frames
from .story import assert_failed, assert_succeeded


def assert_refusals(seen: Recording) -> None:
    for refusal, call in zip(REFUSALS, seen.submissions(), strict=True):
        assert_refused(refusal, call)


def assert_refused(refusal: Refusal, call: Call) -> None:
    assert call.status == 400, f"{refusal.name}: answered {call.status}"
    assert set(call.received) == {"error", "node_errors"}
    error = call.received["error"]
    check_error(error, f"{refusal.name}: error")
    assert (error["type"], error["message"], error["details"]) == refusal.error, refusal.name
    assert set(call.received["node_errors"]) == set(refusal.nodes), refusal.name
    for node_id, (expected, dependents) in refusal.nodes.items():
        said = call.received["node_errors"][node_id]
        assert said["class_type"] == call.sent["prompt"][node_id]["class_type"]
        assert set(said["dependent_outputs"]) == dependents
        for one in said["errors"]:
            check_error(one, f"{refusal.name}: node {node_id}")
        found = {(one["type"], one["message"], _elided(one["details"])) for one in said["errors"]}
        assert found == expected, refusal.name


def _elided(details: str) -> str:
    return re.sub(r"\(list of length \d+\)", "(list of length …", details)


def assert_not_a_prompt(seen: Recording) -> None:
    empty, no_json = seen.submissions()
    assert empty.status == 400
    assert empty.received["error"]["type"] == "no_prompt"
    assert empty.received["node_errors"] == {}
    assert no_json.status == 500
    assert no_json.content_type == "text/plain"


def assert_execution_error(seen: Recording) -> None:
    check_frames(seen)
    (prompt_id,) = seen.prompt_ids()
    failure = assert_failed(seen, "a", prompt_id, verdict="execution_error")
    assert isinstance(failure, ExecutionError)
    assert (failure.node_id, failure.node_type) == ("1", "LoadImage")
    assert failure.exception_type == "PIL.UnidentifiedImageError"
    assert failure.exception_message.startswith("cannot identify image file")
    assert failure.exception_message.endswith("\n"), "an empty line of advice follows the message"
    assert outputs(seen, prompt_id) == {}


def assert_error_after_output(seen: Recording) -> None:
    check_frames(seen)
    (prompt_id,) = seen.prompt_ids()
    failure = assert_failed(seen, "a", prompt_id, verdict="execution_error")
    assert isinstance(failure, ExecutionError)
    assert (failure.node_id, failure.node_type) == ("4", "SaveImage")
    assert failure.exception_type == "Exception"
    assert "outside the output folder" in failure.exception_message
    assert set(outputs(seen, prompt_id)) == {"2"}, "what was put out before the error stays in the history"


def assert_missing_model(seen: Recording) -> None:
    check_frames(seen)
    (prompt_id,) = seen.prompt_ids()
    failure = assert_failed(seen, "a", prompt_id, verdict="execution_error")
    assert isinstance(failure, ExecutionError)
    assert (failure.node_id, failure.node_type) == ("1", "UpscaleModelLoader")
    assert failure.exception_type == "FileNotFoundError"
    assert failure.exception_message == "Model in folder 'upscale_models' with filename 'absent.pth' not found.\n"


def assert_interrupt(seen: Recording) -> None:
    check_frames(seen)
    (prompt_id,) = seen.prompt_ids()
    during, after = seen.calls("GET", "/queue")
    assert running_and_pending(during) == ([prompt_id], [])
    assert running_and_pending(after) == ([], [])
    assert_empty_answer(seen.calls("POST", "/interrupt")[0])
    assert_interrupted(seen, prompt_id)


def assert_interrupted(seen: Recording, prompt_id: str) -> None:
    verdict = assert_failed(seen, "a", prompt_id, verdict="execution_interrupted")
    assert isinstance(verdict, ExecutionInterrupted)
    assert (verdict.node_id, verdict.node_type) == ("3", "ImageUpscaleWithModel")
    assert outputs(seen, prompt_id) == {}


def assert_interrupt_queued(seen: Recording) -> None:
    check_frames(seen)
    running, waiting = seen.prompt_ids()
    assert running_and_pending(seen.calls("GET", "/queue")[0]) == ([running], [waiting])
    for call in seen.calls("POST", "/interrupt"):
        assert_empty_answer(call)
    assert_interrupted(seen, running)
    assert_succeeded(seen, "a", waiting, ran=["1", "2"])


def assert_interrupt_idle(seen: Recording) -> None:
    check_frames(seen)
    assert_empty_answer(seen.calls("POST", "/interrupt")[0])
    assert_succeeded(seen, "a", seen.prompt_ids()[0], ran=["1", "2"])


def assert_delete_queued(seen: Recording) -> None:
    check_frames(seen)
    running, unwanted, wanted = seen.prompt_ids()
    before, after, still = seen.calls("GET", "/queue")
    assert running_and_pending(before) == ([running], [unwanted, wanted])
    assert running_and_pending(after) == ([running], [wanted])
    assert running_and_pending(still) == ([running], [wanted]), "a running prompt is not deleted"
    for call in (call for call in seen.calls("POST") if call.path == "/queue"):
        assert_empty_answer(call)
    assert_interrupted(seen, running)
    assert_succeeded(seen, "a", wanted, ran=["1", "2"])
    assert_never_ran(seen, unwanted)


def assert_clear_queue(seen: Recording) -> None:
    check_frames(seen)
    running, behind, front = seen.prompt_ids()
    before, after = seen.calls("GET", "/queue")
    assert running_and_pending(before) == ([running], [front, behind])
    assert running_and_pending(after) == ([running], [])
    numbers = [call.received["number"] for call in seen.submissions()]
    assert numbers[2] == -(numbers[1] + 1), "a prompt put in front has its number negated"
    assert_interrupted(seen, running)
    assert_never_ran(seen, behind)
    assert_never_ran(seen, front)

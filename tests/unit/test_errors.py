"""How a failure speaks: its code, its sentence, and the nearest known name."""

from __future__ import annotations

import pytest

from morpheus_worker.errors import Code, MorpheusError, Problem, did_you_mean, from_problems, nearest

DOCUMENTED_CODES = [
    "invalid_input",
    "unknown_workflow",
    "invalid_params",
    "invalid_workflow",
    "missing_node",
    "missing_model",
    "input_unreachable",
    "input_rejected",
    "no_face",
    "gpu_out_of_memory",
    "execution_failed",
    "no_output",
    "timeout",
    "cancelled",
    "connection",
    "comfyui_crashed",
    "volume_unavailable",
    "volume_full",
    "upload_failed",
    "result_too_large",
    "internal",
]


def test_the_codes_are_the_documented_ones() -> None:
    assert [code.value for code in Code] == DOCUMENTED_CODES


@pytest.mark.parametrize("code", list(Code))
def test_a_job_is_worth_sending_again_when_the_moment_was_at_fault(code: Code) -> None:
    moments = {
        Code.INPUT_UNREACHABLE,
        Code.TIMEOUT,
        Code.CONNECTION,
        Code.COMFYUI_CRASHED,
        Code.VOLUME_UNAVAILABLE,
        Code.VOLUME_FULL,
        Code.UPLOAD_FAILED,
    }
    assert MorpheusError(code, "It failed").retryable is (code in moments)


@pytest.mark.parametrize("code", list(Code))
def test_only_the_callers_own_decision_keeps_the_charge(code: Code) -> None:
    assert MorpheusError(code, "It failed").refundable is (code is not Code.CANCELLED)


def test_the_place_that_raises_may_know_better() -> None:
    failure = MorpheusError(Code.INTERNAL, "It failed", retryable=True, refundable=False)
    assert failure.retryable
    assert not failure.refundable


@pytest.mark.parametrize(
    ("problem", "sentence"),
    [
        (Problem("params.steps", "must be a number"), "params.steps: must be a number"),
        (Problem("params.steps", "must be a number", "got 'x'"), "params.steps: must be a number (got 'x')"),
        (Problem("", "names no workflow"), "names no workflow"),
        (Problem("", "names no workflow", "set one"), "names no workflow (set one)"),
    ],
)
def test_a_problem_is_a_sentence(problem: Problem, sentence: str) -> None:
    assert str(problem) == sentence


def test_all_problems_are_in_the_sentence_and_in_the_details() -> None:
    problems = [Problem("params.steps", "is too big", "at most 150"), Problem("params.seed", "must be a number")]
    failure = from_problems(Code.INVALID_PARAMS, "The params are refused", problems, details={"workflow": "smoke"})
    assert failure.message == str(failure)
    assert failure.message == (
        "The params are refused: params.steps: is too big (at most 150); params.seed: must be a number"
    )
    assert failure.problems == tuple(problems)
    assert failure.details == {
        "workflow": "smoke",
        "problems": [
            {"at": "params.steps", "what": "is too big", "hint": "at most 150"},
            {"at": "params.seed", "what": "must be a number"},
        ],
    }


def test_very_many_problems_are_not_all_told() -> None:
    """A failure that is too large to be sent would never reach its caller."""
    problems = [Problem(f"params.values[{number}]", "is not a finite number") for number in range(100_000)]
    failure = from_problems(Code.INVALID_INPUT, "The job's input is refused", problems)
    assert "params.values[0]" in failure.message
    assert "more" in failure.message
    assert len(failure.message) < 10_000
    assert len(str(failure.details)) < 20_000


def test_an_error_keeps_its_own_copy_of_the_details() -> None:
    details = {"path": "/x"}
    failure = MorpheusError(Code.INTERNAL, "It failed", details=details)
    details["path"] = "/y"
    assert failure.details == {"path": "/x"}


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("step", "steps"),
        ("STEPS", "steps"),
        ("SDXL.safetensors", "xl/sdxl.safetensors"),
        ("sdxl.safetensor", "xl/sdxl.safetensors"),
        ("xl/sdxl.safetensor", "xl/sdxl.safetensors"),
        ("quite different", None),
        ("", None),
    ],
)
def test_the_nearest_known_name(name: str, found: str | None) -> None:
    assert nearest(name, ["steps", "xl/sdxl.safetensors"]) == found
    assert did_you_mean(name, ["steps", "xl/sdxl.safetensors"]) == (f"did you mean '{found}'?" if found else None)


def test_nothing_is_near_when_nothing_is_known() -> None:
    assert nearest("steps", []) is None

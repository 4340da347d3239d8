"""The job on the wire: every form it comes in, and what is said of one that is refused."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from morpheus_worker.errors import Code, MorpheusError, Problem, from_problems
from morpheus_worker.jobs import (
    WIRE_MODELS,
    JobFailure,
    JobRequest,
    JobResult,
    OutputFile,
    Progress,
    Timings,
    checked_job_id,
    fingerprint_of,
    parse_request,
)

GRAPH = {"1": {"class_type": "EmptyImage", "inputs": {"width": 8}}}


def refusal(job_input: object) -> MorpheusError:
    with pytest.raises(MorpheusError) as refused:
        parse_request("job-7", job_input)
    assert refused.value.code == Code.INVALID_INPUT
    assert not refused.value.retryable
    return refused.value


def refused_at(job_input: object) -> set[str]:
    return {problem.at for problem in refusal(job_input).problems}


# --- the forms a job comes in


def test_a_name_with_params() -> None:
    said = {"workflow_name": "sdxl_txt2img", "params": {"steps": 4}}
    assert parse_request("job-7", said) == JobRequest(
        job_id="job-7",
        workflow_name="sdxl_txt2img",
        params={"steps": 4},
        strict_keys=frozenset({"steps"}),
        fingerprint=fingerprint_of(said),
    )


def test_a_name_with_flat_keys_that_may_be_the_callers_own() -> None:
    request = parse_request("job-7", {"workflow_name": "creation", "prompt": "a cat", "seed": 7, "user_id": None})
    assert request.params == {"prompt": "a cat", "seed": 7, "user_id": None}
    assert request.strict_keys == frozenset()


def test_a_name_under_workflow_with_config_payload() -> None:
    request = parse_request("job-7", {"workflow": "creation", "config_payload": {"prompt": "a cat"}})
    assert (request.workflow_name, request.graph) == ("creation", None)
    assert request.params == {"prompt": "a cat"}
    assert request.strict_keys == {"prompt"}


def test_a_graph_with_its_pictures() -> None:
    images = [{"name": "a.png", "image": "QUJD"}, {"name": "b.png", "image": "data:image/png;base64,QUJD"}]
    request = parse_request("job-7", {"workflow": GRAPH, "images": images, "comfy_org_api_key": "sesame"})
    assert (request.workflow_name, request.graph, request.params) == (None, GRAPH, {})
    assert [(image.name, image.image) for image in request.images] == [
        ("a.png", "QUJD"),
        ("b.png", "data:image/png;base64,QUJD"),
    ]
    assert request.comfy_org_api_key is not None
    assert request.comfy_org_api_key.get_secret_value() == "sesame"


def test_the_same_as_text() -> None:
    job_input = {"workflow_name": "smoke", "params": {"prompt": 'ünï\n"quoted" \\'}, "timeout_s": 5}
    assert parse_request("job-7", json.dumps(job_input)) == parse_request("job-7", job_input)


def test_params_win_over_config_payload_which_wins_over_flat_keys() -> None:
    request = parse_request(
        "job-7",
        {
            "workflow_name": "smoke",
            "params": {"a": "params"},
            "config_payload": {"a": "payload", "b": "payload"},
            "a": "flat",
            "b": "flat",
            "c": "flat",
        },
    )
    assert request.params == {"a": "params", "b": "payload", "c": "flat"}
    assert request.strict_keys == {"a", "b"}


def test_options_are_no_params() -> None:
    request = parse_request(
        "job-7", {"workflow_name": "smoke", "timeout_s": 12.5, "idempotency_key": "k", "outputs": "volume", "seed": 1}
    )
    assert request.params == {"seed": 1}
    assert request.timeout_s == 12.5


def test_null_options_are_absent_options() -> None:
    nothing = dict.fromkeys(
        ["params", "config_payload", "images", "timeout_s", "outputs", "idempotency_key", "workflow"]
    )
    assert parse_request("job-7", {"workflow_name": "smoke", **nothing}) == parse_request(
        "job-7", {"workflow_name": "smoke"}
    )


def test_values_arrive_as_they_were_sent() -> None:
    params = {"text": 'say "__param:seed__"\n\\ 🎨', "list": [1, None, True], "deep": {"a": {"b": 0.5}}, "big": 2**64}
    request = parse_request("job-7", {"workflow_name": "smoke", "params": params})
    assert request.params == params
    assert request.params["list"][2] is True


# --- what is refused


@pytest.mark.parametrize(
    ("job_input", "what"),
    [
        (None, "got null"),
        ([], "got a list"),
        (7, "got a number"),
        (True, "got a boolean"),
        ("not json", "not JSON"),
        ("", "not JSON"),
        ('["a"]', "got a list"),
        ("null", "got null"),
    ],
)
def test_what_is_no_object_is_refused(job_input: object, what: str) -> None:
    assert what in refusal(job_input).message
    assert refused_at(job_input) == {"input"}


@pytest.mark.parametrize(
    ("job_input", "at", "what"),
    [
        ({}, "input", "names no workflow"),
        ({"prompt": "a cat"}, "input", "names no workflow"),
        ({"workflow_name": "a", "workflow": "b"}, "input", "send one of them"),
        ({"workflow_name": "a", "workflow": GRAPH}, "input", "send one of them"),
        ({"workflow_name": 7}, "input.workflow_name", "string"),
        ({"workflow": 7}, "input.workflow", "string"),
        ({"workflow": ["a"]}, "input.workflow", "dictionary"),
        ({"workflow_name": "a", "params": [1]}, "input.params", "dictionary"),
        ({"workflow_name": "a", "config_payload": "x"}, "input.config_payload", "dictionary"),
        ({"workflow": GRAPH, "params": {"seed": 1}}, "input.params", "comes with a graph"),
        ({"workflow": GRAPH, "images": {"name": "a"}}, "input.images", "list"),
        ({"workflow": GRAPH, "images": [{"name": "a.png"}]}, "input.images.0.image", "required"),
        ({"workflow": GRAPH, "images": [{"name": "", "image": "x"}]}, "input.images.0.name", "at least 1"),
        ({"workflow": GRAPH, "images": [{"name": "a", "image": "x"}] * 2}, "input.images", "names 'a' twice"),
        ({"workflow_name": "a", "timeout_s": 0}, "input.timeout_s", "greater than 0"),
        ({"workflow_name": "a", "timeout_s": -1}, "input.timeout_s", "greater than 0"),
        ({"workflow_name": "a", "timeout_s": 86_401}, "input.timeout_s", "86400"),
        ({"workflow_name": "a", "timeout_s": "soon"}, "input.timeout_s", "number"),
        ({"workflow_name": "a", "outputs": "ftp"}, "input.outputs", "'volume'"),
        ({"workflow_name": "a", "idempotency_key": ""}, "input.idempotency_key", "at least 1"),
        ({"workflow_name": "a", "idempotency_key": "k" * 257}, "input.idempotency_key", "at most 256"),
    ],
)
def test_what_is_wrong_is_named_by_its_place(job_input: dict[str, Any], at: str, what: str) -> None:
    failure = refusal(job_input)
    assert what in failure.message
    assert {problem.at for problem in failure.problems} == {at}
    assert failure.details["problems"]


def test_all_problems_are_named_at_once() -> None:
    job_input = {"workflow": 7, "params": 7, "timeout_s": -1, "images": [{"name": "a"}], "seed": math.inf}
    assert refused_at(job_input) == {
        "input.workflow",
        "input.params",
        "input.timeout_s",
        "input.images.0.image",
        "input.seed",
    }


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_does_not_have_are_refused_where_they_stand(odd: float) -> None:
    job_input = {"workflow_name": "smoke", "params": {"a": [1, {"b": odd}]}, "seed": odd}
    assert refused_at(job_input) == {"input.params.a[1].b", "input.seed"}


def test_numbers_that_json_does_not_have_are_refused_in_text_too() -> None:
    assert refused_at('{"workflow_name": "smoke", "params": {"cfg": NaN, "steps": 1e999}}') == {
        "input.params.cfg",
        "input.params.steps",
    }


def test_a_secret_is_not_repeated_in_a_refusal() -> None:
    failure = refusal({"workflow": GRAPH, "comfy_org_api_key": ["sesame"], "timeout_s": -1})
    assert "sesame" not in failure.message + str(failure.details)


def test_a_secret_does_not_show() -> None:
    request = parse_request("job-7", {"workflow": GRAPH, "comfy_org_api_key": "sesame"})
    assert "sesame" not in repr(request) + str(request)


def test_half_a_surrogate_pair_is_refused_where_it_stands() -> None:
    """What a text becomes that was cut in the middle of an emoji: nothing behind can store it or send it on."""
    job_input = {"workflow_name": "smoke", "params": {"prompt": "a cat \ud83d", "list": ["\udc31"], "half \ud83d": 1}}
    assert refused_at(job_input) == {
        "input.params.prompt",
        "input.params.list[0]",
        "input.params.half \\ud83d (the key)",
    }
    refusal(json.dumps(job_input)).message.encode()


def test_a_whole_emoji_is_none_of_that() -> None:
    job_input = '{"workflow_name": "smoke", "params": {"prompt": "\\ud83d\\udc31"}}'
    assert parse_request("job-7", job_input).params == {"prompt": "🐱"}


@pytest.mark.parametrize("depth", [1000, 100_000])
@pytest.mark.parametrize("form", ["%s", '{"workflow_name": "a", "params": {"x": %s}}'], ids=["bare", "param"])
def test_text_nested_without_end_is_refused(form: str, depth: int) -> None:
    refusal(form % ("[" * depth + "]" * depth))


def test_an_object_nested_without_end_is_refused() -> None:
    nested: dict[str, Any] = {}
    for _ in range(2000):
        nested = {"a": nested}
    refusal({"workflow_name": "smoke", "params": nested})


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**300, max_value=10**320)
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=8)
)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=()), max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)
NAMED = st.fixed_dictionaries(
    {},
    optional={
        "workflow_name": st.sampled_from(["smoke", ""]) | JSON,
        "workflow": st.sampled_from(["smoke", GRAPH]) | JSON,
        "params": st.dictionaries(st.text(max_size=3), JSON, max_size=3) | JSON,
        "config_payload": JSON,
        "images": st.lists(st.fixed_dictionaries({"name": JSON, "image": JSON}), max_size=2) | JSON,
        "comfy_org_api_key": JSON,
        "timeout_s": JSON,
        "outputs": JSON,
        "idempotency_key": JSON,
        "seed": JSON,
    },
)


@given(JSON | NAMED)
@example({"workflow_name": "smoke", "timeout_s": 10**400})
@example({"workflow_name": "smoke", "\ud800": 1})
def test_any_json_value_is_a_request_or_an_invalid_input(job_input: object) -> None:
    try:
        request = parse_request("job-7", job_input)
    except MorpheusError as failure:
        refused = failure
    else:
        assert (request.workflow_name is None) != (request.graph is None)
        assert request.strict_keys <= request.params.keys()
        json.dumps(dict(request.params), allow_nan=False)
        return
    assert refused.code == Code.INVALID_INPUT
    assert refused.problems
    assert JobFailure.of(refused, job_id="job-7", trace_id="t").wire()["code"] == "invalid_input"


# --- the job's id


@pytest.mark.parametrize("job_id", ["local_test", "a", "0f5b-u1", "a" * 128, "A.b_c-9", "sync-3f2a-e1"])
def test_an_id_that_can_name_a_folder(job_id: str) -> None:
    assert checked_job_id(job_id) == job_id


@pytest.mark.parametrize(
    "job_id",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "/etc",
        "a\\b",
        ".hidden",
        "-rf",
        "a\n",
        "a b",
        "a\x00",
        "ä",
        "a" * 129,
        None,
        7,
        ["a"],
    ],
)
def test_an_id_that_cannot_is_refused(job_id: object) -> None:
    with pytest.raises(MorpheusError, match="cannot name a folder") as refused:
        checked_job_id(job_id)
    assert refused.value.code == Code.INVALID_INPUT
    assert [problem.at for problem in refused.value.problems] == ["id"]


def test_a_refused_id_is_shown_shortened_and_escaped() -> None:
    with pytest.raises(MorpheusError) as refused:
        checked_job_id("\x1b[31m" + "x" * 1_000_000)
    assert "\x1b" not in refused.value.message
    assert len(refused.value.message) < 300


# --- what goes out


def test_a_failure_on_the_wire_has_every_key_a_client_switches_on() -> None:
    failure = from_problems(Code.INVALID_PARAMS, "The params are refused", [Problem("params.steps", "is too big")])
    assert JobFailure.of(failure, job_id="job-7", trace_id="t").wire() == {
        "error": "The params are refused: params.steps: is too big",
        "code": "invalid_params",
        "retryable": False,
        "refundable": True,
        "details": {"problems": [{"at": "params.steps", "what": "is too big"}]},
        "job_id": "job-7",
        "trace_id": "t",
    }


def test_a_failure_without_a_usable_id_has_none() -> None:
    wire = JobFailure.of(MorpheusError(Code.INVALID_INPUT, "No"), job_id=None, trace_id="t").wire()
    assert "job_id" not in wire


def test_a_result_on_the_wire_leaves_out_what_does_not_apply_but_no_param() -> None:
    output = OutputFile(
        kind="image",
        filename="x.png",
        node_id="9",
        media_type="image/png",
        bytes=3,
        sha256="00",
        path="/runpod-volume/job_outputs/job-7/x.png",
        volume_path="job_outputs/job-7/x.png",
    )
    result = JobResult(
        job_id="job-7", trace_id="t", outputs=[output], params={"negative": None, "list": [None]}, timings=Timings()
    )
    wire = result.wire()
    assert wire["params"] == {"negative": None, "list": [None]}
    assert wire["status"] == "success"
    assert wire["outputs"] == [
        {
            "kind": "image",
            "filename": "x.png",
            "node_id": "9",
            "media_type": "image/png",
            "bytes": 3,
            "sha256": "00",
            "path": "/runpod-volume/job_outputs/job-7/x.png",
            "volume_path": "job_outputs/job-7/x.png",
        }
    ]
    assert {"image_pod_path", "video_pod_path", "workflow_name"}.isdisjoint(wire)


def test_only_two_keys_of_a_result_say_pod_path() -> None:
    """Clients in use download every key that ends so."""
    names = {name for model in WIRE_MODELS for name in model.model_json_schema()["properties"]}
    assert {name for name in names if name.endswith("_pod_path")} == {"image_pod_path", "video_pod_path"}
    assert not any(name.endswith("_pod_path") for name in OutputFile.model_fields)


def test_progress_on_the_wire() -> None:
    progress = Progress(stage="executing", percent=12.5, node_id="3", class_type="KSampler", step=1, steps=4)
    assert progress.wire() == {
        "stage": "executing",
        "percent": 12.5,
        "node_id": "3",
        "class_type": "KSampler",
        "step": 1,
        "steps": 4,
    }
    assert Progress(stage="staging").wire() == {"stage": "staging", "percent": 0.0}


@pytest.mark.parametrize("model", WIRE_MODELS)
def test_every_wire_model_has_a_json_schema(model: type[Any]) -> None:
    schema = model.model_json_schema()
    assert json.loads(json.dumps(schema)) == schema
    assert schema["type"] == "object"


# --- what is asked for


ASKED = {"workflow_name": "smoke", "params": {"width": 8, "height": 9}, "prompt": "läuft"}


@pytest.mark.parametrize(
    "same",
    [
        {"prompt": "läuft", "params": {"height": 9, "width": 8}, "workflow_name": "smoke"},
        ASKED | {"timeout_s": 9, "idempotency_key": "k", "comfy_org_api_key": "secret"},
        ASKED | {"outputs": None, "images": None},
    ],
)
def test_two_inputs_that_ask_for_the_same_have_one_fingerprint(same: dict[str, Any]) -> None:
    fingerprint = parse_request("a", ASKED).fingerprint
    assert parse_request("b", same).fingerprint == fingerprint == parse_request("c", json.dumps(same)).fingerprint
    assert re.fullmatch("[0-9a-f]{64}", fingerprint)


@pytest.mark.parametrize(
    "other",
    [
        ASKED | {"params": {"width": 8, "height": 10}},
        ASKED | {"params": {"width": 8, "height": "9"}},
        ASKED | {"outputs": "base64"},
        ASKED | {"prompt": "laeuft"},
        ASKED | {"prompt": None},
        {"workflow": "smoke", "params": ASKED["params"], "prompt": "läuft"},
    ],
)
def test_another_wish_has_another_fingerprint(other: dict[str, Any]) -> None:
    assert parse_request("a", other).fingerprint != parse_request("a", ASKED).fingerprint

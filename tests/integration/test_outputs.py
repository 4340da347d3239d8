"""Whole jobs whose outputs go to a bucket, into the answer, or in the form of the official worker's clients."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from morpheus_worker.comfy.files import LocalFiles
from morpheus_worker.comfy.launch import folders_of
from morpheus_worker.jobs import OutputFile, Progress
from morpheus_worker.pipeline import Worker, run_job
from morpheus_worker.rehearsal import Faults, RehearsalEngine, running_engine

from .conftest import assembled
from .jobs import INVERT_GRAPH, SMOKE_GRAPH, check_files, data_uri, failed, files_below, graph_job, png, succeeded
from .s3_server import ACCESS_KEY, SECRET_KEY, Answer, Bucket, new_bucket, raw_store, refusal

FOUR = graph_job(SMOKE_GRAPH | {"1": {**SMOKE_GRAPH["1"], "inputs": {**SMOKE_GRAPH["1"]["inputs"], "batch_size": 4}}})
PREVIEW: dict[str, Any] = {"1": SMOKE_GRAPH["1"], "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}
LIMIT = 2500


@pytest.fixture
def bucket() -> Bucket:
    return new_bucket()


@pytest.fixture
def s3_worker(engine: RehearsalEngine, volume: Path, bucket: Bucket) -> Iterator[Worker]:
    with assembled(engine.url, volume, LocalFiles(folders_of(engine.base_directory, [])), **in_bucket(bucket)) as made:
        yield made


def in_bucket(bucket: Bucket) -> dict[str, str]:
    return {
        "BUCKET_ENDPOINT_URL": bucket.url,
        "BUCKET_NAME": bucket.name,
        "BUCKET_ACCESS_KEY_ID": ACCESS_KEY,
        "BUCKET_SECRET_ACCESS_KEY": SECRET_KEY,
    }


def run(worker: Worker, job_input: dict[str, Any], job_id: str = "job") -> dict[str, Any]:
    return run_job({"id": job_id, "input": job_input}, worker)


def is_what_it_says(content: bytes, output: OutputFile) -> bool:
    return (len(content), hashlib.sha256(content).hexdigest()) == (output.bytes, output.sha256)


def left_at(engine: RehearsalEngine) -> list[str]:
    return files_below(engine.base_directory / "input", engine.base_directory / "output")


# --- the bucket


def test_outputs_in_the_bucket_are_downloaded_by_their_urls(
    s3_worker: Worker, bucket: Bucket, volume: Path, engine: RehearsalEngine
) -> None:
    result = succeeded(run(s3_worker, {"workflow_name": "smoke", "outputs": "s3"}))
    (output,) = result.outputs
    assert output.url is not None
    assert is_what_it_says(requests.get(output.url, timeout=10).content, output)
    assert output.s3_uri == f"s3://{bucket.name}/job/{output.filename}"
    assert bucket.media_type(f"job/{output.filename}") == "image/png"
    assert (output.path, result.image_pod_path) == (None, None)
    assert files_below(volume / "job_outputs") == ["job/result.json"]
    assert left_at(engine) == []


def test_an_output_in_the_bucket_is_the_input_of_the_next_job(s3_worker: Worker, bucket: Bucket) -> None:
    bucket.put("faces/in.png", png(size=(24, 16)), "image/png")
    params = {"image": f"s3://{bucket.name}/faces/in.png"}
    result = succeeded(run(s3_worker, {"workflow_name": "upscale", "params": params, "outputs": "s3"}))
    again = {"workflow_name": "upscale", "params": {"image": result.outputs[0].s3_uri}, "outputs": "base64"}
    (output,) = succeeded(run(s3_worker, again, "job-2")).outputs
    assert (output.width, output.height) == (24 * 4 * 4, 16 * 4 * 4)


def test_a_replayed_result_has_urls_that_work_now(s3_worker: Worker) -> None:
    job = {"workflow_name": "smoke", "outputs": "s3"}
    first, second = (succeeded(run(s3_worker, job)) for _ in range(2))
    assert second.replayed
    assert second.outputs[0].s3_uri == first.outputs[0].s3_uri
    assert is_what_it_says(requests.get(second.outputs[0].url or "", timeout=10).content, second.outputs[0])


def test_what_is_no_longer_in_the_bucket_is_made_again(s3_worker: Worker, bucket: Bucket) -> None:
    job = {"workflow_name": "smoke", "outputs": "s3"}
    first = succeeded(run(s3_worker, job))
    bucket.client.delete_object(Bucket=bucket.name, Key=f"job/{first.outputs[0].filename}")
    second = succeeded(run(s3_worker, job))
    assert second.replayed is None
    assert bucket.keys() == [f"job/{second.outputs[0].filename}"]


def test_a_replay_that_runpod_would_not_carry_is_refused(engine: RehearsalEngine, volume: Path) -> None:
    files = LocalFiles(folders_of(engine.base_directory, []))
    job = {"workflow_name": "smoke", "outputs": "base64"}
    with assembled(engine.url, volume, files) as worker:
        succeeded(run(worker, job))
    with assembled(engine.url, volume, files, MORPHEUS_MAX_RESULT_BYTES="200") as worker:
        assert failed(run(worker, job)).code == "result_too_large"


def test_a_bucket_that_refuses_fails_the_job_and_nothing_is_left(
    engine: RehearsalEngine, volume: Path, bucket: Bucket
) -> None:
    with (
        raw_store() as store,
        assembled(
            engine.url,
            volume,
            LocalFiles(folders_of(engine.base_directory, [])),
            **in_bucket(bucket) | {"BUCKET_ENDPOINT_URL": store.url},
        ) as worker,
    ):
        store.answer = lambda request: Answer(404) if request.method == "HEAD" else refusal(403, "AccessDenied")
        answer = run(worker, {"workflow_name": "smoke", "outputs": "s3"})
    failure = failed(answer)
    assert (failure.code, failure.retryable) == ("upload_failed", False)
    assert "AccessDenied" in failure.error
    assert not any(secret in str(answer) for secret in (ACCESS_KEY, SECRET_KEY, "AWS4-HMAC"))
    assert files_below(volume) == []
    assert left_at(engine) == []


def test_a_cancel_while_it_uploads_leaves_nothing_in_the_bucket(
    s3_worker: Worker, bucket: Bucket, volume: Path
) -> None:
    cancelled = threading.Event()

    def stop(progress: Progress) -> None:
        if progress.stage == "publishing":
            cancelled.set()

    job = {"id": "job", "input": FOUR | {"outputs": "s3"}}
    assert failed(run_job(job, s3_worker, cancelled=cancelled, on_progress=stop)).code == "cancelled"
    assert bucket.keys() == []
    assert files_below(volume) == []


def test_without_a_bucket_s3_is_refused_before_anything_runs(worker: Worker) -> None:
    failure = failed(run(worker, {"workflow_name": "smoke", "outputs": "s3"}))
    assert failure.code == "invalid_input"
    assert "BUCKET_ENDPOINT_URL" in failure.error


# --- into the answer


def test_base64_is_the_file(worker: Worker, volume: Path, engine: RehearsalEngine) -> None:
    (output,) = succeeded(run(worker, {"workflow_name": "smoke", "outputs": "base64"})).outputs
    assert is_what_it_says(base64.b64decode(output.data or "", validate=True), output)
    assert output.path is None
    assert files_below(volume / "job_outputs") == ["job/result.json"]
    assert left_at(engine) == []


def test_base64_from_a_comfyui_that_is_far_away(remote_worker: Worker) -> None:
    (output,) = succeeded(run(remote_worker, {"workflow_name": "smoke", "outputs": "base64"})).outputs
    assert is_what_it_says(base64.b64decode(output.data or "", validate=True), output)


def test_the_setting_decides_where_the_job_does_not(engine: RehearsalEngine, volume: Path) -> None:
    files = LocalFiles(folders_of(engine.base_directory, []))
    with assembled(engine.url, volume, files, MORPHEUS_OUTPUTS="base64") as worker:
        assert succeeded(run(worker, {"workflow_name": "smoke"})).outputs[0].data
        assert succeeded(run(worker, {"workflow_name": "smoke", "outputs": "volume"})).outputs[0].path


@pytest.mark.parametrize("outputs", ["base64", None])
def test_a_result_that_runpod_would_not_carry_is_refused(
    outputs: str | None, engine: RehearsalEngine, volume: Path
) -> None:
    files = LocalFiles(folders_of(engine.base_directory, []))
    with assembled(engine.url, volume, files, MORPHEUS_MAX_RESULT_BYTES=str(LIMIT)) as worker:
        job = graph_job(INVERT_GRAPH, images=[{"name": "input_image.png", "image": noise()}], outputs=outputs)
        failure = failed(run(worker, job))
        assert failure.code == "result_too_large"
        assert "'outputs': 'volume'" in failure.error
        assert files_below(volume) == []
        assert left_at(engine) == []
        check_files(succeeded(run(worker, job | {"outputs": "volume"})), volume)


def noise() -> str:
    """A picture that no compression makes smaller than the limit."""
    stream = io.BytesIO()
    Image.effect_noise((64, 64), 80).convert("RGB").save(stream, "PNG")
    return data_uri(stream.getvalue())


# --- as clients of the official worker read it


def test_a_graph_is_answered_as_the_official_worker_answers(worker: Worker, volume: Path) -> None:
    answer = run(worker, FOUR)
    assert answer["status"] == "success"
    assert [set(image) for image in answer["images"]] == [{"filename", "type", "data"}] * 4
    assert [image["filename"] for image in answer["images"]] == [f"graph_0000{n}_.png" for n in range(1, 5)]
    paths = check_files(succeeded(answer), volume)
    assert [base64.b64decode(image["data"]) for image in answer["images"]] == [path.read_bytes() for path in paths]
    assert "errors" not in answer


def test_with_a_bucket_a_graphs_pictures_are_urls(s3_worker: Worker, volume: Path) -> None:
    answer = run(s3_worker, FOUR)
    assert [image["type"] for image in answer["images"]] == ["s3_url"] * 4
    outputs = succeeded(answer).outputs
    for image, output in zip(answer["images"], outputs, strict=True):
        assert image["data"] == output.url
        assert is_what_it_says(requests.get(image["data"], timeout=10).content, output)
    assert len(check_files(succeeded(answer), volume)) == 4


@pytest.mark.parametrize("outputs", ["base64", None])
def test_a_graph_of_previews_has_no_images(outputs: str | None, worker: Worker) -> None:
    answer = run(worker, graph_job(PREVIEW, outputs=outputs))
    assert (answer["status"], answer["images"]) == ("success_no_images", [])
    assert len(answer["outputs"]) == 1, "which does not keep those who look for more from finding it"


def test_a_graph_that_asks_for_the_volume_has_no_list_of_images(worker: Worker) -> None:
    answer = run(worker, FOUR | {"outputs": "volume"})
    assert answer["status"] == "success"
    assert "images" not in answer


def test_a_picture_that_the_bucket_does_not_take_is_told_among_the_errors(
    s3_worker: Worker, bucket: Bucket, volume: Path
) -> None:
    client = bucket.client
    statement = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:PutObject",
        "Resource": f"arn:aws:s3:::{bucket.name}/job/graph_00002_.png",
    }
    client.put_bucket_policy(Bucket=bucket.name, Policy=json.dumps({"Statement": [statement]}))
    answer = run(s3_worker, FOUR)
    assert answer["status"] == "success"
    assert [image["filename"] for image in answer["images"]] == [f"graph_0000{n}_.png" for n in (1, 3, 4)]
    assert len(answer["errors"]) == 1
    assert len(check_files(succeeded(answer), volume)) == 4, "it is on the volume all the same"
    bucket.deny("s3:PutObject")
    assert failed(run(s3_worker, FOUR, "job-2")).code == "upload_failed", "none at all is a failure"


def test_a_failed_prompt_is_a_failure_whatever_was_made_before(tmp_path: Path, volume: Path) -> None:
    graph = SMOKE_GRAPH | {
        "3": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "late"}},
    }
    faults = Faults.parse(["node_error=ImageInvert"])
    with running_engine(tmp_path / "failing", faults=faults) as engine:
        files = LocalFiles(folders_of(engine.base_directory, []))
        with assembled(engine.url, volume, files) as worker:
            answer = run(worker, graph_job(graph))
        assert left_at(engine) == []
    assert failed(answer).code == "execution_failed"
    assert "images" not in answer
    assert files_below(volume) == []

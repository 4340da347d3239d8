"""Stored results: found by what was asked, believed only as far as they can be seen."""

from __future__ import annotations

import base64
import json
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from morpheus_worker.deadlines import Allowance
from morpheus_worker.errors import Code, MorpheusError
from morpheus_worker.jobs import JobRequest, JobResult, OutputFile, ResultImage, Timings, parse_request
from morpheus_worker.replaying import JOB_INDEX, MAX_RECORD_BYTES, Replays

AMPLE = Allowance.of(600)

SMOKE: Mapping[str, Any] = {"workflow_name": "smoke", "params": {"width": 40}}
OTHER: Mapping[str, Any] = {"workflow_name": "smoke", "params": {"width": 41}}
SIGNED = "https://bucket.example/a.png?X-Amz-Signature=5ec3e7"
S3_URI = "s3://bucket/job-7/a.png"


def asked(job_id: str = "job-7", job_input: Mapping[str, Any] = SMOKE, *, key: str | None = None) -> JobRequest:
    return parse_request(job_id, {**job_input, **({"idempotency_key": key} if key else {})})


@dataclass
class Desk:
    """A volume with the results of jobs on it, and a worker's replays."""

    volume: Path
    renewed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.volume.mkdir()

    @property
    def replays(self) -> Replays:
        """As a worker has them that was only just started."""
        return Replays(self.volume, renewed=self.renew)

    def renew(self, uris: Sequence[str], allowance: Allowance) -> list[str]:
        self.renewed += uris
        return [f"https://bucket.example/{uri.rpartition('/')[2]}?X-Amz-Signature=new" for uri in uris]

    def file(self, name: str, content: bytes = b"a picture", *, job_id: str = "job-7") -> OutputFile:
        path = self.volume / "job_outputs" / job_id / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        placed = {"path": str(path), "volume_path": f"job_outputs/{job_id}/{name}"}
        return output(name).model_copy(update={"bytes": len(content), **placed})

    def record(self, *outputs: OutputFile, job_id: str = "job-7", name: str = "result.json", **more: Any) -> Path:
        """What a job that made the outputs leaves on the volume."""
        first = next((output.path for output in outputs if output.path), None)
        values = {"image_pod_path": first, "params": {"width": 40}, "timings": Timings(total_s=0.25), **more}
        answer = JobResult(job_id=job_id, trace_id="t-1", outputs=list(outputs), **values).wire()
        path = self.volume / "job_outputs" / job_id / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(answer, indent=2))
        return path

    def done(self, request: JobRequest) -> dict[str, Any]:
        """The request was run, and remembered; its result."""
        record = self.record(self.file("a.png", job_id=request.job_id), job_id=request.job_id)
        self.replays.remember(request, record)
        result: dict[str, Any] = json.loads(record.read_text())
        return result

    def edit(self, record: Path, change: Callable[[dict[str, Any]], object]) -> None:
        stored = json.loads(record.read_text())
        change(stored)
        record.write_text(json.dumps(stored))

    def entries(self) -> list[Path]:
        return sorted(path for path in (self.volume / JOB_INDEX).rglob("*") if not path.is_dir())


def output(name: str, **more: Any) -> OutputFile:
    return OutputFile(
        **{"kind": "image", "filename": name, "node_id": "9", "media_type": "image/png", "bytes": 9, "sha256": "0" * 64}
        | more
    )


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "volume")


@pytest.fixture
def refused(desk: Desk, caplog: pytest.LogCaptureFixture) -> Callable[..., str]:
    """Nothing is found, and one line of the log says why; that line."""

    def look(request: JobRequest | None = None, replays: Replays | None = None) -> str:
        caplog.clear()
        assert (replays or desk.replays).find(request or asked(), AMPLE) is None
        (line,) = [record.getMessage() for record in caplog.records]
        return line

    return look


# --- what is found, and by what


def test_a_job_that_is_delivered_again_gets_the_same_result(desk: Desk) -> None:
    result = desk.done(asked())
    assert desk.replays.find(asked(), AMPLE) == {**result, "replayed": True}


def test_a_job_that_was_never_done_is_not_found_and_nothing_is_said_of_it(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    assert desk.replays.find(asked(key="k"), AMPLE) is None
    desk.done(asked("another"))
    assert desk.replays.find(asked(key="k"), AMPLE) is None
    assert caplog.records == []
    assert not (desk.volume / "job_outputs/job-7").exists()


def test_the_same_id_with_another_input_is_another_question_and_both_are_kept(desk: Desk) -> None:
    first = desk.record(desk.file("a.png"))
    second = desk.record(desk.file("a-2.png"), name="result-2.json")
    desk.replays.remember(asked(), first)
    desk.replays.remember(asked(job_input=OTHER), second)
    for job_input, name in ((SMOKE, "a.png"), (OTHER, "a-2.png")):
        found = desk.replays.find(asked(job_input=job_input), AMPLE)
        assert found is not None
        assert found["outputs"][0]["filename"] == name


def test_how_it_is_asked_makes_no_difference(desk: Desk) -> None:
    desk.done(asked())
    again = {"params": {"width": 40}, "workflow_name": "smoke", "timeout_s": 5, "comfy_org_api_key": "secret"}
    assert desk.replays.find(parse_request("job-7", again), AMPLE) is not None
    assert desk.replays.find(parse_request("job-7", json.dumps(again)), AMPLE) is not None


def test_the_newest_success_wins(desk: Desk) -> None:
    for number in (1, 2, 3):
        name = "result.json" if number == 1 else f"result-{number}.json"
        desk.replays.remember(asked(), desk.record(desk.file(f"{number}.png"), name=name))
    found = desk.replays.find(asked(), AMPLE)
    assert found is not None
    assert found["outputs"][0]["filename"] == "3.png"
    assert len(desk.entries()) == 1


def test_an_idempotency_key_finds_the_result_of_another_job(desk: Desk) -> None:
    result = desk.done(asked("first", key="order 17"))
    found = desk.replays.find(asked("second", key="order 17"), AMPLE)
    assert found == {**result, "replayed": True}
    assert found["job_id"] == "first", "the paths are that job's, too"
    assert desk.replays.find(asked("second"), AMPLE) is None
    assert desk.replays.find(asked("second", OTHER, key="order 17"), AMPLE) is None
    assert desk.replays.find(asked("second", key="order 18"), AMPLE) is None


def test_a_key_that_reads_like_an_id_is_none(desk: Desk) -> None:
    desk.done(asked("first", key="second"))
    assert desk.replays.find(asked("second"), AMPLE) is None
    assert desk.replays.find(asked("third", key="first"), AMPLE) is None
    desk.done(asked("second"))
    for request, job_id in ((asked("second"), "second"), (asked("third", key="second"), "first")):
        found = desk.replays.find(request, AMPLE)
        assert found is not None
        assert found["job_id"] == job_id


def test_where_the_id_leads_nowhere_the_key_is_tried(desk: Desk) -> None:
    desk.done(asked("first", key="k"))
    desk.done(asked("second", key="k"))
    (desk.volume / "job_outputs/second/a.png").unlink()
    assert desk.replays.find(asked("second", key="k"), AMPLE) is None, "the newest success is gone, by either name"
    desk.done(asked("third", key="k"))
    found = desk.replays.find(asked("second", key="k"), AMPLE)
    assert found is not None
    assert found["job_id"] == "third"


@pytest.mark.parametrize("key", [None, "k"])
def test_a_local_test_is_neither_found_nor_remembered(key: str | None, desk: Desk) -> None:
    desk.done(asked("local_test", key=key))
    assert not (desk.volume / JOB_INDEX).exists()
    desk.done(asked("production", key="k"))
    assert desk.replays.find(asked("local_test", key="k"), AMPLE) is None


def test_a_request_of_which_nobody_knows_what_it_asks_is_not_found(desk: Desk) -> None:
    blank = JobRequest(job_id="job-7", workflow_name="smoke")
    desk.done(blank)
    assert desk.replays.find(blank, AMPLE) is None


def test_nothing_of_the_input_is_on_the_volume_but_its_hash(desk: Desk) -> None:
    secrets = {"params": {"prompt": "s3cr3t", "image": "https://h/x?sig=s3cr3t"}, "comfy_org_api_key": "s3cr3t"}
    desk.done(parse_request("job-7", {"workflow_name": "smoke", "idempotency_key": "s3cr3t", **secrets}))
    assert len(desk.entries()) == 2
    for entry in desk.entries():
        assert "s3cr3t" not in entry.name + entry.read_text()
        assert json.loads(entry.read_text()).keys() == {"kind", "job_id", "record"}
        assert len(entry.relative_to(desk.volume).parts) == 3


def test_a_result_without_pictures_is_a_success_too(desk: Desk) -> None:
    desk.replays.remember(asked(), desk.record(status="success_no_images", images=[]))
    found = desk.replays.find(asked(), AMPLE)
    assert found is not None
    assert (found["status"], found["images"]) == ("success_no_images", [])


def test_a_result_of_20_mb_is_fine_and_one_that_no_answer_can_carry_is_not(
    desk: Desk, refused: Callable[..., str]
) -> None:
    data = base64.b64encode(bytes(14_900_000)).decode()
    record = desk.record(output("a.png", data=data), images=[ResultImage(filename="a.png", type="base64", data="")])
    desk.replays.remember(asked(), record)
    found = desk.replays.find(asked(), AMPLE)
    assert found is not None
    assert found["outputs"][0]["data"] == data
    with record.open("ab") as stream:
        stream.truncate(MAX_RECORD_BYTES + 1)
    assert str(MAX_RECORD_BYTES) in refused()


def test_a_worker_that_sees_the_volume_elsewhere_answers_with_its_own_paths(desk: Desk, tmp_path: Path) -> None:
    desk.replays.remember(asked(), desk.record(desk.file("a.png")))
    elsewhere = desk.volume.rename(tmp_path / "elsewhere")
    found = Replays(elsewhere).find(asked(), AMPLE)
    assert found is not None
    assert found["outputs"][0]["path"] == found["image_pod_path"] == str(elsewhere / "job_outputs/job-7/a.png")


# --- URLs


def test_outputs_in_a_bucket_get_a_url_that_works_now(desk: Desk) -> None:
    bucket = output("a.png", url=SIGNED, s3_uri=S3_URI)
    images = [
        ResultImage(filename="a.png", type="s3_url", data=SIGNED),
        ResultImage(filename="b.png", type="base64", data="aGk="),
    ]
    desk.replays.remember(asked(), desk.record(bucket, desk.file("b.png"), images=images))
    found = desk.replays.find(asked(), AMPLE)
    assert found is not None
    assert desk.renewed == [S3_URI], "what is on the volume has no URL to renew"
    assert found["outputs"][0]["url"] == found["images"][0]["data"] != SIGNED
    assert found["outputs"][0]["s3_uri"] == S3_URI
    assert found["images"][1] == {"filename": "b.png", "type": "base64", "data": "aGk="}
    assert "5ec3e7" not in json.dumps(found)


def test_a_job_that_has_to_stop_while_urls_are_renewed_does_not_run(desk: Desk) -> None:
    allowance = Allowance.of(60)

    def cancelling(_uris: Sequence[str], allowance: Allowance) -> list[str]:
        allowance.cancelled.set()
        allowance.check("renewing")
        raise AssertionError

    desk.replays.remember(asked(), desk.record(output("a.png", url=SIGNED, s3_uri=S3_URI)))
    with pytest.raises(MorpheusError) as stopped:
        Replays(desk.volume, renewed=cancelling).find(asked(), allowance)
    assert stopped.value.code == Code.CANCELLED


def test_a_picture_whose_data_stands_in_images_is_there(desk: Desk) -> None:
    images = [ResultImage(filename="a.png", type="base64", data="aGk=")]
    desk.replays.remember(asked(), desk.record(output("a.png"), images=images))
    found = desk.replays.find(asked(), AMPLE)
    assert found is not None
    assert found["images"] == [image.model_dump() for image in images]


def test_a_picture_whose_url_is_no_outputs_is_not_answered(desk: Desk, refused: Callable[..., str]) -> None:
    images = [ResultImage(filename="a.png", type="s3_url", data=SIGNED)]
    desk.replays.remember(asked(), desk.record(desk.file("a.png"), images=images))
    assert "5ec3e7" not in refused()


def test_a_url_that_cannot_be_renewed_means_that_the_job_runs(desk: Desk, refused: Callable[..., str]) -> None:
    def gone(_uris: Sequence[str], _allowance: Allowance) -> list[str]:
        raise MorpheusError(Code.UPLOAD_FAILED, "The object is gone")

    desk.replays.remember(asked(), desk.record(output("a.png", url=SIGNED, s3_uri=S3_URI)))
    assert "The object is gone" in refused(replays=Replays(desk.volume, renewed=gone))
    assert "this worker has none" in refused(replays=Replays(desk.volume))


# --- what is not believed


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"kind": "job"}', "\xff\xfe", "x" * 5000, "[" * 4000])
def test_an_entry_that_is_none_means_that_the_job_runs(content: str, desk: Desk, refused: Callable[..., str]) -> None:
    desk.done(asked())
    desk.entries()[0].write_text(content, encoding="latin-1")
    assert JOB_INDEX in refused()


@pytest.mark.parametrize(
    "record",
    [
        "/etc/passwd",
        "job_outputs/job-7/../../../etc/passwd",
        "../volume/job_outputs/job-7/result.json",
        "/job_outputs/job-7/result.json",
        "job_outputs//result.json",
        "job_outputs/job-7/a.png",
        "job_outputs/job-7/result.json/",
        "job_outputs/job-7/result.json\n",
        "job_outputs/job-7/result-\u0662.json",
        "job_outputs/job-7/sub/result.json",
        "job_outputs/job-8/result.json",
        "job_outputs/.hidden/result.json",
        "models/job-7/result.json",
        "result.json",
        "",
    ],
)
def test_an_entry_leads_to_a_record_of_its_job_or_nowhere(record: str, desk: Desk, refused: Callable[..., str]) -> None:
    desk.done(asked("job-8"))
    desk.done(asked())
    (entry,) = [path for path in desk.entries() if json.loads(path.read_text())["job_id"] == "job-7"]
    desk.edit(entry, lambda stored: stored.update(record=record))
    assert "names no record of such a job" in refused()


@pytest.mark.parametrize("change", [{"kind": "key"}, {"job_id": "job-8"}, {"job_id": "job-8", "record": None}])
def test_an_entry_under_anothers_name_is_not_believed(
    change: dict[str, str | None], desk: Desk, refused: Callable[..., str]
) -> None:
    desk.done(asked())
    (entry,) = desk.entries()
    desk.done(asked("job-8"))
    record = "job_outputs/job-8/result.json"
    desk.edit(entry, lambda stored: stored.update({k: v if v else record for k, v in change.items()}))
    assert "names no record of such a job" in refused()


def spoilt(name: str, **values: Any) -> Any:
    return pytest.param(lambda stored: stored.update(values), id=name)


@pytest.mark.parametrize(
    "change",
    [
        spoilt("of another job", job_id="job-8"),
        spoilt("a failure", status="failed"),
        spoilt("outputs that are none", outputs=[{"kind": "image"}]),
        spoilt("no outputs at all", outputs=None),
        pytest.param(lambda stored: stored.pop("status"), id="no status"),
        pytest.param(lambda stored: stored.pop("trace_id"), id="no trace id"),
        pytest.param(lambda stored: stored["outputs"][0].update(bytes=8), id="another size"),
        pytest.param(
            lambda stored: stored["outputs"][0].update(volume_path=None, path=None), id="neither file nor URL"
        ),
    ],
)
def test_a_record_that_is_not_this_jobs_success_means_that_the_job_runs(
    change: Callable[[dict[str, Any]], object], desk: Desk, refused: Callable[..., str]
) -> None:
    desk.done(asked())
    desk.edit(desk.volume / "job_outputs/job-7/result.json", change)
    refused()


@pytest.mark.parametrize(
    "path",
    [
        "models/a.png",
        "a.png",
        "job_outputs/a.png",
        "job_outputs/job-8/a.png",
        "job_outputs/job-7/sub",
        "job_outputs/job-7",
        "job_outputs/job-7/../job-8/a.png",
        "/etc/passwd",
        "../a.png",
        "job_outputs/job-7/a.png\0",
    ],
)
@pytest.mark.parametrize("key", ["path", "volume_path"])
def test_an_output_is_a_file_in_its_jobs_own_folder(
    key: str, path: str, desk: Desk, refused: Callable[..., str]
) -> None:
    desk.done(asked())
    for name in ("models/a.png", "a.png", "job_outputs/a.png", "job_outputs/job-8/a.png"):
        (desk.volume / name).parent.mkdir(exist_ok=True)
        (desk.volume / name).write_bytes(b"a picture")
    (desk.volume / "job_outputs/job-7/sub").mkdir()
    there = desk.volume / path.replace("\0", "")
    size = there.stat().st_size if there.exists() else 9

    def change(stored: dict[str, Any]) -> None:
        del stored["outputs"][0]["volume_path"]
        stored["outputs"][0].update({key: path, "bytes": size})

    desk.edit(desk.volume / "job_outputs/job-7/result.json", change)
    refused()


def test_a_record_of_another_job_is_not_used_though_it_needs_no_file(desk: Desk, refused: Callable[..., str]) -> None:
    record = desk.record(output("a.png", data="aGk="))
    desk.replays.remember(asked(), record)
    assert desk.replays.find(asked(), AMPLE) is not None
    desk.edit(record, lambda stored: stored.update(job_id="job-8"))
    assert "is no result of job job-7" in refused()


def test_a_torn_record_means_that_the_job_runs_and_the_log_quotes_nothing_of_it(
    desk: Desk, refused: Callable[..., str]
) -> None:
    record = desk.record(output("a.png", url=SIGNED, s3_uri=S3_URI))
    desk.replays.remember(asked(), record)
    whole = record.read_bytes()
    for cut in (whole[:-2], whole[: whole.index(b"5ec3e7") + 6], b""):
        record.write_bytes(cut)
        said = refused()
        assert "job_outputs/job-7/result.json" in said
        assert "5ec3e7" not in said


def test_a_wrong_value_in_a_record_is_not_quoted_either(desk: Desk, refused: Callable[..., str]) -> None:
    record = desk.record(output("a.png", url=SIGNED, s3_uri=S3_URI))
    desk.replays.remember(asked(), record)
    desk.edit(record, lambda stored: stored["outputs"][0].update(url=[SIGNED]))
    said = refused()
    assert "outputs.0.url" in said
    assert "5ec3e7" not in said


@pytest.mark.parametrize("doomed", ["job_outputs/job-7/a.png", "job_outputs/job-7/result.json", "job_outputs"])
def test_what_a_janitor_removed_is_made_anew(doomed: str, desk: Desk, refused: Callable[..., str]) -> None:
    desk.done(asked())
    (desk.volume / doomed).rename(desk.volume / "removed")
    refused()


def test_another_versions_record_is_read_for_what_this_one_knows(desk: Desk) -> None:
    result = desk.done(asked())

    def change(stored: dict[str, Any]) -> None:
        stored.update({"error": "not known to a result", "refresh_worker": True, "cost": 3})
        stored["outputs"][0].update(blurhash="x")
        del stored["warnings"], stored["timings"]["queued_s"]

    desk.edit(desk.volume / "job_outputs/job-7/result.json", change)
    assert desk.replays.find(asked(), AMPLE) == {**result, "replayed": True}


def test_links_that_lead_away_are_not_followed(desk: Desk, tmp_path: Path, refused: Callable[..., str]) -> None:
    desk.done(asked())
    folder = desk.volume / "job_outputs/job-7"
    outside = tmp_path / "outside"
    for name in ("a.png", "result.json"):
        (folder / name).rename(outside)
        (folder / name).symlink_to(outside)
        assert "leads out of the volume" in refused()
        (folder / name).unlink()
        outside.rename(folder / name)
    (entry,) = desk.entries()
    entry.rename(outside)
    entry.symlink_to(outside)
    assert "through a link" in refused()


def test_a_named_pipe_in_the_place_of_a_file_holds_nobody(desk: Desk, refused: Callable[..., str]) -> None:
    desk.done(asked())
    record = desk.volume / "job_outputs/job-7/result.json"
    for path in (desk.volume / "job_outputs/job-7/a.png", record, desk.entries()[0]):
        path.unlink()
        os.mkfifo(path)
        refused()


def test_without_the_volume_nothing_is_found_or_made(
    desk: Desk, refused: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    record = desk.record(desk.file("a.png"))
    desk.volume.rename(desk.volume.with_name("gone"))
    refused()
    desk.replays.remember(asked(key="k"), record)
    assert len(caplog.records) == 3, "one line for each name that the result would have had"
    assert not desk.volume.exists()


# --- what is written


def test_an_index_that_leads_off_the_volume_is_not_written_to(
    desk: Desk, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (desk.volume / JOB_INDEX).symlink_to(outside)
    desk.done(asked())
    assert list(outside.iterdir()) == []
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_record_that_is_not_on_the_volume_is_not_remembered(
    desk: Desk, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    desk.replays.remember(asked(), tmp_path / "job_outputs/job-7/result.json")
    assert not (desk.volume / JOB_INDEX).exists()
    assert len(caplog.records) == 1


@pytest.mark.parametrize("in_the_way", [JOB_INDEX, "shard", "entry"])
def test_an_entry_that_cannot_be_written_fails_no_job_and_leaves_nothing(
    in_the_way: str, desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.done(asked())
    (entry,) = desk.entries()
    entry.unlink()
    if in_the_way == "entry":
        entry.mkdir()
        (entry / "x").touch()
    else:
        entry.parent.rmdir()
        blocked = entry.parent if in_the_way == "shard" else entry.parent.parent
        if blocked.exists():
            blocked.rmdir()
        blocked.touch()
    desk.done(asked())
    assert "will not be found by its job id" in caplog.records[0].getMessage()
    assert [path.name for path in desk.entries() if path.name.endswith(".part")] == []


def test_many_that_remember_at_once_leave_one_whole_entry(desk: Desk) -> None:
    records = [desk.record(desk.file(f"{number}.png"), name=f"result-{number}.json") for number in range(2, 10)]
    ready = threading.Barrier(len(records))

    def remember(record: Path) -> None:
        ready.wait()
        desk.replays.remember(asked(key="k"), record)

    threads = [threading.Thread(target=remember, args=(record,)) for record in records]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(desk.entries()) == 2, "one a name, and no hidden part"
    assert desk.replays.find(asked(key="k"), AMPLE) is not None


# --- two deliveries in one worker


class _StopError(Exception):
    pass


def nobody_waits(_seconds: float) -> None:
    raise AssertionError("there is nobody to wait for")


def waits(replays: Replays, request: JobRequest) -> bool:
    """Whether a delivery of this request would have to wait now."""

    def stop(_seconds: float) -> None:
        raise _StopError

    try:
        with replays.one_at_a_time(request, stop):
            return False
    except _StopError:
        return True


def test_a_second_delivery_waits_for_the_first_and_then_finds_its_result(desk: Desk) -> None:
    replays, held_up, may_end = desk.replays, threading.Event(), threading.Event()
    found: list[dict[str, Any] | None] = []

    def second() -> None:
        def wait(_seconds: float) -> None:
            assert not held_up.is_set(), "the first has ended"
            held_up.set()
            assert may_end.wait(30)

        with replays.one_at_a_time(asked(), wait):
            found.append(replays.find(asked(), AMPLE))

    thread = threading.Thread(target=second)
    with replays.one_at_a_time(asked(), nobody_waits):
        thread.start()
        assert held_up.wait(30)
        result = desk.done(asked())
    may_end.set()
    thread.join(30)
    assert found == [{**result, "replayed": True}]


def test_one_waits_for_the_same_question_only(desk: Desk) -> None:
    replays = desk.replays
    with replays.one_at_a_time(asked("job-7", key="k"), nobody_waits):
        assert waits(replays, asked("job-7"))
        assert waits(replays, asked("job-8", key="k"))
        assert not waits(replays, asked("job-8"))
        assert not waits(replays, asked("job-7", OTHER, key="k"))
        assert not waits(desk.replays, asked("job-7")), "another worker"
    assert not waits(replays, asked("job-7", key="k"))


def test_two_local_tests_run_beside_one_another(desk: Desk) -> None:
    replays = desk.replays
    with replays.one_at_a_time(asked("local_test"), nobody_waits):
        assert not waits(replays, asked("local_test"))


def test_one_that_stops_waiting_holds_up_nobody_and_a_failure_lets_the_next_one_in(desk: Desk) -> None:
    replays = desk.replays

    def fail() -> None:
        with replays.one_at_a_time(asked(key="k"), nobody_waits):
            assert waits(replays, asked("job-8", key="k"))
            assert not waits(replays, asked("job-8")), "one that waits for a name has claimed none"
            raise _StopError

    with pytest.raises(_StopError):
        fail()
    assert not waits(replays, asked(key="k"))


def test_the_log_names_the_record_that_answered(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.done(asked())
    with caplog.at_level(logging.INFO):
        desk.replays.find(asked(), AMPLE)
    assert "job_outputs/job-7/result.json" in caplog.text
    assert "t-1" in caplog.text

"""Stored results, whatever was asked and whatever lies on the volume."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from morpheus_worker.deadlines import Allowance
from morpheus_worker.jobs import JobRequest, JobResult, OutputFile, Timings
from morpheus_worker.replaying import JOB_INDEX, Replays

AMPLE = Allowance.of(600)

JOB_IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True).filter(lambda text: text != "local_test")
KEYS = st.none() | st.text(st.characters(exclude_categories=()), min_size=1)
FINGERPRINTS = st.sampled_from(["a" * 64, "b" * 64])
REQUESTS = st.builds(JobRequest, job_id=JOB_IDS, idempotency_key=KEYS, fingerprint=FINGERPRINTS)

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
PATHS = st.lists(
    st.sampled_from(["job_outputs", "job", "other", "a.png", "result.json", "..", ".", "", "/", "\0", "secret"])
    | st.text(max_size=4),
    max_size=5,
).map("/".join)
ESCAPES = st.sampled_from(
    ["job_outputs/other/a.png", "../secret", "job_outputs/job/../../../secret", "job_outputs/job/away", "other/a.png"]
)
JSON = st.recursive(
    SCALARS | PATHS | ESCAPES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


@contextlib.contextmanager
def volume() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as base:
        root = Path(base, "volume")
        root.mkdir()
        Path(base, "secret").write_bytes(b"123456789")
        yield root


def done(root: Path, request: JobRequest) -> tuple[Path, dict[str, Any]]:
    """The record of a job that made one file, and what it says."""
    folder = root / "job_outputs" / request.job_id
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.png").write_bytes(b"123456789")
    placed = {"path": str(folder / "a.png"), "volume_path": f"job_outputs/{request.job_id}/a.png"}
    made = OutputFile(
        kind="image", filename="a.png", node_id="9", media_type="image/png", bytes=9, sha256="0" * 64, **placed
    )
    answer = JobResult(job_id=request.job_id, trace_id="t", outputs=[made], params={}, timings=Timings()).wire()
    (folder / "result.json").write_text(json.dumps(answer))
    return folder / "result.json", answer


def same_question(one: JobRequest, other: JobRequest) -> bool:
    same_key = one.idempotency_key is not None and one.idempotency_key == other.idempotency_key
    return one.fingerprint == other.fingerprint and (one.job_id == other.job_id or same_key)


@given(REQUESTS, REQUESTS)
def test_a_result_is_found_by_whoever_asks_the_same_and_by_nobody_else(one: JobRequest, other: JobRequest) -> None:
    with volume() as root:
        record, answer = done(root, one)
        Replays(root).remember(one, record)
        found = Replays(root).find(other, AMPLE)
        assert found == ({**answer, "replayed": True} if same_question(one, other) else None)


@given(REQUESTS, st.binary() | JSON.map(lambda value: json.dumps(value).encode()), st.sampled_from(["entry", "record"]))
def test_whatever_lies_there_is_no_answer_and_no_error(request: JobRequest, content: bytes, which: str) -> None:
    with volume() as root:
        record, _answer = done(root, request)
        Replays(root).remember(request, record)
        entries = [path for path in (root / JOB_INDEX).rglob("*") if path.is_file()]
        for path in entries if which == "entry" else [record]:
            path.write_bytes(content)
        assert Replays(root).find(request, AMPLE) is None


@given(st.sampled_from(["path", "volume_path", "job_id", "outputs", "image_pod_path", "bytes"]), JSON | ESCAPES)
def test_one_changed_value_never_leads_off_the_volume_or_to_anothers_files(key: str, value: object) -> None:
    request = JobRequest(job_id="job", fingerprint="a" * 64)
    with volume() as root:
        record, answer = done(root, request)
        shutil.copytree(record.parent, root / "job_outputs/other")
        (record.parent / "away").symlink_to(root.parent / "secret")
        Replays(root).remember(request, record)
        place = answer if key in answer else answer["outputs"][0]
        place[key] = value
        if key == "path":
            del place["volume_path"]
        record.write_text(json.dumps(answer))
        found = Replays(root).find(request, AMPLE)
        if found is not None:
            paths = {found.get("image_pod_path"), *(output.get("path") for output in found["outputs"])}
            assert paths <= {str(record.parent / "a.png"), None}


@given(REQUESTS, st.integers(min_value=0, max_value=400))
def test_a_record_that_was_cut_short_anywhere_is_not_used(request: JobRequest, length: int) -> None:
    with volume() as root:
        record, _answer = done(root, request)
        whole = record.read_bytes()
        assume(length < len(whole))
        Replays(root).remember(request, record)
        record.write_bytes(whole[:length])
        assert Replays(root).find(request, AMPLE) is None

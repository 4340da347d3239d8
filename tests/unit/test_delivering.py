"""Where a job's outputs go, and in which form the answer has them."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from morpheus_worker.comfy.files import Origin
from morpheus_worker.comfy.history import FileRef, Reported, TextRef
from morpheus_worker.comfy.http import OutputMissingError
from morpheus_worker.deadlines import Allowance, Deadline
from morpheus_worker.delivering import Delivery, Plan, delivery, largest_result, plan_of
from morpheus_worker.errors import Code, MorpheusError
from morpheus_worker.jobs import OutputFile, parse_request
from morpheus_worker.publishing import job_folder
from morpheus_worker.s3 import S3Store
from morpheus_worker.settings import Settings
from tests.integration.jobs import png

GRAPH = {"workflow": {"1": {"class_type": "SaveImage", "inputs": {}}}}
NAMED = {"workflow_name": "smoke"}
BUCKET = {"BUCKET_ENDPOINT_URL": "http://127.0.0.1:1", "BUCKET_NAME": "pictures"}
PICTURE = png(size=(30, 20))


def settings(**environment: str) -> Settings:
    return Settings.from_environment(environment)


@pytest.mark.parametrize(
    ("job", "environment", "plan"),
    [
        (NAMED, {}, Plan("volume")),
        (NAMED, BUCKET, Plan("volume")),
        (NAMED, {"MORPHEUS_OUTPUTS": "base64"}, Plan("base64")),
        (NAMED | {"outputs": "volume"}, {"MORPHEUS_OUTPUTS": "base64"}, Plan("volume")),
        (NAMED | {"outputs": "s3"}, BUCKET, Plan("s3")),
        (GRAPH, {}, Plan("volume", "base64")),
        (GRAPH, BUCKET, Plan("volume", "s3")),
        (GRAPH, {"MORPHEUS_OUTPUTS": "base64", **BUCKET}, Plan("base64", "base64")),
        (GRAPH | {"outputs": "base64"}, BUCKET, Plan("base64", "base64")),
        (GRAPH | {"outputs": "s3"}, BUCKET, Plan("s3", "s3")),
        (GRAPH | {"outputs": "volume"}, BUCKET, Plan("volume")),
        (GRAPH, {"MORPHEUS_OUTPUTS": "volume"}, Plan("volume", "base64")),
    ],
)
def test_the_jobs_wish_comes_before_the_setting_and_a_graph_gets_its_pictures(
    job: dict[str, Any], environment: dict[str, str], plan: Plan
) -> None:
    chosen = settings(**environment)
    assert plan_of(parse_request("job", job), chosen, S3Store.of(chosen)) == plan


def test_a_bucket_that_is_not_there_is_refused_before_anything_runs() -> None:
    with pytest.raises(MorpheusError, match="BUCKET_ENDPOINT_URL") as failed:
        plan_of(parse_request("job", NAMED | {"outputs": "s3"}), settings(), None)
    assert failed.value.code == Code.INVALID_INPUT


@pytest.mark.parametrize(
    ("job_id", "environment", "size"),
    [
        ("7f1", {}, 10_000_000),
        ("sync-7f1", {}, 20_000_000),
        ("sync-7f1", {"MORPHEUS_MAX_RESULT_BYTES": "500"}, 500),
    ],
)
def test_an_answer_may_have_what_runpod_carries(job_id: str, environment: dict[str, str], size: int) -> None:
    assert largest_result(job_id, settings(**environment)) == size


class Files:
    """What ComfyUI has: files by name, as local paths or, `streamed`, as chunks."""

    def __init__(self, folder: Path, *, streamed: bool = False) -> None:
        self.folder = folder
        self.streamed = streamed
        folder.mkdir()

    def made(self, name: str, content: bytes, *, key: str = "images", folder: str = "output") -> FileRef:
        (self.folder / name).write_bytes(content)
        return FileRef("9", name, "", folder, key)

    def origin(self, ref: FileRef) -> AbstractContextManager[Origin]:
        path = self.folder / ref.filename
        if not path.exists():
            raise OutputMissingError(ref)
        return nullcontext(iter([path.read_bytes()[:7], path.read_bytes()[7:]]) if self.streamed else path)


@pytest.fixture(params=["local", "streamed"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    return Files(tmp_path / "comfyui", streamed=request.param == "streamed")


@contextlib.contextmanager
def delivering(
    tmp_path: Path, files: Files, plan: Plan, *, max_bytes: int = 10**7, allowance: Allowance | None = None
) -> Iterator[Delivery]:
    (tmp_path / "volume").mkdir(exist_ok=True)
    with (
        job_folder(tmp_path / "volume", "job", allowance or Allowance.of(60)) as folder,
        delivery(plan, folder, files, None, max_bytes) as delivered_by,
    ):
        yield delivered_by


def on_volume(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "volume").rglob("*") if path.is_file()}


def data_of(output: OutputFile) -> bytes:
    return base64.b64decode(output.data or "", validate=True)


def test_base64_says_the_same_of_a_file_as_the_volume_does(files: Files, tmp_path: Path) -> None:
    ref = files.made("x_00001_.png", PICTURE)
    with delivering(tmp_path, files, Plan("base64")) as delivered_by:
        (inline,) = delivered_by.deliver(Reported((ref,), ())).outputs
        assert on_volume(tmp_path) == set()
    with delivering(tmp_path, files, Plan("volume")) as delivered_by:
        (stored,) = delivered_by.deliver(Reported((ref,), ())).outputs
    assert data_of(inline) == PICTURE
    assert inline.sha256 == hashlib.sha256(PICTURE).hexdigest()
    assert (inline.width, inline.height) == (30, 20)
    assert inline.model_copy(update={"data": None}) == stored.model_copy(update={"path": None, "volume_path": None})


def test_a_graphs_pictures_stand_in_images_and_their_data_nowhere_else(files: Files, tmp_path: Path) -> None:
    made = Reported(
        (files.made("a.png", PICTURE), files.made("b.webm", b"clip", key="gifs"), files.made("c.mp4", b"film")), ()
    )
    with delivering(tmp_path, files, Plan("base64", "base64")) as delivered_by:
        delivered = delivered_by.deliver(made)
    assert delivered.images is not None
    assert [(image.filename, image.type) for image in delivered.images] == [("a.png", "base64"), ("c.mp4", "base64")]
    assert [base64.b64decode(image.data) for image in delivered.images] == [PICTURE, b"film"]
    assert [(output.filename, output.data is None) for output in delivered.outputs] == [
        ("a.png", True), ("b.webm", False), ("c.mp4", True),
    ]  # fmt: skip


def test_a_graphs_pictures_come_beside_the_volumes(files: Files, tmp_path: Path) -> None:
    made = Reported((files.made("a.png", PICTURE), files.made("p.png", PICTURE, folder="temp")), ())
    with delivering(tmp_path, files, Plan("volume", "base64")) as delivered_by:
        delivered = delivered_by.deliver(made)
        delivered_by.complete({})
    assert [(image.filename, base64.b64decode(image.data)) for image in delivered.images or ()] == [("a.png", PICTURE)]
    assert [(output.volume_path, output.data) for output in delivered.outputs] == [
        ("job_outputs/job/a.png", None), ("job_outputs/job/p.png", None),
    ]  # fmt: skip
    assert on_volume(tmp_path) == {"a.png", "p.png", "result.json"}


def test_a_graph_without_pictures_has_an_empty_list(files: Files, tmp_path: Path) -> None:
    with delivering(tmp_path, files, Plan("volume", "base64")) as delivered_by:
        assert delivered_by.deliver(Reported((), (TextRef("3", "a caption"),))).images == []


@pytest.mark.parametrize("store", ["volume", "base64"])
def test_a_graph_does_without_a_file_that_is_not_there_and_says_so(store: Any, files: Files, tmp_path: Path) -> None:
    made = Reported((FileRef("9", "gone.png", "", "output"), files.made("a.png", PICTURE)), ())
    with delivering(tmp_path, files, Plan(store, "base64")) as delivered_by:
        delivered = delivered_by.deliver(made)
    assert [output.filename for output in delivered.outputs] == ["a.png"]
    assert [image.filename for image in delivered.images or ()] == ["a.png"]
    assert len(delivered.errors) == 1
    assert "'gone.png'" in delivered.errors[0]


@pytest.mark.parametrize("plan", [Plan("volume", "base64"), Plan("volume"), Plan("base64"), Plan("base64", "base64")])
def test_a_job_whose_every_file_is_missing_fails(plan: Plan, files: Files, tmp_path: Path) -> None:
    with pytest.raises(OutputMissingError), delivering(tmp_path, files, plan) as delivered_by:
        delivered_by.deliver(Reported((FileRef("9", "gone.png", "", "output"),), ()))
    assert on_volume(tmp_path) == set()


def test_a_templates_job_fails_with_the_first_file_that_is_missing(files: Files, tmp_path: Path) -> None:
    made = Reported((files.made("a.png", PICTURE), FileRef("9", "gone.png", "", "output")), ())
    with pytest.raises(OutputMissingError), delivering(tmp_path, files, Plan("volume")) as delivered_by:
        delivered_by.deliver(made)
    assert on_volume(tmp_path) == set()


@pytest.mark.parametrize(("room", "fits"), [(400, True), (399, False)])
def test_what_does_not_fit_into_the_answer_is_refused_and_the_way_out_named(
    room: int, fits: bool, files: Files, tmp_path: Path
) -> None:
    made = Reported(tuple(files.made(f"{n}.bin", b"x" * 150) for n in range(2)), ())
    with contextlib.ExitStack() as ending:
        if not fits:
            failed = ending.enter_context(pytest.raises(MorpheusError, match="'outputs': 'volume'"))
        delivered_by = ending.enter_context(delivering(tmp_path, files, Plan("base64"), max_bytes=room))
        assert sum(len(output.data or "") for output in delivered_by.deliver(made).outputs) == room
    if not fits:
        assert failed.value.code == Code.RESULT_TOO_LARGE
        assert not failed.value.retryable


def test_an_answer_is_measured_as_a_whole(files: Files, tmp_path: Path) -> None:
    with delivering(tmp_path, files, Plan("volume"), max_bytes=1000) as delivered_by:
        delivered_by.deliver(Reported((files.made("a.png", PICTURE),), ()))
        with pytest.raises(MorpheusError) as failed:
            delivered_by.complete({"params": {"prompt": "x" * 1000}})
    assert failed.value.code == Code.RESULT_TOO_LARGE
    assert on_volume(tmp_path) == set(), "what was published is taken back"


@pytest.mark.parametrize("store", ["volume", "base64"])
def test_texts_come_inline_and_long_ones_as_files(store: Any, files: Files, tmp_path: Path) -> None:
    long, other = "läuft " * 50_000, "lief " * 60_000
    made = Reported((), (TextRef("12:3", "läuft"), TextRef("4", long), TextRef("4", other)))
    with delivering(tmp_path, files, Plan(store)) as delivered_by:
        first, second, short = delivered_by.deliver(made).outputs
        contents = [Path(output.path).read_bytes() if output.path else data_of(output) for output in (first, second)]
    assert contents == [long.encode(), other.encode()]
    assert (first.kind, first.media_type, first.text) == ("text", "text/plain", None)
    assert (short.text, short.bytes, short.path, short.data) == ("läuft", 6, None, None)
    assert short.sha256 == hashlib.sha256("läuft".encode()).hexdigest()


@pytest.mark.parametrize("store", ["volume", "base64"])
@pytest.mark.parametrize(("seconds", "code"), [(60, Code.CANCELLED), (0, Code.TIMEOUT)])
def test_a_job_that_has_to_stop_delivers_nothing(
    store: Any, seconds: int, code: Code, files: Files, tmp_path: Path
) -> None:
    allowance = Allowance(Deadline.after(seconds), threading.Event())
    if code == Code.CANCELLED:
        allowance.cancelled.set()
    made = Reported((files.made("a.png", PICTURE),), ())
    with (
        pytest.raises(MorpheusError) as failed,
        delivering(tmp_path, files, Plan(store), allowance=allowance) as delivered_by,
    ):
        delivered_by.deliver(made)
    assert failed.value.code == code
    assert on_volume(tmp_path) == set()

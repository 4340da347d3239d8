"""Media from elsewhere: by URL, from a store, several at once, and what is left of them when a job ends."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from morpheus_worker.addresses import PrivateHosts
from morpheus_worker.comfy.files import LocalFiles
from morpheus_worker.comfy.launch import folders_of
from morpheus_worker.deadlines import Allowance, Deadline
from morpheus_worker.errors import Code, MorpheusError
from morpheus_worker.media import InputKind, Limits, Sources, Stage, Wanted, staged
from morpheus_worker.pipeline import Worker, run_job
from morpheus_worker.rehearsal import RehearsalEngine
from morpheus_worker.rehearsal.clip import mp4
from morpheus_worker.s3 import S3Store

from .conftest import assembled
from .jobs import INVERT_GRAPH, data_uri, failed, files_below, graph_job, png, succeeded
from .media_server import Exchange, MediaServer, Play, content, endless, held, never, redirect, sized, status
from .s3_server import Answer, Bucket, new_bucket, raw_store, s3_settings

WAIT_S = 10.0
PNG, OTHER = png(), png((10, 200, 30))
CLIP = mp4([Image.new("RGB", (16, 16))], 8)
PAGE = b"<!doctype html><title>Log in</title>"


@pytest.fixture
def server() -> Iterator[MediaServer]:
    with MediaServer() as running:
        yield running


@pytest.fixture
def store() -> Bucket:
    return new_bucket()


class Desk:
    """A volume, a ComfyUI's folders, and stages between them."""

    def __init__(self, path: Path) -> None:
        self.volume, self.folders = path / "volume", folders_of(path / "comfy", [])
        self.volume.mkdir()
        self.files = LocalFiles(self.folders)
        self.input = self.folders.input
        self.s3: S3Store | None = None

    def stage(
        self,
        allowance: Allowance | None = None,
        *,
        private: bool = True,
        timeout_s: float = WAIT_S,
        max_bytes: int = 10**6,
    ) -> Stage:
        sources = Sources(PrivateHosts.of(["127.0.0.1"] if private else []), timeout_s, self.s3)
        limits = Limits(max_bytes, 10**6)
        return Stage("tok", self.files, self.volume, limits, sources, allowance or Allowance.of(60.0))

    def bring(self, *values: object, kind: InputKind = "image", **more: Any) -> dict[str, bytes]:
        """What loader nodes find, by the names that they are given."""
        with staged(self.stage(**more)) as stage:
            names = stage.bring([Wanted(f"params.{number}", kind, value) for number, value in enumerate(values)])
            found = {name: (self.input / name).read_bytes() for name in names}
        assert not list(self.input.iterdir())
        return found

    def refusal(self, *values: object, kind: InputKind = "image", **more: Any) -> MorpheusError:
        with pytest.raises(MorpheusError) as refused:
            self.bring(*values, kind=kind, **more)
        assert not list(self.input.iterdir())
        return refused.value


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    if made.s3 is not None:
        made.s3.close()


def codes(failure: MorpheusError) -> list[str]:
    return [problem["code"] for problem in failure.details["problems"]]


# --- one


@pytest.mark.parametrize(
    ("path", "headers", "name"),
    [
        ("/face.png", {}, "tok-0-face.png"),
        ("/a/b/gr%C3%BC%C3%9Fe.png?size=2", {}, "tok-0-grüße.png"),
        ("/download.php?id=7", {}, "tok-0-download.png"),
        ("/view", {"Content_Disposition": 'attachment; filename="my face.jpeg"'}, "tok-0-my face.png"),
        ("/", {}, "tok-0-fetched.png"),
        ("/..%2F..%2Fevil.png", {}, "tok-0-evil.png"),
        ("/x%20%5Boutput%5D.png", {}, "tok-0-x (output).png"),
    ],
)
def test_a_picture_by_url(server: MediaServer, desk: Desk, path: str, headers: dict[str, str], name: str) -> None:
    url = server.serve(path.partition("?")[0], content(PNG, **headers))
    assert desk.bring(url.removesuffix(path.partition("?")[0]) + path) == {name: PNG}


def test_a_video_by_url(server: MediaServer, desk: Desk) -> None:
    assert desk.bring(server.serve("/clip", content(CLIP)), kind="video") == {"tok-0-clip.mp4": CLIP}


def test_a_redirect_is_followed(server: MediaServer, desk: Desk) -> None:
    there = server.serve("/there.png", content(PNG))
    assert list(desk.bring(server.serve("/here", redirect(there))).values()) == [PNG]


def test_a_picture_from_a_store(store: Bucket, desk: Desk) -> None:
    desk.s3 = S3Store.of(store.settings())
    assert desk.bring(store.put("faces/a.png", PNG)) == {"tok-0-a.png": PNG}


@pytest.mark.parametrize(
    ("play", "kind", "code", "said"),
    [
        (content(PAGE), "image", Code.INPUT_REJECTED, "is an HTML page, not a picture"),
        (content(PAGE), "file", Code.INPUT_REJECTED, "is an HTML page"),
        (content(b""), "file", Code.INPUT_REJECTED, "empty"),
        (content(b'{"error": "expired"}'), "video", Code.INPUT_REJECTED, "is a JSON document, not a video"),
        (content(PNG), "audio", Code.INPUT_REJECTED, "is a PNG picture, not a sound"),
        (status(404), "image", Code.INPUT_UNREACHABLE, "404"),
        (sized(10**10), "file", Code.INPUT_REJECTED, "10000000000"),
        (endless, "file", Code.INPUT_REJECTED, "1000000"),
        (redirect("http://169.254.169.254/latest"), "image", Code.INPUT_REJECTED, "169.254.169.254"),
    ],
    ids=range(9),
)
def test_what_cannot_be_had(
    server: MediaServer, desk: Desk, play: Play, kind: InputKind, code: Code, said: str
) -> None:
    failure = desk.refusal(server.serve("/x", play), kind=kind)
    assert failure.code == code
    assert said in failure.message


def test_a_private_host_is_refused_unless_it_is_opened(server: MediaServer, desk: Desk) -> None:
    url = server.serve("/x.png", content(PNG))
    assert desk.refusal(url, private=False).code == Code.INPUT_REJECTED
    assert not server.requests
    assert len(desk.bring(url)) == 1


def test_a_medium_that_takes_too_long_is_given_up(server: MediaServer, desk: Desk) -> None:
    failure = desk.refusal(server.serve("/x", never), timeout_s=0.2)
    assert (failure.code, failure.retryable) == (Code.INPUT_UNREACHABLE, True)


def test_a_query_is_never_told(server: MediaServer, desk: Desk) -> None:
    failure = desk.refusal(server.serve("/x", status(403)) + "?X-Amz-Signature=geheim")
    assert "geheim" not in f"{failure.message} {failure.details}"


# --- several


def met(barrier: threading.Barrier, then: Play) -> Play:
    """Answers only once others are being asked for, too."""

    def play(exchange: Exchange) -> None:
        barrier.wait(WAIT_S)
        then(exchange)

    return play


def test_several_are_fetched_at_once(server: MediaServer, desk: Desk) -> None:
    barrier = threading.Barrier(4)
    urls = [server.serve(f"/{number}.png", met(barrier, content(PNG))) for number in range(4)]
    assert list(desk.bring(*urls)) == [f"tok-{number}-{number}.png" for number in range(4)]


def test_what_several_params_name_is_fetched_once(server: MediaServer, desk: Desk) -> None:
    url = server.serve("/x.png", content(PNG))
    assert desk.bring(url, url, f" {url}\n") == {"tok-0-x.png": PNG}
    assert server.asked_for("/x.png") == 1


def test_everything_at_once_in_the_order_of_the_params(server: MediaServer, store: Bucket, desk: Desk) -> None:
    desk.s3 = S3Store.of(store.settings())
    (desk.volume / "faces").mkdir()
    (desk.volume / "faces" / "b.png").write_bytes(OTHER)
    brought = desk.bring(
        server.serve("/a.png", content(PNG)),
        "faces/b.png",
        store.put("c.png", OTHER),
        data_uri(PNG),
        base64.b64encode(OTHER).decode(),
        server.serve("/d.png", content(OTHER)),
    )
    assert list(brought.values()) == [PNG, OTHER, OTHER, PNG, OTHER, OTHER]
    assert [name.removeprefix("tok-") for name in brought] == [
        "0-a.png", "1-b.png", "2-c.png", "3-inline.png", "4-inline.png", "5-d.png",
    ]  # fmt: skip


def test_every_problem_is_told_with_its_own_code(server: MediaServer, store: Bucket, desk: Desk) -> None:
    desk.s3 = S3Store.of(store.settings())
    failure = desk.refusal(
        server.serve("/gone.png", status(404)),
        server.serve("/fine.png", content(PNG)),
        "http://10.0.0.1/x.png",
        "job_outputs/gone.png",
        f"s3://{store.name}/gone.png",
        server.serve("/page", content(PAGE)),
        "data:image/png;base64,!",
    )
    assert [problem.at for problem in failure.problems] == [f"params.{number}" for number in (0, 2, 3, 4, 5, 6)]
    assert codes(failure) == [
        "input_unreachable", "input_rejected", "input_unreachable",
        "input_unreachable", "input_rejected", "input_rejected",
    ]  # fmt: skip
    assert failure.code == Code.INPUT_UNREACHABLE
    assert not failure.retryable


# --- a job that has to stop


def test_a_cancelled_job_stops_fetching(server: MediaServer, desk: Desk) -> None:
    allowance = Allowance.of(60.0)

    def cancelling(exchange: Exchange) -> None:
        allowance.cancelled.set()
        exchange.wait_until_left()

    urls = [server.serve("/a.png", content(PNG)), server.serve("/b.png", cancelling)]
    assert desk.refusal(*urls, data_uri(PNG), allowance=allowance).code == Code.CANCELLED
    server.wait_until_left()


def test_a_cancelled_job_does_not_wait_for_a_store(desk: Desk) -> None:
    with raw_store() as silent:
        silent.answer = lambda _: Answer(body=PNG, length=10**6, stalls=True)
        desk.s3 = S3Store.of(s3_settings(silent.url, "b"))
        allowance = Allowance.of(60.0)

        def cancel() -> None:
            silent.asked.wait(WAIT_S)
            allowance.cancelled.set()

        thread = threading.Thread(target=cancel)
        thread.start()
        assert desk.refusal("s3://b/x.png", allowance=allowance).code == Code.CANCELLED
        thread.join()


def test_a_job_whose_deadline_passes_does_not_wait_for_a_store(desk: Desk) -> None:
    with raw_store() as silent:
        silent.answer = lambda _: Answer(body=PNG, length=10**6, stalls=True)
        desk.s3 = S3Store.of(s3_settings(silent.url, "b"))
        assert desk.refusal("s3://b/x.png", allowance=Allowance.of(0.3)).code == Code.TIMEOUT


def test_a_store_that_takes_too_long_is_given_up(desk: Desk) -> None:
    with raw_store() as silent:
        silent.answer = lambda _: Answer(body=PNG, length=10**6, stalls=True)
        desk.s3 = S3Store.of(s3_settings(silent.url, "b"))
        failure = desk.refusal("s3://b/x.png", "job_outputs/gone.png", timeout_s=0.3)
    assert codes(failure) == ["input_unreachable", "input_unreachable"]
    assert "was not fetched within 0.3 s" in failure.message
    assert failure.retryable


def test_a_deadline_ends_the_fetching(server: MediaServer, desk: Desk) -> None:
    allowance = Allowance(Deadline.after(0.3), threading.Event())
    failure = desk.refusal(server.serve("/x", never), allowance=allowance)
    assert (failure.code, failure.retryable) == (Code.TIMEOUT, True)
    server.wait_until_left()


# --- through whole jobs


@pytest.fixture
def fetching_worker(engine: RehearsalEngine, volume: Path) -> Iterator[Worker]:
    files = LocalFiles(folders_of(engine.base_directory, []))
    with assembled(engine.url, volume, files, MORPHEUS_MEDIA_PRIVATE_HOSTS="127.0.0.1") as made:
        yield made


def run(worker: Worker, job_input: dict[str, Any], job_id: str = "job-1") -> dict[str, Any]:
    return run_job({"id": job_id, "input": job_input}, worker)


def inverting(image: str, **more: Any) -> dict[str, Any]:
    return graph_job(INVERT_GRAPH | {"1": {"class_type": "LoadImage", "inputs": {"image": image}}}, **more)


def inverted(answer: dict[str, Any]) -> tuple[int, ...]:
    """The first pixel of the picture that came of it."""
    [output] = succeeded(answer).outputs
    with Image.open(output.path or "") as picture:
        pixel = picture.convert("RGB").getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return tuple(int(value) for value in pixel)


IN_A_GRAPH: dict[str, Callable[[str], dict[str, Any]]] = {
    "in its loader": lambda url: inverting(url),
    "among its pictures": lambda url: inverting("in.png", images=[{"name": "in.png", "image": url}]),
    "in a template": lambda url: {"workflow_name": "upscale", "params": {"image": url}},
}


@pytest.mark.parametrize("made", list(IN_A_GRAPH.values())[:2], ids=list(IN_A_GRAPH)[:2])
def test_a_graph_takes_a_url(
    fetching_worker: Worker, server: MediaServer, engine: RehearsalEngine, made: Callable[[str], dict[str, Any]]
) -> None:
    answer = run(fetching_worker, made(server.serve("/face", content(PNG))))
    assert inverted(answer) == (55, 225, 225)
    assert not files_below(engine.base_directory / "input")


def test_a_template_takes_a_url_and_shows_it_without_its_signature(
    fetching_worker: Worker, server: MediaServer, engine: RehearsalEngine
) -> None:
    url = server.serve("/face.png", content(PNG))
    answer = run(fetching_worker, IN_A_GRAPH["in a template"](f"{url}?X-Amz-Signature=geheim"))
    assert succeeded(answer).params["image"] == f"{url}?…"
    assert "geheim" not in str(answer)
    assert not files_below(engine.base_directory / "input")


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,", "data:image/png,", "image/png;base64,"])
def test_a_graphs_pictures_have_any_prefix_or_none(fetching_worker: Worker, prefix: str) -> None:
    image = prefix + base64.b64encode(PNG).decode()
    answer = run(fetching_worker, inverting("in.png", images=[{"name": "in.png", "image": image}]))
    assert inverted(answer) == (55, 225, 225)


def test_two_jobs_that_send_one_name_never_see_each_others(fetching_worker: Worker, server: MediaServer) -> None:
    """The second job runs to its end while the first waits for its picture."""
    go_on = threading.Event()
    slow = server.serve("/slow.png", held(go_on, content(PNG)))
    answers: dict[str, dict[str, Any]] = {}

    def first() -> None:
        job = inverting("input_image.png", images=[{"name": "input_image.png", "image": slow}])
        answers["first"] = run(fetching_worker, job, "first")

    thread = threading.Thread(target=first)
    thread.start()
    try:
        server.wait_for_requests(1)
        job = inverting("input_image.png", images=[{"name": "input_image.png", "image": data_uri(OTHER)}])
        assert inverted(run(fetching_worker, job, "second")) == (245, 55, 225)
    finally:
        go_on.set()
        thread.join(WAIT_S)
    assert inverted(answers["first"]) == (55, 225, 225)


@pytest.mark.parametrize("made", IN_A_GRAPH.values(), ids=IN_A_GRAPH)
def test_a_job_whose_picture_cannot_be_had_leaves_nothing(
    fetching_worker: Worker,
    server: MediaServer,
    engine: RehearsalEngine,
    volume: Path,
    made: Callable[[str], dict[str, Any]],
) -> None:
    failure = failed(run(fetching_worker, made(server.serve("/gone", status(404)))))
    assert failure.code == Code.INPUT_UNREACHABLE
    assert not files_below(engine.base_directory / "input", engine.base_directory / "output", volume / "job_outputs")


def test_a_comfyui_elsewhere_gets_what_was_fetched(
    engine: RehearsalEngine, volume: Path, server: MediaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through a file of the worker's own, of which nothing is left."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    with assembled(engine.url, volume, None, MORPHEUS_MEDIA_PRIVATE_HOSTS="127.0.0.1") as worker:
        assert inverted(run(worker, inverting(server.serve("/face", content(PNG))), "first")) == (55, 225, 225)
        assert inverted(run(worker, inverting(data_uri(OTHER)), "second")) == (245, 55, 225)
        failed(run(worker, inverting(server.serve("/page", content(PAGE))), "third"))
    assert not list((tmp_path / "tmp").iterdir())


def test_a_loader_that_does_not_say_so_takes_a_url_too(fetching_worker: Worker, server: MediaServer) -> None:
    """Whatever is a choice and gets a URL that is none of its choices, as with the loaders of some node packs."""
    inputs = {"samples": ["0", 0], "width": 64, "height": 64, "crop": "disabled"}
    inputs["upscale_method"] = server.serve("/gone", status(404))
    graph: dict[str, Any] = {"1": {"class_type": "LatentUpscale", "inputs": inputs}}
    graph["0"] = {"class_type": "EmptyLatentImage", "inputs": {"width": 32, "height": 32, "batch_size": 1}}
    graph["2"] = {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}}
    failure = failed(run(fetching_worker, graph_job(graph)))
    assert failure.code == Code.INPUT_UNREACHABLE
    assert "node 1 (LatentUpscale) input upscale_method" in failure.error

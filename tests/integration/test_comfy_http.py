"""ComfyUI's routes over real sockets, and every way in which an answer can fail to come."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from morpheus_worker.comfy.files import RemoteFiles
from morpheus_worker.comfy.history import End, FileRef
from morpheus_worker.comfy.http import Accepted, ComfyHttp, NotAnsweringError, OutputMissingError, Refusal
from morpheus_worker.comfy.tracker import Place
from morpheus_worker.errors import Code, MorpheusError
from tests.integration.peer import OBJECT_INFO, Fault, Peer, answer, cut, graph, half


@pytest.fixture
def peer() -> Iterator[Peer]:
    with Peer() as peer:
        yield peer


@pytest.fixture
def http(peer: Peer) -> Iterator[ComfyHttp]:
    http = ComfyHttp(peer.url)
    yield http
    http.close()


def submit(http: ComfyHttp, prompt_id: str = "p", part: str = "success") -> Accepted | Refusal:
    return http.submit(graph(part), prompt_id=prompt_id, client_id="c", extra_data={})


CALLS: dict[str, tuple[str, Callable[[ComfyHttp], object]]] = {
    "submit": ("POST /prompt", submit),
    "history": ("GET /history", lambda http: http.history("p")),
    "place": ("GET /queue", lambda http: http.place("p")),
    "delete_queued": ("POST /queue", lambda http: http.delete_queued("p")),
    "interrupt": ("POST /interrupt", lambda http: http.interrupt("p")),
    "object_info": ("GET /object_info", lambda http: http.object_info()),
    "system_stats": ("GET /system_stats", lambda http: http.system_stats()),
    "upload": ("POST /upload/image", lambda http: http.upload("x.png", io.BytesIO(b"abc"))),
    "view": ("GET /view", lambda http: whole(http, FileRef("9", "x.png", "", "output"))),
}


def whole(http: ComfyHttp, ref: FileRef) -> bytes:
    with http.view(ref) as chunks:
        return b"".join(chunks)


# --- the routes


def test_a_prompt_is_queued_under_the_id_given(peer: Peer, http: ComfyHttp) -> None:
    answered = http.submit(graph("hold"), prompt_id="p", client_id="c", extra_data={"api_key_comfy_org": "k"})
    assert answered == Accepted("p", {})
    assert peer.bodies("POST /prompt") == [
        {"prompt": graph("hold"), "prompt_id": "p", "client_id": "c", "extra_data": {"api_key_comfy_org": "k"}}
    ]


def test_a_refused_prompt_is_an_answer(peer: Peer, http: ComfyHttp) -> None:
    peer.refusal = {"error": {"type": "x", "message": "no"}, "node_errors": {"1": {"errors": []}}}
    assert submit(http) == Refusal({"type": "x", "message": "no"}, {"1": {"errors": []}})


def test_a_refusal_without_node_errors_comes_with_an_empty_list(peer: Peer, http: ComfyHttp) -> None:
    peer.refusal = {"error": {"type": "prompt_no_outputs", "message": "Prompt has no outputs"}, "node_errors": []}
    assert submit(http) == Refusal({"type": "prompt_no_outputs", "message": "Prompt has no outputs"}, {})


def test_outputs_that_will_be_ignored_come_with_the_acceptance(peer: Peer, http: ComfyHttp) -> None:
    peer.node_errors = {"1": {"errors": []}}
    assert submit(http) == Accepted("p", {"1": {"errors": []}})


def test_the_place_of_a_prompt(peer: Peer, http: ComfyHttp) -> None:
    assert http.place("p") == Place.NOWHERE
    submit(http, "p", "hold")
    submit(http, "q", "success")
    peer.wait_for(lambda: peer.running == "hold")
    assert (http.place("p"), http.place("q"), http.place("r")) == (Place.RUNNING, Place.PENDING, Place.NOWHERE)
    http.delete_queued("p")
    http.delete_queued("q")
    assert (http.place("p"), http.place("q")) == (Place.RUNNING, Place.NOWHERE)


def test_only_the_prompt_named_is_interrupted(peer: Peer, http: ComfyHttp) -> None:
    submit(http, "p", "hold")
    peer.wait_for(lambda: peer.running == "hold")
    http.interrupt("q")
    assert http.place("p") == Place.RUNNING
    http.interrupt("p")
    peer.wait_for(lambda: peer.idle)
    entry = http.history("p")
    assert entry is not None
    assert entry.end == End.INTERRUPTED


def test_the_history_of_a_prompt(peer: Peer, http: ComfyHttp) -> None:
    assert http.history("p") is None
    submit(http)
    peer.wait_for(lambda: peer.idle and peer.submitted)
    entry = http.history("p")
    assert entry is not None
    assert (entry.prompt_id, entry.end) == ("p", End.SUCCESS)
    assert entry.outputs["1"]["images"][0]["filename"] == "x.png"


def test_descriptions(http: ComfyHttp) -> None:
    assert http.object_info() == OBJECT_INFO
    assert http.system_stats()["system"]["comfyui_version"] == "0.3.64"


def test_a_base_url_may_end_in_a_slash(peer: Peer) -> None:
    http = ComfyHttp(peer.url + "/")
    assert http.place("p") == Place.NOWHERE
    http.close()


@pytest.mark.parametrize(
    "ref",
    [
        FileRef("9", "x.png", "", "output"),
        FileRef("9", "ein Bild & mehr? #1 100%.png", "sub folder/ü", "temp"),
        FileRef("9", "画像+🎨.png", "a/b/c", "output"),
    ],
)
def test_an_output_file_arrives_whole(peer: Peer, http: ComfyHttp, ref: FileRef) -> None:
    content = bytes(range(256)) * 12_000
    peer.files[(ref.folder, ref.subfolder, ref.filename)] = content
    assert whole(http, ref) == content


def test_an_output_file_that_is_not_there(http: ComfyHttp) -> None:
    with pytest.raises(OutputMissingError, match=r"node 9 reported the file 'sub/x\.png'") as failed:
        whole(http, FileRef("9", "x.png", "sub", "output"))
    assert failed.value.code == Code.NO_OUTPUT


@pytest.mark.parametrize("status", [400, 403])
def test_an_output_file_that_comfyui_will_not_show_is_not_there(peer: Peer, http: ComfyHttp, status: int) -> None:
    """ComfyUI answers 400 to a name with '..' in it and 403 to a folder outside of its own."""
    peer.on("GET /view", answer(status))
    with pytest.raises(OutputMissingError):
        whole(http, FileRef("9", "x.png", "../..", "output"))


@pytest.mark.parametrize("size", [0, 3, 3_000_000])
def test_an_input_file_is_taken(peer: Peer, http: ComfyHttp, size: int) -> None:
    content = b"\r\n--" + bytes(size)
    assert http.upload("x.png", io.BytesIO(content)) == "x.png"
    assert http.upload("y.bin", io.BytesIO(content), subfolder="job-7") == "job-7/y.bin"
    assert peer.uploads == [("", "x.png", content), ("job-7", "y.bin", content)]


def test_an_upload_begins_where_the_file_stands(peer: Peer, http: ComfyHttp) -> None:
    stream = io.BytesIO(b"skipped and sent")
    stream.seek(12)
    http.upload("x.bin", stream)
    assert peer.uploads[0][2] == b"sent"


@pytest.mark.parametrize(
    "name",
    [
        "ein Bild.png",
        "画像 🎨.png",
        'so "called".png',
        "semi;colon.png",
        "100% 50%20.png",
        "back\\slash.png",
        'end\\""',
    ],
)
def test_an_input_file_keeps_its_name(peer: Peer, http: ComfyHttp, name: str) -> None:
    http.upload(name, io.BytesIO(b"abc"))
    assert [(subfolder, content) for subfolder, _, content in peer.uploads] == [("", b"abc")]
    assert peer.uploads[0][1] == name


# --- the folders of a ComfyUI whose disk is elsewhere


def test_inputs_reach_a_comfyui_elsewhere(peer: Peer, http: ComfyHttp, tmp_path: Path) -> None:
    files = RemoteFiles(http)
    (tmp_path / "x.png").write_bytes(b"a file")
    (tmp_path / "faces" / "deeper").mkdir(parents=True)
    (tmp_path / "faces" / "b.png").write_bytes(b"b")
    (tmp_path / "faces" / "a.png").write_bytes(b"a")
    reserved = files.reserve("tok-0-inline.png")
    reserved.write_bytes(b"inline")
    assert files.adopt("tok-0-inline.png", reserved) == "tok-0-inline.png"
    assert not reserved.exists()
    assert files.put("tok-1-x.png", tmp_path / "x.png") == "tok-1-x.png"
    assert files.put("tok-2-faces", tmp_path / "faces") == "tok-2-faces"
    assert peer.uploads == [
        ("", "tok-0-inline.png", b"inline"),
        ("", "tok-1-x.png", b"a file"),
        ("tok-2-faces", "a.png", b"a"),
        ("tok-2-faces", "b.png", b"b"),
    ]
    files.remove("tok-0-inline.png")
    files.discard("tok")
    assert (tmp_path / "x.png").read_bytes() == b"a file"


def test_a_file_of_a_folder_cannot_carry_a_header_in_its_name(peer: Peer, http: ComfyHttp, tmp_path: Path) -> None:
    (tmp_path / "x\r\nX-Odd: 1.png").write_bytes(b"abc")
    RemoteFiles(http).put("tok-0-folder", tmp_path)
    [(subfolder, name, content)] = peer.uploads
    assert (subfolder, content) == ("tok-0-folder", b"abc")
    assert not {"\r", "\n"} & set(name)


def test_outputs_come_from_a_comfyui_elsewhere(peer: Peer, http: ComfyHttp) -> None:
    peer.files[("output", "tok", "x.png")] = b"abc"
    with RemoteFiles(http).origin(FileRef("9", "x.png", "tok", "output")) as origin:
        assert not isinstance(origin, Path)
        assert b"".join(origin) == b"abc"


# --- connections


def test_one_connection_serves_every_call(peer: Peer, http: ComfyHttp) -> None:
    peer.files[("output", "", "x.png")] = b"abc"
    for _ in range(5):
        for _, call in CALLS.values():
            call(http)
    assert len(peer.requests) == 5 * len(CALLS)
    assert len(peer.http_connections) == 1


def test_a_refused_or_missing_answer_does_not_cost_the_connection(peer: Peer, http: ComfyHttp) -> None:
    peer.on("POST /prompt", answer(400, "{}"))
    peer.on("GET /queue", answer(500), answer(200, "no json"))
    submit(http)
    for _ in range(2):
        with pytest.raises(NotAnsweringError):
            http.place("p")
    http.place("p")
    assert len(peer.http_connections) == 1


def test_several_threads_share_the_session(peer: Peer, http: ComfyHttp) -> None:
    with ThreadPoolExecutor(4) as threads:
        prompts = [f"p{number}" for number in range(40)]
        answers = list(threads.map(lambda prompt_id: submit(http, prompt_id), prompts))
    assert answers == [Accepted(prompt_id, {}) for prompt_id in prompts]
    assert len(peer.http_connections) <= 8


def test_a_proxy_of_the_machine_is_none_of_its_business(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    http = ComfyHttp(peer.url)
    assert http.place("p") == Place.NOWHERE
    http.close()


# --- no answer


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fault", [cut, half, answer(500), answer(503, "{}")], ids=["cut", "half", "500", "503"])
def test_no_answer_is_the_moments_fault_and_the_next_call_goes_through(
    peer: Peer, http: ComfyHttp, call: str, fault: Fault
) -> None:
    route, do = CALLS[call]
    peer.files[("output", "", "x.png")] = b"abc"
    do(http)
    peer.on(route, fault)
    with pytest.raises(NotAnsweringError) as failed:
        do(http)
    assert failed.value.code == Code.CONNECTION
    assert failed.value.retryable
    assert failed.value.message.startswith("ComfyUI did not answer while ")
    assert peer.url not in failed.value.message
    do(http)


@pytest.mark.parametrize("call", ["submit", "history", "place", "object_info", "system_stats", "upload"])
@pytest.mark.parametrize("body", ["", "no json", "[]", "null", '"text"', '{"cut": '])
def test_an_answer_that_is_no_json_object_is_none(peer: Peer, http: ComfyHttp, call: str, body: str) -> None:
    route, do = CALLS[call]
    peer.on(route, answer(200, body))
    with pytest.raises(NotAnsweringError, match=r"not JSON|not a JSON object"):
        do(http)


@pytest.mark.parametrize("body", ["{}", '{"queue_running": null, "queue_pending": [7, [], [1], {"a": 1}]}'])
def test_a_queue_that_says_little_holds_nothing(peer: Peer, http: ComfyHttp, body: str) -> None:
    peer.on("GET /queue", answer(200, body))
    assert http.place("p") == Place.NOWHERE


@pytest.mark.parametrize("body", ['{"p": null}', '{"q": {}}', '{"p": []}'])
def test_a_history_that_says_little_has_no_entry(peer: Peer, http: ComfyHttp, body: str) -> None:
    peer.on("GET /history", answer(200, body))
    assert http.history("p") is None


@pytest.mark.parametrize("status", [401, 403, 404, 405, 413])
@pytest.mark.parametrize("call", ["submit", "place", "upload"])
def test_an_answer_that_will_be_the_same_again_is_not_worth_a_retry(
    peer: Peer, http: ComfyHttp, call: str, status: int
) -> None:
    """ComfyUI answers 413 to a prompt that is too large, 403 to a foreign origin, 404 where it lacks a route."""
    route, do = CALLS[call]
    peer.on(route, answer(status))
    with pytest.raises(MorpheusError, match=str(status)) as failed:
        do(http)
    assert not isinstance(failed.value, NotAnsweringError)
    assert not failed.value.retryable


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    http = ComfyHttp(f"http://127.0.0.1:{port}")
    with pytest.raises(NotAnsweringError, match="no connection"):
        http.place("p")
    http.close()


def test_a_file_that_breaks_off_is_never_taken_for_whole(peer: Peer, http: ComfyHttp) -> None:
    peer.on("GET /view", half)
    received: list[Any] = []
    with pytest.raises(NotAnsweringError), http.view(FileRef("9", "x.png", "", "output")) as chunks:
        received.extend(chunks)

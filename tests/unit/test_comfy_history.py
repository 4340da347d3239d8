"""What a history entry says: how the prompt ended, and what its nodes reported."""

from __future__ import annotations

from typing import Any

import pytest

from morpheus_worker.comfy.history import End, FileRef, TextRef, kind_of, media_type_of, read_entry, reported
from morpheus_worker.comfy.messages import ExecutionError

START = ["execution_start", {"prompt_id": "p", "timestamp": 1}]
RAISED = [
    "execution_error",
    {
        "prompt_id": "p",
        "node_id": "3",
        "node_type": "KSampler",
        "executed": ["1"],
        "exception_message": "no",
        "exception_type": "RuntimeError",
        "traceback": ["  File\n"],
        "current_inputs": {},
        "current_outputs": [],
        "timestamp": 1,
    },
]
INTERRUPTED = ["execution_interrupted", {"prompt_id": "p", "node_id": "3", "node_type": "KSampler", "executed": []}]


def entry(status_str: str, *messages: list[Any], outputs: object = None) -> dict[str, Any]:
    return {
        "prompt": [0, "p", {}, {}, []],
        "outputs": outputs if outputs is not None else {},
        "status": {"status_str": status_str, "completed": status_str == "success", "messages": [START, *messages]},
    }


def image(filename: str, subfolder: str = "", kind: str = "output") -> dict[str, str]:
    return {"filename": filename, "subfolder": subfolder, "type": kind}


def names(outputs: dict[str, Any]) -> list[str]:
    return [ref.filename for ref in reported(outputs).files]


# --- how it ended


def test_success() -> None:
    outputs = {"9": {"images": [image("x.png")]}}
    read = read_entry("p", entry("success", ["execution_success", {"prompt_id": "p"}], outputs=outputs))
    assert (read.prompt_id, read.end, read.outputs, read.error) == ("p", End.SUCCESS, outputs, None)


def test_a_node_that_raised() -> None:
    read = read_entry("p", entry("error", RAISED))
    assert read.end == End.ERROR
    assert read.error == ExecutionError("p", "3", "KSampler", "RuntimeError", "no", ("  File\n",), ("1",))


def test_a_failure_is_a_failure_whatever_the_status_says_and_whatever_ran_before() -> None:
    """A graph that cannot even be staged for execution (a cycle, say) is filed with the success of the one before."""
    outputs = {"1": {"images": [image("before.png", kind="temp")]}}
    assert read_entry("p", entry("success", RAISED, outputs=outputs)).end == End.ERROR


def test_an_interrupt_is_filed_as_an_error() -> None:
    assert read_entry("p", entry("error", INTERRUPTED)).end == End.INTERRUPTED


@pytest.mark.parametrize(
    "raw",
    [
        {"status": {"status_str": "error"}},
        {"status": {"status_str": "error", "messages": None}},
        {"status": {"status_str": "error", "messages": [["execution_error", {}]]}, "outputs": {}},
        {"status": {"status_str": "error", "messages": ["odd", ["execution_error"], [1, 2], None]}, "outputs": None},
    ],
)
def test_an_error_that_does_not_say_why_is_still_one(raw: dict[str, Any]) -> None:
    read = read_entry("p", raw)
    assert (read.end, read.error, read.outputs) == (End.ERROR, None, {})


@pytest.mark.parametrize("raw", [{}, {"status": None}, {"outputs": {"9": {}}, "status": None}])
def test_an_entry_without_a_status_is_a_success(raw: dict[str, Any]) -> None:
    """ComfyUI before 0.2 filed none."""
    assert read_entry("p", raw).end == End.SUCCESS


# --- what the nodes reported


@pytest.mark.parametrize(
    ("key", "item", "kind", "media_type"),
    [
        ("images", image("x_00001_.png"), "image", "image/png"),
        ("images", image("x_00001_.webp"), "image", "image/webp"),
        ("gifs", {**image("x.mp4"), "format": "video/h264-mp4", "frame_rate": 8.0}, "video", "video/mp4"),
        ("images", image("x_00001_.mp4", "video"), "video", "video/mp4"),
        ("video", image("x.WEBM"), "video", "video/webm"),
        ("audio", image("x.flac", "audio"), "audio", "audio/flac"),
        ("audio", image("x.opus"), "audio", "audio/opus"),
        ("3d", image("x.glb", "mesh"), "model3d", "model/gltf-binary"),
        ("files", image("x.txt"), "text", "text/plain"),
        ("files", image("x.json"), "file", "application/json"),
        ("files", image("x.unheard-of"), "file", "application/octet-stream"),
        ("files", image("x"), "file", "application/octet-stream"),
        ("a key nobody has seen yet", image("x.png"), "image", "image/png"),
    ],
)
def test_a_file_whatever_the_key(key: str, item: dict[str, Any], kind: str, media_type: str) -> None:
    made = reported({"9": {key: [item]}})
    assert made.files == (FileRef("9", item["filename"], item["subfolder"], "output"),)
    assert (made.files[0].kind, made.files[0].media_type) == (kind, media_type)
    assert made
    assert made.texts == ()


def test_files_come_in_the_nodes_order_each_once() -> None:
    outputs = {
        "10": {"images": [image("b.png"), image("a.png"), image("b.png")]},
        "9": {"images": [image("c.png")], "gifs": [image("d.mp4")], "animated": [True]},
    }
    assert names(outputs) == ["b.png", "a.png", "c.png", "d.mp4"]


def test_a_file_that_two_nodes_report_is_the_first_ones() -> None:
    """A node that shows what another one saved reports the same file."""
    made = reported(
        {"8": {"gifs": [image("x.mp4")]}, "7": {"images": [image("y.png")]}, "9": {"video": [image("x.mp4")]}}
    )
    assert made.files == (FileRef("8", "x.mp4", "", "output"), FileRef("7", "y.png", "", "output"))


def test_previews_count_only_where_nothing_is_saved() -> None:
    previews = {"8": {"images": [image("p.png", kind="temp")]}}
    saved = {"9": {"images": [image("s.png")]}}
    assert names(previews) == ["p.png"]
    assert names(previews | saved) == ["s.png"]
    assert reported(previews).files[0].folder == "temp"


def test_a_loaders_own_preview_is_no_output() -> None:
    made = reported({"1": {"images": [image("mine.png", kind="input")]}})
    assert not made


def test_texts() -> None:
    made = reported({"5": {"text": ["a cat", "a dog"]}, "6": {"string": ["x"]}, "9": {"images": [image("x.png")]}})
    assert made.texts == (TextRef("5", "a cat"), TextRef("5", "a dog"), TextRef("6", "x"))
    assert len(made.files) == 1


def test_a_file_without_type_or_subfolder_is_in_the_output_folder() -> None:
    assert reported({"9": {"images": [{"filename": "x.png"}]}}).files == (FileRef("9", "x.png", "", "output"),)


@pytest.mark.parametrize(
    "output",
    [
        None,
        [],
        "x",
        {"images": None},
        {"images": {}},
        {"images": [None, 7, [], {}, {"filename": None}, {"filename": ""}, {"filename": 7}]},
        {"animated": [True]},
        {"a_latent": [[1.0, 2.0]]},
    ],
)
def test_what_is_neither_file_nor_text_is_passed_over(output: object) -> None:
    assert not reported({"9": output})


@pytest.mark.parametrize(
    ("filename", "media_type"),
    [
        ("x.png", "image/png"),
        ("x.JPG", "image/jpeg"),
        ("x.jpeg", "image/jpeg"),
        ("x.gif", "image/gif"),
        ("x.avif", "image/avif"),
        ("x.exr", "image/x-exr"),
        ("x.mkv", "video/x-matroska"),
        ("x.mov", "video/quicktime"),
        ("x.mp3", "audio/mpeg"),
        ("x.wav", "audio/wav"),
        ("x.stl", "model/stl"),
        ("x.tar.gz", "application/octet-stream"),
        (".png", "application/octet-stream"),
    ],
)
def test_the_media_type_of_a_name(filename: str, media_type: str) -> None:
    assert media_type_of(filename) == media_type


def test_the_kind_of_a_media_type() -> None:
    kinds = {kind_of(f"{group}/x") for group in ("image", "video", "audio", "model", "text", "application", "")}
    assert kinds == {"image", "video", "audio", "model3d", "text", "file"}

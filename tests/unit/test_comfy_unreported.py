from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from morpheus_worker.comfy.history import FileRef, Reported, TextRef
from morpheus_worker.comfy.unreported import guesses, with_unreported


def saver(prefix: Any) -> dict[str, Any]:
    return {"class_type": "CheckpointSave", "inputs": {"filename_prefix": prefix, "model": ["9", 0]}}


def found(*paths: str) -> list[PurePosixPath]:
    return [PurePosixPath(path) for path in paths]


NOTHING = Reported((), ())


def test_a_silent_node_s_files_are_found_by_its_prefix() -> None:
    graph = {"2": saver("token/b"), "1": saver("token/sub/a"), "9": {"class_type": "Loader", "inputs": {}}}
    made = with_unreported(NOTHING, graph, {}, found("token/sub/a_00001_.pt", "token/b_00002_.pt", "token/b_00001_.pt"))
    assert made.files == (
        FileRef("2", "b_00001_.pt", "token", "output"),
        FileRef("2", "b_00002_.pt", "token", "output"),
        FileRef("1", "a_00001_.pt", "token/sub", "output"),
    )
    assert {ref.key for ref in made.files} == {"files"}


def test_a_node_that_reports_is_believed() -> None:
    reported = Reported((FileRef("1", "a.mp4", "token", "output"),), ())
    outputs = {"1": {"gifs": [{"filename": "a.mp4"}]}}
    assert with_unreported(reported, {"1": saver("token/a")}, outputs, found("token/a.png")) is reported


def test_an_empty_report_is_none() -> None:
    made = with_unreported(NOTHING, {"1": saver("token/a")}, {"1": {}}, found("token/a.png"))
    assert [ref.filename for ref in made.files] == ["a.png"]


def test_what_another_node_reported_is_not_claimed_again() -> None:
    """Savers of one prefix, ComfyUI's own default say, of which one reports and the other does not."""
    reported = Reported((FileRef("1", "x_00001_.png", "token", "output"),), ())
    graph, outputs = {"1": saver("token/x"), "2": saver("token/x")}, {"1": {"images": [{"filename": "x_00001_.png"}]}}
    assert with_unreported(reported, graph, outputs, found("token/x_00001_.png")) is reported
    dated = {"1": saver("token/x"), "2": saver("token/%date%/y")}
    assert with_unreported(reported, dated, outputs, found("token/x_00001_.png", "token/x_00001_.json")) is reported


def test_a_file_is_the_node_s_whose_prefix_says_most() -> None:
    graph = {"1": saver("token/a"), "2": saver("token/ab")}
    made = with_unreported(NOTHING, graph, {}, found("token/a_00001_.pt", "token/ab_00001_.pt"))
    assert [(ref.node_id, ref.filename) for ref in made.files] == [("1", "a_00001_.pt"), ("2", "ab_00001_.pt")]


def test_what_is_nobody_s_is_left() -> None:
    graph = {"1": saver("token/a"), "2": saver(["1", 0]), "3": {"class_type": "X", "inputs": {}}}
    assert with_unreported(NOTHING, graph, {}, found("token/other.png")) is NOTHING


def test_a_date_in_the_prefix_ends_what_is_known_of_the_name() -> None:
    made = with_unreported(NOTHING, {"1": saver("token/%year%/a")}, {}, found("token/2031/a_00001_.pt"))
    assert made.files == (FileRef("1", "a_00001_.pt", "token/2031", "output"),)


def test_previews_give_way_to_what_was_saved() -> None:
    preview = FileRef("2", "p.png", "", "temp")
    made = with_unreported(
        Reported((preview,), (TextRef("3", "hello"),)),
        {"1": saver("token/a")},
        {"2": {"images": [1]}},
        found("token/a.pt"),
    )
    assert [ref.filename for ref in made.files] == ["a.pt"]
    assert made.unused == (preview,)
    assert made.texts == (TextRef("3", "hello"),)


def test_of_two_with_one_prefix_the_silent_one_made_what_nobody_reported() -> None:
    graph, outputs = {"1": saver("token/x"), "2": saver("token/x")}, {"1": {"images": [{"filename": "x_00001_.png"}]}}
    reported = Reported((FileRef("1", "x_00001_.png", "token", "output"),), ())
    made = with_unreported(reported, graph, outputs, found("token/x_00001_.png", "token/x_00001_.safetensors"))
    assert [(ref.node_id, ref.filename) for ref in made.files] == [("1", "x_00001_.png"), ("2", "x_00001_.safetensors")]


def test_where_nothing_can_be_listed_known_savers_names_are_guessed() -> None:
    graph = {"1": saver("token/a"), "2": saver("token/%date%/b"), "3": {**saver("token/c"), "class_type": "SaveImage"}}
    assert list(guesses(graph, {})) == found("token/a_00001_.safetensors")
    assert list(guesses(graph, {"1": {"text": ["saved"]}})) == []


def test_savers_of_one_prefix_are_guessed_one_after_another() -> None:
    graph = {"1": saver("token/a"), "2": saver("token/b"), "3": saver("token/a")}
    names = found("token/a_00001_.safetensors", "token/a_00002_.safetensors", "token/b_00001_.safetensors")
    assert set(guesses(graph, {})) == set(names)
    made = with_unreported(NOTHING, graph, {}, names + names)
    assert [(ref.node_id, ref.filename) for ref in made.files] == [
        ("1", "a_00001_.safetensors"),
        ("2", "b_00001_.safetensors"),
        ("3", "a_00002_.safetensors"),
    ]


def test_a_saver_behind_others_of_its_prefix_counts_on_from_theirs() -> None:
    graph = {"1": {**saver("token/a"), "class_type": "SaveImage"}, "2": saver("token/a")}
    outputs = {"1": {"images": [{"filename": "a_00001_.png"}, {"filename": "a_00002_.png"}]}}
    assert PurePosixPath("token/a_00003_.safetensors") in set(guesses(graph, outputs))

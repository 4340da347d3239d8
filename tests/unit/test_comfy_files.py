"""Files into ComfyUI's own folders: linked, or written where they stay."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from morpheus_worker.comfy.files import LocalFiles
from morpheus_worker.comfy.launch import ComfyFolders
from morpheus_worker.errors import Code, MorpheusError


@pytest.fixture
def folders(tmp_path: Path) -> ComfyFolders:
    return ComfyFolders(**{name: tmp_path / "comfy" / name for name in ComfyFolders.__slots__})


def test_a_file_is_linked_and_stays_where_it_is(folders: ComfyFolders, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"x")
    files = LocalFiles(folders)
    assert files.put("tok-x.png", tmp_path / "x.png") == "tok-x.png"
    assert os.readlink(folders.input / "tok-x.png") == str(tmp_path / "x.png")
    files.remove("tok-x.png")
    assert (tmp_path / "x.png").read_bytes() == b"x"
    assert not list(folders.input.iterdir())


def test_what_is_written_to_a_reserved_path_is_not_copied(folders: ComfyFolders) -> None:
    files = LocalFiles(folders)
    path = files.reserve("tok-0.part")
    assert not path.exists()
    path.write_bytes(b"abc")
    written = path.stat().st_ino
    assert files.adopt("tok-0-x.png", path) == "tok-0-x.png"
    assert [(entry.name, entry.stat().st_ino) for entry in folders.input.iterdir()] == [("tok-0-x.png", written)]
    assert files.absolute("tok-0-x.png") == str(folders.input / "tok-0-x.png")
    files.remove("tok-0-x.png")
    assert not list(folders.input.iterdir())


def test_what_was_taken_away_already_does_not_hinder(folders: ComfyFolders) -> None:
    LocalFiles(folders).remove("tok-0-x.png")


def test_an_input_folder_that_cannot_be_used_is_said(folders: ComfyFolders, tmp_path: Path) -> None:
    folders.input.parent.mkdir(parents=True)
    folders.input.write_bytes(b"in the way")
    files = LocalFiles(folders)
    for attempt in (
        lambda: files.put("x", tmp_path),
        lambda: files.reserve("x"),
        lambda: files.adopt("x", tmp_path / "x"),
    ):
        with pytest.raises(MorpheusError, match="input folder") as failed:
            attempt()
        assert (failed.value.code, failed.value.retryable) == (Code.INTERNAL, True)

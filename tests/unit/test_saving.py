from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from morpheus_worker.comfy.files import Origin
from morpheus_worker.comfy.history import FileRef
from morpheus_worker.deadlines import Allowance
from morpheus_worker.errors import Code, MorpheusError
from morpheus_worker.jobs import OutputFile
from morpheus_worker.saving import Save, saves

MADE = FileRef("7", "pid_00001_.pt", "token", "output")


class Chunks:
    """The outputs of a ComfyUI that is far away."""

    @contextlib.contextmanager
    def origin(self, ref: FileRef) -> Iterator[Origin]:
        yield iter([ref.filename.encode(), b"!"])


def published(path: Path) -> OutputFile:
    return OutputFile(
        kind="file",
        filename=path.name,
        node_id="7",
        media_type="application/octet-stream",
        bytes=path.stat().st_size,
        sha256="0" * 64,
        path=str(path),
    )


def test_the_published_file_is_put_at_its_place_as_well(tmp_path: Path) -> None:
    file, place = tmp_path / "pid_00001_.pt", tmp_path / "pids" / "deep" / "mine.pt"
    file.write_bytes(b"vector")
    with saves([Save("params.save", "7", place)], Allowance.of(5)) as saved_to:
        saved_to.stage([published(file)], [MADE], Chunks())
        assert not place.exists()
        saved_to.commit()
    assert place.read_bytes() == b"vector"
    assert file.read_bytes() == b"vector"
    assert [path.name for path in place.parent.iterdir()] == ["mine.pt"]


def test_a_file_that_is_not_on_the_volume_is_read_where_it_is(tmp_path: Path) -> None:
    with saves([Save("params.save", "7", tmp_path / "mine.pt")], Allowance.of(5)) as saved_to:
        saved_to.stage([], [MADE], Chunks())
        saved_to.commit()
    assert (tmp_path / "mine.pt").read_bytes() == b"pid_00001_.pt!"


def test_a_folder_gets_the_file_under_its_own_name(tmp_path: Path) -> None:
    with saves([Save("params.save", "7", tmp_path)], Allowance.of(5)) as saved_to:
        saved_to.stage([], [MADE, FileRef("7", "second.pt", "token", "output")], Chunks())
        saved_to.commit()
    assert [path.name for path in tmp_path.iterdir()] == ["pid_00001_.pt"]


def test_what_stands_at_the_place_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine.pt").write_bytes(b"older")
    with saves([Save("params.save", "7", tmp_path / "mine.pt")], Allowance.of(5)) as saved_to:
        saved_to.stage([], [MADE], Chunks())
        assert (tmp_path / "mine.pt").read_bytes() == b"older"
        saved_to.commit()
    assert (tmp_path / "mine.pt").read_bytes() == b"pid_00001_.pt!"


def test_a_job_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with saves([Save("params.save", "7", tmp_path / "mine.pt")], Allowance.of(5)) as saved_to:
        saved_to.stage([], [MADE], Chunks())
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_cancel_is_heard(tmp_path: Path) -> None:
    allowance = Allowance.of(5)
    allowance.cancelled.set()
    with (
        pytest.raises(MorpheusError) as failed,
        saves([Save("params.save", "7", tmp_path / "mine.pt")], allowance) as saved_to,
    ):
        saved_to.stage([], [MADE], Chunks())
    assert failed.value.code == Code.CANCELLED
    assert list(tmp_path.iterdir()) == []


def test_a_node_that_made_nothing_fails_the_job(tmp_path: Path) -> None:
    with (
        pytest.raises(MorpheusError) as failed,
        saves([Save("params.save", "8", tmp_path / "mine.pt")], Allowance.of(5)) as saved_to,
    ):
        saved_to.stage([], [MADE], Chunks())
    assert failed.value.code == Code.NO_OUTPUT


def test_a_place_that_cannot_be_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(MorpheusError) as failed,
        saves([Save("params.save", "7", tmp_path / "file" / "x")], Allowance.of(5)) as saved_to,
    ):
        saved_to.stage([], [MADE], Chunks())
    assert failed.value.code == Code.INPUT_REJECTED
    assert "params.save: lies under a file" in failed.value.message


def test_a_new_folder_is_made_where_one_is_meant(tmp_path: Path) -> None:
    with saves([Save("params.save", "7", tmp_path / "new", is_folder=True)], Allowance.of(5)) as saved_to:
        saved_to.stage([], [MADE], Chunks())
        saved_to.commit()
    assert (tmp_path / "new" / "pid_00001_.pt").is_file()


def test_one_file_goes_to_two_places(tmp_path: Path) -> None:
    wanted = [Save("params.a", "7", tmp_path / "a.pt"), Save("params.b", "7", tmp_path / "b.pt")]
    with saves(wanted, Allowance.of(5)) as saved_to:
        saved_to.stage([], [MADE], Chunks())
        saved_to.commit()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt", "b.pt"]


@pytest.mark.parametrize(("reported", "name"), [("../x.json", "x.json"), ("result.json", "output-result.json")])
def test_the_name_that_a_node_reported_leads_nowhere_else(tmp_path: Path, reported: str, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with saves([Save("params.save", "7", tmp_path / "folder")], Allowance.of(5)) as saved_to:
        saved_to.stage([], [FileRef("7", reported, "token", "output")], Chunks())
        saved_to.commit()
    made = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()]
    assert made == [f"folder/{name}"]


def test_an_output_of_the_job_is_not_replaced(tmp_path: Path) -> None:
    outputs = []
    for name in ("a.pt", "b.pt"):
        (tmp_path / name).write_text(name)
        outputs.append(published(tmp_path / name))
    with (
        pytest.raises(MorpheusError) as failed,
        saves([Save("params.save", "7", tmp_path / "b.pt")], Allowance.of(5)) as saved_to,
    ):
        saved_to.stage(outputs, [MADE], Chunks())
    assert failed.value.code == Code.INPUT_REJECTED
    assert (tmp_path / "b.pt").read_text() == "b.pt"


def test_in_a_folder_nothing_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "pid_00001_.pt").write_text("another's")
    with saves([Save("params.save", "7", tmp_path, is_folder=True)], Allowance.of(5)) as saved_to:
        saved_to.stage([], [MADE], Chunks())
        saved_to.commit()
    assert (tmp_path / "pid_00001_.pt").read_text() == "another's"
    assert (tmp_path / "pid_00001_-2.pt").read_bytes() == b"pid_00001_.pt!"
    assert len(list(tmp_path.iterdir())) == 2


def test_the_job_s_own_folder_has_it_already(tmp_path: Path) -> None:
    (tmp_path / "pid_00001_.pt").write_bytes(b"vector")
    with saves([Save("params.save", "7", tmp_path, is_folder=True)], Allowance.of(5)) as saved_to:
        saved_to.stage([published(tmp_path / "pid_00001_.pt")], [MADE], Chunks())
        saved_to.commit()
    assert [path.name for path in tmp_path.iterdir()] == ["pid_00001_.pt"]


def test_two_outputs_for_one_file_are_refused_before_anything_runs(tmp_path: Path) -> None:
    wanted = [Save("params.a", "7", tmp_path / "a.pt"), Save("params.b", "8", tmp_path / "a.pt")]
    with pytest.raises(MorpheusError) as failed, saves(wanted, Allowance.of(5)):
        pass
    assert (failed.value.code, failed.value.problems[0].at) == (Code.INPUT_REJECTED, "params.b")

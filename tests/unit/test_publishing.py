"""Outputs on the volume: whole or not at all, all of a job's or none, the record last.

Every test of the ordinary way runs twice: from another file system, as in production, and within one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from morpheus_worker import publishing
from morpheus_worker.comfy.files import LocalFiles, Origin
from morpheus_worker.comfy.history import FileRef
from morpheus_worker.comfy.http import NotAnsweringError, OutputMissingError
from morpheus_worker.comfy.launch import ComfyFolders
from morpheus_worker.deadlines import Allowance
from morpheus_worker.errors import Code, MorpheusError
from morpheus_worker.jobs import OutputFile
from morpheus_worker.publishing import JobFolder, Origins

OTHER_FILE_SYSTEM = Path("/dev/shm")


@dataclass
class Desk:
    """A volume, and a ComfyUI's folders."""

    volume: Path
    comfy: Path

    def __post_init__(self) -> None:
        folders = ComfyFolders(**{name: self.comfy / name for name in ComfyFolders.__slots__})
        for name in ComfyFolders.__slots__:
            (self.comfy / name).mkdir(parents=True)
        self.volume.mkdir(parents=True, exist_ok=True)
        self.files = LocalFiles(folders)

    @property
    def output(self) -> Path:
        return self.comfy / "output"

    def folder(self, job_id: str = "job-7") -> Path:
        return self.volume / "job_outputs" / job_id

    def made(self, name: str, content: bytes, *, node_id: str = "9", kind: str = "output") -> FileRef:
        """A file that a node saved."""
        path = self.comfy / kind / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        subfolder, _, filename = name.rpartition("/")
        return FileRef(node_id, filename, subfolder, kind)

    def content(self, job_id: str = "job-7") -> dict[str, bytes]:
        """Everything in the job's folder, hidden or not."""
        folder = self.folder(job_id)
        return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


@pytest.fixture(params=["two file systems", "one file system"])
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Desk]:
    if request.param == "one file system":
        yield Desk(tmp_path / "volume", tmp_path / "comfy")
        return
    if not OTHER_FILE_SYSTEM.is_dir() or OTHER_FILE_SYSTEM.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip(f"{OTHER_FILE_SYSTEM} is no other file system than {tmp_path}")
    with tempfile.TemporaryDirectory(dir=OTHER_FILE_SYSTEM) as comfy:
        yield Desk(tmp_path / "volume", Path(comfy))


@pytest.fixture
def plain(tmp_path: Path) -> Desk:
    """One file system, where it makes no difference."""
    return Desk(tmp_path / "volume", tmp_path / "comfy")


@contextmanager
def job_folder(volume: Path, job_id: str, allowance: Allowance | None = None) -> Iterator[JobFolder]:
    with publishing.job_folder(volume, job_id, allowance or Allowance.of(60)) as folder:
        yield folder


def published(folder: JobFolder, refs: Sequence[FileRef], files: Origins) -> list[OutputFile]:
    """What was published, when all of it was."""
    outputs = []
    for entry in folder.publish(refs, files):
        if isinstance(entry, MorpheusError):
            raise entry
        outputs.append(entry)
    return outputs


def png(width: int, height: int, path: Path) -> bytes:
    Image.new("1", (width, height)).save(path, "png")
    return path.read_bytes()


def result_of(folder: Path, name: str = "result.json") -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"))


# --- the ordinary way


def test_outputs_arrive_whole_with_size_hash_and_place(desk: Desk, tmp_path: Path) -> None:
    contents = {"x_00001_.png": png(30, 20, tmp_path / "p"), "video/clip.mp4": os.urandom(9_000_000), "empty.txt": b""}
    refs = [desk.made(name, content, node_id=str(number)) for number, (name, content) in enumerate(contents.items())]
    with job_folder(desk.volume, "job-7") as folder:
        outputs = published(folder, refs, desk.files)
        folder.complete({"status": "success"})
    assert [output.filename for output in outputs] == ["x_00001_.png", "clip.mp4", "empty.txt"]
    assert [output.kind for output in outputs] == ["image", "video", "text"]
    assert [output.node_id for output in outputs] == ["0", "1", "2"]
    assert [output.media_type for output in outputs] == ["image/png", "video/mp4", "text/plain"]
    assert [(output.width, output.height) for output in outputs] == [(30, 20), (None, None), (None, None)]
    for output, content in zip(outputs, contents.values(), strict=True):
        assert output.path is not None
        assert output.path == str(desk.folder() / output.filename)
        assert output.volume_path == f"job_outputs/job-7/{output.filename}"
        assert Path(output.path).read_bytes() == content
        assert (output.bytes, output.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert set(desk.content()) == {"x_00001_.png", "clip.mp4", "empty.txt", "result.json"}


def test_what_comfyui_had_is_gone_afterwards(desk: Desk) -> None:
    refs = [desk.made("tok/x.png", b"1"), desk.made("tok/y.png", b"2"), desk.made("z.png", b"3", kind="temp")]
    with job_folder(desk.volume, "job-7") as folder:
        published(folder, refs, desk.files)
        folder.complete({})
    assert not [path for path in desk.comfy.rglob("*") if path.is_file()]


def test_the_record_comes_last_and_is_readable(desk: Desk) -> None:
    with job_folder(desk.volume, "job-7") as folder:
        published(folder, [desk.made("x.png", b"1")], desk.files)
        assert set(desk.content()) == {"x.png"}
        path = folder.complete({"params": {"prompt": 'ünï 🎨 "quoted"\n'}, "seed": 2**63})
    assert path == desk.folder() / "result.json"
    assert result_of(desk.folder()) == {"params": {"prompt": 'ünï 🎨 "quoted"\n'}, "seed": 2**63}


def test_uploads_and_an_earlier_result_stay_as_they_are(desk: Desk) -> None:
    desk.folder().mkdir(parents=True)
    before = {"x.png": b"uploaded", "x-2.png": b"earlier", "result.json": b'{"earlier": true}', "face.jpg": b"face"}
    for name, content in before.items():
        (desk.folder() / name).write_bytes(content)
    with job_folder(desk.volume, "job-7") as folder:
        outputs = published(folder, [desk.made("x.png", b"new")], desk.files)
        path = folder.complete({"new": True})
    assert outputs[0].filename == "x-3.png"
    assert path.name == "result-2.json"
    assert desk.content() == {**before, "x-3.png": b"new", "result-2.json": path.read_bytes()}
    assert result_of(desk.folder(), "result-2.json") == {"new": True}


def test_files_of_one_name_are_kept_apart(desk: Desk) -> None:
    refs = [desk.made("a/x.png", b"1"), desk.made("b/x.png", b"2"), desk.made("x.png", b"3"), desk.made("c/x", b"4")]
    with job_folder(desk.volume, "job-7") as folder:
        outputs = published(folder, [*refs, desk.made("d/x", b"5")], desk.files)
        folder.complete({})
    assert [output.filename for output in outputs] == ["x.png", "x-2.png", "x-3.png", "x", "x-2"]
    assert [(desk.folder() / output.filename).read_bytes() for output in outputs] == [b"1", b"2", b"3", b"4", b"5"]


def test_an_output_cannot_take_the_place_of_the_record(desk: Desk) -> None:
    """Where `result.json` is, the job is complete: no output may be mistaken for it."""
    with job_folder(desk.volume, "job-7") as folder:
        outputs = published(folder, [desk.made("result.json", b'{"made by": "a node"}')], desk.files)
        assert not (desk.folder() / "result.json").exists()
        folder.complete({"status": "success"})
    assert result_of(desk.folder()) == {"status": "success"}
    assert (desk.folder() / outputs[0].filename).read_bytes() == b'{"made by": "a node"}'


@pytest.mark.parametrize("name", [".hidden.png", "~x.png", "100% #1?.png", "x\ny.png", "ü" * 120 + ".png"])
def test_a_name_is_made_plain(desk: Desk, name: str) -> None:
    with job_folder(desk.volume, "job-7") as folder:
        [output] = published(folder, [desk.made(name, b"1")], desk.files)
        folder.complete({})
    assert not output.filename.startswith((".", "~"))
    assert output.filename.endswith("png")
    assert not set("\n%#?") & set(output.filename)
    assert desk.content()[output.filename] == b"1"


# --- all or nothing


def test_nothing_is_published_when_one_of_four_is_missing(desk: Desk) -> None:
    desk.folder().mkdir(parents=True)
    (desk.folder() / "face.jpg").write_bytes(b"face")
    refs = [desk.made(f"{number}.png", b"x" * 100_000) for number in range(4)]
    (desk.output / "2.png").unlink()
    with (
        pytest.raises(OutputMissingError, match=r"'2\.png'") as failed,
        job_folder(desk.volume, "job-7") as folder,
    ):
        published(folder, refs, desk.files)
    assert failed.value.code == Code.NO_OUTPUT
    assert desk.content() == {"face.jpg": b"face"}


def test_a_job_that_is_not_complete_in_the_end_leaves_nothing(desk: Desk) -> None:
    with job_folder(desk.volume, "job-7") as folder:
        published(folder, [desk.made("x.png", b"1")], desk.files)
        assert set(desk.content()) == {"x.png"}
    assert not desk.folder().exists()


def test_a_job_without_outputs_leaves_its_record(desk: Desk) -> None:
    with job_folder(desk.volume, "job-7") as folder:
        assert published(folder, [], desk.files) == []
        folder.complete({"status": "success_no_images"})
    assert set(desk.content()) == {"result.json"}


@pytest.mark.parametrize(
    "ref",
    [
        FileRef("9", "secret.png", "..", "output"),
        FileRef("9", "../secret.png", "", "output"),
        FileRef("9", "secret.png", "/", "output"),
        FileRef("9", "link.png", "", "output"),
        FileRef("9", "folder", "", "output"),
        FileRef("9", "x.png", "", "elsewhere"),
        FileRef("9", "x.png", "", "input"),
        FileRef("9", "x\x00.png", "", "output"),
        FileRef("9", "half \ud83d.png", "", "output"),
        FileRef("9", "x" * 300 + ".png", "", "output"),
    ],
    ids=lambda ref: f"{ref.folder}/{ref.subfolder}/{ref.filename[:20]}",
)
def test_a_file_outside_of_comfyuis_folders_is_missing(plain: Desk, ref: FileRef) -> None:
    secret = plain.comfy / "secret.png"
    secret.write_bytes(b"not yours")
    (plain.output / "link.png").symlink_to(secret)
    (plain.output / "folder").mkdir()
    (plain.comfy / "input" / "x.png").write_bytes(b"an input")
    with pytest.raises(OutputMissingError), job_folder(plain.volume, "job-7") as folder:
        published(folder, [ref], plain.files)
    assert secret.read_bytes() == b"not yours"
    assert not plain.folder().exists()


class Download:
    """A door that hands out chunks, as ComfyUI's HTTP does, and breaks off on demand."""

    def __init__(self, *chunks: bytes, breaks_off: bool = False) -> None:
        self.chunks = chunks
        self.breaks_off = breaks_off

    def origin(self, ref: FileRef) -> AbstractContextManager[Origin]:
        return nullcontext(self._read())

    def _read(self) -> Iterator[bytes]:
        yield from self.chunks
        if self.breaks_off:
            raise NotAnsweringError("sending an output file", "the connection was cut")


def test_a_job_folder_that_is_a_link_is_not_written_through(plain: Desk, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (plain.volume / "job_outputs").mkdir(exist_ok=True)
    (plain.volume / "job_outputs/job").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MorpheusError, match="leads out of the volume"), job_folder(plain.volume, "job"):
        pass
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_file_that_comes_in_chunks(plain: Desk) -> None:
    with job_folder(plain.volume, "job-7") as folder:
        [output] = published(folder, [FileRef("9", "x.bin", "", "output")], Download(b"ab", b"", b"cd"))
        folder.complete({})
    assert plain.content()["x.bin"] == b"abcd"
    assert (output.bytes, output.sha256) == (4, hashlib.sha256(b"abcd").hexdigest())


def test_a_file_that_breaks_off_is_not_published(plain: Desk) -> None:
    with pytest.raises(NotAnsweringError), job_folder(plain.volume, "job-7") as folder:
        published(folder, [FileRef("9", "x.bin", "", "output")], Download(b"ab", breaks_off=True))
    assert not plain.folder().exists()


def test_a_volume_that_knows_no_hard_links(plain: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    plain.folder().mkdir(parents=True)
    (plain.folder() / "x.png").write_bytes(b"uploaded")
    with job_folder(plain.volume, "job-7") as folder:
        published(folder, [plain.made("x.png", b"new")], plain.files)
        folder.complete({})
    assert set(plain.content()) == {"x.png", "x-2.png", "result.json"}
    assert plain.content()["x.png"] == b"uploaded"


def test_two_deliveries_of_one_job_keep_out_of_each_others_way(plain: Desk) -> None:
    names: dict[int, list[str]] = {}
    start = threading.Barrier(4)

    def deliver(number: int) -> None:
        refs = [plain.made(f"{number}/{name}.png", f"{number}".encode()) for name in "abc" * 5]
        refs = list(dict.fromkeys(refs))
        start.wait()
        with job_folder(plain.volume, "job-7") as folder:
            names[number] = [output.filename for output in published(folder, refs, plain.files)]
            names[number].append(folder.complete({"number": number}).name)

    threads = [threading.Thread(target=deliver, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    all_names = [name for of_one in names.values() for name in of_one]
    assert len(all_names) == len(set(all_names)) == 16
    assert set(plain.content()) == set(all_names)
    for number, of_one in names.items():
        assert {plain.content()[name] for name in of_one[:-1]} == {str(number).encode()}
        assert result_of(plain.folder(), of_one[-1]) == {"number": number}


# --- a volume in trouble


@pytest.fixture
def small_volume(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own of one MiB."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if os.geteuid() != 0 or not mount or not umount:
        pytest.skip("mounting a small file system takes root")
    path = tmp_path / "small"
    path.mkdir()
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", path], capture_output=True).returncode != 0:
        pytest.skip("this machine does not let root mount a file system")
    yield path
    subprocess.run([umount, path], check=True)


def fill(path: Path) -> None:
    with (path / "filler").open("wb", buffering=0) as stream:
        try:
            while stream.write(bytes(4096)):
                pass
        except OSError:
            return


def test_outputs_that_do_not_fit_leave_nothing(small_volume: Path, tmp_path: Path) -> None:
    desk = Desk(small_volume, tmp_path / "comfy")
    refs = [desk.made(f"{number}.png", os.urandom(400_000)) for number in range(4)]
    with pytest.raises(MorpheusError) as failed, job_folder(desk.volume, "job-7") as folder:
        published(folder, refs, desk.files)
    assert failed.value.code == Code.VOLUME_FULL
    assert failed.value.retryable
    assert not desk.folder().exists()
    with job_folder(desk.volume, "job-8") as folder:
        published(folder, [desk.made("fits.png", b"1" * 400_000)], desk.files)
        folder.complete({})
    assert len(desk.content("job-8")["fits.png"]) == 400_000


def test_a_record_that_does_not_fit_takes_its_outputs_with_it(small_volume: Path, tmp_path: Path) -> None:
    desk = Desk(small_volume, tmp_path / "comfy")
    with job_folder(desk.volume, "job-7") as folder:
        published(folder, [desk.made("x.png", b"1")], desk.files)
        fill(small_volume)
        with pytest.raises(MorpheusError) as failed:
            folder.complete({"params": {"prompt": "x" * 10_000}})
    assert failed.value.code == Code.VOLUME_FULL
    assert not desk.folder().exists()


def test_a_full_volume_is_found_before_any_work_is_done(small_volume: Path) -> None:
    fill(small_volume)
    entered = False
    with pytest.raises(MorpheusError) as failed, job_folder(small_volume, "job-7"):
        entered = True
    assert not entered
    assert failed.value.code == Code.VOLUME_FULL
    assert not (small_volume / "job_outputs" / "job-7").exists()


def test_a_read_only_volume_is_found_before_any_work_is_done(small_volume: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_volume)], check=True)
    with pytest.raises(MorpheusError) as failed, job_folder(small_volume, "job-7"):
        pass
    assert failed.value.code == Code.VOLUME_UNAVAILABLE
    assert "read-only" in failed.value.message


def test_a_volume_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """Results written beneath an absent mount point would vanish with the container."""
    with pytest.raises(MorpheusError) as failed, job_folder(tmp_path / "volume", "job-7"):
        pass
    assert failed.value.code == Code.VOLUME_UNAVAILABLE
    assert not (tmp_path / "volume").exists()


def test_a_file_where_the_jobs_folder_should_be(plain: Desk) -> None:
    (plain.volume / "job_outputs").mkdir()
    (plain.volume / "job_outputs" / "job-7").write_bytes(b"in the way")
    with pytest.raises(MorpheusError), job_folder(plain.volume, "job-7"):
        pass
    assert (plain.volume / "job_outputs" / "job-7").read_bytes() == b"in the way"


def test_a_folder_that_others_use_is_not_taken_away(plain: Desk) -> None:
    with job_folder(plain.volume, "job-7") as first:
        with job_folder(plain.volume, "job-7"):
            pass
        first.publish([plain.made("x.png", b"1")], plain.files)
        first.complete({})
    assert set(plain.content()) == {"x.png", "result.json"}


# --- killed


KILLED = textwrap.dedent(
    """
    import os, random, signal, sys, time
    from pathlib import Path

    from morpheus_worker.comfy.files import LocalFiles
    from morpheus_worker.comfy.history import FileRef
    from morpheus_worker.comfy.launch import ComfyFolders
    from morpheus_worker.deadlines import Allowance
    from morpheus_worker.publishing import job_folder

    volume, comfy = Path(sys.argv[1]), Path(sys.argv[2])
    files = LocalFiles(ComfyFolders(comfy, comfy, comfy, comfy, comfy))
    blob = bytes(range(256)) * 4096

    def publish(job_id):
        with job_folder(volume, job_id, Allowance.of(60)) as folder:
            folder.publish([FileRef("9", f"{job_id}-{n}.bin", "", "output") for n in range(4)], files)
            folder.complete({"job_id": job_id})

    def publish_in_child(job_id, kill_after_s=None):
        for n in range(4):
            (comfy / f"{job_id}-{n}.bin").write_bytes(blob)
        began_s = time.monotonic()
        child = os.fork()
        if child == 0:
            publish(job_id)
            os._exit(0)
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return time.monotonic() - began_s

    took_s = publish_in_child("job-whole")
    for number in range(12):
        publish_in_child(f"job-{number}", random.uniform(0.0, took_s))
    """
)


def test_killed_at_any_moment_it_leaves_no_partial_file_to_be_seen(desk: Desk) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(desk.volume), str(desk.comfy)], check=True, timeout=60)
    whole, complete = bytes(range(256)) * 4096, set()
    for folder in (desk.volume / "job_outputs").iterdir():
        seen = {path.name: path for path in folder.iterdir() if not path.name.startswith(".")}
        record = seen.pop("result.json", None)
        assert all(path.read_bytes() == whole for path in seen.values())
        if record is not None:
            complete.add(folder.name)
            assert json.loads(record.read_bytes()) == {"job_id": folder.name}
            assert set(seen) == {f"{folder.name}-{number}.bin" for number in range(4)}
    assert "job-whole" in complete


def test_a_folder_may_be_withdrawn_more_than_once(plain: Desk) -> None:
    folder = JobFolder(plain.volume, "job-7", Allowance.of(60))
    folder.path.mkdir(parents=True)
    published(folder, [plain.made("x.png", b"1")], plain.files)
    folder.withdraw()
    folder.withdraw()
    assert not plain.folder().exists()


# --- begun before it is asked for


class Slow:
    """A door that opens when it is told to."""

    def __init__(self, files: Origins) -> None:
        self.files = files
        self.asked = threading.Event()
        self.opens = threading.Event()
        self.opened: list[str] = []

    @contextmanager
    def origin(self, ref: FileRef) -> Iterator[Origin]:
        self.asked.set()
        assert self.opens.wait(10)
        self.opened.append(ref.filename)
        with self.files.origin(ref) as origin:
            yield origin


def test_what_was_begun_is_not_done_again(desk: Desk) -> None:
    files = Slow(desk.files)
    files.opens.set()
    refs = [desk.made(f"{n}.png", str(n).encode()) for n in range(6)]
    with job_folder(desk.volume, "job-7") as folder:
        folder.begin(refs[:4], files)
        outputs = published(folder, refs[2:], files)
        folder.complete({})
    assert sorted(files.opened) == [ref.filename for ref in refs]
    assert [output.filename for output in outputs] == ["2.png", "3.png", "4.png", "5.png"]
    assert set(desk.content()) == {"2.png", "3.png", "4.png", "5.png", "result.json"}, "the rest was begun in vain"


def test_what_was_begun_and_failed_is_told_when_it_is_asked_for(desk: Desk) -> None:
    gone = FileRef("9", "gone.png", "", "output")
    with job_folder(desk.volume, "job-7") as folder:
        folder.begin([gone], desk.files)
        (entry,) = folder.publish([gone], desk.files)
    assert isinstance(entry, OutputMissingError)


def test_a_job_that_fails_while_something_is_begun_leaves_nothing(desk: Desk) -> None:
    files = Slow(desk.files)
    with job_folder(desk.volume, "job-7") as folder:
        folder.begin([desk.made(f"{n}.png", os.urandom(9_000_000)) for n in range(6)], files)
        assert files.asked.wait(10)
        threading.Timer(0.05, files.opens.set).start()
    assert not desk.folder().exists()


def test_where_the_volume_was_nothing_is_written_once_it_is_gone(plain: Desk, tmp_path: Path) -> None:
    """What is left when a volume is unmounted is an empty folder of the container's own disk."""
    with job_folder(plain.volume, "job-7") as folder:
        ref = plain.made("x.png", b"1")
        plain.volume.rename(tmp_path / "taken away")
        plain.volume.mkdir()
        with pytest.raises(MorpheusError, match="taken away") as failed:
            published(folder, [ref], plain.files)
    assert failed.value.code == Code.VOLUME_UNAVAILABLE
    assert list(plain.volume.iterdir()) == []

"""What is known of a cache's files: one receipt each, an index of all, and what either is worth beside the file."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from morpheus_worker.sync.cache import Cache, Receipts, key_of
from morpheus_worker.sync.planning import Seen
from morpheus_worker.sync.receipting import read_receipt, receipt_text
from morpheus_worker.sync.terms import Receipt, SyncCode, SyncError

FILE = PurePosixPath("checkpoints/sd.safetensors")
OTHER = PurePosixPath("loras/x.safetensors")
SHA = "ab" * 32
MTIME = 1_700_000_000_000_000_000


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    cache = Cache(tmp_path / "cache")
    cache.ensure_writable()
    return cache


@pytest.fixture
def receipts(cache: Cache) -> Receipts:
    return Receipts(cache)


def placed(cache: Cache, path: PurePosixPath = FILE, content: bytes = b"weights") -> Receipt:
    """A file in the cache, and the receipt that is true of it."""
    (cache.root / path).parent.mkdir(parents=True, exist_ok=True)
    (cache.root / path).write_bytes(content)
    os.utime(cache.root / path, ns=(MTIME, MTIME))
    return Receipt(path, len(content), MTIME, SHA, source={"kind": "hf", "repo": "a/b"}, verified_at="2026-01-01")


def index_of(cache: Cache) -> list[Any]:
    told = json.loads((cache.work / "receipts.json").read_text())
    assert isinstance(told["receipts"], list)
    return told["receipts"]


def own_of(cache: Cache, path: PurePosixPath = FILE) -> Path:
    return cache.work / "receipts" / f"{key_of(path)}.json"


def test_a_receipt_comes_back_as_it_was_written(cache: Cache, receipts: Receipts) -> None:
    receipt = placed(cache)
    receipts.write(receipt)
    assert Receipts(cache).load()[str(FILE)] == receipt
    receipts.settle()
    assert dict(Receipts(cache).load()) == {str(FILE): receipt}
    assert read_receipt(receipt_text(receipt)) == receipt


def test_a_file_stands_as_its_receipt_says(cache: Cache, receipts: Receipts) -> None:
    known = receipts.load()
    assert receipts.standing(FILE, known).state == "absent"
    receipt = placed(cache)
    there = receipts.standing(FILE, known)
    assert (there.state, there.size, there.receipt) == ("unreceipted", 7, None)
    receipts.write(receipt)
    there = receipts.standing(FILE, known)
    assert (there.state, there.size, there.receipt) == ("present", 7, receipt)


def test_a_file_of_another_size_or_time_is_changed(cache: Cache, receipts: Receipts) -> None:
    receipts.write(placed(cache))
    receipts.settle()
    placed(cache, content=b"weightS and more")
    assert receipts.standing(FILE, receipts.load()).state == "changed"
    placed(cache, content=b"weightS")
    os.utime(cache.root / FILE, ns=(MTIME, MTIME + 1))
    assert receipts.standing(FILE, receipts.load()).state == "changed"
    os.utime(cache.root / FILE, ns=(MTIME, MTIME))
    assert receipts.standing(FILE, receipts.load()).state == "present"


def test_what_the_index_lacks_or_has_wrong_is_in_the_files_own_receipt(cache: Cache, receipts: Receipts) -> None:
    receipts.write(dataclasses.replace(placed(cache), sha256="cd" * 32))
    receipts.settle()
    newer, other = placed(cache, content=b"a newer version"), placed(cache, OTHER)
    killed = Receipts(cache)
    killed.write(newer)
    killed.write(other)
    known = receipts.load()
    assert receipts.standing(FILE, known).receipt == newer
    assert receipts.standing(OTHER, known).receipt == other
    receipts.settle()
    assert {each["path"]: each["sha256"] for each in index_of(cache)} == {str(FILE): SHA, str(OTHER): SHA}


def test_two_runs_that_settle_lose_nothing(cache: Cache) -> None:
    one, two = Receipts(cache), Receipts(cache)
    one.load()
    two.load()
    one.write(placed(cache))
    two.write(placed(cache, OTHER))
    one.settle()
    two.settle()
    assert len(index_of(cache)) == 2


def test_nothing_is_written_where_nothing_changed(cache: Cache, receipts: Receipts) -> None:
    receipts.write(placed(cache))
    receipts.settle()
    before = (cache.work / "receipts.json").stat().st_ino
    again = Receipts(cache)
    assert again.standing(FILE, again.load()).state == "present"
    again.settle()
    assert (cache.work / "receipts.json").stat().st_ino == before


def test_a_receipt_without_a_time_is_believed_by_size_and_completed(cache: Cache, receipts: Receipts) -> None:
    uploaded = dataclasses.replace(placed(cache), mtime_ns=None, by="upload")
    receipts.write(uploaded)
    receipts.settle()
    fresh = Receipts(cache)
    assert fresh.standing(FILE, fresh.load()).receipt == dataclasses.replace(uploaded, mtime_ns=MTIME)
    assert Receipts(cache).load()[str(FILE)].mtime_ns is None
    fresh.settle()
    assert json.loads(own_of(cache).read_text())["mtime_ns"] == MTIME
    assert index_of(cache)[0]["mtime_ns"] == MTIME
    os.utime(cache.root / FILE)
    assert fresh.standing(FILE, fresh.load()).state == "changed"


def test_that_a_request_asked_for_a_file_outlives_its_version_and_not_the_file(
    cache: Cache, receipts: Receipts
) -> None:
    receipts.write(dataclasses.replace(placed(cache), requested=True))
    newer = placed(cache, content=b"newer weights")
    Receipts(cache).write(newer)
    assert Receipts(cache).load()[str(FILE)] == dataclasses.replace(newer, requested=True)
    receipts.forget(FILE)
    receipts.write(newer)
    assert not Receipts(cache).load()[str(FILE)].requested


def test_a_receipt_that_says_nothing_of_a_request_was_not_made_by_one(cache: Cache) -> None:
    told = placed(cache).as_dict()
    assert told.pop("requested") is False
    assert read_receipt(json.dumps(told)) == placed(cache)
    assert read_receipt(json.dumps({**told, "requested": 1})) is None


def test_what_is_forgotten_is_unreceipted(cache: Cache, receipts: Receipts) -> None:
    known = receipts.load()
    receipts.write(placed(cache))
    receipts.settle()
    receipts.forget(FILE)
    receipts.forget(OTHER)
    assert receipts.standing(FILE, known).state == "unreceipted"
    receipts.settle()
    assert index_of(cache) == []
    assert receipts.standing(FILE, receipts.load()).state == "unreceipted"


BROKEN = [
    b"", b"{", b"\xff\xfe", b"[]", b"null", b'"text"', b"{}", b"[" * 100_000, b'{"version": 1, "receipts": 7}',
    b'{"version": 1, "receipts": [null, 7, {}, {"path": "../../etc/passwd"}]}', b'{"version": 99, "receipts": []}',
]  # fmt: skip


@pytest.mark.parametrize("content", BROKEN)
def test_a_broken_index_costs_a_read_and_is_mended(cache: Cache, receipts: Receipts, content: bytes) -> None:
    receipts.write(placed(cache))
    (cache.work / "receipts.json").write_bytes(content)
    fresh = Receipts(cache)
    assert fresh.standing(FILE, fresh.load()).state == "present"
    fresh.settle()
    assert len(index_of(cache)) == 1


@pytest.mark.parametrize("content", BROKEN)
def test_a_broken_receipt_is_none(cache: Cache, receipts: Receipts, content: bytes) -> None:
    placed(cache)
    own_of(cache).write_bytes(content)
    assert receipts.standing(FILE, receipts.load()).state == "unreceipted"
    receipts.write(placed(cache, OTHER))
    receipts.settle()
    assert [each["path"] for each in index_of(cache)] == [str(OTHER)]


@pytest.mark.parametrize(
    "wrong",
    [{"size": -1}, {"size": True}, {"size": "7"}, {"size": 7.0}, {"mtime_ns": "1"}, {"sha256": "xyz"}, {"sha256": 7},
     {"by": "magic"}, {"by": []}, {"source": []}, {"etag": 7}, {"verified_at": None}, {"path": "/x"}, {"path": ""},
     {"path": "a/../../x"}, {"path": 7}],
)  # fmt: skip
def test_a_receipt_with_a_wrong_value_is_none(wrong: dict[str, Any]) -> None:
    told = Receipt(FILE, 7, MTIME, SHA).as_dict()
    assert read_receipt(json.dumps(told)) is not None
    assert read_receipt(json.dumps(told | wrong)) is None


def test_a_receipt_of_another_path_is_none(cache: Cache, receipts: Receipts) -> None:
    placed(cache)
    receipts.write(placed(cache, OTHER))
    shutil.copy(own_of(cache, OTHER), own_of(cache))
    assert receipts.standing(FILE, receipts.load()).state == "unreceipted"
    receipts.settle()
    assert [each["path"] for each in index_of(cache)] == [str(OTHER)]


def test_somebody_elses_file_among_the_receipts_does_no_harm(cache: Cache, receipts: Receipts) -> None:
    (cache.work / "receipts/notes.txt").write_text("mine")
    (cache.work / "receipts/folder.json").mkdir()
    receipts.write(placed(cache))
    receipts.settle()
    assert len(index_of(cache)) == 1


def test_a_link_counts_as_what_it_leads_to(cache: Cache, receipts: Receipts, tmp_path: Path) -> None:
    receipt = placed(cache)
    (cache.root / FILE).rename(tmp_path / "elsewhere")
    (cache.root / FILE).symlink_to(tmp_path / "elsewhere")
    receipts.write(receipt)
    assert receipts.standing(FILE, receipts.load()).state == "present"


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_has_no_size_to_go_by(cache: Cache, receipts: Receipts, kind: str) -> None:
    (cache.root / FILE).parent.mkdir(exist_ok=True)
    if kind == "folder":
        (cache.root / FILE).mkdir()
    else:
        os.mkfifo(cache.root / FILE)
    # Nobody is led to read it: a pipe would be waited for.
    assert receipts.standing(FILE, receipts.load()) == Seen("unreceipted", None, None)


def test_a_name_that_is_no_utf8_keeps_its_receipt(cache: Cache, receipts: Receipts) -> None:
    path = PurePosixPath(os.fsdecode(b"loras/caf\xe9 \xc3\xa9.safetensors"))
    receipt = placed(cache, path)
    receipts.write(receipt)
    receipts.settle()
    assert Receipts(cache).load()[str(path)] == receipt
    assert own_of(cache, path).read_bytes().decode().count("\\udce9") == 1
    own_of(cache, path).unlink()
    assert Receipts(cache).load()[str(path)] == receipt


def test_a_link_that_leads_nowhere_is_there(cache: Cache, receipts: Receipts) -> None:
    receipt = placed(cache)
    (cache.root / FILE).unlink()
    (cache.root / FILE).symlink_to(FILE.name)
    assert receipts.standing(FILE, receipts.load()).state == "unreceipted"
    receipts.write(receipt)
    assert receipts.standing(FILE, receipts.load()).state == "changed"


def test_a_cache_that_is_not_made_yet_knows_nothing(tmp_path: Path) -> None:
    receipts = Receipts(Cache(tmp_path / "cache"))
    known = receipts.load()
    assert len(known) == 0
    assert receipts.standing(FILE, known).state == "absent"
    receipts.settle()
    assert not (tmp_path / "cache").exists()


def test_a_volume_that_is_not_there_is_no_empty_one(tmp_path: Path) -> None:
    with pytest.raises(SyncError) as caught:
        Receipts(Cache(tmp_path / "volume/cache", beneath=tmp_path / "volume")).load()
    assert caught.value.code is SyncCode.VOLUME


MANY = 500
ALL_PRESENT = """
import os, sys
from pathlib import Path, PurePosixPath
from morpheus_worker.sync.cache import Cache, Receipts
receipts = Receipts(Cache(Path(sys.argv[1])))
os.access("/begin", 0)
known = receipts.load()
seen = [receipts.standing(PurePosixPath(f"loras/{number}"), known).state for number in range(int(sys.argv[2]))]
receipts.settle()
os.access("/end", 0)
assert set(seen) == {"present"}
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace counts the system calls")
def test_all_that_is_present_costs_one_stat_each_and_nothing_else(
    cache: Cache, receipts: Receipts, tmp_path: Path
) -> None:
    for number in range(MANY):
        receipt = placed(cache, PurePosixPath(f"loras/{number}"))
        own_of(cache, receipt.path).write_text(receipt_text(receipt))
    receipts.write(receipt)
    receipts.settle()
    trace = tmp_path / "trace"
    command = [sys.executable, "-c", ALL_PRESENT, str(cache.root), str(MANY)]
    subprocess.run(["strace", "-f", "-o", str(trace), "-e", "trace=%file,%net", *command], check=True)
    calls = trace.read_text().partition('"/begin"')[2].partition('"/end"')[0].splitlines()[1:-1]
    of_models = [call for call in calls if "/loras/" in call]
    assert len(of_models) == MANY
    assert all("stat" in call for call in of_models)
    assert len({call.partition("/loras/")[2].partition('"')[0] for call in of_models}) == MANY
    # Beside them only the index is opened, and nothing is asked of any network.
    others = [call for call in calls if call not in of_models and ' newfstatat(3, "", ' not in call]
    assert [call.partition("(")[0].split()[-1] for call in others] == ["openat"], others
    assert "/receipts.json" in others[0]

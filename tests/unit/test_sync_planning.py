from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import pytest

from morpheus_worker.manifest import ModelEntry
from morpheus_worker.sync.locking import Wanted
from morpheus_worker.sync.planning import (
    Action,
    Plan,
    Seen,
    State,
    agreed,
    broken,
    combined,
    decided,
    expected,
    held_to,
    in_order,
    judged,
    known_hashes,
)
from morpheus_worker.sync.terms import Receipt, Resolved, SyncCode, SyncError

PATH = PurePosixPath("checkpoints/x.safetensors")
RIGHT, OLD, STRANGE = "a" * 64, "b" * 64, "c" * 64
SOURCE = {"kind": "https", "url": "https://example.com/x"}


def want(size: int | None = 100, sha256: str | None = RIGHT, *, path: PurePosixPath = PATH, **more: Any) -> Wanted:
    sources = more.pop("sources", (SOURCE,))
    return Wanted(ModelEntry("x", path, sources=sources, **more), sources, size, sha256, more.get("format"))


def receipt(size: int = 100, sha256: str | None = RIGHT, *, by: Any = "sync", source: Any = SOURCE) -> Receipt:
    return Receipt(PATH, size, 1, sha256, by=by, source=source)


def seen(state: State, size: int | None = 100, of: Receipt | None = None) -> Seen:
    return Seen(state, size, of)


BY_HAND = receipt(sha256=OLD, by="adopt", source={})


@pytest.mark.parametrize(
    ("wanted", "there", "what"),
    [
        (want(), seen("absent", None), "get"),
        (want(None, None), seen("absent", None), "get"),
        # With a receipt that holds.
        (want(), seen("present", of=receipt()), "present"),
        (want(None, None), seen("present", of=receipt()), "present"),
        (want(100, None), seen("present", of=receipt()), "present"),
        (want(), seen("present", of=receipt(sha256=OLD)), "replace"),
        (want(99, None), seen("present", of=receipt()), "replace"),
        (want(), seen("present", of=receipt(sha256=None)), "hash"),
        (want(99), seen("present", of=receipt(sha256=None)), "replace"),
        (want(), seen("present", of=BY_HAND), "refuse"),
        # Without one.
        (want(), seen("unreceipted"), "hash"),
        (want(), seen("unreceipted", 99), "refuse"),
        (want(None), seen("unreceipted"), "hash"),
        (want(None, None), seen("unreceipted"), "unverified"),
        (want(100, None), seen("unreceipted"), "unverified"),
        (want(99, None), seen("unreceipted"), "refuse"),
        (want(), seen("unreceipted", None), "refuse"),
        # With one that does not hold any more.
        (want(), seen("changed", of=receipt()), "hash"),
        (want(None, None), seen("changed", of=receipt()), "hash"),
        (want(None, None), seen("changed", 99, of=receipt()), "refuse"),
        (want(None, None), seen("changed", 99, of=receipt(sha256=None)), "unverified"),
        (want(200), seen("changed", 100, of=receipt(sha256=OLD)), "hash"),
        (want(None), seen("changed", 200, of=receipt(sha256=OLD)), "hash"),
        (want(None), seen("changed", 200, of=receipt()), "refuse"),
    ],
)
def test_what_is_done_follows_from_what_lies_there(wanted: Wanted, there: Seen, what: str) -> None:
    action = decided(wanted, there)
    assert action.what == what
    assert (action.problem is not None) == (what == "refuse")
    assert action.fetches == (what in ("get", "replace"))


@pytest.mark.parametrize("there", [seen("unreceipted", 99), seen("present", of=BY_HAND), seen("unreceipted", None)])
def test_what_is_in_the_way_makes_room_when_it_is_asked_to(there: Seen) -> None:
    problem = decided(want(), there).problem
    assert problem is not None
    assert problem.code is SyncCode.CONFLICT
    assert "--replace" in str(problem)
    assert decided(want(), there, replace=True).what == "replace"


def test_what_a_source_says_now_settles_what_nobody_else_knows() -> None:
    wanted, told = want(None, None), Resolved(SOURCE, 100, RIGHT)
    known, action = held_to(wanted, told, 100)
    assert (action.what, known.size, known.sha256, known.sources[0]) == ("hash", 100, RIGHT, SOURCE)
    assert held_to(wanted, Resolved(SOURCE, None, RIGHT), 99)[1].what == "hash"
    problem = held_to(wanted, told, 99)[1].problem
    assert problem is not None
    assert problem.code is SyncCode.CONFLICT
    assert "99 bytes, and https://example.com/x has 100" in str(problem)
    assert held_to(wanted, told, 99, replace=True)[1].what == "replace"


def test_a_size_alone_keeps_nothing_that_is_asked_to_make_room() -> None:
    by_size = Resolved(SOURCE, 100)
    assert held_to(want(None, None), by_size, 100)[1].what == "hash"
    assert held_to(want(None, None), by_size, 100, replace=True)[1].what == "replace"
    assert held_to(want(None, None, path=PATH.with_suffix(".ckpt")), by_size, 100, replace=True)[1].what == "hash"


def test_only_a_file_that_was_rejected_is_in_the_way() -> None:
    page = SyncError(SyncCode.REJECTED, "is a web page", "the host may want a key")
    problem = broken(want(), page).problem
    assert problem is not None
    assert (problem.code, problem.what) == (SyncCode.CONFLICT, f"{PATH} is a web page")
    assert "morpheus models sync --replace" in str(problem)
    assert broken(want(), page, replace=True).what == "replace"
    with pytest.raises(SyncError) as caught:
        broken(want(), SyncError(SyncCode.VOLUME, "cannot be read"))
    assert caught.value.code is SyncCode.VOLUME


def test_what_is_right_stays_even_when_others_would_make_room() -> None:
    assert decided(want(), seen("present", of=receipt()), replace=True).what == "present"
    assert decided(want(), seen("unreceipted"), replace=True).what == "hash"


@pytest.mark.parametrize(
    ("wanted", "there", "sha256", "what"),
    [
        (want(), seen("unreceipted"), RIGHT, "present"),
        (want(), seen("unreceipted"), STRANGE, "refuse"),
        (want(sha256=None), seen("changed", of=receipt()), RIGHT, "present"),
        (want(sha256=None), seen("changed", of=receipt()), STRANGE, "refuse"),
        (want(), seen("changed", of=receipt(sha256=OLD)), OLD, "replace"),
        (want(), seen("changed", of=BY_HAND), OLD, "refuse"),
        # The old version, only touched: its hash is right, its size is not the wanted one.
        (want(300, None), seen("changed", of=receipt(sha256=OLD)), OLD, "replace"),
        # Fetched without hashing, and found to be another version.
        (want(), seen("present", of=receipt(sha256=None)), RIGHT, "present"),
        (want(), seen("present", of=receipt(sha256=None)), STRANGE, "replace"),
    ],
)
def test_a_hash_settles_what_a_file_is(wanted: Wanted, there: Seen, sha256: str, what: str) -> None:
    assert judged(wanted, there, sha256).what == what
    assert judged(wanted, there, sha256, replace=True).what == ("replace" if what == "refuse" else what)


def test_the_wanted_hash_counts_before_the_old_receipts() -> None:
    assert known_hashes(want(), seen("changed", of=receipt(sha256=OLD))) == (RIGHT, OLD)
    assert known_hashes(want(sha256=None), seen("unreceipted")) == ()


@pytest.mark.parametrize(
    ("wanted", "code", "said"),
    [
        (want(sources=()), SyncCode.INVALID, "no source"),
        (want(format="pickle"), SyncCode.REJECTED, "allow_pickle"),
        (want(path=PurePosixPath("checkpoints/x.ckpt")), SyncCode.REJECTED, ".ckpt"),
    ],
)
def test_what_may_not_be_fetched_is_refused_before_anything_is_asked(wanted: Wanted, code: SyncCode, said: str) -> None:
    problem = decided(wanted, seen("absent", None)).problem
    assert problem is not None
    assert problem.code is code
    assert said in str(problem)
    assert decided(wanted, seen("present", of=receipt())).what == "present"


def test_a_format_that_may_run_code_is_fetched_where_it_is_allowed() -> None:
    wanted = want(format="pickle", allow_pickle=True)
    assert decided(wanted, seen("absent", None)).what == "get"
    assert expected(wanted, Resolved(SOURCE, format="pickle")).sha256 == RIGHT
    with pytest.raises(SyncError) as caught:
        expected(want(format="safetensors"), Resolved(SOURCE, format="pickle"))
    assert caught.value.code is SyncCode.REJECTED


def test_manifest_and_host_complete_each_other() -> None:
    assert agreed(want(100, None), Resolved(SOURCE, None, RIGHT)) == (100, RIGHT)
    assert agreed(want(None, RIGHT), Resolved(SOURCE, 100, None)) == (100, RIGHT)
    assert agreed(want(None, None), Resolved(SOURCE)) == (None, None)


@pytest.mark.parametrize("resolved", [Resolved(SOURCE, 100, OLD), Resolved(SOURCE, 99, RIGHT), Resolved(SOURCE, 99)])
def test_another_version_than_the_wanted_one_is_told(resolved: Resolved) -> None:
    with pytest.raises(SyncError) as caught:
        agreed(want(), resolved)
    assert caught.value.code is SyncCode.CHANGED
    assert "morpheus models lock" in str(caught.value)


def test_boot_comes_first_then_the_unknown_and_the_large() -> None:
    def named(name: str, size: int | None, phase: Any = "lazy") -> Wanted:
        return Wanted(ModelEntry(name, PATH, phase=phase), (), size)

    listed = [named("small", 1), named("large", 9), named("early", 1, "boot"), named("unknown", None), named("mid", 5)]
    assert [wanted.entry.id for wanted in in_order(listed)] == ["early", "unknown", "large", "mid", "small"]


def test_one_refusal_stays_itself_and_names_its_source() -> None:
    refusal = SyncError(SyncCode.UNREACHABLE, "sent nothing", "try again", passing=True, after_s=3)
    error = combined([("hf:o/n/f", refusal)])
    assert (error.code, error.what, error.hint, error.passing, error.after_s) == (
        SyncCode.UNREACHABLE, "hf:o/n/f: sent nothing", "try again", True, 3,
    )  # fmt: skip


def test_several_refusals_are_told_together_under_the_code_that_a_person_can_act_on() -> None:
    error = combined(
        [
            ("one", SyncError(SyncCode.NOT_FOUND, "is not there")),
            ("two", SyncError(SyncCode.ACCESS_DENIED, "wants a key", "set HF_TOKEN")),
            ("three", SyncError(SyncCode.UNREACHABLE, "is down", passing=True)),
        ]
    )
    assert error.code is SyncCode.ACCESS_DENIED
    assert error.what == "no source has it: one: is not there; two: wants a key; three: is down"
    assert error.hint == "set HF_TOKEN"
    assert error.passing


def test_a_plan_adds_up_what_it_knows() -> None:
    problem = SyncError(SyncCode.INVALID, "has no source", "give it one")
    made = Plan(
        (
            Action("a", PATH, "get", bytes=5),
            Action("b", PATH, "replace", bytes=None),
            Action("c", PATH, "present"),
            Action("d", PATH, "refuse", problem=problem),
        ),
        "/cache",
        free=4,
    )
    assert (made.bytes, made.unknown, made.fits, made.ok) == (5, ("b",), False, False)
    assert [action.id for action in made.problems] == ["d"]
    told = made.as_dict()
    assert told["actions"][0] == {
        "id": "a", "kind": "model", "path": str(PATH), "what": "get", "why": "", "bytes": 5,
    }  # fmt: skip
    assert told["actions"][3]["error"] == "has no source"
    assert Plan((), "/cache", free=0).ok
    assert Plan((Action("a", PATH, "get", bytes=5),), "s3://b/p").ok


def hf(revision: str, file: str = "config.yaml") -> dict[str, str]:
    return {"kind": "hf", "repo": "owner/name", "file": file, "revision": revision}


@pytest.mark.parametrize(
    ("pinned", "fetched", "what"),
    [
        (hf("1" * 40), hf("1" * 40), "present"),
        (hf("1" * 40), hf("2" * 40), "replace"),
        (hf("main"), hf("2" * 40), "present"),
        (hf("1" * 40), hf("2" * 40, "other.yaml"), "present"),
        (hf("1" * 40), SOURCE, "present"),
    ],
)
def test_without_a_hash_the_revision_tells_versions_apart(pinned: Any, fetched: Any, what: str) -> None:
    wanted = want(sha256=None, sources=(pinned,))
    assert decided(wanted, seen("present", of=receipt(source=fetched))).what == what
    assert decided(replace(wanted, sha256=RIGHT), seen("present", of=receipt(source=fetched))).what == "present"

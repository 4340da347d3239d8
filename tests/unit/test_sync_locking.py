from __future__ import annotations

import json
from pathlib import PurePosixPath

import pytest

from morpheus_worker.manifest import Manifest, ManifestError, ModelEntry, PackEntry
from morpheus_worker.sync.locking import (
    Lock,
    Locked,
    LockedPack,
    asked_of_pip,
    lock_text,
    parse_lock,
    stale,
    wanted,
    wanted_commit,
)
from morpheus_worker.sync.terms import Resolved

SHA, OTHER = "0a" * 32, "0b" * 32
COMMIT, OTHER_COMMIT = "0a" * 20, "0b" * 20
DECLARED = {"kind": "hf", "repo": "a/b", "file": "x.safetensors"}
PINNED = {**DECLARED, "revision": COMMIT}
CIVITAI = {"kind": "civitai", "version": 5}
ENTRY = ModelEntry("x", PurePosixPath("loras/x.safetensors"), sources=(CIVITAI, DECLARED))
LOCKED = Locked(ENTRY.path, DECLARED, PINNED, 12, SHA, "safetensors", "mit", True)
PACK = PackEntry("Pack", "https://host/a/pack")
LOCK = Lock({"x": LOCKED}, {"Pack": LockedPack(PACK.repo, COMMIT)})


def problems_of(text: str) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        parse_lock(text, name="m.lock")
    return [str(problem) for problem in caught.value.problems]


def test_a_lock_comes_back_as_it_was_written() -> None:
    bare = Locked(PurePosixPath("vae/ä"), CIVITAI, {**CIVITAI, "file": 7})
    lock = Lock({"x": LOCKED, "b": bare}, LOCK.packs)
    text = lock_text(lock)
    assert parse_lock(text, name="m.lock") == lock
    assert text.endswith("}\n")
    assert "ä" in text


@pytest.mark.parametrize(("said", "kept"), [("", None), (" a\nb ", "a b"), ("hf_" + "x" * 30, None), (None, None)])
def test_an_odd_licence_keeps_nothing_from_being_locked(said: str | None, kept: str | None) -> None:
    locked = Locked.of(ENTRY, DECLARED, Resolved(PINNED, format=said, license=said))
    assert (locked.format, locked.license) == (kept, kept)
    assert parse_lock(lock_text(Lock({"x": locked})), name="m.lock").models == {"x": locked}


def test_the_same_lock_is_always_the_same_text() -> None:
    one, two = Locked(PurePosixPath("vae/1"), CIVITAI, CIVITAI), Locked(PurePosixPath("vae/2"), CIVITAI, CIVITAI)
    assert lock_text(Lock({"b": two, "a": one})) == lock_text(Lock({"a": one, "b": two}))


def test_a_lock_says_nothing_that_nobody_knows() -> None:
    told = json.loads(lock_text(Lock({"x": Locked(ENTRY.path, DECLARED, PINNED)})))
    assert told["models"]["x"] == {"path": "loras/x.safetensors", "declared": DECLARED, "source": PINNED}


@pytest.mark.parametrize("url", ["https://host/x?X-Amz-Signature=SECRET", "https://user:SECRET@host/x"])
def test_no_signed_address_and_no_key_gets_into_a_lock(url: str) -> None:
    source = {"kind": "https", "url": url}
    with pytest.raises(ManifestError) as caught:
        lock_text(Lock({"x": Locked(ENTRY.path, DECLARED, source)}))
    assert "SECRET" not in str(caught.value)


def test_every_problem_of_a_lock_is_said_with_its_line() -> None:
    text = """{
  "version": 1,
  "models": {
    "x": {
      "path": "../x",
      "declared": {"kind": "hf", "repo": "a/b", "file": "x"},
      "source": {"kind": "htps"},
      "sise": 3
    },
    "x": {"path": "loras/x"}
  },
  "custom_nodes": {"P": {"repo": "https://host/p", "commit": "abc"}}
}
"""
    assert problems_of(text) == [
        "m.lock:4 models.x: stands twice, again on line 10",
        "m.lock:5 models.x.path: has an empty, hidden or '..' part, or a backslash",
        "m.lock:7 models.x.source.kind: is no kind of source (did you mean 'https'?)",
        "m.lock:8 models.x.sise: is no key of the lock (did you mean 'size'?)",
        "m.lock:12 custom_nodes.P.commit: must be a whole commit hash, 40 hexadecimal digits",
    ]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 2, "models": {}, "custom_nodes": {}}', "<<<<<<< HEAD"])
def test_what_is_no_lock(text: str) -> None:
    assert problems_of(text)[0].startswith("m.lock:")


def test_what_is_wanted_is_what_the_lock_names_first() -> None:
    got = wanted(ENTRY, LOCK)
    assert got.sources == (PINNED, CIVITAI)
    assert (got.size, got.sha256, got.format, got.gated, got.locked) == (12, SHA, "safetensors", True, True)


def test_without_a_lock_the_manifest_is_asked() -> None:
    entry = ModelEntry("y", ENTRY.path, sources=(DECLARED,), size=3, sha256=OTHER)
    got = wanted(entry, LOCK)
    assert (got.sources, got.size, got.sha256, got.locked) == ((DECLARED,), 3, OTHER, False)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (ModelEntry("x", ENTRY.path, sources=(CIVITAI,)), "no source of it now"),
        (ModelEntry("x", ENTRY.path, sources=({**DECLARED, "revision": "v2"},)), "no source of it now"),
        (ModelEntry("x", ENTRY.path, sources=(DECLARED,), sha256=OTHER), "another sha256"),
        (ModelEntry("x", ENTRY.path, sources=(DECLARED,), size=13), "13 bytes instead of 12"),
    ],
)
def test_a_lock_that_the_manifest_left_behind_is_told_and_not_asked(entry: ModelEntry, said: str) -> None:
    (problem,) = stale(LOCK, Manifest("m.yaml", (entry,)))
    assert problem.at == "models.x"
    assert said in problem.what
    got = wanted(entry, LOCK)
    assert (got.sources, got.size, got.sha256, got.locked) == (entry.sources, entry.size, entry.sha256, False)


def test_what_was_never_locked_or_only_moved_is_not_stale() -> None:
    moved = ModelEntry("x", PurePosixPath("loras/y.safetensors"), sources=(DECLARED, CIVITAI), sha256=SHA)
    new = ModelEntry("new", PurePosixPath("loras/n"), sources=(DECLARED,))
    assert stale(LOCK, Manifest("m.yaml", (moved, new), (PACK, PackEntry("New", PACK.repo)))) == []
    assert wanted(moved, LOCK).locked


def test_a_pack_is_wanted_at_the_commit_of_the_manifest_or_of_the_lock() -> None:
    pinned = PackEntry("Pack", PACK.repo, OTHER_COMMIT)
    moved = PackEntry("Pack", "https://host/other/pack")
    assert wanted_commit(PACK, LOCK) == COMMIT
    assert wanted_commit(pinned, LOCK) == OTHER_COMMIT
    assert wanted_commit(moved, LOCK) is None
    assert wanted_commit(PACK, Lock()) is None
    for pack in (pinned, moved):
        assert [problem.at for problem in stale(LOCK, Manifest("m.yaml", custom_nodes=(pack,)))] == [
            "custom_nodes.Pack"
        ]


def test_a_locked_entry_holds_what_the_host_said_and_else_what_the_manifest_says() -> None:
    entry = ModelEntry("x", ENTRY.path, sources=(DECLARED,), size=12, sha256=SHA, license="mine")
    resolved = Resolved(PINNED, size=12, format="safetensors", license="mit", gated=True)
    assert Locked.of(entry, DECLARED, resolved) == Locked(
        ENTRY.path, DECLARED, PINNED, 12, SHA, "safetensors", "mine", True
    )


@pytest.mark.parametrize("asked", [None, (), ("numpy>=1.26; python_version < '3.13'", "git+https://host/a.git#egg=a")])
def test_a_pack_s_requirements_come_back_as_they_were_locked(asked: tuple[str, ...] | None) -> None:
    lock = Lock(packs={"Pack": LockedPack.of(PACK.repo, COMMIT, asked)})
    assert lock.packs["Pack"].requirements == asked
    assert parse_lock(lock_text(lock), name="m.lock") == lock


def test_requirements_with_a_key_in_them_are_not_locked_at_all() -> None:
    asked = ["numpy", "git+https://hf_" + "x" * 30 + "@host/a.git"]
    assert LockedPack.of(PACK.repo, COMMIT, asked).requirements is None


def test_what_manifest_lock_and_folder_say_of_requirements_is_one_list() -> None:
    lock = Lock(packs={"Pack": LockedPack(PACK.repo, COMMIT, ("numpy", "scipy"))})
    says = PackEntry("Pack", PACK.repo, requirements=("pillow", "numpy"))
    assert asked_of_pip(PACK, Lock()) is None
    assert asked_of_pip(PACK, Lock(), ()) == ()
    assert asked_of_pip(PACK, lock) == ("numpy", "scipy")
    assert asked_of_pip(says, lock, ("scipy", "onnx")) == ("pillow", "numpy", "scipy", "onnx")
    pinned = PackEntry("Pack", PACK.repo, OTHER_COMMIT)
    assert asked_of_pip(pinned, lock) is None, "what another commit asks for says nothing of this one"

"""The stories of a sync beyond models on a volume: into buckets, from a mirror, and node packs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from morpheus_worker.manifest import ModelEntry, PackEntry
from morpheus_worker.sync.buckets import Buckets
from morpheus_worker.sync.locking import Lock, LockedPack
from morpheus_worker.sync.packs import PackReceipt, fetch_pack
from morpheus_worker.sync.refs import PackRef
from morpheus_worker.sync.terms import Event, Receipt, SyncCode, SyncError
from morpheus_worker.syncing.adopting import adopt
from morpheus_worker.syncing.asking import MOST_SILENT
from morpheus_worker.syncing.describing import described
from morpheus_worker.syncing.foreseeing import plan
from morpheus_worker.syncing.outcomes import Summary
from morpheus_worker.syncing.pruning import prune
from morpheus_worker.syncing.resolving import resolve_all
from morpheus_worker.syncing.running import sync, sync_one
from morpheus_worker.syncing.standing import status
from morpheus_worker.syncing.verifying import verify
from tests.integration.git_server import GitServer, Repository, git
from tests.integration.model_server import ModelServer, bit_flip
from tests.integration.s3_server import ACCESS_KEY, SECRET_KEY, Bucket, new_bucket, sdk_of_nobody
from tests.integration.syncs import Volume, entry, safetensors

LARGE, OTHER = safetensors(600_000, 2), safetensors(600_000, 3)


@pytest.fixture(autouse=True)
def _no_aws_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    sdk_of_nobody(monkeypatch)


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as running:
        yield running


@pytest.fixture
def bucket() -> Bucket:
    return new_bucket()


@pytest.fixture
def volume(tmp_path: Path, bucket: Bucket) -> Volume:
    keys = {"MORPHEUS_MODELS_ACCESS_KEY_ID": ACCESS_KEY, "MORPHEUS_MODELS_SECRET_ACCESS_KEY": SECRET_KEY}
    return Volume(tmp_path / "volume", {"MORPHEUS_MODELS_ENDPOINT_URL": bucket.url, **keys})


# Buckets.


def test_a_bucket_gets_the_file_and_its_receipt_and_the_volume_nothing(
    server: ModelServer, volume: Volume, bucket: Bucket
) -> None:
    wanted = entry("model", server.file("/model", LARGE), content=LARGE)
    outcome = volume.one(wanted, destination=f"s3://{bucket.name}/some/prefix/")
    assert outcome.action == "fetched", outcome.error
    assert outcome.uri == f"s3://{bucket.name}/some/prefix/checkpoints/model.safetensors"
    assert bucket.read("some/prefix/checkpoints/model.safetensors") == LARGE
    keys = bucket.keys()
    assert any(key.startswith("some/prefix/.morpheus/receipts/") for key in keys)
    assert not volume.cache.exists()
    assert volume.kinds("model") == ["started", "published"]


def test_what_is_in_the_bucket_is_not_sent_again(server: ModelServer, volume: Volume, bucket: Bucket) -> None:
    wanted = entry("model", server.file("/model", LARGE), content=LARGE)
    volume.one(wanted, destination=f"s3://{bucket.name}/p")
    asked = len(server.requests)
    outcome = volume.one(wanted, destination=f"s3://{bucket.name}/p")
    assert (outcome.action, outcome.receipt and outcome.receipt.sha256) == ("present", wanted.sha256)
    assert len(server.requests) == asked


def test_what_is_not_the_wanted_version_is_sent_anew(server: ModelServer, volume: Volume, bucket: Bucket) -> None:
    volume.one(entry("model", server.file("/other", OTHER), content=OTHER), destination=f"s3://{bucket.name}/p")
    wanted = entry("model", server.file("/model", LARGE), content=LARGE)
    assert volume.one(wanted, destination=f"s3://{bucket.name}/p").action == "fetched"
    assert bucket.read("p/checkpoints/model.safetensors") == LARGE


@pytest.mark.parametrize(
    ("theirs", "receipted"), [(OTHER, False), (LARGE[:1000], False), (LARGE[:1000], True)],
    ids=["of the same size", "of another size", "in place of a file of ours"],
)  # fmt: skip
def test_what_somebody_else_put_into_the_bucket_is_not_replaced_unasked(
    server: ModelServer, volume: Volume, bucket: Bucket, theirs: bytes, receipted: bool
) -> None:
    wanted, place = entry("model", server.file("/model", LARGE), content=LARGE), f"s3://{bucket.name}/p"
    if receipted:
        volume.one(wanted, destination=place)
    bucket.put("p/checkpoints/model.safetensors", theirs)
    error = volume.one(wanted, destination=place).error
    assert error is not None
    assert error.code is SyncCode.CONFLICT
    assert "--replace" in str(error)
    with volume.work(wanted) as work:
        assert [action.what for action in plan(work, work.select(), destination=place).actions] == ["refuse"]
    assert bucket.read("p/checkpoints/model.safetensors") == theirs
    assert volume.one(wanted, destination=place, replace=True).action == "fetched"
    assert bucket.read("p/checkpoints/model.safetensors") == LARGE


@pytest.mark.parametrize("theirs", [OTHER, LARGE], ids=["another file", "the same file, sent by a sync"])
def test_what_somebody_put_there_while_it_was_fetched_is_not_replaced_unasked(
    server: ModelServer, volume: Volume, bucket: Bucket, theirs: bytes
) -> None:
    wanted, place = entry("model", server.file("/model", LARGE), content=LARGE), f"s3://{bucket.name}/p"

    def meanwhile(event: Event) -> None:
        if event.kind == "started" and theirs == LARGE:
            Volume(volume.root, volume.environment).one(wanted, destination=place)
        elif event.kind == "started":
            bucket.put("p/checkpoints/model.safetensors", theirs)

    with volume.work(wanted) as work:
        summary = sync(work, work.select(), destination=place, on_event=meanwhile, stop=volume.stop)
    outcome = summary.outcomes["model"]
    if theirs == LARGE:
        assert (outcome.action, outcome.error) == ("present", None)
    else:
        assert outcome.error is not None
        assert outcome.error.code is SyncCode.CONFLICT
        assert "--replace" in str(outcome.error)
    assert bucket.read("p/checkpoints/model.safetensors") == theirs


def test_what_was_taken_over_by_its_size_alone_is_not_replaced_unasked(
    server: ModelServer, volume: Volume, bucket: Bucket
) -> None:
    place = f"s3://{bucket.name}/p"
    bucket.put("p/checkpoints/model.safetensors", OTHER)
    wanted = entry("model", server.file("/model", LARGE), content=LARGE)
    with volume.work(wanted) as work:
        # As another machine writes it, which has the bucket as its volume.
        work.buckets.put_receipt(place, Receipt(wanted.path, len(OTHER), 0, None, by="adopt"))
    error = volume.one(wanted, destination=place).error
    assert error is not None
    assert error.code is SyncCode.CONFLICT
    assert bucket.read("p/checkpoints/model.safetensors") == OTHER


def test_what_was_sent_and_lacks_only_its_receipt_is_not_sent_again(
    server: ModelServer, volume: Volume, bucket: Bucket
) -> None:
    wanted, place = entry("model", server.file("/model", LARGE), content=LARGE), f"s3://{bucket.name}/p"
    volume.one(wanted, destination=place)
    keys = bucket.keys()
    (receipt,) = [key for key in keys if "/receipts/" in key]
    bucket.client.delete_object(Bucket=bucket.name, Key=receipt)
    asked = len(server.requests)
    assert [volume.one(wanted, destination=place).action for _ in range(2)] == ["adopted", "present"]
    assert len(server.requests) == asked


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"<!DOCTYPE html><html><body>Log in</body></html>", "is a web page"), (LARGE[:-1], "bytes"), (b"", "is empty")],
    ids=["a page", "cut", "empty"],
)
def test_an_object_that_cannot_be_the_file_is_in_the_way_though_nobody_knows_its_hash(
    server: ModelServer, volume: Volume, bucket: Bucket, content: bytes, said: str
) -> None:
    wanted, place = entry("model", server.file("/model", LARGE)), f"s3://{bucket.name}/p"
    bucket.put("p/checkpoints/model.safetensors", content)
    error = volume.one(wanted, destination=place).error
    assert error is not None
    assert error.code is SyncCode.CONFLICT
    assert said in error.what
    assert volume.one(wanted, destination=place, replace=True).action == "fetched"
    assert bucket.read("p/checkpoints/model.safetensors") == LARGE


def test_an_object_of_the_size_that_its_source_says_is_left_and_not_called_verified(
    server: ModelServer, volume: Volume, bucket: Bucket
) -> None:
    wanted, place = entry("model", server.file("/model", LARGE)), f"s3://{bucket.name}/p"
    bucket.put("p/checkpoints/model.safetensors", OTHER)
    outcome = volume.one(wanted, destination=place)
    assert (outcome.action, outcome.receipt) == ("unverified", None)
    assert "knows no hash" in outcome.why
    silent = entry("model", server.url("/none"))
    assert "/none" in volume.one(silent, destination=place).why
    assert volume.one(silent, destination=place, replace=True).error is not None
    assert bucket.read("p/checkpoints/model.safetensors") == OTHER
    assert volume.one(wanted, destination=place, replace=True).action == "fetched"
    assert bucket.read("p/checkpoints/model.safetensors") == LARGE


def test_an_object_whose_hash_the_store_and_its_source_know_is_taken_over(
    server: ModelServer, volume: Volume, bucket: Bucket
) -> None:
    place = f"s3://{bucket.name}/p"
    volume.one(entry("model", server.file("/model", LARGE), content=LARGE), destination=place)
    keys = bucket.keys()
    (receipt,) = [key for key in keys if "/receipts/" in key]
    bucket.client.delete_object(Bucket=bucket.name, Key=receipt)
    server.hf("owner/name", "model.safetensors", LARGE)
    volume.environment = {**volume.environment, "HF_ENDPOINT": server.hf_endpoint}
    wanted = entry("model", {"kind": "hf", "repo": "owner/name", "file": "model.safetensors"})
    sent = server.bytes_sent
    outcomes = [volume.one(wanted, destination=place) for _ in range(2)]
    assert [outcome.action for outcome in outcomes] == ["adopted", "present"]
    assert server.bytes_sent == sent
    bucket.client.delete_object(Bucket=bucket.name, Key=receipt)
    server.hf("owner/name", "model.safetensors", OTHER)
    error = volume.one(wanted, destination=place).error
    assert error is not None
    assert error.code is SyncCode.CONFLICT


def test_node_packs_are_left_out_of_a_bucket_and_said_so_or_refused_where_they_were_named(
    server: ModelServer, volume: Volume, bucket: Bucket
) -> None:
    pack, place = PackEntry("Pack", "https://example.com/o/Pack", "1" * 40, ("w",)), f"s3://{bucket.name}/p"
    model = entry("model", server.file("/model", LARGE), content=LARGE, workflows=("w",))
    with volume.work(model, custom_nodes=(pack,)) as work:
        for selection in (work.select(), work.select([], "w"), work.select(["model"], "w")):
            made = plan(work, selection, destination=place)
            assert (made.left_out, made.as_dict()["left_out"], made.ok) == (("Pack",), ["Pack"], True)
        for named in (work.select(["Pack", "model"]), work.select(["Pack"], "w")):
            with pytest.raises(SyncError) as planned:
                plan(work, named, destination=place)
            with pytest.raises(SyncError) as synced:
                sync(work, named, destination=place, on_event=volume.events.append, stop=volume.stop)
            for caught in (planned, synced):
                assert caught.value.code is SyncCode.INVALID
                assert "'Pack'" in str(caught.value)
        assert server.requests == []
        assert bucket.keys() == []
        summary = sync(work, work.select(), destination=place, on_event=volume.events.append, stop=volume.stop)
        assert (summary.ok, summary.left_out, summary.as_dict()["left_out"]) == (True, ("Pack",), ["Pack"])
        assert list(summary.outcomes) == ["model"]
        assert plan(work, work.select()).left_out == ()


def test_an_object_is_no_source_of_itself(server: ModelServer, volume: Volume, bucket: Bucket) -> None:
    place = f"s3://{bucket.name}/p"
    bucket.put("p/checkpoints/model.safetensors", OTHER)
    volume.environment = {**volume.environment, "MORPHEUS_MODELS_MIRROR": place}
    wanted = entry("model", server.url("/none"), content=LARGE)
    lonely = entry("model", {"kind": "s3", "uri": f"{place}/checkpoints/model.safetensors"}, content=LARGE)
    for each in (wanted, lonely):
        error = volume.one(each, destination=place, replace=True).error
        assert error is not None
        assert "the very object" in error.what
    assert bucket.read("p/checkpoints/model.safetensors") == OTHER


def test_a_wrong_file_never_gets_into_the_bucket(server: ModelServer, volume: Volume, bucket: Bucket) -> None:
    wrong = server.file("/wrong", LARGE, faults=[bit_flip(300_000)])
    page = server.file("/page", b"<!DOCTYPE html><html></html>")
    summary = volume.sync(
        entry("wrong", wrong, content=LARGE), entry("page", page), destination=f"s3://{bucket.name}/p"
    )
    errors = [outcome.error for outcome in summary.failed]
    assert [error and error.code for error in errors] == [SyncCode.REJECTED, SyncCode.REJECTED]
    assert bucket.keys() == []
    assert bucket.unfinished() == []


def test_a_source_is_tried_after_another_for_a_bucket_too(server: ModelServer, volume: Volume, bucket: Bucket) -> None:
    wrong = server.file("/wrong", LARGE, faults=[bit_flip(300_000)])
    wanted = entry("model", wrong, server.file("/good", LARGE), content=LARGE)
    assert volume.one(wanted, destination=f"s3://{bucket.name}/p").action == "fetched"
    assert bucket.read("p/checkpoints/model.safetensors") == LARGE


def test_one_file_under_a_name_of_its_own(server: ModelServer, volume: Volume, bucket: Bucket) -> None:
    wanted = entry("model", server.file("/model", LARGE), content=LARGE)
    with volume.work(wanted) as work:
        for expected in ("fetched", "present"):
            outcome = sync_one(
                work,
                work.wanted(wanted),
                destination=f"s3://{bucket.name}/p",
                key="models/name/1.safetensors",
                on_event=volume.events.append,
                stop=volume.stop,
            )
            assert (outcome.action, outcome.uri) == (expected, f"s3://{bucket.name}/p/models/name/1.safetensors")
    assert bucket.read("p/models/name/1.safetensors") == LARGE


def test_a_mirror_comes_first_and_one_that_lacks_it_does_not_matter(
    server: ModelServer, volume: Volume, bucket: Bucket
) -> None:
    mirrored = entry("mirrored", server.file("/mirrored", LARGE), content=LARGE)
    lacking = entry("lacking", server.file("/lacking", OTHER), content=OTHER)
    volume.one(mirrored, destination=f"s3://{bucket.name}/mirror")
    asked = len(server.requests)
    volume.environment = {**volume.environment, "MORPHEUS_MODELS_MIRROR": f"s3://{bucket.name}/mirror"}
    summary = volume.sync(mirrored, lacking)
    assert summary.ok
    assert {request.path for request in server.requests[asked:]} == {"/lacking"}
    receipt = summary.outcomes["mirrored"].receipt
    assert receipt is not None
    assert receipt.source["kind"] == "s3"
    assert volume.at(mirrored).read_bytes() == LARGE


@pytest.mark.parametrize(("by_hand", "action"), [(True, "adopted"), (False, "fetched")])
def test_a_mirror_that_does_not_answer_is_not_waited_for_hundreds_of_times(
    server: ModelServer, volume: Volume, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, by_hand: bool, action: str
) -> None:
    asked: list[PurePosixPath] = []

    def away(_: Buckets, __: str, path: PurePosixPath) -> None:
        asked.append(path)
        raise SyncError(SyncCode.UNREACHABLE, "does not answer")

    monkeypatch.setattr(Buckets, "mirror", away)
    mirror = {"MORPHEUS_MODELS_MIRROR": f"s3://{bucket.name}/mirror", "MORPHEUS_SYNC_FILES": "1"}
    volume.environment = {**volume.environment, **mirror}
    entries = [entry(f"m{number}", server.file(f"/m{number}", LARGE)) for number in range(MOST_SILENT + 4)]
    for each in entries if by_hand else ():
        volume.put(str(each.path), LARGE)
    summary = volume.sync(*entries)
    assert {outcome.action for outcome in summary.outcomes.values()} == {action}
    assert len(asked) == MOST_SILENT


def test_a_mirror_that_has_another_version_gives_way(server: ModelServer, volume: Volume, bucket: Bucket) -> None:
    volume.one(entry("model", server.file("/other", OTHER), content=OTHER), destination=f"s3://{bucket.name}/mirror")
    volume.environment = {**volume.environment, "MORPHEUS_MODELS_MIRROR": f"s3://{bucket.name}/mirror"}
    wanted = entry("model", server.file("/model", LARGE), content=LARGE)
    assert volume.one(wanted).action == "fetched"
    assert volume.at(wanted).read_bytes() == LARGE


def test_a_plan_for_a_bucket_looks_there(server: ModelServer, volume: Volume, bucket: Bucket) -> None:
    there = entry("there", server.file("/there", LARGE), content=LARGE)
    absent = entry("absent", server.file("/absent", OTHER), content=OTHER)
    volume.one(there, destination=f"s3://{bucket.name}/p")
    with volume.work(there, absent) as work:
        made = plan(work, work.select(), destination=f"s3://{bucket.name}/p")
    assert {action.id: action.what for action in made.actions} == {"there": "present", "absent": "get"}
    assert (made.bytes, made.free, made.fits) == (len(OTHER), None, True)


# Node packs.

FILES = {"__init__.py": "NODE_CLASS_MAPPINGS = {}\n", "requirements.txt": "numpy>=1.26\n"}

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with GitServer(tmp_path / "repositories") as running:
        yield running.repository("pack", FILES)


def packs_synced(volume: Volume, pack: PackEntry, *models: ModelEntry, lock: Lock | None = None) -> Summary:
    volume.events.clear()
    with volume.work(*models, custom_nodes=(pack,), lock=lock) as work:
        return sync(work, work.select(), on_event=volume.events.append, stop=volume.stop)


@needs_git
def test_a_pack_comes_alongside_the_models_at_the_locked_commit(
    server: ModelServer, volume: Volume, repository: Repository
) -> None:
    pack, first = PackEntry("Pack", repository.url), git(repository.folder, "rev-parse", "HEAD")
    model = entry("model", server.file("/model", LARGE), content=LARGE)
    repository.commit({"later.py": "x = 1\n"})
    summary = packs_synced(volume, pack, model, lock=Lock(packs={"Pack": LockedPack(repository.url, first)}))
    assert summary.ok
    assert dict(summary.requirements) == {"Pack": ("numpy>=1.26",)}
    assert {path.name for path in (volume.cache / "Pack").iterdir()} == set(FILES)
    assert volume.kinds("Pack") == ["started", "published"]
    assert not volume.own("leases")
    again = packs_synced(volume, pack, model, lock=Lock(packs={"Pack": LockedPack(repository.url, first)}))
    assert {outcome.action for outcome in again.outcomes.values()} == {"present"}
    assert dict(again.requirements) == dict(summary.requirements)


@needs_git
def test_a_pack_that_was_cloned_by_hand_stays_and_can_be_adopted(volume: Volume, repository: Repository) -> None:
    volume.cache.mkdir(parents=True)
    git(volume.cache, "clone", "--quiet", str(repository.folder), "Pack")
    pack = PackEntry("Pack", repository.url)
    assert packs_synced(volume, pack).outcomes["Pack"].action == "unverified"
    with volume.work(custom_nodes=(pack,)) as work:
        assert [each.state for each in status(work, work.select())] == ["unreceipted"]
        report = adopt(work, on_event=volume.events.append, stop=volume.stop)
        assert [(file.id, file.what) for file in report.files] == [("Pack", "adopted")]
        assert verify(work, work.select(), full=True, on_event=volume.events.append, stop=volume.stop).ok
    (volume.cache / "Pack/__init__.py").write_text("other")
    with volume.work(custom_nodes=(pack,)) as work:
        found = verify(work, work.select(), full=True, on_event=volume.events.append, stop=volume.stop)
    assert [(finding.id, finding.what) for finding in found.findings] == [("Pack", "corrupt")]


@needs_git
def test_a_pack_that_no_entry_names_is_pruned_and_one_by_hand_is_not(volume: Volume, repository: Repository) -> None:
    packs_synced(volume, PackEntry("Pack", repository.url))
    volume.put("ByHand/__init__.py", b"pass")
    with volume.work() as work:
        report = prune(work, delete=True)
    assert [str(item.path) for item in report.items] == ["Pack"]
    assert not (volume.cache / "Pack").exists()
    assert (volume.cache / "ByHand/__init__.py").exists()
    with volume.work() as work:
        assert prune(work, delete=True, unlisted=True).items == ()


@needs_git
def test_a_pack_that_somebody_works_in_is_not_pruned_unasked(volume: Volume, repository: Repository) -> None:
    packs_synced(volume, PackEntry("Pack", repository.url))
    mine = volume.put("Pack/wildcards/mine.txt", b"mine")
    with volume.work() as work:
        assert prune(work, delete=True).items == ()
        assert mine.exists()
        assert [str(item.path) for item in prune(work, delete=True, unlisted=True).items] == ["Pack"]
    assert not mine.exists()


@needs_git
def test_the_receipt_of_a_pack_that_is_gone_is_pruned(volume: Volume, repository: Repository) -> None:
    packs_synced(volume, PackEntry("Pack", repository.url))
    shutil.rmtree(volume.cache / "Pack")
    with volume.work() as work:
        assert prune(work, delete=True).ok
        assert prune(work, delete=True).items == ()


@needs_git
def test_a_pack_that_finds_no_room_beside_the_models_is_tried_again(
    server: ModelServer, volume: Volume, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = [SyncError(SyncCode.NO_SPACE, "the volume is full")]

    def fetched(*args: Any, **more: Any) -> PackReceipt:
        if refusals:
            raise refusals.pop()
        return fetch_pack(*args, **more)

    monkeypatch.setattr("morpheus_worker.syncing.packing.fetch_pack", fetched)
    model = entry("model", server.file("/model", LARGE), content=LARGE)
    assert packs_synced(volume, PackEntry("Pack", repository.url), model).ok
    assert "waiting" in volume.kinds("Pack")


@needs_git
def test_packs_are_locked_and_described_at_their_newest_commit(volume: Volume, repository: Repository) -> None:
    head = git(repository.folder, "rev-parse", "HEAD")
    with volume.work(custom_nodes=(PackEntry("Pack", repository.url),)) as work:
        lock, failures = resolve_all(work, work.select(), volume.events.append)
        found = described(work, PackRef("New", repository.url), workflows=["w"])
    assert failures == []
    assert lock.packs == {"Pack": LockedPack(repository.url, head)}
    assert found == PackEntry("New", repository.url, head, ("w",))


@needs_git
def test_what_a_pack_asks_pip_for_is_locked_once_it_is_there(volume: Volume, repository: Repository) -> None:
    pack = PackEntry("Pack", repository.url)

    def locked(before: Lock) -> Lock:
        with volume.work(custom_nodes=(pack,), lock=before) as work:
            return resolve_all(work, work.select(), volume.events.append)[0]

    first = locked(Lock())
    assert first.packs["Pack"].requirements is None, "nobody has looked into it"
    assert packs_synced(volume, pack, lock=first).ok
    second = locked(first)
    assert second.packs["Pack"].requirements == ("numpy>=1.26",)
    shutil.rmtree(volume.cache / "Pack")
    assert locked(second) == second, "of the same commit, it is as true as before"
    with volume.work(custom_nodes=(pack,), lock=second) as work:
        (found,) = status(work, work.select())
    assert (found.state, found.requirements) == ("absent", ("numpy>=1.26",))

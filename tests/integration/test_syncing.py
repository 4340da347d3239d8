"""The stories of a sync, end to end: a volume, a manifest, hosts on loopback."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from morpheus_worker.manifest import ModelEntry
from morpheus_worker.sync.cache import hold, key_of
from morpheus_worker.sync.locking import wanted
from morpheus_worker.sync.terms import Event, Receipt, SyncCode, SyncError
from morpheus_worker.syncing.adopting import adopt
from morpheus_worker.syncing.describing import described
from morpheus_worker.syncing.foreseeing import plan
from morpheus_worker.syncing.pruning import prune
from morpheus_worker.syncing.resolving import resolve_all
from morpheus_worker.syncing.running import sync, sync_one
from morpheus_worker.syncing.standing import status
from morpheus_worker.syncing.verifying import verify
from tests.integration.model_server import COMMIT, ModelServer, stalled
from tests.integration.model_server import status as answers
from tests.integration.syncs import BEATS, QUICK, Volume, entry, safetensors, sha256_of

SMALL, LARGE, OTHER = safetensors(3000, 1), safetensors(600_000, 2), safetensors(600_000, 3)


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as running:
        yield running


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return Volume(tmp_path / "volume")


def failed(volume: Volume, wanted: ModelEntry, **more: object) -> SyncError:
    outcome = volume.one(wanted, **more)
    assert outcome.error is not None
    assert (outcome.action, outcome.uri, outcome.ok) == ("failed", "", False)
    assert volume.kinds(wanted.id)[-1] == "failed"
    return outcome.error


# One model.


def test_a_file_is_fetched_verified_and_published_with_a_receipt(server: ModelServer, volume: Volume) -> None:
    wanted = entry("large", server.file("/large.safetensors", LARGE), content=LARGE)
    summary = volume.sync(wanted)
    outcome = summary.outcomes["large"]
    assert summary.ok
    assert (outcome.action, outcome.uri) == ("fetched", str(volume.at(wanted)))
    assert outcome.received == len(LARGE)
    assert volume.at(wanted).read_bytes() == LARGE
    assert outcome.receipt is not None
    assert outcome.receipt.sha256 == wanted.sha256
    assert outcome.receipt.mtime_ns == volume.at(wanted).stat().st_mtime_ns
    assert volume.kinds("large") == ["started", "verifying", "published"]
    assert not volume.own("parts")
    assert not volume.own("leases")


def test_what_is_there_costs_no_request_no_hash_and_one_stat(
    server: ModelServer, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = [
        entry(f"m{number}", server.file(f"/{number}", content), content=content)
        for number in range(20)
        for content in [safetensors(1000, number)]
    ]
    assert volume.sync(*entries).ok
    asked = len(server.requests)
    looks: list[str] = []
    really = os.stat

    def counted(path: object, *args: object, **more: object) -> os.stat_result:
        looks.append(str(path))
        return really(path, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", counted)
    monkeypatch.setattr(os, "lstat", counted)
    opened: list[str] = []
    monkeypatch.setattr("morpheus_worker.syncing.obtaining.hashed", lambda path, **_: opened.append(path))
    summary = volume.sync(*entries)
    assert summary.ok
    assert {outcome.action for outcome in summary.outcomes.values()} == {"present"}
    assert len(server.requests) == asked
    assert opened == []
    assert len([path for path in looks if path.endswith(".safetensors")]) == len(entries)
    assert len(looks) < 3 * len(entries)


def test_the_next_run_writes_nothing_when_all_is_there(server: ModelServer, volume: Volume) -> None:
    wanted = entry("small", server.file("/small", SMALL), content=SMALL)
    volume.sync(wanted)
    before = {path: path.stat().st_mtime_ns for path in volume.cache.rglob("*")}
    assert volume.one(wanted).action == "present"
    assert {path: path.stat().st_mtime_ns for path in volume.cache.rglob("*")} == before


def test_the_hash_that_the_host_tells_is_enough(server: ModelServer, volume: Volume) -> None:
    server.hf("owner/name", "model.safetensors", LARGE)
    volume.environment = {"HF_ENDPOINT": server.hf_endpoint}
    wanted = entry("hf", {"kind": "hf", "repo": "owner/name", "file": "model.safetensors"})
    outcome = volume.one(wanted)
    assert outcome.receipt is not None
    assert outcome.receipt.sha256 == sha256_of(LARGE)
    assert outcome.receipt.source["revision"] == COMMIT


def test_a_receipt_of_another_version_makes_room_for_the_wanted_one(server: ModelServer, volume: Volume) -> None:
    url = server.file("/model", LARGE)
    volume.sync(entry("model", url, content=LARGE))
    server.file("/model", OTHER)
    outcome = volume.one(entry("model", url, content=OTHER))
    assert outcome.action == "fetched"
    assert Path(outcome.uri).read_bytes() == OTHER


def test_the_host_has_another_version_than_the_lock(server: ModelServer, volume: Volume) -> None:
    wanted = entry("model", server.file("/model", safetensors(5000)), content=LARGE)
    error = failed(volume, wanted)
    assert error.code is SyncCode.CHANGED
    assert "morpheus models lock" in str(error)
    assert not volume.finals()


def test_a_source_that_fails_gives_way_to_the_next_and_is_named(server: ModelServer, volume: Volume) -> None:
    good = server.file("/good", LARGE)
    wanted = entry("model", server.url("/missing"), good, content=LARGE)
    assert volume.one(wanted).action == "fetched"
    (event,) = [event for event in volume.events if event.kind == "next_source"]
    assert event.code == "not_found"
    assert "/missing" in event.message
    assert event.details["next"].endswith("/good")


def test_when_no_source_has_it_the_error_names_each_and_what_it_said(server: ModelServer, volume: Volume) -> None:
    denied = server.file("/denied", LARGE, faults=[answers(403).on("GET", "HEAD")])
    wanted = entry("model", server.url("/missing"), denied, {"kind": "file", "path": "/nowhere/model"}, content=LARGE)
    error = failed(volume, wanted)
    assert error.code is SyncCode.ACCESS_DENIED
    for said in ("/missing", "/denied", "/nowhere/model"):
        assert said in error.what


def test_an_entry_without_a_source_says_so(volume: Volume) -> None:
    error = failed(volume, entry("lonely"))
    assert (error.code, error.what) == (SyncCode.INVALID, "has no source")


def test_a_pickle_is_refused_before_anything_is_asked(server: ModelServer, volume: Volume) -> None:
    wanted = entry("bad", server.file("/bad", LARGE), format="pickle", path="checkpoints/bad.ckpt")
    error = failed(volume, wanted)
    assert error.code is SyncCode.REJECTED
    assert "allow_pickle" in str(error)
    assert server.requests == []


def test_a_web_page_is_rejected_and_the_next_source_used(server: ModelServer, volume: Volume) -> None:
    page = b"<!DOCTYPE html><html><body>Please log in to download this model</body></html>"
    liar = server.file("/login", page)
    wanted = entry("model", liar, server.file("/good", LARGE))
    assert volume.one(wanted).action == "fetched"
    assert volume.at(wanted).read_bytes() == LARGE


def test_one_entry_that_fails_leaves_the_others_alone(server: ModelServer, volume: Volume) -> None:
    good, bad = entry("good", server.file("/good", SMALL), content=SMALL), entry("bad", server.url("/none"))
    summary = volume.sync(bad, good)
    assert not summary.ok
    assert [outcome.id for outcome in summary.failed] == ["bad"]
    assert summary.outcomes["good"].action == "fetched"
    assert list(summary.outcomes) == ["bad", "good"]


def test_a_failure_that_nobody_foresaw_ends_its_entry_alone(
    server: ModelServer, volume: Volume, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("morpheus_worker.syncing.obtaining.download", broken)
    error = failed(volume, entry("model", server.file("/model", SMALL), content=SMALL))
    assert error.code is SyncCode.INTERNAL
    assert "a bug" in caplog.text


def test_without_a_volume_nothing_is_written(tmp_path: Path) -> None:
    volume = Volume(tmp_path / "volume")
    volume.root.rmdir()
    with pytest.raises(SyncError) as caught:
        volume.sync(entry("model", "https://example.com/model"))
    assert caught.value.code is SyncCode.VOLUME
    assert not volume.root.exists()


# A file that lies there already.


def test_a_file_put_there_by_hand_is_hashed_once_and_taken_over(server: ModelServer, volume: Volume) -> None:
    wanted = entry("model", server.file("/model", LARGE), content=LARGE)
    volume.put("checkpoints/model.safetensors", LARGE)
    assert volume.one(wanted).action == "adopted"
    assert volume.one(wanted).action == "present"
    assert server.requests == []


def test_another_file_in_its_place_is_a_conflict_unless_it_is_to_be_replaced(
    server: ModelServer, volume: Volume
) -> None:
    wanted = entry("model", server.file("/model", LARGE), content=LARGE)
    place = volume.put("checkpoints/model.safetensors", OTHER)
    error = failed(volume, wanted)
    assert error.code is SyncCode.CONFLICT
    assert "--replace" in str(error)
    assert place.read_bytes() == OTHER
    assert volume.one(wanted, replace=True).action == "fetched"
    assert place.read_bytes() == LARGE


def test_a_file_of_another_size_is_a_conflict_without_reading_it(server: ModelServer, volume: Volume) -> None:
    wanted = entry("model", server.file("/model", LARGE), content=LARGE)
    volume.put("checkpoints/model.safetensors", SMALL)
    assert failed(volume, wanted).code is SyncCode.CONFLICT
    assert volume.kinds("model") == ["failed"]


def test_a_file_that_was_only_touched_keeps_its_receipt(server: ModelServer, volume: Volume) -> None:
    wanted = entry("model", server.file("/model", LARGE))
    volume.sync(wanted)
    os.utime(volume.at(wanted), (1, 1))
    asked = len(server.requests)
    outcome = volume.one(wanted)
    assert outcome.action == "adopted"
    assert outcome.receipt is not None
    assert outcome.receipt.source["kind"] == "https"
    assert volume.one(wanted).action == "present"
    assert len(server.requests) == asked


def test_a_file_that_somebody_changed_after_it_was_fetched_is_a_conflict(server: ModelServer, volume: Volume) -> None:
    wanted = entry("model", server.file("/model", LARGE))
    volume.sync(wanted)
    volume.at(wanted).write_bytes(OTHER)
    os.utime(volume.at(wanted), (1, 1))
    assert failed(volume, wanted).code is SyncCode.CONFLICT
    assert volume.at(wanted).read_bytes() == OTHER


@pytest.mark.parametrize("asked", [False, True], ids=["unasked", "with --replace"])
def test_what_somebody_puts_there_while_the_new_version_comes_is_not_replaced_unasked(
    server: ModelServer, volume: Volume, asked: bool
) -> None:
    url = server.file("/model", LARGE)
    wanted = entry("model", url, content=LARGE)
    volume.sync(wanted)
    slow = threading.Event()
    server.file("/model", OTHER, faults=[stalled(20_000, slow).after(2)])
    newer = entry("model", url, content=OTHER)

    def put_mine() -> None:
        server.wait_for_bytes(len(LARGE) + 50_000)
        volume.at(wanted).write_bytes(SMALL)
        slow.set()

    mine = threading.Thread(target=put_mine)
    mine.start()
    outcome = volume.one(newer, replace=asked)
    mine.join()
    assert volume.at(wanted).read_bytes() == (OTHER if asked else SMALL)
    assert outcome.ok == asked
    if outcome.error is not None:
        assert outcome.error.code is SyncCode.CONFLICT
        sent = server.bytes_sent
        assert volume.one(newer, replace=True).ok
        assert server.bytes_sent - sent < len(OTHER) / 2


def test_a_file_that_was_hashed_later_keeps_its_source(server: ModelServer, volume: Volume) -> None:
    url = server.file("/model", LARGE)
    volume.sync(entry("model", url), hashing=False)
    outcome = volume.one(entry("model", url, content=LARGE))
    assert outcome.receipt is not None
    assert (outcome.action, outcome.receipt.by, outcome.receipt.source["url"]) == ("adopted", "sync", url)
    assert outcome.receipt.sha256 == sha256_of(LARGE)


def test_a_request_never_takes_the_place_of_the_manifests_file(server: ModelServer, volume: Volume) -> None:
    listed = entry("listed", server.file("/listed", LARGE), content=LARGE)
    asked = entry("listed", server.file("/asked", OTHER), content=OTHER, path=str(listed.path))
    volume.sync(listed)
    with volume.work(listed) as work:
        with pytest.raises(SyncError) as caught:
            sync_one(work, work.wanted(asked), on_event=volume.events.append, stop=volume.stop)
        for same in (listed, replace(asked, size=len(LARGE), sha256=listed.sha256)):
            assert sync_one(work, work.wanted(same), on_event=volume.events.append, stop=volume.stop).ok
    assert caught.value.code is SyncCode.CONFLICT
    assert "'listed'" in str(caught.value)
    assert volume.at(listed).read_bytes() == LARGE


def test_a_path_through_a_link_out_of_the_cache_is_refused(server: ModelServer, volume: Volume, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    volume.cache.mkdir()
    (volume.cache / "checkpoints").symlink_to(outside)
    error = failed(volume, entry("model", server.file("/model", SMALL), content=SMALL))
    assert error.code is SyncCode.VOLUME
    assert not list(outside.iterdir())


# Stopping, going on, and others at work.


def test_a_stop_leaves_what_the_next_run_goes_on_from(server: ModelServer, volume: Volume) -> None:
    content = safetensors(1_000_000)
    slow = threading.Event()
    url = server.file("/model", content, faults=[stalled(20_000, slow).after(6)])
    wanted = entry("model", url, content=content)

    def stop_half_way() -> None:
        server.wait_for_bytes(400_000)
        volume.stop.set()

    stopping = threading.Thread(target=stop_half_way)
    stopping.start()
    summary = volume.sync(wanted)
    stopping.join()
    slow.set()
    assert (summary.ok, summary.interrupted) == (False, True)
    assert summary.outcomes["model"].error is not None
    assert summary.outcomes["model"].error.code is SyncCode.INTERRUPTED
    assert not volume.finals()
    assert not volume.own("leases")
    volume.stop.clear()
    before = server.bytes_sent
    server.file("/model", content)
    assert volume.one(wanted).action == "fetched"
    assert volume.at(wanted).read_bytes() == content
    assert server.bytes_sent - before < len(content)


def test_a_host_that_never_answers_does_not_hold_a_stop_up(volume: Volume) -> None:
    volume.pace = replace(QUICK, stall_s=60)
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        wanted_entry = entry("model", f"http://127.0.0.1:{silent.getsockname()[1]}/model", "https://127.0.0.1:9/other")

        def run() -> None:
            assert volume.sync(wanted_entry).interrupted
            done.set()

        thread = threading.Thread(target=run)
        thread.start()
        asking, _ = silent.accept()
        with asking:
            assert asking.recv(1)
            volume.stop.set()
            assert done.wait(10)
        thread.join()
    assert "next_source" not in volume.kinds("model")


def test_after_a_stop_what_was_never_begun_is_told_as_interrupted(volume: Volume) -> None:
    volume.stop.set()
    summary = volume.sync(entry("model", "https://127.0.0.1:9/model"))
    assert summary.interrupted
    assert summary.outcomes["model"].error is not None
    assert summary.outcomes["model"].error.code is SyncCode.INTERRUPTED


def test_rotten_bytes_of_an_earlier_run_cost_one_more_download_and_not_the_source(
    server: ModelServer, volume: Volume
) -> None:
    content = safetensors(1_000_000)
    wanted = entry("model", server.file("/model", content, faults=[answers(500).after(6)]), content=content)
    assert failed(volume, wanted).code is SyncCode.UNREACHABLE
    (part,) = [path for path in volume.own("parts") if path.suffix == ".part"]
    with part.open("r+b") as file:
        file.write(b"rotten")
    server.file("/model", content)
    assert volume.one(wanted).action == "fetched"
    assert volume.at(wanted).read_bytes() == content
    assert "retrying" in volume.kinds("model")
    assert not volume.own("quarantine")


def test_rotten_bytes_of_another_machine_are_not_taken_over_twice(server: ModelServer, volume: Volume) -> None:
    content = safetensors(1_000_000)
    wanted = entry("model", server.file("/model", content, faults=[answers(500).after(6)]), content=content)
    assert failed(volume, wanted).code is SyncCode.UNREACHABLE
    (part,) = volume.parts()
    with part.open("r+b") as file:
        file.write(b"rotten")
    part.with_name(f"{part.name}.free").unlink()
    key, _, _ = part.name.removesuffix(".part").rpartition(".")
    elsewhere = part.with_name(f"{key}.0123456789ab-1-1-1-01234567.part")
    part.with_name(f"{part.name}.journal").rename(f"{elsewhere}.journal")
    part.rename(elsewhere)
    server.file("/model", content)
    outcome = volume.one(wanted)
    assert outcome.action == "fetched", outcome.error
    assert volume.at(wanted).read_bytes() == content


def test_what_others_work_on_is_put_off_while_there_is_other_work(server: ModelServer, volume: Volume) -> None:
    held = entry("held", server.file("/held", LARGE), content=LARGE)
    others = [
        entry(f"m{each}", server.file(f"/{each}", content), content=content)
        for each in range(3)
        for content in [safetensors(2000, each)]
    ]
    volume.cache.mkdir()
    finished = threading.Event()
    seen: list[str] = []

    def listen(event: Event) -> None:
        seen.append(f"{event.kind} {event.id}")
        if event.kind == "waiting":
            finished.set()

    volume.environment = {"MORPHEUS_SYNC_FILES": "1"}
    with volume.work(held, *others) as work:
        with hold(work.cache, key_of(held.path), stop=threading.Event(), pace=BEATS):
            running = threading.Thread(
                target=lambda: sync(work, work.select(), on_event=listen, stop=threading.Event())
            )
            running.start()
            assert finished.wait(10)
            told = [each for each in seen if each.startswith("published")]
            assert sorted(told) == ["published m0", "published m1", "published m2"]
        running.join()
    assert volume.at(held).read_bytes() == LARGE


def test_who_waited_for_another_finds_the_work_done(server: ModelServer, volume: Volume) -> None:
    wanted_entry = entry("model", server.file("/model", LARGE), content=LARGE)
    waiting = threading.Event()
    outcomes = []

    def second() -> None:
        def listen(event: Event) -> None:
            if event.kind == "waiting":
                waiting.set()

        with volume.work(wanted_entry) as work:
            outcomes.append(sync_one(work, work.wanted(wanted_entry), on_event=listen, stop=threading.Event()))

    with volume.work(wanted_entry) as work:
        with hold(work.cache, key_of(wanted_entry.path), stop=threading.Event(), pace=BEATS):
            thread = threading.Thread(target=second)
            thread.start()
            assert waiting.wait(10)
            asked = len(server.requests)
            part = work.cache.part_path("other", "owner")
            part.write_bytes(LARGE)
            there = work.cache.publish(part, wanted_entry.path, replace=False)
            work.receipts.write(Receipt(wanted_entry.path, there.st_size, there.st_mtime_ns, wanted_entry.sha256))
        thread.join()
    assert [outcome.action for outcome in outcomes] == ["present"]
    assert len(server.requests) == asked


# Selecting and planning.


def test_a_selection_is_ids_a_workflow_or_everything(volume: Volume) -> None:
    one, two = entry("one", workflows=("w",)), entry("two")
    with volume.work(one, two) as work:
        assert work.select().ids == ("one", "two")
        assert work.select(["two"]).ids == ("two",)
        assert work.select([], "w").ids == ("one",)
        assert work.select().whole
        assert not work.select(["one", "two"]).whole


def test_unknown_names_are_told_at_once_with_the_nearest_known(volume: Volume) -> None:
    with volume.work(entry("sdxl-base", workflows=("sdxl_txt2img",))) as work, pytest.raises(SyncError) as caught:
        work.select(["sdxl-bas", "zzz"], "sdxl_txt2im")
    said = str(caught.value)
    assert caught.value.code is SyncCode.INVALID
    for expected in (
        "'sdxl-bas'",
        "did you mean 'sdxl-base'?",
        "'zzz'",
        "'sdxl_txt2im'",
        "did you mean 'sdxl_txt2img'?",
    ):
        assert expected in said


def test_a_plan_says_what_would_happen_and_does_nothing(server: ModelServer, volume: Volume) -> None:
    there = entry("there", server.file("/there", SMALL), content=SMALL)
    volume.sync(there)
    asked = len(server.requests)
    absent = entry("absent", server.file("/absent", LARGE), content=LARGE)
    unknown = entry("unknown", server.file("/unknown", OTHER))
    refused = entry("refused")
    with volume.work(there, absent, unknown, refused) as work:
        made = plan(work, work.select())
    whats = {action.id: (action.what, action.bytes) for action in made.actions}
    assert whats == {
        "there": ("present", 0),
        "absent": ("get", len(LARGE)),
        "unknown": ("get", len(OTHER)),
        "refused": ("refuse", 0),
    }
    assert made.bytes == len(LARGE) + len(OTHER)
    assert made.free is not None
    assert made.fits
    assert not made.ok
    assert [action.id for action in made.problems] == ["refused"]
    assert {request.path for request in server.requests[asked:]} == {"/unknown"}
    assert not volume.at(absent).exists()


def test_a_destination_that_is_none_is_refused(volume: Volume) -> None:
    with volume.work(entry("one")) as work, pytest.raises(SyncError) as caught:
        plan(work, work.select(), destination="/somewhere")
    assert caught.value.code is SyncCode.INVALID


# The lock, and new entries.


def test_the_lock_pins_what_the_hosts_say_and_the_next_sync_is_held_to_it(server: ModelServer, volume: Volume) -> None:
    server.hf("owner/name", "model.safetensors", LARGE)
    volume.environment = {"HF_ENDPOINT": server.hf_endpoint}
    model = entry("hf", {"kind": "hf", "repo": "owner/name", "file": "model.safetensors"})
    gone = entry("gone", server.url("/none"))
    with volume.work(model, gone) as work:
        lock, failures = resolve_all(work, work.select(), volume.events.append)
    locked = lock.models["hf"]
    assert (locked.size, locked.sha256, locked.source["revision"]) == (len(LARGE), sha256_of(LARGE), COMMIT)
    assert [(each, error.code) for each, error in failures] == [("gone", SyncCode.NOT_FOUND)]
    server.hf("owner/name", "model.safetensors", OTHER)
    assert wanted(model, lock).sha256 == sha256_of(LARGE)
    assert volume.one(model, lock=lock).error is not None


def test_the_lock_keeps_what_it_said_of_the_rest(server: ModelServer, volume: Volume) -> None:
    one, two = entry("one", server.file("/one", SMALL)), entry("two", server.file("/two", LARGE))
    with volume.work(one, two) as work:
        before, _ = resolve_all(work, work.select(), volume.events.append)
    with volume.work(two, lock=before) as work:
        after, _ = resolve_all(work, work.select(["two"]), volume.events.append)
    assert set(before.models) == {"one", "two"}
    assert after.models == {"two": before.models["two"]}


def test_a_hash_that_no_host_tells_is_locked_from_the_receipt(server: ModelServer, volume: Volume) -> None:
    model = entry("model", server.file("/model", LARGE))
    volume.sync(model)
    with volume.work(model) as work:
        lock, _ = resolve_all(work, work.select(), volume.events.append)
    assert lock.models["model"].sha256 == sha256_of(LARGE)


def test_a_new_entry_has_what_its_host_knows(server: ModelServer, volume: Volume) -> None:
    server.hf("owner/name", "split_files/vae/A Model.safetensors", LARGE)
    volume.environment = {"HF_ENDPOINT": server.hf_endpoint}
    ref = {"kind": "hf", "repo": "owner/name", "file": "split_files/vae/A Model.safetensors"}
    with volume.work() as work:
        found = described(work, ref, workflows=["w"])
    assert isinstance(found, ModelEntry)
    assert (found.id, str(found.path)) == ("a-model", "vae/A Model.safetensors")
    assert (found.size, found.sha256, found.sources[0]["revision"]) == (len(LARGE), sha256_of(LARGE), COMMIT)
    assert found.workflows == ("w",)


@pytest.mark.parametrize(
    ("path", "expected"), [("loras/", "loras/model.safetensors"), ("loras/x.safetensors", "loras/x.safetensors")]
)
def test_a_path_is_taken_as_it_is_given(server: ModelServer, volume: Volume, path: str, expected: str) -> None:
    ref = {"kind": "https", "url": server.file("/model.safetensors", SMALL)}
    with volume.work() as work:
        found = described(work, ref, path=path)
    assert isinstance(found, ModelEntry)
    assert str(found.path) == expected


def test_where_nothing_tells_the_folder_it_has_to_be_given(server: ModelServer, volume: Volume) -> None:
    ref = {"kind": "https", "url": server.file("/model.safetensors", SMALL)}
    with volume.work() as work, pytest.raises(SyncError) as caught:
        described(work, ref)
    assert caught.value.code is SyncCode.INVALID
    assert "--path" in str(caught.value)


def test_a_new_entry_that_may_run_code_has_to_be_allowed(server: ModelServer, volume: Volume) -> None:
    ref = {"kind": "https", "url": server.file("/model.pth", SMALL)}
    with volume.work() as work:
        with pytest.raises(SyncError) as caught:
            described(work, ref, path="upscale_models/")
        found = described(work, ref, path="upscale_models/", allow_pickle=True)
    assert caught.value.code is SyncCode.REJECTED
    assert isinstance(found, ModelEntry)
    assert found.allow_pickle


# What is there.


def test_the_status_is_told_by_receipts_alone(server: ModelServer, volume: Volume) -> None:
    there, changed, by_hand, absent, other = (
        entry(name, server.file(f"/{name}", content), content=content)
        for name, content in [
            ("there", SMALL), ("changed", SMALL), ("by_hand", SMALL), ("absent", SMALL), ("other", SMALL),
        ]
    )  # fmt: skip
    volume.sync(there, changed, other)
    os.utime(volume.at(changed), (1, 1))
    volume.put("checkpoints/by_hand.safetensors", SMALL)
    newer = entry("other", server.file("/other", LARGE), content=LARGE)
    asked = len(server.requests)
    with volume.work(there, changed, by_hand, absent, newer) as work:
        found = {each.id: each.state for each in status(work, work.select())}
    assert found == {
        "there": "present", "changed": "changed", "by_hand": "unreceipted", "absent": "absent", "other": "other",
    }  # fmt: skip
    assert len(server.requests) == asked


@pytest.fixture
def kinds(server: ModelServer, volume: Volume) -> list[ModelEntry]:
    """Entries of which each stands differently."""
    entries = {
        name: entry(name, server.file(f"/{name}", LARGE), content=LARGE)
        for name in ("fine", "touched", "rotten", "right", "wrong", "missing")
    }
    entries["unknown"] = entry("unknown", server.file("/unknown", LARGE))
    volume.sync(*(entries[name] for name in ("fine", "touched", "rotten")))
    os.utime(volume.at(entries["touched"]), (1, 1))
    stamped = volume.at(entries["rotten"]).stat().st_mtime_ns
    volume.at(entries["rotten"]).write_bytes(LARGE[:-1] + b"?")
    os.utime(volume.at(entries["rotten"]), ns=(stamped, stamped))
    for name, content in (("right", LARGE), ("wrong", OTHER), ("unknown", LARGE)):
        volume.put(f"checkpoints/{name}.safetensors", content)
    return list(entries.values())


@pytest.mark.parametrize(
    ("full", "expected"),
    [
        (
            False,
            {
                "fine": "ok", "touched": "changed", "rotten": "ok", "right": "unverified", "wrong": "unverified",
                "missing": "missing", "unknown": "unverified",
            },
        ),
        (
            True,
            {
                "fine": "ok", "touched": "ok", "rotten": "corrupt", "right": "ok", "wrong": "changed",
                "missing": "missing", "unknown": "unverified",
            },
        ),
    ],
)  # fmt: skip
def test_verifying_holds_every_file_to_what_is_known(
    volume: Volume, kinds: list[ModelEntry], full: bool, expected: dict[str, str]
) -> None:
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in volume.finals()}
    with volume.work(*kinds) as work:
        report = verify(work, work.select(), full=full, on_event=volume.events.append, stop=volume.stop)
    assert {finding.id: finding.what for finding in report.findings} == expected
    assert not report.ok
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in volume.finals()} == before


def test_verifying_finds_what_cannot_be_a_model_by_a_look(server: ModelServer, volume: Volume) -> None:
    wanted_entry = entry("model", server.file("/model", LARGE), content=LARGE)
    volume.sync(wanted_entry)
    stamped = volume.at(wanted_entry).stat().st_mtime_ns
    volume.at(wanted_entry).write_bytes(b"<!DOCTYPE html><html>".ljust(len(LARGE)))
    os.utime(volume.at(wanted_entry), ns=(stamped, stamped))
    with volume.work(wanted_entry) as work:
        report = verify(work, work.select(), full=False, on_event=volume.events.append, stop=volume.stop)
    assert [finding.what for finding in report.findings] == ["corrupt"]


@pytest.mark.parametrize("touched", [False, True])
def test_a_file_of_another_size_than_the_locks_is_never_right(
    server: ModelServer, volume: Volume, touched: bool
) -> None:
    """Where the lock has no hash, and the receipt is an older version's."""
    url = server.file("/model", LARGE)
    volume.sync(entry("model", url))
    newer = entry("model", url, size=len(LARGE) + 1)
    if touched:
        os.utime(volume.at(newer), (1, 1))
    with volume.work(newer) as work:
        for full in (False, True):
            report = verify(work, work.select(), full=full, on_event=volume.events.append, stop=volume.stop)
            assert [finding.what for finding in report.findings] == ["changed"]
        if touched:
            adopted = adopt(work, on_event=volume.events.append, stop=volume.stop)
            assert [file.what for file in adopted.files] == ["refused"]
    assert volume.one(newer).error is not None


def test_a_file_that_cannot_be_read_is_not_called_corrupt(
    server: ModelServer, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted_entry = entry("model", server.file("/model", LARGE), content=LARGE)
    volume.sync(wanted_entry)

    def refused(path: Path, **_: object) -> None:
        raise SyncError(SyncCode.VOLUME, "the volume refuses access")

    monkeypatch.setattr("morpheus_worker.syncing.verifying.hashed", refused)
    with volume.work(wanted_entry) as work:
        report = verify(work, work.select(), full=True, on_event=volume.events.append, stop=volume.stop)
    assert [(found.what, found.why) for found in report.findings] == [("unverified", "the volume refuses access")]
    assert not report.ok


def test_adopting_gives_a_receipt_to_everything_that_is_right(volume: Volume, kinds: list[ModelEntry]) -> None:
    volume.put("loras/nobodys.safetensors", SMALL)
    volume.put("loras/page.safetensors", b"<!DOCTYPE html><html></html>")
    volume.put("loras/.hidden", SMALL)
    volume.put("loras/half.part", SMALL)
    volume.put("loras/put_loras_here", b"")
    volume.put("SomePack/__init__.py", b"pass")
    volume.put("SomePack/weights.safetensors", SMALL)
    with volume.work(*kinds) as work:
        report = adopt(work, on_event=volume.events.append, stop=volume.stop)
    whats = {str(file.path).partition("/")[2].removesuffix(".safetensors"): file.what for file in report.files}
    assert whats == {
        "nobodys": "adopted", "page": "refused", "right": "adopted", "touched": "adopted", "unknown": "adopted",
        "wrong": "refused",
    }  # fmt: skip
    assert report.known == 2
    assert not report.ok
    with volume.work(*kinds) as work:
        again = adopt(work, on_event=volume.events.append, stop=volume.stop)
    assert [file.what for file in again.files] == ["refused", "refused"]


def test_adopting_goes_on_where_it_was_interrupted(volume: Volume) -> None:
    for number in range(3):
        volume.put(f"loras/{number}.safetensors", safetensors(2000, number))

    def stop_after_one(event: Event) -> None:
        if event.kind == "adopted":
            volume.stop.set()

    with volume.work() as work:
        report = adopt(work, on_event=stop_after_one, stop=volume.stop)
    assert report.interrupted
    assert len(report.files) == 1
    volume.stop.clear()
    with volume.work() as work:
        report = adopt(work, on_event=volume.events.append, stop=volume.stop)
    assert (len(report.files), report.known, report.ok) == (2, 1, True)


def test_pruning_is_dry_and_takes_only_what_a_sync_left_or_fetched(server: ModelServer, volume: Volume) -> None:
    kept = entry("kept", server.file("/kept", SMALL), content=SMALL)
    also = entry("also", server.file("/also", SMALL), content=SMALL, path="pulid/also.safetensors")
    old = entry("old", server.file("/old", SMALL), content=SMALL, path="loras/deep/old.safetensors")
    volume.sync(kept, old, also)
    volume.put("loras/by_hand.safetensors", SMALL)
    volume.put("vae/by_hand.safetensors", SMALL)
    pack = volume.put("SomePack/__init__.py", b"pass")
    (volume.cache / ".morpheus/quarantine").mkdir()
    (volume.cache / ".morpheus/quarantine/bad").write_bytes(SMALL)
    places = entry("places", path="ipadapter/places.safetensors", also=(PurePosixPath("pulid/also.safetensors"),))
    before = set(volume.cache.rglob("*"))
    with volume.work(kept, places) as work:
        adopt(work, on_event=volume.events.append, stop=volume.stop)
    with volume.work(kept, places) as work:
        dry = prune(work, delete=False)
        assert [str(item.path) for item in dry.items] == ["loras/deep/old.safetensors", ".morpheus/quarantine/bad"]
        assert before <= set(volume.cache.rglob("*"))
        done = prune(work, delete=True)
    assert done.items == dry.items
    assert not (volume.cache / "loras/deep").exists()
    assert {path.name for path in volume.finals()} == {
        "kept.safetensors", "also.safetensors", "by_hand.safetensors", "__init__.py",
    }  # fmt: skip
    with volume.work(kept, places) as work:
        unlisted = prune(work, delete=True, unlisted=True)
    assert [str(item.path) for item in unlisted.items] == ["loras/by_hand.safetensors", "vae/by_hand.safetensors"]
    assert pack.exists()
    assert not (volume.cache / "vae").exists()


def test_pruning_leaves_what_somebody_is_at_work_on(volume: Volume) -> None:
    with volume.work() as work:
        volume.cache.mkdir()
        with hold(work.cache, "key", stop=threading.Event(), pace=BEATS) as lease:
            lease.part.write_bytes(b"half")
            assert prune(work, delete=True).items == ()
            assert lease.part.exists()
        assert [item.why for item in prune(work, delete=True).items] == [
            "an unfinished download that nobody is at work on"
        ]


def test_a_receipt_without_a_file_is_pruned(server: ModelServer, volume: Volume) -> None:
    wanted_entry = entry("model", server.file("/model", SMALL), content=SMALL)
    volume.sync(wanted_entry)
    volume.at(wanted_entry).unlink()
    with volume.work(wanted_entry) as work:
        assert [item.why for item in prune(work, delete=True).items] == ["a receipt without a file"]
    assert not volume.own("receipts")


def test_what_was_put_there_by_hand_is_not_pruned_because_it_was_taken_over(
    server: ModelServer, volume: Volume
) -> None:
    wanted_entry = entry("model", server.file("/model", LARGE), content=LARGE)
    place = volume.put("checkpoints/model.safetensors", LARGE)
    assert volume.one(wanted_entry).action == "adopted"
    with volume.work() as work:
        assert prune(work, delete=True).items == ()
    assert place.exists()


def test_what_was_kept_of_a_changed_pack_goes_only_where_that_is_asked_for(volume: Volume) -> None:
    kept = volume.put(".morpheus/trash/Pack.1/mine.py", b"somebody's work")
    with volume.work() as work:
        assert prune(work, delete=True).items == ()
        assert kept.exists()
        assert [str(item.path) for item in prune(work, delete=True, unlisted=True).items] == [".morpheus/trash/Pack.1"]
    assert not kept.exists()


def test_what_an_entry_names_through_a_link_is_not_pruned(volume: Volume) -> None:
    named = volume.put("diffusion_models/model.safetensors", SMALL)
    meant = volume.put("loras/meant.safetensors", SMALL)
    (volume.cache / "unet").symlink_to("diffusion_models")
    (volume.cache / "vae").mkdir()
    (volume.cache / "vae/link.safetensors").symlink_to("../loras/meant.safetensors")
    entries = (entry("model", path="unet/model.safetensors"), entry("link", path="vae/link.safetensors"))
    with volume.work(*entries) as work:
        assert prune(work, delete=True, unlisted=True).items == ()
    assert named.exists()
    assert meant.exists()


def test_what_changes_while_it_is_pruned_stays_and_is_told(
    server: ModelServer, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = entry("old", server.file("/old", SMALL), content=SMALL)
    volume.sync(old)

    def changed(_: object) -> list[object]:
        volume.at(old).write_bytes(LARGE)
        return []

    monkeypatch.setattr("morpheus_worker.syncing.pruning.leftovers", changed)
    with volume.work() as work:
        report = prune(work, delete=True)
    assert (report.items, [kept.path for kept in report.kept]) == ((), [old.path])
    assert not report.ok
    assert volume.at(old).read_bytes() == LARGE

"""Files that were put at an entry's place by hand, of which neither manifest nor lock knows the hash."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from morpheus_worker.manifest import ModelEntry
from morpheus_worker.sync.terms import SyncCode, SyncError
from morpheus_worker.syncing.asking import MOST_SILENT
from morpheus_worker.syncing.foreseeing import plan
from morpheus_worker.syncing.running import sync_one
from morpheus_worker.syncing.standing import status
from tests.integration.model_server import COMMIT, CivitaiFile, ModelServer
from tests.integration.model_server import status as answers
from tests.integration.syncs import Volume, entry, safetensors, sha256_of

SMALL, LARGE, OTHER = safetensors(3000, 1), safetensors(600_000, 2), safetensors(600_000, 3)
PAGE = b"<!DOCTYPE html><html><body>Please log in</body></html>"
HF = {"kind": "hf", "repo": "owner/name", "file": "model.safetensors"}
PLACE = "checkpoints/model.safetensors"


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as running:
        yield running


@pytest.fixture
def volume(tmp_path: Path, server: ModelServer) -> Volume:
    return Volume(tmp_path / "volume", {"HF_ENDPOINT": server.hf_endpoint, "MORPHEUS_CIVITAI_URL": server.civitai_url})


def conflict(volume: Volume, wanted: ModelEntry) -> str:
    error = volume.one(wanted).error
    assert error is not None
    assert error.code is SyncCode.CONFLICT
    assert "morpheus models sync --replace" in str(error)
    return str(error)


def silent(server: ModelServer, name: str) -> str:
    return server.file(f"/{name}", LARGE, faults=[answers(500).on("GET", "HEAD")])


def test_it_is_taken_over_by_the_hash_that_its_host_tells_and_never_asked_about_again(
    server: ModelServer, volume: Volume
) -> None:
    server.hf("owner/name", "model.safetensors", LARGE)
    volume.put(PLACE, LARGE)
    outcome = volume.one(entry("model", HF))
    assert (outcome.action, outcome.received) == ("adopted", 0)
    assert outcome.receipt is not None
    assert (outcome.receipt.by, outcome.receipt.sha256) == ("adopt", sha256_of(LARGE))
    assert outcome.receipt.source["revision"] == COMMIT
    asked = len(server.requests)
    assert asked == 1
    assert volume.one(entry("model", HF)).action == "present"
    assert len(server.requests) == asked


def test_of_a_whole_volume_filled_by_hand_the_right_is_taken_over_and_the_rest_named(
    server: ModelServer, volume: Volume
) -> None:
    for name in ("right", "cut", "page", "older"):
        server.hf("owner/name", f"{name}.safetensors", LARGE)
    server.civitai(7, [CivitaiFile(70, "lora.safetensors", SMALL)])
    kinds = [entry(name, {**HF, "file": f"{name}.safetensors"}) for name in ("right", "cut", "page", "older")]
    lora = entry("lora", {"kind": "civitai", "version": 7})
    for name, content in {"right": LARGE, "cut": LARGE[:-9], "page": PAGE, "older": OTHER, "lora": SMALL}.items():
        volume.put(f"checkpoints/{name}.safetensors", content)
    summary = volume.sync(*kinds, lora)
    assert {each.id: each.action for each in summary.outcomes.values()} == {
        "right": "adopted", "cut": "failed", "page": "failed", "older": "failed", "lora": "adopted",
    }  # fmt: skip
    told = {each.id: str(each.error) for each in summary.failed}
    assert "page.safetensors is a web page" in told["page"]
    assert sha256_of(OTHER)[:12] in told["older"]
    assert all("--replace" in each for each in told.values())
    assert {each.error and each.error.code for each in summary.failed} == {SyncCode.CONFLICT}
    assert not any(request.path.endswith("/lora.safetensors") for request in server.requests)
    assert volume.sync(*kinds, lora, replace=True).ok
    assert volume.at(kinds[3]).read_bytes() == LARGE


@pytest.mark.parametrize(
    ("content", "said"),
    [(PAGE, "is a web page"), (LARGE[:-1], "bytes"), (b"GGUF" + bytes(5000), "safetensors")],
    ids=["a page", "cut", "another format"],
)
def test_what_cannot_be_the_file_is_in_the_way_though_no_host_says_anything(
    server: ModelServer, volume: Volume, content: bytes, said: str
) -> None:
    place = volume.put(PLACE, content)
    wanted = entry("model", silent(server, "model"))
    assert said in conflict(volume, wanted)
    assert server.requests == []
    assert place.read_bytes() == content
    server.file("/model", LARGE)
    assert volume.one(wanted, replace=True).action == "fetched"
    assert place.read_bytes() == LARGE


def test_where_a_host_tells_the_size_alone_it_is_held_to_that(server: ModelServer, volume: Volume) -> None:
    wanted = entry("model", server.file("/model", LARGE))
    volume.put(PLACE, SMALL)
    assert "3,000 bytes" in conflict(volume, wanted)
    volume.put(PLACE, LARGE)
    outcome = volume.one(wanted)
    assert outcome.action == "adopted"
    assert outcome.receipt is not None
    assert (outcome.receipt.sha256, dict(outcome.receipt.source)) == (sha256_of(LARGE), {})
    assert server.bytes_sent == 0
    assert volume.one(wanted).action == "present"


def test_without_hashing_the_size_is_all_that_is_noted(server: ModelServer, volume: Volume) -> None:
    volume.put(PLACE, LARGE)
    outcome = volume.one(entry("model", server.file("/model", LARGE)), hashing=False)
    assert outcome.action == "adopted"
    assert outcome.receipt is not None
    assert (outcome.receipt.by, outcome.receipt.sha256) == ("adopt", None)


def test_a_size_that_fits_keeps_nothing_that_is_to_be_fetched_anew(server: ModelServer, volume: Volume) -> None:
    wanted = entry("model", server.file("/model", LARGE))
    place = volume.put(PLACE, OTHER)
    assert volume.one(wanted, replace=True).action == "fetched"
    assert place.read_bytes() == LARGE


def test_what_is_right_by_its_hosts_hash_is_not_fetched_anew(server: ModelServer, volume: Volume) -> None:
    server.hf("owner/name", "model.safetensors", LARGE)
    volume.put(PLACE, LARGE)
    assert volume.one(entry("model", HF), replace=True).action == "adopted"
    assert server.bytes_sent == 0


def test_a_host_of_another_version_than_the_entrys_is_not_believed(server: ModelServer, volume: Volume) -> None:
    server.hf("owner/name", "model.safetensors", SMALL)
    volume.put(PLACE, LARGE)
    outcome = volume.one(entry("model", HF, size=len(LARGE)))
    assert (outcome.action, "3,000 bytes there" in outcome.why) == ("unverified", True)


def test_where_no_host_says_anything_it_stays_and_is_not_called_verified(server: ModelServer, volume: Volume) -> None:
    place = volume.put(PLACE, OTHER)
    wanted = entry("model", silent(server, "model"), {"kind": "file", "path": "/nowhere/model"})
    outcome = volume.one(wanted)
    assert (outcome.action, outcome.receipt, outcome.ok) == ("unverified", None, True)
    for said in ("not verified", "/model", "/nowhere/model", "adopt"):
        assert said in outcome.why
    assert outcome.as_dict()["why"] == outcome.why
    assert not volume.own("receipts")
    with volume.work(wanted) as work:
        assert [action.what for action in plan(work, work.select()).actions] == ["unverified"]
        assert [each.state for each in status(work, work.select())] == ["unreceipted"]
    assert volume.one(wanted, replace=True).error is not None
    assert place.read_bytes() == OTHER


def test_the_next_source_is_asked_where_the_first_does_not_answer(server: ModelServer, volume: Volume) -> None:
    server.hf("owner/name", "model.safetensors", LARGE)
    volume.put(PLACE, LARGE)
    assert volume.one(entry("model", silent(server, "model"), HF)).action == "adopted"


def test_what_has_no_source_is_looked_into_and_left(volume: Volume) -> None:
    volume.put(PLACE, LARGE)
    assert volume.one(entry("model")).action == "unverified"
    assert volume.one(entry("model"), replace=True).action == "unverified"
    volume.put(PLACE, PAGE)
    conflict(volume, entry("model"))


def test_a_host_that_does_not_answer_is_not_waited_for_hundreds_of_times(server: ModelServer, volume: Volume) -> None:
    volume.environment = {**volume.environment, "MORPHEUS_SYNC_FILES": "1"}
    entries = [entry(f"m{number}", silent(server, f"m{number}")) for number in range(MOST_SILENT + 4)]
    for each in entries:
        volume.put(str(each.path), SMALL)
    summary = volume.sync(*entries)
    assert summary.ok
    assert {outcome.action for outcome in summary.outcomes.values()} == {"unverified"}
    assert len({request.path for request in server.requests}) == MOST_SILENT


def test_one_file_alone_is_looked_into_as_well(server: ModelServer, volume: Volume) -> None:
    volume.put(PLACE, PAGE)
    wanted = entry("model", silent(server, "model"))
    with volume.work(wanted) as work, pytest.raises(SyncError) as caught:
        sync_one(work, work.wanted(wanted), on_event=volume.events.append, stop=threading.Event())
    assert caught.value.code is SyncCode.CONFLICT


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Volume]:
    """A volume that is mounted read-only, with one file on it that looks right and one that does not."""
    root = tmp_path / "mounted"
    root.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(root)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root can mount")
    try:
        volume = Volume(root)
        volume.put(PLACE, LARGE)
        volume.put("checkpoints/page.safetensors", PAGE)
        subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
        yield volume
    finally:
        subprocess.run(["umount", "-l", str(root)], check=True)


def test_on_a_volume_that_takes_nothing_it_stays_and_what_is_broken_is_named(
    server: ModelServer, read_only: Volume
) -> None:
    fine, page = entry("model", server.file("/model", LARGE)), entry("page", server.file("/page", LARGE))
    outcomes = read_only.sync(fine, page).outcomes
    assert (outcomes["model"].action, "read-only" in outcomes["model"].why) == ("unverified", True)
    assert outcomes["page"].error is not None
    assert outcomes["page"].error.code is SyncCode.CONFLICT


def test_a_plan_says_beforehand_that_the_volume_takes_nothing(server: ModelServer, read_only: Volume) -> None:
    fine = entry("model", server.file("/model", LARGE))
    absent = entry("absent", server.file("/absent", LARGE), content=LARGE)
    with read_only.work(fine, absent) as work:
        made = plan(work, work.select())
    assert {action.id: action.what for action in made.actions} == {"model": "unverified", "absent": "refuse"}
    (refused,) = made.problems
    assert refused.problem is not None
    assert refused.problem.code is SyncCode.VOLUME
    assert "read-only" in str(refused.problem)
    assert not made.ok


def test_a_plan_says_beforehand_that_a_path_leads_out_of_the_cache(
    server: ModelServer, volume: Volume, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "there.safetensors").write_bytes(LARGE)
    volume.cache.mkdir()
    (volume.cache / "checkpoints").symlink_to(outside)
    entries = [entry(name, server.file(f"/{name}", LARGE), content=LARGE) for name in ("absent", "there")]
    with volume.work(*entries) as work:
        made = plan(work, work.select())
    assert [action.problem and action.problem.code for action in made.actions] == [SyncCode.VOLUME, SyncCode.VOLUME]
    assert not made.ok


def test_a_plan_says_beforehand_which_key_is_not_set(server: ModelServer, volume: Volume) -> None:
    civitai = {"kind": "civitai", "version": 7}
    keyed = entry("keyed", civitai, content=SMALL, auth_env="CIVITAI_API_KEY")
    gated = entry("gated", HF, content=SMALL, gated=True)
    own = entry("own", "https://example.com/own", content=SMALL, auth_env="MY_KEY")
    either = entry("either", civitai, "https://example.com/either", content=SMALL, auth_env="CIVITAI_API_KEY")
    free = entry("free", civitai, content=SMALL)
    with volume.work(keyed, gated, own, either, free) as work:
        made = plan(work, work.select())
    said = {action.id: str(action.problem) for action in made.problems}
    assert set(said) == {"keyed", "gated", "own"}
    assert {action.problem.code for action in made.problems if action.problem} == {SyncCode.ACCESS_DENIED}
    assert "CIVITAI_API_KEY" in said["keyed"]
    assert "https://huggingface.co/owner/name" in said["gated"]
    assert "MY_KEY" in said["own"]
    assert server.requests == []
    volume.environment = {**volume.environment, "CIVITAI_API_KEY": "a", "HF_TOKEN": "b", "MY_KEY": "c"}
    with volume.work(keyed, gated, own, either, free) as work:
        assert plan(work, work.select()).ok

"""Hosts that misbehave, disks that refuse, processes that are killed: nothing wrong ever lies at a final path."""

from __future__ import annotations

import contextlib
import random
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from morpheus_worker.manifest import ModelEntry
from morpheus_worker.sync.receipting import key_of, receipt_text
from morpheus_worker.sync.terms import Receipt, SyncCode
from morpheus_worker.syncing.outcomes import Outcome
from tests.integration.model_server import (
    CivitaiFile,
    Fault,
    ModelServer,
    bit_flip,
    changed_etag,
    html,
    ignores_range,
    raw,
    redirect,
    stalled,
    status,
    throttled,
    truncated,
    wrong_content_range,
)
from tests.integration.sync_child import Nursery, job_of
from tests.integration.syncs import QUICK, Volume, entry, safetensors

CONTENT = safetensors(500_000, 1)
SECRET = "hf_" + "s3cr3tK3y" * 4


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as running:
        yield running


@pytest.fixture
def elsewhere() -> Iterator[ModelServer]:
    with ModelServer() as running:
        yield running


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return Volume(tmp_path / "volume", pace=replace(QUICK, stall_s=0.3))


@contextlib.contextmanager
def watched(path: Path, right: bytes) -> Iterator[None]:
    """While it lasts, whatever lies at `path` must be `right`, whole."""
    done, wrong = threading.Event(), []

    def watch() -> None:
        while not done.wait(0.002):
            with contextlib.suppress(FileNotFoundError):
                if path.read_bytes() != right:
                    wrong.append("something else was there")

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    assert wrong == []


def synced(volume: Volume, wanted: ModelEntry) -> Outcome:
    with watched(volume.at(wanted), CONTENT):
        outcome = volume.one(wanted)
    assert volume.at(wanted).exists() == outcome.ok
    return outcome


# What passes, and what another source makes good.


@pytest.mark.parametrize(
    "fault",
    [
        ignores_range,
        lambda: ignores_range().after(2),
        lambda: truncated(10_000).first(4),
        lambda: truncated(0).first(2),
        lambda: stalled(5_000).first(1),
        lambda: status(429, Retry_After=0).first(2),
        lambda: status(429).first(2),
        lambda: status(503, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT").first(2),
        lambda: status(500).after(3).first(2),
        lambda: raw(b"").first(2),
    ],
    ids=[
        "200 for a range", "200 for a later range", "truncation", "nothing", "stall", "429", "429 without a time",
        "503", "500 in mid-file", "closed connection",
    ],
)  # fmt: skip
def test_what_passes_is_tried_again(server: ModelServer, volume: Volume, fault: Callable[[], Fault]) -> None:
    outcome = synced(volume, entry("model", server.file("/model", CONTENT, faults=[fault()]), content=CONTENT))
    assert outcome.action == "fetched", outcome.error


LASTING: Sequence[tuple[str, Callable[[], Fault], set[SyncCode]]] = [
    ("bit flip", lambda: bit_flip(300_000), {SyncCode.REJECTED}),
    ("wrong Content-Range", wrong_content_range, {SyncCode.UNREACHABLE, SyncCode.CHANGED, SyncCode.REJECTED}),
    ("changed ETag", lambda: changed_etag().after(3), {SyncCode.CHANGED}),
    ("truncation", lambda: truncated(0).after(3), {SyncCode.UNREACHABLE}),
    ("stall", lambda: stalled(0).after(3), {SyncCode.UNREACHABLE}),
    ("429", lambda: status(429).after(3), {SyncCode.UNREACHABLE}),
    ("429 for a day", lambda: status(429, Retry_After=86400).after(3), {SyncCode.UNREACHABLE}),
    ("403 in mid-file", lambda: status(403).after(3), {SyncCode.ACCESS_DENIED}),
    ("404 in mid-file", lambda: status(404).after(3), {SyncCode.NOT_FOUND}),
    ("redirect loop", lambda: redirect("/model").after(3), {SyncCode.UNREACHABLE, SyncCode.REJECTED}),
    ("HTML", html, {SyncCode.REJECTED}),
    ("HTML in mid-file", lambda: html().after(3), {SyncCode.REJECTED}),
    ("nonsense", lambda: raw(b"nonsense\r\n\r\n").after(3), {SyncCode.UNREACHABLE}),
]
NAMES = [name for name, _, _ in LASTING]


@pytest.mark.parametrize(("name", "fault", "codes"), LASTING, ids=NAMES)
def test_what_lasts_gives_way_to_the_next_source(
    server: ModelServer,
    elsewhere: ModelServer,
    volume: Volume,
    name: str,
    fault: Callable[[], Fault],
    codes: set[SyncCode],
) -> None:
    bad, good = server.file("/model", CONTENT, faults=[fault()]), elsewhere.file("/good", CONTENT)
    outcome = synced(volume, entry("model", bad, good, content=CONTENT))
    assert outcome.action == "fetched", outcome.error
    assert outcome.receipt is not None
    assert outcome.receipt.source["url"] == good
    (passed,) = [event for event in volume.events if event.kind == "next_source"]
    assert passed.code in set(map(str, codes)), name


@pytest.mark.parametrize(("name", "fault", "codes"), LASTING, ids=NAMES)
def test_what_lasts_ends_the_entry_where_there_is_no_other_source(
    server: ModelServer, volume: Volume, name: str, fault: Callable[[], Fault], codes: set[SyncCode]
) -> None:
    outcome = synced(volume, entry("model", server.file("/model", CONTENT, faults=[fault()]), content=CONTENT))
    assert outcome.error is not None, name
    assert outcome.error.code in codes
    assert not volume.finals()
    assert not volume.leases()


def test_a_changed_version_in_mid_file_is_never_mixed_with_the_first(server: ModelServer, volume: Volume) -> None:
    """Without a hash to compare with: the validator alone keeps them apart."""
    other = safetensors(len(CONTENT), 2)
    swapped = threading.Event()

    def swap() -> None:
        server.wait_for_bytes(200_000)
        server.file("/model", other)
        swapped.set()

    url = server.file("/model", CONTENT, faults=[throttled(2_000_000)])
    thread = threading.Thread(target=swap)
    thread.start()
    wanted = entry("model", url)
    outcome = volume.one(wanted)
    thread.join()
    assert swapped.is_set()
    if outcome.ok:
        assert volume.at(wanted).read_bytes() in (CONTENT, other)
    else:
        assert not volume.finals()
    assert volume.one(wanted).ok
    assert volume.at(wanted).read_bytes() == other


# What does not match.


def test_a_hash_that_does_not_match_is_quarantined_and_named(server: ModelServer, volume: Volume) -> None:
    wanted = entry("model", server.file("/model", CONTENT, faults=[bit_flip(300_000)]), content=CONTENT)
    outcome = synced(volume, wanted)
    assert outcome.error is not None
    assert outcome.error.code is SyncCode.REJECTED
    kept = [path for path in volume.own("quarantine") if not path.name.endswith(".why.txt")]
    assert len(kept) == 1
    assert len(kept[0].read_bytes()) == len(CONTENT)
    assert kept[0].read_bytes() != CONTENT
    assert str(kept[0]) in str(outcome.error)
    assert "SHA-256" in outcome.error.what
    assert not volume.own("parts")
    server.file("/model", CONTENT)
    assert volume.one(wanted).action == "fetched"


def test_what_is_no_model_is_quarantined_even_where_nobody_knows_its_hash(server: ModelServer, volume: Volume) -> None:
    cut = CONTENT[:-1000]
    outcome = volume.one(entry("model", server.file("/model", cut)))
    assert outcome.error is not None
    assert outcome.error.code is SyncCode.REJECTED
    assert not volume.finals()
    assert volume.own("quarantine")


def test_a_page_in_the_middle_does_not_spoil_what_came_before(server: ModelServer, volume: Volume) -> None:
    wanted = entry("model", server.file("/model", CONTENT, faults=[html().after(5)]), content=CONTENT)
    assert volume.one(wanted).error is not None
    assert not volume.own("quarantine")
    before = server.bytes_sent
    server.file("/model", CONTENT)
    assert volume.one(wanted).ok
    assert server.bytes_sent - before < len(CONTENT)


def expire_after(server: ModelServer, sent: int) -> None:
    server.wait_for_bytes(sent)
    server.expire()


def test_an_address_that_expires_in_mid_file_is_asked_for_anew(server: ModelServer, volume: Volume) -> None:
    volume.environment = {"HF_ENDPOINT": server.hf_endpoint, "MORPHEUS_CIVITAI_URL": server.civitai_url}
    server.hf("owner/name", "model.safetensors", CONTENT, cdn_faults=[throttled(1_000_000)])
    server.civitai(7, [CivitaiFile(8, "c.safetensors", CONTENT)], cdn_faults=[throttled(1_000_000)])
    for wanted in (
        entry("hf", {"kind": "hf", "repo": "owner/name", "file": "model.safetensors"}),
        entry("civitai", {"kind": "civitai", "version": 7}),
    ):
        before = server.bytes_sent
        thread = threading.Thread(target=expire_after, args=(server, before + 200_000))
        thread.start()
        outcome = synced(volume, wanted)
        thread.join()
        assert outcome.ok, outcome.error


# Credentials.


def test_a_key_goes_only_to_the_host_it_is_for_and_is_written_nowhere(
    server: ModelServer, elsewhere: ModelServer, volume: Volume, caplog: pytest.LogCaptureFixture
) -> None:
    volume.environment = {
        "HF_ENDPOINT": server.hf_endpoint,
        "HF_TOKEN": SECRET,
        "CIVITAI_API_KEY": SECRET,
        "MORPHEUS_CIVITAI_URL": server.civitai_url,
        "OTHER_KEY": SECRET,
    }
    server.hf("owner/name", "m.safetensors", CONTENT, token=SECRET, cdn=elsewhere)
    other = safetensors(len(CONTENT), 2)
    server.hf("owner/bad", "m.safetensors", other, token=SECRET, cdn=elsewhere, cdn_faults=[bit_flip(99)])
    server.civitai(7, [CivitaiFile(8, "c.safetensors", CONTENT)], token=SECRET, cdn=elsewhere)
    target = elsewhere.file("/target", CONTENT)
    direct = server.file("/direct", b"", faults=[redirect(target).on("GET", "HEAD")], token=SECRET)
    refused = elsewhere.file("/refused", CONTENT, faults=[status(403).on("GET", "HEAD")])
    summary = volume.sync(
        entry("hf", {"kind": "hf", "repo": "owner/name", "file": "m.safetensors"}),
        entry("bad", {"kind": "hf", "repo": "owner/bad", "file": "m.safetensors"}),
        entry("civitai", {"kind": "civitai", "version": 7}),
        entry("direct", direct, auth_env="OTHER_KEY"),
        entry("refused", refused),
    )
    assert {outcome.id for outcome in summary.failed} == {"bad", "refused"}
    assert elsewhere.requests
    assert not any("authorization" in request.headers for request in elsewhere.requests)
    assert not any(SECRET in request.target for request in elsewhere.requests)
    told = repr([event.as_dict() for event in volume.events]) + repr(summary) + caplog.text
    written = b"".join(path.read_bytes() for path in (volume.cache / ".morpheus").rglob("*") if path.is_file())
    for key in (SECRET, "X-Amz-Signature", "signature1"):
        assert key not in told
        assert key.encode() not in written


def test_a_missing_key_names_the_variable_and_where_access_is_granted(server: ModelServer, volume: Volume) -> None:
    volume.environment = {"HF_ENDPOINT": server.hf_endpoint}
    server.hf("owner/name", "m.safetensors", CONTENT, token=SECRET, gated=True)
    outcome = volume.one(entry("hf", {"kind": "hf", "repo": "owner/name", "file": "m.safetensors"}))
    assert outcome.error is not None
    assert outcome.error.code is SyncCode.ACCESS_DENIED
    assert "HF_TOKEN" in str(outcome.error)
    assert "owner/name" in str(outcome.error)


# Disks.


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Volume]:
    """A volume of one megabyte."""
    root = tmp_path / "small"
    root.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(root)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root can mount")
    try:
        yield Volume(root)
    finally:
        subprocess.run(["umount", "-l", str(root)], check=True)


def test_a_file_that_does_not_fit_is_refused_before_a_byte_is_fetched(server: ModelServer, small: Volume) -> None:
    content = safetensors(2_000_000)
    fits = entry("fits", server.file("/fits", CONTENT), content=CONTENT)
    wanted = entry("large", server.file("/large", content), content=content)
    summary = small.sync(wanted, fits)
    error = summary.outcomes["large"].error
    assert error is not None
    assert error.code is SyncCode.NO_SPACE
    assert "2.0 MB" in str(error)
    assert server.bytes_sent == len(CONTENT)
    assert summary.outcomes["fits"].ok


def test_a_disk_that_fills_up_under_way_leaves_what_the_next_run_goes_on_from(
    server: ModelServer, small: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network volume may report more than there is."""
    content = safetensors(1_500_000)
    wanted = entry("large", server.file("/large", content), content=content)
    monkeypatch.setattr("morpheus_worker.syncing.obtaining.check_space", lambda *_, **__: None)
    outcome = small.one(wanted)
    assert outcome.error is not None
    assert outcome.error.code is SyncCode.NO_SPACE
    assert not small.finals()
    subprocess.run(["mount", "-o", "remount,size=3m", str(small.root)], check=True)
    before = server.bytes_sent
    assert small.one(wanted).ok
    assert small.at(wanted).read_bytes() == content
    assert server.bytes_sent - before < len(content)


def test_a_read_only_volume_says_so_for_what_is_missing_and_reads_the_rest(server: ModelServer, small: Volume) -> None:
    there = entry("there", server.file("/there", CONTENT), content=CONTENT)
    missing = entry("missing", server.file("/missing", CONTENT), content=CONTENT)
    assert small.sync(there).ok
    subprocess.run(["mount", "-o", "remount,ro", str(small.root)], check=True)
    summary = small.sync(there, missing)
    assert summary.outcomes["there"].action == "present"
    error = summary.outcomes["missing"].error
    assert error is not None
    assert error.code is SyncCode.VOLUME
    assert "read-only" in str(error)


def test_a_file_of_unknown_size_that_fills_the_disk_leaves_room_for_the_others(
    server: ModelServer, small: Volume
) -> None:
    endless = safetensors(2_000_000)
    answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + endless
    unknown = entry("unknown", server.file("/unknown", endless, faults=[raw(answer).on("GET", "HEAD")]))
    fits = entry("fits", server.file("/fits", CONTENT), content=CONTENT)
    outcome = small.one(unknown)
    assert outcome.error is not None
    assert outcome.error.code is SyncCode.NO_SPACE
    assert "needs" not in outcome.error.what, "it was known before"
    assert small.one(fits).ok


def test_what_a_bucket_filled_is_there_on_a_read_only_volume(small: Volume) -> None:
    """Its receipts know no time, which is completed where it can be."""
    there = entry("there", content=CONTENT)
    place = small.put("checkpoints/there.safetensors", CONTENT)
    receipt = Receipt(there.path, len(CONTENT), None, there.sha256, by="upload")
    receipts = small.cache / ".morpheus/receipts"
    receipts.mkdir(parents=True)
    (receipts / f"{key_of(there.path)}.json").write_text(receipt_text(receipt))
    subprocess.run(["mount", "-o", "remount,ro", str(small.root)], check=True)
    summary = small.sync(there)
    assert summary.ok
    assert place.read_bytes() == CONTENT


# Processes.


def test_four_processes_on_one_volume_do_the_work_once(server: ModelServer, tmp_path: Path) -> None:
    contents = {f"m{number}": safetensors(800_000, number) for number in range(3)}
    entries = [
        entry(name, server.file(f"/{name}", content, faults=[throttled(4_000_000)]), content=content)
        for name, content in contents.items()
    ]
    volume = Volume(tmp_path / "volume")
    job = job_of(volume.root, entries, part_bytes=128 * 1024)
    with contextlib.ExitStack() as opened:
        children = [opened.enter_context(Nursery()).start(job) for _ in range(4)]
        assert [child.ended() for child in children] == [0, 0, 0, 0]
    for wanted in entries:
        assert volume.at(wanted).read_bytes() == contents[wanted.id]
    assert server.bytes_sent <= 1.1 * sum(map(len, contents.values()))
    assert not volume.parts()
    assert not volume.leases()


KILLS = 15


def test_after_any_kill_every_file_at_a_final_path_is_whole(server: ModelServer, tmp_path: Path) -> None:
    contents = {f"m{number}": safetensors(size, number) for number, size in enumerate((3_000, 200_000, 600_000))}
    entries = [
        entry(name, server.file(f"/{name}", content, faults=[throttled(1_000_000)]), content=content)
        for name, content in contents.items()
    ]
    volume = Volume(tmp_path / "volume")
    job = job_of(volume.root, entries, part_bytes=64 * 1024)
    chance = random.Random(5)
    killed = 0
    with Nursery() as nursery:
        for _ in range(KILLS):
            child = nursery.start(job)
            threading.Event().wait(chance.uniform(0, 0.25))
            child.kill()
            killed += child.ended() < 0
            for path in volume.finals():
                assert path.read_bytes() == contents[path.stem], path
            # What is whole would keep the runs after it from doing anything.
            for path in volume.finals():
                path.unlink()
        assert killed > KILLS // 2
        assert nursery.start(job).ended() == 0
    assert {path.stem: path.read_bytes() for path in volume.finals()} == contents
    assert not volume.parts()
    assert not volume.leases()

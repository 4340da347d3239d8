"""A file arrives whole or not at all, whatever the host, the disk or a kill does."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import hashlib
import itertools
import os
import random
import signal
import subprocess
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from morpheus_worker.sync import segments
from morpheus_worker.sync.engine import PartFile, discard, download, downloading, inherit, journal_of, ranged, reading
from morpheus_worker.sync.engine.crew import Pen
from morpheus_worker.sync.terms import Body, Downloaded, Feed, Pace, Resolved, SyncCode, SyncError
from tests.integration import model_server as faults
from tests.integration.engine_child import Downloads
from tests.integration.model_server import ModelServer
from tests.integration.plain_feed import PlainBody, PlainFeed, unreachable

KIB = 1024
PART = 64 * KIB
CONTENT = random.Random(5).randbytes(20 * PART + 777)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
QUICK = Pace(connections=4, part_bytes=PART, first_wait_s=0.01, longest_wait_s=0.05, stall_s=0.3, tries=6)
WAIT_S = 10.0

NEVER = threading.Event()


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as running:
        yield running


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.part"


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("sync-"):
            thread.join(WAIT_S)
            assert not thread.is_alive(), f"{thread.name} is still there"
    while FEEDS:
        FEEDS.pop().close()


def known(content: bytes = CONTENT) -> Resolved:
    return Resolved({}, size=len(content), sha256=hashlib.sha256(content).hexdigest())


def pinned(url_content: bytes = CONTENT) -> Resolved:
    """As a host that knows no SHA-256."""
    return Resolved({}, size=len(url_content), etag=etag_of(url_content))


def etag_of(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


FEEDS: list[PlainFeed] = []


def feed_of(url: str, resolved: Resolved | None = None, *, kind: type[PlainFeed] = PlainFeed, **more: Any) -> PlainFeed:
    """A feed that is closed after the test."""
    feed = kind(url, resolved or known(), **{"stall_s": QUICK.stall_s, **more})
    FEEDS.append(feed)
    return feed


def fetched(
    feed: Feed,
    path: Path,
    *,
    pace: Pace = QUICK,
    hashing: bool = True,
    stop: threading.Event = NEVER,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> Downloaded:
    with PartFile.open(path, feed.resolved, segment_bytes=pace.part_bytes) as part:
        return download(feed, part, pace=pace, hashing=hashing, stop=stop, on_bytes=on_bytes)


def failed(feed: Feed, path: Path, *, pace: Pace = QUICK, stop: threading.Event = NEVER) -> SyncError:
    with pytest.raises(SyncError) as failure:
        fetched(feed, path, pace=pace, stop=stop)
    return failure.value


def interrupted(feed: Feed, path: Path, at: int) -> SyncError:
    """A run that is stopped once so many bytes are there."""
    stop = threading.Event()
    with pytest.raises(SyncError) as failure:
        fetched(feed, path, stop=stop, on_bytes=lambda done: stop.set() if done >= at else None)
    return failure.value


# The usual way.


def test_a_file_arrives_in_ranges_over_several_connections(server: ModelServer, path: Path) -> None:
    told: list[int] = []
    feed = feed_of(server.file("/a", CONTENT, faults=[faults.throttled(5e6)]))

    done = fetched(feed, path, on_bytes=told.append)

    assert done == Downloaded(len(CONTENT), SHA256, len(CONTENT))
    assert path.read_bytes() == CONTENT
    assert server.bytes_sent == len(CONTENT)
    assert 2 <= server.connections <= QUICK.connections
    assert max(end - start + 1 for start, end in ranges_of(server)) == PART
    assert told[-1] == len(CONTENT)


def ranges_of(server: ModelServer) -> list[tuple[int, int]]:
    return [(asked[0], asked[1]) for each in server.requests if (asked := each.range) and asked[1] is not None]


@pytest.mark.parametrize("size", [1, PART - 1, PART, PART + 1])
def test_any_size_arrives(server: ModelServer, path: Path, size: int) -> None:
    content = CONTENT[:size]

    done = fetched(feed_of(server.file("/a", content), known(content)), path)

    assert (done.size, done.sha256) == (size, hashlib.sha256(content).hexdigest())
    assert path.read_bytes() == content


def test_an_empty_file_is_whole_without_a_request(server: ModelServer, path: Path) -> None:
    done = fetched(feed_of(server.file("/a", b""), known(b"")), path)

    assert done == Downloaded(0, hashlib.sha256(b"").hexdigest(), 0)
    assert server.requests == []


def test_without_hashing_nothing_is_read_back(server: ModelServer, path: Path) -> None:
    done = fetched(
        feed_of(server.file("/a", CONTENT), Resolved({}, size=len(CONTENT), sha256="0" * 64)), path, hashing=False
    )

    assert done.sha256 is None
    assert path.read_bytes() == CONTENT


# Going on.


@pytest.mark.parametrize("resolve", [known, pinned])
def test_the_next_run_goes_on(server: ModelServer, path: Path, resolve: Callable[[], Resolved]) -> None:
    feed = feed_of(server.file("/a", CONTENT, faults=[faults.throttled(5e5)]), resolve())
    failure = interrupted(feed, path, at=len(CONTENT) // 3)
    assert failure.code is SyncCode.INTERRUPTED
    feed.close()
    server.wait_until_left()
    before = server.bytes_sent

    feed = feed_of(server.file("/a", CONTENT), resolve())
    done = fetched(feed, path)

    assert (done.sha256, path.read_bytes() == CONTENT) == (SHA256, True)
    assert done.received == server.bytes_sent - before
    assert server.bytes_sent <= len(CONTENT) + QUICK.connections * PART


def test_what_is_there_is_verified_without_a_request(server: ModelServer, path: Path) -> None:
    url = server.file("/a", CONTENT)
    fetched(feed_of(url), path)
    asked = len(server.requests)

    done = fetched(feed_of(url), path)

    assert done == Downloaded(len(CONTENT), SHA256, 0)
    assert len(server.requests) == asked


@pytest.mark.parametrize(
    "other",
    [
        Resolved({}, size=len(CONTENT), sha256="0" * 64),
        Resolved({}, size=len(CONTENT) + 1, sha256=SHA256),
        Resolved({}, size=len(CONTENT)),
    ],
    ids=["another version", "another size", "no version"],
)
def test_another_version_begins_anew(server: ModelServer, path: Path, other: Resolved) -> None:
    fetched(feed_of(server.file("/a", CONTENT)), path)

    with PartFile.open(path, other, segment_bytes=PART) as part:
        assert part.held.segments == {}
    assert not journal_of(path).exists()
    assert path.stat().st_blocks == 0


def test_what_nothing_names_is_not_resumed(server: ModelServer, path: Path) -> None:
    unnamed = Resolved({}, size=len(CONTENT))
    url = server.file("/a", CONTENT, etag=None)
    fetched(feed_of(url, unnamed), path)

    fetched(feed_of(url, unnamed), path)

    assert server.bytes_sent == 2 * len(CONTENT)
    assert not journal_of(path).exists()


def test_segments_of_another_size_are_begun_anew(server: ModelServer, path: Path) -> None:
    fetched(feed_of(server.file("/a", CONTENT)), path)

    with PartFile.open(path, known(), segment_bytes=2 * PART) as part:
        assert part.held.segments == {}


def test_another_boot_believes_only_what_was_synced(
    server: ModelServer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with PartFile.open(path, known(), segment_bytes=PART) as part:
        for segment in (0, 1, 2):
            part.written(segment, None)
        part.synced([0, 2])

    with PartFile.open(path, known(), segment_bytes=PART) as part:
        assert set(part.held.segments) == {0, 1, 2}

    monkeypatch.setattr("morpheus_worker.sync.engine.journal.this_boot", lambda: "another")
    with PartFile.open(path, known(), segment_bytes=PART) as part:
        assert set(part.held.segments) == {0, 2}
        part.written(5, None)
    with PartFile.open(path, known(), segment_bytes=PART) as part:
        assert set(part.held.segments) == {0, 2, 5}


def test_every_so_many_bytes_the_disk_is_synced(
    server: ModelServer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranged, "SYNC_BYTES", 4 * PART)
    monkeypatch.setattr(downloading, "PROGRESS_S", 0.0)
    feed = feed_of(server.file("/a", CONTENT, faults=[faults.throttled(5e5)]))

    interrupted(feed, path, at=len(CONTENT) * 3 // 4)

    with PartFile.open(path, known(), segment_bytes=PART) as part:
        assert 4 <= len(part.held.synced) <= len(part.held.segments) < 21


def test_nobody_waits_while_the_journal_is_synced(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    syncing, noted = threading.Event(), threading.Event()
    in_time: list[bool] = []

    def slow(fd: int) -> None:
        syncing.set()
        in_time.append(noted.wait(1.0))

    monkeypatch.setattr(os, "fdatasync", slow)
    with PartFile.open(path, known(), segment_bytes=PART) as part:
        part.written(0, None)
        thread = threading.Thread(target=part.synced, args=([0],))
        thread.start()
        assert syncing.wait(WAIT_S)
        part.written(1, None)
        noted.set()
        thread.join()

    assert in_time == [True]


def test_a_part_that_was_published_is_not_written_to(server: ModelServer, path: Path, tmp_path: Path) -> None:
    """A run may be killed between the two halves of publishing: the file has its own name, and the part's still."""
    fetched(feed_of(server.file("/a", CONTENT)), path)
    published = tmp_path / "published"
    os.link(path, published)

    with PartFile.open(path, known(), segment_bytes=PART) as part:
        assert part.held.segments == {}
    assert not path.samefile(published)
    assert published.read_bytes() == CONTENT


def test_a_segment_that_is_not_what_was_noted_is_fetched_again(server: ModelServer, path: Path) -> None:
    """Where no SHA-256 is known, a lost write would be published: nothing else would tell."""
    url = server.file("/a", CONTENT)
    fetched(feed_of(url, pinned()), path)
    for segment in (3, 20):
        zero(path, segment)
    before = server.bytes_sent

    done = fetched(feed_of(url, pinned()), path)

    assert (done.sha256, path.read_bytes() == CONTENT) == (SHA256, True)
    assert server.bytes_sent - before == PART + 777


def zero(path: Path, segment: int) -> None:
    with open(path, "r+b") as file:
        file.seek(segment * PART)
        file.write(bytes(min(PART, len(CONTENT) - segment * PART)))


def test_a_journal_that_lies_costs_a_download_and_no_wrong_file(server: ModelServer, path: Path) -> None:
    url = server.file("/a", CONTENT)
    fetched(feed_of(url), path)
    zero(path, 3)

    assert failed(feed_of(url), path).code is SyncCode.REJECTED
    assert fetched(feed_of(url), path).sha256 == SHA256


@pytest.mark.parametrize(
    "harm",
    [
        lambda text: text + b"w 1",
        lambda text: text + b"w 99\n",
        lambda text: text + bytes(200),
        lambda text: text + b"w 5w 6\n",
        lambda text: text + b"s 17\n",
        lambda text: text + b"\xff\xfe\n",
    ],
)
def test_what_makes_no_sense_in_a_journal_ends_it(path: Path, harm: Callable[[bytes], bytes]) -> None:
    with PartFile.open(path, known(), segment_bytes=PART) as part:
        part.written(4, None)
        part.written(2, None)
    journal_of(path).write_bytes(harm(journal_of(path).read_bytes()) + b"w 7\n")

    with PartFile.open(path, known(), segment_bytes=PART) as part:
        assert set(part.held.segments) == {2, 4}


def test_a_torn_last_line_of_a_journal_is_not_believed(path: Path) -> None:
    with PartFile.open(path, known(), segment_bytes=PART) as part:
        part.written(4, None)
    with open(journal_of(path), "ab") as journal:
        journal.write(b"w 1")  # Of "w 17", for all that anybody knows.

    with PartFile.open(path, known(), segment_bytes=PART) as part:
        assert set(part.held.segments) == {4}


@pytest.mark.parametrize(
    "text", [b"", b"\n", b"{}\n", b"w 1\n", b'{"part": 2}\n', b"\x00" * 50, b"[" * 100_000 + b"\n"]
)
def test_a_journal_that_is_none_is_begun_anew(path: Path, text: bytes) -> None:
    path.write_bytes(bytes(len(CONTENT)))
    journal_of(path).write_bytes(text)

    with PartFile.open(path, known(), segment_bytes=PART) as part:
        assert part.held.segments == {}


# Kills.


@pytest.mark.parametrize("resolve", [known, pinned])
def test_a_kill_at_any_moment_is_survived(server: ModelServer, tmp_path: Path, resolve: Callable[[], Resolved]) -> None:
    url = server.file("/a", CONTENT, faults=[faults.throttled(20e6)])
    resolved, chance = resolve(), random.Random(11)
    order = {
        "url": url,
        "part": str(tmp_path / "a.part"),
        "size": resolved.size,
        "sha256": resolved.sha256,
        "etag": resolved.etag,
        "connections": 4,
        "part_bytes": PART,
    }
    whole, kills, runs = tmp_path / "a", 0, 0
    with Downloads() as downloads:
        while kills < 10 or not whole.exists():
            if whole.exists():
                assert whole.read_bytes() == CONTENT
                whole.unlink()
                runs += 1
            sent = server.bytes_sent
            pid = downloads.begin(**order)
            if kills < 10:
                goal = sent + chance.randrange(len(CONTENT) // 4)
                while server.bytes_sent < goal and not whole.exists():
                    time.sleep(0.001)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                kills += 1
            assert downloads.ended() in (0, -signal.SIGKILL)
    server.wait_until_left()
    assert whole.read_bytes() == CONTENT
    assert server.bytes_sent <= (runs + 1) * len(CONTENT) + kills * 4 * PART


# Hosts that misbehave.


def test_a_flipped_bit_is_never_believed(server: ModelServer, path: Path) -> None:
    url = server.file("/a", CONTENT, faults=[faults.bit_flip(5 * PART + 9).first(21)])

    failure = failed(feed_of(url), path)

    assert failure.code is SyncCode.REJECTED
    assert SHA256[:12] in str(failure)
    assert hashlib.sha256(path.read_bytes()).hexdigest()[:12] in str(failure)
    assert not journal_of(path).exists()
    assert fetched(feed_of(url), path).sha256 == SHA256


def test_answers_that_are_cut_are_gone_on_with(server: ModelServer, path: Path) -> None:
    url = server.file("/a", CONTENT, faults=[faults.truncated(20_000).first(9)])

    done = fetched(feed_of(url), path)

    assert done == Downloaded(len(CONTENT), SHA256, len(CONTENT))
    assert server.bytes_sent == len(CONTENT)


def test_answers_that_are_always_cut_bring_it_all_the_same(server: ModelServer, path: Path) -> None:
    url = server.file("/a", CONTENT[: 2 * PART], faults=[faults.truncated(20_000)])

    assert fetched(feed_of(url, known(CONTENT[: 2 * PART])), path).received == 2 * PART


def test_a_host_that_brings_nothing_is_given_up(server: ModelServer, path: Path) -> None:
    url = server.file("/a", CONTENT, faults=[faults.truncated(0).after(3)])

    failure = failed(feed_of(url), path)

    assert (failure.code, failure.passing) == (SyncCode.UNREACHABLE, False)
    assert f"{QUICK.tries} times in a row" in str(failure)
    with PartFile.open(path, known(), segment_bytes=PART) as part:
        assert len(part.held.segments) == 3


def test_a_connection_that_stalls_is_replaced(server: ModelServer, path: Path) -> None:
    url = server.file("/a", CONTENT, faults=[faults.stalled(10_000).first(2)])

    assert fetched(feed_of(url), path).sha256 == SHA256
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("code", [429, 503, 500])
def test_refusals_pass(server: ModelServer, path: Path, code: int) -> None:
    url = server.file("/a", CONTENT, faults=[faults.status(code).first(5)])

    assert fetched(feed_of(url), path).sha256 == SHA256


def test_a_host_that_asks_to_be_left_alone_is(server: ModelServer, path: Path) -> None:
    url = server.file("/a", CONTENT, faults=[faults.status(429, Retry_After=1).first(1), faults.throttled(5e5)])
    opened_s: list[float] = []
    feed = feed_of(url, on_open=lambda start, end: opened_s.append(time.monotonic()))

    assert fetched(feed, path).sha256 == SHA256

    # By all connections: after those requests that were on their way already, nobody asked during that second.
    assert max(later - sooner for sooner, later in itertools.pairwise(opened_s[: 2 * QUICK.connections])) > 0.8


def test_a_host_that_asks_for_too_much_patience_is_given_up(server: ModelServer, path: Path) -> None:
    url = server.file("/a", CONTENT, faults=[faults.status(429, Retry_After=301)])

    failure = failed(feed_of(url), path)

    assert failure.code is SyncCode.UNREACHABLE
    assert len(server.requests) <= QUICK.connections


def test_what_does_not_pass_ends_it_at_once(server: ModelServer, path: Path) -> None:
    url = server.file("/a", CONTENT, faults=[faults.status(404).after(2)])

    assert failed(feed_of(url), path).code is SyncCode.NOT_FOUND
    assert len(server.requests) <= 2 + QUICK.connections


def test_a_file_that_changes_in_the_middle_is_not_mixed(server: ModelServer, path: Path) -> None:
    url = server.file("/a", CONTENT, faults=[faults.changed_etag().after(6)])

    assert failed(feed_of(url, pinned()), path).code is SyncCode.CHANGED


def test_a_file_that_has_another_size_now_is_not_mixed(server: ModelServer, path: Path) -> None:
    url = server.file("/a", CONTENT + b"more")

    assert failed(feed_of(url), path).code is SyncCode.CHANGED


def test_a_range_that_begins_elsewhere_is_never_written(server: ModelServer, path: Path) -> None:
    chance = iter([10, 0, -10, 5])

    class Astray(PlainFeed):
        @contextlib.contextmanager
        def opened(self, start: int, end: int | None) -> Iterator[PlainBody]:
            with super().opened(max(0, start + next(chance, 0)), end) as body:
                yield body

    assert fetched(feed_of(server.file("/a", CONTENT), kind=Astray), path).sha256 == SHA256


def test_an_address_that_expired_is_asked_for_again(server: ModelServer, path: Path) -> None:
    opened: list[int] = []

    def on_open(start: int, end: int | None) -> None:
        opened.append(start)
        if len(opened) == 5:
            raise SyncError(SyncCode.ACCESS_DENIED, "expired", expired=True)

    assert fetched(feed_of(server.file("/a", CONTENT), on_open=on_open), path).sha256 == SHA256


# In one piece.


def test_a_host_that_ignores_ranges_sends_it_in_one_piece(server: ModelServer, path: Path) -> None:
    url = server.file("/a", CONTENT, faults=[faults.ignores_range()])

    done = fetched(feed_of(url), path)

    assert (done.size, done.sha256) == (len(CONTENT), SHA256)
    assert path.read_bytes() == CONTENT
    assert server.requests[-1].range is None


def test_a_host_that_takes_to_ignoring_ranges_does_not_harm(server: ModelServer, path: Path) -> None:
    url = server.file("/a", CONTENT, faults=[faults.ignores_range().after(7)])

    assert fetched(feed_of(url), path).sha256 == SHA256
    assert path.read_bytes() == CONTENT


def test_a_small_file_needs_no_ranges(server: ModelServer, path: Path) -> None:
    url = server.file("/a", CONTENT[:500], ranges=False)

    assert fetched(feed_of(url, known(CONTENT[:500])), path).received == 500
    assert len(server.requests) == 1


def test_one_piece_that_breaks_off_begins_again(server: ModelServer, path: Path) -> None:
    url = server.file("/a", CONTENT, ranges=False, faults=[faults.truncated(300_000).first(2)])
    told: list[int] = []

    done = fetched(feed_of(url, ranges=False), path, on_bytes=told.append)

    assert done == Downloaded(len(CONTENT), SHA256, len(CONTENT) + 600_000)
    assert path.read_bytes() == CONTENT


def test_one_piece_that_always_breaks_off_is_given_up(server: ModelServer, path: Path) -> None:
    url = server.file("/a", CONTENT, ranges=False, faults=[faults.truncated(300_000)])

    assert failed(feed_of(url, ranges=False), path).code is SyncCode.UNREACHABLE
    assert len(server.requests) == QUICK.tries


def test_a_file_of_unknown_size_ends_where_it_ends(server: ModelServer, path: Path) -> None:
    url = server.file("/a", CONTENT, faults=[faults.truncated(300_000).first(1)])

    done = fetched(feed_of(url, Resolved({})), path)

    assert (done.size, done.sha256) == (len(CONTENT), SHA256)
    assert path.read_bytes() == CONTENT


def test_a_later_and_shorter_try_leaves_nothing_behind(path: Path) -> None:
    """Nothing says how long it shall be, and each answer has another length."""
    done = fetched(_Shrinking(Resolved({})), path)

    assert (done.size, path.read_bytes()) == (10, b"b" * 10)


class _Fake:
    """A feed and its only body at once."""

    shown, ranges = "a fake", False

    def __init__(self, resolved: Resolved) -> None:
        self.resolved = resolved
        self.start, self.ranged = 0, False
        self.total: int | None = None

    @contextlib.contextmanager
    def opened(self, start: int, end: int | None) -> Iterator[Body]:
        yield self

    def readinto(self, buffer: memoryview) -> int:
        raise NotImplementedError


class _Shrinking(_Fake):
    """The first answer breaks off after 1000 bytes, the second ends after 10."""

    def __init__(self, resolved: Resolved) -> None:
        super().__init__(resolved)
        self._reads = iter([b"a" * 1000, None, b"b" * 10, b""])

    def readinto(self, buffer: memoryview) -> int:
        content = next(self._reads)
        if content is None:
            raise unreachable("cut the connection")
        buffer[: len(content)] = content
        return len(content)


# Slow and hanging connections.


def test_the_end_does_not_wait_for_a_slow_connection(
    server: ModelServer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "LEAST_WAIT_S", 0.1)
    released = threading.Event()
    url = server.file("/a", CONTENT, faults=[faults.stalled(1000, until=released).first(1)])
    patient = dataclasses.replace(QUICK, stall_s=60.0)

    assert fetched(feed_of(url, stall_s=60.0), path, pace=patient).sha256 == SHA256
    assert path.read_bytes() == CONTENT
    released.set()


def test_a_connection_that_hangs_for_good_is_replaced(
    server: ModelServer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "GRACE_S", 0.0)
    released = threading.Event()
    url = server.file("/a", CONTENT[:PART], faults=[faults.stalled(1000, until=released).first(1)])
    feed = feed_of(url, known(CONTENT[:PART]), stall_s=60.0)

    assert fetched(feed, path).size == PART
    released.set()


def test_a_connection_that_finishes_the_file_as_it_is_replaced_leaves_nobody_waiting(
    server: ModelServer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced: list[Pen] = []
    note = Pen.written

    def written(pen: Pen, segment: int, crc: int | None) -> None:
        if segment == 1:
            replaced.append(pen)
            pen.take_away()
        note(pen, segment, crc)

    monkeypatch.setattr(Pen, "written", written)
    monkeypatch.setattr(reading.Reader, "waits_too_long", lambda reader: reader.pen in replaced)
    content, stop = CONTENT[: 2 * PART], threading.Event()
    feed = feed_of(server.file("/a", content), known(content))
    for_ever = threading.Timer(5.0, stop.set)
    for_ever.start()
    try:
        got = fetched(feed, path, pace=dataclasses.replace(QUICK, connections=1), stop=stop)
    finally:
        for_ever.cancel()
    assert (got.size, len(replaced)) == (2 * PART, 1)


def test_a_host_that_hangs_for_good_is_given_up(
    server: ModelServer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "GRACE_S", 0.0)
    released = threading.Event()
    url = server.file("/a", CONTENT[:PART], faults=[faults.stalled(0, until=released)])
    feed = feed_of(url, known(CONTENT[:PART]), stall_s=60.0)
    pace = Pace(connections=1, part_bytes=PART, stall_s=0.1, tries=2)

    failure = failed(feed, path, pace=pace)

    assert (failure.code, "sent nothing" in str(failure)) == (SyncCode.UNREACHABLE, True)
    released.set()


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("size", [PART, 20 * PART + 777])
def test_a_host_that_only_trickles_is_given_up(path: Path, size: int, ranges: bool) -> None:
    """Each read brings a byte, and the host never has nothing to send."""
    feed = _Trickle(Resolved({}, size=size, sha256="0" * 64), ranges=ranges)

    failure = failed(feed, path, pace=dataclasses.replace(QUICK, stall_s=0.05, tries=3))

    assert (failure.code, failure.passing) == (SyncCode.UNREACHABLE, False)
    assert "sent only" in str(failure)
    assert "3 times in a row" in str(failure)


def test_a_host_that_hangs_up_after_each_byte_is_given_up(path: Path) -> None:
    failure = failed(_Trickle(known(), hangs_up=True), path)

    assert (failure.code, failure.passing) == (SyncCode.UNREACHABLE, False)
    assert "closed before everything had come" in str(failure)


class _Trickle(_Fake):
    """A byte every few milliseconds, for ever, or one for each answer."""

    def __init__(self, resolved: Resolved, *, ranges: bool = True, hangs_up: bool = False) -> None:
        super().__init__(resolved)
        self.ranges, self._hangs_up, self._sent = ranges, hangs_up, False

    @contextlib.contextmanager
    def opened(self, start: int, end: int | None) -> Iterator[Body]:
        answer = _Trickle(self.resolved, ranges=self.ranges, hangs_up=self._hangs_up)
        answer.start, answer.ranged = start, self.ranges
        yield answer

    def readinto(self, buffer: memoryview) -> int:
        if self._hangs_up and self._sent:
            return 0
        time.sleep(0 if self._hangs_up else 0.01)
        buffer[0], self._sent = 1, True
        return 1


def test_what_comes_late_is_not_written_over_what_is_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection is overtaken while it waits for its bytes. When they come, they are not even the right ones."""
    monkeypatch.setattr(segments, "LEAST_WAIT_S", 0.05)
    content = CONTENT[: 3 * PART]

    done = fetched(_Overtaken(content), path)

    assert done.sha256 == hashlib.sha256(content).hexdigest()
    assert path.read_bytes() == content


class _Overtaken(_Fake):
    """The first answer for the front is garbage, and comes after another one brought the front; the answer for the
    last segment comes after that."""

    ranges = True

    def __init__(self, content: bytes) -> None:
        super().__init__(known(content))
        self._content, self._fronts = content, itertools.count()
        self._overtaken, self._late = threading.Event(), threading.Event()

    @contextlib.contextmanager
    def opened(self, start: int, end: int | None) -> Iterator[Body]:
        is_late = start == 0 and next(self._fronts) == 0
        if start == 2 * PART:
            assert self._late.wait(WAIT_S)
        answer = _Answer(self.resolved, start, self._content, waits=self._overtaken if is_late else None)
        yield answer
        if start == 0:
            (self._late if is_late else self._overtaken).set()


class _Answer(_Fake):
    """The bytes from `start` on; garbage, after waiting."""

    def __init__(self, resolved: Resolved, start: int, content: bytes, *, waits: threading.Event | None) -> None:
        super().__init__(resolved)
        self.start, self.ranged = start, True
        self._left = memoryview(content)[start:]
        self._waits = waits

    def readinto(self, buffer: memoryview) -> int:
        count = len(buffer)
        if self._waits is not None:
            assert self._waits.wait(WAIT_S)
            buffer[:] = bytes(count)
        else:
            buffer[:], self._left = self._left[:count], self._left[count:]
        return count


# The end.


@pytest.mark.parametrize("ranges", [True, False])
def test_nothing_writes_once_the_download_is_over(path: Path, ranges: bool) -> None:
    """A thread that waits for a host cannot be called back. When its bytes come, the file may be somebody's model."""
    expected = QUICK.connections if ranges else 1
    feed, stop = _Late(known(), ranges=ranges), threading.Event()

    def stop_when_all_wait() -> None:
        for _ in range(expected):
            feed.waits.acquire(timeout=WAIT_S)
        stop.set()

    waiting = threading.Thread(target=stop_when_all_wait)
    waiting.start()

    with PartFile.open(path, feed.resolved, segment_bytes=PART) as part:
        with pytest.raises(SyncError) as failure:
            download(feed, part, pace=QUICK, stop=stop)
        waiting.join()
        path.write_bytes(b"a published model")
        feed.release.set()
        for _ in range(expected):
            assert feed.woke.acquire(timeout=WAIT_S)
        for thread in threading.enumerate():
            if thread.name.startswith("sync-"):
                thread.join(WAIT_S)

    assert failure.value.code is SyncCode.INTERRUPTED
    assert path.read_bytes() == b"a published model"
    assert not journal_of(path).exists()


class _Late(_Fake):
    """Its answers begin when they are released."""

    def __init__(self, resolved: Resolved, *, ranges: bool) -> None:
        super().__init__(resolved)
        self.ranges = ranges
        self.waits, self.woke, self.release = threading.Semaphore(0), threading.Semaphore(0), threading.Event()

    @contextlib.contextmanager
    def opened(self, start: int, end: int | None) -> Iterator[Body]:
        answer = _Late(self.resolved, ranges=self.ranges)
        answer.start, answer.ranged = start, self.ranges
        answer.waits, answer.woke, answer.release = self.waits, self.woke, self.release
        yield answer

    def readinto(self, buffer: memoryview) -> int:
        self.waits.release()
        self.release.wait(WAIT_S)
        self.woke.release()
        buffer[:10] = b"too late!!"
        return 10


def test_a_mistake_in_a_feed_ends_the_download(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caught: list[object] = []
    monkeypatch.setattr(threading, "excepthook", caught.append)

    failure = failed(_Fake(Resolved({}, size=None)), path)

    assert failure.code is SyncCode.INTERNAL
    assert len(caught) == 1


@pytest.mark.parametrize("started", range(4))
def test_a_machine_without_another_thread_is_named(
    server: ModelServer, path: Path, monkeypatch: pytest.MonkeyPatch, started: int
) -> None:
    """One connection, the hash and the sync of the disk: any of them may be the one too many."""
    monkeypatch.setattr(ranged, "SYNC_BYTES", PART)
    feed = feed_of(server.file("/a", CONTENT))
    start, allowed = threading.Thread.start, itertools.count()

    def one_too_many(thread: threading.Thread) -> None:
        if thread.name.startswith("sync-") and next(allowed) >= started:
            raise RuntimeError("can't start new thread")
        start(thread)

    with PartFile.open(path, feed.resolved, segment_bytes=PART) as part:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", one_too_many)
            with pytest.raises(SyncError) as failure:
                download(feed, part, pace=dataclasses.replace(QUICK, connections=2), stop=NEVER)
        for thread in threading.enumerate():
            if thread.name.startswith("sync-"):
                thread.join(WAIT_S)
        assert descriptors_of(path) == 1

    assert "starts no more threads" in str(failure.value)


def descriptors_of(path: Path) -> int:
    """How many of this process lead to the file."""
    found = 0
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += each.samefile(path)
    return found


def test_a_mistake_of_who_is_told_ends_the_download(server: ModelServer, path: Path) -> None:
    def on_bytes(done: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fetched(feed_of(server.file("/a", CONTENT)), path, on_bytes=on_bytes)


def test_what_a_download_took_is_given_back_at_its_end(
    server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of memory and descriptors, without the garbage collector: it counts objects, and buffers are few and large."""
    block = 4 * PART
    monkeypatch.setattr(reading, "BLOCK", block)
    url = server.file("/a", CONTENT)
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        for index in range(8):
            fetched(feed := feed_of(url), tmp_path / str(index))
            feed.close()
            if index == 0:
                before = tracemalloc.get_traced_memory()[0], len(os.listdir("/proc/self/fd"))
        after = tracemalloc.get_traced_memory()[0], len(os.listdir("/proc/self/fd"))
    finally:
        tracemalloc.stop()
        gc.enable()

    assert after[0] - before[0] < QUICK.connections * block
    assert after[1] <= before[1] + QUICK.connections


# The disk.


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 512 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"a small filesystem needs the right to mount one: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_keeps_what_is_there(server: ModelServer, small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    content = CONTENT[: 6 * PART]
    ballast.write_bytes(bytes(300 * KIB))
    url = server.file("/a", content)

    feed = feed_of(url, known(content))
    one_by_one = dataclasses.replace(QUICK, connections=1)
    assert failed(feed, small_disk / "a.part", pace=one_by_one).code is SyncCode.NO_SPACE
    feed.close()
    server.wait_until_left()
    before = server.bytes_sent
    ballast.unlink()

    done = fetched(feed_of(url, known(content)), small_disk / "a.part")

    assert done.sha256 == hashlib.sha256(content).hexdigest()
    assert done.received == server.bytes_sent - before < len(content)


def test_a_volume_that_cannot_be_written_to_is_named(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)

    with pytest.raises(SyncError) as failure:
        PartFile.open(small_disk / "a.part", known())
    assert failure.value.code is SyncCode.VOLUME
    assert "read-only" in str(failure.value)


def test_a_part_that_somebody_cut_is_the_volumes_fault(path: Path) -> None:
    with PartFile.open(path, known(), segment_bytes=PART) as part:
        for segment in range(21):
            part.written(segment, None)
    with PartFile.open(path, known(), segment_bytes=PART) as part:
        os.truncate(path, 5 * PART)
        with pytest.raises(SyncError) as failure:
            download(_Ranges(known()), part, pace=QUICK, stop=NEVER)
    assert failure.value.code is SyncCode.VOLUME


class _Ranges(_Fake):
    ranges = True


# Another run's part.


@pytest.fixture
def left(server: ModelServer, tmp_path: Path) -> Path:
    """A part that another run left: its first and third segment are there."""
    old = tmp_path / "old.part"
    with PartFile.open(old, known(), segment_bytes=PART) as part:
        for segment in (0, 2):
            part.write_at(memoryview(CONTENT)[segment * PART : (segment + 1) * PART], segment * PART)
            part.written(segment, None)
    return old


@pytest.mark.parametrize("share", [True, False])
def test_another_runs_part_is_gone_on_with(server: ModelServer, left: Path, path: Path, share: bool) -> None:
    assert inherit(left, path, share=share) == 2 * PART

    assert left.exists() is not share
    done = fetched(feed_of(server.file("/a", CONTENT)), path)
    assert done == Downloaded(len(CONTENT), SHA256, len(CONTENT) - 2 * PART)


def test_a_part_that_is_copied_leaves_the_other_alone(left: Path, path: Path) -> None:
    inherit(left, path, share=False)

    with PartFile.open(path, known(), segment_bytes=PART) as part:
        part.write_at(memoryview(b"other"), 0)
    assert left.read_bytes()[:PART] == CONTENT[:PART]
    assert not left.samefile(path)


def test_a_part_of_another_version_is_not_taken(left: Path, path: Path) -> None:
    assert inherit(left, path, share=False, version="sha256:another") == 0
    assert not path.exists()


def test_a_part_without_a_journal_is_not_taken(left: Path, path: Path) -> None:
    journal_of(left).unlink()

    assert inherit(left, path, share=True) == 0
    assert left.exists()


@pytest.mark.parametrize("share", [True, False])
def test_a_part_that_is_shorter_than_its_journal_says_is_not_taken(left: Path, path: Path, share: bool) -> None:
    os.truncate(left, PART)

    assert inherit(left, path, share=share) == 0
    assert not path.exists()


def test_copying_a_part_can_be_stopped(left: Path, path: Path) -> None:
    stop = threading.Event()
    stop.set()

    with pytest.raises(SyncError) as failure:
        inherit(left, path, share=False, stop=stop)
    assert failure.value.code is SyncCode.INTERRUPTED
    with PartFile.open(path, known(), segment_bytes=PART) as part:
        assert part.held.segments == {}


def test_a_part_is_discarded_with_its_journal(left: Path) -> None:
    discard(left)
    discard(left)

    assert list(left.parent.iterdir()) == []


def test_closing_a_part_twice_closes_nothing_else(path: Path) -> None:
    part = PartFile.open(path, known(), segment_bytes=PART)
    part.close()
    with open(path, "rb") as other:
        part.close()
        assert other.read(1) == b"\0"

"""Leases between real processes: the work is done once, and goes on where one was killed or stopped."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from morpheus_worker.sync.cache import Beats, Cache, Holder, Prior, Receipts, hold, key_of, leftovers
from morpheus_worker.sync.cache.owners import Owner, provably_dead
from morpheus_worker.sync.terms import Receipt, SyncCode, SyncError

FILE = PurePosixPath("checkpoints/sd.safetensors")
KEY = key_of(FILE)
SLOW = Beats(beat_s=60.0, look_s=0.01)
"""A waiter that takes nothing over in a test's time, unless its owner is dead."""
QUICK = Beats(beat_s=0.02, missed=5, look_s=0.01)
WAIT_S = 30.0

ELSEWHERE = "0123456789ab-4026531836-7-1234-00000000"
"""An owner on another machine."""


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    cache = Cache(tmp_path / "cache")
    cache.ensure_writable()
    return cache


@contextmanager
def running(script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def patience() -> Iterator[threading.Event]:
    """A stop that ends a wait that would never end."""
    stop = threading.Event()
    timer = threading.Timer(WAIT_S, stop.set)
    timer.start()
    try:
        yield stop
    finally:
        timer.cancel()
        timer.join()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def lease_file(cache: Cache) -> Path:
    return cache.work / "leases" / f"{KEY}.json"


def leases_left(cache: Cache) -> list[str]:
    return sorted(path.name for path in (cache.work / "leases").iterdir())


HOLD = """
import sys, threading
from pathlib import Path
from morpheus_worker.sync.cache import Beats, Cache, hold
with hold(Cache(Path(sys.argv[1])), sys.argv[2], stop=threading.Event(), pace=Beats(beat_s=0.02)) as lease:
    lease.part.write_bytes(b"half")
    print(lease.part, flush=True)
    lease.lost.wait()
    print("lost", flush=True)
    sys.stdin.readline()
print("ended", flush=True)
"""

WORK = """
import os, sys, threading
from pathlib import Path, PurePosixPath
from morpheus_worker.sync.cache import Beats, Cache, hold, key_of
root, count = Path(sys.argv[1]), int(sys.argv[2])
cache = Cache(root)
print("ready", flush=True)
sys.stdin.readline()
for number in range(count):
    path = PurePosixPath(f"models/{number}.bin")
    with hold(cache, key_of(path), stop=threading.Event(), pace=Beats(look_s=0.002)) as lease:
        if not cache.at(path).exists():
            done = os.open(root / "done", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(done, f"{number}\\n".encode())
            os.close(done)
            lease.part.write_bytes(path.name.encode() * 1000)
            cache.publish(lease.part, path, replace=False)
"""


def test_four_processes_do_each_file_once(cache: Cache) -> None:
    count = 25
    with ExitStack() as ended:
        workers = [ended.enter_context(running(WORK, str(cache.root), str(count))) for _ in range(4)]
        assert [line(worker) for worker in workers] == ["ready"] * 4
        for worker in workers:
            worker.communicate("go\n", timeout=WAIT_S)
        assert [worker.returncode for worker in workers] == [0] * 4
    done = (cache.root / "done").read_text().split()
    assert sorted(done, key=int) == [str(number) for number in range(count)]
    assert all((cache.root / f"models/{each}.bin").read_bytes() == f"{each}.bin".encode() * 1000 for each in done)
    assert leases_left(cache) == []
    assert leftovers(cache) == []


def test_a_killed_holder_is_followed_at_once(cache: Cache) -> None:
    with running(HOLD, str(cache.root), KEY) as holder:
        part = Path(line(holder))
        holder.kill()
        # Not waited for: where nothing reaps it, a killed process stays in the table.
        with patience() as stop, hold(cache, KEY, stop=stop, pace=SLOW) as lease:
            assert lease.prior == Prior(part, provably_dead=True)
            assert Holder.read(lease_file(cache).read_bytes()).owner == lease.owner
        holder.wait()
        assert provably_dead(part.name.split(".")[-2])


def test_a_stopped_holder_is_followed_after_its_beats_and_finds_out(cache: Cache) -> None:
    waited: list[int] = []
    with running(HOLD, str(cache.root), KEY) as holder:
        part = Path(line(holder))
        holder.send_signal(signal.SIGSTOP)
        with (
            patience() as stop,
            hold(cache, KEY, stop=stop, on_wait=lambda _, beats: waited.append(beats), pace=QUICK) as lease,
        ):
            assert waited[-QUICK.missed :] == list(range(QUICK.missed))
            # It may wake up and write on: its bytes may be copied, the file is not ours.
            assert lease.prior == Prior(part, provably_dead=False)
            holder.send_signal(signal.SIGCONT)
            assert line(holder) == "lost"
            assert not lease.lost.is_set()
            holder.communicate("\n", timeout=WAIT_S)
            assert Holder.read(lease_file(cache).read_bytes()).owner == lease.owner
    with hold(cache, KEY, stop=threading.Event()) as lease:
        assert lease.prior == Prior(part, provably_dead=True)
    assert leases_left(cache) == []


def test_who_slept_and_publishes_second_finds_the_same_file_and_its_receipt(cache: Cache) -> None:
    receipts = Receipts(cache)
    known = receipts.load()
    never = Beats(beat_s=1000)
    with hold(cache, KEY, stop=threading.Event(), pace=never) as slept:
        slept.part.write_bytes(b"weights")
        with hold(cache, KEY, stop=threading.Event(), pace=QUICK) as lease:
            lease.part.write_bytes(b"weights")
            told = cache.publish(lease.part, FILE, replace=False)
            Receipts(cache).write(Receipt(FILE, told.st_size, told.st_mtime_ns, "ab" * 32))
        with pytest.raises(SyncError) as caught:
            cache.publish(slept.part, FILE, replace=False)
        assert caught.value.code is SyncCode.CONFLICT
        there = receipts.standing(FILE, known)
        assert there.state == "present"
        assert there.receipt is not None
        assert there.receipt.sha256 == "ab" * 32


def test_a_holder_whose_lease_vanished_makes_it_again(cache: Cache) -> None:
    with hold(cache, KEY, stop=threading.Event(), pace=Beats(beat_s=1000)) as lease:
        lease_file(cache).unlink()
        lease.reserve(5)
        assert not lease.lost.is_set()
        assert Holder.read(lease_file(cache).read_bytes()).needs_bytes == 5


def test_a_part_without_a_lease_is_free_once_its_owner_let_go(cache: Cache) -> None:
    with hold(cache, KEY, stop=threading.Event()) as first:
        assert first.prior is None
        first.part.write_bytes(b"half")
    with hold(cache, KEY, stop=threading.Event()) as second:
        assert second.prior == Prior(first.part, provably_dead=True)
        os.replace(first.part, second.part)
    with hold(cache, KEY, stop=threading.Event()) as third:
        assert third.prior == Prior(second.part, provably_dead=True)
        # The mark of the part that was taken over went with it.
        assert {path.name for path in second.part.parent.iterdir()} == {second.part.name, f"{second.part.name}.free"}


def test_of_several_parts_the_fullest_is_gone_on_from(cache: Cache) -> None:
    small, large = cache.part_path(KEY, ELSEWHERE), cache.part_path(KEY, ELSEWHERE[:-1] + "1")
    small.write_bytes(b"x")
    large.write_bytes(b"x" * 100_000)
    cache.part_path(key_of(PurePosixPath("another")), ELSEWHERE).write_bytes(b"x" * 200_000)
    with hold(cache, KEY, stop=threading.Event()) as lease:
        assert lease.prior == Prior(large, provably_dead=False)


def test_waiting_ends_when_asked_to_stop(cache: Cache) -> None:
    stop = threading.Event()
    with hold(cache, KEY, stop=threading.Event()) as lease:
        with (
            pytest.raises(SyncError) as caught,
            hold(cache, KEY, stop=stop, on_wait=lambda *_: stop.set(), pace=SLOW),
        ):
            pass
        assert caught.value.code is SyncCode.INTERRUPTED
        assert Holder.read(lease_file(cache).read_bytes()).owner == lease.owner


# A holder on another machine, whose clock and processes nobody here can see.


class Ticks(threading.Event):
    """A stop whose every wait takes no time, and does what the test wants to happen meanwhile."""

    def __init__(self, each: Callable[[int], None]) -> None:
        super().__init__()
        self.count, self._each = 0, each

    def wait(self, timeout: float | None = None) -> bool:
        self.count += 1
        self._each(self.count)
        return self.is_set()


def write_elsewhere(cache: Cache, beat: int) -> None:
    told = {"owner": ELSEWHERE, "host": "pod-7", "pid": 7, "beat": beat, "part": "", "needs_bytes": 0, "started": ""}
    lease_file(cache).with_suffix(".new").write_text(json.dumps(told))
    lease_file(cache).with_suffix(".new").rename(lease_file(cache))


def test_a_lease_that_beats_is_waited_for_however_long(cache: Cache) -> None:
    pace = Beats(beat_s=5, missed=6, look_s=1)
    told: list[tuple[str, int]] = []

    def beat(tick: int) -> None:
        if tick <= 300 and tick % 25 == 0:
            write_elsewhere(cache, tick)

    ticks = Ticks(beat)
    write_elsewhere(cache, 0)
    with hold(cache, KEY, stop=ticks, on_wait=lambda holder, beats: told.append((str(holder), beats)), pace=pace):
        # It beat last at 300 s, and was seen to have missed six beats of 5 s since.
        assert ticks.count == 300 + pace.missed * 5
    assert told[:6] == [("process 7 on pod-7", beats) for beats in (0, 1, 2, 3, 4, 0)]


def test_a_lease_that_nobody_can_read_is_taken_over_all_the_same(cache: Cache) -> None:
    lease_file(cache).write_text("{")
    ticks = Ticks(lambda _: None)
    with hold(cache, KEY, stop=ticks, pace=Beats(beat_s=1, missed=6, look_s=1)) as lease:
        assert ticks.count == 6
        assert lease.prior is None


def test_a_lease_that_is_given_back_is_taken_at_the_next_look(cache: Cache) -> None:
    ticks = Ticks(lambda tick: lease_file(cache).unlink() if tick == 3 else None)
    write_elsewhere(cache, 0)
    with hold(cache, KEY, stop=ticks):
        assert ticks.count == 3


def test_a_beat_that_comes_just_when_it_is_taken_over_wins(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = Ticks(lambda _: None)
    rename = os.rename
    beaten: list[int] = []

    def racing(source: Path, target: Path) -> None:
        if source == lease_file(cache) and not beaten:
            beaten.append(ticks.count)
            write_elsewhere(cache, 1)
        rename(source, target)

    monkeypatch.setattr("morpheus_worker.sync.cache.leases.os.rename", racing)
    write_elsewhere(cache, 0)
    with hold(cache, KEY, stop=ticks, pace=Beats(beat_s=1, missed=6, look_s=1)):
        # Put back, and watched anew.
        assert (beaten, ticks.count) == ([6], 12)
    assert leases_left(cache) == []


# Owners


def test_an_owner_is_read_back_from_its_token() -> None:
    owner = Owner.new()
    assert Owner.of(str(owner)) == owner
    assert owner != Owner.new()
    assert not provably_dead(str(owner))


@pytest.mark.parametrize(
    ("changed", "dead"),
    [({"pid": 2**22 + 1}, True), ({"began": 1}, True), ({"machine": "0" * 12, "pid": 2**22 + 1}, False),
     ({"namespace": 1, "pid": 2**22 + 1}, False), ({"machine": "unknown", "began": 1}, False)],
)  # fmt: skip
def test_only_who_is_of_this_machine_and_gone_is_provably_dead(changed: dict[str, int], dead: bool) -> None:
    assert replace(Owner.new(), **changed).provably_dead is dead  # type: ignore[arg-type]


def test_where_no_process_namespace_can_be_told_nobody_is_dead(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sys/kernel/random").mkdir(parents=True)
    (tmp_path / "sys/kernel/random/boot_id").write_text("a boot")
    monkeypatch.setattr("morpheus_worker.sync.cache.owners._PROC", tmp_path)
    assert not replace(Owner.new(), pid=2**22 + 1).provably_dead


@pytest.mark.parametrize("token", ["", "me", "a-b-c-d-e", "0123456789ab-1-1-1", "../../x"])
def test_what_names_no_owner_is_not_dead(token: str) -> None:
    assert not provably_dead(token)


# Everything at once


def test_a_hundred_random_interleavings_end_with_one_whole_file(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        for seed in range(100):
            _interleave(tmp_path / str(seed), random.Random(seed), threads)


def _interleave(root: Path, chance: random.Random, threads: ThreadPoolExecutor) -> None:
    cache = Cache(root)
    cache.ensure_writable()
    if chance.random() < 0.3:
        write_elsewhere(cache, 0)
    elif chance.random() < 0.5:
        cache.part_path(KEY, str(replace(Owner.new(), began=1))).write_bytes(b"half")
    published: list[str] = []
    workers = [threads.submit(_work, cache, random.Random(chance.random()), published) for _ in range(4)]
    for worker in workers:
        worker.result(WAIT_S)
    assert (root / FILE).read_bytes() == b"weights"
    assert len(published) == 1
    assert leases_left(cache) == []
    assert [each for each in leftovers(cache) if each.held or not each.free] == []


def _work(cache: Cache, chance: random.Random, published: list[str]) -> None:
    """One worker, whose beat may be held up for longer than the others are patient."""
    time.sleep(chance.random() * 0.003)
    with hold(cache, KEY, stop=threading.Event(), pace=Beats(beat_s=0.002, missed=3, look_s=0.001)) as lease:
        if cache.at(FILE).exists():
            return
        lease.part.write_bytes(b"weights")
        if chance.random() < 0.3:
            with lease._writing:
                time.sleep(0.02)
        try:
            cache.publish(lease.part, FILE, replace=False)
            published.append(lease.owner)
        except SyncError as failure:
            if failure.code is not SyncCode.CONFLICT:
                raise

"""When a fetch has taken too long, on a clock that the test turns; and what importing the package costs."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import pytest

from morpheus_worker.fetching.terms import Pace
from morpheus_worker.fetching.watch import Watch

PACE = Pace()
TIMEOUT_S = 300.0


@dataclass
class Hand:
    """A clock's hand."""

    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def hand() -> Hand:
    return Hand()


@pytest.fixture
def watch(hand: Hand) -> Watch:
    return Watch(hand)


def test_nothing_is_late_that_has_not_begun(watch: Watch, hand: Hand) -> None:
    hand.now_s += 10_000.0
    assert watch.complaint(PACE, TIMEOUT_S) is None


@pytest.mark.parametrize("phase", ["start", "connect", "ask", "receive"])
def test_everything_ends_with_the_medium_s_own_time(watch: Watch, hand: Hand, phase: str) -> None:
    watch.start()
    hand.now_s += TIMEOUT_S - 1.0
    getattr(watch, phase)()
    watch.started_s = 1000.0
    assert watch.complaint(PACE, TIMEOUT_S) is None
    hand.now_s += 1.5
    assert watch.complaint(PACE, TIMEOUT_S) == "did not arrive within 300 s"


def test_an_answer_may_take_its_time_each_time(watch: Watch, hand: Hand) -> None:
    watch.start()
    for _ in range(3):
        watch.ask()
        hand.now_s += PACE.answer_s
        assert watch.complaint(PACE, TIMEOUT_S) is None
        watch.connect()
        hand.now_s += PACE.answer_s
        assert watch.complaint(PACE, TIMEOUT_S) is None
    watch.ask()
    hand.now_s += PACE.answer_s + 0.1
    assert watch.complaint(PACE, TIMEOUT_S) == "did not answer within 30 s"


def test_silence_is_minded_from_the_last_byte(watch: Watch, hand: Hand) -> None:
    watch.start()
    watch.receive()
    hand.now_s += PACE.stall_s
    assert watch.complaint(PACE, TIMEOUT_S) is None
    watch.hear(10**6)
    hand.now_s += PACE.stall_s
    assert watch.complaint(PACE, TIMEOUT_S) is None
    hand.now_s += 0.1
    assert watch.complaint(PACE, TIMEOUT_S) == "stopped sending for 15 s"


@pytest.mark.parametrize(("bytes_a_second", "ends_s"), [(1, 30), (1000, 30), (1100, None)])
def test_a_slow_sender_ends_with_the_first_window(
    watch: Watch, hand: Hand, bytes_a_second: int, ends_s: int | None
) -> None:
    watch.start()
    watch.receive()
    for second in range(1, 200):
        hand.now_s += 1.0
        watch.hear(second * bytes_a_second)
        if complaint := watch.complaint(PACE, TIMEOUT_S):
            assert (complaint, second) == ("sends less than 1024 bytes a second", ends_s)
            return
    assert ends_s is None


def test_a_good_beginning_does_not_excuse_a_slow_window(watch: Watch, hand: Hand) -> None:
    watch.start()
    watch.receive()
    size, complaints = 10**9, []
    for _ in range(70):
        hand.now_s += 1.0
        size += 1
        watch.hear(size)
        complaints.append(watch.complaint(PACE, TIMEOUT_S))
    assert complaints.index("sends less than 1024 bytes a second") == 59


def test_importing_it_does_not_import_the_http_client() -> None:
    """A booting worker imports all modules before it starts ComfyUI."""
    code = "import sys, morpheus_worker.fetching; sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

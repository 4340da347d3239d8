from __future__ import annotations

import datetime
import time

import pytest

from morpheus_worker.comfy.http import NotAnsweringError, UnexpectedAnswerError
from morpheus_worker.comfy.overheard import LogEntry, Overheard
from morpheus_worker.errors import Code, MorpheusError

NO_FACE = {"Failed to detect face": Code.NO_FACE}


class Log:
    """A ComfyUI's log. Its clock is the worker's, `zone_h` hours ahead."""

    def __init__(self, zone_h: float = 0.0) -> None:
        self.entries: list[LogEntry] = []
        self.asked = 0
        self.failure: MorpheusError | None = None
        self._zone = datetime.timezone(datetime.timedelta(hours=zone_h))

    def write(self, said: str, after_s: float = 0.0) -> None:
        when = datetime.datetime.fromtimestamp(time.time() + after_s, self._zone).replace(tzinfo=None)
        self.entries.append((when.isoformat(), said))

    def read(self) -> list[LogEntry]:
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        return list(self.entries)


def heard(log: Log) -> Overheard:
    overheard = Overheard(NO_FACE, log.read)
    overheard.submitting()
    log.write("got prompt\n", 0.01)
    return overheard


def now_ms(after_s: float) -> int:
    return int((time.time() + after_s) * 1000)


def test_a_line_that_means_a_failure_is_one() -> None:
    log = Log()
    overheard = heard(log)
    overheard.check()
    for said in ("Prepare source...\n", "Failed to detect face!!\n", "done\n"):
        log.write(said, 0.1)
    with pytest.raises(MorpheusError) as failed:
        overheard.check()
    assert failed.value.code == Code.NO_FACE
    assert failed.value.message == "No face was found in the picture: Failed to detect face!!"


def test_what_was_said_before_the_submission_is_not_this_prompt_s() -> None:
    log = Log()
    log.write("Failed to detect face!!\n", -5)
    heard(log).check()


@pytest.mark.parametrize("zone_h", [0, 2, -7, 5.75])
def test_what_another_prompt_said_until_this_one_began_is_not_its_own(zone_h: float) -> None:
    log = Log(zone_h)
    overheard = heard(log)
    log.write("Failed to detect face!!\n", 40)
    overheard.started(now_ms(50))
    overheard.check()
    log.write("Failed to detect face!!\n", 50.02)
    with pytest.raises(MorpheusError):
        overheard.check()


def test_a_start_that_was_heard_late_forgets_nothing() -> None:
    log = Log()
    overheard = heard(log)
    log.write("Failed to detect face!!\n", 0.2)
    overheard.started(now_ms(0.1))
    with pytest.raises(MorpheusError):
        overheard.check()


def test_a_start_without_a_time_counts_from_the_submission() -> None:
    log = Log()
    overheard = heard(log)
    overheard.started(None)
    log.entries.append(("some time ago", "Failed to detect face!!\n"))
    with pytest.raises(MorpheusError):
        overheard.check()


def test_a_log_that_has_forgotten_the_submission_counts_whole() -> None:
    log = Log()
    log.write("before\n")
    overheard = heard(log)
    log.entries.clear()
    log.write("Failed to detect face!!\n", 1)
    with pytest.raises(MorpheusError):
        overheard.check()


def test_who_listens_for_nothing_asks_nothing() -> None:
    log = Log()
    overheard = Overheard({}, log.read)
    overheard.submitting()
    overheard.check()
    assert log.asked == 0


@pytest.mark.parametrize("failure", [NotAnsweringError("a", "b"), UnexpectedAnswerError("a", 404)])
def test_a_comfyui_without_a_log_is_no_failure(failure: MorpheusError) -> None:
    log = Log()
    log.failure = failure
    heard(log).check()


def test_who_missed_the_beginning_believes_nothing() -> None:
    log = Log()
    log.write("Failed to detect face!!\n")
    log.failure = NotAnsweringError("a", "b")
    overheard = heard(log)
    log.failure = None
    overheard.check()


def test_a_prompt_that_has_not_said_anything_yet_is_not_blamed_for_its_neighbour() -> None:
    log = Log()
    overheard = heard(log)
    log.write("Failed to detect face!!\n", 40)
    overheard.started(now_ms(50))
    overheard.check()


def test_a_log_that_has_forgotten_the_submission_is_in_the_worker_s_zone() -> None:
    log = Log()
    log.write("before\n")
    overheard = heard(log)
    log.entries.clear()
    log.write("got prompt\n", 1000)
    overheard.started(now_ms(1010))
    log.write("Failed to detect face!!\n", 1011)
    with pytest.raises(MorpheusError):
        overheard.check()

"""Log lines: JSON in a container, sentences on a terminal, each with its job id."""

from __future__ import annotations

import contextvars
import io
import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from morpheus_worker.logs import LogFormat, configure, job_context

log = logging.getLogger("morpheus_worker.test")


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _root_logger_left_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def configured(
    log_format: LogFormat = "json", level: str = "INFO", *, stream: io.StringIO | None = None
) -> io.StringIO:
    stream = stream or io.StringIO()
    configure(log_format, level, stream=stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_the_jobs_ids() -> None:
    stream = configured()
    with job_context("job-7", "trace-7"):
        log.warning("It took %d s", 3, extra={"timings": {"total_s": 3.0}})
    [line] = lines(stream)
    assert line.pop("ts").endswith("+00:00")
    assert line == {
        "level": "warning",
        "logger": "morpheus_worker.test",
        "message": "It took 3 s",
        "job_id": "job-7",
        "trace_id": "trace-7",
        "timings": {"total_s": 3.0},
    }


def test_no_ids_outside_of_a_job() -> None:
    stream = configured()
    with job_context("job-7", "trace-7"):
        pass
    log.info("idle")
    assert "job_id" not in lines(stream)[0]
    assert "trace_id" not in lines(stream)[0]


def test_the_ids_of_the_outer_job_come_back() -> None:
    stream = configured()
    with job_context("outer", "t1"):
        with job_context("inner", "t2"):
            log.info("in")
        log.info("out")
    assert [line["job_id"] for line in lines(stream)] == ["inner", "outer"]


def test_the_ids_are_forgotten_when_the_job_fails() -> None:
    stream = configured()
    with pytest.raises(KeyError), job_context("job-7", "trace-7"):
        raise KeyError("x")
    log.info("idle")
    assert "job_id" not in lines(stream)[0]


def test_a_copied_context_carries_the_ids_into_a_thread() -> None:
    stream = configured()
    with job_context("job-7", "trace-7"):
        context = contextvars.copy_context()
        for target in (lambda: context.run(log.info, "copied"), lambda: log.info("bare")):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
    assert [line.get("job_id") for line in lines(stream)] == ["job-7", None]


def test_whatever_is_said_stays_on_one_line() -> None:
    stream = configured()
    log.info("two\nlines\r\nand a \u2028 third", extra={"prompt": "a\nb"})
    assert len(stream.getvalue().split("\n")) == 2
    assert lines(io.StringIO(stream.getvalue().replace("\u2028", " ")))[0]["prompt"] == "a\nb"


def test_an_exception_is_part_of_the_line() -> None:
    stream = configured()
    try:
        raise ValueError("seven")
    except ValueError:
        log.exception("It failed")
    [line] = lines(stream)
    assert line["message"] == "It failed"
    assert line["exception"].endswith("ValueError: seven")


def test_what_json_does_not_know_is_said_as_text() -> None:
    stream = configured()
    log.info("odd", extra={"failure": ValueError("seven")})
    assert lines(stream)[0]["failure"] == "seven"


def test_a_sentence_names_its_job() -> None:
    stream = configured("text")
    with job_context("job-7", "trace-7"):
        log.warning("It took %d s", 3)
    log.info("idle")
    first, second = stream.getvalue().splitlines()
    assert first[8:] == " warning  It took 3 s  [job job-7]"
    assert second[8:] == " info     idle"


def test_a_sentence_is_followed_by_its_exception() -> None:
    stream = configured("text")
    try:
        raise ValueError("seven")
    except ValueError:
        log.exception("It failed")
    assert stream.getvalue().splitlines()[0].endswith("It failed")
    assert stream.getvalue().splitlines()[-1] == "ValueError: seven"


@pytest.mark.parametrize(
    ("log_format", "stream", "is_json"),
    [
        ("auto", io.StringIO(), True),
        ("auto", Terminal(), False),
        ("json", Terminal(), True),
        ("text", io.StringIO(), False),
    ],
)
def test_auto_looks_at_the_stream(log_format: LogFormat, stream: io.StringIO, is_json: bool) -> None:
    configured(log_format, stream=stream)
    log.info("hello")
    assert stream.getvalue().startswith("{") is is_json


def test_the_level_holds_and_libraries_do_not_chat() -> None:
    stream = configured(level="INFO")
    log.debug("hidden")
    log.info("shown")
    logging.getLogger("urllib3.connectionpool").info("chat")
    logging.getLogger("urllib3.connectionpool").warning("trouble")
    assert [line["message"] for line in lines(stream)] == ["shown", "trouble"]


def test_configured_twice_says_it_once() -> None:
    configured()
    stream = configured()
    log.info("once")
    assert len(lines(stream)) == 1

"""Logging: one JSON object a line in a container, plain sentences on a terminal, each with its job id."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO

LogFormat = Literal["auto", "json", "text"]

_job_id: ContextVar[str | None] = ContextVar("morpheus_job_id", default=None)
_trace_id: ContextVar[str | None] = ContextVar("morpheus_trace_id", default=None)

_PLAIN_ATTRIBUTES: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


@contextlib.contextmanager
def job_context(job_id: str, trace_id: str) -> Iterator[None]:
    """Within it, every log line carries the ids. Threads started inside must copy the context to inherit them."""
    job_token, trace_token = _job_id.set(job_id), _trace_id.set(trace_id)
    try:
        yield
    finally:
        _job_id.reset(job_token)
        _trace_id.reset(trace_token)


def configure(log_format: LogFormat, level: str, *, stream: TextIO | None = None) -> None:
    """Sets up the root logger, once per process, on standard error unless told otherwise.

    `auto` means sentences where `stream` is a terminal and JSON elsewhere.
    """
    stream = stream or sys.stderr
    as_json = log_format == "json" or (log_format == "auto" and not stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if as_json else SentenceFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.captureWarnings(True)
    for chatty in ("urllib3", "websocket", "botocore", "aiohttp.access", "asyncio"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `ts`, `level`, `logger`, `message`, `job_id`, `trace_id`, and the record's `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        said: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        said |= _ids() | _extra(record)
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said, ensure_ascii=False, default=str)


class SentenceFormatter(logging.Formatter):
    """`12:34:56 warning  the sentence  [job abc]`."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        job = _job_id.get()
        line = f"{at} {record.levelname.lower():<8} {record.getMessage()}" + (f"  [job {job}]" if job else "")
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _ids() -> dict[str, str]:
    pairs = (("job_id", _job_id.get()), ("trace_id", _trace_id.get()))
    return {name: value for name, value in pairs if value is not None}


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _PLAIN_ATTRIBUTES}

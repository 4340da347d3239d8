"""What nodes only write into ComfyUI's log, and go on: that a picture has no face, say, before they draw a stranger's.

A template names such lines with the code of the failure that they mean. They are looked for among what was logged since
the prompt began, while it runs and when it has ended.

Source: ComfyUI 0.3.64, api_server/routes/internal/internal_routes.py `/internal/logs/raw` and app/logger.py: the last
300 entries, each with the text of one write and its local time. The route is for ComfyUI's own page, so one that lacks
it is no failure.
"""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from morpheus_worker.errors import Code, MorpheusError

log = logging.getLogger(__name__)

LogEntry = tuple[str, str]
"""(when, in ISO 8601 by ComfyUI's own clock and time zone; what was written)."""

Reading = Callable[[], list[LogEntry]]
"""ComfyUI's log now, oldest first. Raises MorpheusError when it cannot be had."""

ZONE_S: Final = 900.0
"""Time zones differ by quarters of an hour."""

RECEIVED: Final = "got prompt"
"""What ComfyUI logs when a prompt is submitted (0.3.64, server.py `post_prompt`)."""

TICK_S: Final = 0.002
"""A start is told in whole milliseconds."""


class Overheard:
    """The log during one prompt. `telling` leads from a part of a line to what it means."""

    def __init__(self, telling: Mapping[str, Code], read: Reading) -> None:
        self._telling = telling
        self._read = read
        self._before: list[LogEntry] | None = None
        self._submitted_s = 0.0
        self._started_s: float | None = None

    def submitting(self) -> None:
        """What has been logged until now counts no more: to be called just before the prompt is submitted, because
        when it begins may never be heard."""
        if self._telling:
            self._before, self._submitted_s = self._lines(), time.time()

    def started(self, timestamp_ms: int | None) -> None:
        """The prompt began at this time of ComfyUI's: what was logged before is another one's."""
        self._started_s = None if timestamp_ms is None else timestamp_ms / 1000

    def check(self) -> None:
        """Raises the failure that the log tells of, if it does."""
        if self._before is None or (lines := self._lines()) is None:
            return
        if not self._before:
            since = 0
        elif self._before[-1] in lines:
            since = lines.index(self._before[-1]) + 1
        else:
            since = None
        for said in self._own(lines[since or 0 :], has_submission=since is not None):
            for part, code in self._telling.items():
                if part in said:
                    raise MorpheusError(code, _SENTENCES.get(code, "ComfyUI says: {}").format(said.strip()))

    def _own(self, lines: list[LogEntry], *, has_submission: bool) -> list[str]:
        """Those written since the prompt began, where its start was heard."""
        if self._started_s is None:
            return [said for _, said in lines]
        since_s = self._started_s - TICK_S + (self._zone_s(lines) if has_submission else 0.0)
        return [said for when, said in lines if (written_s := _seconds(when)) is None or written_s >= since_s]

    def _zone_s(self, lines: list[LogEntry]) -> float:
        """How far ComfyUI's time zone is ahead of the worker's: it says at once that it got a prompt."""
        received_s = next((_seconds(when) for when, said in lines if RECEIVED in said), None)
        return 0.0 if received_s is None else round((received_s - self._submitted_s) / ZONE_S) * ZONE_S

    def _lines(self) -> list[LogEntry] | None:
        try:
            return self._read()
        except MorpheusError as failure:
            log.debug("ComfyUI's log cannot be read: %s", failure)
            return None


_SENTENCES: Final[Mapping[Code, str]] = {Code.NO_FACE: "No face was found in the picture: {}"}


def _seconds(when: str) -> float | None:
    """Seconds since the epoch at a local time."""
    try:
        return datetime.datetime.fromisoformat(when).timestamp()
    except ValueError:
        return None

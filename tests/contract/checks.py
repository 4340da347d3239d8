"""What several assertions look at: history entries, files, queues, empty answers."""

from __future__ import annotations

import re
from typing import Any

from .model import Call, Recording
from .shapes import FILE, HISTORY, META, check

_ITEM = {"n": (int, float), "id": str, "g": dict, "x": dict, "o": [str]}


def outputs(seen: Recording, prompt_id: str) -> Any:
    return history_of(seen, prompt_id)["outputs"]


def history_of(seen: Recording, prompt_id: str) -> Any:
    entry = seen.history(prompt_id)
    check(entry, HISTORY, f"history of {prompt_id}")
    for node_id, meta in entry["meta"].items():
        check(meta, META, f"meta of node {node_id}")
    assert set(entry["meta"]) == set(entry["outputs"])
    return entry


def assert_files(files: Any, stem: str, suffix: str, *, kind: str, subfolder: str = "", count: int = 1) -> None:
    """Files named `<stem>_<five digits>_.<suffix>`, counted on from one another."""
    check(files, [FILE], "files")
    matches = [re.fullmatch(rf"{stem}_(\d{{5}})_\.{suffix}", file["filename"]) for file in files]
    numbers = [int(match.group(1)) for match in matches if match]
    assert len(numbers) == len(files) == count, f"{files} should be {count} named {stem}_00001_.{suffix}"
    assert numbers == list(range(numbers[0], numbers[0] + count))
    assert {(file["type"], file["subfolder"]) for file in files} == {(kind, subfolder)}


def assert_viewed(seen: Recording, *kinds: str) -> None:
    """Every file was fetched, and is of the kind that its name says."""
    views = seen.calls("GET", "/view")
    assert [(call.status, call.content_type) for call in views] == [(200, kind) for kind in kinds]
    assert all(call.size for call in views)


def running_and_pending(call: Call) -> tuple[list[str], list[str]]:
    """Prompt ids of GET /queue: those that run, and those that wait in the order in which they will run."""
    for item in call.received["queue_running"] + call.received["queue_pending"]:
        check(item, [object], "a queue item")
        number, prompt_id, graph, extra, to_run = item[:5]
        check({"n": number, "id": prompt_id, "g": graph, "x": extra, "o": to_run}, _ITEM, "a queue item")
    pending = sorted(call.received["queue_pending"], key=lambda item: float(item[0]))
    return [item[1] for item in call.received["queue_running"]], [item[1] for item in pending]


def assert_never_ran(seen: Recording, prompt_id: str) -> None:
    assert seen.history(prompt_id) is None, "a prompt that was taken from the queue leaves no history"
    assert seen.frames(prompt_id=prompt_id) == [], "and no message tells of it"


def assert_empty_answer(call: Call) -> None:
    assert (call.status, call.size) == (200, 0)

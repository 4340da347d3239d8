"""Recorded traffic with ComfyUI as values: what was asked and answered over HTTP, what each WebSocket client heard.

A recording is one JSON file: a header, then one exchange a line, in the order in which they were seen.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from morpheus_worker.comfy.codec import decode
from morpheus_worker.comfy.messages import Message

DATA: Final = Path(__file__).resolve().parent.parent / "recordings"


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request and its answer. `received` is the parsed JSON; an answer without JSON has `content_type`."""

    at_ms: int
    method: str
    path: str
    sent: Any
    status: int
    received: Any
    content_type: str | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """One WebSocket frame, as client `client` heard it: parsed JSON, or bytes."""

    at_ms: int
    client: str
    content: Any

    @property
    def raw(self) -> str | bytes:
        return self.content if isinstance(self.content, bytes) else json.dumps(self.content)

    @property
    def message(self) -> Message:
        """Decoded by the worker's own codec; raises MalformedFrameError."""
        return decode(self.raw)

    @property
    def type(self) -> str | None:
        """The message's type as it was written; None for a binary frame."""
        return None if isinstance(self.content, bytes) else self.content["type"]

    @property
    def data(self) -> Any:
        return None if isinstance(self.content, bytes) else self.content.get("data")


@dataclass(frozen=True, slots=True)
class Line:
    """A client's WebSocket was opened or closed, or the client said something on it."""

    at_ms: int
    client: str
    event: Literal["open", "close", "say"]
    sent: Any = None


Exchange = Call | Frame | Line


@dataclass(frozen=True, slots=True)
class Recording:
    """Everything that was seen while one scenario was played."""

    scenario: str
    exchanges: Sequence[Exchange]
    header: Mapping[str, Any] = field(default_factory=dict)

    def calls(self, method: str | None = None, path: str | None = None) -> list[Call]:
        """Calls in order; `path` matches from the start."""
        return [
            seen
            for seen in self.exchanges
            if isinstance(seen, Call) and method in (None, seen.method) and seen.path.startswith(path or "")
        ]

    def submissions(self) -> list[Call]:
        return [call for call in self.calls("POST") if call.path == "/prompt"]

    def prompt_ids(self) -> list[str]:
        """Ids of the prompts that were accepted, in order of submission."""
        return [call.received["prompt_id"] for call in self.submissions() if call.status == 200]

    def history(self, prompt_id: str) -> Any:
        """The prompt's history entry as it was last seen, or None when it was asked for and not there."""
        seen = [call.received for call in self.calls("GET", f"/history/{prompt_id}")]
        assert seen, f"{self.scenario} never asked for the history of {prompt_id}"
        return seen[-1].get(prompt_id)

    def frames(self, client: str | None = None, *, prompt_id: str | None = None) -> list[Frame]:
        """Frames in order, those of one client, or those that name a prompt."""
        return [
            seen
            for seen in self.exchanges
            if isinstance(seen, Frame)
            and client in (None, seen.client)
            and (prompt_id is None or (isinstance(seen.data, dict) and seen.data.get("prompt_id") == prompt_id))
        ]

    def after(self, mark: Exchange) -> Recording:
        """What was seen after `mark`, which is one of these exchanges."""
        index = next(index for index, seen in enumerate(self.exchanges) if seen is mark)
        return Recording(self.scenario, self.exchanges[index + 1 :], self.header)

    def before(self, mark: Exchange) -> Recording:
        index = next(index for index, seen in enumerate(self.exchanges) if seen is mark)
        return Recording(self.scenario, self.exchanges[:index], self.header)

    def lines(self, client: str, event: str) -> list[Line]:
        return [
            seen for seen in self.exchanges if isinstance(seen, Line) and (seen.client, seen.event) == (client, event)
        ]


def save(recording: Recording, path: Path) -> None:
    """Writes the recording, one exchange a line, so that a change of one reads as one changed line."""
    head = {"scenario": recording.scenario, **recording.header}
    lines = ",\n".join("  " + json.dumps(_to_json(seen), ensure_ascii=False) for seen in recording.exchanges)
    opening = json.dumps(head, indent=1, ensure_ascii=False)[:-2]
    path.write_text(f'{opening},\n "exchanges": [\n{lines}\n ]\n}}\n', encoding="utf-8")


def load(path: Path) -> Recording:
    said = json.loads(path.read_text(encoding="utf-8"))
    exchanges = tuple(_from_json(line) for line in said.pop("exchanges"))
    return Recording(said.pop("scenario"), exchanges, said)


def recorded() -> list[Path]:
    """The files of recordings that come with the tests."""
    return sorted(DATA.glob("*.json"))


def _to_json(seen: Exchange) -> dict[str, Any]:
    match seen:
        case Call():
            answer: dict[str, Any] = {"status": seen.status, "json": seen.received}
            if seen.content_type is not None:
                answer = {"status": seen.status, "content_type": seen.content_type, "size": seen.size}
            asked = {"method": seen.method, "path": seen.path, "json": seen.sent}
            return {"at_ms": seen.at_ms, "direction": "http", "request": asked, "response": answer}
        case Frame(at_ms, client, bytes() as content):
            encoded = base64.b64encode(content).decode()
            return {"at_ms": at_ms, "direction": "ws", "client": client, "binary": encoded}
        case Frame(at_ms, client, content):
            return {"at_ms": at_ms, "direction": "ws", "client": client, "text": content}
        case Line(at_ms, client, event, sent):
            said = {"json": sent} if event == "say" else {}
            return {"at_ms": at_ms, "direction": "ws", "client": client, "event": event} | said


def _from_json(said: Mapping[str, Any]) -> Exchange:
    at_ms = said["at_ms"]
    if said["direction"] == "http":
        asked, answer = said["request"], said["response"]
        return Call(
            at_ms,
            asked["method"],
            asked["path"],
            asked["json"],
            answer["status"],
            answer.get("json"),
            answer.get("content_type"),
            answer.get("size"),
        )
    if "event" in said:
        return Line(at_ms, said["client"], said["event"], said.get("json"))
    content = base64.b64decode(said["binary"]) if "binary" in said else said["text"]
    return Frame(at_ms, said["client"], content)

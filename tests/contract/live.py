"""Plays scenarios against something that speaks ComfyUI's protocol, and notes everything that passes.

The same driver makes the recordings (tests/recordings/record.py) and questions a live server, so both see one story.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlencode

import requests
import websocket

from .model import Call, Exchange, Frame, Line, Recording

WAIT_S: Final = 60.0
"""How long a scenario waits for a frame before it gives up."""

HTTP_S: Final = 30.0

Graph = dict[str, Any]
Wanted = Callable[[Frame], bool]


@dataclass(frozen=True, slots=True)
class Models:
    """Names of the model files that the server offers."""

    upscaler: str
    checkpoint: str | None = None


@dataclass(eq=False)
class Live:
    """One scenario in progress. `exchanges` grows as things happen; frames are noted the moment they arrive."""

    url: str
    scenario: str
    models: Models
    exchanges: list[Exchange] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _began_s: float = field(default_factory=time.monotonic)
    _http: requests.Session = field(default_factory=requests.Session)
    _clients: list[Client] = field(default_factory=list)

    def note(self, seen: Exchange) -> None:
        with self._changed:
            self.exchanges.append(seen)
            self._changed.notify_all()

    @property
    def at_ms(self) -> int:
        return round((time.monotonic() - self._began_s) * 1000)

    def connect(self, name: str, *, client_id: str | None = None) -> Client:
        """Opens a WebSocket under a client id that no other run uses, or under the one given."""
        client = Client(self, name, client_id or f"{self.scenario}-{name}-{uuid.uuid4().hex[:8]}")
        self._clients.append(client)
        return client

    def get(self, path: str) -> Call:
        return self._call("GET", path, None)

    def post(self, path: str, body: Any) -> Call:
        return self._call("POST", path, body, json=body)

    def post_text(self, path: str, text: str) -> Call:
        return self._call("POST", path, text, data=text)

    def upload(self, name: str, content: bytes, **fields: str) -> Call:
        """POST /upload/image; what is noted of the file is its name and size."""
        said = {"image": name, "bytes": len(content), **fields}
        return self._call("POST", "/upload/image", said, files={"image": (name, io.BytesIO(content))}, data=fields)

    def _call(self, method: str, path: str, said: Any, **how: Any) -> Call:
        answer = self._http.request(method, self.url + path, timeout=HTTP_S, **how)
        kind = answer.headers.get("Content-Type", "").partition(";")[0]
        if kind == "application/json":
            call = Call(self.at_ms, method, path, said, answer.status_code, answer.json())
        else:
            call = Call(self.at_ms, method, path, said, answer.status_code, None, kind, len(answer.content))
        self.note(call)
        return call

    def submit(self, graph: Graph, client: Client | None = None, **more: Any) -> str:
        """POST /prompt with a graph that must be accepted; answers with its prompt id."""
        call = self.try_submit(graph, client, **more)
        assert call.status == 200, f"{self.scenario}: /prompt answered {call.status}: {call.received}"
        return str(call.received["prompt_id"])

    def try_submit(self, graph: Any, client: Client | None = None, **more: Any) -> Call:
        by = {"client_id": client.client_id} if client else {}
        return self.post("/prompt", {"prompt": graph, **by, **more})

    def run(self, graph: Graph, client: Client, **more: Any) -> str:
        """Submits, waits for the prompt's end and asks for its history."""
        prompt_id = self.submit(graph, client, **more)
        client.until_end_of(prompt_id)
        self.history(prompt_id)
        return prompt_id

    def run_and_view(self, graph: Graph, client: Client) -> str:
        """Runs the graph, then fetches each file that its history entry names."""
        prompt_id = self.run(graph, client)
        for output in self.history(prompt_id).received[prompt_id]["outputs"].values():
            for files in output.values():
                for file in files:
                    if isinstance(file, dict):
                        self.get("/view?" + urlencode(file))
        return prompt_id

    def history(self, prompt_id: str) -> Call:
        return self.get(f"/history/{quote(prompt_id, safe='')}")

    def frame_after(self, index: int, client: Client, wanted: Wanted) -> tuple[int, Frame]:
        """The first frame of `client` from `index` on that is wanted, and the index behind it.

        Raises:
            AssertionError: when it does not come within WAIT_S.
        """
        deadline_s = time.monotonic() + WAIT_S
        with self._changed:
            while True:
                while index < len(self.exchanges):
                    seen = self.exchanges[index]
                    index += 1
                    if isinstance(seen, Frame) and seen.client == client.name and wanted(seen):
                        return index, seen
                left_s = deadline_s - time.monotonic()
                if left_s <= 0 or not self._changed.wait(left_s):
                    raise AssertionError(f"{self.scenario}: client {client.name} waited in vain; seen: {self._tail()}")

    def _tail(self) -> str:
        frames = [seen for seen in self.exchanges if isinstance(seen, Frame)]
        return "; ".join(f"{seen.client}: {seen.type} {str(seen.data)[:120]}" for seen in frames[-8:])

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self._http.close()

    def recording(self) -> Recording:
        return Recording(self.scenario, tuple(self.exchanges))


class Client:
    """A WebSocket client. Its `until…` methods read on from where the last one stopped."""

    def __init__(self, live: Live, name: str, client_id: str) -> None:
        self.name = name
        self.client_id = client_id
        self._live = live
        self._read = len(live.exchanges)
        address = f"{live.url.replace('http', 'ws', 1)}/ws?clientId={client_id}"
        self._socket = websocket.create_connection(address, timeout=WAIT_S)
        self._socket.settimeout(None)
        live.note(Line(live.at_ms, name, "open"))
        self._reader = threading.Thread(target=self._listen, name=f"listen-{name}", daemon=True)
        self._reader.start()

    def _listen(self) -> None:
        with contextlib.suppress(websocket.WebSocketException, OSError):
            while True:
                opcode, content = self._socket.recv_data()
                if opcode == websocket.ABNF.OPCODE_CLOSE:
                    break
                self._live.note(Frame(self._live.at_ms, self.name, _parsed(opcode, content)))

    def say(self, message: Mapping[str, Any]) -> None:
        self._live.note(Line(self._live.at_ms, self.name, "say", dict(message)))
        self._socket.send(json.dumps(message))

    def until(self, kind: str, wanted: Callable[[Any], bool] = lambda data: True) -> Frame:
        """The next text message of this type whose data is wanted."""
        self._read, frame = self._live.frame_after(
            self._read, self, lambda frame: frame.type == kind and wanted(frame.data)
        )
        return frame

    def until_end_of(self, prompt_id: str) -> Frame:
        """`executing` without a node: the last message about a prompt, sent when its history entry exists."""
        return self.until("executing", lambda data: data["node"] is None and data["prompt_id"] == prompt_id)

    def until_idle(self) -> Frame:
        """The next `status` that says nothing is queued or running."""
        return self.until("status", lambda data: data["status"]["exec_info"]["queue_remaining"] == 0)

    def drop(self) -> None:
        """Cuts the connection without a word, as a network would."""
        self._note_close()
        below = self._socket.sock
        with contextlib.suppress(OSError):
            if below is not None:
                below.shutdown(socket.SHUT_RDWR)
        self._end()

    def close(self) -> None:
        """Says goodbye and waits for the server's goodbye. Harmless on a closed client."""
        if self._reader.is_alive():
            with contextlib.suppress(websocket.WebSocketException, OSError):
                self._socket.send_close()
                self._reader.join(WAIT_S)
            self._note_close()
        self._end()

    def _note_close(self) -> None:
        self._live.note(Line(self._live.at_ms, self.name, "close"))

    def _end(self) -> None:
        self._reader.join(WAIT_S)
        self._socket.shutdown()


def _parsed(opcode: int, content: bytes) -> Any:
    return content if opcode == websocket.ABNF.OPCODE_BINARY else json.loads(content)


@contextlib.contextmanager
def live(url: str, scenario: str, models: Models) -> Iterator[Live]:
    """A driver whose sockets are closed at the end."""
    driver = Live(url, scenario, models)
    try:
        yield driver
    finally:
        driver.close()


def fresh_colour() -> int:
    """A colour for EmptyImage that the server has most likely not cached."""
    return random.randrange(1, 1 << 24)

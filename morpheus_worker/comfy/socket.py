"""One long-lived WebSocket to ComfyUI for the whole process, its messages handed to whoever waits for a prompt.

The stream may break at any moment, and what it would have said is gone. Whoever subscribes is told of every gap, and
then asks ComfyUI over HTTP where its prompt is.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import uuid
from collections.abc import Iterator
from typing import Final

import websocket

from morpheus_worker.comfy.codec import MalformedFrameError, decode
from morpheus_worker.comfy.messages import Message, prompt_of
from morpheus_worker.deadlines import backoff_s

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S: Final = 5.0
SILENCE_BEFORE_PING_S: Final = 10.0
"""After this long without a frame the stream is pinged; as long again without any, it is taken for dead."""
FIRST_RETRY_S: Final = 0.1
LAST_RETRY_S: Final = 5.0


class Gap:
    """The stream was (re)established, or brought a frame that cannot be read: anything may have happened meanwhile."""


Inbox = queue.SimpleQueue[Message | Gap]


class EventStream:
    """Messages by prompt id. `start` begins connecting in a thread of its own; `close` ends it for good."""

    def __init__(self, base_url: str) -> None:
        self._url = base_url.rstrip("/").replace("http", "ws", 1) + "/ws?clientId="
        self._lock = threading.Lock()
        self._inboxes: dict[str, Inbox] = {}
        self._connected = threading.Event()
        self._closing = threading.Event()
        self._socket: websocket.WebSocket | None = None
        self._client_id = uuid.uuid4().hex
        self._thread = threading.Thread(target=self._run, name="comfyui-events", daemon=True)

    @property
    def client_id(self) -> str:
        """The id to submit prompts under: ComfyUI sends a prompt's events to the client that submitted it."""
        return self._client_id

    @property
    def connected(self) -> bool:
        return self._connected.is_set()

    def start(self) -> None:
        self._thread.start()

    def wait_until_connected(self, timeout_s: float) -> bool:
        return self._connected.wait(timeout_s)

    def close(self) -> None:
        """Ends the stream and its thread. May be called more than once."""
        self._closing.set()
        self._wake_reader()
        if self._thread.is_alive():
            self._thread.join()

    def renew(self) -> None:
        """Connects again under a fresh client id.

        ComfyUI forgets a client's new socket when the old one under the same id is cleaned up late (0.3.64, server.py
        `websocket_handler`, `finally`): the connection stands, and nothing comes any more.
        """
        self._connected.clear()
        self._client_id = uuid.uuid4().hex
        self._wake_reader()

    @contextlib.contextmanager
    def subscribe(self, prompt_id: str) -> Iterator[Inbox]:
        """The inbox of one prompt, from before it is submitted until nobody asks any more."""
        inbox: Inbox = queue.SimpleQueue()
        with self._lock:
            self._inboxes[prompt_id] = inbox
        try:
            yield inbox
        finally:
            with self._lock:
                self._inboxes = {known: other for known, other in self._inboxes.items() if other is not inbox}

    def rename(self, prompt_id: str, to: str) -> None:
        """The inbox of the first prompt gets the messages of the second from now on."""
        with self._lock:
            self._inboxes[to] = self._inboxes.pop(prompt_id)

    def _run(self) -> None:
        waits = backoff_s(FIRST_RETRY_S, LAST_RETRY_S)
        while not self._closing.is_set():
            try:
                self._connect()
                waits = backoff_s(FIRST_RETRY_S, LAST_RETRY_S)
                self._read_until_it_breaks()
            except (OSError, websocket.WebSocketException) as failure:
                if not self._closing.is_set():
                    log.debug("the event stream is down: %s", failure)
            finally:
                self._connected.clear()
                self._drop_socket()
            self._closing.wait(next(waits))

    def _connect(self) -> None:
        client_id = self._client_id
        opened = websocket.create_connection(
            self._url + client_id,
            timeout=CONNECT_TIMEOUT_S,
            suppress_origin=True,
            # It would look at every byte in Python; decoding looks, too.
            skip_utf8_validation=True,
            # A proxy of the machine has no business here, and websocket-client (1.9) heeds http_no_proxy only where a
            # proxy is named: this one never gets a connection.
            http_proxy_host="none",
            http_proxy_port=1,
            http_no_proxy=["*"],
        )
        opened.settimeout(SILENCE_BEFORE_PING_S)
        self._socket = opened
        if self._closing.is_set() or client_id != self._client_id:
            raise OSError("closing, or renewed meanwhile")
        self._connected.set()
        self._tell_everybody(Gap())

    def _read_until_it_breaks(self) -> None:
        stream = self._socket
        assert stream is not None
        pinged = False
        while not self._closing.is_set():
            try:
                opcode, data = stream.recv_data(control_frame=True)
            except websocket.WebSocketTimeoutException:
                if pinged:
                    raise
                stream.ping()
                pinged = True
                continue
            pinged = False
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                return
            if opcode in (websocket.ABNF.OPCODE_TEXT, websocket.ABNF.OPCODE_BINARY):
                self._deliver(data, is_text=opcode == websocket.ABNF.OPCODE_TEXT)

    def _deliver(self, data: bytes, *, is_text: bool) -> None:
        try:
            message = decode(data.decode() if is_text else data)
        except (MalformedFrameError, UnicodeDecodeError) as failure:
            log.debug("ComfyUI sent a frame that is none: %s", failure)
            self._tell_everybody(Gap())
            return
        with self._lock:
            inbox = self._inboxes.get(prompt_of(message) or "")
        if inbox is not None:
            inbox.put(message)

    def _tell_everybody(self, news: Gap) -> None:
        with self._lock:
            for inbox in self._inboxes.values():
                inbox.put(news)

    def _wake_reader(self) -> None:
        """From any thread: breaks the connection, which the reading thread notices and cleans up."""
        if (stream := self._socket) is not None:
            stream.abort()

    def _drop_socket(self) -> None:
        stream, self._socket = self._socket, None
        if stream is not None:
            with contextlib.suppress(OSError, websocket.WebSocketException):
                stream.shutdown()

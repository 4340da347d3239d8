"""The WebSockets of a rehearsal, and who gets which message.

Source: ComfyUI 0.3.64, server.py `websocket_handler`, `send_json`. A message has one receiver, the client that
submitted the prompt, or everybody when it has none. A second connection under a client id takes the place of the first;
when the first one closes after that, it takes the second one's place away with it. Both are ComfyUI's.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import Callable
from typing import Any, Final

from aiohttp import WSMsgType, web

from morpheus_worker.comfy.codec import encode
from morpheus_worker.comfy.messages import Executing, Message, Other, Status

log = logging.getLogger(__name__)

Frame = str | bytes

MAX_UPLOAD_BYTES: Final = 100 * 1024 * 1024
FEATURES: Final = {"supports_preview_metadata": True, "max_upload_size": MAX_UPLOAD_BYTES}
"""What `GET /features` and the negotiation say (ComfyUI 0.3.64, comfy_api/feature_flags.py)."""


def event_of(message: Message, **more: Any) -> tuple[str, dict[str, Any]]:
    """A message's type and data as ComfyUI sends them, with fields that the codec has no use for."""
    said = json.loads(encode(message))
    return said["type"], {**said["data"], **more}


class Hub:
    """Belongs to one event loop. Messages leave in the order in which they were given."""

    def __init__(self, remaining: Callable[[], int]) -> None:
        self.client_id: str | None = None
        """The client of the prompt that ran last, or runs."""
        self.last_node_id: str | None = None
        self.silent = False
        self._remaining = remaining
        self._sockets: dict[str, web.WebSocketResponse] = {}
        self._transports: dict[web.WebSocketResponse, asyncio.Transport | None] = {}
        self._outbox: asyncio.Queue[tuple[Frame, str | None]] = asyncio.Queue()

    def announce_remaining(self, remaining: int) -> None:
        """Tells everybody how many prompts wait or run."""
        self.send(Status(remaining), None)

    def send(self, message: Message, client_id: str | None) -> None:
        """To one client, or, with None, to everybody."""
        self.send_frame(encode(message), client_id)

    def send_frame(self, frame: Frame, client_id: str | None) -> None:
        if not self.silent:
            self._outbox.put_nowait((frame, client_id))

    async def publish_forever(self) -> None:
        while True:
            frame, client_id = await self._outbox.get()
            if client_id is None:
                receivers = list(self._sockets.values())
            else:
                receivers = [self._sockets[client_id]] if client_id in self._sockets else []
            for receiver in receivers:
                await _deliver(receiver, frame)
            self._outbox.task_done()

    async def flushed(self) -> None:
        """Waits until all that was given has been sent."""
        await self._outbox.join()

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        """One client, from its connection to its end."""
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        sid = request.rel_url.query.get("clientId", "") or uuid.uuid4().hex
        self._sockets[sid] = socket
        self._transports[socket] = request.transport
        try:
            await _deliver(socket, encode(Status(self._remaining(), sid)))
            if self.client_id == sid and self.last_node_id is not None:
                await _deliver(socket, encode(Executing(None, self.last_node_id)))
            await self._listen(socket)
        finally:
            self._sockets.pop(sid, None)
            self._transports.pop(socket, None)
        return socket

    async def _listen(self, socket: web.WebSocketResponse) -> None:
        first = True
        async for message in socket:
            if message.type != WSMsgType.TEXT:
                continue
            try:
                said = json.loads(message.data)
            except ValueError:
                log.warning("a client sent what is no JSON: %.80s", message.data)
                continue
            if first and isinstance(said, dict) and said.get("type") == "feature_flags":
                await _deliver(socket, encode(Other("feature_flags", FEATURES)))
            first = False

    def cut(self) -> None:
        """Breaks every connection off, without a word."""
        for transport in list(self._transports.values()):
            if transport is not None:
                transport.abort()

    async def close(self) -> None:
        for socket in list(self._transports):
            await socket.close(code=1001, message=b"the server stops")


async def _deliver(socket: web.WebSocketResponse, frame: Frame) -> None:
    try:
        await (socket.send_str(frame) if isinstance(frame, str) else socket.send_bytes(frame))
    except ConnectionError as failure:
        log.debug("a client is gone: %s", failure)

"""A peer that speaks ComfyUI's protocol as far as a test asks, and misbehaves on command.

It queues prompts and plays them one at a time. What a prompt does stands in its node 1 (`part`), so several can do
different things: `success`, `error`, `hold` (runs until released or interrupted), `stubborn` (until released, whatever
it is told), `late` (is filed only when released, though it has told of its success), `vanish` (leaves the queue and is
never filed). What the peer itself does wrong is switched on beside.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import aiohttp
from aiohttp import web

from morpheus_worker.comfy.codec import encode
from morpheus_worker.comfy.messages import (
    Executed,
    Executing,
    ExecutionCached,
    ExecutionError,
    ExecutionInterrupted,
    ExecutionStart,
    ExecutionSuccess,
    Message,
    NodeProgress,
    Status,
)
from morpheus_worker.comfy.objectinfo import ObjectInfo

WAIT_S = 5.0
"""How long a test waits for something that must happen."""

OBJECT_INFO = {
    "Play": {
        "input": {
            "required": {
                "part": ["STRING", {}],
                "steps": ["INT", {"default": 2, "min": 1, "max": 10}],
                "model": [["a.safetensors"], {}],
            }
        },
        "output": [],
        "output_node": True,
    }
}
INFO = ObjectInfo(OBJECT_INFO)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Fault = Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]
T = TypeVar("T")


def graph(part: str = "success", name: str = "x", **more: Any) -> dict[str, Any]:
    """A prompt that plays `part` and reports a file called after `name`."""
    return {"1": {"class_type": "Play", "inputs": {"part": part, "name": name, **more}}}


@dataclass(eq=False)
class Prompt:
    """One prompt in the queue."""

    prompt_id: str
    graph: dict[str, Any]
    client_id: str | None
    extra_data: dict[str, Any]
    interrupted: bool = False
    turn: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def part(self) -> str:
        return str(self.graph["1"]["inputs"]["part"])


@dataclass(frozen=True)
class Request:
    """One request as it arrived."""

    route: str
    body: Any
    connection: tuple[str, int]


class Peer:
    """The server, in a thread of its own. Everything public may be used from the test's thread."""

    def __init__(self, port: int = 0) -> None:
        self._port = port
        self.requests: list[Request] = []
        self.submitted: list[Prompt] = []
        self.sockets_opened: list[str] = []
        self.uploads: list[tuple[str, str, bytes]] = []
        self.files: dict[tuple[str, str, str], bytes] = {}
        self.faults: dict[str, deque[Fault]] = defaultdict(deque)
        self.refusal: dict[str, Any] | None = None
        self.node_errors: dict[str, Any] = {}
        self.muted = False
        """Sends no event of any prompt."""
        self.deaf_clients: set[str] = set()
        """Sends these nothing, though their connection stands."""
        self.output_dir: Path | None = None
        """Where it saves what it reports; nowhere, unless told."""
        self.refuses_sockets = False
        self.answers_pings = True
        self.pings = 0
        self._history: dict[str, dict[str, Any]] = {}
        self._pending: list[Prompt] = []
        self._running: Prompt | None = None
        self._sockets: dict[str, web.WebSocketResponse] = {}
        self._changed = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._queued = asyncio.Event()
        self._address: Future[tuple[str, int]] = Future()
        self._closing = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), name="peer")

    def __enter__(self) -> Self:
        self._thread.start()
        self._address.result(WAIT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join()
        self._loop.close()

    # --- what a test sees

    @property
    def url(self) -> str:
        host, port = self._address.result()
        return f"http://{host}:{port}"

    def routes(self, *, only: str | None = None) -> list[str]:
        return [request.route for request in self.requests if only is None or request.route == only]

    def asked_since(self, mark: str, route: str) -> bool:
        """Whether the route was asked for after the latest request of `mark`."""
        routes = self.routes()
        return route in routes[len(routes) - routes[::-1].index(mark) :]

    def bodies(self, route: str) -> list[Any]:
        return [request.body for request in self.requests if request.route == route]

    @property
    def http_connections(self) -> set[tuple[str, int]]:
        return {request.connection for request in self.requests if request.route != "GET /ws"}

    @property
    def running(self) -> str | None:
        return self._running.part if self._running else None

    @property
    def idle(self) -> bool:
        return self._running is None and not self._pending

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Until the condition holds; it is looked at whenever something happens here."""
        with self._changed:
            assert self._changed.wait_for(lambda: bool(condition()), WAIT_S), "it did not happen in time"

    # --- what a test does

    def on(self, route: str, *faults: Fault) -> None:
        """The next requests of the route meet these faults, one each."""
        self.faults[route].extend(faults)

    def release(self, prompt: Prompt) -> None:
        self._call(prompt.turn.set)

    def release_all(self) -> None:
        """So that nothing waits any more, whatever a test left."""
        for prompt in self.submitted:
            self.release(prompt)

    def wipe_queue(self) -> None:
        """Forgets what is queued, as somebody in ComfyUI's own page can make it do."""
        self._call(self._pending.clear)

    def cut_sockets(self) -> None:
        """Breaks every WebSocket without a closing word."""

        def cut() -> None:
            for socket in self._sockets.values():
                transport = socket._req.transport if socket._req else None
                if transport is not None:
                    transport.abort()

        self._call(cut)

    def close_sockets(self) -> None:
        """Closes every WebSocket as the protocol says."""
        for socket in list(self._sockets.values()):
            asyncio.run_coroutine_threadsafe(socket.close(), self._loop).result(WAIT_S)

    def send(self, frame: str | bytes, *, opcode: aiohttp.WSMsgType | None = None) -> None:
        """To every WebSocket; `opcode` says what kind of frame it claims to be."""
        raw = frame.encode() if isinstance(frame, str) else frame
        kind = opcode or (aiohttp.WSMsgType.TEXT if isinstance(frame, str) else aiohttp.WSMsgType.BINARY)
        for socket in list(self._sockets.values()):
            sending = socket.send_frame(raw, kind)
            asyncio.run_coroutine_threadsafe(sending, self._loop).result(WAIT_S)

    # --- the server

    async def _serve(self) -> None:
        app = web.Application(middlewares=[self._record], client_max_size=2**26)
        app.add_routes(
            [
                web.get("/ws", self._on_socket),
                web.get("/queue", self._on_queue),
                web.post("/queue", self._on_delete),
                web.get("/history/{prompt_id}", self._on_history),
                web.post("/prompt", self._on_prompt),
                web.post("/interrupt", self._on_interrupt),
                web.get("/object_info", self._on_object_info),
                web.get("/system_stats", self._on_system_stats),
                web.post("/upload/image", self._on_upload),
                web.get("/view", self._on_view),
            ]
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self._port)
        await site.start()
        worker = asyncio.create_task(self._work())
        self._address.set_result(runner.addresses[0][:2])
        await self._closing.wait()
        worker.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await worker
        await runner.cleanup()

    @web.middleware
    async def _record(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        route = f"{request.method} {request.path}"
        if request.path.startswith("/history/"):
            route = "GET /history"
        body = json.loads(await request.text()) if request.content_type == "application/json" else None
        assert request.transport is not None
        connection = request.transport.get_extra_info("peername")[:2]
        with self._changed:
            self.requests.append(Request(route, body, connection))
            fault = self.faults[route].popleft() if self.faults[route] else None
            self._changed.notify_all()
        return await (fault(request, handler) if fault else handler(request))

    async def _on_prompt(self, request: web.Request) -> web.Response:
        said = await request.json()
        if self.refusal is not None:
            return web.json_response(self.refusal, status=400)
        prompt = Prompt(said["prompt_id"], said["prompt"], said.get("client_id"), said.get("extra_data", {}))
        self.submitted.append(prompt)
        self._pending.append(prompt)
        self._queued.set()
        self._happened()
        return web.json_response({"prompt_id": prompt.prompt_id, "number": 1, "node_errors": self.node_errors})

    async def _on_queue(self, request: web.Request) -> web.Response:
        running = [self._running] if self._running else []
        lines = [[[1, p.prompt_id, p.graph, p.extra_data, ["1"]] for p in found] for found in (running, self._pending)]
        return web.json_response({"queue_running": lines[0], "queue_pending": lines[1]})

    async def _on_delete(self, request: web.Request) -> web.Response:
        doomed = (await request.json())["delete"]
        self._pending = [prompt for prompt in self._pending if prompt.prompt_id not in doomed]
        self._happened()
        return web.Response()

    async def _on_interrupt(self, request: web.Request) -> web.Response:
        if self._running and self._running.prompt_id == (await request.json())["prompt_id"]:
            self._running.interrupted = True
            if self._running.part != "stubborn":
                self._running.turn.set()
        return web.Response()

    async def _on_history(self, request: web.Request) -> web.Response:
        prompt_id = request.match_info["prompt_id"]
        return web.json_response({prompt_id: self._history[prompt_id]} if prompt_id in self._history else {})

    async def _on_object_info(self, request: web.Request) -> web.Response:
        return web.json_response(OBJECT_INFO)

    async def _on_system_stats(self, request: web.Request) -> web.Response:
        return web.json_response({"system": {"comfyui_version": "0.3.64"}, "devices": []})

    async def _on_upload(self, request: web.Request) -> web.Response:
        fields: dict[str, str] = {}
        name, content = "", b""
        async for part in await request.multipart():
            assert isinstance(part, aiohttp.BodyPartReader)
            if part.name == "image":
                name, content = part.filename or "", bytes(await part.read())
            else:
                fields[part.name or ""] = await part.text()
        self.uploads.append((fields.get("subfolder", ""), name, content))
        return web.json_response({"name": name, "subfolder": fields.get("subfolder", ""), "type": fields["type"]})

    async def _on_view(self, request: web.Request) -> web.Response:
        key = (request.query["type"], request.query["subfolder"], request.query["filename"])
        if key not in self.files:
            raise web.HTTPNotFound
        return web.Response(body=self.files[key])

    async def _on_socket(self, request: web.Request) -> web.StreamResponse:
        if self.refuses_sockets:
            return web.Response(status=503)
        socket = web.WebSocketResponse(autoping=False)
        await socket.prepare(request)
        sid = request.query["clientId"]
        self._sockets[sid] = socket
        await socket.send_str(str(encode(Status(len(self._pending), sid))))
        self.sockets_opened.append(sid)
        self._happened()
        try:
            async for frame in socket:
                if frame.type == aiohttp.WSMsgType.PING:
                    self.pings += 1
                    self._happened()
                    if self.answers_pings:
                        await socket.pong(frame.data)
        finally:
            if self._sockets.get(sid) is socket:
                del self._sockets[sid]
            self._happened()
        return socket

    # --- the queue

    async def _work(self) -> None:
        while True:
            while not self._pending:
                self._queued.clear()
                await self._queued.wait()
            self._running = self._pending.pop(0)
            self._happened()
            await self._play(self._running)
            self._running = None
            self._happened()

    async def _play(self, prompt: Prompt) -> None:
        pid = prompt.prompt_id
        for message in (
            ExecutionStart(pid),
            ExecutionCached(pid),
            Executing(pid, "1", "1"),
            NodeProgress(pid, "1", 1, 2),
        ):
            await self._tell(prompt, message)
        if prompt.part in ("hold", "stubborn"):
            await prompt.turn.wait()
        if prompt.part == "vanish":
            return
        if prompt.interrupted and prompt.part == "hold":
            await self._tell(prompt, ExecutionInterrupted(pid, "1", "Play"))
            end = "interrupted"
        elif prompt.part == "error":
            await self._tell(prompt, ExecutionError(pid, "1", "Play", "ValueError", "It was told to fail", ("here\n",)))
            end = "error"
        else:
            self._save(prompt)
            await self._tell(prompt, Executed(pid, "1", self._outputs(prompt)["1"], "1"))
            await self._tell(prompt, ExecutionSuccess(pid))
            end = "success"
        if prompt.part == "late":
            await prompt.turn.wait()
        self._file(prompt, end)
        self._running = None
        await self._tell(prompt, Executing(pid, None))

    async def _tell(self, prompt: Prompt, message: Message) -> None:
        socket = self._sockets.get(prompt.client_id or "")
        if self.muted or socket is None or prompt.client_id in self.deaf_clients:
            return
        with contextlib.suppress(ConnectionError):
            await socket.send_str(str(encode(message)))

    def _file(self, prompt: Prompt, end: str) -> None:
        pid = prompt.prompt_id
        messages: list[list[Any]] = [["execution_start", {"prompt_id": pid}]]
        if end == "error":
            failed = ExecutionError(pid, "1", "Play", "ValueError", "It was told to fail", ("here\n",))
            messages.append(["execution_error", json.loads(encode(failed))["data"]])
        if end == "interrupted":
            messages.append(["execution_interrupted", {"prompt_id": pid, "node_id": "1", "executed": []}])
        self._history[pid] = {
            "prompt": [1, pid, prompt.graph, {}, ["1"]],
            "outputs": self._outputs(prompt) if end == "success" else {},
            "status": {
                "status_str": "success" if end == "success" else "error",
                "completed": end == "success",
                "messages": messages,
            },
        }

    def _save(self, prompt: Prompt) -> None:
        if self.output_dir is not None:
            (self.output_dir / f"{prompt.graph['1']['inputs']['name']}.png").write_bytes(b"made by the peer")

    def _outputs(self, prompt: Prompt) -> dict[str, Any]:
        name = f"{prompt.graph['1']['inputs']['name']}.png"
        return {"1": {"images": [{"filename": name, "subfolder": "", "type": "output"}]}}

    def _happened(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _call(self, do: Callable[[], T]) -> T:
        answer: Future[T] = Future()

        def run() -> None:
            answer.set_result(do())
            self._happened()

        self._loop.call_soon_threadsafe(run)
        return answer.result(WAIT_S)


# --- faults


async def cut(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The connection breaks, and nothing was done."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def cut_after(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What was asked is done, and the connection breaks before the answer."""
    await handler(request)
    return await cut(request, handler)


async def half(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The answer begins, and breaks off."""
    assert isinstance(request.transport, asyncio.Transport)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    request.transport.write(head + b'{"queue_running": [')
    request.transport.close()
    return web.Response()


def answer(status: int, body: str | bytes = b"") -> Fault:
    """Answers so, and does nothing."""

    async def answering(request: web.Request, handler: Handler) -> web.StreamResponse:
        return web.Response(status=status, body=body)

    return answering


@contextlib.contextmanager
def peer_with(*, port: int = 0, **switches: Any) -> Iterator[Peer]:
    """A peer that misbehaves from the beginning."""
    peer = Peer(port)
    for name, value in switches.items():
        setattr(peer, name, value)
    with peer:
        yield peer

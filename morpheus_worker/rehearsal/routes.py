"""ComfyUI's HTTP routes.

Source: ComfyUI 0.3.64, server.py. What ComfyUI answers with 500 (a body that is no JSON, say) raises here too, and
aiohttp answers in the same words.
"""

from __future__ import annotations

import json
import os
import sys
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from aiohttp import web

from morpheus_worker import __version__
from morpheus_worker.comfy.check import validate
from morpheus_worker.comfy.recorded import recorded_version
from morpheus_worker.rehearsal.catalog import Catalog
from morpheus_worker.rehearsal.execute import Executor
from morpheus_worker.rehearsal.files import FileRoutes
from morpheus_worker.rehearsal.folders import MODEL_FOLDERS, PACK_FOLDERS, Folders
from morpheus_worker.rehearsal.hub import FEATURES, MAX_UPLOAD_BYTES, Hub
from morpheus_worker.rehearsal.queue import Prompt, PromptQueue

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_PAGE: Final = """<!doctype html>
<title>Rehearsal engine</title>
<h1>This is a rehearsal engine, not ComfyUI</h1>
<p>It speaks the HTTP and WebSocket protocol of ComfyUI {comfyui}, and needs neither a GPU nor models. Pictures are
loaded, scaled and saved for real; everything else is a placeholder that says so. Morpheus worker {morpheus}.</p>
<p><a href="/queue">queue</a> · <a href="/history">history</a> · <a href="/object_info">object info</a></p>
"""

_NO_PROMPT: Final = {
    "type": "no_prompt",
    "message": "No prompt provided",
    "details": "No prompt provided",
    "extra_info": {},
}


class Routes:
    """The answers to all requests but those for files."""

    def __init__(
        self,
        queue: PromptQueue,
        hub: Hub,
        executor: Executor,
        catalog: Catalog,
        folders: Folders,
        packs: Collection[str] = (),
    ) -> None:
        self._queue = queue
        self._hub = hub
        self._executor = executor
        self._catalog = catalog
        self._folders = folders
        added = (folder for pack_id in sorted(packs) for folder in PACK_FOLDERS.get(pack_id, ()))
        self._model_folders = list(dict.fromkeys((*MODEL_FOLDERS, *added)))
        self._number = 0

    def application(self) -> web.Application:
        app = web.Application(client_max_size=MAX_UPLOAD_BYTES, middlewares=[self._spoil, same_origin])
        files = FileRoutes(self._folders)
        for method, path, handler in (*self._table(), *files.table()):
            app.router.add_route(method, path, handler)
            app.router.add_route(method, f"/api{path}", handler)
        return app

    def _table(self) -> list[tuple[str, str, Handler]]:
        return [
            ("GET", "/", self.page),
            ("GET", "/ws", self._hub.serve),
            ("GET", "/prompt", self.get_prompt),
            ("POST", "/prompt", self.post_prompt),
            ("GET", "/queue", self.get_queue),
            ("POST", "/queue", self.post_queue),
            ("POST", "/interrupt", self.post_interrupt),
            ("POST", "/free", self.post_free),
            ("GET", "/history", self.get_history),
            ("GET", "/history/{prompt_id}", self.get_history_entry),
            ("POST", "/history", self.post_history),
            ("GET", "/object_info", self.get_object_info),
            ("GET", "/object_info/{node_class}", self.get_node_info),
            ("GET", "/system_stats", self.get_system_stats),
            ("GET", "/features", self.get_features),
            ("GET", "/models", self.get_model_folders),
            ("GET", "/models/{folder}", self.get_models),
            ("GET", "/embeddings", self.get_embeddings),
            ("GET", "/extensions", self.get_extensions),
            ("GET", "/internal/logs/raw", self.get_log),
        ]

    @web.middleware
    async def _spoil(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The fault `http_500`."""
        path = request.path.removeprefix("/api")
        spoilt = (request.method, path) == ("POST", "/prompt") or path == "/history" or path.startswith("/history/")
        if spoilt and self._executor.box.spend("http_500"):
            return web.Response(status=500, text="500 Internal Server Error\n\nServer got itself in trouble")
        return await handler(request)

    async def page(self, _request: web.Request) -> web.Response:
        text = _PAGE.format(comfyui=recorded_version(), morpheus=__version__)
        return web.Response(text=text, content_type="text/html", headers={"Cache-Control": "no-cache"})

    async def get_log(self, _request: web.Request) -> web.Response:
        return web.json_response({"entries": list(self._executor.written), "size": {"cols": 80, "rows": 24}})

    async def get_prompt(self, _request: web.Request) -> web.Response:
        return web.json_response({"exec_info": {"queue_remaining": self._queue.remaining}})

    async def post_prompt(self, request: web.Request) -> web.Response:
        body = await request.json()
        number = self._take_number(body)
        if "prompt" not in body:
            return web.json_response({"error": _NO_PROMPT, "node_errors": {}}, status=400)
        graph = body["prompt"]
        prompt_id = str(body.get("prompt_id", uuid.uuid4()))
        classes = [node.get("class_type") for node in graph.values() if isinstance(node, Mapping)] if graph else []
        verdict = validate(
            graph,
            self._catalog.for_classes(classes),
            input_exists=self._folders.exists,
            targets=body.get("partial_execution_targets"),
        )
        if not verdict.ok:
            return web.json_response({"error": verdict.error, "node_errors": verdict.node_errors}, status=400)
        extra_data = body.get("extra_data", {})
        if "client_id" in body:
            extra_data["client_id"] = body["client_id"]
        self._queue.put(Prompt(number, prompt_id, dict(verdict.graph), extra_data, list(verdict.outputs)))
        return web.json_response({"prompt_id": prompt_id, "number": number, "node_errors": verdict.node_errors})

    def _take_number(self, body: Any) -> float:
        if "number" in body:
            return float(body["number"])
        number = -self._number if isinstance(body, dict) and body.get("front") else self._number
        self._number += 1
        return number

    async def get_queue(self, _request: web.Request) -> web.Response:
        return web.json_response(self._queue.wire())

    async def post_queue(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body.get("clear"):
            self._queue.clear()
        for prompt_id in body.get("delete", ()):
            self._queue.delete(prompt_id)
        return web.Response()

    async def post_interrupt(self, request: web.Request) -> web.Response:
        """Stops the running prompt; with a prompt id, only if that is the one."""
        try:
            prompt_id = (await request.json()).get("prompt_id")
        except json.JSONDecodeError:
            prompt_id = None
        running = self._queue.running
        if not prompt_id or (running is not None and running.prompt_id == prompt_id):
            self._executor.interrupt()
        return web.Response()

    async def post_free(self, request: web.Request) -> web.Response:
        if (await request.json()).get("free_memory", False):
            self._executor.free()
        return web.Response()

    async def get_history(self, request: web.Request) -> web.Response:
        asked = request.rel_url.query
        max_items = int(asked["max_items"]) if "max_items" in asked else None
        return web.json_response(self._queue.history(max_items, int(asked.get("offset", -1))))

    async def get_history_entry(self, request: web.Request) -> web.Response:
        return web.json_response(self._queue.entry(request.match_info["prompt_id"]))

    async def post_history(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body.get("clear"):
            self._queue.forget_all()
        for prompt_id in body.get("delete", ()):
            self._queue.forget(prompt_id)
        return web.Response()

    async def get_object_info(self, _request: web.Request) -> web.Response:
        return web.json_response(self._catalog.everything())

    async def get_node_info(self, request: web.Request) -> web.Response:
        name = request.match_info["node_class"]
        return web.json_response({name: self._catalog.describe(name)} if name in self._catalog else {})

    async def get_system_stats(self, _request: web.Request) -> web.Response:
        page, pages = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
        memory = {"total": page * pages, "free": page * os.sysconf("SC_AVPHYS_PAGES")}
        device = {
            "name": "rehearsal",
            "type": "cpu",
            "index": None,
            **{f"{kind}vram_{side}": size for kind in ("", "torch_") for side, size in memory.items()},
        }
        system = {
            "os": os.name,
            **{f"ram_{side}": size for side, size in memory.items()},
            "comfyui_version": recorded_version(),
            "python_version": sys.version,
            "pytorch_version": "none: this is a rehearsal",
            "embedded_python": False,
            "argv": sys.argv,
            "rehearsal": __version__,
        }
        return web.json_response({"system": system, "devices": [device]})

    async def get_features(self, _request: web.Request) -> web.Response:
        return web.json_response(FEATURES)

    async def get_model_folders(self, _request: web.Request) -> web.Response:
        return web.json_response(self._model_folders)

    async def get_models(self, request: web.Request) -> web.Response:
        folder = request.match_info["folder"]
        return (
            web.json_response(self._folders.model_files(folder))
            if folder in self._model_folders
            else web.Response(status=404)
        )

    async def get_embeddings(self, _request: web.Request) -> web.Response:
        return web.json_response([os.path.splitext(name)[0] for name in self._folders.model_files("embeddings")])

    async def get_extensions(self, _request: web.Request) -> web.Response:
        return web.json_response([])


@web.middleware
async def same_origin(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuses a request that a page of another site makes to a loopback address, and answers every OPTIONS."""
    host, origin = request.headers.get("Host"), request.headers.get("Origin")
    if host and origin and not _same(host.lower(), urlsplit(origin).netloc.lower()):
        return web.Response(status=403)
    return web.Response() if request.method == "OPTIONS" else await handler(request)


def _same(host: str, origin: str) -> bool:
    asked, page = urlsplit(f"//{host}"), urlsplit(f"//{origin}")
    if asked.hostname not in ("localhost", "::1") and not (asked.hostname or "").startswith("127."):
        return True
    # A side without a port leaves the other's out of the comparison.
    both = asked.port is not None and page.port is not None
    return host == origin if both else not page.hostname or asked.hostname == page.hostname

"""ComfyUI's HTTP routes for files: what it takes in, and what it shows.

Source: ComfyUI 0.3.64, server.py `image_upload`, `view_image`.
"""

from __future__ import annotations

import asyncio
import hashlib
import mimetypes
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from aiohttp import web
from aiohttp.web_request import FileField

from morpheus_worker.rehearsal.folders import Folders

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_DOWNLOADED: Final = frozenset(
    {"text/html", "text/html-sandboxed", "application/xhtml+xml", "text/javascript", "text/css"}
)
"""Media types that a browser must not run: they go out as bytes."""


class FileRoutes:
    """`/upload/image`, which takes any kind of file, and `/view`."""

    def __init__(self, folders: Folders) -> None:
        self._folders = folders

    def table(self) -> list[tuple[str, str, Handler]]:
        return [("POST", "/upload/image", self.upload), ("GET", "/view", self.view)]

    async def upload(self, request: web.Request) -> web.Response:
        post = await request.post()
        file, kind = post.get("image"), str(post.get("type", "input"))
        root = self._folders.of(kind)
        if root is None:
            return web.Response(status=500, text="500 Internal Server Error\n\nServer got itself in trouble")
        if not isinstance(file, FileField) or not file.filename:
            return web.Response(status=400)
        root, subfolder = Path(os.path.abspath(root)), str(post.get("subfolder", ""))
        folder = Path(os.path.abspath(root / os.path.normpath(subfolder)))
        if not Path(os.path.abspath(folder / file.filename)).is_relative_to(root):
            return web.Response(status=400)
        overwrite = post.get("overwrite") in ("true", "1")
        name = await asyncio.to_thread(_store, file, folder, overwrite=overwrite)
        return web.json_response({"name": name, "subfolder": subfolder, "type": kind})

    async def view(self, request: web.Request) -> web.StreamResponse:
        asked = request.rel_url.query
        if "filename" not in asked:
            return web.Response(status=404)
        name = asked["filename"]
        placed = self._folders.of(asked.get("type", "output"))
        for kind in ("output", "input", "temp"):
            if name.endswith(f"[{kind}]"):
                name, placed = name.removesuffix(f"[{kind}]")[:-1], self._folders.of(kind)
        if not name or name.startswith("/") or ".." in name or placed is None:
            return web.Response(status=400)
        root = Path(os.path.abspath(placed))
        folder = Path(os.path.abspath(root / asked.get("subfolder", "")))
        if not folder.is_relative_to(root):
            return web.Response(status=403)
        path = folder / os.path.basename(name)
        return _shown(path) if path.is_file() else web.Response(status=404)


def _shown(path: Path) -> web.FileResponse:
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    kind = "application/octet-stream" if kind in _DOWNLOADED else kind
    return web.FileResponse(path, headers={"Content-Disposition": f'filename="{path.name}"', "Content-Type": kind})


def _store(file: FileField, folder: Path, *, overwrite: bool) -> str:
    """Writes the file under its name, or, when another content has that name, under `name (1).png` and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    name, (stem, suffix) = file.filename, os.path.splitext(file.filename)
    digest = hashlib.sha256(file.file.read()).digest()
    number = 0
    while not overwrite and (folder / name).exists():
        with (folder / name).open("rb") as there:
            if hashlib.file_digest(there, "sha256").digest() == digest:
                return name
        number += 1
        name = f"{stem} ({number}){suffix}"
    file.file.seek(0)
    with (folder / name).open("wb") as written:
        shutil.copyfileobj(file.file, written)
    return name

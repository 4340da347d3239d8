"""The file gateway: another machine that mounts the volume serves what the worker published on it.

| route | answer |
|---|---|
| `GET /health` | 200 `{"status": "ok", "message"}` |
| `GET`, `HEAD /download/<path>` | the file as an attachment, ranges included; 404 `{"error": "File not found"}` |

A path comes in any of the volume's views (see `paths.volume_relative`), percent-encoded once. Every error is
`{"error": <sentence>}`, except for a request that is no HTTP, which aiohttp refuses before this module hears of it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final
from urllib.parse import quote

from aiohttp import hdrs, web
from aiohttp.abc import AbstractAccessLogger, AbstractStreamWriter

from morpheus_worker.comfy.history import media_type_of
from morpheus_worker.deadlines import Deadline
from morpheus_worker.errors import MorpheusError
from morpheus_worker.paths import JOB_OUTPUTS, UnsafePathError, volume_relative
from morpheus_worker.volume import open_beneath, volume_error, wait_for_volume

logger = logging.getLogger(__name__)

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8000
STOP_GRACE_S: Final = 10.0
"""What downloads under way get to end after SIGTERM, in seconds."""

RETRY_AFTER_S: Final = 5
"""When to come back while the volume is away, in seconds."""

FILE_NOT_FOUND: Final = "File not found"

ROOT: Final = web.AppKey("root", Path)
_PATH: Final = "path"
_DESCRIPTORS: Final = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class NotLoopbackError(ValueError):
    """The gateway was to listen where others can reach it, and nobody allowed that."""


def create_app(root: Path) -> web.Application:
    """The gateway's routes over the volume at `root`, for any aiohttp server."""
    app = web.Application(middlewares=[_errors_as_json])
    app[ROOT] = root.absolute()
    app.on_response_prepare.append(_forbid_sniffing)
    app.add_routes([web.get("/health", health), web.get(f"/download/{{{_PATH}:(?s:.*)}}", download)])
    return app


def create_runner(app: web.Application) -> web.AppRunner:
    """The server side of `app`: one log line a request, and a stop that lets downloads end."""
    return web.AppRunner(app, access_log=logger, access_log_class=AccessLog, shutdown_timeout=STOP_GRACE_S)


def serve(root: Path, host: str = DEFAULT_HOST, port: int = DEFAULT_PORT, *, allow_public: bool = False) -> None:
    """Serves `root` until SIGTERM or SIGINT. Blocks; to be called in the main thread. Port 0 takes a free one, which
    the log names.

    Raises:
        NotLoopbackError: for a host that other machines can reach, unless `allow_public`: anybody there could
            download every output.
        MorpheusError: `volume_unavailable`, when there is no volume at `root`.
        OSError: the address cannot be had.
    """
    if not is_loopback(host):
        if not allow_public:
            raise NotLoopbackError(
                f"'{host}' is reachable from other machines, and the gateway asks nobody who they are: "
                f"listen on {DEFAULT_HOST}, or allow public access explicitly"
            )
        logger.warning("The gateway listens on %s: whoever reaches it can download every output", host)
    wait_for_volume(root, deadline=Deadline.after(0.0))
    asyncio.run(_serve(create_app(root), host, port))


def is_loopback(host: str) -> bool:
    """Whether `host` is an address of this machine alone; a name other than `localhost` is not."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def health(_: web.Request) -> web.Response:
    """Answers as long as the process serves; it says nothing about the volume."""
    return web.json_response({"status": "ok", "message": "The file gateway is running."})


async def download(request: web.Request) -> web.StreamResponse:
    """Sends one file of a job's folder."""
    root = request.app[ROOT]
    try:
        relative = published(request.match_info[_PATH], root)
        file = await asyncio.to_thread(open_beneath, root, relative)
    except (UnsafePathError, FileNotFoundError, NotADirectoryError):
        raise web.HTTPNotFound(reason=FILE_NOT_FOUND) from None
    except OSError as failure:
        raise volume_error(failure, f"reading '{relative}'") from failure
    status = os.fstat(file.fileno())
    if _starts_beyond(request, status.st_size):
        file.close()
        size = f"bytes */{status.st_size}"
        return _error(416, f"The file has only {status.st_size} bytes", {str(hdrs.CONTENT_RANGE): size})
    return OpenFileResponse(file, relative.name)


def published(text: str, root: Path) -> PurePosixPath:
    """The path that a client names, as `job_outputs/<job id>/…`.

    Raises:
        UnsafePathError: for everything else on the volume, and for hidden names: those are files in the making.
    """
    relative = volume_relative(text, volume_root=root)
    if len(relative.parts) < 3 or relative.parts[0] != JOB_OUTPUTS:
        raise UnsafePathError(f"only files of a job, {JOB_OUTPUTS}/<job id>/<name>, can be downloaded")
    if any(part.startswith(".") for part in relative.parts):
        raise UnsafePathError("hidden files are not published")
    return relative


class OpenFileResponse(web.FileResponse):
    """Sends a file that is already open, and closes it: with sendfile, ranges and conditional requests.

    FileResponse opens by path. It is given the descriptor's own path, which stands for the open file whatever has
    become of its name since, so nothing can be swapped between the check and the sending.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        headers = {hdrs.CONTENT_TYPE: media_type_of(name), hdrs.CONTENT_DISPOSITION: attachment(name)}
        super().__init__(f"{_DESCRIPTORS}/{file.fileno()}", headers=headers)
        self._file = file

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        try:
            return await super().prepare(_with_heeded_range(request, os.fstat(self._file.fileno())))
        finally:
            await asyncio.to_thread(self._file.close)


def attachment(name: str) -> str:
    """Content-Disposition that saves under `name` (RFC 6266): in full as `filename*`, and for clients that do not read
    that one, in plain letters."""
    plain = "".join(character if " " <= character <= "~" and character not in '"\\%' else "_" for character in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


class AccessLog(AbstractAccessLogger):
    """One line a request: a sentence, and its parts in `extra`, the job id among them. Never the query, which may hold
    a signature."""

    @property
    def enabled(self) -> bool:
        return self.logger.isEnabledFor(logging.INFO)

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        path = request.rel_url.raw_path.encode("ascii", "backslashreplace").decode()
        extra: dict[str, Any] = {
            "method": request.method,
            "path": path,
            "status": response.status,
            "bytes": response.content_length or response.body_length,
            "duration_ms": round(time * 1000, 1),
            "remote": request.remote,
        }
        if (job_id := _job_id(request)) is not None:
            extra["job_id"] = job_id
        self.logger.info("%s %s %s", request.method, path, response.status, extra=extra)


async def _serve(app: web.Application, host: str, port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = create_runner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        logger.info("The file gateway serves %s at %s", app[ROOT] / JOB_OUTPUTS, site.name)
        await stop.wait()
        logger.info("The file gateway stops")
    finally:
        await runner.cleanup()


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPMethodNotAllowed as refused:
        said = f"{request.method} is not allowed here, only {', '.join(sorted(refused.allowed_methods))}"
        return _error(refused.status, said, {str(hdrs.ALLOW): refused.headers[hdrs.ALLOW]})
    except web.HTTPError as refused:
        return _error(refused.status, refused.reason)
    except MorpheusError as failure:
        logger.warning("%s", failure.message, extra={"code": failure.code})
        return _error(503, failure.message, {str(hdrs.RETRY_AFTER): str(RETRY_AFTER_S)})
    except Exception:
        logger.exception("%s %s failed", request.method, request.rel_url.raw_path)
        return _error(500, "The gateway failed; its log says how.")


def _job_id(request: web.BaseRequest) -> str | None:
    """The job whose file the request asks for, whether there is such a file or not."""
    if not isinstance(request, web.Request) or _PATH not in request.match_info:
        return None
    try:
        return published(request.match_info[_PATH], request.app[ROOT]).parts[1]
    except UnsafePathError:
        return None


def _error(status: int, said: str, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.json_response({"error": said}, status=status, headers=headers)


async def _forbid_sniffing(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["X-Content-Type-Options"] = "nosniff"


def _starts_beyond(request: web.Request, size: int) -> bool:
    """Whether the request asks, unconditionally, for a range that the file does not have."""
    if hdrs.IF_RANGE in request.headers or not _has_one_range(request):
        return False
    start: int = request.http_range.start
    return max(start, start + size if start < 0 else start) >= size


def _with_heeded_range(request: web.BaseRequest, status: os.stat_result) -> web.BaseRequest:
    """The request, without a range that is not to be heeded: several at once, or one of another version of the file.

    aiohttp (3.14) refuses the first, which RFC 9110 lets a server ignore, and takes no notice of an ETag in If-Range:
    it would send a part of the wrong version to a client that resumes.
    """
    known = request.headers.get(hdrs.IF_RANGE, "")
    is_current = '"' not in known or known == f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
    if hdrs.RANGE not in request.headers or (is_current and _has_one_range(request)):
        return request
    headers = request.headers.copy()
    headers.popall(hdrs.RANGE)
    return request.clone(headers=headers)


def _has_one_range(request: web.BaseRequest) -> bool:
    try:
        return request.http_range.start is not None
    except ValueError:
        return False

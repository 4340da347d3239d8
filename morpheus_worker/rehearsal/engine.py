"""The rehearsal engine as a thing that starts and stops: within an event loop, in a thread, or as a process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import signal
import tempfile
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from aiohttp import web

from morpheus_worker.comfy.recorded import recorded_packs
from morpheus_worker.rehearsal.catalog import Catalog
from morpheus_worker.rehearsal.execute import Executor
from morpheus_worker.rehearsal.faults import Box, Faults
from morpheus_worker.rehearsal.folders import Folders
from morpheus_worker.rehearsal.hub import Hub
from morpheus_worker.rehearsal.offer import known_packs, offered
from morpheus_worker.rehearsal.queue import PromptQueue
from morpheus_worker.rehearsal.routes import Routes

log = logging.getLogger(__name__)

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8188
DEFAULT_STEP_S: Final = 0.005
"""What one step of a sampler or one tile of an upscaler takes, in seconds."""

START_TIMEOUT_S: Final = 30.0
CLOSE_TIMEOUT_S: Final = 1.0
"""What requests under way get when the engine stops."""


class RehearsalEngine:
    """A ComfyUI that needs neither a GPU nor models, for use with `async with`; then `url` says where it listens.

    `base_directory` holds `input/`, `output/`, `temp/`, `models/` and `custom_nodes/`; without one, a temporary folder
    that goes with the engine. `port` 0 takes a free one, `host` may be several addresses with commas between.
    `model_names` are files that count as present without being there, by model folder. `packs` are the ids of the node
    packs whose classes it has, by default of all that are known; `extra_nodes` are classes of further packs, in the
    form of `GET /object_info`. `step_s` is what a sampler's step takes, in seconds. Without `metadata`, saved files do
    not carry the graph. The temp folder is emptied at the start, as ComfyUI does.

    Raises:
        PacksError: when a pack is not known.
    """

    def __init__(
        self,
        base_directory: Path | None = None,
        *,
        host: str = DEFAULT_HOST,
        port: int = 0,
        input_directory: Path | None = None,
        output_directory: Path | None = None,
        temp_directory: Path | None = None,
        model_names: Mapping[str, Sequence[str]] | None = None,
        packs: Collection[str] | None = None,
        extra_nodes: Mapping[str, Any] | None = None,
        faults: Faults | None = None,
        step_s: float = DEFAULT_STEP_S,
        metadata: bool = True,
    ) -> None:
        self._packs = known_packs(recorded_packs() if packs is None else packs)
        self._own_directory = None if base_directory else tempfile.TemporaryDirectory(prefix="rehearsal-")
        base = Path(base_directory or (self._own_directory.name if self._own_directory else "")).absolute()
        self.folders = Folders(
            base=base,
            input=input_directory or base / "input",
            output=output_directory or base / "output",
            temp=temp_directory or base / "temp",
            model_names=model_names or {},
        )
        self._host, self._port = host, port
        self._extra_nodes = extra_nodes or {}
        self._box = Box(faults or Faults())
        self._step_s, self._metadata = step_s, metadata
        self._parts = contextlib.AsyncExitStack()
        self._executor: Executor | None = None

    @property
    def base_directory(self) -> Path:
        return self.folders.base

    @property
    def port(self) -> int:
        return self._port

    @property
    def url(self) -> str:
        """Where it listens, e.g. `http://127.0.0.1:8188`."""
        host = self._host.split(",")[0]
        return f"http://{f'[{host}]' if ':' in host else host}:{self._port}"

    def set_faults(self, faults: Faults) -> None:
        """Has these faults from the next moment on, instead of those before. From any thread."""
        self._box = Box(faults)
        if self._executor is not None:
            self._executor.box = self._box

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._parts.aclose()
        if self._own_directory is not None:
            self._own_directory.cleanup()

    async def _start(self) -> None:
        shutil.rmtree(self.folders.temp, ignore_errors=True)
        self.folders.create()
        hub = Hub(lambda: queue.remaining)
        queue = PromptQueue(hub.announce_remaining)
        catalog = Catalog(offered(self._packs), self._extra_nodes, self.folders)
        executor = Executor(queue, hub, catalog, self.folders, self._box, step_s=self._step_s, metadata=self._metadata)
        self._executor = executor
        app = Routes(queue, hub, executor, catalog, self.folders, self._packs).application()
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=CLOSE_TIMEOUT_S)
        await runner.setup()
        self._parts.push_async_callback(runner.cleanup)
        self._parts.push_async_callback(hub.close)
        for work in (hub.publish_forever(), executor.run_forever()):
            self._parts.push_async_callback(_cancel, asyncio.create_task(work))
        await self._listen(runner)

    async def _listen(self, runner: web.AppRunner) -> None:
        for host in self._host.split(","):
            await web.TCPSite(runner, host, self._port).start()
            self._port = self._port or int(runner.addresses[0][1])
        log.info("the rehearsal engine listens at %s; its folders are in %s", self.url, self.base_directory)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@contextlib.contextmanager
def running_engine(base_directory: Path | None = None, **options: Any) -> Iterator[RehearsalEngine]:
    """A `RehearsalEngine` with these options, in a thread with an event loop of its own.

    The fault `crash` ends the whole process, the caller's included: start the engine as a process for that.
    """
    engine = RehearsalEngine(base_directory, **options)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="rehearsal", daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(engine.__aenter__(), loop).result(START_TIMEOUT_S)
        try:
            yield engine
        finally:
            asyncio.run_coroutine_threadsafe(engine.__aexit__(None, None, None), loop).result(START_TIMEOUT_S)
    finally:
        asyncio.run_coroutine_threadsafe(loop.shutdown_default_executor(), loop).result(START_TIMEOUT_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def serve(
    host: str = DEFAULT_HOST, port: int = DEFAULT_PORT, base_directory: Path | None = None, **options: Any
) -> None:
    """Runs a `RehearsalEngine` with these options until SIGTERM or SIGINT.

    Raises:
        OSError: when the address is taken.
    """
    asyncio.run(_serve(RehearsalEngine(base_directory, host=host, port=port, **options)))


async def _serve(engine: RehearsalEngine) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with engine:
        await stopped.wait()

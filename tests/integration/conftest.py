"""Fixtures that cross real sockets: a rehearsal engine, and a worker on it as the boot would assemble it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from morpheus_worker.boot import private_hosts_of, replays_of
from morpheus_worker.comfy.client import ComfyClient
from morpheus_worker.comfy.files import ComfyFiles, LocalFiles, RemoteFiles
from morpheus_worker.comfy.http import ComfyHttp
from morpheus_worker.comfy.launch import folders_of
from morpheus_worker.comfy.recorded import with_own_checks
from morpheus_worker.comfy.socket import EventStream
from morpheus_worker.library import Library
from morpheus_worker.pipeline import Worker
from morpheus_worker.rehearsal import RehearsalEngine, running_engine
from morpheus_worker.s3 import S3Store
from morpheus_worker.settings import Settings

MODEL_NAMES = {
    "checkpoints": ["sd_xl_base_1.0.safetensors", "talmendoxl_v11_beta.safetensors"],
    "upscale_models": ["RealESRGAN_x4plus.pth"],
}


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[RehearsalEngine]:
    with running_engine(tmp_path / "comfyui", model_names=MODEL_NAMES, step_s=0.001) as running:
        yield running


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    root = tmp_path / "volume"
    root.mkdir()
    return root


@pytest.fixture
def worker(engine: RehearsalEngine, volume: Path) -> Iterator[Worker]:
    """A worker that works in the engine's folders."""
    folders = folders_of(engine.base_directory, [])
    with assembled(engine.url, volume, LocalFiles(folders)) as made:
        yield made


@pytest.fixture
def remote_worker(engine: RehearsalEngine, volume: Path) -> Iterator[Worker]:
    """A worker that reaches its ComfyUI by HTTP alone."""
    with assembled(engine.url, volume, None) as made:
        yield made


@contextlib.contextmanager
def assembled(url: str, volume: Path, files: ComfyFiles | None, **environment: str) -> Iterator[Worker]:
    named = {"MORPHEUS_VOLUME_ROOT": str(volume), "MORPHEUS_COMFYUI_URL": url, **environment}
    settings = Settings.from_environment(named)
    http, events, s3 = ComfyHttp(url), EventStream(url), S3Store.of(settings)
    events.start()
    try:
        object_info = with_own_checks(http.object_info())
        overrides = volume / "morpheus_lib/workflows"
        library = Library.load(
            settings.workflows_dir, overrides, object_info=object_info, deployment=settings.deployment
        )
        comfy = ComfyClient(http, events, object_info)
        yield Worker(
            settings=settings,
            comfy=comfy,
            files=files or RemoteFiles(http),
            library=library,
            replays=replays_of(settings, s3),
            s3=s3,
            private_hosts=private_hosts_of(settings),
        )
    finally:
        s3.close()
        events.close()
        http.close()

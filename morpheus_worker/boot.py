"""From a cold container to a worker that takes jobs.

The order is the point: the volume, then the links, because ComfyUI reads its node packs once; then ComfyUI, because it
takes longest; the SDK's import and the templates while it starts; and jobs only when it answers.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, Final
from urllib.parse import urlsplit

from morpheus_worker.addresses import PrivateHosts
from morpheus_worker.comfy.client import ComfyClient
from morpheus_worker.comfy.files import ComfyFiles, LocalFiles, RemoteFiles
from morpheus_worker.comfy.http import ComfyHttp, NotAnsweringError
from morpheus_worker.comfy.launch import ComfyFolders, command_of, environment_of, folders_of, python_of
from morpheus_worker.comfy.process import ComfyProcess
from morpheus_worker.comfy.recorded import with_own_checks
from morpheus_worker.comfy.socket import EventStream
from morpheus_worker.deadlines import Deadline
from morpheus_worker.entry import EXIT_TERMINATED
from morpheus_worker.errors import Code, MorpheusError, Problem, disk_failing, from_problems
from morpheus_worker.holdings import sources_of
from morpheus_worker.library import OVERRIDES_FOLDER, Library
from morpheus_worker.linking import VOLUME_ROOTS, LinkReport, Missing, how_to_get, link_all, missing
from morpheus_worker.manifest import Manifest, ManifestError
from morpheus_worker.manifest_file import read_manifest
from morpheus_worker.pipeline import Worker
from morpheus_worker.relinking import Relinking
from morpheus_worker.replaying import Replays
from morpheus_worker.s3 import S3Store
from morpheus_worker.settings import Settings, SettingsError, variable_of
from morpheus_worker.volume import wait_for_volume

log = logging.getLogger(__name__)

READY_POLL_S: Final = 0.05

TEST_INPUT_FILE: Final = Path("test_input.json")


@contextlib.contextmanager
def started(settings: Settings, *, with_sdk: bool = True) -> Iterator[Worker]:
    """A worker that can run jobs; when the block ends, its ComfyUI has ended too.

    `with_sdk` imports the RunPod SDK while ComfyUI starts.

    Raises:
        MorpheusError: `volume_unavailable`, `comfyui_crashed` or `connection`, when there is no way to a worker.
        SettingsError: when a setting cannot be used.
    """
    private_hosts, s3 = private_hosts_of(settings), store_of(settings)
    with _ended_by_sigterm() as check, contextlib.ExitStack() as ending:
        wait_for_volume(settings.volume_root, deadline=Deadline.after(settings.volume_timeout_s))
        process, files, linked = None, None, dict[str, Any]()
        if settings.child_dir is not None:
            folders = comfyui_folders(settings.child_dir, settings)
            manifest, failure = try_manifest(settings)
            report = link_volume(settings, folders, manifest)
            log.info("%s", report.summary())
            process = _spawned(settings, settings.child_dir, folders)
            ending.callback(process.stop, settings.stop_grace_s)
            files = LocalFiles(folders)
            _warn_of_missing(missing_entries(settings, folders, manifest), failure)
            there = [source for source in sources_of(settings) if source not in report.absent]
            link_anew = Relinking(lambda: link_anew_from(there, settings, folders, manifest))
            linked = {"manifest": manifest, "link_anew": link_anew}
        http = ComfyHttp(settings.comfyui_url)
        ending.callback(http.close)
        ending.callback(s3.close)
        _import_ahead(s3, with_sdk=with_sdk)
        _wait_until_ready(http, process, Deadline.after(settings.boot_timeout_s), check)
        worker = _worker(settings, http, process, files or RemoteFiles(http), ending)
        yield replace(worker, s3=s3, replays=replays_of(settings, s3), private_hosts=private_hosts, **linked)


def has_job_server(arguments: Sequence[str]) -> bool:
    """Whether the SDK takes its jobs from a job server, RunPod's or one on loopback, and not from `--test_input` or its
    local API, which a pod with RunPod's environment can be told to use, too."""
    is_local = "--rp_serve_api" in arguments or _argument(arguments, "--test_input") is not None
    return bool(os.environ.get("RUNPOD_WEBHOOK_GET_JOB")) and not is_local


def check_test_input(arguments: Sequence[str]) -> None:
    """Looks at the job of a local test before ComfyUI is started for it: the SDK would answer a typo with a traceback,
    later. The job is `--test_input`'s, or else that of the file `test_input.json`, unless there is a job server.

    Raises:
        MorpheusError: `invalid_input`.
    """
    at, given = "--test_input", _argument(arguments, "--test_input")
    if given is None:
        if has_job_server(arguments) or "--rp_serve_api" in arguments or os.environ.get("RUNPOD_REALTIME_PORT"):
            return
        at, given = str(TEST_INPUT_FILE), _test_input_file()
    try:
        job = json.loads(given)
    except ValueError as failure:
        problem = Problem(at, f"is not JSON: {failure}", 'for example {"input": {"workflow_name": "smoke"}}')
    else:
        if isinstance(job, dict) and job.get("input") is not None:
            return
        problem = Problem(at, "must be a JSON object with an 'input'")
    raise from_problems(Code.INVALID_INPUT, "The test job is refused", [problem])


def _test_input_file() -> str:
    try:
        return TEST_INPUT_FILE.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as failure:
        problem = Problem(str(TEST_INPUT_FILE), f"cannot be read: {failure}", "or give --test_input a job as JSON")
        opening = "There is no job server in this environment, and no job to test"
        raise from_problems(Code.INVALID_INPUT, opening, [problem]) from None


def _argument(arguments: Sequence[str], name: str) -> str | None:
    for position, argument in enumerate(arguments):
        if argument == name and position + 1 < len(arguments):
            return arguments[position + 1]
        if argument.startswith(f"{name}="):
            return argument.removeprefix(f"{name}=")
    return None


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[Callable[[], None]]:
    """SIGTERM ends the boot, or a local test, through every `finally`. The SDK's job loop later sets its own handler,
    which lets the job in flight finish.

    Calling what it yields ends the boot again, if it should have ended: what the handler raises within somebody else's
    `except:` is lost (cpuinfo, which the SDK imports, has many of those).
    """
    told = False

    def check() -> None:
        if told:
            sys.exit(EXIT_TERMINATED)

    def end(_signal: int, _frame: FrameType | None) -> None:
        nonlocal told
        told = True
        check()

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield check
    finally:
        signal.signal(signal.SIGTERM, before)


def link_volume(settings: Settings, folders: ComfyFolders, manifest: Manifest) -> LinkReport:
    """Links the volume's models and node packs into ComfyUI, and the manifest's models to their further places.

    Raises:
        MorpheusError: `volume_unavailable`, or `internal` when ComfyUI's folders refuse.
    """
    roots = (*VOLUME_ROOTS, settings.volume_root)
    elsewhere = [model for model in manifest.models if model.also]
    return link_all(sources_of(settings), folders, volume_roots=roots, also=elsewhere)


def link_anew_from(there: Sequence[Path], settings: Settings, folders: ComfyFolders, manifest: Manifest) -> LinkReport:
    """The same while jobs run. `there` are the sources that the boot found: one that is gone takes no links with it,
    because jobs are held to what ComfyUI offered before, and nobody would ask for its models once it is back.

    Raises:
        MorpheusError: as `link_volume`; `volume_unavailable` also when such a source is gone.
    """
    if gone := [str(source) for source in there if not os.path.isdir(source)]:
        raise MorpheusError(Code.VOLUME_UNAVAILABLE, f"The volume has no {' and no '.join(gone)} any more")
    return link_volume(settings, folders, manifest)


def missing_entries(settings: Settings, folders: ComfyFolders, manifest: Manifest) -> list[Missing]:
    """What the manifest names, and neither the volume nor ComfyUI has."""
    return missing(manifest, sources_of(settings), folders)


def try_manifest(settings: Settings) -> tuple[Manifest, ManifestError | OSError | None]:
    """The manifest that the settings name; an empty one, and the reason, when it cannot be used."""
    try:
        return read_manifest(settings), None
    except (ManifestError, OSError) as failure:
        return Manifest(settings.manifest.name), failure


def _warn_of_missing(absent: Sequence[Missing], failure: Exception | None) -> None:
    for entry in absent:
        log.warning("not on the volume: %s", entry)
    if hint := how_to_get(absent):
        log.warning("%s", hint)
    if failure is not None:
        log.warning("the model manifest cannot be used: %s", failure)


def comfyui_folders(comfyui_dir: Path, settings: Settings) -> ComfyFolders:
    """Where that ComfyUI keeps its things.

    Raises:
        MorpheusError: `connection`, when there is no ComfyUI.
        SettingsError: when its arguments cannot be used.
    """
    if not (comfyui_dir / "main.py").is_file():
        said = (
            f"There is no ComfyUI at {comfyui_dir}: set MORPHEUS_COMFYUI_DIR, or MORPHEUS_COMFYUI_URL to one that runs"
        )
        raise MorpheusError(Code.CONNECTION, said)
    return folders_of(comfyui_dir, settings.comfyui_args)


def _refuse_stranger(url: str) -> None:
    """What already listens where the child shall would be taken for the child, which then cannot listen and dies."""
    parts = urlsplit(url)
    with contextlib.suppress(OSError), socket.create_connection((parts.hostname or "", parts.port or 80), timeout=1.0):
        said = (
            f"Something already listens at {url}: free the port, or set MORPHEUS_COMFYUI_URL alone, without "
            "MORPHEUS_COMFYUI_DIR, to use the ComfyUI that is there"
        )
        raise MorpheusError(Code.CONNECTION, said)


def _spawned(settings: Settings, comfyui_dir: Path, folders: ComfyFolders) -> ComfyProcess:
    _refuse_stranger(settings.comfyui_url)
    # Node packs make folders of their own in it when they are imported, and are left out when they cannot.
    with disk_failing("ComfyUI's output folder could not be made"):
        folders.output.mkdir(parents=True, exist_ok=True)
    python = python_of(comfyui_dir, settings.comfyui_python, Path(sys.executable))
    command = command_of(python, comfyui_dir, settings.comfyui_url, settings.comfyui_args)
    log.info("starting ComfyUI: %s", " ".join(command))
    return ComfyProcess.start(command, cwd=comfyui_dir, env=environment_of(os.environ, folders))


def _import_ahead(s3: S3Store, *, with_sdk: bool) -> None:
    """What takes long to import (the SDK a second and a half) costs nothing here, because ComfyUI takes longer.

    The SDK's own GPU check imports torch and touches CUDA in this process, beside ComfyUI's. Its log prints every
    result at its default level, DEBUG, presigned URLs among them.
    """
    importlib.import_module("PIL.Image").init()
    if s3.can_store:
        s3.prepare()
    if with_sdk:
        os.environ.setdefault("RUNPOD_SKIP_GPU_CHECK", "true")
        os.environ.setdefault("RUNPOD_LOG_LEVEL", "INFO")
        importlib.import_module("runpod")


def _wait_until_ready(
    http: ComfyHttp, process: ComfyProcess | None, deadline: Deadline, check: Callable[[], None]
) -> None:
    while True:
        check()
        try:
            http.system_stats()
            return
        except NotAnsweringError as failure:
            if process is not None and process.exit_code is not None:
                said = f"ComfyUI ended while it started, {process.describe_exit()}"
                details = {"log": list(process.tail)}
                raise MorpheusError(Code.COMFYUI_CRASHED, said, details=details) from None
            if deadline.passed:
                said = f"ComfyUI at {http.base_url} is not ready in time ({failure.message})"
                raise MorpheusError(Code.CONNECTION, said) from None
        time.sleep(READY_POLL_S)


def _worker(
    settings: Settings,
    http: ComfyHttp,
    process: ComfyProcess | None,
    files: ComfyFiles,
    ending: contextlib.ExitStack,
) -> Worker:
    object_info = with_own_checks(http.object_info())
    library = Library.load(
        settings.workflows_dir,
        settings.volume_root / OVERRIDES_FOLDER,
        object_info=object_info,
        deployment=settings.deployment,
    )
    for sentence in library.warnings:
        log.warning("%s", sentence)
    events = EventStream(settings.comfyui_url)
    events.start()
    ending.callback(events.close)

    def exit_of_process() -> str | None:
        return process.describe_exit() if process is not None and process.exit_code is not None else None

    comfy = ComfyClient(http, events, object_info, exit_of_process=exit_of_process)
    log.info("ready: %d workflows", len(library))
    return Worker(settings, comfy, files, library, Replays(settings.volume_root))


def private_hosts_of(settings: Settings) -> PrivateHosts:
    """What media URLs may lead to beside public addresses.

    Raises:
        SettingsError: when an entry is none.
    """
    try:
        return PrivateHosts.of(settings.media_private_hosts)
    except ValueError as failure:
        raise SettingsError([Problem(variable_of("media_private_hosts"), str(failure))]) from None


def store_of(settings: Settings) -> S3Store:
    """The bucket of the settings, which need not name one.

    Raises:
        SettingsError: when outputs are to go to a bucket that nothing names, or the endpoint is no address.
    """
    endpoint, name = variable_of("bucket_endpoint_url"), variable_of("bucket_name")
    try:
        urlsplit(settings.bucket_endpoint_url or "").port  # noqa: B018
        store = S3Store.of(settings)
    except ValueError as failure:
        raise SettingsError([Problem(endpoint, f"is no address: {failure}")]) from None
    if settings.outputs == "s3" and not store.can_store:
        raise SettingsError([Problem(endpoint, "names no bucket for the outputs", f"set {name}")])
    if settings.bucket_endpoint_url is not None and not store.can_store:
        log.warning("%s names no bucket, so nothing is uploaded: set %s", endpoint, name)
    return store


def replays_of(settings: Settings, s3: S3Store) -> Replays:
    """The stored results on the volume, their presigned URLs made anew, since the stored ones may have expired."""
    return Replays(settings.volume_root, renewed=s3.renewed)

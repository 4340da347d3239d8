"""How ComfyUI is started, as values: its folders, its command line, its Python, its environment.

Source: ComfyUI 0.3.64, comfy/cli_args.py, folder_paths.py and main.py. Its parser is argparse, and so is the one here:
`--flag value` and `--flag=value`, any unambiguous beginning of a flag, the last one wins. Relative folders are those of
the process's working folder, which is ComfyUI's own.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn
from urllib.parse import urlsplit

from morpheus_worker.errors import Problem
from morpheus_worker.settings import IMAGE_COMFYUI_DIR, PREFIX, SettingsError

ARGS_SETTING: Final = f"{PREFIX}COMFYUI_ARGS"
URL_SETTING: Final = f"{PREFIX}COMFYUI_URL"

IMAGE_PYTHON: Final = Path("/opt/venv/bin/python")
"""The Python that ComfyUI was installed into in the official ComfyUI worker image (its Dockerfile, `uv venv`)."""

WITHHELD_PREFIXES: Final = (PREFIX, "AWS_", "BUCKET_", "RUNPOD_WEBHOOK_")
WITHHELD_NAMES: Final = frozenset({"RUNPOD_AI_API_KEY", "RUNPOD_API_KEY"})
"""What only the worker needs: its settings, its bucket's keys, its way to the job queue. Custom nodes are other
people's code, and some print or report their environment. It is no wall: they run as the same user. Keys that nodes
do use (`HF_TOKEN`, `CIVITAI_API_KEY`, those of model vendors) stay."""

QUIET: Final[Mapping[str, str]] = {"DO_NOT_TRACK": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
"""Asks libraries not to phone home. ComfyUI's Manager is deaf to it: its `network_mode` stands in a file of its own."""

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class ComfyFolders:
    """The folders that one ComfyUI reads and writes, absolute."""

    models: Path
    custom_nodes: Path
    input: Path
    output: Path
    temp: Path


def folders_of(comfyui_dir: Path, args: Sequence[str]) -> ComfyFolders:
    """Where a ComfyUI started with `args` in `comfyui_dir` (absolute) keeps its things.

    Raises:
        SettingsError: when ComfyUI could not read `args` either.
    """
    flags = _flags_of(args)

    def placed(given: str | None, default: Path) -> Path:
        return Path(os.path.normpath(comfyui_dir / given)) if given else default

    base = placed(flags.base_directory, comfyui_dir)
    return ComfyFolders(
        models=base / "models",
        custom_nodes=base / "custom_nodes",
        input=placed(flags.input_directory, base / "input"),
        output=placed(flags.output_directory, base / "output"),
        temp=placed(flags.temp_directory, base) / "temp",
    )


def command_of(python: Path, comfyui_dir: Path, url: str, args: Sequence[str]) -> list[str]:
    """The command that makes ComfyUI answer at `url`. Run it in `comfyui_dir`. What `args` say already is not repeated.

    Raises:
        SettingsError: when ComfyUI could not read `args`, or would then listen elsewhere than the worker asks.
    """
    flags = _flags_of(args)
    host, port, tls = _address_of(url)
    if problems := _disagreements(flags, url, host, port, tls=tls):
        raise SettingsError(problems)
    command = [str(python), "-u", str(comfyui_dir / "main.py")]
    if flags.listen is None:
        # `localhost` is ::1 too, which cannot be bound in a container without IPv6.
        command += ["--listen", "127.0.0.1" if host == "localhost" else host]
    if flags.port is None:
        command += ["--port", str(port)]
    if not (flags.disable_auto_launch or flags.auto_launch):
        command.append("--disable-auto-launch")
    return [*command, *args]


def python_of(
    comfyui_dir: Path, configured: Path | None, own_executable: Path, exists: Callable[[Path], bool] = Path.exists
) -> Path:
    """The Python that has ComfyUI's packages: the one that was set, else a venv in its folder, else the image's for the
    image's ComfyUI, else the worker's own."""
    if configured is not None:
        return configured
    candidates = [comfyui_dir / ".venv/bin/python", comfyui_dir / "venv/bin/python"]
    if comfyui_dir == IMAGE_COMFYUI_DIR:
        candidates.append(IMAGE_PYTHON)
    return next((python for python in candidates if exists(python)), own_executable)


def environment_of(environ: Mapping[str, str], folders: ComfyFolders | None = None) -> dict[str, str]:
    """The child's environment: the worker's, less what only the worker needs, and with telemetry declined.

    With its `folders`, node packs that keep models of their own elsewhere look among ComfyUI's first, where the volume
    is linked: comfyui_controlnet_aux takes a variable for that (its README, "Custom path").
    """
    passed_on = {
        name: value
        for name, value in environ.items()
        if name not in WITHHELD_NAMES and not name.startswith(WITHHELD_PREFIXES)
    }
    places = {"AUX_ANNOTATOR_CKPTS_PATH": str(folders.models / "controlnet_aux")} if folders is not None else {}
    return {**places, **passed_on, **QUIET}


class _FlagParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError([Problem(ARGS_SETTING, message)])


def _flags_of(args: Sequence[str]) -> argparse.Namespace:
    parser = _FlagParser(prog="ComfyUI", add_help=False)
    parser.add_argument("--listen", nargs="?", const="0.0.0.0,::")
    parser.add_argument("--port", type=int)
    for flag in ("base-directory", "input-directory", "output-directory", "temp-directory"):
        parser.add_argument(f"--{flag}")
    for flag in ("tls-keyfile", "tls-certfile"):
        parser.add_argument(f"--{flag}")
    for flag in ("auto-launch", "disable-auto-launch"):
        parser.add_argument(f"--{flag}", action="store_true")
    return parser.parse_known_args(args)[0]


def _address_of(url: str) -> tuple[str, int, bool]:
    """(host, port, whether over TLS)."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as failure:
        raise SettingsError([Problem(URL_SETTING, str(failure))]) from None
    if not parts.hostname or parts.scheme not in _DEFAULT_PORTS:
        raise SettingsError([Problem(URL_SETTING, f"'{url}' is not an http(s) address")])
    return parts.hostname, port or _DEFAULT_PORTS[parts.scheme], parts.scheme == "https"


def _disagreements(flags: argparse.Namespace, url: str, host: str, port: int, *, tls: bool) -> list[Problem]:
    said = f"but {URL_SETTING} is {url}"
    problems = []
    if flags.port is not None and flags.port != port:
        problems.append(Problem(ARGS_SETTING, f"--port {flags.port}, {said}", "set the port in the URL alone"))
    if flags.listen is not None and not _hears(flags.listen, host):
        problems.append(Problem(ARGS_SETTING, f"--listen {flags.listen}, {said}", "the worker would not reach it"))
    if tls != bool(flags.tls_keyfile and flags.tls_certfile):
        hint = "https needs --tls-keyfile and --tls-certfile, http neither"
        problems.append(Problem(ARGS_SETTING, f"TLS is {'off' if tls else 'on'}, {said}", hint))
    return problems


def _hears(listen: str, host: str) -> bool:
    """Whether a server bound to `listen` (addresses, comma-separated) answers at `host`; yes where names hide it."""
    try:
        asked = ipaddress.ip_address(host)
        bound = [ipaddress.ip_address(address) for address in listen.split(",")]
    except ValueError:
        return True
    return asked in bound or any(address.is_unspecified and address.version == asked.version for address in bound)

"""`morpheus object-info save`: what a running ComfyUI knows of its nodes, in a file to check workflows against."""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from typing import Any, Final

import requests

from morpheus_worker import entry
from morpheus_worker.comfy.http import ComfyHttp
from morpheus_worker.comfy.saved import Saved, save_object_info
from morpheus_worker.errors import Code, MorpheusError
from morpheus_worker.settings import Settings

UNKNOWN_VERSION: Final = "unknown"
_ADDRESS: Final = re.compile(r"https?://[^/\s?#@]+/?")


def save(asked: argparse.Namespace, settings: Settings) -> int:
    """Asks ComfyUI for its object info and saves it."""
    url = asked.url or settings.comfyui_url
    try:
        described, version = _ask(url)
        saved = save_object_info(asked.file, described, version)
    except MorpheusError as failure:
        print(f"morpheus: {_with_place(failure, url)}", file=sys.stderr)
        return entry.EXIT_USAGE if failure.code is Code.INVALID_INPUT else entry.EXIT_FAILED
    print(_told(saved))
    return entry.EXIT_OK


def _ask(url: str) -> tuple[dict[str, Any], str]:
    """The object info of the ComfyUI there, and its version.

    Raises:
        MorpheusError: `invalid_input`, when that is no address; `connection` or `internal`, when nobody answers there,
            or somebody else.
    """
    try:
        if not _ADDRESS.fullmatch(url):
            raise requests.exceptions.InvalidURL
        http = ComfyHttp(url)
    except requests.RequestException:
        said = f"'{url}' is no address of a ComfyUI, which looks like http://127.0.0.1:8188"
        raise MorpheusError(Code.INVALID_INPUT, said) from None
    with contextlib.closing(http):
        described = http.object_info()
        system = http.system_stats().get("system")
    version = system.get("comfyui_version") if isinstance(system, dict) else None
    return described, str(version or UNKNOWN_VERSION)


def _with_place(failure: MorpheusError, url: str) -> str:
    asked_there = failure.code is not Code.INVALID_INPUT
    return f"{failure.message} (asked {url}; --url asks another)" if asked_there else failure.message


def _told(saved: Saved) -> str:
    times = saved.original_bytes / max(saved.bytes, 1)
    return (
        f"{saved.path}: {saved.classes:,} node classes of ComfyUI {saved.version}, {saved.bytes:,} bytes, "
        f"{times:.1f} times smaller than ComfyUI's answer"
    )

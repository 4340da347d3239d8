"""One handler in a process of its own: takes a job in a JSON line, answers how long the handler took and what it gave.

python -m benchmarks.handler_child official CHECKOUT COMFYUI_URL
python -m benchmarks.handler_child morpheus COMFYUI_URL COMFYUI_BASE VOLUME
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.rig import answering

Handler = Callable[[dict[str, Any]], dict[str, Any]]


def timed(handler: Handler, job: dict[str, Any]) -> dict[str, Any]:
    began_s = time.perf_counter()
    result = handler(job)
    took_s = time.perf_counter() - began_s
    return {"wall_ms": took_s * 1000, "error": result.get("error"), "made": list(made(result))}


def made(result: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every file of the answer: its size and how it travels."""
    for image in result.get("images") or ():
        yield {"as": image["type"], "bytes": len(image["data"]) * 3 // 4}
    for output in result.get("outputs") or ():
        if output.get("path"):
            yield {"as": "volume", "bytes": Path(output["path"]).stat().st_size}


@contextlib.contextmanager
def official(checkout: str, url: str) -> Iterator[Handler]:
    """The handler of the official worker, as its image starts it, at this ComfyUI."""
    sys.path.append(str(Path(checkout, "src")))
    spec = importlib.util.spec_from_file_location("official_handler", Path(checkout, "handler.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    vars(module)["COMFY_HOST"] = urlsplit(url).netloc
    yield module.handler


@contextlib.contextmanager
def morpheus(url: str, base: str, volume: str) -> Iterator[Handler]:
    """`run_job` on a worker that works in the folders of this ComfyUI, logging as in a container."""
    import runpod  # noqa: F401  # what the process of a worker holds, too

    from morpheus_worker import logs
    from morpheus_worker.comfy.files import LocalFiles
    from morpheus_worker.comfy.launch import folders_of
    from morpheus_worker.pipeline import run_job
    from tests.integration.conftest import assembled

    logs.configure("json", "INFO")
    folders = folders_of(Path(base), [])
    with assembled(url, Path(volume), LocalFiles(folders)) as worker:
        yield lambda job: run_job(job, worker)


def main() -> None:
    side, *arguments = sys.argv[1:]
    with official(*arguments) if side == "official" else morpheus(*arguments) as handler:
        answering(lambda job: timed(handler, job))


if __name__ == "__main__":
    main()

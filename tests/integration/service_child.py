"""A worker of requests in a process of its own, for tests that kill it. It imports little: they wait for that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from morpheus_worker.manifest import Manifest, parse_manifest
from morpheus_worker.settings import Settings
from morpheus_worker.sync.locking import Lock
from morpheus_worker.sync.store import open_store
from morpheus_worker.syncing.service import serve
from morpheus_worker.syncing.work import Work

PART_BYTES = 65_536


def manifest_of(*urls: str) -> Manifest:
    """One whose models are at these addresses, each called as its file."""
    entries = [
        f"{{id: {Path(url).stem}, path: checkpoints/{Path(url).name}, sources: [{{kind: https, url: '{url}'}}]}}"
        for url in urls
    ]
    return parse_manifest(f"version: 1\nmodels: [{', '.join(entries)}]", name="manifest")


@contextmanager
def working(settings: Settings, *urls: str) -> Iterator[Work]:
    with Work.of(settings, manifest=manifest_of(*urls), lock=Lock()) as work:
        work.pace = replace(work.pace, part_bytes=PART_BYTES, first_wait_s=0.01)
        yield work


def serve_in_a_process(folder: Path, store_url: str, url: str, lease_s: float) -> None:
    settings = Settings(volume_root=folder / "volume")
    with working(settings, url) as work, open_store(store_url) as store:
        serve(work, store, once=True, lease_s=lease_s)

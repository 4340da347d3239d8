"""Models that RunPod keeps cached on its hosts, cut off or rotten: the same source gives them through the network."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.model_server import COMMIT, ModelServer
from tests.integration.syncs import Volume, entry, safetensors

LARGE = safetensors(600_000, 2)
REPO = "owner/name"


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as running:
        yield running


@pytest.fixture
def volume(tmp_path: Path, server: ModelServer) -> Volume:
    return Volume(tmp_path / "volume", {"HF_ENDPOINT": server.hf_endpoint})


def cached(volume: Volume, file: str, content: bytes, named: bytes) -> None:
    """A file of the cache with this content, whose blob is named by the hash of another."""
    repo = volume.root / "huggingface-cache/models--owner--name"
    blob, link = repo / "blobs" / hashlib.sha256(named).hexdigest(), repo / "snapshots" / COMMIT / file
    for place in (blob.parent, repo / "refs", link.parent):
        place.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    (repo / "refs/main").write_text(COMMIT)
    link.symlink_to(blob)


@pytest.mark.parametrize("known", [True, False], ids=["its hash is known", "its hash is not known"])
@pytest.mark.parametrize(
    ("file", "whole", "content"),
    [
        ("m.safetensors", LARGE, LARGE[:-1000]),
        ("m.safetensors", LARGE, LARGE[:-1000] + bytes(1000)),
        ("m.bin", bytes(range(256)) * 2000, bytes(range(256)) * 1000),
    ],
    ids=["cut off", "rotten", "cut off, of a format that does not tell"],
)
def test_a_cached_file_that_is_not_what_is_wanted_gives_way_to_the_network(
    server: ModelServer, volume: Volume, file: str, whole: bytes, content: bytes, known: bool
) -> None:
    cached(volume, file, content, named=whole)
    server.hf(REPO, file, whole)
    source = {"kind": "hf", "repo": REPO, "file": file}
    allowed = {"allow_pickle": True} if file.endswith(".bin") else {}
    wanted = entry("m", source, path=f"checkpoints/{file}", content=whole if known else None, **allowed)
    outcome = volume.one(wanted)
    assert outcome.action == "fetched", outcome.error
    assert volume.at(wanted).read_bytes() == whole
    assert server.requests
    assert "next_source" not in volume.kinds("m")


def test_a_stale_main_in_the_cache_gives_way_to_the_wanted_version(server: ModelServer, volume: Volume) -> None:
    old = safetensors(600_000, 9)
    cached(volume, "m.safetensors", old, named=old)
    server.hf(REPO, "m.safetensors", LARGE)
    wanted = entry("m", {"kind": "hf", "repo": REPO, "file": "m.safetensors"}, content=LARGE)
    assert volume.one(wanted).action == "fetched"
    assert volume.at(wanted).read_bytes() == LARGE


def test_a_host_that_has_the_same_wrong_file_is_asked_once(server: ModelServer, volume: Volume) -> None:
    cached(volume, "m.safetensors", LARGE, named=LARGE)
    server.hf(REPO, "m.safetensors", LARGE)
    other = safetensors(600_000, 9)
    error = volume.one(entry("m", {"kind": "hf", "repo": REPO, "file": "m.safetensors"}, content=other)).error
    assert error is not None
    assert error.code == "changed"
    assert len(server.requests) == 1


def test_a_right_file_in_the_cache_takes_no_network(server: ModelServer, volume: Volume) -> None:
    cached(volume, "m.safetensors", LARGE, named=LARGE)
    wanted = entry("m", {"kind": "hf", "repo": REPO, "file": "m.safetensors"}, content=LARGE)
    assert volume.one(wanted).action == "fetched"
    assert server.requests == []

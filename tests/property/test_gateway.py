"""What the gateway serves, whatever it is asked for."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from morpheus_worker.gateway import attachment, published
from morpheus_worker.paths import UnsafePathError

ROOT = Path("/mnt/volume")

PARTS = st.sampled_from(["job_outputs", "workspace", "runpod-volume", "mnt/volume", "..", ".", "", ".x.part", "7", "x"])
PATHS = st.lists(PARTS | st.text(max_size=5), max_size=6).map("/".join)


@given(PATHS)
def test_only_visible_files_of_a_job_are_published(path: str) -> None:
    try:
        relative = published(path, ROOT)
    except UnsafePathError:
        return
    assert relative.parts[0] == "job_outputs"
    assert len(relative.parts) >= 3
    assert not any(part.startswith(".") for part in relative.parts)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_name_never_leaves_its_header(name: str) -> None:
    said = attachment(name)
    assert said.isascii()
    assert said.isprintable()
    assert said.count('"') == 2

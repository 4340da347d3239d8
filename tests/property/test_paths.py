"""Path containment, whatever the text."""

from __future__ import annotations

import os.path
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morpheus_worker.paths import MAX_FILENAME_BYTES, UnsafePathError, safe_filename, volume_relative

ROOT = Path("/mnt/volume")

SEPARATORS = st.sampled_from(
    ["/", "//", "/./", "\\", "..", ".", "~", "%2e%2e", "%2f", "\x00", "\n", "\u2028", "\ud800"]
)
WORDS = st.sampled_from(
    ["workspace", "runpod-volume", "mnt", "volume", "job_outputs", "7", "x.png", "é", " ", "x" * 256]
)
NASTY = st.lists(SEPARATORS | WORDS | st.characters(), max_size=12).map("".join)
TEXTS = NASTY | st.text(st.characters(exclude_categories=()))
NAMES = st.builds(safe_filename, TEXTS)


@given(TEXTS)
def test_nothing_escapes(text: str) -> None:
    try:
        relative = volume_relative(text, volume_root=ROOT)
    except UnsafePathError:
        return
    assert not relative.is_absolute()
    assert ".." not in relative.parts
    assert Path(os.path.normpath(ROOT / relative)).is_relative_to(ROOT)
    assert all(1 <= len(part.encode()) <= 255 for part in relative.parts)
    assert not {"\x00", "\n", "\\"} & set(str(relative))


@given(st.lists(NAMES, min_size=2, max_size=5), st.sampled_from(["/", "//", "/./"]), st.booleans())
def test_all_views_of_one_file_resolve_equally(names: list[str], separator: str, trailing: bool) -> None:
    tail = separator.join(["job_outputs", *names]) + "/" * trailing
    views = ["", "/", "workspace/", "/workspace/", "runpod-volume/", "/runpod-volume/", "mnt/volume/", "/mnt/volume/"]
    assert {volume_relative(view + tail, volume_root=ROOT) for view in views} == {PurePosixPath("job_outputs", *names)}


@given(TEXTS)
def test_a_safe_filename_is_one_plain_part(text: str) -> None:
    name = safe_filename(text)
    assert safe_filename(name) == name
    assert len(name.encode()) <= MAX_FILENAME_BYTES
    assert not name.startswith((".", "~"))
    assert volume_relative(f"job_outputs/7/{name}", volume_root=ROOT).parts == ("job_outputs", "7", name)


@given(TEXTS.map(lambda text: f"../{text}"))
def test_a_refusal_can_be_printed(text: str) -> None:
    with pytest.raises(UnsafePathError) as refused:
        volume_relative(text, volume_root=ROOT)
    said = str(refused.value)
    assert said.encode()
    assert "\n" not in said
    assert len(said) < 1000

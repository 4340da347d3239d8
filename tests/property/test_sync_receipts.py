"""Receipts and keys, for any text and any value: never a crash, never two files under one key."""

from __future__ import annotations

import json
from pathlib import PurePosixPath

from hypothesis import given
from hypothesis import strategies as st

from morpheus_worker.paths import MAX_NAME_BYTES
from morpheus_worker.sync.cache import key_of
from morpheus_worker.sync.receipting import read_receipt, receipt_text, standing_of
from morpheus_worker.sync.terms import Receipt

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=100).filter(
    lambda name: name not in (".", "..")
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(lambda names: PurePosixPath(*names))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
)
RECEIPTS = st.builds(
    Receipt,
    path=PATHS,
    size=st.integers(0, 2**63),
    mtime_ns=st.none() | st.integers(-(2**63), 2**63),
    sha256=st.none() | st.binary(min_size=32, max_size=32).map(bytes.hex),
    by=st.sampled_from(["sync", "adopt", "upload"]),
    source=st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=3),
    etag=st.none() | st.text(max_size=20),
    verified_at=st.text(max_size=20),
    requested=st.booleans(),
)


@given(RECEIPTS)
def test_every_receipt_comes_back(receipt: Receipt) -> None:
    assert read_receipt(receipt_text(receipt)) == receipt


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_reader(content: bytes) -> None:
    assert read_receipt(content) is None


@given(RECEIPTS, st.dictionaries(st.sampled_from(list(Receipt.__dataclass_fields__)), JSON, min_size=1))
def test_no_value_crashes_the_reader_or_comes_back_as_another(receipt: Receipt, strange: dict[str, object]) -> None:
    told = receipt.as_dict() | strange
    read = read_receipt(json.dumps(told))
    assert read is None or read.as_dict() == {**told, "path": str(PurePosixPath(str(told["path"])))}


@given(st.lists(PATHS, unique=True, max_size=20))
def test_no_two_paths_share_a_key_and_every_key_is_a_name(paths: list[PurePosixPath]) -> None:
    keys = [key_of(path) for path in paths]
    assert len(set(keys)) == len(paths)
    owner, endings = "x" * 60, ".part.journal"
    assert all(len(f"{key}.{owner}{endings}".encode()) <= MAX_NAME_BYTES and "/" not in key for key in keys)


@given(RECEIPTS, st.integers(0, 2**63), st.integers(-(2**63), 2**63))
def test_a_file_is_present_only_as_its_receipt_says(receipt: Receipt, size: int, mtime_ns: int) -> None:
    present = standing_of(receipt, size, mtime_ns) == "present"
    assert present == (size == receipt.size and receipt.mtime_ns in (None, mtime_ns))

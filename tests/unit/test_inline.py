"""Base64 and data URIs: what is forgiven, what is refused, and that a large text is decoded piece by piece."""

from __future__ import annotations

import base64
import tracemalloc
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morpheus_worker.errors import Code, MediaRefusedError
from morpheus_worker.inline import (
    CHUNK_CHARACTERS,
    SHORTEST_BASE64,
    DataUri,
    base64_chunks,
    base64_head,
    data_uri,
    percent_decoded,
)


def decoded(text: str, start: int = 0, max_bytes: int = 10**9) -> bytes:
    return b"".join(base64_chunks(text, start, max_bytes))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("data:image/png;base64,AAAA", DataUri("image/png", True, 22)),
        ("DATA: Image/PNG ;BASE64,AAAA", DataUri("image/png", True, 24)),
        ("data:image/png;name=x.png;base64,AAAA", DataUri("image/png", True, 33)),
        ("data:;base64,AAAA", DataUri("", True, 13)),
        ("data:,x", DataUri("", False, 6)),
        ("data:text/plain;charset=utf-8,a,b", DataUri("text/plain", False, 30)),
        ("data:image/png;base64", None),
        ("data", None),
        ("xdata:,", None),
    ],
)
def test_what_a_data_uri_says_of_itself(text: str, found: DataUri | None) -> None:
    assert data_uri(text) == found


def test_a_media_type_has_an_ending() -> None:
    assert DataUri("image/jpeg", True, 0).suffix == ".jpg"
    assert DataUri("odd/kind", True, 0).suffix == ""


@given(st.binary(max_size=200), st.integers(0, 3), st.sampled_from(["", "\n", "\r\n ", "\t"]))
def test_base64_in_every_form(data: bytes, padding: int, blank: str) -> None:
    text = base64.b64encode(data).decode().rstrip("=") + "=" * padding
    spread = blank.join(text[at : at + 19] for at in range(0, len(text), 19))
    for form in (text, spread, urllib.parse.quote(text, safe=""), f"{text}\n", f" {spread} "):
        assert decoded(form) == data
        assert decoded("prefix," + form, 7) == data


@pytest.mark.parametrize(
    "text", ["!", "A", "QUJDR", "QUJ=QUJD", "QQ==QUJD", "QUJD\0", "äöü", "\ud83d", "QUJD-_", "%", "QUJD,QUJD"]
)
def test_what_is_no_base64(text: str) -> None:
    with pytest.raises(MediaRefusedError, match="is not valid base64") as refused:
        decoded(text)
    assert (refused.value.code, refused.value.retryable) == (Code.INPUT_REJECTED, False)


@pytest.mark.parametrize("length", [*range(-5, 6), CHUNK_CHARACTERS // 4 * 3 + 1])
@pytest.mark.parametrize("line", [0, 76])
def test_a_text_of_several_pieces(length: int, line: int) -> None:
    data = bytes(range(256)) * 3072 + bytes(max(0, length)) if length >= 0 else (bytes(range(256)) * 3072)[:length]
    text = base64.b64encode(data).decode()
    spread = "\n".join(text[at : at + line] for at in range(0, len(text), line)) if line else text
    assert decoded(spread) == data


def test_what_is_wrong_is_found_in_every_piece() -> None:
    for at in (10, CHUNK_CHARACTERS - 1, CHUNK_CHARACTERS, CHUNK_CHARACTERS + 9):
        text = "A" * at + "!" + "A" * (2 * CHUNK_CHARACTERS)
        with pytest.raises(MediaRefusedError):
            decoded(text)


def test_padding_is_wrong_in_the_middle_even_where_a_piece_ends() -> None:
    with pytest.raises(MediaRefusedError):
        decoded("A" * (CHUNK_CHARACTERS - 2) + "==" + "AAAA")


def test_a_large_text_takes_no_more_memory_than_a_piece() -> None:
    text = "QUJD" * (4 * CHUNK_CHARACTERS)
    tracemalloc.start()
    try:
        for _chunk in base64_chunks(text, 0, 10**9):
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6 * CHUNK_CHARACTERS < len(text)


@pytest.mark.parametrize("blank", ["", "\n"])
def test_no_more_than_is_allowed(blank: str) -> None:
    text = blank.join(base64.b64encode(b"x" * 100).decode())
    assert decoded(text, max_bytes=100) == b"x" * 100
    with pytest.raises(MediaRefusedError, match="has 100 bytes, more than the 99 allowed"):
        decoded(text, max_bytes=99)


def test_percent_encoding() -> None:
    assert percent_decoded("data:,a%20b%00%zz", 6, 100) == b"a b\0%zz"
    with pytest.raises(MediaRefusedError, match="has 3 bytes, more than the 2 allowed"):
        percent_decoded("data:,abc", 6, 2)


@pytest.mark.parametrize("padded", [True, False])
def test_the_head_of_what_can_be_base64(padded: bool) -> None:
    text = base64.b64encode(b"%PDF-" + bytes(60_000)).decode()
    head = base64_head(text if padded else text.rstrip("="))
    assert head is not None
    assert head.startswith(b"%PDF-")
    assert 4096 <= len(head) < 10_000
    assert base64_head("data:," + text, 6) == head
    assert base64_head(text[: SHORTEST_BASE64 - 1]) is None


@pytest.mark.parametrize("text", ["job_outputs/7/" + "x" * 80, "a" * 80 + ".png", "x " * 20, "Grüße" * 20, ""])
def test_a_path_can_be_no_base64(text: str) -> None:
    assert base64_head(text) is None

"""What a status and headers mean."""

from __future__ import annotations

import pytest

from morpheus_worker.sync.answers import (
    Access,
    Answer,
    ContentRange,
    Sent,
    check_plain,
    count_in,
    denied,
    expired,
    refusal,
    retry_after_s,
    sent,
    sha256_in,
    strong_etag,
)
from morpheus_worker.sync.terms import SyncCode, SyncError

TOLD = "https://host.example/a.safetensors"
NOW_S = 784111777.0  # Sun, 06 Nov 1994 08:49:37 GMT


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bytes 0-9/10", ContentRange(0, 10, 10)),
        ("bytes 5-9/*", ContentRange(5, 10, None)),
        ("Bytes 5-5/6", ContentRange(5, 6, 6)),
        ("bytes */10", ContentRange(None, None, 10)),
        ("bytes 9-5/10", None),
        ("bytes 5-10/10", None),
        ("items 0-9/10", None),
        ("bytes=0-9/10", None),
        ("bytes -9/10", None),
        ("", None),
        ("bytes 0-99999999999999999999/*", None),
    ],
)
def test_a_content_range_is_read_strictly(text: str, expected: ContentRange | None) -> None:
    assert ContentRange.read(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"abc"', '"abc"'),
        (' "abc-1" ', '"abc-1"'),
        ('W/"abc"', None),
        ("abc", None),
        ('""', None),
        ('"a"b"', None),
        ('"a\r\nX: y"', None),
        ("", None),
    ],
)
def test_only_a_strong_etag_names_bytes(text: str, expected: str | None) -> None:
    assert strong_etag(text) == expected


def test_a_git_hash_is_no_sha256() -> None:
    assert sha256_in(f'"{"Ab" * 32}"') == "ab" * 32
    assert sha256_in(f'W/"{"ab" * 32}"') == "ab" * 32
    assert sha256_in(f'"{"ab" * 20}"') is None


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "Sun, 06 Nov 1994 08:50:37 GMT"}, 60.0),
        ({"retry-after": "Sun, 06 Nov 1994 08:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, 0.0),
        ({"retry-after": "-5"}, 0.0),
        ({"ratelimit": '"api";r=0;t=42'}, 42.0),
        ({"retry-after": "3", "ratelimit": '"api";r=0;t=42'}, 3.0),
        ({}, 0.0),
    ],
)
def test_how_long_a_host_asks_to_be_left_alone(headers: dict[str, str], expected: float) -> None:
    assert retry_after_s(Answer(429, headers), NOW_S) == expected


@pytest.mark.parametrize(
    ("disposition", "expected"),
    [
        ('attachment; filename="a b.safetensors"', "a b.safetensors"),
        ("attachment; filename=plain.ckpt; filename*=UTF-8''%C3%BC.ckpt", "ü.ckpt"),
        ("inline", None),
        ("attachment; filename*=x; filename*0=y", None),
        ("", None),
    ],
)
def test_the_name_that_a_host_gives(disposition: str, expected: str | None) -> None:
    assert Answer(200, {"content-disposition": disposition}).filename == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("12", 12), (" 7 ", 7), ("", None), ("-1", None), ("9" * 5000, None), ("٣", None)]
)
def test_a_number_of_bytes(text: str, expected: int | None) -> None:
    assert count_in(text) == expected


def test_a_refusal_may_be_a_page() -> None:
    check_plain(Answer(416, {"content-type": "text/html", "content-encoding": "gzip"}), TOLD)


def test_a_length_that_is_none() -> None:
    assert Answer(200, {"content-length": "12"}).length == 12
    assert Answer(200, {"content-length": "-1"}).length is None
    assert Answer(200, {"content-length": "12", "transfer-encoding": "chunked"}).length is None


@pytest.mark.parametrize(
    ("status", "code", "passing"),
    [
        (400, SyncCode.UNREACHABLE, False),
        (401, SyncCode.ACCESS_DENIED, False),
        (403, SyncCode.ACCESS_DENIED, False),
        (404, SyncCode.NOT_FOUND, False),
        (408, SyncCode.UNREACHABLE, True),
        (410, SyncCode.NOT_FOUND, False),
        (429, SyncCode.UNREACHABLE, True),
        (451, SyncCode.ACCESS_DENIED, False),
        (500, SyncCode.UNREACHABLE, True),
        (501, SyncCode.UNREACHABLE, False),
        (503, SyncCode.UNREACHABLE, True),
        (599, SyncCode.UNREACHABLE, True),
    ],
)
def test_what_a_refusal_means(status: int, code: SyncCode, passing: bool) -> None:
    failure = refusal(Answer(status, {"retry-after": "2"}), TOLD, Access(), NOW_S)
    assert (failure.code, failure.passing, failure.after_s) == (code, passing, 2.0 if passing else 0.0)
    assert failure.what.startswith(TOLD)


def test_who_asks_for_a_key_is_told_where_it_is_to_stand() -> None:
    wanted = denied(TOLD, Access("HF_TOKEN", False, "the page says who may"))
    assert (wanted.what, wanted.hint) == (
        f"{TOLD} asks for a key",
        "set HF_TOKEN to a key for it; the page says who may",
    )
    refused = denied(TOLD, Access("HF_TOKEN", True))
    assert (refused.what, refused.hint) == (
        f"{TOLD} does not accept the key in HF_TOKEN",
        "check the key in HF_TOKEN",
    )
    assert denied(TOLD, Access()).hint == "name the variable that holds its key in 'auth_env'"
    assert "https only" in (denied(TOLD, Access("HF_TOKEN", False, withheld=True)).hint or "")


def test_a_signed_address_that_refuses_is_no_verdict() -> None:
    failure = expired(Answer(403), TOLD)
    assert (failure.passing, failure.expired, failure.code) == (True, True, SyncCode.UNREACHABLE)


@pytest.mark.parametrize(
    "headers",
    [{"content-type": "text/html; charset=utf-8"}, {"content-type": "TEXT/HTML"}, {"content-encoding": "gzip"}],
)
def test_what_is_not_the_file_itself_is_rejected(headers: dict[str, str]) -> None:
    with pytest.raises(SyncError) as caught:
        check_plain(Answer(200, headers), TOLD)
    assert (caught.value.code, caught.value.passing) == (SyncCode.REJECTED, False)


def test_a_page_may_be_what_is_wanted() -> None:
    check_plain(Answer(200, {"content-type": "text/html"}), TOLD, page_expected=True)
    check_plain(Answer(200, {"content-type": "binary/octet-stream", "content-encoding": "identity"}), TOLD)


def _partial(content_range: str, **more: str) -> Answer:
    return Answer(206, {"content-range": content_range, **{name.replace("_", "-"): more[name] for name in more}})


def test_a_range_as_asked() -> None:
    assert sent(_partial("bytes 5-9/20", content_length="5"), TOLD, 5, 10, 20) == Sent(5, 5, 20, True)
    assert sent(_partial("bytes 5-19/20"), TOLD, 5, None, None) == Sent(5, 15, 20, True)


def test_a_host_may_send_less_than_it_was_asked_for() -> None:
    assert sent(_partial("bytes 5-7/20"), TOLD, 5, 10, 20) == Sent(5, 3, 20, True)


def test_everything_instead_of_a_range() -> None:
    assert sent(Answer(200, {"content-length": "20"}), TOLD, 5, 10, 20) == Sent(0, 20, 20, False)
    assert sent(Answer(200, {}), TOLD, 5, 10, 20) == Sent(0, None, None, False)


def test_everything_as_asked() -> None:
    assert sent(Answer(200, {"content-length": "20"}), TOLD, 0, None, None) == Sent(0, 20, 20, True)


@pytest.mark.parametrize(
    "answer",
    [
        _partial("bytes 6-9/20"),
        _partial("bytes 4-9/20"),
        _partial("bytes 5-10/20"),
        _partial("bytes */20"),
        _partial("nonsense"),
        _partial("bytes 5-9/20", content_length="6"),
        Answer(206, {}),
        Answer(416, {}),
        Answer(416, {"content-range": "bytes */20"}),
    ],
)
def test_other_bytes_than_asked_are_tried_again(answer: Answer) -> None:
    with pytest.raises(SyncError) as caught:
        sent(answer, TOLD, 5, 10, 20)
    assert (caught.value.code, caught.value.passing) == (SyncCode.UNREACHABLE, True)


@pytest.mark.parametrize(
    "answer",
    [
        _partial("bytes 5-9/21"),
        Answer(200, {"content-length": "21"}),
        Answer(412, {}),
        Answer(416, {"content-range": "bytes */4"}),
        Answer(416, {"content-range": "bytes */21"}),
    ],
)
def test_another_version_is_final(answer: Answer) -> None:
    with pytest.raises(SyncError) as caught:
        sent(answer, TOLD, 5, 10, 20)
    assert (caught.value.code, caught.value.passing) == (SyncCode.CHANGED, False)

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import pytest

from morpheus_worker.sources import cache_path, carries_credential, in_the_clear, is_credential, is_url, read_source


@pytest.mark.parametrize(
    "name",
    [
        "token", "TOKEN", "accessToken", "access_token", "apikey", "api-key", "key", "Signature", "sig",
        "X-Amz-Signature", "X-Amz-Credential", "AWSAccessKeyId",
        "Key-Pair-Id", "password", "client_secret", "authkey", "jwt",
    ],
)  # fmt: skip
def test_parameters_that_hold_keys(name: str) -> None:
    assert is_credential(name)
    assert carries_credential(f"https://host/x?a=1&{name}=x")


@pytest.mark.parametrize(
    "name", ["type", "format", "download", "monkey", "keyword", "tokenizer", "author", "design", "v"]
)
def test_parameters_that_hold_none(name: str) -> None:
    assert not is_credential(name)
    assert not carries_credential(f"https://host/x?{name}=x")


@pytest.mark.parametrize("url", ["https://h/x", "http://h:80/x?y#z", "https://[::1]:1/ä"])
def test_urls(url: str) -> None:
    assert is_url(url)


@pytest.mark.parametrize(
    "url", ["", "h/x", "ftp://h/x", "https://", "https:///x", "https://h:x/", "https://[/", "https://h/a b"]
)
def test_what_is_no_url(url: str) -> None:
    assert not is_url(url)
    assert not in_the_clear(url)


def test_a_source_comes_back_as_a_manifest_has_it_or_is_refused() -> None:
    right: dict[str, Any] = {"kind": "hf", "repo": "a/b", "file": "c"}
    assert read_source(right) == right
    assert read_source({**right, "file": "/c", "revision": None}) == right
    with pytest.raises(ValueError, match="repo must be owner/name"):
        read_source({**right, "repo": "a"})
    with pytest.raises(ValueError, match="fil "):
        read_source({**right, "fil": "a"})


@pytest.mark.parametrize("source", [{"kind": "https", "url": "https://h/x?token=SECRET"}, {"kind": "SECRET"}, {}])
def test_nothing_of_what_is_refused_hangs_on_to_the_error(source: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"carries a credential|has no kind") as refused:
        read_source(source)
    assert "SECRET" not in str(refused.value)
    assert refused.value.__context__ is None


def test_a_place_in_the_cache_comes_back_as_it_is() -> None:
    assert PurePosixPath(cache_path("loras/a b.safetensors")).parts == ("loras", "a b.safetensors")
    with pytest.raises(ValueError, match="absolute"):
        cache_path("/loras/a")

from __future__ import annotations

from typing import Any

import pytest

from morpheus_worker.sync.refs import PackRef, parse_ref, shown_source, without_credentials
from morpheus_worker.sync.terms import SyncCode, SyncError

COMMIT = "0123456789" * 4
TOKEN = "hf_SECRETSECRETSECRETSECRET"


def refused(text: str) -> SyncError:
    with pytest.raises(SyncError) as caught:
        parse_ref(text)
    assert caught.value.code is SyncCode.INVALID
    return caught.value


def hf(repo: str, file: str, **more: Any) -> dict[str, Any]:
    return {"kind": "hf", "repo": repo, "file": file, **more}


@pytest.mark.parametrize(
    ("ref", "source"),
    [
        ("https://huggingface.co/a/b/resolve/main/x/y.safetensors?download=true", hf("a/b", "x/y.safetensors")),
        ("https://huggingface.co/a/b/blob/main/y%20z.bin#L1", hf("a/b", "y z.bin")),
        ("  https://hf.co/a/b/resolve/refs%2Fpr%2F7/y.bin ", hf("a/b", "y.bin", revision="refs/pr/7")),
        (f"HTTPS://HuggingFace.co/a/b/resolve/{COMMIT}/y.bin", hf("a/b", "y.bin", revision=COMMIT)),
        ("hf:a/b/x/y.bin", hf("a/b", "x/y.bin")),
        ("hf:a/b/x/y.bin@v1", hf("a/b", "x/y.bin", revision="v1")),
        ("hf://a/b@v1/x/y.bin", hf("a/b", "x/y.bin", revision="v1")),
        (
            "https://huggingface.co/datasets/a/b/blob/main/y.onnx",
            {"kind": "https", "url": "https://huggingface.co/datasets/a/b/resolve/main/y.onnx"},
        ),
        ("https://civitai.com/models/1/some-name?modelVersionId=42", {"kind": "civitai", "version": 42}),
        ("https://civitai.com/api/download/models/42?type=Model&fp=fp16", {"kind": "civitai", "version": 42}),
        ("https://civitai.com/api/v1/model-versions/42", {"kind": "civitai", "version": 42}),
        ("civitai:42", {"kind": "civitai", "version": 42}),
        ("civitai:42:7", {"kind": "civitai", "version": 42, "file": 7}),
        ("urn:air:sdxl:checkpoint:civitai:101@42", {"kind": "civitai", "version": 42}),
        ("s3://bucket/a/b", {"kind": "s3", "uri": "s3://bucket/a/b"}),
        ("gs://bucket/a/b", {"kind": "gs", "uri": "gs://bucket/a/b"}),
        ("/srv/x.bin", {"kind": "file", "path": "/srv/x.bin"}),
        ("file:///srv/x%20y.bin", {"kind": "file", "path": "/srv/x y.bin"}),
        ("https://host:8443/a,b/x.bin?v=1", {"kind": "https", "url": "https://host:8443/a,b/x.bin?v=1"}),
        ("http://127.0.0.1:99/x.bin", {"kind": "https", "url": "http://127.0.0.1:99/x.bin"}),
        (
            "https://github.com/a/b/releases/download/v1/x.pth",
            {"kind": "https", "url": "https://github.com/a/b/releases/download/v1/x.pth"},
        ),
        ("https://github.com/a/b/blob/v1/x.pth", {"kind": "https", "url": "https://github.com/a/b/raw/v1/x.pth"}),
    ],
)
def test_references_of_files(ref: str, source: dict[str, Any]) -> None:
    assert parse_ref(ref) == source


@pytest.mark.parametrize(
    ("ref", "pack"),
    [
        ("https://github.com/a/ComfyUI-Pack", PackRef("ComfyUI-Pack", "https://github.com/a/ComfyUI-Pack")),
        ("http://www.github.com/a/pack.git/", PackRef("pack", "https://github.com/a/pack")),
        ("git@github.com:a/pack.git", PackRef("pack", "https://github.com/a/pack")),
        (f"https://github.com/a/pack/tree/{COMMIT}", PackRef("pack", "https://github.com/a/pack", COMMIT)),
        (f"https://github.com/a/pack/commit/{COMMIT}", PackRef("pack", "https://github.com/a/pack", COMMIT)),
        (f"https://github.com/a/pack.git@{COMMIT}", PackRef("pack", "https://github.com/a/pack", COMMIT)),
        ("https://github.com/a/pack/tree/main", PackRef("pack", "https://github.com/a/pack")),
        ("https://gitlab.com/g/s/pack.git", PackRef("pack", "https://gitlab.com/g/s/pack")),
    ],
)
def test_references_of_packs(ref: str, pack: PackRef) -> None:
    assert parse_ref(ref) == pack


@pytest.mark.parametrize(
    ("ref", "said"),
    [
        ("", "no URL and no short form"),
        ("x.safetensors", "no URL and no short form"),
        ("hff:a/b/c", "did you mean 'hf'?"),
        ("hf:a/b", "names no file"),
        ("hf:../b/c", "repo must be owner/name"),
        ("hf:a/b/../c", "file must be a file's path"),
        ("https://huggingface.co/a/b", "names no file"),
        ("https://huggingface.co/a/b/tree/main/x", "names no file"),
        ("https://civitai.com/models/1/name", "names no version"),
        ("civitai:latest", "names no version"),
        ("urn:air:sdxl:checkpoint:huggingface:a@b", "no name of a version"),
        ("s3://bucket", "uri must be s3://bucket/key"),
        ("https://host/folder/", "names a folder or a page"),
        ("https://host", "names a folder or a page"),
        ("http://host/x.bin", "http:// address"),
        ("https://", "is no URL"),
        ("https://[/x", "is no URL"),
        ("https://github.com/a/pack/tree/v1", "give the whole commit"),
        ("https://github.com/a/pack/commit/abc123", "give the whole commit"),
        ("https://github.com/a", "names no repository"),
        ("https://github.com/a/pack@v1", "no whole commit hash"),
    ],
)
def test_references_that_stand_for_nothing(ref: str, said: str) -> None:
    assert said in str(refused(ref))


@pytest.mark.parametrize(
    ("ref", "named"),
    [
        ("https://civitai.com/api/download/models/42?token=SECRET", "the parameter 'token'"),
        (f"https://huggingface.co/a/b/resolve/main/x?download={TOKEN}", "the parameter 'download'"),
        ("https://user:SECRET@host/x.bin", "user and password"),
        ("https://user:SECRET@github.com/a/pack", "user and password"),
        ("https://user:SECRET#@host/x.bin", "is no URL"),
        ("https://host/x.bin?apiKey=SECRET&v=1", "the parameter 'apiKey'"),
        ("https://host/x.bin#access_token=SECRET", "the part after '#'"),
        ("https://host/x.bin?X-Amz-Credential=SECRET&X-Amz-Signature=SECRET", "signed address"),
        ("https://acct.blob.core.windows.net/x.bin?sv=1&sig=SECRET", "signed address"),
        (f"https://host/{TOKEN}/x.bin", "in its path"),
        (f"https://host/x.bin?{TOKEN}", "in its query"),
        (f"hf:a/b/{TOKEN}", "carries a key"),
        (f"s3://bucket/{TOKEN}", "carries a key"),
    ],
)
def test_a_key_is_refused_and_named_and_not_repeated(ref: str, named: str) -> None:
    failure = refused(ref)
    assert named in str(failure)
    assert "SECRET" not in f"{failure} {failure!r} {failure.what} {failure.hint}"


def test_an_empty_parameter_is_no_key() -> None:
    cleaned = without_credentials("https://host/x?token=&v=1")
    assert (cleaned.url, cleaned.names) == ("https://host/x?v=1", ())


@pytest.mark.parametrize("url", ["https://host/x?a=1,2&b=%2F&c", "https://host/x%2Fy?d=%C3%A4"])
def test_a_url_without_a_key_stays_as_it_is(url: str) -> None:
    assert without_credentials(url).url == url


@pytest.mark.parametrize(
    "ref", ["hf:a/b/x/y.bin", f"hf:a/b/y.bin@{COMMIT}", "civitai:42", "civitai:42:7", "s3://b/k", "gs://b/k", "/srv/x"]
)
def test_what_is_shown_is_a_reference(ref: str) -> None:
    source = parse_ref(ref)
    assert not isinstance(source, PackRef)
    assert shown_source(source) == ref


def test_of_an_address_no_query_is_shown() -> None:
    assert shown_source({"kind": "https", "url": "https://u:p@host/x.bin?token=s#t"}) == "https://host/x.bin"

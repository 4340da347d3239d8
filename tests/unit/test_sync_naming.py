"""Names of blobs: safe, stable, and never one for two."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morpheus_worker.sync.naming import blob_name, extension_of, safe_name, version_id, volume_name
from morpheus_worker.sync.terms import Resolved

SAFE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SHA = "ab" * 32


def hf(file: str, revision: str = COMMIT) -> dict[str, Any]:
    return {"kind": "hf", "repo": "owner/name", "file": file, "revision": revision}


@pytest.mark.parametrize("name", ["My_Model", "a", "SDXL-1.0", "x" * 80, "_", "-"])
def test_a_plain_name_stays_as_it_is(name: str) -> None:
    assert safe_name(name) == name


def test_what_is_no_extension_still_tells_two_files_apart() -> None:
    names = {blob_name("m", hf(file), Resolved(hf(file), filename=file)) for file in ("a.epoch_1", "a.epoch_2", "a")}
    assert len(names) == 3


def test_two_branches_never_share_a_name() -> None:
    sources = [hf("a.bin", revision) for revision in ("release-candidate-1", "release-candidate-2")]
    names = {blob_name("m", source, Resolved(source, etag=f'"{number}"')) for number, source in enumerate(sources)}
    assert len(names) == 2


def test_spaces_become_what_apps_have_always_made_of_them() -> None:
    assert safe_name("My Model v2") == "My_Model_v2"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "../x", ".hidden", "naïve", "a\nb", "x" * 81, "a\\b", "模型", "\ud800"]
)
def test_any_other_name_is_made_safe_and_keeps_a_hash_of_what_it_was(name: str) -> None:
    assert SAFE.fullmatch(safe_name(name))
    assert re.fullmatch(r".*-[0-9a-f]{16}", safe_name(name))


def test_a_plain_name_that_looks_like_a_changed_one_does_not_meet_it() -> None:
    changed = safe_name("a/b")
    assert safe_name(changed) != changed


@given(st.text(max_size=200), st.text(max_size=200))
def test_two_names_meet_only_where_a_space_is_an_underscore(one: str, other: str) -> None:
    assert SAFE.fullmatch(safe_name(one))
    assert (safe_name(one) == safe_name(other)) == (one.replace(" ", "_") == other.replace(" ", "_"))


def test_a_civitai_version_is_its_number() -> None:
    source = {"kind": "civitai", "version": 131960}
    resolved = Resolved({**source, "file": 7}, filename="model.safetensors", sha256=SHA)
    assert blob_name("My Model", source, resolved) == "models/My_Model/131960.safetensors"


@pytest.mark.parametrize(
    ("name", "source", "filename", "expected"),
    [
        ("My Model", {"kind": "civitai", "version": 5}, "x.safetensors", "loras/My_Model-5.safetensors"),
        (None, {"kind": "civitai", "version": 5}, "detail tweaker.safetensors", "loras/detail_tweaker-5.safetensors"),
        (None, {"kind": "civitai", "version": 5, "file": 7}, None, "loras/5-7"),
        (None, hf("loras/x.gguf"), "x.gguf", f"loras/x-{version_id(hf('loras/x.gguf'), Resolved({}))}.gguf"),
        (None, hf("x.safetensors"), None, "loras/0123456789ab-x.safetensors"),
        ("Mine", hf("x.safetensors"), None, "loras/Mine-0123456789ab-x.safetensors"),
    ],
)
def test_on_a_volume_it_is_in_its_model_folder(
    name: str | None, source: dict[str, Any], filename: str | None, expected: str
) -> None:
    assert volume_name("loras", name, source, Resolved(source, filename=filename)) == expected


def test_two_versions_of_one_name_do_not_meet_on_a_volume() -> None:
    versions = [{"kind": "civitai", "version": number} for number in (1, 2)]
    assert len({volume_name("loras", "M", each, Resolved(each, filename="m.pt")) for each in versions}) == 2


@given(st.none() | st.text(max_size=200), st.none() | st.text(max_size=300))
def test_on_a_volume_every_name_is_safe(name: str | None, filename: str | None) -> None:
    source = {"kind": "civitai", "version": 5}
    folder, _, rest = volume_name("loras", name, source, Resolved(source, filename=filename)).partition("/")
    assert folder == "loras"
    assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}", rest)


def test_a_named_file_of_a_civitai_version_has_a_name_of_its_own() -> None:
    assert version_id({"kind": "civitai", "version": 131960, "file": 7}, Resolved({})) == "131960-7"


def test_a_file_of_hugging_face_is_its_commit_and_its_name() -> None:
    source = {"kind": "hf", "repo": "owner/name", "file": "model.fp16.safetensors"}
    assert (
        blob_name("M", source, Resolved(hf("model.fp16.safetensors"))) == "models/M/0123456789ab-model.fp16.safetensors"
    )


def test_files_of_one_name_in_two_folders_of_a_repository_do_not_meet() -> None:
    assert version_id(hf("unet/model.bin"), Resolved({})) != version_id(hf("vae/model.bin"), Resolved({}))


def test_any_other_source_is_its_hash() -> None:
    source = {"kind": "https", "url": "https://example.org/a/m.gguf?download=1"}
    assert blob_name("M", source, Resolved(source, sha256=SHA)) == "models/M/abababababababab.gguf"


def test_without_a_hash_it_is_what_names_it() -> None:
    one, other = ({"kind": "https", "url": f"https://example.org/{name}.bin"} for name in "ab")
    assert version_id(one, Resolved(one)) == version_id(dict(one), Resolved(one))
    assert (
        len(
            {
                version_id(one, Resolved(one)),
                version_id(other, Resolved(other)),
                version_id(one, Resolved(one, etag='"1"')),
            }
        )
        == 3
    )


@pytest.mark.parametrize(
    ("source", "filename", "expected"),
    [
        ({"kind": "https", "url": "https://example.org/x"}, "given.safetensors", ".safetensors"),
        ({"kind": "https", "url": "https://example.org/x.ckpt?y=.z"}, None, ".ckpt"),
        ({"kind": "https", "url": "https://example.org/"}, None, ""),
        ({"kind": "s3", "uri": "s3://bucket/a.b/c.onnx"}, None, ".onnx"),
        ({"kind": "s3", "uri": "s3://bucket/a.b/c"}, None, ""),
        ({"kind": "https", "url": "https://example.org/x.bin"}, "odd.na me", ".bin"),
        (hf("folder/model.gguf"), None, ".gguf"),
    ],
)
def test_the_extension_is_the_file_s(source: dict[str, Any], filename: str | None, expected: str) -> None:
    assert extension_of(source, Resolved(source, filename=filename)) == expected

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

import morpheus_worker
from morpheus_worker.manifest import Manifest, ManifestError, ModelEntry, PackEntry, parse_manifest

SHIPPED = Path(morpheus_worker.__file__).parent.parent / "model_manifest.yaml"
SHA = "0123456789abcdef" * 4
COMMIT = "0123456789" * 4


def problems_of(text: str) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(text, name="m.yaml")
    assert all(str(problem) in str(caught.value) for problem in caught.value.problems)
    return [str(problem) for problem in caught.value.problems]


def model(*lines: str, name: str = "a", path: str = "loras/a.safetensors") -> str:
    """A manifest with one model; the further lines begin on line 5."""
    return "\n".join(
        ["version: 1", "models:", f"  - id: {name}", f"    path: {path}", *(f"    {line}" for line in lines)]
    )


def test_everything_an_entry_can_say() -> None:
    text = f"""
version: 1
models:
  - id: base
    path: checkpoints/xl/base.safetensors
    workflows: [sdxl_txt2img, upscale]
    phase: boot
    prefetch: true
    sources:
      - {{kind: hf, repo: owner/name, file: sub/base.safetensors, revision: main}}
      - {{kind: civitai, version: 131960, file: 7}}
      - {{kind: s3, uri: "s3://bucket/models/base"}}
      - {{kind: gs, uri: "gs://bucket/models/base"}}
      - {{kind: https, url: "https://host/base.safetensors?download=true"}}
      - {{kind: file, path: /srv/base.safetensors}}
    size: 12
    sha256: {SHA.upper()}
    format: safetensors
    license: openrail++
    gated: true
    auth_env: HF_TOKEN
custom_nodes:
  - id: ComfyUI-Pack
    repo: https://github.com/owner/pack
    commit: "{COMMIT}"
    workflows: [upscale]
    requirements: ["numpy>=1.26; python_version < '3.13'", opencv-python]
  - {{id: Bare, repo: "https://github.com/owner/bare", requirements: []}}
"""
    manifest = parse_manifest(text, name="m.yaml")
    assert manifest.models == (
        ModelEntry(
            id="base",
            path=PurePosixPath("checkpoints/xl/base.safetensors"),
            workflows=("sdxl_txt2img", "upscale"),
            phase="boot",
            prefetch=True,
            sources=(
                {"kind": "hf", "repo": "owner/name", "file": "sub/base.safetensors", "revision": "main"},
                {"kind": "civitai", "version": 131960, "file": 7},
                {"kind": "s3", "uri": "s3://bucket/models/base"},
                {"kind": "gs", "uri": "gs://bucket/models/base"},
                {"kind": "https", "url": "https://host/base.safetensors?download=true"},
                {"kind": "file", "path": "/srv/base.safetensors"},
            ),
            size=12,
            sha256=SHA,
            format="safetensors",
            license="openrail++",
            gated=True,
            auth_env="HF_TOKEN",
        ),
    )
    asked = ("numpy>=1.26; python_version < '3.13'", "opencv-python")
    assert manifest.custom_nodes == (
        PackEntry("ComfyUI-Pack", "https://github.com/owner/pack", COMMIT, ("upscale",), asked),
        PackEntry("Bare", "https://github.com/owner/bare", requirements=()),
    )


def test_what_an_entry_may_leave_out() -> None:
    manifest = parse_manifest(model(), name="m.yaml")
    assert manifest.models == (ModelEntry("a", PurePosixPath("loras/a.safetensors")),)
    assert manifest.models[0].phase == "lazy"


@pytest.mark.parametrize("text", ["version: 1", "version: 1\nmodels:\ncustom_nodes:\n", "version: 1\nmodels: []"])
def test_a_manifest_may_ask_for_nothing(text: str) -> None:
    assert parse_manifest(text, name="m.yaml") == Manifest("m.yaml")


def test_required_by_is_the_part_one_workflow_needs() -> None:
    text = """
version: 1
models:
  - {id: a, path: loras/a, workflows: [one, two]}
  - {id: b, path: loras/b, workflows: [two]}
  - {id: c, path: loras/c}
custom_nodes:
  - {id: P, repo: "https://host/p", workflows: [one]}
"""
    manifest = parse_manifest(text, name="m.yaml")
    needed = manifest.required_by("one")
    assert [entry.id for entry in needed.models] == ["a"]
    assert [entry.id for entry in needed.custom_nodes] == ["P"]
    assert manifest.required_by("nobody") == Manifest("m.yaml")


def test_the_shipped_manifest_can_be_read() -> None:
    manifest = parse_manifest(SHIPPED.read_text(encoding="utf-8"), name=SHIPPED.name)
    paths = {str(entry.path) for entry in manifest.required_by("sdxl_txt2img").models}
    assert paths == {"checkpoints/sd_xl_base_1.0.safetensors", "checkpoints/talmendoxl_v11_beta.safetensors"}
    assert [str(entry.path) for entry in manifest.required_by("upscale").models] == [
        "upscale_models/RealESRGAN_x4plus.pth"
    ]
    assert manifest.required_by("smoke") == Manifest(SHIPPED.name)


def test_a_model_and_a_node_pack_are_told_apart_by_their_ids() -> None:
    text = """version: 1
models:
  - id: both
    path: loras/x
custom_nodes:
  - {id: other, repo: "https://host/o/p"}
  - {id: both, repo: "https://host/o/q"}
"""
    assert problems_of(text) == ["m.yaml:7 custom_nodes[1].id: is taken by models[0]"]


def test_every_problem_is_said_at_once_in_the_order_of_the_lines() -> None:
    text = """version: 1
models:
  - id: a
    path: /abs/x.safetensors
    worklfows: [x]
    sources:
      - kind: hf
        repo: no-owner
        fil: x
      - kind: htps
        url: https://host/x
  - id: a
    path: loras/x
    phase: bot
  - id: b
    path: loras/x
custom_nodes:
  - {id: P, repo: "https://host/p", commit: abc123}
modles: []
"""
    assert problems_of(text) == [
        "m.yaml:4 models[0].path: is absolute; give it relative to the cache",
        "m.yaml:5 models[0].worklfows: is no key of the manifest (did you mean 'workflows'?)",
        "m.yaml:7 models[0].sources[0].file: is missing",
        "m.yaml:8 models[0].sources[0].repo: must be owner/name",
        "m.yaml:9 models[0].sources[0].fil: is no key of the manifest (did you mean 'file'?)",
        "m.yaml:10 models[0].sources[1].kind: is no kind of source (did you mean 'https'?)",
        "m.yaml:12 models[1].id: is taken by models[0]",
        "m.yaml:14 models[1].phase: must be 'boot' or 'lazy'",
        "m.yaml:16 models[2].path: is taken by models[1]",
        "m.yaml:18 custom_nodes[0].commit: must be a whole commit hash, 40 hexadecimal digits",
        "m.yaml:19 modles: is no key of the manifest (did you mean 'models'?)",
    ]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("", 1, "is empty"),
        ("# only a comment\n", 1, "is empty"),
        ("[]", 1, "must be keys with values"),
        ("models: []", 1, "version: is missing"),
        ("version: 2", 1, "version: must be 1"),
        ('version: "1"', 1, "version: must be 1"),
        ("version: 1\nmodels: [1", None, "is not YAML"),
        ("version: 1\n\tmodels: []", 2, "is not YAML"),
        ("version: 1\nmodels: \x00", 1, "is not YAML"),
        ("version: 1\nmodels: !!python/object:os.system []", 2, "models: has a tag"),
        ("version: 1\nmodels:\n  - 5", 3, "models[0]: must be keys with values"),
        ("version: 1\nmodels: {a: 1}", 2, "models: must be a valid list"),
        ("version: 1\nversion: 1", 1, "version: stands twice, again on line 2"),
        ("version: 1\nmodels: &a []\ncustom_nodes: *a", 3, "custom_nodes: is an alias"),
        ("version: 1\nmodels: &a [*a]", 2, "models[0]: is an alias"),
        ("[" * 5000, None, "is not YAML"),
    ],
)
def test_a_file_that_is_no_manifest(text: str, line: int | None, said: str) -> None:
    at = "m.yaml:" if line is None else f"m.yaml:{line}"
    assert any(problem.startswith(at) and said in problem for problem in problems_of(text))


@pytest.mark.parametrize(
    "path", ["/a/b", "../b", "loras/../b", "loras/./b", "loras//b", "loras/.b", "loras\\b", "b", "loras/",
             "custom_nodes/P", "loras/b.part", "loras/b.receipt.json", "''"]
)  # fmt: skip
def test_paths_that_are_refused(path: str) -> None:
    assert [problem.split(": ")[0] for problem in problems_of(model(path=path))] == ["m.yaml:4 models[0].path"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("size: 0", "greater than 0"),
        ("size: 6.9e9", "valid integer"),
        ("size: '12'", "valid integer"),
        ("sha256: abc", "must be 64 hexadecimal digits"),
        ("gated: yes please", "valid boolean"),
        ("license: 3", "must be text (put it in quotes)"),
        ("workflows: sdxl", "valid list"),
        ("sources: [{repo: a/b, file: c}]", "has no 'kind' (one of hf, civitai"),
        ("sources: [5]", "must be keys with values"),
        ("sources: [{kind: civitai, version: latest}]", "valid integer"),
        ("sources: [{kind: s3, uri: bucket/key}]", "must be s3://bucket/key"),
        ("sources: [{kind: https, url: 'http://host/x'}]", "must be an https:// address"),
        ("sources: [{kind: file, path: x}]", "must be an absolute path"),
    ],
)
def test_values_that_are_refused(line: str, said: str) -> None:
    (problem,) = problems_of(model(line))
    assert problem.startswith("m.yaml:5 models[0].")
    assert said in problem


@pytest.mark.parametrize("name", ["-a", "a b", "a/b", "''", "a" * 129])
def test_ids_that_are_refused(name: str) -> None:
    assert problems_of(model(name=name))[0].startswith("m.yaml:3 models[0].id")


@pytest.mark.parametrize(
    "secret",
    ["hf_AbCdEfGhIjKlMnOpQrStUvWxYz01234567", "AKIAIOSFODNN7EXAMPLE", "0f3a5b7c9d0f3a5b7c9d0f3a5b7c9d0f",
     "ABCDEFGH1234567890ABCDEFGH12", "rpa_ABCDEFGHIJKLMNOPQRSTUVWXYZ", "my-token", "Bearer x"],
)  # fmt: skip
def test_a_key_in_the_place_of_its_name_is_refused_and_not_repeated(secret: str) -> None:
    (problem,) = problems_of(model(f"auth_env: '{secret}'"))
    assert "name the variable that holds the key" in problem
    assert secret not in problem


@pytest.mark.parametrize(
    "line",
    [
        "sources: [{kind: https, url: 'https://user:SECRETSECRET@host/x'}]",
        "sources: [{kind: https, url: 'https://host/x?token=SECRETSECRET'}]",
        "sources: [{kind: https, url: 'https://host/x?a=1&X-Amz-Signature=SECRETSECRET'}]",
        "sources: [{kind: hf, repo: a/b, file: hf_SECRETSECRETSECRETSECRET}]",
        "license: hf_SECRETSECRETSECRETSECRET",
    ],
)
def test_a_key_anywhere_else_is_refused_and_not_repeated(line: str) -> None:
    (problem,) = problems_of(model(line))
    assert "auth_env" in problem
    assert "SECRET" not in problem


def test_further_places_are_a_folder_and_a_name() -> None:
    text = model("also: [pulid/a.safetensors, other/b.safetensors]")
    (entry,) = parse_manifest(text, name="m.yaml").models
    assert [str(place) for place in entry.also] == ["pulid/a.safetensors", "other/b.safetensors"]


@pytest.mark.parametrize("place", ["a.safetensors", "a/b/c.safetensors", "/a/b", "a/../b", "custom_nodes/a"])
def test_further_places_that_are_refused(place: str) -> None:
    assert problems_of(model(f"also: [{place}]"))


def problems_in(*entries: str) -> list[str]:
    return problems_of("\n".join(["version: 1", "models:", *(f"  - {entry}" for entry in entries)]))


IN_USE = """version: 1
models:
  - {id: a, path: loras/A.safetensors, also: [pulid/a, pulid/a, loras/A.safetensors], license: &terms mit}
  - {id: A, path: loras/a.safetensors, also: [pulid/a], license: *terms}
  - {id: b, path: pulid/a, size: !!int "12"}
  - {id: c, path: "loras/ａ　b c‍.safetensors"}
  - {id: d, path: "loras/ d", sources: [{kind: hf, repo: a/b, file: ./x//y/, revision: "v1+a@b%20c"}]}
custom_nodes:
  - {id: Pack, repo: "https://host/p"}
  - {id: pack, repo: "https://host/p"}
"""


def test_what_harms_nothing_costs_a_worker_none_of_its_links() -> None:
    manifest = parse_manifest(IN_USE, name="m.yaml")
    assert [entry.license for entry in manifest.models] == ["mit", "mit", None, None, None]
    assert manifest.models[2].size == 12
    assert manifest.models[4].sources == ({"kind": "hf", "repo": "a/b", "file": "x/y", "revision": "v1+a@b%20c"},)
    assert len(manifest.custom_nodes) == 2


@pytest.mark.parametrize("name", ["loras", "custom_nodes"])
def test_a_pack_is_no_folder_of_models(name: str) -> None:
    pack = f"custom_nodes:\n  - {{id: {name}, repo: 'https://x.org/pack'}}\n"
    (problem,) = problems_of(model("size: 1") + "\n" + pack)
    assert "custom_nodes[0].id: is a folder of models" in problem


def test_a_file_is_no_folder_of_another() -> None:
    source = "sources: [{kind: hf, repo: a/b, file: c}]"
    assert problems_in(f"{{id: a, path: a/b, {source}}}", "{id: b, path: a/b/c}") == [
        "m.yaml:3 models[0].path: is a file here, and a folder in models[1].path"
    ]
    # Without a source it may be a folder that somebody fills by hand.
    text = "version: 1\nmodels:\n  - {id: a, path: a/b}\n  - {id: b, path: a/b/c}"
    assert len(parse_manifest(text, name="m.yaml").models) == 2


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("'loras/a '", "begins or ends with a space"),
        ('"loras/a\\nb"', "has a control character"),
        ('"loras/a\\0b"', "has a control character"),
        ('"loras/a\\u202eb"', "has a control character"),
        (f"loras/{'ä' * 128}", "longer than 255 bytes"),
    ],
)
def test_names_that_no_file_should_have(path: str, said: str) -> None:
    (problem,) = problems_of(model(path=path))
    assert said in problem


@pytest.mark.parametrize("url", ["http://localhost:8000/x", "http://127.1.2.3/x", "http://[::1]:1/x"])
def test_http_is_taken_from_this_machine(url: str) -> None:
    (entry,) = parse_manifest(model(f"sources: [{{kind: https, url: '{url}'}}]"), name="m.yaml").models
    assert entry.sources == ({"kind": "https", "url": url},)


@pytest.mark.parametrize(
    "url", ["http://host/x", "http://10.0.0.1/x", "http://127.0.0.1.host/x", "http://localhost.host/x"]
)
def test_http_from_elsewhere_needs_a_hash_and_carries_no_key(url: str) -> None:
    sources = f"sources: [{{kind: https, url: '{url}'}}]"
    assert problems_of(model(sources)) == [
        "m.yaml:5 models[0].sources[0].url: must be an https:// address (http:// is taken where the entry has a sha256)"
    ]
    parse_manifest(model(sources, f"sha256: {SHA}"), name="m.yaml")
    (problem,) = problems_of(model(sources, f"sha256: {SHA}", "auth_env: A_KEY"))
    assert "sent in the clear" in problem


def test_a_pack_is_never_fetched_over_http() -> None:
    (problem,) = problems_of("version: 1\ncustom_nodes:\n  - {id: P, repo: 'http://localhost/p'}")
    assert problem == "m.yaml:3 custom_nodes[0].repo: must be an https:// address"


@pytest.mark.parametrize(
    ("path", "format_name", "runs"),
    [
        ("a/b.safetensors", None, False), ("a/b.safetensors", "pickle", True), ("a/b.PT", None, True),
        ("a/b.pth", "PyTorch", True), ("a/b.bin", "safetensors", False), ("a/b.ckpt", "GGUF", False),
        ("a/b.pkl", "onnx", False), ("a/b.onnx", "torchscript", True), ("a/b", None, False),
    ],
)  # fmt: skip
def test_what_may_run_code_is_a_fact_and_no_problem(path: str, format_name: str | None, runs: bool) -> None:
    lines = [f"format: {format_name}"] if format_name else []
    (entry,) = parse_manifest(model(*lines, path=path), name="m.yaml").models
    assert entry.may_run_code is runs
    assert not entry.allow_pickle


def test_the_shipped_manifest_allows_what_it_ships() -> None:
    models = parse_manifest(SHIPPED.read_text(encoding="utf-8"), name=SHIPPED.name).models
    assert [entry.id for entry in models if entry.may_run_code != entry.allow_pickle] == []


@pytest.mark.parametrize(
    "source",
    [
        "{kind: hf, repo: ../.., file: x}", "{kind: hf, repo: a/.., file: x}", "{kind: hf, repo: a/b, file: ../x}",
        "{kind: hf, repo: a/b, file: /}", "{kind: hf, repo: a/b, file: x, revision: ../main}",
        "{kind: hf, repo: a/b, file: x, revision: a b}", "{kind: https, url: 'https://'}",
        "{kind: https, url: 'https://host:port/x'}", "{kind: https, url: 'https://ho st/x'}",
        "{kind: https, url: 'ftp://host/x'}", "{kind: https, url: 'https://[::1/x'}",
    ],
)  # fmt: skip
def test_sources_that_lead_elsewhere(source: str) -> None:
    (problem,) = problems_of(model(f"sources: [{source}]"))
    assert problem.startswith("m.yaml:5 models[0].sources[0].")


@pytest.mark.parametrize(
    "url",
    [
        "https://host/x?accessToken=SECRET", "https://host/x?AWSAccessKeyId=SECRET", "https://host/x?apikey=SECRET",
        "https://host/x#token=SECRET", "https://user:SECRET#@host/x", "https://host/hf_SECRETSECRETSECRETSECRET",
        "https://user:SECRET@[/x", "https://host/x?a=1;token=SECRET", "https://host/x?a=1&amp;token=SECRET",
        "https://host/x?TOKEN%3DSECRET", "https://host/hf%5FSECRETSECRETSECRETSECRET",
    ],
)  # fmt: skip
def test_a_key_in_any_part_of_a_url_is_not_repeated(url: str) -> None:
    (problem,) = problems_of(model(f"sources: [{{kind: https, url: '{url}'}}]"))
    assert "SECRET" not in problem


@pytest.mark.parametrize("uri", ["s3://me:SECRET@bucket/x", "s3://bucket/x?token=SECRET"])
def test_a_key_in_a_bucket_s_address_is_not_repeated(uri: str) -> None:
    (problem,) = problems_of(model(f"sources: [{{kind: s3, uri: '{uri}'}}]"))
    assert "carries a credential" in problem
    assert "SECRET" not in problem


def test_keys_of_a_source_are_those_of_its_kind() -> None:
    (problem,) = problems_of(model("sources: [{kind: file, path: /x, file: y}]"))
    assert problem == "m.yaml:5 models[0].sources[0].file: is no key of the manifest"
    (problem,) = problems_of(model("sources: [{kind: civitai, version: 1, fil: 2}]"))
    assert "did you mean 'file'?" in problem


def test_a_second_document_is_not_passed_over() -> None:
    (problem,) = problems_of("version: 1\n---\nversion: 1\n")
    assert problem == "m.yaml:2: is not YAML: a second document begins"


def test_requirements_are_lines_of_text() -> None:
    pack = 'version: 1\ncustom_nodes: [{id: P, repo: "https://host/p", requirements: %s}]'
    assert parse_manifest(pack % "null", name="m.yaml").custom_nodes[0].requirements is None
    for wrong in ("numpy", '["a\\nb"]', "[1]", '[""]'):
        assert ["requirements" in said for said in problems_of(pack % wrong)] == [True]

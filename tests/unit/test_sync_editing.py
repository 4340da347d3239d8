from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

import morpheus_worker
from morpheus_worker.manifest import ManifestError, ModelEntry, PackEntry, parse_manifest
from morpheus_worker.sync.editing import entry_id, new_manifest_text, with_entries

SHIPPED = Path(morpheus_worker.__file__).parent.parent / "model_manifest.yaml"
HF = {"kind": "hf", "repo": "a/b", "file": "new.safetensors"}
NEW = ModelEntry("new", PurePosixPath("loras/new.safetensors"), sources=(HF,))
OTHER = ModelEntry("other", PurePosixPath("vae/other.safetensors"))
PACK = PackEntry("Pack", "https://github.com/a/pack")
ITEM = """  - id: new
    path: loras/new.safetensors
    sources:
      - {kind: hf, repo: a/b, file: new.safetensors}
"""


def problems_of(text: str, *entries: ModelEntry, packs: tuple[PackEntry, ...] = ()) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        with_entries(text, entries, packs)
    return [str(problem) for problem in caught.value.problems]


ONE = "id: a\n    path: loras/a\n"


@pytest.mark.parametrize(
    "text",
    [
        f"version: 1\nmodels: &m\n  - &a\n    {ONE}",
        f"version: 1\nmodels: !!seq # all\n\n  # one\n  - {ONE}",
        f"version: 1\nmodels: &m !!seq\n  - {ONE}",
        f"--- &all\nversion: 1\nmodels:\n  - {ONE}",
        f"version: 1\nmodels:\n  - {ONE}    license: &l mit\n  - id: b\n    path: loras/b\n    license: *l # it\n",
    ],
)
def test_anchors_and_tags_are_no_hindrance(text: str) -> None:
    added = with_entries(text, [NEW], [PACK])
    before, after = parse_manifest(text, name="m"), parse_manifest(added, name="m")
    assert (after.models, after.custom_nodes) == ((*before.models, NEW), (PACK,))
    assert set(text.splitlines()) <= set(added.splitlines())


def test_json_with_tabs_is_left_to_its_author() -> None:
    (problem,) = problems_of('{\n\t"version": 1,\n\t"models": []\n}', NEW)
    assert "add the entry by hand" in problem


def test_everything_that_an_entry_says_is_written_in_the_manifests_style() -> None:
    entry = ModelEntry(
        id="full",
        path=PurePosixPath("checkpoints/full.safetensors"),
        also=(PurePosixPath("pulid/full.safetensors"),),
        workflows=("one", "two"),
        phase="boot",
        prefetch=True,
        sources=(
            {"kind": "civitai", "version": 1, "file": 2},
            {"kind": "https", "url": "https://host/x?a=1,2"},
            {"kind": "file", "path": "/srv/x y"},
        ),
        auth_env="A_KEY",
        size=12,
        sha256="1" * 64,
        format="pickle",
        allow_pickle=True,
        license="openrail++: read it",
        gated=True,
    )
    pack = PackEntry("Pack", "https://github.com/a/pack", "1" * 40, ("one",))
    text = new_manifest_text([entry], [pack])
    assert text.endswith(f"""
version: 1

models:
  - id: full
    path: checkpoints/full.safetensors
    also: [pulid/full.safetensors]
    workflows: [one, two]
    phase: boot
    prefetch: true
    sources:
      - {{kind: civitai, version: 1, file: 2}}
      - {{kind: https, url: "https://host/x?a=1,2"}}
      - {{kind: file, path: /srv/x y}}
    auth_env: A_KEY
    size: 12
    sha256: "{"1" * 64}"
    format: pickle
    allow_pickle: true
    license: "openrail++: read it"
    gated: true

custom_nodes:
  - id: Pack
    repo: https://github.com/a/pack
    commit: "{"1" * 40}"
    workflows: [one]
""")


def test_long_lists_have_a_line_a_value() -> None:
    workflows = tuple(f"a_workflow_with_a_long_name_{number}" for number in range(5))
    text = new_manifest_text([ModelEntry("a", PurePosixPath("vae/a"), workflows=workflows)])
    assert f"    workflows:\n      - {workflows[0]}\n" in text
    assert max(map(len, text.splitlines())) <= 120


def test_the_shipped_manifest_stays_as_it_is() -> None:
    before = SHIPPED.read_text(encoding="utf-8")
    after = with_entries(before, [NEW], [PACK])
    head, _, rest = before.partition("\n\ncustom_nodes:\n")
    assert after == f"{head}\n\n{ITEM}\ncustom_nodes:\n{rest}\n  - id: Pack\n    repo: https://github.com/a/pack\n"
    assert with_entries(before, []) == before


MODELS = "version: 1\nmodels:\n"
OLD = "  - id: old\n    path: vae/old\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("version: 1\n", f"version: 1\n\nmodels:\n{ITEM}"),
        ("version: 1", f"version: 1\n\nmodels:\n{ITEM}"),
        ("version: 1\n# end\n\n", f"version: 1\n# end\n\nmodels:\n{ITEM}"),
        ("version: 1\ncustom_nodes: []\n", f"version: 1\ncustom_nodes: []\n\nmodels:\n{ITEM}"),
        ("models: []  # none yet\nversion: 1\n", f"models:  # none yet\n{ITEM}version: 1\n"),
        ("version: 1\nmodels: []", f"{MODELS}{ITEM}"),
        (f"{MODELS}custom_nodes:\n", f"{MODELS}{ITEM}custom_nodes:\n"),
        ("version: 1\nmodels: ~\n", f"{MODELS}{ITEM}"),
        ("version: 1\nmodels: # c\n  # mine\n", f"version: 1\nmodels: # c\n  # mine\n{ITEM}"),
        (f"{MODELS}{OLD}", f"{MODELS}{OLD}\n{ITEM}"),
        (f"{MODELS}{OLD.rstrip()}", f"{MODELS}{OLD}\n{ITEM}"),
        (f"{MODELS}{OLD}    # of old\n  # end\n", f"{MODELS}{OLD}    # of old\n\n{ITEM}  # end\n"),
        (f"{MODELS}{OLD}\n\n# c\ncustom_nodes: []\n", f"{MODELS}{OLD}\n{ITEM}\n\n# c\ncustom_nodes: []\n"),
        ("version: 1\nmodels: [\n  # none yet\n]\n",
         "version: 1\nmodels: [{id: new, path: loras/new.safetensors, sources: [{kind: hf, repo: a/b, "
         "file: new.safetensors}]}\n  # none yet\n]\n"),
    ],
)  # fmt: skip
def test_what_is_added_and_where(before: str, after: str) -> None:
    assert with_entries(before, [NEW]) == after


@pytest.mark.parametrize(
    "before",
    [
        "version: 1\nmodels:\n- id: old\n  path: vae/old\n",
        "version: 1\nmodels:\n      -   id: old   # c\n          path: vae/old # d\n\ncustom_nodes:\n",
        "version: 1\nmodels:\n  - {id: old, path: vae/old} # c\n\n",
        "version: 1\nmodels:\n  - id: old\n    path: vae/old\n    license: |-\n      of\n\n\ncustom_nodes: []\n",
        "version: 1\nmodels:\n  - id: old\n    path: vae/old\n    license: 'of\n      two'\n  # c\n",
        "version: 1\nmodels: [{id: old, path: vae/old}, ] # c\n",
        "version: 1\nmodels: [\n  {id: old, path: vae/old}, # c\n  # d\n]\n",
        "{version: 1, models: [{id: old, path: vae/old}]}\n",
        "{version: 1, models: [{id: old, path: vae/old}], custom_nodes: []}",
        "{version: 1, models: [{id: old, path: vae/old}], custom_nodes}",
        '{"version": 1, "models": [{"id": "old", "path": "vae/old"}], "custom_nodes": null,}',
        "  version: 1\n  models:\n    - id: old\n      path: vae/old\n",
        "---\nversion: 1\nmodels:\n  - id: old\n    path: vae/old\n...\n",
        "\ufeffversion: 1\nmodels:\n  - id: old\n    path: vae/old\n",
        '"models":\n  -\n    id: old\n    path: vae/old\n"version": 1\n"custom_nodes": []',
    ],
)
def test_however_it_is_written_nothing_of_it_is_lost(before: str) -> None:
    for text in (before, before.replace("\n", "\r\n")):
        after = with_entries(text, [NEW, OTHER], [PACK])
        manifest = parse_manifest(after, name="m.yaml")
        assert [entry.id for entry in manifest.models] == ["old", "new", "other"]
        assert manifest.models[1:] == (NEW, OTHER)
        assert manifest.custom_nodes == (PACK,)
        assert _is_within([line for line in text.splitlines() if line.strip()], after.splitlines())
        assert "\r" not in after.replace("\r\n", "")
        if "\r\n" in text:
            assert after.count("\n") == after.count("\r\n")


def _is_within(lines: list[str], more: list[str]) -> bool:
    """Whether all comments and the beginnings of all lines are still there, in their order."""
    rest = iter(more)
    return all(any(_start(line) in each for each in rest) for line in lines if "{" not in line and "[" not in line)


def _start(line: str) -> str:
    return line.replace(" ~", "").replace(" null", "").strip()


def test_an_id_or_a_place_that_is_there_already_is_a_problem() -> None:
    text = """version: 1
models:
  - {id: new, path: vae/x, also: [loras/new.safetensors]}
custom_nodes:
  - {id: pack, repo: "https://host/p"}
"""
    assert problems_of(text, NEW, ModelEntry("b", PurePosixPath("VAE/X")), packs=(PACK,)) == [
        "models.new: is the id of an entry already (give it another one)",
        "models.new: has the path loras/new.safetensors, which 'new' has already",
        "models.b: has the path VAE/X, which 'new' has already",
        "custom_nodes.Pack: is the folder of 'pack' already",
    ]


def test_entries_are_held_to_the_manifests_own_rules() -> None:
    assert any("is taken by" in problem for problem in problems_of("version: 1", NEW, NEW))
    bad = ModelEntry("bad", PurePosixPath("../x"), sources=({"kind": "https", "url": "https://h/x?token=SECRET"},))
    told = problems_of("version: 1", bad)
    assert len(told) == 2
    assert "SECRET" not in str(told)


def test_what_is_no_manifest_is_not_added_to() -> None:
    assert problems_of("versoin: 1", NEW)


@pytest.mark.parametrize("value", ["yes", "1", "a: b", "a # b", "- a", "'a", "a\tb", "ä {x}", "null", "1.5", "=", "<<"])
def test_any_text_comes_back_as_it_was(value: str) -> None:
    entry = ModelEntry("a", PurePosixPath("vae/a"), license=value, workflows=(value,))
    text = with_entries("{version: 1}", [entry])
    for written in (text, new_manifest_text([entry])):
        assert parse_manifest(written, name="m.yaml").models == (entry,)


@pytest.mark.parametrize(
    ("path", "taken", "given"),
    [
        ("loras/My Model.safetensors", (), "my-model"),
        ("loras/x.safetensors", ("x",), "loras-x"),
        ("loras/s/x.safetensors", ("x", "s-x"), "loras-s-x"),
        ("instantid/ip-adapter.bin", (), "instantid-ip-adapter"),
        ("vae/漢字.safetensors", (), "model"),
        ("loras/v1.5", (), "v1"),
    ],
)
def test_ids_are_made_of_names(path: str, taken: tuple[str, ...], given: str) -> None:
    assert entry_id(PurePosixPath(path), taken) == given


def test_an_id_is_found_however_much_is_taken() -> None:
    path = PurePosixPath("vae/" + "漢" * 50 + ".safetensors")
    taken: set[str] = set()
    for _ in range(6):
        taken.add(entry_id(path, taken))
    assert len(taken) == 6
    long = entry_id(PurePosixPath("loras/" + "a" * 200), ())
    new_manifest_text([ModelEntry(long, PurePosixPath("vae/a"))])


@pytest.mark.parametrize("asked", [None, (), ("numpy>=1.26; python_version < '3.13'", "opencv-python")])
def test_a_pack_s_requirements_are_written_as_they_are(asked: tuple[str, ...] | None) -> None:
    pack = PackEntry("Pack", "https://github.com/a/pack", requirements=asked)
    text = new_manifest_text([], [pack])
    assert ("requirements" in text) == (asked is not None)
    assert parse_manifest(text, name="m.yaml").custom_nodes == (pack,)

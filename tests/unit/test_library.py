from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.comfy.recorded import load_known
from morpheus_worker.errors import Code, MorpheusError
from morpheus_worker.library import NAME, Library
from morpheus_worker.templates.bind import fill, resolve
from morpheus_worker.templates.template import check_template

SHIPPED = Path(__file__).resolve().parents[2] / "workflows"

INFO = ObjectInfo({"Save": {"input": {"required": {"text": ["STRING", {"default": "x"}]}}, "output_node": True}})


def graph(text: str = "__param:text__", class_type: str = "Save", **blocks: Any) -> dict[str, Any]:
    ours = {f"_{name}": block for name, block in blocks.items()}
    return ours | {"1": {"class_type": class_type, "inputs": {"text": text}}}


def folder(path: Path, **files: Any) -> Path:
    path.mkdir()
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (path / f"{name}.json").write_text(text, encoding="utf-8")
    return path


def text_of(library: Library, name: str) -> str:
    return str(library.get(name).graph()["1"]["inputs"]["text"])


def test_a_library_of_a_folder(tmp_path: Path) -> None:
    library = Library.load(folder(tmp_path / "w", b=graph("B"), a=graph("A", about={"aliases": ["first"]})))
    assert [template.name for template in library] == ["a", "b"]
    assert (len(library), library.problems, library.warnings) == (2, (), ())
    assert library.get("first") is library.get("a")
    assert "first" in library
    assert "c" not in library


def test_folders_that_are_not_there(tmp_path: Path) -> None:
    """Nobody need override anything; but without the shipped templates a worker can do nothing."""
    library = Library.load(tmp_path / "absent", tmp_path / "absent, too")
    assert len(library) == 0
    assert library.warnings == (f"MORPHEUS_WORKFLOWS_DIR: there is no folder {tmp_path / 'absent'}",)


def test_a_folder_that_cannot_be_listed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    library = Library.load(tmp_path / "file")
    assert library.warnings == (f"the workflow templates in {tmp_path / 'file'} cannot be listed: Not a directory",)


def test_other_files_are_no_templates(tmp_path: Path) -> None:
    shipped = folder(tmp_path / "w", a=graph())
    (shipped / "notes.txt").write_text("x")
    (shipped / "._a.json").write_bytes(b"\0\1")
    assert len(Library.load(shipped)) == 1


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a/b", "..", "", ".a", "a\\b", "a\n", "a\0", "ä", "x" * 5000])
def test_names_are_confined(tmp_path: Path, name: str) -> None:
    folder(tmp_path / "w", a=graph())
    (tmp_path / "a.json").write_text(json.dumps(graph()))
    library = Library.load(tmp_path / "w")
    with pytest.raises(MorpheusError) as raised:
        library.get(name)
    assert raised.value.code == Code.UNKNOWN_WORKFLOW
    assert len(raised.value.message) < 300


def test_an_unknown_workflow_names_the_nearest_or_all(tmp_path: Path) -> None:
    library = Library.load(folder(tmp_path / "w", upscale=graph(), smoke=graph()))
    with pytest.raises(MorpheusError, match="there is no workflow 'upscal' \\(did you mean 'upscale'\\?\\)"):
        library.get("upscal")
    with pytest.raises(MorpheusError, match="there is no workflow 'video' \\(there are: smoke, upscale\\)"):
        library.get("video")


def test_a_broken_shipped_template_leaves_the_others_alone(tmp_path: Path) -> None:
    shipped = folder(tmp_path / "w", good=graph(), bad='{"1":\n 5}', worse="{")
    library = Library.load(shipped)
    assert [template.name for template in library] == ["good"]
    assert [problem.at for problem in library.problems] == ["bad.json line 2, column 2", "worse.json line 1, column 2"]
    assert library.warnings == tuple(str(problem) for problem in library.problems)
    with pytest.raises(MorpheusError) as raised:
        library.get("bad")
    assert raised.value.code == Code.INVALID_WORKFLOW
    assert "line 2, column 2" in raised.value.message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    shipped = folder(tmp_path / "w", good=graph())
    (shipped / "binary.json").write_bytes(b'{"a": "\xff"}')
    (shipped / "folder.json").mkdir()
    (shipped / "a name.json").write_text("{}")
    library = Library.load(shipped)
    assert [str(problem) for problem in library.problems] == [
        "a name.json: 'a name' cannot be a workflow's name (use letters, digits, '.', '_' and '-')",
        "binary.json: is not UTF-8 text (byte 7) (save it as UTF-8)",
        "folder.json: cannot be read: Is a directory",
    ]


def test_a_byte_order_mark_is_no_obstacle(tmp_path: Path) -> None:
    shipped = folder(tmp_path / "w")
    (shipped / "a.json").write_text(json.dumps(graph()), encoding="utf-8-sig")
    assert len(Library.load(shipped)) == 1


def test_clashing_aliases_are_named(tmp_path: Path) -> None:
    shipped = folder(
        tmp_path / "w",
        a=graph("A", about={"aliases": ["b", "other", "a/b"]}),
        b=graph("B", about={"aliases": ["other"]}),
    )
    library = Library.load(shipped)
    assert [str(problem) for problem in library.problems] == [
        "a.json line 1, column 25: the alias 'b' is the name of another workflow, which keeps it (remove it here)",
        "a.json line 1, column 39: the alias 'a/b' cannot be a workflow's name (use letters, digits, '.', '_' and '-')",
        "b.json line 1, column 25: the alias 'other' is taken by the workflow 'a', which keeps it "
        "(remove it from one of them)",
    ]
    assert (library.aliases_of("a"), library.aliases_of("b")) == (["other"], [])
    assert (text_of(library, "b"), text_of(library, "other")) == ("B", "A")


def test_an_override_replaces_the_shipped_one(tmp_path: Path) -> None:
    shipped = folder(tmp_path / "w", a=graph("shipped", about={"aliases": ["old"]}), b=graph("shipped"))
    overrides = folder(tmp_path / "o", a=graph("mine", about={"aliases": ["new"]}), c=graph("mine"))
    library = Library.load(shipped, overrides)
    assert {name: text_of(library, name) for name in ("a", "b", "c", "old", "new")} == {
        "a": "mine",
        "b": "shipped",
        "c": "mine",
        "old": "mine",
        "new": "mine",
    }
    assert library.warnings == ()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "line 1, column 2: is not JSON"),
        ('{"nodes": [], "links": []}', "is in the editor's own format"),
        (graph(class_type="Gone"), "this ComfyUI lacks the node class 'Gone' (line 1, column 22)"),
        (graph(params={"text": {"type": "int", "default": "x"}}), "the default of 'text' must be a whole number"),
    ],
)
def test_a_broken_override_gives_way(tmp_path: Path, content: Any, said: str) -> None:
    shipped = folder(tmp_path / "w", a=graph("shipped"))
    overrides = folder(tmp_path / "o", a=content)
    library = Library.load(shipped, overrides, object_info=INFO)
    assert text_of(library, "a") == "shipped"
    (warning,) = library.warnings
    assert warning.startswith(f"the override {overrides / 'a.json'} gives way to the shipped workflow 'a': ")
    assert said in warning
    assert library.problems == ()


def test_a_broken_override_without_a_shipped_twin_is_left_out(tmp_path: Path) -> None:
    overrides = folder(tmp_path / "o", a="{")
    library = Library.load(folder(tmp_path / "w"), overrides)
    assert len(library) == 0
    assert library.warnings[0].startswith(f"the template {overrides / 'a.json'} is left out: line 1")
    with pytest.raises(MorpheusError, match="The template of the workflow 'a' cannot be used"):
        library.get("a")


def test_an_override_that_lacks_nodes_and_has_no_twin_stays(tmp_path: Path) -> None:
    """The job's own error will name the missing nodes; an unknown workflow would not."""
    library = Library.load(
        folder(tmp_path / "w"), folder(tmp_path / "o", a=graph("mine", class_type="Gone")), object_info=INFO
    )
    assert text_of(library, "a") == "mine"
    assert library.warnings == (
        f"the workflow 'a' of {tmp_path / 'o' / 'a.json'} cannot run here: "
        "this ComfyUI lacks the node class 'Gone' (line 1, column 22)",
    )


def test_an_override_mends_a_broken_shipped_template(tmp_path: Path) -> None:
    library = Library.load(folder(tmp_path / "w", a="{"), folder(tmp_path / "o", a=graph("mine")))
    assert text_of(library, "a") == "mine"


def test_an_override_under_an_alias_takes_the_alias(tmp_path: Path) -> None:
    shipped = folder(tmp_path / "w", new=graph("shipped", about={"aliases": ["old"]}))
    library = Library.load(shipped, folder(tmp_path / "o", old=graph("mine")), object_info=INFO)
    assert (text_of(library, "old"), text_of(library, "new")) == ("mine", "shipped")
    assert "takes the place of 'new' under the alias 'old'" in library.warnings[0]


def test_a_broken_override_under_an_alias_gives_way(tmp_path: Path) -> None:
    shipped = folder(tmp_path / "w", new=graph("shipped", about={"aliases": ["old"]}))
    overrides = folder(tmp_path / "o", old=graph(class_type="Gone"))
    library = Library.load(shipped, overrides, object_info=INFO)
    assert text_of(library, "old") == "shipped"
    assert "gives way to the shipped workflow 'new'" in library.warnings[0]


def test_an_alias_of_an_override_that_is_taken(tmp_path: Path) -> None:
    shipped = folder(tmp_path / "w", a=graph(about={"aliases": ["taken"]}), b=graph("B"))
    library = Library.load(shipped, folder(tmp_path / "o", b=graph("mine", about={"aliases": ["taken", "a"]})))
    assert library.aliases == {"taken": "a"}
    file = tmp_path / "o" / "b.json"
    assert library.warnings == (
        f"{file} line 1, column 25: the alias 'taken' is taken by the workflow 'a', which keeps it "
        "(remove it from one of them)",
        f"{file} line 1, column 34: the alias 'a' is the name of another workflow, which keeps it (remove it here)",
    )
    assert (library.aliases_of("a"), library.aliases_of("b")) == (["taken"], [])


def test_a_shipped_template_that_lacks_nodes_is_warned_about(tmp_path: Path) -> None:
    library = Library.load(folder(tmp_path / "w", a=graph(class_type="Gone")), object_info=INFO)
    assert len(library) == 1
    assert library.problems == ()
    assert library.warnings == (
        "the workflow 'a' cannot run here: this ComfyUI lacks the node class 'Gone' (line 1, column 22)",
    )


def test_packs_that_are_not_there_are_told_in_one_sentence(tmp_path: Path) -> None:
    """A volume of another time has few of them, and each worker that starts says so."""
    chain = [
        "PulidModelLoader",
        "ApplyPulid",
        "Gone",
        "PulidEvaClipLoader",
        "ApplyPulid",
        "PulidInsightFaceLoader",
        "FaceDetailer",
        "Gone",
    ]
    nodes: dict[str, Any] = {
        str(number): {"class_type": class_type, "inputs": {"before": [str(number - 1), 0]} if number > 1 else {}}
        for number, class_type in enumerate(chain, 1)
    }
    nodes["9"] = {"class_type": "Save", "inputs": {"text": ["8", 0]}}
    library = Library.load(folder(tmp_path / "w", face=nodes), object_info=INFO)
    at = json.dumps(nodes).index('"Gone"') + 1
    assert library.warnings == (
        "the workflow 'face' cannot run here: this ComfyUI lacks the node packs "
        "ComfyUI-PuLID (PulidModelLoader, ApplyPulid and 2 more) and ComfyUI-Impact-Pack (FaceDetailer) "
        f"and the node class 'Gone' (line 1, column {at})",
    )


def test_a_pack_that_a_workflow_can_do_without(tmp_path: Path) -> None:
    detail = {"type": "bool", "default": True, "effects": {"true": {"links": {"2.text": ["1", 0]}}}}
    nodes: dict[str, Any] = {
        "_params": {"detail": detail},
        "1": {"class_type": "FaceDetailer", "inputs": {}},
        "2": {"class_type": "Save", "inputs": {"text": "x"}},
    }
    detail["choices"] = {"true": {}, "false": {}}
    assert Library.load(folder(tmp_path / "w", face=nodes), object_info=INFO).warnings == (
        "the workflow 'face' cannot run here: this ComfyUI lacks the node pack ComfyUI-Impact-Pack (FaceDetailer) "
        "(it can when detail = false)",
    )


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (
            {"_params": {"mode": {"type": "string", "default": "karas"}}, "1": ("Pick", {"mode": "__param:mode__"})},
            "node 1 (Pick) input mode: 'karas' is not one of the choices (did you mean 'karras'?)",
        ),
        ({"1": ("Pick", {"mode": "karras", "count": "many"})}, "node 1 (Pick) input count: 'many' is no INT"),
        ({"1": ("Make", {})}, "line 1, column 1: has no outputs: none of its nodes saves or shows anything"),
        (
            {"1": ("Pick", {"mode": "karras", "text": ["2", 1]}), "2": ("Make", {})},
            "node 1 (Pick) input text: is linked to output 1 of Make, which has 1",
        ),
    ],
)
def test_an_override_whose_defaults_comfyui_refuses_gives_way(
    tmp_path: Path, document: dict[str, Any], said: str
) -> None:
    info = ObjectInfo(
        {
            **INFO.raw,
            "Pick": {
                "input": {
                    "required": {"mode": [["karras", "simple"]]},
                    "optional": {"count": ["INT", {"default": 1}], "text": ["STRING"]},
                },
                "output_node": True,
                "python_module": "nodes",
            },
            "Make": {"input": {"required": {}}, "output": ["STRING"], "python_module": "nodes"},
        }
    )
    nodes = {
        key: {"class_type": value[0], "inputs": value[1]} if isinstance(value, tuple) else value
        for key, value in document.items()
    }
    library = Library.load(
        folder(tmp_path / "w", a=graph("shipped")), folder(tmp_path / "o", a=nodes), object_info=info
    )
    assert text_of(library, "a") == "shipped"
    (warning,) = library.warnings
    assert "gives way to the shipped workflow 'a': line 1, column " in warning
    assert said in warning


def running(known: ObjectInfo, tmp_path: Path, document: Any, **deployment: Any) -> tuple[bool, str]:
    """Whether an override of the shipped workflow stays, and the one warning."""
    library = Library.load(
        folder(tmp_path / "w", a=picture("shipped")),
        folder(tmp_path / "o", a=document),
        object_info=known,
        deployment=deployment,
    )
    return library.get("a").graph()["9"]["inputs"]["filename_prefix"] != "shipped", "; ".join(library.warnings)


def picture(prefix: str = "mine", **changed: Any) -> dict[str, Any]:
    inputs = {"width": 64, "height": 64, "batch_size": 1, "color": 0}
    made = {"class_type": "EmptyImage", "inputs": inputs | changed}
    return {"1": made, "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": prefix}}}


def test_comfyui_runs_an_override_without_its_wrong_output(tmp_path: Path) -> None:
    preview = {"class_type": "PreviewImage", "inputs": {}}
    assert running(load_known(), tmp_path, {**picture(), "10": preview}) == (True, "")


@pytest.mark.parametrize(
    "kind", [{"type": "int", "default": None}, {"type": "list", "items": {"w": {"type": "int", "default": None}}}]
)
def test_null_stands_for_no_default(tmp_path: Path, kind: dict[str, Any]) -> None:
    params = {"width": kind}
    document = {"_params": params, **picture(width="__param:width__")}
    if "items" in kind:
        params["width"] = {**kind, "default": [{}], "repeat": {"2": ["image"]}}
        scale = {"upscale_method": "area", "width": "__param:width.w__", "height": 32, "crop": "disabled"}
        document["1"] = picture()["1"]
        document["2"] = {"class_type": "ImageScale", "inputs": {"image": ["1", 0], **scale}}
        document["9"]["inputs"]["images"] = ["2", 0]
    assert running(load_known(), tmp_path, document) == (True, "")


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"w": {"type": "int", "default": 64, "choices": [64, 99999]}}, "a choice of 'w' is 99999, above the largest"),
        ({"w": {"type": "int", "default": 0, "choices": [0, 64]}}, "(it can when w = 64)"),
    ],
)
def test_an_override_that_runs_with_some_value_stays(tmp_path: Path, params: Any, said: str) -> None:
    stays, warning = running(load_known(), tmp_path, {"_params": params, **picture(width="__param:w__")})
    assert stays
    assert said in warning


def test_the_fields_of_a_required_list_have_a_range_of_their_own(tmp_path: Path) -> None:
    width = {"type": "int", "min": 1, "max": 99}
    scale = {"upscale_method": "area", "width": "__param:pads.w__", "height": 32, "crop": "disabled"}
    document = {"_params": {"pads": {"type": "list", "repeat": {"2": ["image"]}, "items": {"w": width}}}, **picture()}
    document["2"] = {"class_type": "ImageScale", "inputs": {"image": ["1", 0], **scale}}
    document["9"]["inputs"]["images"] = ["2", 0]
    assert running(load_known(), tmp_path, document) == (True, "")


def optional(*class_types: str, **more: Any) -> dict[str, Any]:
    """A workflow that goes by nodes of classes which nobody has, each of which a param takes out."""
    names = [f"with_{index}" for index, _ in enumerate(class_types)]
    nodes = {
        str(index + 2): {"class_type": class_type, "inputs": {"image": [str(index + 1), 0]}}
        for index, class_type in enumerate(class_types)
    }
    document = {
        "_params": {
            name: {"type": "bool", "default": True, "effects": {"false": {"bypass": {node_id: ["image"]}}}} | more
            for name, node_id in zip(names, nodes, strict=True)
        },
        **picture(),
        **nodes,
    }
    document["9"]["inputs"]["images"] = [str(len(nodes) + 1), 0]
    return document


def test_an_override_that_can_do_without_a_pack_stays(tmp_path: Path) -> None:
    stays, warning = running(load_known(), tmp_path, optional("Gone"))
    assert stays
    assert "lacks the node class 'Gone'" in warning
    assert warning.endswith("(it can when with_0 = false)")


def test_an_override_that_can_do_without_two_packs_stays(tmp_path: Path) -> None:
    stays, warning = running(load_known(), tmp_path, optional("Gone", "Away"))
    assert stays
    assert warning.endswith("(it can when with_0 = false and with_1 = false)")


def test_a_deployment_may_do_without_a_pack(tmp_path: Path) -> None:
    document = optional("Gone", default_env="ENABLE_FACE_REFINEMENT")
    assert running(load_known(), tmp_path, document, ENABLE_FACE_REFINEMENT=False) == (True, "")


def test_an_override_that_lacks_what_the_shipped_workflow_lacks_stays(tmp_path: Path) -> None:
    """And the shipped file, which nobody uses, is not told of."""
    shipped = folder(tmp_path / "w", a=graph("shipped", class_type="Gone"))
    overrides = folder(tmp_path / "o", a=graph("mine", class_type="Gone"))
    library = Library.load(shipped, overrides, object_info=INFO)
    assert text_of(library, "a") == "mine"
    assert library.warnings == (
        f"the workflow 'a' of {overrides / 'a.json'} cannot run here: "
        "this ComfyUI lacks the node class 'Gone' (line 1, column 22)",
    )
    (overrides / "a.json").write_text(json.dumps(graph("mine", class_type="Away")))
    again = Library.load(shipped, overrides, object_info=INFO)
    assert text_of(again, "a") == "shipped"
    assert len(again.warnings) == 2


def test_models_and_files_that_are_not_there_keep_no_override_out(tmp_path: Path) -> None:
    """They may come later, and a job says so better."""

    def node(class_type: str, **inputs: Any) -> dict[str, Any]:
        return {"class_type": class_type, "inputs": inputs}

    nodes: dict[str, Any] = {
        "_params": {"ckpt": {"type": "string"}, "image": {"type": "image"}, "size": {"type": "string"}},
        "1": node("CheckpointLoaderSimple", ckpt_name="absent.safetensors"),
        "2": node("CheckpointLoaderSimple", ckpt_name="__param:ckpt__"),
        "3": node("DiffusersLoader", model_path="absent"),
        "4": node("LoadWeights", file="absent.safetensors"),
        "5": node("LoadImage", image="__param:image__"),
        "6": node("LoadImage", image="absent.png"),
        "7": node(
            "Take", a=["1", 0], b=["2", 0], c=["3", 0], d=["4", 0], e=["5", 0], f=["6", 0], size="__param:size__"
        ),
    }
    nodes["7"]["inputs"]["style"] = "one that the pack may know"
    shipped = folder(tmp_path / "w", a={"1": {"class_type": "PreviewAny", "inputs": {"source": "x"}}})
    raw = {
        name: load_known().raw[name]
        for name in ("CheckpointLoaderSimple", "DiffusersLoader", "LoadImage", "PreviewAny")
    }
    own = {"python_module": "nodes", "output": ["MODEL"]}
    raw["LoadWeights"] = own | {"input": {"required": {"file": [["there.safetensors"]]}}}
    taken = {name: ["*"] for name in "abcdef"} | {"size": ["INT"], "style": [["plain"]]}
    raw["Take"] = {"python_module": "custom_nodes.pack", "input": {"required": taken}, "output_node": True}
    for name, wanted in (("CheckpointLoaderSimple", "ckpt_name"), ("DiffusersLoader", "model_path")):
        raw[name] = {**raw[name], "input": {"required": {wanted: [["there"]]}}}
    library = Library.load(shipped, folder(tmp_path / "o", a=nodes), object_info=ObjectInfo(raw))
    assert (list(library.get("a").graph()), library.warnings) == (list("1234567"), ())


def test_an_option_that_is_not_there_keeps_no_workflow_from_running(tmp_path: Path) -> None:
    """Only what the defaults need is told."""
    detail = {"type": "bool", "default": False, "effects": {"true": {"links": {"2.text": ["1", 0]}}}}
    nodes: dict[str, Any] = {
        "_params": {"detail": detail},
        "1": {"class_type": "FaceDetailer", "inputs": {}},
        "2": {"class_type": "Save", "inputs": {"text": "x"}},
    }
    assert Library.load(folder(tmp_path / "w", face=nodes), object_info=INFO).warnings == ()


def test_templates_are_completed_by_the_object_info(tmp_path: Path) -> None:
    library = Library.load(folder(tmp_path / "w", a=graph()), object_info=INFO)
    assert library.get("a").params["text"].default == "x"


# The workflows that ship


@pytest.fixture(scope="module")
def shipped() -> Library:
    return Library.load(SHIPPED, object_info=load_known())


def test_every_shipped_workflow_is_in_order(shipped: Library) -> None:
    assert (shipped.problems, shipped.warnings, dict(shipped.broken)) == ((), (), {})
    assert {"smoke", "sdxl_txt2img", "upscale"} <= {template.name for template in shipped}
    for template in shipped:
        assert check_template(template, load_known()) == []
        assert NAME.match(template.name)


def test_every_shipped_param_is_described(shipped: Library) -> None:
    for template in shipped:
        assert template.about.title
        assert template.about.description
        assert template.about.timeout_s
        assert [key for key, param in template.params.items() if not param.description] == []


def test_a_job_of_an_existing_client(shipped: Library) -> None:
    """The flat keys that clients in production send."""
    params = {
        "prompt": "a lighthouse",
        "negative_prompt": "blurry",
        "seed": 7,
        "steps": 25,
        "cfg_scale": 6.5,
        "sampler_name": "euler",
        "scheduler": "normal",
        "checkpoint_name": "other.safetensors",
        "width": 832,
        "height": 1216,
    }
    bound = fill(resolve(shipped.get("creation"), params, strict_keys=()))
    assert bound.warnings == ()
    assert bound.params == {
        **{key: value for key, value in params.items() if key != "cfg_scale"},
        "aspect": "1:1",
        "cfg": 6.5,
        "batch_size": 1,
        "vae_name": None,
        "loras": [],
    }
    inputs = {name: value for node in bound.graph.values() for name, value in node["inputs"].items()}
    assert inputs | {"text": None} == {
        "ckpt_name": "other.safetensors",
        "clip": ["1", 1],
        "text": None,
        "width": 832,
        "height": 1216,
        "batch_size": 1,
        "model": ["1", 0],
        "positive": ["2", 0],
        "negative": ["3", 0],
        "latent_image": ["4", 0],
        "seed": 7,
        "steps": 25,
        "cfg": 6.5,
        "sampler_name": "euler",
        "scheduler": "normal",
        "denoise": 1.0,
        "samples": ["5", 0],
        "vae": ["1", 2],
        "images": ["6", 0],
        "filename_prefix": "sdxl_txt2img",
    }
    assert [bound.graph[node_id]["inputs"]["text"] for node_id in ("2", "3")] == ["a lighthouse", "blurry"]


def test_aspects(shipped: Library) -> None:
    template = shipped.get("sdxl_txt2img")
    wide = fill(resolve(template, {"prompt": "x", "aspect": "16:9"})).params
    assert (wide["width"], wide["height"]) == (1344, 768)
    plain = fill(resolve(template, {"prompt": "x"})).params
    assert (plain["width"], plain["height"]) == (1024, 1024)
    for choice in template.params["aspect"].choices:
        assert choice.sets["width"] % 64 == choice.sets["height"] % 64 == 0
        across, down = (int(part) for part in choice.value.split(":"))
        assert abs(choice.sets["width"] / choice.sets["height"] / (across / down) - 1) < 0.05


def test_smoke_needs_no_params_and_upscale_a_picture(shipped: Library) -> None:
    assert fill(resolve(shipped.get("smoke"), {})).graph["1"]["inputs"]["width"] == 64
    (medium,) = resolve(shipped.get("upscale"), {"image": "job_outputs/1/a.png"}).media
    assert (medium.key, medium.kind, medium.as_path) == ("image", "image", False)

"""A graph that ComfyUI exported becomes a template: which params it gets, what they are called, what is refused."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from morpheus_worker.comfy.recorded import load_known, pack_of
from morpheus_worker.importing.asked import asked
from morpheus_worker.importing.export import Export, read_export
from morpheus_worker.importing.naming import Names, media_key, tag
from morpheus_worker.importing.remarks import packs_of, remarks
from morpheus_worker.importing.usual import usual
from morpheus_worker.importing.writing import template_text, title_of
from morpheus_worker.templates.places import MISSING
from morpheus_worker.templates.reading import TemplateError
from morpheus_worker.templates.template import check_template, parse_template
from tests.exports import BASE_REFINER, CONTROLNET, EXPORTS, FACE, FLUX, INPAINT, TXT2IMG, Graph, node


def exported(graph: Any) -> Export:
    return read_export(json.dumps(graph).encode(), name="t", info=load_known())


def proposed(graph: Graph) -> dict[str, list[str]]:
    return {param.key: [str(spot) for spot in param.spots] for param in usual(exported(graph))}


def defaults(graph: Graph) -> dict[str, Any]:
    return {param.key: param.default for param in usual(exported(graph))}


def changed(graph: Graph, **inputs: Any) -> Graph:
    """A copy with other inputs: `n6_text="x"` is input text of node 6; None takes an input out."""
    copied = copy.deepcopy(graph)
    for place, value in inputs.items():
        node_id, _, name = place.removeprefix("n").partition("_")
        copied[node_id]["inputs"][name] = value
        if value is None:
            del copied[node_id]["inputs"][name]
    return copied


# What is proposed.


def test_text_to_image_gets_the_usual_params() -> None:
    assert proposed(TXT2IMG) == {
        "prompt": ["6.text"],
        "negative_prompt": ["7.text"],
        "width": ["5.width"],
        "height": ["5.height"],
        "seed": ["3.seed"],
        "steps": ["3.steps"],
        "cfg": ["3.cfg"],
        "sampler_name": ["3.sampler_name"],
        "scheduler": ["3.scheduler"],
        "batch_size": ["5.batch_size"],
        "checkpoint_name": ["4.ckpt_name"],
    }
    assert defaults(TXT2IMG)["prompt"] == 'a glass bottle,\n"purple" galaxy'
    assert defaults(TXT2IMG)["seed"] is MISSING
    types = {param.key: param.type for param in usual(exported(TXT2IMG))}
    assert (types["seed"], types["cfg"], types["steps"], types["sampler_name"]) == ("seed", "float", "int", "string")


def test_which_text_is_negative_is_told_by_the_links() -> None:
    swapped = changed(TXT2IMG, n3_positive=["7", 0], n3_negative=["6", 0])
    assert (proposed(swapped)["prompt"], proposed(swapped)["negative_prompt"]) == (["7.text"], ["6.text"])


def test_base_and_refiner_share_what_belongs_to_both_and_are_told_apart_by_their_titles() -> None:
    found = proposed(BASE_REFINER)
    assert found["prompt"] == ["6.text", "15.text"]
    assert found["negative_prompt"] == ["7.text", "16.text"]
    assert found["steps"] == ["10.steps", "11.steps"]
    assert found["switch_at_step"] == ["10.end_at_step", "11.start_at_step"]
    assert (found["cfg"], found["refiner_cfg"]) == (["10.cfg"], ["11.cfg"])
    assert (found["checkpoint_name"], found["refiner_checkpoint_name"]) == (["4.ckpt_name"], ["12.ckpt_name"])
    assert found["seed"] == ["10.noise_seed"]
    assert "refiner_seed" not in found, "a sampler that adds no noise has a seed that changes nothing"


def test_a_refiner_without_a_title_is_told_by_its_checkpoint() -> None:
    plain = copy.deepcopy(BASE_REFINER)
    for one in plain.values():
        one["_meta"]["title"] = one["class_type"]
    assert {"refiner_cfg", "refiner_checkpoint_name"} <= proposed(plain).keys()
    unnamed = changed(plain, n12_ckpt_name="other.safetensors")
    assert {"cfg_2", "checkpoint_name_2"} <= proposed(unnamed).keys()


def test_texts_that_differ_are_params_of_their_own() -> None:
    other = changed(BASE_REFINER, n15_text="a night sky", n11_negative=["7", 0])
    found = proposed(other)
    assert (found["prompt"], found["refiner_prompt"]) == (["6.text"], ["15.text"])
    assert found["negative_prompt"] == ["7.text"], "two samplers may read from one node"


def test_texts_are_found_behind_conditioning_nodes_and_texts_that_are_linked() -> None:
    found = proposed(CONTROLNET)
    assert (found["prompt"], found["negative_prompt"]) == (["31.value"], ["7.text"])
    assert found["pose_photo"] == ["12.image"]
    assert found["lora_strength"] == ["10.strength_model", "10.strength_clip"]
    assert (found["controlnet_name"], found["controlnet_strength"]) == (["11.control_net_name"], ["20.strength"])
    assert (found["vae_name"], found["lora_name"]) == (["13.vae_name"], ["10.lora_name"])


@pytest.mark.parametrize(
    "between",
    [
        node("ConditioningCombine", conditioning_1=["6", 0], conditioning_2=["6", 0]),
        node("ConditioningConcat", conditioning_to=["6", 0], conditioning_from=["6", 0]),
        node("ReferenceLatent", conditioning=["6", 0], latent=["5", 0]),
        node("FluxGuidance", conditioning=["6", 0], guidance=3.5),
        node("ControlNetApply", conditioning=["6", 0], control_net=["4", 0], image=["8", 0], strength=1),
        node("Reroute", anything=["6", 0]),
        node("SomebodysConditioner", cond=["6", 0], amount=3),
    ],
    ids=lambda one: str(one["class_type"]),
)
def test_a_prompt_is_found_behind(between: dict[str, Any]) -> None:
    graph = {**changed(TXT2IMG, n3_positive=["50", 0]), "50": between}
    assert (proposed(graph)["prompt"], proposed(graph)["negative_prompt"]) == (["6.text"], ["7.text"])


def test_one_text_for_both_sides_is_the_prompt() -> None:
    zeroed = {
        **changed(TXT2IMG, n3_negative=["50", 0]),
        "50": node("ConditioningZeroOut", conditioning=["6", 0]),
    }
    for graph in (zeroed, changed(TXT2IMG, n3_negative=["6", 0])):
        assert proposed(graph)["prompt"] == ["6.text"]
        assert "negative_prompt" not in proposed(graph)


def test_a_guider_and_its_helpers_are_a_sampler() -> None:
    found = proposed(FLUX)
    assert (found["prompt"], found["prompt_l"]) == (["6.t5xxl"], ["6.clip_l"])
    assert (found["seed"], found["steps"], found["sampler_name"]) == (["41.value"], ["17.steps"], ["16.sampler_name"])
    assert found["size"] == ["40.value"], "one number for both sides"
    assert (found["guidance"], found["unet_name"]) == (["6.guidance"], ["12.unet_name"])
    assert "negative_prompt" not in found
    guided = {**FLUX, "22": node("CFGGuider", model=["12", 0], positive=["6", 0], negative=["50", 0], cfg=4)}
    guided["50"] = node("CLIPTextEncode", text="blurry", clip=["11", 0])
    assert (proposed(guided)["negative_prompt"], proposed(guided)["cfg"]) == (["50.text"], ["22.cfg"])


def test_a_second_sampler_of_another_kind_is_called_after_its_class() -> None:
    found = proposed(FACE)
    assert (found["seed"], found["face_detailer_seed"]) == (["3.seed"], ["20.seed"])
    assert found["face_detailer_denoise"] == ["20.denoise"]
    assert found["prompt"] == ["6.text"]


def test_denoise_is_a_param_where_there_is_something_to_keep() -> None:
    assert "denoise" not in proposed(TXT2IMG)
    assert proposed(changed(TXT2IMG, n3_denoise=0.9))["denoise"] == ["3.denoise"]
    assert proposed(INPAINT)["denoise"] == ["3.denoise"]


def test_pictures_are_called_after_their_titles_and_numbered_without() -> None:
    assert (proposed(INPAINT)["image"], proposed(INPAINT)["mask"]) == (["20.image"], ["21.image"])
    assert "width" not in proposed(INPAINT)
    again = changed(INPAINT, n21_image="room.png")
    assert proposed(again)["image"] == ["20.image", "21.image"], "the same file is the same picture"
    titled = copy.deepcopy(INPAINT)
    titled["20"]["_meta"]["title"] = "Face photo"
    assert proposed(titled)["face_photo"] == ["20.image"]
    several = {**INPAINT, "26": node("ImageBatch", image1=["20", 0], image2=["30", 0])}
    several["30"] = node("LoadImage", "Load Image", image="garden.png")
    several["9"] = node("SaveImage", images=["26", 0], filename_prefix="x")
    assert (proposed(several)["image"], proposed(several)["image_2"]) == (["20.image"], ["30.image"])


def test_a_graph_without_a_sampler_gets_its_texts_pictures_and_models() -> None:
    graph = {
        "1": node("LoadImage", "Load Image", image="a.png"),
        "2": node("UpscaleModelLoader", model_name="x4.pth"),
        "3": node("ImageUpscaleWithModel", upscale_model=["2", 0], image=["1", 0]),
        "4": node("SaveImage", images=["3", 0], filename_prefix="x"),
    }
    assert proposed(graph) == {"image": ["1.image"], "upscale_model": ["2.model_name"]}
    video = {
        "1": node("LoadVideo", file="clip.mp4"),
        "2": node("SaveVideo", video=["1", 0], filename_prefix="x", format="auto", codec="auto"),
    }
    assert [(param.key, param.type) for param in usual(exported(video))] == [("video", "video")]


def test_nodes_of_which_nothing_comes_get_no_params() -> None:
    idle = {**TXT2IMG, "50": node("LoadImage", "Load Image", image="unused.png")}
    assert proposed(idle) == proposed(TXT2IMG)


def test_classes_that_nobody_knows_are_read_by_the_names_of_their_inputs() -> None:
    graph = {
        "1": node("PackSampler", seed=5, steps=9, cfg=4, positive=["2", 0], negative=["3", 0], latent=["4", 0]),
        "2": node("PackEncoder", text="a house", weight=1),
        "3": node("PackEncoder", text="no people", weight=1),
        "4": node("PackCanvas", width=512, height=640),
        "5": node("PackSaver", images=["1", 0]),
        "6": node("PackLoadPicture", picture="photo.JPG"),
    }
    graph["1"]["inputs"]["reference"] = ["6", 0]
    found = proposed(graph)
    assert (found["prompt"], found["negative_prompt"]) == (["2.text"], ["3.text"])
    assert (found["seed"], found["width"], found["image"]) == (["1.seed"], ["4.width"], ["6.picture"])
    assert {param.key: param.type for param in usual(exported(graph))}["cfg"] == "float", "4 may be 4.5"


VHS = {
    "1": node("VHS_LoadVideo", video="dance.mp4", force_rate=0, frame_load_cap=16),
    "2": node("VHS_LoadImages", directory="frames", image_load_cap=0),
    "3": node("SaveImage", images=["1", 0], filename_prefix="x"),
    "4": node("SaveImage", images=["2", 0], filename_prefix="y"),
}


def test_a_packs_loader_of_the_input_folder_gets_a_medium() -> None:
    params = {param.key: param for param in usual(exported(VHS))}
    assert {key: (param.type, str(*param.spots)) for key, param in params.items()} == {
        "video": ("video", "1.video"),
        "dir": ("dir", "2.directory"),
    }
    assert all(param.default is MISSING for param in params.values())


def test_a_size_that_is_told_twice_is_one() -> None:
    schedule = node("ModelSamplingFlux", model=["12", 0], max_shift=1.15, base_shift=0.5, width=1152, height=896)
    graph = changed({**FLUX, "61": schedule}, n22_model=["61", 0], n5_width=1152, n5_height=896)
    found = proposed(graph)
    assert (found["width"], found["height"]) == (["5.width", "61.width"], ["5.height", "61.height"])
    assert proposed(changed(graph, n5_width=1024))["width"] == ["5.width"], "another size is another thing"


def test_what_belongs_to_a_lora_is_numbered_as_it_is() -> None:
    def lora(name: str, model: str, strength: float, clip: float) -> dict[str, Any]:
        links = {"model": [model, 0], "clip": [model, 1]}
        return node("LoraLoader", lora_name=name, strength_model=strength, strength_clip=clip, **links)

    graph = {**TXT2IMG, "20": lora("a.safetensors", "4", 1.0, 1.0), "21": lora("b.safetensors", "20", 0.8, 0.5)}
    graph = changed(graph, n3_model=["21", 0], n6_clip=["21", 1], n7_clip=["21", 1])
    loras = {key: spots for key, spots in proposed(graph).items() if "lora" in key}
    assert loras == {
        "lora_name": ["20.lora_name"],
        "lora_name_2": ["21.lora_name"],
        "lora_strength": ["20.strength_model", "20.strength_clip"],
        "lora_strength_2": ["21.strength_model"],
        "lora_clip_strength_2": ["21.strength_clip"],
    }


def test_a_model_of_a_windows_machine_is_called_as_everywhere_else() -> None:
    assert (
        defaults(changed(TXT2IMG, n4_ckpt_name="SDXL\\base.safetensors"))["checkpoint_name"] == "SDXL/base.safetensors"
    )
    assert defaults(changed(TXT2IMG, n6_text="a\\b"))["prompt"] == "a\\b"


def test_links_in_a_circle_end() -> None:
    graph = {
        "1": node("KSampler", seed=1, positive=["2", 0], negative=["2", 1], latent_image=["1", 0]),
        "2": node("ControlNetApplyAdvanced", positive=["3", 0], negative=["2", 1], strength=1),
        "3": node("ConditioningCombine", conditioning_1=["2", 0], conditioning_2=["4", 0]),
        "4": node("CLIPTextEncode", text=["5", 0]),
        "5": node("StringConcatenate", string_a=["5", 0], string_b="found"),
        "6": node("SaveLatent", samples=["1", 0], filename_prefix="x"),
    }
    assert proposed(graph)["prompt"] == ["5.string_b"]


def test_long_chains_are_followed_without_harm() -> None:
    graph = {
        **changed(TXT2IMG, n3_positive=["c3000", 0]),
        "c0": node("FluxGuidance", conditioning=["6", 0], guidance=1),
    }
    graph |= {f"c{at}": node("ReferenceLatent", conditioning=[f"c{at - 1}", 0]) for at in range(1, 3001)}
    assert proposed(graph)["prompt"] == ["6.text"]
    texts = {f"t{at}": node("StringConcatenate", string_a=[f"t{at + 1}", 0], string_b="x") for at in range(3000)}
    texts["t3000"] = node("PrimitiveString", value="far")
    assert "negative_prompt" in proposed({**changed(TXT2IMG, n6_text=["t0", 0]), **texts})


def test_a_range_that_the_graph_itself_exceeds_is_left_out() -> None:
    limits = {param.key: (param.minimum, param.maximum) for param in usual(exported(changed(TXT2IMG, n3_steps=400)))}
    assert (limits["steps"], limits["cfg"], limits["batch_size"]) == ((None, None), (0, 30), (1, 16))


# Names.


@pytest.mark.parametrize(
    ("title", "class_type", "said"),
    [
        ("KSampler (Advanced) - REFINER", "KSamplerAdvanced", "refiner"),
        ("KSampler", "KSampler", ""),
        ("CLIP Text Encode (Positive Prompt)", "CLIPTextEncode", ""),
        ("Hires fix", "KSampler", "hires_fix"),
        ("FaceDetailer", "FaceDetailer", ""),
        ("Façade of the house, seen from afar", "CLIPTextEncode", "facade_house_seen"),
        ("人脸", "KSampler", ""),
        ("", "KSampler", ""),
    ],
)
def test_a_title_tells_what_is_beyond_its_class(title: str, class_type: str, said: str) -> None:
    assert tag(title, class_type) == said


@pytest.mark.parametrize(
    ("title", "key"),
    [
        ("Face photo", "face_photo"),
        ("Load Image", "image"),
        ("Load Image (pose)", "pose_image"),
        ("Face", "face_image"),
        ("Upload your image here", "image"),
        ("人脸", "image"),
    ],
)
def test_a_picture_is_called_after_its_title(title: str, key: str) -> None:
    assert media_key(title, "LoadImage", "image") == key


def test_no_key_is_given_twice() -> None:
    names = Names()
    assert [names.take("cfg", "refiner_cfg") for _ in range(4)] == [
        "cfg",
        "refiner_cfg",
        "refiner_cfg_2",
        "refiner_cfg_3",
    ]


# Params that are named.


def test_named_params_have_the_exports_values_but_for_media_and_seeds() -> None:
    given = ["text=31.value", "ref=12.image", "seed=3.seed", "noise=3.seed", "start=20.start_percent", "side=5.width"]
    params, problems = asked(exported(CONTROLNET), [one for one in given if not one.startswith("noise")])
    assert problems == []
    assert [(param.key, param.type, param.default) for param in params] == [
        ("text", "string", "a dancer"),
        ("ref", "image", MISSING),
        ("seed", "seed", MISSING),
        ("start", "float", 0),
        ("side", "int", 512),
    ]
    assert params[3].description == "start percent of Apply ControlNet"


def test_a_key_that_is_named_twice_fills_both() -> None:
    params, problems = asked(exported(BASE_REFINER), ["steps=10.steps", "steps=11.steps"])
    assert problems == []
    assert [str(spot) for spot in params[0].spots] == ["10.steps", "11.steps"]
    export = exported(changed(BASE_REFINER, n11_steps=30))
    params, _ = asked(export, ["steps=10.steps", "steps=11.steps"])
    assert "param steps: also fills 11.steps, which was 30 and now is 25 by default" in map(
        str, remarks(export, params, pack_of)
    )


@pytest.mark.parametrize(
    ("given", "what", "hint"),
    [
        ("prompt", "is not of the form KEY=NODE.INPUT", None),
        ("prompt=", "is not of the form KEY=NODE.INPUT", None),
        ("=6.text", "is not of the form KEY=NODE.INPUT", None),
        ("prompt=6", "'6' names no input of a node", "KEY=NODE.INPUT"),
        ("prompt=6.txt", "node 6 (CLIPTextEncode) has no input 'txt'", "did you mean 'text'?"),
        ("prompt=99.text", "there is no node '99'", "nodes with a value for text: 6 (CLIPTextEncode)"),
        ("prompt=99.nothing", "there is no node '99'", None),
        ("p=3.positive", "input positive of node 3 (KSampler) is linked to node 6", "such as p=6.text"),
        ("p=9.images", "input images of node 9 (SaveImage) is linked to node 8", "a param fills a value"),
        ("my key=6.text", "'my key' cannot be a param's key", "letters"),
        ("a__b=6.text", "'a__b' cannot be a param's key", "single '_'"),
        ("job_id=6.text", "the param 'job_id' belongs to the worker", "choose another key"),
    ],
)
def test_a_param_that_cannot_be_is_refused(given: str, what: str, hint: str | None) -> None:
    params, (problem,) = asked(exported(TXT2IMG), [given])
    assert params == []
    assert problem.at == f"--param {given}"
    assert problem.what.startswith(what)
    assert hint is None or hint in (problem.hint or "")


def test_all_that_cannot_be_is_told_at_once_and_one_input_has_one_param() -> None:
    params, problems = asked(exported(TXT2IMG), ["a=6.text", "b=6.text", "c=1.x", "d=3.sead"])
    assert [param.key for param in params] == ["a"]
    assert [problem.what for problem in problems] == [
        "6.text is taken by the param 'a'",
        "there is no node '1'",
        "node 3 (KSampler) has no input 'sead'",
    ]


def test_ids_and_names_may_have_dots() -> None:
    graph = {"a.b": node("Any", **{"resize.width": 5, "x": 1}), "2": node("Out", image=["a.b", 0])}
    params, problems = asked(exported(graph), ["w=a.b.resize.width"])
    assert problems == []
    assert (params[0].spots[0].node_id, params[0].spots[0].input) == ("a.b", "resize.width")


# What is no export.


@pytest.mark.parametrize(
    ("content", "what", "hint"),
    [
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "is a PNG picture, no graph", "drop it on ComfyUI's window"),
        (b"{", "is not JSON", None),
        (b"", "the file is empty", None),
        (b"[]", "must be one JSON object", None),
        (b'"\xff"', "is not UTF-8 text (byte 1)", "save it as UTF-8"),
        (b'{"nodes": [], "links": []}', "in the editor's own format", "Export (API)"),
        (b'{"last_node_id": 9}', "node last_node_id is not an object", None),
        (json.dumps({"prompt": TXT2IMG, "client_id": "x"}).encode(), "is a whole request to ComfyUI", "under its key"),
        (json.dumps({"input": {"workflow": TXT2IMG}}).encode(), "is a whole job", "under its key 'workflow'"),
        (json.dumps({"prompt": [1, "id", TXT2IMG, {}, []]}).encode(), "is an entry of ComfyUI's history", "third item"),
        (json.dumps({"id": {"prompt": [1, "id", TXT2IMG], "outputs": {}}}).encode(), "history", "third item"),
        (json.dumps({**TXT2IMG, "_about": {}}).encode(), "is a template already", "workflows folder"),
        (json.dumps(changed(TXT2IMG, n3_seed="__param:seed__")).encode(), "is a template already", "workflows folder"),
        (b'{"1": {"class_type": "A", "inputs": {"x": __param:x__}}}', "is a template already", "workflows folder"),
        (json.dumps(changed(TXT2IMG, n3_model=["99", 0])).encode(), "linked to node 99, which is not there", None),
    ],
)
def test_what_is_no_export_is_named(content: bytes, what: str, hint: str | None) -> None:
    with pytest.raises(TemplateError) as refused:
        read_export(content, name="t", info=load_known())
    problem = refused.value.problems[0]
    assert what in problem.what
    assert hint is None or hint in (problem.hint or "")


def test_what_comfyui_notes_in_a_node_that_ran_is_left_out() -> None:
    graph = copy.deepcopy(TXT2IMG)
    graph["3"]["is_changed"] = ["abc"]
    assert "is_changed" not in template_text("t", exported(graph), [])


# The file.


def test_the_file_reads_as_the_shipped_ones_do() -> None:
    export = exported(TXT2IMG)
    text = template_text("sdxl_txt2img", export, usual(export))
    assert text.startswith('{\n  "_about": {\n    "title": "SDXL text to image",\n    "description": "Draws pictures')
    lines = text.splitlines()
    assert '      "model": ["4", 0],' in lines
    assert '    "_meta": { "title": "Load Checkpoint" }' in lines
    assert '      "seed": "__param:seed__",' in lines
    assert lines.index('    "class_type": "KSampler",') < lines.index('      "seed": "__param:seed__",')
    assert (lines[-1], text[-1]) == ("}", "\n")


@pytest.mark.parametrize("name", EXPORTS)
def test_every_export_becomes_a_template_that_passes_the_check(name: str) -> None:
    export = exported(EXPORTS[name])
    text = template_text(name, export, usual(export), packs_of(export, pack_of))
    template = parse_template(text, name=name, object_info=load_known())
    unknown = ["BrightnessOfStrangers"]
    found = [str(problem) for problem in check_template(template, load_known())]
    assert [one for one in found if not any(class_type in one for class_type in unknown)] == []
    assert template.params.keys() == proposed(EXPORTS[name]).keys()


def test_lists_and_odd_texts_are_written_as_they_are() -> None:
    inputs = {"values": {"__value__": ["a", 2]}, "deep": [["a", [1]], {"b": []}], "half": "\ud83d", "cloud": "雲"}
    export = exported({"1": node("Any", **inputs)})
    params, problems = asked(export, ["values=1.values"])
    assert problems == []
    text = template_text("t", export, params)
    assert text.encode()
    assert json.loads(text)["1"]["inputs"] == inputs | {"values": {"__value__": "__param:values__"}}
    assert json.loads(text)["_params"]["values"] == {
        "type": "list",
        "default": ["a", 2],
        "description": "values of Any",
    }


@pytest.mark.parametrize(
    ("name", "title"),
    [("sdxl_txt2img", "SDXL text to image"), ("my-pulid.v2", "My PuLID.v2"), ("upscale", "Upscale"), ("x", "X")],
)
def test_a_title_is_made_of_the_name(name: str, title: str) -> None:
    assert title_of(name).replace("pulid.v2", "PuLID.v2") == title


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        (TXT2IMG, "Draws pictures from a text."),
        (CONTROLNET, "Draws pictures from a text and a picture, with LoRAs, a ControlNet."),
        (INPAINT, "Repaints the masked part of a picture, from a text and a picture."),
        (FACE, "Draws pictures from a text, with 2 samplers, faces redrawn."),
    ],
)
def test_the_description_says_what_the_nodes_do(graph: Graph, said: str) -> None:
    described = json.loads(template_text("t", exported(graph), []))["_about"]["description"]
    assert described.startswith(f"{said} Its nodes: ")


# What is left to look at.


def test_what_an_author_should_look_at_is_told() -> None:
    graph = changed(INPAINT, n4_ckpt_name="C:\\models\\my.safetensors", n9_filename_prefix="/home/me/out")
    graph["50"] = node("KSampler", seed=1, model=["4", 0])
    graph["51"] = node("NobodysNode", image=["8", 0])
    export = exported(graph)
    params, problems = asked(export, ["checkpoint=4.ckpt_name", "idle=50.seed"])
    assert problems == []
    told = [str(problem) for problem in remarks(export, params, pack_of)]
    assert told == [
        "node 4 (CheckpointLoaderSimple) input ckpt_name: has 'C:\\models\\my.safetensors', now the default of "
        "'checkpoint': a path of the machine that the graph comes from",
        "node 9 (SaveImage) input filename_prefix: has '/home/me/out': a path of the machine that the graph comes from",
        "node 20 (LoadImage) input image: loads 'room.png', a file of the machine that the graph comes from "
        "(make it a param, --param image=20.image)",
        "node 21 (LoadImageMask) input image: loads 'hole.png', a file of the machine that the graph comes from "
        "(make it a param, --param image=21.image)",
        "node 51: is of the class 'NobodysNode', which is not known here, so its inputs are not checked (name its node "
        "pack in _about, under 'packs')",
        "param idle: changes nothing: node 50 leads to no output",
    ]


def test_a_preview_beside_what_is_saved_is_told() -> None:
    preview = {**TXT2IMG, "30": node("PreviewImage", images=["8", 0])}
    (said,) = remarks(exported(preview), usual(exported(preview)), pack_of)
    assert (said.at, said.hint) == ("node 30 (PreviewImage)", "remove it, unless that is meant")
    alone = {key: each for key, each in preview.items() if each["class_type"] != "SaveImage"}
    assert list(remarks(exported(alone), usual(exported(alone)), pack_of)) == []


def test_packs_are_named_and_a_graph_without_params_is_told() -> None:
    export = exported(FACE)
    assert packs_of(export, pack_of) == ["ComfyUI-Impact-Pack", "ComfyUI-Impact-Subpack"]
    assert str(next(remarks(export, [], pack_of))).startswith("no params: nothing usual was found")

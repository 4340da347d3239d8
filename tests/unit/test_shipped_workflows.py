"""Every template that ships, against the recorded nodes, the manifest, and what existing clients send."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

from morpheus_worker.comfy.graphs import is_link
from morpheus_worker.comfy.judging import judge
from morpheus_worker.comfy.recorded import INPUT_FOLDER, folder_of, load_known, pack_of, recorded_packs
from morpheus_worker.jobs import parse_request
from morpheus_worker.library import Library
from morpheus_worker.manifest import Manifest, ModelEntry, parse_manifest
from morpheus_worker.templates.bind import Bound, Resolved, fill, resolve
from morpheus_worker.templates.params import MEDIA_TYPES, Param
from morpheus_worker.templates.places import MISSING
from morpheus_worker.templates.template import Template, check_template

ROOT: Final = Path(__file__).resolve().parents[2]
NAMES: Final = (
    "identity_create", "liveportrait_animate", "sd15_controlnet", "sdxl_base_refiner", "sdxl_face_detail",
    "sdxl_faceid", "sdxl_identity", "sdxl_img2img", "sdxl_inpaint", "sdxl_instantid", "sdxl_pulid", "sdxl_txt2img",
    "sdxl_txt2img_pag", "smoke", "upscale",
)  # fmt: skip

ALIASES: Final = {
    "creation": "sdxl_txt2img",
    "generate_dataset_from_scratch": "sdxl_txt2img",
    "generate_dataset_from_reference": "sdxl_img2img",
    "generate_dataset_with_pulid": "sdxl_pulid",
    "generate_dataset_with_instantid": "sdxl_instantid",
    "image_identity_transfer": "sdxl_identity",
    "create_pid": "identity_create",
}

KEYS: Final[Mapping[str, Any]] = {
    "prompt": "a portrait, soft light",
    "negative_prompt": "blurry",
    "seed": 42,
    "steps": 25,
    "cfg_scale": 7,
    "sampler_name": "euler",
    "scheduler": "normal",
    "checkpoint_name": "talmendoxl_v11_beta.safetensors",
}
SIZE: Final[Mapping[str, Any]] = {"width": 1024, "height": 1024}
FACE: Final = "/workspace/job_outputs/abc/face.png"
PULID: Final[Mapping[str, Any]] = {"method": "fidelity", "weight": 1.0, "start_at": 0.0, "end_at": 1.0}

PAYLOADS: Final[tuple[Mapping[str, Any], ...]] = (
    {"workflow_name": "creation", **KEYS, **SIZE},
    {"workflow_name": "generate_dataset_from_scratch", **KEYS, **SIZE},
    {"workflow_name": "generate_dataset_from_reference", **KEYS, "base_image_pod_path": "job_outputs/abc/face.png"},
    {"workflow_name": "generate_dataset_with_pulid", **KEYS, **SIZE, "base_image_pod_path": FACE, **PULID},
    {
        "workflow_name": "generate_dataset_with_instantid",
        **KEYS,
        **SIZE,
        "base_image_pod_path": FACE,
        "ip_weight": 0.8,
        "cn_strength": 0.8,
    },
    {"workflow_name": "image_identity_transfer", **KEYS, **SIZE, "pid_vector_local_path": "identities/one.ipadpt"},
    {
        "workflow_name": "create_pid",
        "dataset_pod_path": "job_outputs/abc/",
        "pid_save_pod_path": "identities/one.ipadpt",
    },
)

IDENTITY_CLASSES: Final = {
    "sdxl_pulid": "ApplyPulid",
    "sdxl_faceid": "IPAdapterAdvanced",
    "sdxl_instantid": "ApplyInstantIDAdvanced",
    "sdxl_identity": "IPAdapterEmbeds",
}


@cache
def library() -> Library:
    return Library.load(ROOT / "workflows", object_info=load_known())


@cache
def manifest() -> Manifest:
    return parse_manifest((ROOT / "model_manifest.yaml").read_text(encoding="utf-8"), name="model_manifest.yaml")


def bind(name: str, params: Mapping[str, Any]) -> tuple[Resolved, Bound]:
    resolved = resolve(library().get(name), params, object_info=load_known())
    placed = {slot.key: f"staged-{slot.key}" for slot in resolved.media}
    placed |= {path.key: f"/volume/{path.value}" for path in resolved.output_paths}
    return resolved, fill(resolved, placed)


def required(template: Template) -> dict[str, Any]:
    """The least that a caller has to say."""
    return {key: _some_value(param) for key, param in template.params.items() if _is_required(param)}


def _is_required(param: Param) -> bool:
    return param.default is MISSING and param.type != "seed"


def _some_value(param: Param) -> Any:
    return "job_outputs/abc/given" if param.type in MEDIA_TYPES else "something"


def file_inputs(graph: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """The inputs that name a file of ComfyUI's folders: node id, input, folder."""
    for node_id, node in graph.items():
        described = load_known().raw[node["class_type"]]["input"]
        for group in ("required", "optional"):
            for name, config in described.get(group, {}).items():
                folder = folder_of(node["class_type"], name, config)
                if folder is not None and name in node["inputs"]:
                    yield node_id, name, folder


def faults_of(graph: Mapping[str, Any]) -> list[str]:
    """What ComfyUI would mind in a bound graph, on a machine that has every file."""
    pending = [(node_id, name) for node_id, name, _ in file_inputs(graph)]
    judgement = judge(graph, load_known(), pack_of=pack_of, pending=pending, advice=False)
    return [str(fault) for fault in judgement.faults]


def variations(template: Template) -> Iterator[dict[str, Any]]:
    """Every choice and every effect of every param, each beside what is required."""
    for key, param in template.params.items():
        values = [choice.value for choice in param.choices if param.own_choices]
        values += [effect.value for effect in param.effects]
        if param.otherwise and param.media is not None:
            values.append("job_outputs/abc/given")
        for value in values:
            yield required(template) | {key: value}


def test_what_ships() -> None:
    assert not library().problems
    assert tuple(template.name for template in library()) == NAMES


def test_aliases_lead_to_one_template_each() -> None:
    names = Counter([alias for template in library() for alias in template.about.aliases] + list(NAMES))
    assert [name for name, count in names.items() if count > 1] == []
    assert {alias: library().get(alias).name for alias in ALIASES} == ALIASES
    assert names.keys() == {*NAMES, *ALIASES}


@pytest.mark.parametrize("name", NAMES)
def test_a_template_fits_the_recorded_nodes(name: str) -> None:
    assert [str(problem) for problem in check_template(library().get(name), load_known())] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_template_says_what_it_is(name: str) -> None:
    template = library().get(name)
    assert template.about.title
    assert template.about.description
    undescribed = [key for key, param in template.params.items() if not param.description]
    undescribed += [
        f"{key}.{field}"
        for key, param in template.params.items()
        for field, item in param.items.items()
        if not item.description
    ]
    assert undescribed == []


@pytest.mark.parametrize("name", NAMES)
def test_defaults_make_a_graph_that_comfyui_takes(name: str) -> None:
    resolved, bound = bind(name, required(library().get(name)))
    assert faults_of(bound.graph) == []
    assert resolved.warnings == ()
    assert "__param:" not in json.dumps(bound.graph)


@pytest.mark.parametrize("name", NAMES)
def test_every_choice_makes_a_graph_that_comfyui_takes(name: str) -> None:
    template = library().get(name)
    for params in variations(template):
        _, bound = bind(name, params)
        assert faults_of(bound.graph) == [], params


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: str(payload["workflow_name"]))
def test_what_existing_clients_send(payload: Mapping[str, Any]) -> None:
    request = parse_request("job", dict(payload))
    template = library().get(request.workflow_name or "")
    assert template.name == ALIASES[payload["workflow_name"]]
    resolved, bound = bind(template.name, request.params)
    assert bound.warnings == ()
    assert faults_of(bound.graph) == []
    sent = {template.aliases.get(key, key): value for key, value in payload.items() if key != "workflow_name"}
    assert {key: bound.params[key] for key in sent} == sent
    assert [key for key in sent if not _has_effect(template.params[key], resolved)] == []


def _has_effect(param: Param, resolved: Resolved) -> bool:
    """Whether the value reaches a node that something comes of, or names where that node's file goes."""
    return not param.node_ids.isdisjoint(resolved.live) or param.of in resolved.live


@pytest.mark.parametrize("name", NAMES)
def test_every_default_model_is_in_the_manifest(name: str) -> None:
    template, entries = library().get(name), _by_place()
    lacking = []
    for node_id, input_name, folder in file_inputs(template.document.graph):
        for value in _values(template, node_id, input_name) if folder != INPUT_FOLDER else ():
            entry = entries.get(f"{folder}/{value}")
            if entry is None or name not in entry.workflows:
                lacking.append(f"{folder}/{value}")
    assert lacking == []


def _by_place() -> dict[str, ModelEntry]:
    return {str(place): entry for entry in manifest().models for place in (entry.path, *entry.also)}


def _values(template: Template, node_id: str, input_name: str) -> Iterator[str]:
    """What an input is given without a caller's word for it: as it stands, by default, or by a preset."""
    filling = [
        key
        for key, param in template.params.items()
        if any((place.node_id, place.input) == (node_id, input_name) for place in param.places)
    ]
    value = template.document.graph[node_id]["inputs"][input_name]
    if not filling and isinstance(value, str) and "__param:" not in value:
        yield value
    for key in filling:
        effects = (effect for param in template.params.values() for effect in param.all_effects)
        values = [template.params[key].default, *(effect.sets.get(key) for effect in effects)]
        yield from {value for value in values if isinstance(value, str)}


@pytest.mark.parametrize("name", NAMES)
def test_the_packs_of_a_template(name: str) -> None:
    template = library().get(name)
    packs = {pack_of(node["class_type"]) for node in template.document.graph.values()} - {None}
    assert set(template.about.packs) == packs
    assert {entry.id for entry in manifest().required_by(name).custom_nodes} == packs


def test_packs_are_pinned_to_what_was_recorded() -> None:
    pinned = {entry.id: (entry.repo, entry.commit) for entry in manifest().custom_nodes}
    assert pinned == {pack.id: (pack.repo, pack.commit) for pack in recorded_packs().values()}


def test_the_manifest_names_no_workflow_that_is_not_there() -> None:
    named = {name for model in manifest().models for name in model.workflows}
    named |= {name for pack in manifest().custom_nodes for name in pack.workflows}
    assert named == set(NAMES) - {"smoke"}


def test_a_licence_that_restricts_the_use_says_so_first() -> None:
    restricted = {entry.id for entry in manifest().models if (entry.license or "").startswith("restricted")}
    assert restricted == {
        entry.id for entry in manifest().models if entry.path.parts[0] in ("insightface", "ultralytics")
    }


@pytest.mark.parametrize(("name", "class_type"), IDENTITY_CLASSES.items())
def test_the_identity_is_upstream_of_the_sampler(name: str, class_type: str) -> None:
    _, bound = bind(name, required(library().get(name)))
    [sampler] = [node for node in bound.graph.values() if node["class_type"] == "KSampler"]
    assert class_type in set(_models_before(bound.graph, sampler["inputs"]["model"]))
    face = {"LoadImage", "IPAdapterLoadEmbeds"}
    assert not face.isdisjoint(_everything_before(bound.graph, sampler["inputs"]["model"]))


def _models_before(graph: Mapping[str, Any], link: Any) -> Iterator[str]:
    while is_link(link):
        node = graph[link[0]]
        yield node["class_type"]
        link = node["inputs"].get("model")


def _everything_before(graph: Mapping[str, Any], link: Any) -> set[str]:
    node = graph[link[0]]
    before = (_everything_before(graph, value) for value in node["inputs"].values() if is_link(value))
    return {node["class_type"]}.union(*before)


def test_instantid_steers_the_conditioning_as_well() -> None:
    _, bound = bind("sdxl_instantid", required(library().get("sdxl_instantid")))
    [sampler] = [node for node in bound.graph.values() if node["class_type"] == "KSampler"]
    classes = [bound.graph[sampler["inputs"][name][0]]["class_type"] for name in ("positive", "negative")]
    assert classes == ["ApplyInstantIDAdvanced"] * 2


def test_instantid_takes_its_pose_from_another_picture() -> None:
    faces = {"prompt": "x", "face_image": "job_outputs/a/face.png"}
    _, own = bind("sdxl_instantid", faces)
    _, posed = bind("sdxl_instantid", faces | {"pose_image": "job_outputs/a/pose.png"})
    assert _pose(own) == ("staged-face_image", 1016, 1016)
    assert _pose(posed) == ("staged-pose_image", 1016, 1016)
    assert _pose(bind("sdxl_instantid", faces | {"aspect": "16:9"})[1]) == ("staged-face_image", 1336, 760)
    assert posed.graph[posed.graph["10"]["inputs"]["image"][0]]["inputs"]["image"] == "staged-face_image"


def _pose(bound: Bound) -> tuple[str, int, int]:
    """What the keypoints are drawn from, and in which size: their lines are equally thick in every one."""
    fitted = bound.graph[bound.graph["10"]["inputs"]["image_kps"][0]]["inputs"]
    photo = bound.graph[fitted["image"][0]]["inputs"]["image"]
    return photo, fitted["target_width"], fitted["target_height"]


def test_loras_stand_between_the_checkpoint_and_the_identity() -> None:
    loras = ["one.safetensors", {"name": "two.safetensors", "strength": 0.5}]
    _, bound = bind("sdxl_pulid", {"prompt": "x", "face_image": "job_outputs/a/face.png", "loras": loras})
    chain = list(_models_before(bound.graph, ["10", 0]))
    assert chain == ["ApplyPulid", "LoraLoader", "LoraLoader", "CheckpointLoaderSimple"]
    last = bound.graph[bound.graph["10"]["inputs"]["model"][0]]["inputs"]
    assert (last["lora_name"], last["strength_model"], last["strength_clip"]) == ("two.safetensors", 0.5, 0.5)
    assert bound.graph["3"]["inputs"]["clip"] == [bound.graph["10"]["inputs"]["model"][0], 1]


@pytest.mark.parametrize(
    ("params", "chain"),
    [
        ({}, ["Faces", "Decode"]),
        ({"hands": True}, ["Hands", "Faces", "Decode"]),
        ({"hands": True, "persons": True}, ["Hands", "Faces", "Persons", "Decode"]),
        ({"faces": False, "persons": True}, ["Persons", "Decode"]),
        ({"megapixels": 2}, ["Faces", "To the size wanted", "Decode"]),
        ({"image": "job_outputs/a/b.png"}, ["Faces", "Once for each version", "Picture"]),
        (
            {"image": "job_outputs/a/b.png", "faces": False, "hands": True, "megapixels": 1},
            ["Hands", "To the size wanted", "Once for each version", "Picture"],
        ),
    ],
)
def test_what_is_redrawn_and_in_what(params: Mapping[str, Any], chain: list[str]) -> None:
    _, bound = bind("sdxl_face_detail", {"prompt": "x", **params})
    link, titles = bound.graph["30"]["inputs"]["images"], []
    while is_link(link):
        node = bound.graph[link[0]]
        titles.append(node["_meta"]["title"])
        link = node["inputs"].get("image")
    assert titles == chain
    assert ("KSampler" in {node["class_type"] for node in bound.graph.values()}) == ("image" not in params)


def test_a_picture_that_is_sent_is_redrawn_as_often_as_it_is_wanted() -> None:
    _, bound = bind("sdxl_face_detail", {"image": "job_outputs/a/b.png", "batch_size": 4})
    assert [node["inputs"]["amount"] for node in bound.graph.values() if "amount" in node["inputs"]] == [4]


@pytest.mark.parametrize(("name", "size"), [("sdxl_face_detail", 768), ("sdxl_txt2img_pag", 1024)])
def test_a_part_is_enlarged_to_the_size_wanted_on_its_longest_side(name: str, size: int) -> None:
    """A guide for the region's short side, with a limit of the same number, is one for its longest side."""
    params = {"persons": True, "hands": True, "detail_size": size} if name == "sdxl_face_detail" else {}
    _, bound = bind(name, {"prompt": "x", **params})
    detailers = [node["inputs"] for node in bound.graph.values() if node["class_type"] == "FaceDetailer"]
    assert len(detailers) == (3 if params else 1)
    for inputs in detailers:
        assert (inputs["guide_size"], inputs["guide_size_for"], inputs["max_size"]) == (size, False, size)


@pytest.mark.parametrize(
    ("params", "denoise"),
    [({}, 1.0), ({"mask": "job_outputs/a/m.png"}, 0.85), ({"denoise": 0.5}, 0.5)],
)
def test_what_lies_under_transparency_counts_for_nothing(params: Mapping[str, Any], denoise: float) -> None:
    _, bound = bind("sdxl_inpaint", {"prompt": "x", "image": "job_outputs/a/b.png", **params})
    [sampler] = [node for node in bound.graph.values() if node["class_type"] == "KSampler"]
    assert sampler["inputs"]["denoise"] == denoise


@pytest.mark.parametrize(
    ("name", "params", "chain"),
    [
        ("sdxl_txt2img_pag", {"cfg_rescale": 0.7}, ["PerturbedAttentionGuidance", "RescaleCFG"]),
        ("sdxl_txt2img_pag", {"cfg_rescale": 0.7, "pag_scale": 0}, ["RescaleCFG"]),
        ("sdxl_txt2img_pag", {}, ["PerturbedAttentionGuidance"]),
        ("sdxl_instantid", {"cfg_rescale": 0.7, "face_image": "job_outputs/a/b.png"}, ["RescaleCFG"]),
        ("sdxl_instantid", {"face_image": "job_outputs/a/b.png"}, []),
    ],
)
def test_what_tones_a_high_cfg_down(name: str, params: Mapping[str, Any], chain: list[str]) -> None:
    """The redrawn faces are toned down as the picture is. They go without the guidance, which takes its time."""
    _, bound = bind(name, {"prompt": "x", **params})
    [sampler] = [node for node in bound.graph.values() if node["class_type"] == "KSampler"]
    guided = [kind for kind in _models_before(bound.graph, sampler["inputs"]["model"]) if kind in _GUIDING]
    assert guided == chain
    for faces in (node["inputs"] for node in bound.graph.values() if node["class_type"] == "FaceDetailer"):
        toned = [kind for kind in _models_before(bound.graph, faces["model"]) if kind in _GUIDING]
        assert toned == [kind for kind in chain if kind == "RescaleCFG"]


_GUIDING: Final = frozenset({"PerturbedAttentionGuidance", "RescaleCFG"})


PICTURE_KEYS: Final = ("base_image_pod_path", "base_image_local_path", "image_pod_path", "image_local_path")


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_has_the_same_names_everywhere(name: str) -> None:
    template = library().get(name)
    key = next((key for key in ("image", "face_image") if key in template.params), None)
    names = {*PICTURE_KEYS, *(["image"] if key == "face_image" else [])} if key else set()
    assert {alias: template.aliases.get(alias) for alias in names} == dict.fromkeys(names, key)


def test_the_short_names_of_an_identity() -> None:
    created, used = library().get("identity_create").aliases, library().get("sdxl_identity").aliases
    assert (created["photos"], created["save_to"]) == ("dataset_pod_path", "pid_save_pod_path")
    assert used["identity"] == "pid_vector_local_path"


@pytest.mark.parametrize(
    ("kind", "control_net", "preprocessor"),
    [
        ("openpose", "control_v11p_sd15_openpose.pth", "DWPreprocessor"),
        ("depth", "control_v11f1p_sd15_depth.pth", "DepthAnythingV2Preprocessor"),
        ("canny", "control_v11p_sd15_canny.pth", "CannyEdgePreprocessor"),
        ("scribble", "control_v11p_sd15_scribble.pth", "Scribble_XDoG_Preprocessor"),
    ],
)
def test_the_kind_of_control(kind: str, control_net: str, preprocessor: str) -> None:
    for preprocess, source in ((True, preprocessor), (False, "LoadImage")):
        params = {"prompt": "x", "image": "job_outputs/a/b.png", "kind": kind, "preprocess": preprocess}
        _, bound = bind("sd15_controlnet", params)
        control = bound.graph["8"]["inputs"]
        assert bound.graph[control["image"][0]]["class_type"] == source
        assert bound.graph[control["control_net"][0]]["inputs"]["cnet"] == control_net


def test_an_identity_is_made_of_a_folder_and_saved_where_it_is_wanted() -> None:
    params = {key: value for key, value in PAYLOADS[-1].items() if key != "workflow_name"}
    resolved, bound = bind("identity_create", params)
    [folder] = resolved.media
    assert (folder.kind, folder.as_path) == ("dir", False)
    [saved] = resolved.output_paths
    assert bound.graph[saved.of or ""]["class_type"] == "IPAdapterSaveEmbeds"


LENGTHS: Final = [(duration_s, fps) for fps in (12, 24, 25, 30) for duration_s in range(10, 21)]


@pytest.mark.parametrize(("duration_s", "fps"), LENGTHS)
def test_a_portrait_moves_for_exactly_as_long_as_it_shall(duration_s: int, fps: int) -> None:
    """The animation node adds the frames of all commands up, and divides by the first number of each."""
    _, bound = bind("liveportrait_animate", {"face_image": "job_outputs/a/b.png", "duration_s": duration_s, "fps": fps})
    lines = [_command(line) for line in _commands(bound).splitlines()]
    assert sum(change + wait for _, change, wait in lines) == duration_s * fps
    assert min(change for _, change, _ in lines) >= 1
    assert (lines[0][0], lines[-1][0]) == (0, 0), "it begins and ends at rest"
    expressions = [node for node in bound.graph.values() if node["class_type"] == "ExpressionEditor"]
    assert {motion for motion, _, _ in lines} <= {0, *range(1, len(expressions) + 1)}
    assert {1, 2, 4} <= {motion for motion, _, _ in lines}, "it blinks, and turns to both sides"
    [video] = [node for node in bound.graph.values() if node["class_type"] == "VHS_VideoCombine"]
    assert (video["inputs"]["frame_rate"], video["inputs"]["format"]) == (fps, "video/h264-mp4")


def _command(line: str) -> tuple[int, int, int]:
    motion, _, frames = line.partition("=")
    change, _, wait = frames.partition(":")
    return int(motion), int(change), int(wait)


def _commands(bound: Bound) -> str:
    link = bound.graph["20"]["inputs"]["command"]
    return str(bound.graph[link[0]]["inputs"]["value"])


def test_the_expressions_are_numbered_as_the_commands_count_them() -> None:
    _, bound = bind("liveportrait_animate", {"face_image": "job_outputs/a/b.png", "movement": "lively", "blink": -20})
    link, moved = bound.graph["20"]["inputs"]["motion_link"], []
    while is_link(link):
        inputs = bound.graph[link[0]]["inputs"]
        moved.append((inputs["rotate_yaw"] > 0, inputs["rotate_yaw"] < 0, inputs["blink"] == -20))
        link = inputs.get("motion_link")
    rest, shut = (False, False, False), (False, False, True)
    left, right = (True, False, False), (False, True, False)
    assert moved[::-1] == [shut, left, (True, False, True), right, (False, True, True), rest]


def test_a_portrait_follows_a_clip() -> None:
    params = {"face_image": "job_outputs/a/b.png", "driving_video": "job_outputs/a/c.mp4", "duration_s": 12, "fps": 25}
    resolved, bound = bind("liveportrait_animate", params)
    graph = bound.graph
    assert _commands(bound) == ""
    clip = graph[graph["20"]["inputs"]["driving_images"][0]]["inputs"]
    assert (clip["video"], clip["force_rate"]) == ("staged-driving_video", 25)
    assert (clip["custom_width"], clip["custom_height"]) == (256, 256), "all frames are in memory at once"
    repeated = graph[graph[clip["frame_load_cap"][0]]["inputs"]["images"][0]]["inputs"]
    assert repeated["amount"] * graph[repeated["image"][0]]["inputs"]["batch_size"] == 12 * 25
    assert {slot.key: slot.kind for slot in resolved.media} == {"face_image": "image", "driving_video": "video"}


def test_motions_of_the_caller_come_before_those_of_the_duration() -> None:
    command = "0 = 1:9\n1 = 5:5\n0 = 5:5"
    _, bound = bind("liveportrait_animate", {"face_image": "job_outputs/a/b.png", "command": command})
    assert _commands(bound) == command


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("liveportrait_animate", "Failed to detect face!!"),
        (
            "sdxl_pulid",
            "pulid warning: No faces detected in any of the given images, returning unmodified model.",
        ),
        ("sdxl_instantid", "\033[33mWARNING: No face detected in the keypoints image!\033[0m"),
    ],
)
def test_a_face_that_a_pack_only_misses_in_its_log(name: str, line: str) -> None:
    """These packs go on without one: they animate the whole picture, draw somebody else, or take the photo itself for
    a drawing of the pose. PuLID also says of single pictures that they have none; with others that have, that is no
    failure."""
    parts = library().get(name).about.fails_on["no_face"]
    assert any(part in line for part in parts)
    assert not any(part in "Warning: No face detected in image 0" for part in parts)

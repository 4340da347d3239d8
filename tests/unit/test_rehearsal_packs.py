"""Nodes of node packs make and report what theirs do, and raise in their words."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops

from morpheus_worker.comfy.faults import from_execution
from morpheus_worker.comfy.messages import ExecutionError
from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.comfy.recorded import load_known
from morpheus_worker.errors import Code
from morpheus_worker.rehearsal.call import Call, Outcome
from morpheus_worker.rehearsal.clip import mp4
from morpheus_worker.rehearsal.faces import face_region, has_face
from morpheus_worker.rehearsal.facts import Facts
from morpheus_worker.rehearsal.folders import Folders
from morpheus_worker.rehearsal.footage import read_footage
from morpheus_worker.rehearsal.nodes import run, steps_of
from morpheus_worker.rehearsal.packs.motion import Motion
from morpheus_worker.rehearsal.packs.selecting import chosen_indexes
from morpheus_worker.rehearsal.values import Images, Masks, Segments, Sound, StandIn

GRAPH = {"1": {"class_type": "EmptyImage", "inputs": {"color": 7}}}
RED, BLUE = (255, 0, 0), (0, 0, 255)
WORKFLOW: dict[str, Any] = {"workflow": {"nodes": []}}

FURTHER: dict[str, Any] = {
    "BboxDetectorSEGS": {"input": {"required": {"image": ["IMAGE"]}}, "output": ["SEGS"]},
    "BboxDetectorCombined_v2": {"input": {"required": {"image": ["IMAGE"]}}, "output": ["MASK"]},
    "SegsToCombinedMask": {"input": {"required": {"segs": ["SEGS"]}}, "output": ["MASK"]},
    "ImpactIsNotEmptySEGS": {"input": {"required": {"segs": ["SEGS"]}}, "output": ["BOOLEAN"]},
    "ImpactCount_Elts_in_SEGS": {"input": {"required": {"segs": ["SEGS"]}}, "output": ["INT"]},
    "ImpactSEGSLabelFilter": {"input": {"required": {"segs": ["SEGS"]}}, "output": ["SEGS", "SEGS"]},
}
"""Classes of ComfyUI-Impact-Pack, as far as these tests go."""

INFO = ObjectInfo({**FURTHER, **load_known().raw})


def portrait(size: tuple[int, int] = (60, 80)) -> Image.Image:
    shade = Image.radial_gradient("L").resize(size)
    return Image.merge("RGB", (shade, shade.transpose(Image.Transpose.FLIP_TOP_BOTTOM), shade.point(lambda x: x // 2)))


PORTRAIT = Images((portrait(),))
PLAIN = Images((Image.new("RGB", (60, 80), RED),))


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    made = Folders(tmp_path, tmp_path / "input", tmp_path / "output", tmp_path / "temp", {})
    made.create()
    return made


@pytest.fixture
def call(folders: Folders) -> Any:
    def made(class_type: str, *, extra: Any = None, faceless: bool = False, facts: Any = None, **inputs: Any) -> Call:
        known = INFO.get(class_type)
        assert known is not None
        return Call("1", known, inputs, GRAPH, facts or Facts(), folders, extra or {}, True, faceless)

    return made


@pytest.fixture
def node(call: Any) -> Any:
    def carry_out(class_type: str, **given: Any) -> Outcome:
        return run(call(class_type, **given))

    return carry_out


def alike(one: Image.Image, other: Image.Image) -> bool:
    return one.size == other.size and ImageChops.difference(one, other).getbbox() is None


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- faces


def test_a_picture_of_one_colour_has_no_face() -> None:
    assert has_face(portrait())
    assert not has_face(Image.new("RGB", (9, 9), RED))
    spot = Image.new("RGB", (9, 9), RED)
    spot.putpixel((3, 3), (254, 0, 0))
    assert has_face(spot)


@pytest.mark.parametrize("size", [(60, 80), (80, 60), (9, 9), (1, 1), (1000, 20)])
def test_a_face_is_within_its_picture(size: tuple[int, int]) -> None:
    region = face_region(size)
    assert 0 <= region.left < region.right <= size[0]
    assert 0 <= region.top < region.bottom <= size[1]


@pytest.mark.parametrize(
    ("class_type", "said"),
    [
        ("ApplyInstantID", "Reference Image: No face detected."),
        ("ApplyInstantIDAdvanced", "Reference Image: No face detected."),
        ("InstantIDAttentionPatch", "Reference Image: No face detected."),
        ("IPAdapterFaceID", "InsightFace: No face detected."),
        ("KSampler", "No face detected."),
    ],
)
def test_a_missing_face_is_told_in_the_packs_words(node: Any, class_type: str, said: str) -> None:
    with pytest.raises(Exception, match=said) as caught:
        node(class_type, image=PORTRAIT, model=StandIn("MODEL", "x"), faceless=True)
    if class_type != "KSampler":
        with pytest.raises(Exception, match=said):
            node(class_type, image=PLAIN, model=StandIn("MODEL", "x"))
        node(class_type, image=PORTRAIT, model=StandIn("MODEL", "x"))
    kind = getattr(caught.value, "exception_type", "")
    told = ExecutionError("p", "1", class_type, kind, str(caught.value), (), ())
    assert from_execution(told).code == Code.NO_FACE


def test_one_face_among_several_pictures_is_enough_for_some(node: Any) -> None:
    mixed = Images((*PLAIN.frames, *PORTRAIT.frames))
    assert len(node("ApplyInstantID", image=mixed).outputs) == 3
    with pytest.raises(Exception, match="No face detected"):
        node("IPAdapterFaceID", image=mixed)


def test_without_a_face_pulid_hands_the_model_on(node: Any) -> None:
    model = StandIn("MODEL", "CheckpointLoaderSimple", "x.safetensors")
    assert node("ApplyPulid", model=model, image=PLAIN).outputs == (model,)
    (changed,) = node("ApplyPulid", model=model, image=PORTRAIT).outputs
    assert changed.class_type == "ApplyPulid"


def test_keypoints_of_no_face_are_black(node: Any) -> None:
    (black,) = node("FaceKeypointsPreprocessor", image=PLAIN).outputs
    assert black.frames[0].getcolors() == [(60 * 80, (0, 0, 0))]
    (drawn,) = node("FaceKeypointsPreprocessor", image=PORTRAIT).outputs
    assert drawn.size == (60, 80)
    assert has_face(drawn.frames[0])


# --- embeddings


def test_embeddings_are_saved_without_a_word_and_loaded_again(node: Any, folders: Folders) -> None:
    both = Images(PORTRAIT.frames * 2)
    (squares,) = node("PrepImageForClipVision", image=both, interpolation="LANCZOS", crop_position="top").outputs
    assert (squares.size, len(squares.frames)) == ((224, 224), 2)
    positive, _ = node("IPAdapterEncoder", image=squares, weight=1.0).outputs
    (mean,) = node("IPAdapterCombineEmbeds", embed1=positive, method="average").outputs
    (all_of_them,) = node("IPAdapterCombineEmbeds", embed1=positive, embed2=positive, method="concat").outputs
    assert (positive.count, mean.count, all_of_them.count) == (2, 1, 4)
    for _ in range(2):
        assert node("IPAdapterSaveEmbeds", embeds=mean, filename_prefix="ids/me") == Outcome(())
    assert names(folders.output / "ids") == ["me_00001.ipadpt", "me_00002.ipadpt"]
    assert zipfile.is_zipfile(folders.output / "ids/me_00001.ipadpt")
    (folders.output / "ids/me_00001.ipadpt").rename(folders.input / "me.ipadpt")
    (loaded,) = node("IPAdapterLoadEmbeds", embeds="me.ipadpt").outputs
    assert str(loaded) == "rehearsal: embeddings of 1 picture(s)"
    with pytest.raises(FileNotFoundError):
        node("IPAdapterLoadEmbeds", embeds="gone.ipadpt")


# --- detailing


def test_a_face_is_redrawn_where_it_is_and_nothing_else(node: Any, call: Any) -> None:
    facts = Facts(seed=7, settings=("cfg 7, euler",))
    given = {"image": PORTRAIT, "seed": 7, "steps": 6, "cycle": 2, "positive": StandIn("CONDITIONING", "x")}
    image, refined, _, mask, pipe, _ = node("FaceDetailer", facts=facts, **given).outputs
    region = face_region((60, 80))
    changed = ImageChops.difference(image.frames[0], PORTRAIT.frames[0]).getbbox()
    assert changed == region.box == mask.frames[0].getbbox()
    assert refined.size == region.size
    assert str(pipe) == "rehearsal: DETAILER_PIPE from FaceDetailer"
    other = node("FaceDetailer", facts=facts, **{**given, "seed": 8}).outputs[0]
    assert not alike(image.frames[0], other.frames[0]), "the seed shows"
    assert steps_of(call("FaceDetailer", **given)) == 12


def test_where_nothing_is_found_the_picture_stays(node: Any) -> None:
    for image, faceless in ((PLAIN, False), (PORTRAIT, True)):
        outputs = node("FaceDetailer", image=image, seed=1, steps=6, faceless=faceless).outputs
        assert outputs[0].frames == image.frames
        assert outputs[1].size == (64, 64)
        assert outputs[3].frames[0].getbbox() is None


def test_what_a_detector_found_goes_from_node_to_node(node: Any) -> None:
    (found,) = node("BboxDetectorSEGS", image=PORTRAIT).outputs
    (nothing,) = node("BboxDetectorSEGS", image=PLAIN).outputs
    assert (len(found.regions), len(nothing.regions)) == (1, 0)
    assert isinstance(found, Segments)
    for class_type, values in (("ImpactIsNotEmptySEGS", (True, False)), ("ImpactCount_Elts_in_SEGS", (1, 0))):
        assert tuple(node(class_type, segs=segs).outputs[0] for segs in (found, nothing)) == values
    kept, _ = node("ImpactSEGSLabelFilter", segs=found).outputs
    assert kept == found
    (mask,) = node("SegsToCombinedMask", segs=found).outputs
    (combined,) = node("BboxDetectorCombined_v2", image=PORTRAIT).outputs
    assert mask.frames[0].getbbox() == combined.frames[0].getbbox() == found.regions[0].box
    (redrawn,) = node("DetailerForEach", image=PORTRAIT, segs=found, seed=1).outputs
    (same,) = node("DetailerForEach", image=PORTRAIT, segs=nothing, seed=1).outputs
    assert not alike(redrawn.frames[0], PORTRAIT.frames[0])
    assert same.frames == PORTRAIT.frames


# --- preprocessors


@pytest.mark.parametrize(
    ("class_type", "inputs", "size"),
    [
        ("CannyEdgePreprocessor", {"resolution": 512}, (512, 683)),
        ("CannyEdgePreprocessor", {"resolution": 128}, (128, 171)),
        ("ScribblePreprocessor", {"resolution": 10}, (512, 683)),
        ("MiDaS-DepthMapPreprocessor", {}, (512, 683)),
        ("AIO_Preprocessor", {"preprocessor": "OpenposePreprocessor", "resolution": 64}, (64, 85)),
        ("TilePreprocessor", {"resolution": 64}, (64, 85)),
    ],
)
def test_a_control_image_is_as_large_as_the_real_one(
    node: Any, class_type: str, inputs: dict[str, Any], size: tuple[int, int]
) -> None:
    outcome = node(class_type, image=Images(PORTRAIT.frames * 2), **inputs)
    assert outcome.outputs[0].size == size
    assert len(outcome.outputs[0].frames) == 2
    assert has_face(outcome.outputs[0].frames[0]), "something is drawn"
    assert outcome.report is None


@pytest.mark.parametrize("class_type", ["OpenposePreprocessor", "DWPreprocessor"])
def test_poses_are_reported_as_text(node: Any, class_type: str) -> None:
    outcome = node(class_type, image=PORTRAIT, resolution=64)
    (text,) = outcome.report["openpose_json"]
    (picture,) = json.loads(text)
    assert (picture["canvas_width"], picture["canvas_height"]) == (64, 85)
    assert len(picture["people"]) == 1
    assert len(picture["people"][0]["pose_keypoints_2d"]) % 3 == 0


# --- portraits that move


def edited(node: Any, **parts: float) -> Outcome:
    outcome: Outcome = node("ExpressionEditor", src_image=PORTRAIT, **parts)
    return outcome


def test_an_expression_is_shown_and_handed_on(node: Any, folders: Folders) -> None:
    first = edited(node, rotate_yaw=10.0)
    second = node("ExpressionEditor", motion_link=first.outputs[1], blink=-15.0, add_exp=first.outputs[2])
    assert [outcome.report for outcome in (first, second)] == [
        {"images": [{"filename": f"expression_edit_preview{number}.png", "type": "temp"}]} for number in (1, 2)
    ]
    with Image.open(folders.temp / "expression_edit_preview2.png") as shown:
        assert shown.size == (512, 512)
    image, motion, expression = second.outputs
    assert image.size == (60, 80)
    assert isinstance(motion, Motion)
    assert [each["rotate_yaw"] for each in motion.expressions] == [10, 10]
    assert (expression["rotate_yaw"], expression["blink"]) == (10, -15)
    assert not alike(image.frames[0], first.outputs[0].frames[0])
    assert node("ExpressionEditor").outputs == (None, None, None)


def test_a_portrait_moves_and_stays_itself(node: Any, call: Any) -> None:
    face = portrait((240, 320))
    motion = node("ExpressionEditor", src_image=Images((face,)), rotate_yaw=10.0, blink=-15.0).outputs[1]
    given = {"motion_link": motion, "command": "1=6:4\n0=5:5", "animate_without_vid": True, "turn_on": True}
    (images,) = node("AdvancedLivePortrait", **given).outputs
    assert (len(images.frames), images.size) == (20, (240, 320))
    assert len({frame.tobytes() for frame in images.frames}) == 20
    assert steps_of(call("AdvancedLivePortrait", **given)) == 20
    middle, corner = (80, 100, 160, 180), (0, 240, 40, 300)
    assert not alike(images.frames[0].crop(middle), images.frames[8].crop(middle)), "the face moves"
    assert alike(images.frames[0].crop(corner), images.frames[8].crop(corner)), "what is around it does not"
    assert alike(images.frames[-1].crop(middle), face.crop(middle)), "at rest it is the portrait"


def test_a_driving_clip_says_how_many_frames(node: Any) -> None:
    driving = Images(tuple(portrait((32, 32)) for _ in range(15)))
    source = Images((portrait((240, 320)),))
    (images,) = node("AdvancedLivePortrait", src_images=source, driving_images=driving, command="").outputs
    assert (len(images.frames), images.size) == (15, (240, 320))
    assert len({frame.crop((80, 100, 160, 180)).tobytes() for frame in images.frames}) == 15


def test_a_long_clip_of_large_pictures_is_drawn_in_part(node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("morpheus_worker.rehearsal.packs.liveportrait.MOST_PIXELS", 60 * 80 * 4)
    given = {"src_images": PORTRAIT, "command": "0=10:10", "animate_without_vid": True}
    (images,) = node("AdvancedLivePortrait", **given).outputs
    assert len(images.frames) == 20
    assert len({id(frame) for frame in images.frames}) == 4


def test_a_portrait_that_cannot_move(node: Any, call: Any) -> None:
    assert node("AdvancedLivePortrait", src_images=PORTRAIT, turn_on=False).outputs == (None,)
    assert node("AdvancedLivePortrait", command="").outputs == (None,)
    wrong = {"src_images": PORTRAIT, "command": "1=5:5", "animate_without_vid": True}
    with pytest.raises(AssertionError, match="Command Err Line 1: 1=5:5"):
        node("AdvancedLivePortrait", **wrong)
    assert steps_of(call("AdvancedLivePortrait", **wrong)) == 0
    (images,) = node("AdvancedLivePortrait", src_images=PLAIN, command="").outputs
    assert len(images.frames) == 1, "without a face the pack goes on"


# --- clips


def moving(*colours: tuple[int, int, int], size: tuple[int, int] = (16, 8)) -> Images:
    return Images(tuple(Image.new("RGB", size, colour) for colour in colours))


def reds(frames: Iterable[Image.Image]) -> list[bool]:
    """Of each picture, whether it is red."""
    return [max(frame.resize((1, 1)).getpixel((0, 0))) == frame.resize((1, 1)).getpixel((0, 0))[0] for frame in frames]  # type: ignore[arg-type, index]


def combined(node: Any, **given: Any) -> Outcome:
    usual = {"images": moving(RED, BLUE), "frame_rate": 8, "filename_prefix": "v/clip", "format": "video/h264-mp4"}
    outcome: Outcome = node("VHS_VideoCombine", extra={"extra_pnginfo": WORKFLOW}, **{**usual, **given})
    return outcome


def test_a_clip_is_saved_and_reported_as_the_pack_does(node: Any, folders: Folders) -> None:
    outcome = combined(node)
    path = folders.output / "v/clip_00001.mp4"
    assert outcome.report == {
        "gifs": [
            {
                "filename": "clip_00001.mp4",
                "subfolder": "v",
                "type": "output",
                "format": "video/h264-mp4",
                "frame_rate": 8,
                "workflow": "clip_00001.png",
                "fullpath": str(path),
            }
        ]
    }
    still = folders.output / "v/clip_00001.png"
    assert outcome.outputs == ((True, (str(still), str(path))),)
    footage = read_footage(path, 9)
    assert (footage.count, footage.fps, footage.size) == (2, 8, (16, 8))
    assert reds(footage.pictures or ()) == [True, False]
    with Image.open(still) as shown:
        assert json.loads(shown.info["prompt"]) == GRAPH
        assert json.loads(shown.info["workflow"]) == WORKFLOW["workflow"]
    assert combined(node, format="image/gif").report["gifs"][0]["filename"] == "clip_00002.gif"  # type: ignore[index]


@pytest.mark.parametrize(
    ("asked", "files", "reported"),
    [
        ("image/gif", ["clip_00001.gif", "clip_00001.png"], "clip_00001.gif"),
        ("image/webp", ["clip_00001.png", "clip_00001.webp"], "clip_00001.webp"),
        ("video/ffmpeg-gif", ["clip_00001.gif", "clip_00001.png"], "clip_00001.gif"),
        ("video/av1-webm", ["clip_00001.mp4", "clip_00001.png"], "clip_00001.mp4"),
        (
            "video/8bit-png",
            ["clip_00001.001.png", "clip_00001.002.png", "clip_00001.png"],
            "clip_00001.%03d.png",
        ),
    ],
)
def test_formats(node: Any, folders: Folders, asked: str, files: list[str], reported: str) -> None:
    outcome = combined(node, format=asked)
    assert names(folders.output / "v") == files
    assert outcome.report is not None
    assert (outcome.report["gifs"][0]["filename"], outcome.report["gifs"][0]["format"]) == (reported, asked)
    if not reported.endswith("%03d.png"):
        assert read_footage(folders.output / "v" / reported, 9).count == 2


def test_a_clip_goes_back_and_again(node: Any, folders: Folders) -> None:
    green = (0, 255, 0)
    combined(node, images=moving(RED, green, BLUE), pingpong=True, loop_count=1)
    footage = read_footage(folders.output / "v/clip_00001.mp4", 99)
    assert reds(footage.pictures or ()) == [True, False, False, False] * 2


def test_odd_edges_are_repeated(node: Any, folders: Folders) -> None:
    combined(node, images=moving(RED, BLUE, size=(15, 9)))
    footage = read_footage(folders.output / "v/clip_00001.mp4", 9)
    assert footage.size == (16, 10)
    assert footage.pictures is not None
    assert reds([frame.crop((14, 8, 16, 10)) for frame in footage.pictures]) == [True, False]


def test_a_clip_with_sound_has_another_name(node: Any, folders: Folders) -> None:
    outcome = combined(node, audio=Sound(1.0))
    assert names(folders.output / "v") == ["clip_00001-audio.mp4", "clip_00001.mp4", "clip_00001.png"]
    assert outcome.report is not None
    assert outcome.report["gifs"][0]["filename"] == "clip_00001-audio.mp4"


def test_a_preview_and_no_pictures(node: Any, folders: Folders) -> None:
    outcome = combined(node, save_output=False, filename_prefix="p")
    assert outcome.report is not None
    assert outcome.report["gifs"][0]["type"] == "temp"
    assert names(folders.temp) == ["p_00001.mp4", "p_00001.png"]
    assert combined(node, images=None) == Outcome(((True, ()),))


def test_a_clip_is_taken_apart(node: Any, folders: Folders) -> None:
    frames = [RED, BLUE] * 6
    (folders.input / "c.mp4").write_bytes(mp4(moving(*frames, size=(40, 20)).frames, 12))
    images, count, sound, told = node("VHS_LoadVideo", video="c.mp4", select_every_nth=1).outputs
    assert (count, sound, reds(images.frames)) == (12, None, [True, False] * 6)
    assert (told["source_fps"], told["loaded_frame_count"], told["source_duration"]) == (12, 12, 1.0)
    given = {"force_rate": 6, "custom_width": 20, "skip_first_frames": 1, "frame_load_cap": 3, "select_every_nth": 2}
    images, count, _, told = node("VHS_LoadVideo", video="c.mp4", **given).outputs
    assert (images.size, count, told["loaded_fps"], told["loaded_width"]) == ((20, 10), 3, 3.0, 20)
    assert node("VHS_VideoInfoLoaded", video_info=told).outputs == (3.0, 3, 1.0, 20, 10)
    assert len(node("VHS_VideoInfo", video_info=told).outputs) == 10
    assert node("VHS_LoadVideo", video="c.mp4", force_rate=24).outputs[1] == 24
    assert node("VHS_LoadVideo", video="c.mp4", format="AnimateDiff").outputs[0].size == (40, 24)
    assert node("VHS_LoadVideo", video="c.mp4", format="Wan").outputs[1] == 9
    masks = node("VHS_LoadVideoFFmpeg", video="c.mp4").outputs[1]
    assert isinstance(masks, Masks)
    with pytest.raises(RuntimeError, match="No frames generated"):
        node("VHS_LoadVideo", video="c.mp4", skip_first_frames=99)


def test_a_clip_that_cannot_be_decoded_has_its_length(node: Any, folders: Folders) -> None:
    content = mp4(moving(*[RED] * 30).frames, 10).replace(b"\xff\xd8\xff", b"\0\0\0")
    (folders.input / "h264.mp4").write_bytes(content)
    images, count, _, told = node("VHS_LoadVideo", video="h264.mp4").outputs
    assert (images.size, count, told["source_duration"]) == ((16, 8), 30, 3.0)
    (clip,) = node("LoadVideo", file="h264.mp4").outputs
    assert (len(clip.images.frames), clip.fps) == (30, 10)


def test_a_folder_of_pictures_has_the_commonest_size(node: Any, folders: Folders) -> None:
    folder = folders.input / "set"
    folder.mkdir()
    for name, size in (("a.png", (8, 8)), ("b.png", (16, 8)), ("c.jpg", (16, 8))):
        Image.new("RGB", size, RED).save(folder / name)
    (folder / "caption.txt").write_text("a face")
    images, masks, count = node("VHS_LoadImages", directory="set").outputs
    assert (images.size, count, len(masks.frames)) == ((16, 8), 3, 3)
    assert node("VHS_LoadImages", directory="set", image_load_cap=1, skip_first_images=1).outputs[2] == 1
    for missing in ("gone", "set/caption.txt"):
        with pytest.raises(FileNotFoundError):
            node("VHS_LoadImages", directory=missing)


@pytest.mark.parametrize(
    ("text", "chosen"),
    [("0", [0]), ("0, -1,2", [0, -1, 2]), ("1:3", [1, 2]), ("::2", [0, 2, 4]), ("::-1", [4, 3, 2, 1, 0]), ("", [])],
)
def test_indexes(text: str, chosen: list[int]) -> None:
    assert chosen_indexes(text, 5, allow_missing=False) == chosen


def test_what_is_no_index(node: Any) -> None:
    with pytest.raises(ValueError, match="Index 'no face was found' must be an integer"):
        node("VHS_SelectImages", image=PORTRAIT, indexes="no face was found")
    with pytest.raises(IndexError, match="Index '5' out of range for 1 item"):
        node("VHS_SelectImages", image=PORTRAIT, indexes="5")
    with pytest.raises(Exception, match="Nothing was selected"):
        node("VHS_SelectImages", image=PORTRAIT, indexes="5", err_if_missing=False)
    five = moving(RED, BLUE, RED, BLUE, RED)
    assert reds(node("VHS_SelectImages", image=five, indexes="::-1").outputs[0].frames[:2]) == [True, False]
    assert node("VHS_SelectEveryNthImage", images=five, select_every_nth=2, skip_first_images=1).outputs[1] == 2
    assert node("VHS_GetImageCount", images=five).outputs == (5,)

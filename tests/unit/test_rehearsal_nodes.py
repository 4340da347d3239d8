"""Image plumbing is real, savers write what they report, and everything else says what it stands for."""

from __future__ import annotations

import json
import struct
from array import array
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.comfy.recorded import load_recorded
from morpheus_worker.rehearsal.call import Call
from morpheus_worker.rehearsal.facts import Facts, facts_of
from morpheus_worker.rehearsal.folders import Folders
from morpheus_worker.rehearsal.nodes import Outcome, run, steps_of
from morpheus_worker.rehearsal.plumbing import upscale_factor
from morpheus_worker.rehearsal.values import Clip, Images, Latent, Masks, Sound, StandIn

RED, BLUE = (255, 0, 0), (0, 0, 255)
GRAPH = {"1": {"class_type": "EmptyImage", "inputs": {"color": 7}}}


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    made = Folders(tmp_path, tmp_path / "input", tmp_path / "output", tmp_path / "temp", {})
    made.create()
    return made


@pytest.fixture
def node(folders: Folders) -> Any:
    """Runs one node: `node("ImageInvert", image=…)`; `extra` is the prompt's extra data."""

    def carry_out(class_type: str, *, extra: Any = None, metadata: bool = True, **inputs: Any) -> Outcome:
        return run(call_of(folders, class_type, inputs, extra=extra or {}, metadata=metadata))

    return carry_out


def call_of(
    folders: Folders,
    class_type: str,
    inputs: dict[str, Any],
    *,
    facts: Facts | None = None,
    info: ObjectInfo | None = None,
    extra: Any = None,
    metadata: bool = True,
) -> Call:
    known = (info or load_recorded()).get(class_type)
    assert known is not None
    return Call("1", known, inputs, GRAPH, facts or Facts(), folders, extra or {}, metadata)


def batch(*colours: tuple[int, int, int], size: tuple[int, int] = (8, 4)) -> Images:
    return Images(tuple(Image.new("RGB", size, colour) for colour in colours))


def colours(images: Images) -> list[Any]:
    return [frame.getpixel((0, 0)) for frame in images.frames]


def test_empty_image(node: Any) -> None:
    (images,) = node("EmptyImage", width=5, height=3, batch_size=2, color=0x102030).outputs
    assert images.size == (5, 3)
    assert colours(images) == [(16, 32, 48)] * 2


def test_load_image_and_its_mask(node: Any, folders: Folders) -> None:
    Image.new("RGBA", (6, 2), (10, 20, 30, 55)).save(folders.input / "see_through.png")
    images, masks = node("LoadImage", image="see_through.png").outputs
    assert colours(images) == [(10, 20, 30)]
    assert masks.frames[0].getpixel((0, 0)) == 200
    (alpha,) = node("LoadImageMask", image="see_through.png", channel="alpha").outputs
    (green,) = node("LoadImageMask", image="see_through.png", channel="green").outputs
    assert (alpha.frames[0].getpixel((0, 0)), green.frames[0].getpixel((0, 0))) == (200, 20)


def test_a_picture_without_transparency_has_an_empty_mask(node: Any, folders: Folders) -> None:
    Image.new("L", (6, 2), 90).save(folders.output / "grey.png")
    images, masks = node("LoadImage", image="grey.png [output]").outputs
    assert colours(images) == [(90, 90, 90)]
    assert masks.size == (64, 64)


def test_an_animation_is_a_batch(node: Any, folders: Folders) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, BLUE)]
    frames[0].save(folders.input / "moving.png", save_all=True, append_images=frames[1:])
    images, masks = node("LoadImage", image="moving.png").outputs
    assert colours(images) == [RED, BLUE]
    assert len(masks.frames) == 2


@pytest.mark.parametrize(
    ("class_type", "inputs", "size"),
    [
        ("ImageScale", {"width": 16, "height": 4, "crop": "disabled"}, (16, 4)),
        ("ImageScale", {"width": 0, "height": 2, "crop": "disabled"}, (4, 2)),
        ("ImageScale", {"width": 2, "height": 0, "crop": "center"}, (2, 1)),
        ("ImageScale", {"width": 0, "height": 0, "crop": "center"}, (8, 4)),
        ("ImageScaleBy", {"scale_by": 1.5}, (12, 6)),
        ("ImageScaleToTotalPixels", {"megapixels": 0.0001}, (14, 7)),
        ("ImageScaleToMaxDimension", {"largest_size": 16}, (16, 8)),
        ("ImageCrop", {"width": 3, "height": 99, "x": 6, "y": 1}, (2, 3)),
    ],
)
def test_sizes(node: Any, class_type: str, inputs: dict[str, Any], size: tuple[int, int]) -> None:
    (images,) = node(class_type, image=batch(RED), upscale_method="lanczos", **inputs).outputs
    assert images.size == size


def test_a_centre_crop_keeps_the_middle(node: Any) -> None:
    image = Image.new("RGB", (8, 4), RED)
    image.paste(BLUE, (2, 0, 6, 4))
    inputs = {"upscale_method": "nearest-exact", "width": 4, "height": 4, "crop": "center"}
    (images,) = node("ImageScale", image=Images((image,)), **inputs).outputs
    assert images.frames[0].getcolors() == [(16, BLUE)]


def test_batches(node: Any) -> None:
    (joined,) = node("ImageBatch", image1=batch(RED), image2=batch(BLUE, size=(30, 30))).outputs
    assert colours(joined) == [RED, BLUE]
    assert {frame.size for frame in joined.frames} == {(8, 4)}
    (second,) = node("ImageFromBatch", image=joined, batch_index=1, length=5).outputs
    assert colours(second) == [BLUE]
    (repeated,) = node("RepeatImageBatch", image=joined, amount=2).outputs
    assert colours(repeated) == [RED, BLUE, RED, BLUE]
    assert node("GetImageSize", image=joined).outputs == (8, 4, 2)
    (inverted,) = node("ImageInvert", image=joined).outputs
    assert colours(inverted) == [(0, 255, 255), (255, 255, 0)]


def test_masks(node: Any) -> None:
    (solid,) = node("SolidMask", value=0.2, width=3, height=2).outputs
    (inverted,) = node("InvertMask", mask=solid).outputs
    (image,) = node("MaskToImage", mask=inverted).outputs
    assert colours(image) == [(204, 204, 204)]
    (red,) = node("ImageToMask", image=batch(RED), channel="red").outputs
    assert red.frames[0].getpixel((0, 0)) == 255


def test_a_picture_is_laid_over_another_through_a_mask(node: Any) -> None:
    half = Image.new("L", (4, 2))
    half.paste(255, (0, 0, 2, 2))
    under, over = batch(RED, RED), batch(BLUE, size=(4, 2))
    (joined,) = node(
        "ImageCompositeMasked", destination=under, source=over, x=1, y=1, resize_source=False, mask=Masks((half,))
    ).outputs
    assert [joined.frames[1].getpixel((x, 1)) for x in (0, 1, 4)] == [RED, BLUE, RED]
    (whole,) = node("ImageCompositeMasked", destination=under, source=over, x=0, y=0, resize_source=True).outputs
    assert colours(whole) == [BLUE, BLUE]


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("4x-UltraSharp.pth", 4),
        ("RealESRGAN_x2plus.pth", 2),
        ("tiny_2x.safetensors", 2),
        ("8x_NMKD-Superscale.pth", 8),
        ("1xDenoise.pth", 1),
        ("sdxl_refiner.safetensors", 4),
        ("", 4),
    ],
)
def test_an_upscaler_enlarges_by_its_name(node: Any, name: str, factor: int) -> None:
    assert upscale_factor(name) == factor
    model = StandIn("UPSCALE_MODEL", "UpscaleModelLoader", name)
    (images,) = node("ImageUpscaleWithModel", image=batch(RED, BLUE), upscale_model=model).outputs
    assert images.size == (8 * factor, 4 * factor)
    assert colours(images) == [RED, BLUE]


def test_a_picture_that_is_none(node: Any) -> None:
    with pytest.raises(TypeError, match="ImageInvert: image is not a picture but latent"):
        node("ImageInvert", image=Latent())
    with pytest.raises(TypeError, match="SaveAudio: audio is not a sound"):
        node("SaveAudio", audio="noise")


def files_of(folders: Folders, refs: Any) -> list[Path]:
    places = {"output": folders.output, "temp": folders.temp}
    return [places[ref["type"]] / ref["subfolder"] / ref["filename"] for ref in refs]


def test_save_image_writes_what_it_reports(node: Any, folders: Folders) -> None:
    extra = {"extra_pnginfo": {"workflow": {"a": 1}}}
    report = node("SaveImage", images=batch(RED, BLUE), filename_prefix="a/p_%width%", extra=extra).report
    assert report == {
        "images": [
            {"filename": "p_8_00001_.png", "subfolder": "a", "type": "output"},
            {"filename": "p_8_00002_.png", "subfolder": "a", "type": "output"},
        ]
    }
    with Image.open(files_of(folders, report["images"])[1]) as saved:
        assert saved.getpixel((0, 0)) == BLUE
        assert {name: json.loads(text) for name, text in saved.info.items()} == {"prompt": GRAPH, "workflow": {"a": 1}}


def test_without_metadata_files_carry_nothing(node: Any, folders: Folders) -> None:
    report = node("SaveImage", images=batch(RED), filename_prefix="p", metadata=False).report
    with Image.open(files_of(folders, report["images"])[0]) as saved:
        assert saved.info == {}


def test_previews_go_to_the_temp_folder(node: Any, folders: Folders) -> None:
    shown = node("PreviewImage", images=batch(RED)).report["images"]
    mask = node("MaskPreview", mask=Masks((Image.new("L", (3, 3)),))).report["images"]
    sound = node("PreviewAudio", audio=Sound(0.1)).report["audio"]
    assert {ref["type"] for ref in shown + mask + sound} == {"temp"}
    assert all(path.is_file() for path in files_of(folders, shown + mask + sound))
    assert shown[0]["filename"].startswith("ComfyUI_temp_")


@pytest.mark.parametrize(
    ("class_type", "suffix", "inputs"),
    [
        ("SaveAnimatedWEBP", ".webp", {"lossless": True, "quality": 80, "method": "fastest"}),
        ("SaveAnimatedPNG", ".png", {"compress_level": 1}),
    ],
)
def test_animations(node: Any, folders: Folders, class_type: str, suffix: str, inputs: dict[str, Any]) -> None:
    report = node(class_type, images=batch(RED, BLUE), filename_prefix="w", fps=10.0, **inputs).report
    assert report["animated"] == [True]
    (path,) = files_of(folders, report["images"])
    assert path.name == f"w_00001_{suffix}"
    with Image.open(path) as saved:
        saved.load()
        assert saved.n_frames == 2  # type: ignore[attr-defined]
        assert saved.info["duration"] == 100


def boxes(content: bytes) -> dict[str, bytes]:
    """The boxes of an MP4 file, one level down."""
    found, at = {}, 0
    while at < len(content):
        size, kind = struct.unpack_from(">I4s", content, at)
        found[kind.decode()] = content[at + 8 : at + size]
        at += size
    return found


def test_a_clip_is_an_mp4_of_jpegs(node: Any, folders: Folders) -> None:
    (clip,) = node("CreateVideo", images=batch(RED, BLUE, size=(16, 8)), fps=8.0).outputs
    report = node("SaveVideo", video=clip, filename_prefix="video/v", format="auto", codec="auto").report
    assert report["animated"] == [True]
    (path,) = files_of(folders, report["images"])
    assert path == folders.output / "video" / "v_00001_.mp4"
    content = path.read_bytes()
    top = boxes(content)
    assert list(top) == ["ftyp", "mdat", "moov"]
    media = boxes(boxes(boxes(top["moov"])["trak"])["mdia"])
    samples = boxes(boxes(media["minf"])["stbl"])
    timescale, duration = struct.unpack_from(">II", media["mdhd"], 12)
    assert duration / timescale == 2 / 8
    lengths = struct.unpack_from(">2I", samples["stsz"], 12)
    assert sum(lengths) == len(top["mdat"])
    (first,) = struct.unpack_from(">I", samples["stco"], 8)
    assert content[first : first + 2] == content[first + lengths[0] :][:2] == b"\xff\xd8", "JPEG's first bytes"


def test_a_loaded_clip_is_saved_as_it_is(node: Any, folders: Folders) -> None:
    (folders.input / "mine.webm").write_bytes(b"a clip")
    (clip,) = node("LoadVideo", file="mine.webm").outputs
    assert isinstance(clip, Clip)
    report = node("SaveVideo", video=clip, filename_prefix="v").report
    assert files_of(folders, report["images"])[0].read_bytes() == b"a clip"
    assert report["images"][0]["filename"] == "v_00001_.webm"


def read_flac(content: bytes) -> tuple[int, int, int, array[int]]:
    """Rate, channels, samples, and the first channel of a FLAC file of verbatim and constant blocks."""
    assert content[:4] == b"fLaC"
    (packed,) = struct.unpack_from(">Q", content, 18)
    rate, channels, total = packed >> 44, (packed >> 41 & 7) + 1, packed & (1 << 36) - 1
    at, heard = 42, array("h")
    while at < len(content):
        assert content[at : at + 2] == b"\xff\xf8"
        at += 4
        at += 1 if content[at] < 0x80 else 2 if content[at] < 0xE0 else 3
        size = struct.unpack_from(">H", content, at)[0] + 1
        at += 3
        for channel in range(channels):
            kind, at = content[at] >> 1, at + 1
            count = size if kind else 1
            block = array("h", struct.unpack_from(f">{count}h", content, at))
            at += 2 * count
            if channel == 0:
                heard += block if kind else array("h", block.tolist() * size)
        at += 2
    return rate, channels, total, heard


def test_a_tone_and_silence_are_flac_files(node: Any, folders: Folders) -> None:
    tone = node("SaveAudio", audio=Sound(0.5, 8000, 2, 440.0), filename_prefix="audio/a").report["audio"]
    (path,) = files_of(folders, tone)
    assert path == folders.output / "audio" / "a_00001_.flac"
    rate, channels, total, heard = read_flac(path.read_bytes())
    assert (rate, channels, total, len(heard)) == (8000, 2, 4000, 4000)
    assert max(heard) > 7000
    (silence,) = node("EmptyAudio", duration=30.0, sample_rate=44_100, channels=2).outputs
    saved = files_of(folders, node("SaveAudioMP3", audio=silence, filename_prefix="s").report["audio"])[0].read_bytes()
    rate, channels, total, heard = read_flac(saved)
    assert (rate, channels, total, set(heard)) == (44_100, 2, 30 * 44_100, {0})
    assert len(saved) < 10_000


def test_save_latent_is_a_safetensors_file(node: Any, folders: Folders) -> None:
    report = node("SaveLatent", samples=Latent(64, 32, 2), filename_prefix="latents/x").report
    content = files_of(folders, report["latents"])[0].read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    assert header["latent_tensor"]["shape"] == [2, 4, 4, 8]
    assert len(content) == 8 + length + header["latent_tensor"]["data_offsets"][1]
    assert json.loads(header["__metadata__"]["prompt"]) == GRAPH


def test_save_glb_is_a_mesh(node: Any, folders: Folders) -> None:
    report = node("SaveGLB", mesh=StandIn("MESH", "VoxelToMesh"), filename_prefix="mesh/m").report
    content = files_of(folders, report["3d"])[0].read_bytes()
    magic, version, length = struct.unpack_from("<4sII", content)
    assert (magic, version, length) == (b"glTF", 2, len(content))
    size, kind = struct.unpack_from("<I4s", content, 12)
    assert kind == b"JSON"
    described = json.loads(content[20 : 20 + size])
    assert described["buffers"][0]["byteLength"] == struct.unpack_from("<I", content, 20 + size)[0]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("hello", "hello"),
        (7, "7"),
        (True, "True"),
        (None, "None"),
        ({"a": [1]}, '{"a": [1]}'),
        (Latent(8, 8), "latent of 1 x 8x8"),
    ],
)
def test_preview_any(node: Any, source: Any, text: str) -> None:
    assert node("PreviewAny", source=source).report == {"text": [text]}


@pytest.mark.parametrize(
    ("class_type", "inputs", "name"),
    [
        ("CheckpointSave", {"filename_prefix": "m/c"}, "m/c_00001_.safetensors"),
        ("CLIPSave", {"filename_prefix": "m/c"}, "m/c_clip_l_00001_.safetensors"),
        ("LoraSave", {"filename_prefix": "c"}, "c_00001_.safetensors"),
        ("SaveLoRANode", {"prefix": "loras/c", "steps": 40}, "loras/c_40_steps_00001_.safetensors"),
    ],
)
def test_savers_of_models_write_a_file_and_report_nothing(
    node: Any, folders: Folders, class_type: str, inputs: dict[str, Any], name: str
) -> None:
    assert node(class_type, model=StandIn("MODEL", "x"), **inputs) == Outcome(())
    content = (folders.output / name).read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    assert header["__metadata__"]["made_by"] == "rehearsal"
    assert len(content) == 8 + length + header["rehearsal"]["data_offsets"][1]


def test_a_folder_of_pictures_is_a_batch(node: Any, folders: Folders) -> None:
    folder = folders.input / "set"
    folder.mkdir()
    Image.new("RGB", (6, 4), BLUE).save(folder / "b.png")
    Image.new("RGB", (6, 4), RED).save(folder / "a.png")
    (folder / "notes.txt").write_text("no picture")
    (images,) = node("LoadImageSetFromFolderNode", folder="set").outputs
    assert colours(images) == [RED, BLUE]
    Image.new("RGB", (3, 3), BLUE).save(folder / "c.png")
    with pytest.raises(ValueError, match="does not match the first image"):
        node("LoadImageSetFromFolderNode", folder="set", resize_method="None")
    (images,) = node("LoadImageSetFromFolderNode", folder="set", resize_method="Stretch").outputs
    assert {frame.size for frame in images.frames} == {(6, 4)}
    (folders.input / "empty").mkdir()
    with pytest.raises(ValueError, match="No valid images"):
        node("LoadImageSetFromFolderNode", folder="empty")


def test_primitives_hand_on_their_value(node: Any) -> None:
    assert node("PrimitiveInt", value=7).outputs == (7,)
    assert node("StringConcatenate", string_a="a", string_b="b", delimiter="-").outputs == ("a-b",)


def test_stand_ins_say_what_they_are(folders: Folders) -> None:
    call = call_of(folders, "CheckpointLoaderSimple", {"ckpt_name": "x.pt"}, facts=Facts(models=("x.pt",)))
    model, clip, vae = run(call).outputs
    assert [value.kind for value in (model, clip, vae)] == ["MODEL", "CLIP", "VAE"]
    assert str(model) == "rehearsal: MODEL from CheckpointLoaderSimple (x.pt)"


def test_sizes_travel_through_latents_to_pictures(node: Any) -> None:
    (latent,) = node("EmptyLatentImage", width=64, height=40, batch_size=2).outputs
    (larger,) = node("LatentUpscaleBy", samples=latent, scale_by=2.0).outputs
    (images,) = node("VAEDecode", samples=larger, vae=StandIn("VAE", "x")).outputs
    assert (images.size, len(images.frames)) == ((128, 80), 2)
    assert images.frames[0].tobytes() != images.frames[1].tobytes()
    (encoded,) = node("VAEEncode", pixels=images, vae=StandIn("VAE", "x")).outputs
    assert (encoded.width, encoded.height, encoded.batch) == (128, 80, 2)


def test_a_long_clip_of_a_video_model(node: Any) -> None:
    (latent,) = node("EmptyHunyuanLatentVideo", width=64, height=32, length=121, batch_size=1).outputs
    (images,) = node("VAEDecode", samples=latent, vae=None).outputs
    assert len(images.frames) == 121
    assert len({id(frame) for frame in images.frames}) < 121, "a long clip repeats pictures"


def test_sounds_have_a_length(node: Any) -> None:
    (latent,) = node("EmptyLatentAudio", seconds=3.0, batch_size=1).outputs
    (sound,) = node("VAEDecodeAudio", samples=latent, vae=None).outputs
    assert sound.seconds == 3.0
    assert 220 <= sound.pitch_hz <= 880


def test_pictures_are_the_same_for_the_same_facts(folders: Folders) -> None:
    def drawn(facts: Facts) -> bytes:
        call = call_of(folders, "VAEDecode", {"samples": Latent(96, 64)}, facts=facts)
        return bytes(run(call).outputs[0].frames[0].tobytes())

    facts = Facts("a lighthouse — Ünïcode 灯台", 7, 20, ("x.safetensors",))
    assert drawn(facts) == drawn(facts)
    assert drawn(facts) != drawn(Facts("a lighthouse", 8))


def sampler_graph() -> dict[str, Any]:
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "xl.safetensors"}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a lighthouse", "clip": ["1", 1]}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "ugly", "clip": ["1", 1]}},
        "5": {
            "class_type": "KSampler",
            "inputs": {"seed": 7, "steps": 3, "model": ["1", 0], "negative": ["3", 0], "positive": ["2", 0]},
        },
        "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
    }


def test_facts_are_read_from_the_graph() -> None:
    facts = facts_of(sampler_graph(), "6", load_recorded())
    assert facts == Facts("a lighthouse", 7, 3, ("xl.safetensors",), "ugly")
    assert facts_of(sampler_graph(), "1", load_recorded()) == Facts(models=("xl.safetensors",))


def test_joined_words_loras_and_the_sampler_are_facts() -> None:
    graph = sampler_graph()
    graph["2"]["inputs"]["text"] = ["8", 0]
    graph["7"] = {"class_type": "PrimitiveString", "inputs": {"value": "a lighthouse"}}
    graph["8"] = {
        "class_type": "StringConcatenate",
        "inputs": {"string_a": "best quality", "string_b": ["7", 0], "delimiter": ", "},
    }
    lora = {"lora_name": "detail.safetensors", "strength_model": 0.8, "strength_clip": 1.0, "model": ["1", 0]}
    graph["9"] = {"class_type": "LoraLoader", "inputs": lora}
    graph["5"]["inputs"] |= {"model": ["9", 0], "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal"}
    facts = facts_of(graph, "6", load_recorded())
    assert facts.prompt == "best quality, a lighthouse"
    assert facts.model_lines() == ["xl.safetensors", "detail.safetensors at 0.8"]
    assert facts.settings == ("cfg 7, euler, normal",)


def test_a_negative_prompt_is_found_behind_nodes_that_change_both() -> None:
    graph = sampler_graph()
    both = {"positive": ["2", 0], "negative": ["3", 0]}
    graph["7"] = {"class_type": "ControlNetApplyAdvanced", "inputs": both}
    graph["5"]["inputs"] |= {"positive": ["7", 0], "negative": ["7", 1]}
    facts = facts_of(graph, "6", load_recorded())
    assert (facts.prompt, facts.unwanted) == ("a lighthouse", "ugly")


def test_what_is_to_be_seen_tells_on_the_picture(folders: Folders) -> None:
    def drawn(facts: Facts) -> bytes:
        call = call_of(folders, "VAEDecode", {"samples": Latent(256, 256)}, facts=facts)
        return bytes(run(call).outputs[0].frames[0].tobytes())

    facts = Facts("a lighthouse", 7, 20, ("l.safetensors",))
    weak, strong = (replace(facts, strengths=(("l.safetensors", strength),)) for strength in (0.5, 1.0))
    assert len({drawn(facts), drawn(weak), drawn(strong), drawn(replace(facts, unwanted="fog"))}) == 4


@pytest.mark.parametrize(
    ("class_type", "inputs", "steps"),
    [
        ("KSampler", {"steps": 20}, 20),
        ("KSamplerAdvanced", {"steps": 20, "start_at_step": 5, "end_at_step": 10_000}, 15),
        ("KSamplerAdvanced", {"steps": 20, "start_at_step": 0, "end_at_step": 8}, 8),
        ("SamplerCustom", {"sigmas": StandIn("SIGMAS", "BasicScheduler")}, 4),
        ("BasicScheduler", {"steps": 20}, 0),
        ("VAEDecode", {"samples": Latent()}, 0),
        ("ImageUpscaleWithModel", {"image": batch(RED, BLUE)}, 2),
        ("ImageUpscaleWithModel", {"image": batch(RED, size=(513, 1200))}, 2 * 3),
    ],
)
def test_steps(folders: Folders, class_type: str, inputs: dict[str, Any], steps: int) -> None:
    assert steps_of(call_of(folders, class_type, inputs, facts=Facts(steps=4))) == steps


def test_a_class_of_a_node_pack(folders: Folders) -> None:
    raw = {"PackNode": {"input": {}, "output": ["IMAGE", "MASK", "AUDIO", "VIDEO", "INT", "STRING", "THING"]}}
    inputs = {"width": 32, "height": 16, "name": "n"}
    image, mask, sound, clip, number, text, thing = run(
        call_of(folders, "PackNode", inputs, info=ObjectInfo(raw))
    ).outputs
    assert image.size == mask.size == clip.images.size == (32, 16)
    assert sound.seconds > 0
    assert (number, text, str(thing)) == (32, "n", "rehearsal: THING from PackNode")

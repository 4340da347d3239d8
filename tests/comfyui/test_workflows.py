"""Every shipped workflow that needs no node pack, executed by a real ComfyUI, in tiny pictures of random weights.

What is drawn is noise. That it changes with a param, and stays where it must, shows that the param reaches its place.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import random
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from PIL import Image, ImageChops

from morpheus_worker.comfy.files import LocalFiles
from morpheus_worker.comfy.launch import ComfyFolders
from morpheus_worker.pipeline import Worker, run_job
from tests.integration.conftest import assembled
from tests.integration.jobs import check_files, data_uri, graph_job, succeeded
from tests.tools.make_tiny_models import LORA_NAME, UPSCALER_NAME, VAE_NAME

from .conftest import CHECKPOINT, SDXL_CHECKPOINT
from .process import CHECKPOINT_NAME, MODEL_MAKER, RealComfyUI

SHIPPED: Final = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted(Path(__file__).resolve().parents[2].glob("workflows/*.json"))
}
SDXL_NAME: Final = "random_sdxl.safetensors"
REFINER_NAME: Final = "random_refiner.safetensors"
MAKE_S: Final = 120.0

PICTURE_SIZE: Final = (100, 76)
"""No multiple of 8 either way."""
MASKED: Final = (0, 0, 30, 76)
REACH: Final = 30 + 8 + 8 + 3
"""From here on to the right nothing may change: mask, growth, soft edge, and what scaling adds."""

TINY: Final[dict[str, Any]] = {
    "prompt": "a red house", "seed": 7, "steps": 1, "cfg": 12.0, "sampler_name": "euler", "scheduler": "normal",
}  # fmt: skip
CANVAS: Final = {"width": 96, "height": 64}


NO_FACES: Final = {"ENABLE_FACE_REFINEMENT": "0"}
"""The environment of a worker without the node pack that sdxl_txt2img_pag redraws faces with."""


@dataclass(eq=False)
class Studio:
    """A worker on the real ComfyUI, and what it drew so far."""

    worker: Worker
    volume: Path
    checkpoint: str = ""
    refiner: str = ""
    made: dict[str, list[Image.Image]] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def run(self, sent: dict[str, Any]) -> list[Image.Image]:
        """The pictures of a job, in their order."""
        result = succeeded(run_job({"id": f"job-{next(self.numbers)}", "input": sent}, self.worker))
        assert {output.kind for output in result.outputs} == {"image"}
        pictures = [Image.open(path).convert("RGB") for path in check_files(result, self.volume)]
        assert [picture.size for picture in pictures] == [(made.width, made.height) for made in result.outputs]
        return pictures

    def draw(self, workflow: str, **params: Any) -> list[Image.Image]:
        """The pictures of a workflow with this checkpoint; what was drawn before is not drawn again."""
        sent = {"workflow_name": workflow, "params": {**TINY, "checkpoint_name": self.checkpoint, **params}}
        key = json.dumps(sent, sort_keys=True)
        if key not in self.made:
            self.made[key] = self.run(sent)
        return self.made[key]


@pytest.fixture(scope="module")
def small_models(real_comfyui: RealComfyUI) -> None:
    """The LoRA and the VAE, where ComfyUI looks for them. They fit SD1.5 and SDXL."""
    folder = real_comfyui.models_directory
    wanted = ["--lora", str(folder / "loras" / LORA_NAME), "--vae", str(folder / "vae" / VAE_NAME)]
    command = [str(real_comfyui.installation.python), str(MODEL_MAKER), *wanted]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=MAKE_S)


@pytest.fixture(scope="module")
def core(real_comfyui: RealComfyUI, small_models: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """Without a checkpoint."""
    with studio_at(real_comfyui, tmp_path_factory.mktemp("volume")) as made:
        yield made


@pytest.fixture(scope="module")
def sd15(real_comfyui: RealComfyUI, small_models: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """With the checkpoint of SD1.5, whose shape every one of these workflows runs on, too."""
    if real_comfyui.models.checkpoint is None:
        pytest.skip(f"needs a checkpoint: set {CHECKPOINT} to one made by {MODEL_MAKER.name} --sd15")
    with studio_at(real_comfyui, tmp_path_factory.mktemp("volume"), CHECKPOINT_NAME) as made:
        yield made


@pytest.fixture(scope="module")
def sdxl(
    real_comfyui: RealComfyUI,
    small_models: None,
    sdxl_checkpoint: Path | None,
    sdxl_refiner: Path | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Studio]:
    """With the checkpoint of SDXL's shape, which stands for the refiner's as well unless there is one."""
    if sdxl_checkpoint is None:
        pytest.skip(f"needs a checkpoint: set {SDXL_CHECKPOINT} to one made by {MODEL_MAKER.name} --sdxl")
    checkpoints = real_comfyui.models_directory / "checkpoints"
    (checkpoints / SDXL_NAME).symlink_to(sdxl_checkpoint.resolve())
    if sdxl_refiner is not None:
        (checkpoints / REFINER_NAME).symlink_to(sdxl_refiner.resolve())
    refiner = REFINER_NAME if sdxl_refiner is not None else SDXL_NAME
    with studio_at(real_comfyui, tmp_path_factory.mktemp("volume"), SDXL_NAME, refiner) as made:
        yield made


@contextlib.contextmanager
def studio_at(comfyui: RealComfyUI, volume: Path, checkpoint: str = "", refiner: str | None = None) -> Iterator[Studio]:
    base = comfyui.base_directory
    folders = ComfyFolders(base / "models", base / "custom_nodes", base / "input", base / "output", base / "temp")
    with assembled(comfyui.url, volume, LocalFiles(folders), **NO_FACES) as worker:
        yield Studio(worker, volume, checkpoint, refiner or checkpoint)


def apart(one: Image.Image, other: Image.Image) -> int:
    """The largest difference of any pixel in any channel, 0 to 255."""
    assert one.size == other.size
    return max(ImageChops.difference(one, other).tobytes())


def noise() -> Image.Image:
    width, height = PICTURE_SIZE
    return Image.frombytes("RGB", PICTURE_SIZE, random.Random(1).randbytes(width * height * 3))


def mask() -> Image.Image:
    drawn = Image.new("RGB", PICTURE_SIZE, "black")
    drawn.paste("white", MASKED)
    return drawn


def see_through() -> Image.Image:
    """The picture, transparent where the mask is white."""
    picture = noise()
    picture.putalpha(ImageChops.invert(mask().convert("L")))
    return picture


def sent(picture: Image.Image) -> str:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return data_uri(stream.getvalue())


NEEDED: Final[dict[str, dict[str, Any]]] = {
    "smoke": {},
    "upscale": {"image": sent(noise()), "upscale_model": UPSCALER_NAME},
    "sdxl_txt2img": CANVAS,
    "sdxl_txt2img_pag": CANVAS,
    "sdxl_base_refiner": {**CANVAS, "steps": 2, "switch_at": 0.5},
    "sdxl_img2img": {"image": sent(noise()), "megapixels": 0},
    "sdxl_inpaint": {"image": sent(noise()), "mask": sent(mask()), "megapixels": 0, "steps": 2},
}
"""What each workflow is sent besides TINY and a checkpoint."""


def test_no_core_workflow_is_left_out() -> None:
    core = {name for name, template in SHIPPED.items() if not template["_about"].get("packs")}
    assert set(NEEDED) == core | {"sdxl_txt2img_pag"}


def test_smoke(core: Studio) -> None:
    params = {"width": 40, "height": 8, "color": 255, "batch_size": 3}
    pictures = core.run({"workflow_name": "smoke", "params": params})
    assert [picture.size for picture in pictures] == [(40, 8)] * 3
    assert {picture.getpixel((0, 0)) for picture in pictures} == {(0, 0, 255)}


@pytest.mark.parametrize(("scale", "size"), [(None, (200, 152)), (1.5, (150, 114)), (3, (300, 228)), (0.5, (50, 38))])
def test_upscale_to_the_scale_wanted(scale: float | None, size: tuple[int, int], core: Studio) -> None:
    """The model itself enlarges twice."""
    (picture,) = core.run({"workflow_name": "upscale", "params": {**NEEDED["upscale"], "scale": scale}})
    assert picture.size == size


def draw(studio: Studio, workflow: str, **params: Any) -> list[Image.Image]:
    refiner = {"refiner_name": studio.refiner} if workflow == "sdxl_base_refiner" else {}
    return studio.draw(workflow, **{**NEEDED[workflow], **refiner, **params})


def one(studio: Studio, workflow: str, **params: Any) -> Image.Image:
    (picture,) = draw(studio, workflow, **params)
    return picture


DRAWING: Final = [name for name in NEEDED if name.startswith("sdxl_")]


@pytest.mark.parametrize("workflow", DRAWING)
def test_two_pictures_at_once_with_another_vae(workflow: str, sd15: Studio) -> None:
    first, second = draw(sd15, workflow, batch_size=2, vae_name=VAE_NAME)
    expected = {"sdxl_inpaint": PICTURE_SIZE, "sdxl_img2img": (96, 72)}.get(workflow, (96, 64))
    assert (first.size, second.size) == (expected, expected)
    assert apart(first, second) > 0
    assert apart(first, one(sd15, workflow)) > 0


def test_a_seed_draws_one_picture_whatever_the_params_are_called(sd15: Studio) -> None:
    first = one(sd15, "sdxl_txt2img")
    assert apart(first, one(sd15, "sdxl_txt2img", seed=8)) > 0
    flat = {**TINY, **CANVAS, "checkpoint_name": sd15.checkpoint, "cfg_scale": TINY["cfg"]}
    del flat["cfg"]
    (again,) = sd15.run({"workflow_name": "creation", **flat})  # ComfyUI has forgotten the first one by now
    assert apart(first, again) == 0


def test_loras_act_one_after_the_other(sd15: Studio) -> None:
    halves = one(sd15, "sdxl_txt2img", loras=[{"name": LORA_NAME, "strength": 0.5}] * 2)
    whole = one(sd15, "sdxl_txt2img", loras=[LORA_NAME])
    assert apart(whole, one(sd15, "sdxl_txt2img")) > 10
    assert apart(whole, halves) <= 2, "two halves are a whole, but for rounding"


def anime(studio: Studio, **params: Any) -> Image.Image:
    return one(studio, "sdxl_txt2img_pag", **params)


def test_without_its_guidance_the_anime_workflow_draws_as_the_plain_one(sd15: Studio) -> None:
    """SD1.5 reads the last layer of its text encoder by itself."""
    bare = anime(sd15, quality_prompt=False, pag_scale=0, cfg_rescale=0, clip_skip=1)
    assert apart(bare, one(sd15, "sdxl_txt2img")) == 0


@pytest.mark.parametrize(
    "changed",
    [{"pag_scale": 0}, {"cfg_rescale": 1.0}, {"clip_skip": 4}, {"quality_words": ""}, {"quality_negative_words": ""}],
    ids=lambda changed: "-".join(changed),
)
def test_a_param_of_the_anime_workflow_changes_the_picture(changed: dict[str, Any], sd15: Studio) -> None:
    assert apart(anime(sd15), anime(sd15, **changed)) > 0


def test_brackets_weigh_less(sd15: Studio) -> None:
    assert apart(anime(sd15, prompt="a [[red]] house"), anime(sd15, prompt="a (red:0.83) house")) == 0
    assert apart(anime(sd15, prompt="a [[red]] house"), anime(sd15)) > 0


def test_the_anime_service_s_own_names(sd15: Studio) -> None:
    flat = {
        "prompt": TINY["prompt"], "seed": TINY["seed"], "num_inference_steps": 1, "guidance_scale": TINY["cfg"],
        "num_outputs": 1, "face_yolov9c": False, "pag_scale": 3.0, "clip_skip": 2, "sampler_name": "euler",
        "scheduler": "normal", "checkpoint_name": sd15.checkpoint, **CANVAS,
    }  # fmt: skip
    (picture,) = sd15.run({"workflow_name": "sdxl_txt2img_pag", **flat})
    assert apart(picture, anime(sd15)) == 0


def test_a_refiner_that_is_the_base_draws_on_as_the_base_would(sd15: Studio) -> None:
    """So nothing is lost or drawn twice where one hands over to the other."""
    whole = one(sd15, "sdxl_txt2img", steps=2)
    assert apart(one(sd15, "sdxl_base_refiner", switch_at=1), whole) == 0
    assert apart(one(sd15, "sdxl_base_refiner"), whole) <= 2


def test_a_picture_is_scaled_to_what_the_model_draws_well(sd15: Studio) -> None:
    small = one(sd15, "sdxl_img2img", megapixels=0.01)
    assert small.size == (112, 88), "about 10,000 pixels of the same shape, in whole units of 8"


def test_denoise_decides_how_much_of_the_picture_stays(sd15: Studio) -> None:
    """With none the model is not asked, and the picture only passes the VAE."""
    kept = one(sd15, "sdxl_img2img", denoise=0.0)
    assert apart(kept, one(sd15, "sdxl_img2img", denoise=0.0, prompt="a green house")) == 0
    assert apart(kept, one(sd15, "sdxl_img2img")) > 0


def test_a_dataset_from_a_reference(sd15: Studio) -> None:
    """As its clients send it: the picture as a path, no size."""
    noise().save(sd15.volume / "face.png")
    flat = {**TINY, "checkpoint_name": sd15.checkpoint, "base_image_pod_path": "/workspace/face.png", "megapixels": 0}
    (picture,) = sd15.run({"workflow_name": "generate_dataset_from_reference", **flat})
    assert apart(picture, one(sd15, "sdxl_img2img")) == 0


def changes(picture: Image.Image) -> tuple[int, int]:
    """The largest change in the masked part, and in the part that nothing may reach."""
    width, height = PICTURE_SIZE
    parts = (MASKED, (REACH, 0, width, height))
    inside, outside = (apart(picture.crop(part), noise().crop(part)) for part in parts)
    return inside, outside


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"megapixels": 0.02},
        {"soft_edge": 0, "grow_mask": 0},
        {"mask": sent(see_through()), "mask_channel": "alpha"},
    ],
    ids=lambda params: "-".join(params) or "as it is",
)
def test_only_the_masked_part_is_repainted(params: dict[str, Any], sd15: Studio) -> None:
    inside, outside = changes(one(sd15, "sdxl_inpaint", **params))
    assert inside > 100
    assert outside == 0


def test_a_mask_says_the_same_in_its_own_picture_and_in_the_alpha_channel(sd15: Studio) -> None:
    """Without a mask nothing of the transparent part is kept, unless denoise says so."""
    alpha = one(sd15, "sdxl_inpaint", mask=None, image=sent(see_through()))
    assert apart(alpha, one(sd15, "sdxl_inpaint", denoise=1.0)) == 0


def test_a_picture_without_a_mask_and_without_transparency_stays(sd15: Studio) -> None:
    assert apart(one(sd15, "sdxl_inpaint", mask=None), noise()) == 0


def test_a_soft_edge_reaches_further_than_a_hard_one(sd15: Studio) -> None:
    band = (36, 0, 38, PICTURE_SIZE[1])
    hard = one(sd15, "sdxl_inpaint", soft_edge=0, grow_mask=0)
    assert apart(hard.crop(band), noise().crop(band)) == 0
    assert apart(one(sd15, "sdxl_inpaint").crop(band), noise().crop(band)) > 0


def test_sdxl_draws_a_batch_with_loras_and_a_vae(sdxl: Studio) -> None:
    plain = one(sdxl, "sdxl_txt2img")
    with_loras = draw(sdxl, "sdxl_txt2img", loras=[LORA_NAME] * 2, batch_size=2)
    assert apart(with_loras[0], plain) > 0
    assert apart(*with_loras) > 0
    assert apart(one(sdxl, "sdxl_txt2img", vae_name=VAE_NAME), plain) > 0


def test_sdxl_reads_the_layer_before_the_last_by_itself(sdxl: Studio) -> None:
    bare = anime(sdxl, quality_prompt=False, pag_scale=0, cfg_rescale=0)
    assert apart(bare, one(sdxl, "sdxl_txt2img")) == 0


@pytest.mark.parametrize("changed", [{"pag_scale": 0}, {"cfg_rescale": 1.0}], ids=lambda changed: "-".join(changed))
def test_sdxl_is_guided(changed: dict[str, Any], sdxl: Studio) -> None:
    assert apart(anime(sdxl), anime(sdxl, **changed)) > 0


def test_the_refiner_takes_over_as_with_two_advanced_samplers(sdxl: Studio) -> None:
    """The base has a LoRA here, the refiner has none."""
    ours = one(sdxl, "sdxl_base_refiner", loras=[LORA_NAME])
    (theirs,) = sdxl.run(graph_job(advanced_samplers(sdxl.checkpoint, sdxl.refiner)))
    assert apart(ours, theirs) <= 1
    assert apart(ours, one(sdxl, "sdxl_base_refiner", loras=[LORA_NAME], switch_at=1)) > 0


def advanced_samplers(checkpoint: str, refiner: str) -> dict[str, Any]:
    """The first of two steps by the base, the other one by the refiner, with KSamplerAdvanced."""
    sampling = {
        "noise_seed": TINY["seed"], "steps": 2, "cfg": TINY["cfg"],
        "sampler_name": TINY["sampler_name"], "scheduler": TINY["scheduler"],
    }  # fmt: skip
    refiner_text = {"clip": ["12", 1], **CANVAS}
    nodes: dict[str, tuple[str, dict[str, Any]]] = {
        "1": ("CheckpointLoaderSimple", {"ckpt_name": checkpoint}),
        "2": ("LoraLoader", {
            "model": ["1", 0], "clip": ["1", 1], "lora_name": LORA_NAME, "strength_model": 1.0, "strength_clip": 1.0,
        }),
        "3": ("CLIPTextEncode", {"clip": ["2", 1], "text": TINY["prompt"]}),
        "4": ("CLIPTextEncode", {"clip": ["2", 1], "text": ""}),
        "5": ("CLIPTextEncodeSDXLRefiner", {**refiner_text, "text": TINY["prompt"], "ascore": 6.0}),
        "6": ("CLIPTextEncodeSDXLRefiner", {**refiner_text, "text": "", "ascore": 2.5}),
        "7": ("EmptyLatentImage", {**CANVAS, "batch_size": 1}),
        "8": ("KSamplerAdvanced", {
            **sampling, "model": ["2", 0], "positive": ["3", 0], "negative": ["4", 0], "latent_image": ["7", 0],
            "add_noise": "enable", "start_at_step": 0, "end_at_step": 1, "return_with_leftover_noise": "enable",
        }),
        "9": ("KSamplerAdvanced", {
            **sampling, "model": ["12", 0], "positive": ["5", 0], "negative": ["6", 0], "latent_image": ["8", 0],
            "add_noise": "disable", "start_at_step": 1, "end_at_step": 10000, "return_with_leftover_noise": "disable",
        }),
        "10": ("VAEDecode", {"samples": ["9", 0], "vae": ["1", 2]}),
        "11": ("SaveImage", {"images": ["10", 0], "filename_prefix": "advanced"}),
        "12": ("CheckpointLoaderSimple", {"ckpt_name": refiner}),
    }  # fmt: skip
    return {node_id: {"class_type": name, "inputs": inputs} for node_id, (name, inputs) in nodes.items()}


def test_sdxl_edits_a_picture(sdxl: Studio) -> None:
    assert one(sdxl, "sdxl_img2img").size == (96, 72)


def test_sdxl_repaints_only_the_masked_part(sdxl: Studio) -> None:
    inside, outside = changes(one(sdxl, "sdxl_inpaint"))
    assert inside > 100
    assert outside == 0

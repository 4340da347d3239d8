"""Makes models of random weights that ComfyUI loads, for tests and demonstrations without a download.

Run it with ComfyUI's own Python (it needs torch and safetensors):

    python make_tiny_models.py --upscaler models/upscale_models/tiny_2x.safetensors
    python make_tiny_models.py --sd15 models/checkpoints/random_sd15.safetensors --comfyui /path/to/ComfyUI

The same seed gives the same weights with the same version of torch.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

UPSCALER_NAME: Final = "tiny_2x.safetensors"
SEED: Final = 20_240_229
NOISE: Final = 0.02
"""Standard deviation of the random weights: small, so that the picture survives them."""

FEATURES: Final = 8
GROWTH: Final = 32
"""spandrel builds ESRGAN's dense blocks with 32 growth channels, whatever the weights say."""


def write_upscaler(path: Path, *, seed: int = SEED) -> Path:
    """Writes a 2x ESRGAN (8 features, one block, fp16, about 450 kB), in the naming of the original ESRGAN.

    Its weights are random around an identity, so what comes out is the picture, twice as large, with some noise.
    """
    torch: Any = importlib.import_module("torch")
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, Any] = {}
    for name, into, out in _upscaler_convolutions():
        weight = torch.randn(out, into, 3, 3, generator=generator) * NOISE
        if not name.startswith("model.1."):
            for channel in range(min(3, into, out)):
                weight[channel, :, :, :] *= 0.1
                weight[channel, channel, 1, 1] = 1.0
        weights[f"{name}.weight"] = weight.half()
        weights[f"{name}.bias"] = torch.zeros(out).half()
    return _save(weights, path)


def _upscaler_convolutions() -> list[tuple[str, int, int]]:
    """(name, channels in, channels out) of every 3x3 convolution of the network."""
    dense = [
        (
            f"model.1.sub.0.RDB{block}.conv{step}.0",
            FEATURES + GROWTH * (step - 1),
            GROWTH if step < 5 else FEATURES,
        )
        for block in (1, 2, 3)
        for step in (1, 2, 3, 4, 5)
    ]
    return [
        ("model.0", 3, FEATURES),
        *dense,
        ("model.1.sub.1", FEATURES, FEATURES),
        ("model.3", FEATURES, FEATURES),
        ("model.5", FEATURES, FEATURES),
        ("model.7", FEATURES, 3),
    ]


def write_sd15(path: Path, comfyui: Path, *, seed: int = SEED) -> Path:
    """Writes a checkpoint in the shape of Stable Diffusion 1.5 (fp16, about 2 GB) from ComfyUI's own model classes.

    It draws noise, but through the whole of CheckpointLoaderSimple, CLIPTextEncode, KSampler and VAEDecode.
    """
    torch: Any = importlib.import_module("torch")
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, Any] = {}
    for prefix, module in _sd15_parts(comfyui):
        for name, tensor in module.state_dict().items():
            weights[prefix + name] = _randomised(torch, name, tensor, generator)
    return _save(weights, path)


def _sd15_parts(comfyui: Path) -> list[tuple[str, Any]]:
    """(prefix of its keys in a checkpoint, module) of the three networks."""
    sys.path.insert(0, str(comfyui.resolve()))
    importlib.import_module("comfy.cli_args").args.cpu = True
    ops = importlib.import_module("comfy.ops").disable_weight_init
    unet = importlib.import_module("comfy.ldm.modules.diffusionmodules.openaimodel").UNetModel(
        image_size=32,
        in_channels=4,
        out_channels=4,
        model_channels=320,
        num_res_blocks=[2, 2, 2, 2],
        channel_mult=[1, 2, 4, 4],
        transformer_depth=[1, 1, 1, 1, 1, 1, 0, 0],
        transformer_depth_middle=1,
        transformer_depth_output=[1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
        context_dim=768,
        num_heads=8,
        use_spatial_transformer=True,
        legacy=False,
        operations=ops,
    )
    vae = importlib.import_module("comfy.ldm.models.autoencoder").AutoencoderKL(
        embed_dim=4,
        ddconfig={
            "double_z": True,
            "z_channels": 4,
            "resolution": 256,
            "in_channels": 3,
            "out_ch": 3,
            "ch": 128,
            "ch_mult": [1, 2, 4, 4],
            "num_res_blocks": 2,
            "attn_resolutions": [],
            "dropout": 0.0,
        },
    )
    clip = importlib.import_module("comfy.sd1_clip").SDClipModel()
    return [("model.diffusion_model.", unet), ("first_stage_model.", vae), ("cond_stage_model.", clip)]


def _randomised(torch: Any, name: str, tensor: Any, generator: Any) -> Any:
    if not tensor.is_floating_point():
        return tensor.clone()
    if tensor.ndim < 2:
        return (torch.ones if name.endswith("weight") else torch.zeros)(tensor.shape, dtype=torch.float16)
    return (torch.randn(tensor.shape, generator=generator) * NOISE).half()


def _save(weights: dict[str, Any], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    importlib.import_module("safetensors.torch").save_file(weights, str(path))
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--upscaler", type=Path, metavar="FILE", help="write the small 2x upscaler there")
    parser.add_argument("--sd15", type=Path, metavar="FILE", help="write the SD1.5-shaped checkpoint there (2 GB)")
    parser.add_argument("--comfyui", type=Path, metavar="DIR", help="ComfyUI's folder; --sd15 needs it")
    parser.add_argument("--seed", type=int, default=SEED)
    given = parser.parse_args(arguments)
    if given.upscaler is None and given.sd15 is None:
        parser.error("name at least one file: --upscaler FILE, --sd15 FILE")
    if given.sd15 is not None and given.comfyui is None:
        parser.error("--sd15 needs --comfyui DIR")
    if given.upscaler is not None:
        print(write_upscaler(given.upscaler, seed=given.seed))
    if given.sd15 is not None:
        print(write_sd15(given.sd15, given.comfyui, seed=given.seed))


if __name__ == "__main__":
    main()

"""Makes models of random weights that ComfyUI loads, for tests and demonstrations without a download.

Run it with ComfyUI's own Python (it needs torch and safetensors):

    python make_tiny_models.py --upscaler models/upscale_models/tiny_2x.safetensors
    python make_tiny_models.py --lora models/loras/tiny_lora.safetensors --vae models/vae/tiny_vae.safetensors
    python make_tiny_models.py --sd15 models/checkpoints/random_sd15.safetensors --comfyui /path/to/ComfyUI
    python make_tiny_models.py --sdxl models/checkpoints/random_sdxl.safetensors --comfyui /path/to/ComfyUI

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
LORA_NAME: Final = "tiny_lora.safetensors"
VAE_NAME: Final = "tiny_vae.safetensors"
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


LORA_RANK: Final = 2
LORA_NOISE: Final = 0.3
"""Strong enough that a few pixels change."""

LORA_TARGETS: Final = (
    *((f"lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn{layer}_to_q", 640, 640) for layer in (1, 2)),
    ("lora_te1_text_model_encoder_layers_0_mlp_fc1", 768, 3072),
)
"""(name, features in, features out) of linear layers that are alike in Stable Diffusion 1.5 and XL."""


def write_lora(path: Path, *, seed: int = SEED) -> Path:
    """Writes a LoRA of rank 2 (fp16, about 30 kB) that changes the UNet and a text encoder of SD1.5 and of SDXL."""
    torch: Any = importlib.import_module("torch")
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, Any] = {}
    for name, into, out in LORA_TARGETS:
        weights[f"{name}.lora_down.weight"] = (torch.randn(LORA_RANK, into, generator=generator) * LORA_NOISE).half()
        weights[f"{name}.lora_up.weight"] = (torch.randn(out, LORA_RANK, generator=generator) * LORA_NOISE).half()
        weights[f"{name}.alpha"] = torch.tensor(float(LORA_RANK)).half()
    return _save(weights, path)


RESIDUAL_GAIN: Final = 0.1
"""Of the convolutions in a VAE's residual blocks, against 1 elsewhere: nothing fades or blows up on the way."""

VAE_FEATURES: Final = 64
LATENT_CHANNELS: Final = 4


def write_vae(path: Path, *, seed: int = SEED) -> Path:
    """Writes a VAE in the shape of TAESD (fp16, about 5 MB): ComfyUI's VAELoader takes it, for SD1.5 and SDXL alike."""
    torch: Any = importlib.import_module("torch")
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, Any] = {"vae_scale": torch.tensor(1.0).half(), "vae_shift": torch.tensor(0.0).half()}
    for name, into, out, has_bias in _vae_convolutions():
        gain = (RESIDUAL_GAIN if ".conv." in name else 1.0) * (2 / (9 * into)) ** 0.5
        weights[f"{name}.weight"] = (torch.randn(out, into, 3, 3, generator=generator) * gain).half()
        if has_bias:
            weights[f"{name}.bias"] = (torch.randn(out, generator=generator) * NOISE).half()
    return _save(weights, path)


def _vae_convolutions() -> list[tuple[str, int, int, bool]]:
    """(name, channels in, channels out, whether it has a bias) of every 3x3 convolution.

    In both halves blocks of three follow each other; what stands between them halves or doubles the size.
    """
    plain = {
        "taesd_encoder.0": (3, VAE_FEATURES, True), "taesd_encoder.14": (VAE_FEATURES, LATENT_CHANNELS, True),
        "taesd_decoder.1": (LATENT_CHANNELS, VAE_FEATURES, True), "taesd_decoder.19": (VAE_FEATURES, 3, True),
    }  # fmt: skip
    resizing = {
        *(f"taesd_encoder.{place}" for place in (2, 6, 10)),
        *(f"taesd_decoder.{place}" for place in (7, 12, 17)),
    }
    blocks = [
        *(f"taesd_encoder.{place}" for place in (1, 3, 4, 5, 7, 8, 9, 11, 12, 13)),
        *(f"taesd_decoder.{place}" for place in (3, 4, 5, 8, 9, 10, 13, 14, 15, 18)),
    ]
    return [
        *((name, into, out, has_bias) for name, (into, out, has_bias) in plain.items()),
        *((name, VAE_FEATURES, VAE_FEATURES, False) for name in sorted(resizing)),
        *((f"{name}.conv.{layer}", VAE_FEATURES, VAE_FEATURES, True) for name in blocks for layer in (0, 2, 4)),
    ]


def write_sd15(path: Path, comfyui: Path, *, seed: int = SEED) -> Path:
    """Writes a checkpoint in the shape of Stable Diffusion 1.5 (fp16, about 2 GB) from ComfyUI's own model classes.

    It draws noise, but through the whole of CheckpointLoaderSimple, CLIPTextEncode, KSampler and VAEDecode.
    """
    _use(comfyui)
    clip = importlib.import_module("comfy.sd1_clip").SDClipModel()
    return _write_parts(path, [*_picture_parts(SD15_UNET), ("cond_stage_model.", clip)], seed)


def write_sdxl(path: Path, comfyui: Path, *, seed: int = SEED) -> Path:
    """Writes a checkpoint that ComfyUI takes for SDXL (fp16, about 3 GB): its text encoders and VAE in full size, and
    a UNet with the blocks of Segmind's Vega, the smallest of SDXL's kind, with attention in the middle as SDXL has it.
    """
    _use(comfyui)
    clip = importlib.import_module("comfy.sdxl_clip").SDXLClipModel()
    encoders = [("conditioner.embedders.0.", clip.clip_l), ("conditioner.embedders.1.model.", clip.clip_g)]
    return _write_parts(path, [*_picture_parts(SDXL_UNET), *encoders], seed)


def write_sdxl_refiner(path: Path, comfyui: Path, *, seed: int = SEED) -> Path:
    """Writes a checkpoint that ComfyUI takes for SDXL's refiner (fp16, about 4 GB): its one text encoder and VAE in
    full size, and a UNet of its width without attention on the way up.
    """
    _use(comfyui)
    encoder = importlib.import_module("comfy.sdxl_clip").SDXLClipG()
    return _write_parts(path, [*_picture_parts(REFINER_UNET), ("conditioner.embedders.0.model.", encoder)], seed)


SD15_UNET: Final[dict[str, Any]] = {
    "model_channels": 320,
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "context_dim": 768,
    "num_heads": 8,
}
SDXL_UNET: Final[dict[str, Any]] = {
    "model_channels": 320,
    "num_res_blocks": [2, 2, 2],
    "channel_mult": [1, 2, 4],
    "transformer_depth": [0, 0, 1, 1, 2, 2],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [0, 0, 0, 1, 1, 1, 1, 1, 1],
    "context_dim": 2048,
    "num_head_channels": 64,
    "use_linear_in_transformer": True,
    "num_classes": "sequential",
    "adm_in_channels": 2816,
}

REFINER_UNET: Final[dict[str, Any]] = {
    "model_channels": 384,
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [0, 0, 4, 4, 4, 4, 0, 0],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [0] * 12,
    "context_dim": 1280,
    "num_head_channels": 64,
    "use_linear_in_transformer": True,
    "num_classes": "sequential",
    "adm_in_channels": 2560,
}


def _use(comfyui: Path) -> None:
    sys.path.insert(0, str(comfyui.resolve()))
    importlib.import_module("comfy.cli_args").args.cpu = True


def _write_parts(path: Path, parts: Sequence[tuple[str, Any]], seed: int) -> Path:
    """Writes (prefix of its keys, module) of each network as one checkpoint."""
    torch: Any = importlib.import_module("torch")
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, Any] = {}
    for prefix, module in parts:
        for name, tensor in module.state_dict().items():
            weights[prefix + name] = _randomised(torch, name, tensor, generator)
    return _save(weights, path)


def _picture_parts(unet_shape: dict[str, Any]) -> list[tuple[str, Any]]:
    """The UNet and the VAE, which SD1.5 and SDXL share in shape."""
    ops = importlib.import_module("comfy.ops").disable_weight_init
    unet = importlib.import_module("comfy.ldm.modules.diffusionmodules.openaimodel").UNetModel(
        image_size=32,
        in_channels=4,
        out_channels=4,
        use_spatial_transformer=True,
        legacy=False,
        operations=ops,
        **unet_shape,
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
    return [("model.diffusion_model.", unet), ("first_stage_model.", vae)]


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
    parser.add_argument("--lora", type=Path, metavar="FILE", help="write the small LoRA there")
    parser.add_argument("--vae", type=Path, metavar="FILE", help="write the small VAE there")
    parser.add_argument("--sd15", type=Path, metavar="FILE", help="write the SD1.5-shaped checkpoint there (2 GB)")
    parser.add_argument("--sdxl", type=Path, metavar="FILE", help="write the SDXL-shaped checkpoint there (3 GB)")
    parser.add_argument("--sdxl-refiner", type=Path, metavar="FILE", help="write the one of its refiner there (4 GB)")
    parser.add_argument("--comfyui", type=Path, metavar="DIR", help="ComfyUI's folder; the checkpoints need it")
    parser.add_argument("--seed", type=int, default=SEED)
    given = parser.parse_args(arguments)
    small = {"upscaler": write_upscaler, "lora": write_lora, "vae": write_vae}
    large = {"sd15": write_sd15, "sdxl": write_sdxl, "sdxl_refiner": write_sdxl_refiner}
    wanted = {name: path for name in (*small, *large) if (path := getattr(given, name)) is not None}
    if not wanted:
        parser.error("name at least one file to write, such as --upscaler FILE; --help lists them all")
    if not large.keys().isdisjoint(wanted) and given.comfyui is None:
        parser.error("a checkpoint needs --comfyui DIR")
    for name, path in wanted.items():
        print(
            small[name](path, seed=given.seed) if name in small else large[name](path, given.comfyui, seed=given.seed)
        )


if __name__ == "__main__":
    main()

"""Graphs as ComfyUI's Export (API) writes them: inputs first, titles as the editor gives them."""

from __future__ import annotations

from typing import Any, Final

Graph = dict[str, dict[str, Any]]


def node(class_type: str, title: str = "", /, **inputs: Any) -> dict[str, Any]:
    """A node in the order of an export."""
    return {"inputs": inputs, "class_type": class_type, "_meta": {"title": title or class_type}}


TXT2IMG: Final[Graph] = {
    "3": node(
        "KSampler", seed=156680208700286, steps=20, cfg=8, sampler_name="euler", scheduler="normal", denoise=1,
        model=["4", 0], positive=["6", 0], negative=["7", 0], latent_image=["5", 0],
    ),
    "4": node("CheckpointLoaderSimple", "Load Checkpoint", ckpt_name="sd_xl_base_1.0.safetensors"),
    "5": node("EmptyLatentImage", "Empty Latent Image", width=1024, height=1024, batch_size=1),
    "6": node("CLIPTextEncode", "CLIP Text Encode (Prompt)", text="a glass bottle,\n\"purple\" galaxy", clip=["4", 1]),
    "7": node("CLIPTextEncode", "CLIP Text Encode (Prompt)", text="text, watermark", clip=["4", 1]),
    "8": node("VAEDecode", "VAE Decode", samples=["3", 0], vae=["4", 2]),
    "9": node("SaveImage", "Save Image", filename_prefix="ComfyUI", images=["8", 0]),
}  # fmt: skip

BASE_REFINER: Final[Graph] = {
    "4": node("CheckpointLoaderSimple", "Load Checkpoint - BASE", ckpt_name="sd_xl_base_1.0.safetensors"),
    "5": node("EmptyLatentImage", "Empty Latent Image", width=1024, height=1024, batch_size=1),
    "6": node("CLIPTextEncode", "CLIP Text Encode (Prompt)", text="a daytime sky", clip=["4", 1]),
    "7": node("CLIPTextEncode", "CLIP Text Encode (Prompt)", text="text, watermark", clip=["4", 1]),
    "10": node(
        "KSamplerAdvanced", "KSampler (Advanced) - BASE", add_noise="enable", noise_seed=721897303308196, steps=25,
        cfg=8, sampler_name="euler", scheduler="normal", start_at_step=0, end_at_step=20,
        return_with_leftover_noise="enable", model=["4", 0], positive=["6", 0], negative=["7", 0],
        latent_image=["5", 0],
    ),
    "11": node(
        "KSamplerAdvanced", "KSampler (Advanced) - REFINER", add_noise="disable", noise_seed=0, steps=25, cfg=7.5,
        sampler_name="euler", scheduler="normal", start_at_step=20, end_at_step=10000,
        return_with_leftover_noise="disable", model=["12", 0], positive=["15", 0], negative=["16", 0],
        latent_image=["10", 0],
    ),
    "12": node("CheckpointLoaderSimple", "Load Checkpoint - REFINER", ckpt_name="sd_xl_refiner_1.0.safetensors"),
    "15": node("CLIPTextEncode", "CLIP Text Encode (Prompt)", text="a daytime sky", clip=["12", 1]),
    "16": node("CLIPTextEncode", "CLIP Text Encode (Prompt)", text="text, watermark", clip=["12", 1]),
    "17": node("VAEDecode", "VAE Decode", samples=["11", 0], vae=["12", 2]),
    "19": node("SaveImage", "Save Image", filename_prefix="ComfyUI", images=["17", 0]),
}  # fmt: skip

CONTROLNET: Final[Graph] = {
    "3": node(
        "KSampler", seed=1, steps=20, cfg=7, sampler_name="dpmpp_2m", scheduler="karras", denoise=1, model=["10", 0],
        positive=["20", 0], negative=["20", 1], latent_image=["5", 0],
    ),
    "4": node("CheckpointLoaderSimple", "Load Checkpoint", ckpt_name="dreamshaper_8.safetensors"),
    "5": node("EmptyLatentImage", "Empty Latent Image", width=512, height=768, batch_size=1),
    "6": node("CLIPTextEncode", "Positive prompt", text=["30", 0], clip=["10", 1]),
    "7": node("CLIPTextEncode", "Negative prompt", text="blurry", clip=["10", 1]),
    "8": node("VAEDecode", "VAE Decode", samples=["3", 0], vae=["13", 0]),
    "9": node("SaveImage", "Save Image", filename_prefix="controlnet", images=["8", 0]),
    "10": node(
        "LoraLoader", "Load LoRA", lora_name="film.safetensors", strength_model=0.8, strength_clip=0.8, model=["4", 0],
        clip=["4", 1],
    ),
    "11": node("ControlNetLoader", "Load ControlNet Model", control_net_name="control_v11p_sd15_openpose.pth"),
    "12": node("LoadImage", "Pose photo", image="my pose.png"),
    "13": node("VAELoader", "Load VAE", vae_name="vae-ft-mse-840000-ema-pruned.safetensors"),
    "20": node(
        "ControlNetApplyAdvanced", "Apply ControlNet", strength=0.9, start_percent=0, end_percent=1, positive=["6", 0],
        negative=["7", 0], control_net=["11", 0], image=["12", 0], vae=["13", 0],
    ),
    "30": node("StringConcatenate", "Style", string_a=["31", 0], string_b="masterpiece", delimiter=", "),
    "31": node("PrimitiveStringMultiline", "What to draw", value="a dancer"),
}  # fmt: skip

FLUX: Final[Graph] = {
    "5": node("EmptySD3LatentImage", width=["40", 0], height=["40", 0], batch_size=1),
    "6": node("CLIPTextEncodeFlux", clip_l="a fox", t5xxl="a fox in the snow at dawn", guidance=3.5, clip=["11", 0]),
    "8": node("VAEDecode", samples=["13", 0], vae=["10", 0]),
    "9": node("SaveImage", filename_prefix="flux", images=["8", 0]),
    "10": node("VAELoader", vae_name="ae.safetensors"),
    "11": node("DualCLIPLoader", clip_name1="t5xxl_fp16.safetensors", clip_name2="clip_l.safetensors", type="flux"),
    "12": node("UNETLoader", unet_name="flux1-dev.safetensors", weight_dtype="default"),
    "13": node(
        "SamplerCustomAdvanced", noise=["25", 0], guider=["22", 0], sampler=["16", 0], sigmas=["17", 0],
        latent_image=["5", 0],
    ),
    "16": node("KSamplerSelect", sampler_name="euler"),
    "17": node("BasicScheduler", scheduler="simple", steps=28, denoise=1, model=["12", 0]),
    "22": node("BasicGuider", model=["12", 0], conditioning=["26", 0]),
    "25": node("RandomNoise", noise_seed=["41", 0]),
    "26": node("ReferenceLatent", conditioning=["6", 0]),
    "40": node("PrimitiveInt", "Side", value=1024),
    "41": node("PrimitiveInt", "Seed", value=7),
}  # fmt: skip

FACE: Final[Graph] = {
    **TXT2IMG,
    "9": node("SaveImage", "Save Image", filename_prefix="face", images=["20", 0]),
    "20": node(
        "FaceDetailer", image=["8", 0], model=["4", 0], clip=["4", 1], vae=["4", 2], positive=["6", 0],
        negative=["7", 0], bbox_detector=["21", 0], seed=9, steps=12, cfg=6, sampler_name="euler", scheduler="simple",
        denoise=0.4, wildcard="", guide_size=512, guide_size_for=True, max_size=1024, feather=5, noise_mask=True,
        force_inpaint=True, bbox_threshold=0.5, bbox_dilation=10, bbox_crop_factor=3, sam_detection_hint="center-1",
        sam_dilation=0, sam_threshold=0.93, sam_bbox_expansion=0, sam_mask_hint_threshold=0.7,
        sam_mask_hint_use_negative="False", drop_size=10, cycle=1,
    ),
    "21": node("UltralyticsDetectorProvider", model_name="bbox/face_yolov8m.pt"),
    "22": node("BrightnessOfStrangers", level=3),
}  # fmt: skip

INPAINT: Final[Graph] = {
    **TXT2IMG,
    "3": node(
        "KSampler", seed=5, steps=20, cfg=8, sampler_name="euler", scheduler="normal", denoise=0.7, model=["4", 0],
        positive=["6", 0], negative=["7", 0], latent_image=["26", 0],
    ),
    "20": node("LoadImage", "Load Image", image="room.png"),
    "21": node("LoadImageMask", "Load Image (as Mask)", image="hole.png", channel="alpha"),
    "26": node("VAEEncodeForInpaint", pixels=["20", 0], vae=["4", 2], mask=["21", 0], grow_mask_by=6),
}  # fmt: skip
del INPAINT["5"]

EXPORTS: Final = {
    "txt2img": TXT2IMG,
    "base_refiner": BASE_REFINER,
    "controlnet": CONTROLNET,
    "flux": FLUX,
    "face": FACE,
    "inpaint": INPAINT,
}

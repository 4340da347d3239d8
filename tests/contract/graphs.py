"""Small graphs in API format, of core nodes that run on a CPU without models."""

from __future__ import annotations

from typing import Any, Final

from .live import Graph, fresh_colour

SIDE: Final = 16
"""Side of the pictures, in pixels."""

TILE: Final = 480
"""Rows that ImageUpscaleWithModel moves on by from tile to tile (512 less an overlap of 32)."""


def node(class_type: str, **inputs: Any) -> Graph:
    return {"class_type": class_type, "inputs": inputs}


def empty(colour: int | None = None, *, width: int = SIDE, height: int = SIDE, batch: int = 1) -> Graph:
    """An EmptyImage of a colour that is new unless given."""
    colour = fresh_colour() if colour is None else colour
    return node("EmptyImage", width=width, height=height, batch_size=batch, color=colour)


def save(source: str, prefix: Any = "contract") -> Graph:
    return node("SaveImage", images=[source, 0], filename_prefix=prefix)


def one_picture(prefix: str, colour: int | None = None) -> Graph:
    """EmptyImage (1) → SaveImage (2)."""
    return {"1": empty(colour), "2": save("1", prefix)}


def inverted(prefix: str, colour: int) -> Graph:
    """EmptyImage (1) → ImageInvert (2) → SaveImage (3)."""
    return {"1": empty(colour), "2": node("ImageInvert", image=["1", 0]), "3": save("2", prefix)}


def slow(upscaler: str, prefix: str, *, tiles: int) -> Graph:
    """EmptyImage (1) and UpscaleModelLoader (2) → ImageUpscaleWithModel (3) → ImageScale (4) → SaveImage (5).

    Node 3 takes `tiles` steps of some 0.3 s on two cores and reports each as `progress`.
    """
    return {
        "1": empty(width=64, height=TILE * tiles + 32),
        "2": node("UpscaleModelLoader", model_name=upscaler),
        "3": node("ImageUpscaleWithModel", upscale_model=["2", 0], image=["1", 0]),
        "4": node("ImageScale", image=["3", 0], upscale_method="area", width=SIDE, height=SIDE, crop="disabled"),
        "5": save("4", prefix),
    }


def upscaled(upscaler: str, picture: str, prefix: str) -> Graph:
    """LoadImage (1) and UpscaleModelLoader (2) → ImageUpscaleWithModel (3) → SaveImage (4)."""
    return {
        "1": node("LoadImage", image=picture),
        "2": node("UpscaleModelLoader", model_name=upscaler),
        "3": node("ImageUpscaleWithModel", upscale_model=["2", 0], image=["1", 0]),
        "4": save("3", prefix),
    }


def sampled(checkpoint: str, prefix: str, *, steps: int) -> Graph:
    """A text-to-image graph: CheckpointLoaderSimple (1) … KSampler (5) → VAEDecode (6) → SaveImage (7)."""
    return {
        "1": node("CheckpointLoaderSimple", ckpt_name=checkpoint),
        "2": node("CLIPTextEncode", clip=["1", 1], text="a lighthouse"),
        "3": node("CLIPTextEncode", clip=["1", 1], text=""),
        "4": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "5": node(
            "KSampler",
            model=["1", 0],
            positive=["2", 0],
            negative=["3", 0],
            latent_image=["4", 0],
            seed=fresh_colour(),
            steps=steps,
            cfg=1.0,
            sampler_name="euler",
            scheduler="normal",
            denoise=1.0,
        ),
        "6": node("VAEDecode", samples=["5", 0], vae=["1", 2]),
        "7": save("6", prefix),
    }

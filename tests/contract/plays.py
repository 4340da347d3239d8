"""What is done in each scenario."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable
from typing import Any, Final

from PIL import Image

from .graphs import empty, inverted, node, one_picture, sampled, save, slow, upscaled
from .live import Live, fresh_colour
from .refusals import REFUSALS

MANY: Final = 30
"""Tiles of a picture whose upscaling is not meant to come to an end."""


def success(live: Live) -> None:
    client = live.connect("a")
    live.run_and_view(one_picture("success"), client)
    live.get("/queue")
    live.get("/prompt")


def cached(live: Live) -> None:
    client = live.connect("a")
    graph = inverted("cached", fresh_colour())
    live.run(graph, client)
    live.run(graph, client)


def partly_cached(live: Live) -> None:
    client = live.connect("a")
    colour = fresh_colour()
    live.run(inverted("first", colour), client)
    live.run(inverted("second", colour), client)


def batch_and_preview(live: Live) -> None:
    client = live.connect("a")
    graph = {"1": empty(batch=3), "2": save("1", "batch"), "3": node("PreviewImage", images=["1", 0])}
    live.run_and_view(graph, client)


def upscale(live: Live) -> None:
    client = live.connect("a")
    name = live.upload("small.png", png(fresh_colour()), subfolder="contract", overwrite="true").received
    live.run_and_view(upscaled(live.models.upscaler, f"{name['subfolder']}/{name['name']}", "upscaled"), client)


def upload(live: Live) -> None:
    stem = uuid.uuid4().hex[:8]
    live.upload(f"{stem}.png", png(1))
    live.upload(f"{stem}.png", png(1))
    live.upload(f"{stem}.png", png(2))
    live.upload(f"{stem}.png", png(2), overwrite="true")
    live.upload(f"{stem}.png", png(2), subfolder="contract", type="input")
    live.upload(f"../../{stem}.png", png(2))


def text(live: Live) -> None:
    client = live.connect("a")
    written = f"{fresh_colour()} lines of “text”\nand a newline"
    live.run({"1": node("PrimitiveString", value=written), "2": node("PreviewAny", source=["1", 0])}, client)


def video(live: Live) -> None:
    client = live.connect("a")
    graph = {
        "1": empty(batch=4),
        "2": node("CreateVideo", images=["1", 0], fps=8.0),
        "3": node("SaveVideo", video=["2", 0], filename_prefix="video/clip", format="auto", codec="auto"),
    }
    live.run_and_view(graph, client)


def animation(live: Live) -> None:
    client = live.connect("a")
    how = {"filename_prefix": "animated", "fps": 8.0, "lossless": True, "quality": 80, "method": "default"}
    live.run_and_view({"1": empty(batch=4), "2": node("SaveAnimatedWEBP", images=["1", 0], **how)}, client)


def audio(live: Live) -> None:
    client = live.connect("a")
    graph = {
        "1": node("EmptyAudio", duration=0.25, sample_rate=8000 + fresh_colour() % 2000, channels=1),
        "2": node("SaveAudio", audio=["1", 0], filename_prefix="audio/sound"),
        "3": node("PreviewAudio", audio=["1", 0]),
    }
    live.run_and_view(graph, client)


def latent(live: Live) -> None:
    client = live.connect("a")
    width = 16 * (1 + fresh_colour() % 256)
    graph = {
        "1": node("EmptyLatentImage", width=width, height=64, batch_size=1),
        "2": node("SaveLatent", samples=["1", 0], filename_prefix="latents/shape"),
    }
    live.run_and_view(graph, client)


def refusals(live: Live) -> None:
    for refusal in REFUSALS:
        live.try_submit(refusal.graph)


def not_a_prompt(live: Live) -> None:
    live.post("/prompt", {})
    live.post_text("/prompt", "this is not JSON")


def partly_valid(live: Live) -> None:
    client = live.connect("a")
    live.run(one_picture("good") | {"3": node("SaveImage", filename_prefix="bad")}, client)


def execution_error(live: Live) -> None:
    client = live.connect("a")
    live.upload("broken.png", b"this is not a picture", subfolder="contract", overwrite="true")
    live.run({"1": node("LoadImage", image="contract/broken.png"), "2": save("1", "never")}, client)


def error_after_output(live: Live) -> None:
    client = live.connect("a")
    graph = {
        "1": empty(),
        "2": node("PreviewImage", images=["1", 0]),
        "3": node("ImageInvert", image=["1", 0]),
        "4": save("3", "../outside"),
    }
    live.run(graph, client)


def missing_model(live: Live) -> None:
    client = live.connect("a")
    graph = {
        "1": node("UpscaleModelLoader", model_name="absent.pth"),
        "2": node("ImageUpscaleWithModel", upscale_model=["1", 0], image=["3", 0]),
        "3": empty(),
        "4": save("2", "never"),
    }
    live.run(graph, client)


def interrupt(live: Live) -> None:
    client = live.connect("a")
    prompt_id = live.submit(slow(live.models.upscaler, "never", tiles=MANY), client)
    client.until("progress")
    live.get("/queue")
    live.post("/interrupt", {"prompt_id": prompt_id})
    client.until_end_of(prompt_id)
    live.history(prompt_id)
    live.get("/queue")


def interrupt_queued(live: Live) -> None:
    client = live.connect("a")
    running = live.submit(slow(live.models.upscaler, "never", tiles=MANY), client)
    client.until("progress")
    waiting = live.submit(one_picture("waited"), client)
    live.post("/interrupt", {"prompt_id": waiting})
    live.post("/interrupt", {"prompt_id": "no-such-prompt"})
    live.get("/queue")
    live.post("/interrupt", {})
    client.until_end_of(running)
    client.until_end_of(waiting)
    live.history(running)
    live.history(waiting)


def interrupt_idle(live: Live) -> None:
    client = live.connect("a")
    live.post("/interrupt", {})
    live.run(one_picture("after-interrupt"), client)


def delete_queued(live: Live) -> None:
    client = live.connect("a")
    running = live.submit(slow(live.models.upscaler, "never", tiles=MANY), client)
    client.until("progress")
    unwanted = live.submit(one_picture("unwanted"), client)
    wanted = live.submit(one_picture("wanted"), client)
    live.get("/queue")
    live.post("/queue", {"delete": [unwanted, "no-such-prompt"]})
    live.get("/queue")
    live.post("/queue", {"delete": [running]})
    live.get("/queue")
    live.post("/interrupt", {"prompt_id": running})
    client.until_end_of(wanted)
    for prompt_id in (running, unwanted, wanted):
        live.history(prompt_id)


def clear_queue(live: Live) -> None:
    client = live.connect("a")
    running = live.submit(slow(live.models.upscaler, "never", tiles=MANY), client)
    client.until("progress")
    behind = live.submit(one_picture("behind"), client)
    front = live.submit(one_picture("front"), client, front=True)
    live.get("/queue")
    live.post("/queue", {"clear": True})
    live.get("/queue")
    live.post("/interrupt", {"prompt_id": running})
    client.until_end_of(running)
    for prompt_id in (running, behind, front):
        live.history(prompt_id)


def reconnect(live: Live) -> None:
    first = live.connect("before")
    prompt_id = live.submit(slow(live.models.upscaler, "reconnect", tiles=8), first)
    first.until("progress")
    first.close()
    second = live.connect("after", client_id=first.client_id)
    second.until_end_of(prompt_id)
    live.history(prompt_id)


def reconnect_late(live: Live) -> None:
    watcher = live.connect("watcher")
    first = live.connect("before")
    prompt_id = live.submit(slow(live.models.upscaler, "late", tiles=3), first)
    first.until("progress")
    first.drop()
    watcher.until("status", queue_is(1))
    watcher.until_idle()
    # The prompt's last message is sent after this; once the watcher hears of another change, it is out, too.
    live.post("/queue", {"clear": True})
    watcher.until_idle()
    second = live.connect("after", client_id=first.client_id)
    live.history(prompt_id)
    second.until_idle()


def reconnect_beside(live: Live) -> None:
    watcher = live.connect("watcher")
    first = live.connect("first")
    prompt_id = live.submit(slow(live.models.upscaler, "beside", tiles=8), first)
    first.until("progress")
    second = live.connect("second", client_id=first.client_id)
    second.until("progress")
    first.close()
    watcher.until("status", queue_is(1))
    watcher.until_idle()
    live.history(prompt_id)


def second_client(live: Live) -> None:
    client, other = live.connect("a"), live.connect("b")
    prompt_id = live.submit(one_picture("second-client"), client)
    client.until_end_of(prompt_id)
    live.history(prompt_id)
    other.until("status", queue_is(1))
    other.until_idle()
    live.post("/queue", {"clear": True})
    other.until_idle()


def no_client(live: Live) -> None:
    other = live.connect("b")
    prompt_id = live.submit(slow(live.models.upscaler, "no-client", tiles=2))
    other.until("status", queue_is(1))
    other.until_idle()
    live.history(prompt_id)


def own_prompt_id(live: Live) -> None:
    client = live.connect("a")
    live.run(one_picture("own-id"), client, prompt_id=f"job.{uuid.uuid4().hex}")


def same_prompt_id(live: Live) -> None:
    client = live.connect("a")
    prompt_id = f"job.{uuid.uuid4().hex}"
    live.run(one_picture("first"), client, prompt_id=prompt_id)
    live.run(one_picture("second"), client, prompt_id=prompt_id)


def unknown_history(live: Live) -> None:
    live.get(f"/history/{uuid.uuid4()}")


def forget_history(live: Live) -> None:
    client = live.connect("a")
    prompt_id = live.run(one_picture("forgotten"), client)
    live.post("/history", {"delete": [prompt_id, "no-such-prompt"]})
    live.history(prompt_id)


def facts(live: Live) -> None:
    live.get("/system_stats")
    live.get("/object_info/EmptyImage")
    live.get("/object_info/NoSuchNode")
    live.get("/models/upscale_models")
    live.get("/models/no_such_folder")
    live.get("/view?filename=no-such-file.png&type=output")


def feature_flags(live: Live) -> None:
    client = live.connect("a")
    client.say({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
    client.until("feature_flags")


def sampler(live: Live) -> None:
    assert live.models.checkpoint is not None
    client = live.connect("a")
    live.run(sampled(live.models.checkpoint, "sampled", steps=3), client)


def sampler_preview(live: Live) -> None:
    assert live.models.checkpoint is not None
    client = live.connect("a")
    live.run(sampled(live.models.checkpoint, "sampled", steps=2), client)


def preview_with_metadata(live: Live) -> None:
    assert live.models.checkpoint is not None
    client = live.connect("a")
    client.say({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
    client.until("feature_flags")
    live.run(sampled(live.models.checkpoint, "sampled", steps=2), client)


def queue_is(length: int) -> Callable[[Any], bool]:
    return lambda data: bool(data["status"]["exec_info"]["queue_remaining"] == length)


def png(colour: int) -> bytes:
    """A small PNG of one colour."""
    made = io.BytesIO()
    Image.new("RGB", (16, 12), (colour >> 16 & 255, colour >> 8 & 255, colour & 255)).save(made, "PNG")
    return made.getvalue()

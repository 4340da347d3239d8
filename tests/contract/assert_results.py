"""Assertions on prompts that run to their end, and on what surrounds them.

Ids, times, counters and the number of progress messages are free.
"""

from __future__ import annotations

from morpheus_worker.comfy.messages import NodeProgress

from .checks import assert_empty_answer, assert_files, assert_viewed, outputs
from .model import Recording
from .shapes import check, check_frames
from .story import assert_story, assert_succeeded, told

_TEMP = r"ComfyUI_temp_[a-z]{5}"

_SOUND = "(?:flac|wav)"
"""ComfyUI writes FLAC; the rehearsal engine, which has no encoder, writes WAV and says so."""


def assert_success(seen: Recording) -> None:
    check_frames(seen)
    (prompt_id,) = seen.prompt_ids()
    assert_succeeded(seen, "a", prompt_id, ran=["1", "2"])
    plot = [line for line in told(seen.frames("a")) if not line.startswith("progress")]
    assert plot == [
        "status 0",
        "status 1",
        "status 1",
        "execution_start",
        "execution_cached",
        "executing 1",
        "executing 2",
        "executed 2",
        "execution_success",
        "status 0",
        "executing None",
    ]
    assert_files(outputs(seen, prompt_id)["2"]["images"], "success", "png", kind="output")
    assert seen.calls("GET", "/queue")[-1].received == {"queue_running": [], "queue_pending": []}
    assert seen.calls("GET", "/prompt")[-1].received == {"exec_info": {"queue_remaining": 0}}
    assert_viewed(seen, "image/png")


def assert_cached(seen: Recording) -> None:
    check_frames(seen)
    first, second = seen.prompt_ids()
    assert_succeeded(seen, "a", first, ran=["1", "2", "3"])
    assert_succeeded(seen, "a", second, ran=[], cached=["1", "2", "3"])
    assert outputs(seen, second) == outputs(seen, first), "a cached output is the file of the first run"


def assert_partly_cached(seen: Recording) -> None:
    check_frames(seen)
    first, second = seen.prompt_ids()
    assert_succeeded(seen, "a", first, ran=["1", "2", "3"])
    assert_succeeded(seen, "a", second, ran=["3"], cached=["1", "2"])
    assert_files(outputs(seen, second)["3"]["images"], "second", "png", kind="output")


def assert_batch_and_preview(seen: Recording) -> None:
    check_frames(seen)
    (prompt_id,) = seen.prompt_ids()
    assert_succeeded(seen, "a", prompt_id, ran=["1", "2", "3"])
    assert_files(outputs(seen, prompt_id)["2"]["images"], "batch", "png", kind="output", count=3)
    assert_files(outputs(seen, prompt_id)["3"]["images"], _TEMP, "png", kind="temp", count=3)
    assert_viewed(seen, *["image/png"] * 6)


def assert_upscale(seen: Recording) -> None:
    check_frames(seen)
    (prompt_id,) = seen.prompt_ids()
    uploaded = seen.calls("POST", "/upload/image")[0]
    assert uploaded.received == {"name": "small.png", "subfolder": "contract", "type": "input"}
    assert_succeeded(seen, "a", prompt_id)
    assert_files(outputs(seen, prompt_id)["4"]["images"], "upscaled", "png", kind="output")
    steps = [frame.message for frame in seen.frames("a", prompt_id=prompt_id) if frame.type == "progress"]
    assert steps, "the upscaler tells its progress"
    assert all(isinstance(step, NodeProgress) and step.node == "3" for step in steps)
    assert_viewed(seen, "image/png")


def assert_upload(seen: Recording) -> None:
    new, again, other, over, below, outside = seen.calls("POST", "/upload/image")
    stem = new.sent["image"].removesuffix(".png")
    assert new.received == {"name": f"{stem}.png", "subfolder": "", "type": "input"}
    assert again.received == new.received, "the same content under the same name is one file"
    assert other.received == {"name": f"{stem} (1).png", "subfolder": "", "type": "input"}
    assert over.received == new.received
    assert below.received == {"name": f"{stem}.png", "subfolder": "contract", "type": "input"}
    assert outside.status == 400


def assert_text(seen: Recording) -> None:
    check_frames(seen)
    (prompt_id,) = seen.prompt_ids()
    assert_succeeded(seen, "a", prompt_id, ran=["1", "2"])
    written = seen.submissions()[0].sent["prompt"]["1"]["inputs"]["value"]
    assert outputs(seen, prompt_id) == {"2": {"text": [written]}}


def assert_video(seen: Recording) -> None:
    check_frames(seen)
    (prompt_id,) = seen.prompt_ids()
    assert_succeeded(seen, "a", prompt_id, ran=["1", "2", "3"])
    output = outputs(seen, prompt_id)["3"]
    assert output["animated"] == [True], "a video comes under 'images', marked as animated"
    assert_files(output["images"], "clip", "mp4", kind="output", subfolder="video")
    assert_viewed(seen, "video/mp4")


def assert_animation(seen: Recording) -> None:
    check_frames(seen)
    (prompt_id,) = seen.prompt_ids()
    assert_succeeded(seen, "a", prompt_id, ran=["1", "2"])
    output = outputs(seen, prompt_id)["2"]
    assert output["animated"] == [True]
    assert_files(output["images"], "animated", "webp", kind="output")
    assert_viewed(seen, "image/webp")


def assert_audio(seen: Recording) -> None:
    check_frames(seen)
    (prompt_id,) = seen.prompt_ids()
    assert_succeeded(seen, "a", prompt_id, ran=["1", "2", "3"])
    assert_files(outputs(seen, prompt_id)["2"]["audio"], "sound", _SOUND, kind="output", subfolder="audio")
    assert_files(outputs(seen, prompt_id)["3"]["audio"], _TEMP, _SOUND, kind="temp")
    assert [call.status for call in seen.calls("GET", "/view")] == [200, 200]


def assert_latent(seen: Recording) -> None:
    check_frames(seen)
    (prompt_id,) = seen.prompt_ids()
    assert_succeeded(seen, "a", prompt_id, ran=["1", "2"])
    assert_files(outputs(seen, prompt_id)["2"]["latents"], "shape", "latent", kind="output", subfolder="latents")
    assert_viewed(seen, "application/octet-stream")


def assert_partly_valid(seen: Recording) -> None:
    check_frames(seen)
    (prompt_id,) = seen.prompt_ids()
    answer = seen.submissions()[0].received
    assert set(answer["node_errors"]) == {"3"}
    said = answer["node_errors"]["3"]
    assert (said["class_type"], said["dependent_outputs"]) == ("SaveImage", ["3"])
    assert [error["type"] for error in said["errors"]] == ["required_input_missing"]
    assert_succeeded(seen, "a", prompt_id, ran=["1", "2"], outputs=["2"])


def assert_own_prompt_id(seen: Recording) -> None:
    check_frames(seen)
    sent = seen.submissions()[0].sent["prompt_id"]
    assert seen.prompt_ids() == [sent]
    assert_succeeded(seen, "a", sent, ran=["1", "2"])


def assert_same_prompt_id(seen: Recording) -> None:
    check_frames(seen)
    first, second = seen.prompt_ids()
    assert first == second
    before, after = (call.received[first] for call in seen.calls("GET", f"/history/{first}"))
    assert_files(before["outputs"]["2"]["images"], "first", "png", kind="output")
    assert_files(after["outputs"]["2"]["images"], "second", "png", kind="output")


def assert_unknown_history(seen: Recording) -> None:
    (call,) = seen.calls("GET", "/history/")
    assert (call.status, call.received) == (200, {})


def assert_forget_history(seen: Recording) -> None:
    check_frames(seen)
    (prompt_id,) = seen.prompt_ids()
    assert_empty_answer(seen.calls("POST", "/history")[0])
    assert_story(seen, "a", prompt_id, verdict="execution_success")
    there, gone = seen.calls("GET", f"/history/{prompt_id}")
    assert set(there.received) == {prompt_id}
    assert gone.received == {}


def assert_facts(seen: Recording) -> None:
    stats, known, unknown, models, no_models, no_file = seen.calls("GET")
    check(stats.received, {"system": {"comfyui_version": str, "python_version": str, "argv": [str]}}, "system_stats")
    check(stats.received["devices"], [{"name": str, "type": str, "vram_total": int, "vram_free": int}], "devices")
    (about,) = known.received.values()
    assert set(about["input"]["required"]) == {"width", "height", "batch_size", "color"}
    assert (about["output"], about["output_node"], about["name"]) == (["IMAGE"], False, "EmptyImage")
    assert (unknown.status, unknown.received) == (200, {})
    assert models.status == 200
    assert all(isinstance(name, str) for name in models.received)
    assert no_models.status == 404
    assert no_file.status == 404


def assert_sampler(seen: Recording) -> None:
    check_frames(seen)
    (prompt_id,) = seen.prompt_ids()
    assert_succeeded(seen, "a", prompt_id)
    assert_files(outputs(seen, prompt_id)["7"]["images"], "sampled", "png", kind="output")
    assert sampler_steps(seen, prompt_id) == [(1, 3), (2, 3), (3, 3)]


def sampler_steps(seen: Recording, prompt_id: str) -> list[tuple[float, float]]:
    """(step, steps) of node 5, the sampler."""
    told_of = [frame.message for frame in seen.frames("a", prompt_id=prompt_id)]
    return [(step.value, step.max) for step in told_of if isinstance(step, NodeProgress) and step.node == "5"]

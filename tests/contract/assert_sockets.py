"""Assertions on who hears what over which WebSocket."""

from __future__ import annotations

from morpheus_worker.comfy.messages import Executing, Preview, Status

from .assert_results import sampler_steps
from .checks import history_of
from .model import Frame, Recording
from .shapes import check, check_frames
from .story import assert_succeeded, told


def assert_reconnect(seen: Recording) -> None:
    check_frames(seen)
    (prompt_id,) = seen.prompt_ids()
    first, second, *rest = seen.frames("after")
    assert_welcomed_back(seen, first, second)
    plot = [line for line in told(rest) if not line.startswith("progress")]
    wanted = ["executing 4", "executing 5", "executed 5", "execution_success", "status 0", "executing None"]
    assert plot == wanted, "after the replay, the rest of the story"
    assert history_of(seen, prompt_id)["status"]["completed"] is True


def assert_welcomed_back(seen: Recording, first: Frame, second: Frame) -> None:
    """A client that comes back hears the queue's length and the current node, and of that not the prompt."""
    assert isinstance(first.message, Status)
    assert first.message.queue_remaining == 1
    assert first.message.sid == seen.submissions()[0].sent["client_id"]
    assert second.message == Executing(None, "3")
    assert set(second.data) == {"node"}


def assert_reconnect_late(seen: Recording) -> None:
    check_frames(seen)
    (prompt_id,) = seen.prompt_ids()
    assert told(seen.frames("after")) == ["status 0"], "what ended meanwhile is not told again"
    assert history_of(seen, prompt_id)["status"]["status_str"] == "success"


def assert_reconnect_beside(seen: Recording) -> None:
    check_frames(seen)
    (prompt_id,) = seen.prompt_ids()
    first, second, *_ = seen.frames("second")
    assert_welcomed_back(seen, first, second)
    beside = seen.after(seen.lines("second", "open")[0])
    assert beside.frames("first") == [], "the older socket hears nothing more"
    (closed,) = seen.lines("first", "close")
    verdicts = {"execution_success", "executed", "status"}
    late = [frame for frame in seen.after(closed).frames("second") if frame.type in verdicts]
    assert late == [], "closing the older socket takes the id away from the newer one"
    assert history_of(seen, prompt_id)["status"]["completed"] is True


def assert_second_client(seen: Recording) -> None:
    check_frames(seen)
    (prompt_id,) = seen.prompt_ids()
    assert_succeeded(seen, "a", prompt_id, ran=["1", "2"])
    assert told(seen.frames("b")) == ["status 0", "status 1", "status 1", "status 0", "status 0"]


def assert_no_client(seen: Recording) -> None:
    check_frames(seen)
    (prompt_id,) = seen.prompt_ids()
    heard = {frame.type for frame in seen.frames("b", prompt_id=prompt_id)}
    assert heard == {"progress", "progress_state"}
    entry = history_of(seen, prompt_id)
    assert entry["status"]["completed"] is True
    assert "client_id" not in entry["prompt"][3]


def assert_feature_flags(seen: Recording) -> None:
    check_frames(seen)
    assert told(seen.frames("a")) == ["status 0", "feature_flags"]
    flags = seen.frames("a")[1].data
    check(flags, {"supports_preview_metadata": bool, "max_upload_size": int}, "feature_flags")
    assert flags["supports_preview_metadata"] is True


def assert_sampler_preview(seen: Recording) -> None:
    check_frames(seen)
    (prompt_id,) = seen.prompt_ids()
    assert_succeeded(seen, "a", prompt_id)
    assert sampler_steps(seen, prompt_id) == [(1, 2), (2, 2)]
    for preview in previews(seen):
        assert preview.metadata is None


def assert_preview_with_metadata(seen: Recording) -> None:
    check_frames(seen)
    (prompt_id,) = seen.prompt_ids()
    assert_succeeded(seen, "a", prompt_id)
    for preview in previews(seen):
        assert preview.metadata is not None
        assert preview.metadata["prompt_id"] == prompt_id
        assert preview.metadata["node_id"] == "5"
        assert preview.metadata["image_type"] == preview.media_type


def previews(seen: Recording) -> list[Preview]:
    found = [frame.message for frame in seen.frames("a") if isinstance(frame.content, bytes)]
    assert found, "the sampler shows what it draws"
    assert all(isinstance(message, Preview) and message.data.startswith(b"\xff\xd8") for message in found)
    return [message for message in found if isinstance(message, Preview)]

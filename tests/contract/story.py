"""The course of one prompt: the order of its messages, and the history entry that they leave."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from morpheus_worker.comfy.messages import Message

from .model import Call, Frame, Recording
from .shapes import HISTORY, check

VERDICTS = ("execution_success", "execution_error", "execution_interrupted")


def told(frames: Iterable[Frame]) -> list[str]:
    """Frames in a word or two each: `status 1`, `executing 3`, `executed 3`, `progress`, `execution_success`, …"""
    return [_in_words(frame) for frame in frames]


def _in_words(frame: Frame) -> str:
    if frame.type == "status":
        return f"status {frame.data['status']['exec_info']['queue_remaining']}"
    if frame.type in ("executing", "executed"):
        return f"{frame.type} {frame.data['node']}"
    return frame.type or "binary"


def assert_succeeded(
    seen: Recording,
    client: str,
    prompt_id: str,
    *,
    ran: Sequence[str] | None = None,
    cached: Sequence[str] = (),
    outputs: Sequence[str] | None = None,
) -> None:
    """The prompt ran the nodes `ran`, took `cached` from before, and ended well.

    Without `ran`, any node may come from before: the loader of a model that another scenario used does.
    `outputs`: the output nodes that were accepted, when they are not all that the graph has.
    """
    frames = assert_story(seen, client, prompt_id, verdict="execution_success")
    started, reused = _nodes(frames, "executing"), _data_of(frames, "execution_cached")["nodes"]
    if ran is None:
        assert set(started) | set(reused) >= set(submission_of(seen, prompt_id).sent["prompt"])
    else:
        assert (sorted(started), sorted(reused)) == (sorted(ran), sorted(cached))
    last = [frame for frame in frames if frame.type == "progress_state"][-1]
    done = {node_id for node_id, state in last.data["nodes"].items() if state["state"] == "finished"}
    assert set(started) <= done, f"the last progress_state has {sorted(done)} as finished"
    entry = assert_history(seen, prompt_id, frames, verdict="execution_success")
    assert entry["status"]["status_str"] == "success"
    assert entry["status"]["completed"] is True
    if outputs is not None:
        assert sorted(entry["prompt"][4]) == sorted(outputs)


def assert_failed(seen: Recording, client: str, prompt_id: str, *, verdict: str) -> Message:
    """The prompt ended with `verdict`, which is handed back."""
    frames = assert_story(seen, client, prompt_id, verdict=verdict)
    entry = assert_history(seen, prompt_id, frames, verdict=verdict)
    assert entry["status"]["status_str"] == "error"
    assert entry["status"]["completed"] is False
    (last,) = [frame for frame in frames if frame.type == verdict]
    started = _nodes(frames, "executing")
    assert started[-1] == last.data["node_id"]
    assert set(last.data["executed"]) == set(started[:-1]), "what has run before, without what was cached"
    return last.message


def assert_story(seen: Recording, client: str, prompt_id: str, *, verdict: str) -> list[Frame]:
    """The messages of the prompt to its client come in ComfyUI's order; hands them back."""
    frames = seen.frames(client, prompt_id=prompt_id)
    plot = told(frames)
    assert plot[:2] == ["execution_start", "execution_cached"]
    assert plot[-2:] == [verdict, "executing None"]
    assert [line for line in plot if line in VERDICTS] == [verdict]
    assert_status_between(seen, client, frames[-2], frames[-1])
    assert_nodes_in_order(frames, submission_of(seen, prompt_id).sent["prompt"])
    return frames


def assert_status_between(seen: Recording, client: str, verdict: Frame, end: Frame) -> None:
    """The queue's length is told when the history entry is there: after the verdict, before the end."""
    between = seen.after(verdict).before(end)
    assert "status" in [frame.type for frame in between.frames(client)]


def assert_nodes_in_order(frames: Sequence[Frame], graph: Mapping[str, Any]) -> None:
    """Nodes start once, after those that feed them, and put out something only when they ran or were cached."""
    cached = set(_data_of(frames, "execution_cached")["nodes"])
    started: list[str] = []
    states: Any = {}
    for frame in frames:
        node_id = frame.data.get("node")
        if frame.type == "progress_state":
            states = frame.data["nodes"]
        elif frame.type == "executing" and node_id is not None:
            assert frame.data["display_node"] == node_id
            assert states[node_id]["state"] == "running", f"progress_state tells first that node {node_id} runs"
            assert node_id not in started, f"node {node_id} starts twice"
            assert _feeders(graph[node_id]) <= cached | set(started), f"node {node_id} starts before its inputs"
            started.append(node_id)
        elif frame.type == "executed":
            assert node_id in cached | set(started), f"node {node_id} puts out something and has not run"
        elif frame.type == "progress":
            assert node_id == started[-1], f"progress of node {node_id} while {started[-1]} runs"
            assert 0 < frame.data["value"] <= frame.data["max"]
            told_first = (states[node_id]["value"], states[node_id]["max"])
            assert told_first == (frame.data["value"], frame.data["max"]), "progress_state tells it first"
    assert not cached & set(started), "a cached node does not start"


def _feeders(node: Mapping[str, Any]) -> set[str]:
    return {value[0] for value in node["inputs"].values() if isinstance(value, list)}


def assert_history(seen: Recording, prompt_id: str, frames: Sequence[Frame], *, verdict: str) -> Any:
    """The history entry says what the messages said; hands it back."""
    entry = seen.history(prompt_id)
    assert entry is not None, f"no history of {prompt_id}"
    check(entry, HISTORY, f"history of {prompt_id}")
    assert_history_prompt(entry["prompt"], submission_of(seen, prompt_id))
    messages = entry["status"]["messages"]
    assert [kind for kind, _ in messages] == ["execution_start", "execution_cached", verdict]
    for kind, data in messages:
        assert data == _data_of(frames, kind), f"the history tells '{kind}' as the message did"
    reported = {frame.data["node"]: frame.data["output"] for frame in frames if frame.type == "executed"}
    assert entry["outputs"] == {node_id: output for node_id, output in reported.items() if output is not None}
    return entry


def assert_history_prompt(prompt: Any, submission: Call) -> None:
    number, prompt_id, graph, extra, to_run = prompt[:5]
    assert (number, prompt_id) == (submission.received["number"], submission.received["prompt_id"])
    assert graph == submission.sent["prompt"]
    assert extra["client_id"] == submission.sent["client_id"]
    assert set(to_run) <= set(graph)


def submission_of(seen: Recording, prompt_id: str) -> Call:
    """The last accepted submission under that id."""
    return [call for call in seen.submissions() if call.status == 200 and call.received["prompt_id"] == prompt_id][-1]


def _data_of(frames: Sequence[Frame], kind: str) -> Any:
    (frame,) = [frame for frame in frames if frame.type == kind]
    return frame.data


def _nodes(frames: Sequence[Frame], kind: str) -> list[str]:
    return [frame.data["node"] for frame in frames if frame.type == kind and frame.data["node"] is not None]

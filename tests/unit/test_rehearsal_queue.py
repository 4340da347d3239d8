"""Prompts wait, run and end as in ComfyUI's queue."""

from __future__ import annotations

import asyncio
from typing import Any

from morpheus_worker.rehearsal.queue import Ended, Prompt, PromptQueue


def prompt(prompt_id: str, number: float = 0, **extra: Any) -> Prompt:
    return Prompt(number, prompt_id, {"1": {}}, extra, ["1"])


def ended(success: bool = True) -> Ended:
    return Ended({"1": {"images": []}}, {"1": {"node_id": "1"}}, success, [("execution_start", {"prompt_id": "x"})])


def queue_of(*prompts: Prompt) -> tuple[PromptQueue, list[int]]:
    told: list[int] = []
    queue = PromptQueue(told.append)
    for each in prompts:
        queue.put(each)
    return queue, told


def ids(queue: PromptQueue, place: str) -> list[str]:
    return [item[1] for item in queue.wire()[place]]


def test_small_numbers_come_first() -> None:
    async def story() -> None:
        queue, told = queue_of(prompt("a", 1), prompt("b", 2), prompt("c", -3))
        assert (await queue.get()).prompt_id == "c"
        assert ids(queue, "queue_running") == ["c"]
        assert ids(queue, "queue_pending") == ["a", "b"]
        assert told == [1, 2, 3, 3], "everybody hears of every change"
        queue.done(ended())
        assert told[-1] == queue.remaining == 2
        assert queue.running is None

    asyncio.run(story())


def test_get_waits_for_a_prompt() -> None:
    async def story() -> None:
        queue, _ = queue_of()
        waiting = asyncio.create_task(queue.get())
        await asyncio.sleep(0)
        assert not waiting.done()
        queue.put(prompt("a"))
        assert (await waiting).prompt_id == "a"

    asyncio.run(story())


def test_a_waiting_prompt_can_be_taken_out() -> None:
    async def story() -> None:
        queue, told = queue_of(prompt("a", 1), prompt("b", 2), prompt("c", 3))
        await queue.get()
        queue.delete("b")
        assert ids(queue, "queue_pending") == ["c"]
        told.clear()
        queue.delete("c")
        assert told == [1, 1], "of the last one ComfyUI tells twice"
        queue.delete("a")
        queue.delete("nobody")
        assert told == [1, 1]
        assert ids(queue, "queue_running") == ["a"]
        queue.put(prompt("d"))
        queue.clear()
        assert ids(queue, "queue_pending") == []
        assert queue.remaining == 1

    asyncio.run(story())


def test_an_entry_has_comfyuis_shape_and_no_secrets() -> None:
    async def story() -> None:
        queue, _ = queue_of(prompt("a", 4, client_id="me", api_key_comfy_org="secret"))
        running = await queue.get()
        assert running.client_id == "me"
        queue.done(ended(success=False))
        assert queue.entry("a") == {
            "a": {
                "prompt": [4, "a", {"1": {}}, {"client_id": "me"}, ["1"]],
                "outputs": {"1": {"images": []}},
                "status": {
                    "status_str": "error",
                    "completed": False,
                    "messages": [["execution_start", {"prompt_id": "x"}]],
                },
                "meta": {"1": {"node_id": "1"}},
            }
        }
        assert queue.entry("b") == {}

    asyncio.run(story())


def test_history_is_cut_and_forgotten() -> None:
    async def story() -> None:
        queue, _ = queue_of()
        for name in "abcde":
            queue.put(prompt(name))
            await queue.get()
            queue.done(ended())
        assert list(queue.history()) == ["a", "b", "c", "d", "e"]
        assert list(queue.history(2)) == ["d", "e"]
        assert list(queue.history(2, 1)) == ["b", "c"]
        assert list(queue.history(None, 3)) == ["d", "e"]
        assert list(queue.history(9)) == ["a", "b", "c", "d", "e"]
        queue.forget("c")
        queue.forget(["c"])
        assert list(queue.history()) == ["a", "b", "d", "e"]
        queue.forget_all()
        assert queue.history() == {}
        queue.put(prompt("lost"))
        await queue.get()
        queue.done(ended(), filed=False)
        assert queue.history() == {}

    asyncio.run(story())

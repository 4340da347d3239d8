"""The prompts that wait, the one that runs, and those that have ended.

Source: ComfyUI 0.3.64, execution.py `PromptQueue`.
"""

from __future__ import annotations

import asyncio
import copy
import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

HISTORY_LIMIT: Final = 10_000
SECRETS: Final = ("auth_token_comfy_org", "api_key_comfy_org")
"""Keys of `extra_data` that never reach the history."""


@dataclass(order=True, slots=True)
class Prompt:
    """One prompt. Smaller numbers run first."""

    number: float
    prompt_id: str
    graph: dict[str, Any] = field(compare=False)
    extra_data: dict[str, Any] = field(compare=False)
    outputs: list[str] = field(compare=False)

    @property
    def client_id(self) -> str | None:
        return self.extra_data.get("client_id")

    def wire(self) -> list[Any]:
        """As `/queue` and `/history` show it."""
        return [self.number, self.prompt_id, self.graph, self.extra_data, self.outputs]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a prompt ended: what its nodes reported, and the messages that went out about it."""

    outputs: Mapping[str, Any]
    meta: Mapping[str, Any]
    success: bool
    messages: list[tuple[str, Any]]

    def wire(self, prompt: Prompt) -> dict[str, Any]:
        """As `/history` shows it."""
        status = {
            "status_str": "success" if self.success else "error",
            "completed": self.success,
            "messages": [list(message) for message in self.messages],
        }
        return {"prompt": prompt.wire(), "outputs": self.outputs, "status": status, "meta": self.meta}


class PromptQueue:
    """Belongs to one event loop. `changed` is called whenever the number of prompts may have changed."""

    def __init__(self, changed: Callable[[int], None]) -> None:
        self._waiting: list[Prompt] = []
        self._running: Prompt | None = None
        self._history: dict[str, dict[str, Any]] = {}
        self._filled = asyncio.Event()
        self._changed = changed

    @property
    def remaining(self) -> int:
        return len(self._waiting) + (self._running is not None)

    @property
    def running(self) -> Prompt | None:
        return self._running

    def put(self, prompt: Prompt) -> None:
        heapq.heappush(self._waiting, prompt)
        self._filled.set()
        self._changed(self.remaining)

    async def get(self) -> Prompt:
        """Waits for a prompt, which then counts as running until `done`."""
        await self._filled.wait()
        prompt = heapq.heappop(self._waiting)
        self._clear_flag()
        self._running = copy.deepcopy(prompt)
        self._changed(self.remaining)
        return prompt

    def done(self, ended: Ended, *, filed: bool = True) -> None:
        """The running prompt has ended. Without `filed`, its history entry is lost."""
        prompt, self._running = self._running, None
        assert prompt is not None, "done() follows get()"
        for secret in SECRETS:
            prompt.extra_data.pop(secret, None)
        if len(self._history) > HISTORY_LIMIT:
            self._history.pop(next(iter(self._history)))
        if filed:
            self._history[prompt.prompt_id] = ended.wire(prompt)
        self._changed(self.remaining)

    def wire(self) -> dict[str, Any]:
        """As `GET /queue` shows it."""
        running = [self._running.wire()] if self._running else []
        return {"queue_running": running, "queue_pending": [prompt.wire() for prompt in self._waiting]}

    def clear(self) -> None:
        self._waiting.clear()
        self._clear_flag()
        self._changed(self.remaining)

    def delete(self, prompt_id: object) -> None:
        """Takes one waiting prompt of this id out; the running one stays."""
        found = next((prompt for prompt in self._waiting if prompt.prompt_id == prompt_id), None)
        if found is None:
            return
        if len(self._waiting) == 1:
            # ComfyUI empties the queue, which tells everybody once, and then tells everybody.
            self.clear()
        else:
            self._waiting.remove(found)
            heapq.heapify(self._waiting)
        self._changed(self.remaining)

    def history(self, max_items: int | None = None, offset: int = -1) -> dict[str, Any]:
        """The newest `max_items` entries, or those from `offset` on."""
        first = len(self._history) - max_items if offset < 0 and max_items is not None else offset
        chosen = [key for index, key in enumerate(self._history) if index >= first]
        # As in ComfyUI, which looks at the limit after it has added an entry.
        kept = chosen if max_items is None else chosen[: max(1, max_items)]
        return {key: self._history[key] for key in kept}

    def entry(self, prompt_id: str) -> dict[str, Any]:
        """The entry of one prompt as `GET /history/{prompt_id}` shows it, `{}` when there is none."""
        return {prompt_id: self._history[prompt_id]} if prompt_id in self._history else {}

    def forget(self, prompt_id: object) -> None:
        if isinstance(prompt_id, str):
            self._history.pop(prompt_id, None)

    def forget_all(self) -> None:
        self._history.clear()

    def _clear_flag(self) -> None:
        if not self._waiting:
            self._filled.clear()

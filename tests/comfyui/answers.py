"""What a real ComfyUI answers to a graph at `POST /prompt`, beside what the check says of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import requests

from morpheus_worker.comfy.judging import Judgement, judge
from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.comfy.recorded import with_own_checks
from morpheus_worker.comfy.wording import TRIPPED

from .mutations import Mutation, Place

TIMEOUT_S: Final = 60.0

OUT_OF_STACK: Final = "maximum recursion depth exceeded"

HOLDING_PACK: Final = """
import threading

class MorpheusHold:
    INPUT_TYPES = classmethod(lambda cls: {"required": {}})
    RETURN_TYPES = ()
    OUTPUT_NODE = True
    FUNCTION = "hold"
    CATEGORY = "tests"

    def hold(self):
        threading.Event().wait()

NODE_CLASS_MAPPINGS = {"MorpheusHold": MorpheusHold}
"""
"""A node pack whose only node never ends: what is queued behind it is never executed."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`places` are what it names. Of a node over which ComfyUI trips it names the input of another; where links in a
    circle exhaust its stack, it names the node that was looked at then, which may be any."""

    refused: bool
    kind: str | None
    places: frozenset[Place]

    @classmethod
    def of(cls, status: int, body: Mapping[str, Any]) -> Answer:
        error = body.get("error") or {}
        places = set(_places(body.get("node_errors") or {}))
        if "#" in (details := str(error.get("details"))) and error.get("type") == "invalid_prompt":
            places.add((details.partition("#")[2].rstrip("'"), None))
        return cls(status != 200, error.get("type"), frozenset(places))


def _places(node_errors: Mapping[str, Any]) -> Iterator[Place]:
    for node_id, said in node_errors.items():
        for error in said["errors"]:
            if OUT_OF_STACK in error["details"]:
                continue
            yield node_id, None if error["type"] in TRIPPED else error["extra_info"].get("input_name")


class HeldComfyUI:
    """A ComfyUI that judges prompts and executes none. It needs HOLDING_PACK."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = requests.Session()
        self._post("/prompt", {"prompt": {"1": {"class_type": "MorpheusHold", "inputs": {}}}}).raise_for_status()

    def object_info(self) -> ObjectInfo:
        return with_own_checks(self._session.get(f"{self._url}/object_info", timeout=TIMEOUT_S).json())

    def ask(self, graph: Mapping[str, Any]) -> Answer:
        answer = self.submit(graph)
        if answer.status_code == 200:
            self.clear()
        return Answer.of(answer.status_code, answer.json())

    def submit(self, graph: Mapping[str, Any]) -> requests.Response:
        """Only asks: what is accepted stays in the queue."""
        return self._post("/prompt", {"prompt": graph})

    def clear(self) -> None:
        self._post("/queue", {"clear": True})

    def close(self) -> None:
        self._session.close()

    def _post(self, path: str, body: Any) -> requests.Response:
        return self._session.post(f"{self._url}{path}", json=body, timeout=TIMEOUT_S)


@dataclass(frozen=True, slots=True)
class Compared:
    """A graph, ComfyUI's answer and our judgement of it."""

    mutation: Mutation
    answer: Answer
    judgement: Judgement

    @property
    def falsely_refused(self) -> bool:
        return self.judgement.refused and not self.answer.refused

    @property
    def caught(self) -> bool:
        """Whether both refuse it, and ours names everything that ComfyUI names, and what was changed."""
        if not (self.answer.refused and self.judgement.refused):
            return False
        ours = places_of(self.judgement)
        wanted = set(self.answer.places) | ({self.mutation.place} if self.mutation.place else set())
        by_kind = any(fault.kind == self.answer.kind for fault in self.judgement.faults)
        return wanted <= ours and (bool(wanted) or by_kind)


def compared(comfyui: HeldComfyUI, mutation: Mutation, info: ObjectInfo) -> Compared:
    """Both asked about the same graph."""
    judgement = judge(mutation.graph, info, advice=False)
    return Compared(mutation, comfyui.ask(mutation.graph), judgement)


def places_of(judgement: Judgement) -> set[Place]:
    """Every input that is named, and every node."""
    named: set[Place] = {
        (fault.node_id, name) for fault in judgement.faults if fault.node_id for name in (None, fault.input)
    }
    circles = {link for fault in judgement.faults for link in fault.links}
    return named | circles | {(node_id, None) for node_id, _ in circles}

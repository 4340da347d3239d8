"""Faults that a rehearsal can be told to have, so that what stands on ComfyUI can be seen to survive them."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from morpheus_worker.errors import Problem, did_you_mean

CRASH_EXIT_CODE: Final = 70
OUT_OF_MEMORY: Final = "torch.OutOfMemoryError"
OUT_OF_MEMORY_TIPS: Final = (
    "This error means you ran out of memory on your GPU.\n\nTIPS: If the workflow worked before you might have "
    "accidentally set the batch_size to a large number."
)
"""ComfyUI's own words (0.3.64, execution.py): clients look for them."""

GARBAGE: Final[tuple[str | bytes, ...]] = (
    "this is not JSON",
    "[1, 2, 3]",
    '{"data": {}}',
    '{"type": "executing", "data": "cut sho',
    '{"type": "progress", "data": {}}',
    b"",
    b"\x00\x00",
    b"\x00\x00\x00\x03\x00\x00\x00\xff cut short",
    b"\xff\xff\xff\xff of a type that nobody knows",
)
"""Frames that are none of ComfyUI's."""


class FaultError(ValueError):
    """Words that name no fault. `problems` holds all of them."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("faults: " + "; ".join(str(problem) for problem in problems))


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong; nothing, by default. A node is named by its id or its class type.

    Counted faults are spent once: `http_500=2` spoils two requests.
    """

    slow_node: float = field(default=0.0, metadata={"help": "seconds that every node takes longer"})
    out_of_memory: str | None = field(default=None, metadata={"help": "node that runs out of GPU memory"})
    node_error: str | None = field(default=None, metadata={"help": "node that raises"})
    no_face: str | None = field(default=None, metadata={"help": "node that finds no face in its picture"})
    crash: str | None = field(default=None, metadata={"help": "node at which the whole process exits"})
    stall: str | None = field(default=None, metadata={"help": "node that never returns and cannot be interrupted"})
    drop_socket: int = field(default=0, metadata={"help": "times that all WebSockets are cut, a node each"})
    empty_history: bool = field(default=False, metadata={"help": "history entries have no outputs"})
    no_history: bool = field(default=False, metadata={"help": "history entries never appear"})
    garbage_frame: bool = field(default=False, metadata={"help": "garbage is sent before each prompt's events"})
    http_500: int = field(default=0, metadata={"help": "requests to /prompt and /history that answer 500"})

    @classmethod
    def parse(cls, words: Iterable[str]) -> Faults:
        """Reads words like `slow_node=0.5`, `crash=KSampler` or `no_history`.

        Raises:
            FaultError: with every word that is wrong, at once.
        """
        kinds = typing.get_type_hints(cls)
        values: dict[str, Any] = {}
        problems = []
        for word in words:
            name, given, value = word.partition("=")
            if name not in kinds:
                problems.append(
                    Problem(word, "no such fault", did_you_mean(name, kinds) or f"one of {', '.join(kinds)}")
                )
                continue
            try:
                values[name] = _read(kinds[name], value if given else None)
            except ValueError as failure:
                problems.append(Problem(word, str(failure)))
        if problems:
            raise FaultError(problems)
        return cls(**values)

    @classmethod
    def table(cls) -> list[tuple[str, str]]:
        """Rows of (name, what it does)."""
        return [(known.name, str(known.metadata["help"])) for known in dataclasses.fields(cls)]

    def strikes(self, node: str | None, node_id: str, class_type: str) -> bool:
        """Whether a fault that names `node` means this one."""
        return node is not None and node in (node_id, class_type)


def _read(kind: Any, value: str | None) -> Any:
    if kind is bool:
        if value in (None, "1", "true", "on"):
            return True
        if value in ("0", "false", "off"):
            return False
        raise ValueError("must be on or off")
    if not value:
        raise ValueError("needs a value after '='")
    if isinstance(kind, types.UnionType):
        return value
    number = kind(value)
    if not 0 <= number < float("inf"):
        raise ValueError("must not be negative or infinite")
    return number


class NodeFaultError(RuntimeError):
    """What a node raises when it is told to. `exception_type` is the name that ComfyUI would report."""

    def __init__(self, exception_type: str, message: str, tips: str = "") -> None:
        super().__init__(message)
        self.exception_type = exception_type
        self.tips = tips


class Box:
    """The faults in force, and what is left of those that are counted."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self._left = {"drop_socket": faults.drop_socket, "http_500": faults.http_500}

    def spend(self, name: str) -> bool:
        """Whether a counted fault happens now."""
        if self._left[name] <= 0:
            return False
        self._left[name] -= 1
        return True

    def check(self, node_id: str, class_type: str) -> None:
        """Raises what the node is to raise.

        Raises:
            NodeFaultError: out of memory, or an error.
        """
        faults = self.faults
        if faults.strikes(faults.out_of_memory, node_id, class_type):
            raise NodeFaultError(OUT_OF_MEMORY, "Allocation on device ", OUT_OF_MEMORY_TIPS)
        if faults.strikes(faults.node_error, node_id, class_type):
            raise NodeFaultError("RuntimeError", f"{class_type} was told to fail")

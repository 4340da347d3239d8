"""One node about to run: what it was given, and where it may write."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from morpheus_worker.comfy.objectinfo import NodeInfo
from morpheus_worker.rehearsal.facts import Facts
from morpheus_worker.rehearsal.folders import Folders
from morpheus_worker.rehearsal.schedule import Graph
from morpheus_worker.rehearsal.values import Images, Masks

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Outcome:
    """A node's outputs, what it reports to show, if anything, and the lines that it only writes into ComfyUI's log."""

    outputs: tuple[Any, ...]
    report: Mapping[str, Any] | None = None
    said: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """`inputs` holds values where the graph has links. `metadata` says whether files are to carry the graph, and
    `faceless` that the node is to find no face in whatever picture it looks at."""

    node_id: str
    node: NodeInfo
    inputs: Mapping[str, Any]
    graph: Graph
    facts: Facts
    folders: Folders
    extra_data: Mapping[str, Any] = field(default_factory=dict)
    metadata: bool = True
    faceless: bool = False

    @property
    def class_type(self) -> str:
        return self.node.class_type

    def integer(self, name: str, default: int) -> int:
        value = self.inputs.get(name)
        return int(value) if isinstance(value, (int, float)) else default

    def number(self, name: str, default: float) -> float:
        value = self.inputs.get(name)
        return float(value) if isinstance(value, (int, float)) else default

    def text(self, name: str, default: str = "") -> str:
        value = self.inputs.get(name)
        return value if isinstance(value, str) else default

    def images(self, name: str) -> Images:
        """The pictures given as this input.

        Raises:
            TypeError: when it is none.
        """
        value = self.inputs.get(name)
        if not isinstance(value, Images):
            raise TypeError(f"{self.class_type}: {name} is not a picture but {value!s}")
        return value

    def masks(self, name: str) -> Masks:
        value = self.inputs.get(name)
        if not isinstance(value, Masks):
            raise TypeError(f"{self.class_type}: {name} is not a mask but {value!s}")
        return value

    def given(self, name: str, kind: type[_Value]) -> _Value | None:
        """The value of this input where it is of this kind, else None."""
        value = self.inputs.get(name)
        return value if isinstance(value, kind) else None

    def first(self, kind: type[_Value]) -> _Value | None:
        """The first input of this kind, or None."""
        return next((value for value in self.inputs.values() if isinstance(value, kind)), None)

    def extra_pnginfo(self) -> Mapping[str, Any]:
        """What the caller wants files to carry beside the graph."""
        extra = self.extra_data.get("extra_pnginfo")
        return extra if isinstance(extra, Mapping) else {}

    def notes(self) -> dict[str, str]:
        """What a saved file carries: the graph, and what the caller added (`extra_data.extra_pnginfo`)."""
        if not self.metadata:
            return {}
        added = {str(name): json.dumps(value) for name, value in self.extra_pnginfo().items()}
        return {"prompt": json.dumps(self.graph), **added}

"""One node about to run: what it was given, and where it may write."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from morpheus_worker.comfy.objectinfo import NodeInfo
from morpheus_worker.rehearsal.facts import Facts
from morpheus_worker.rehearsal.folders import Folders
from morpheus_worker.rehearsal.schedule import Graph
from morpheus_worker.rehearsal.values import Images, Latent, Masks


@dataclass(frozen=True, slots=True)
class Call:
    """`inputs` holds values where the graph has links. `metadata` says whether files are to carry the graph."""

    node_id: str
    node: NodeInfo
    inputs: Mapping[str, Any]
    graph: Graph
    facts: Facts
    folders: Folders
    extra_data: Mapping[str, Any] = field(default_factory=dict)
    metadata: bool = True

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

    def first(self, kind: type[Images] | type[Masks] | type[Latent]) -> Any:
        """The first input of this kind, or None."""
        return next((value for value in self.inputs.values() if isinstance(value, kind)), None)

    def notes(self) -> dict[str, str]:
        """What a saved file carries: the graph, and what the caller added (`extra_data.extra_pnginfo`)."""
        if not self.metadata:
            return {}
        extra = self.extra_data.get("extra_pnginfo")
        added = extra if isinstance(extra, Mapping) else {}
        return {"prompt": json.dumps(self.graph), **{str(name): json.dumps(value) for name, value in added.items()}}

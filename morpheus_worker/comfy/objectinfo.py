"""ComfyUI's object info (`GET /object_info`): what a node class takes and gives, as values.

Source: ComfyUI 0.3.64, server.py `node_info`, and comfy_api/latest/_io.py for the newer ("V3") form of a choice,
`["COMBO", {"options": […]}]` beside the older `[[…], {…}]`. What a class checks itself the object info does not say;
who knows it hands it in as `own_checks`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

COMBO: Final = "COMBO"
_UPLOADS: Final = {"image_upload": "image", "video_upload": "video", "audio_upload": "audio", "file_upload": "file"}


@dataclass(frozen=True, slots=True)
class InputInfo:
    """One input of a node class. `choices` is None unless the input is a choice; then `type` is `COMBO`."""

    name: str
    type: str
    required: bool
    options: Mapping[str, Any] = field(default_factory=dict)
    choices: tuple[Any, ...] | None = None
    checked_choices: bool = True
    """Whether ComfyUI refuses other values at /prompt: it does for the older form of a choice only."""
    takes: str | None = None
    """The types that a link may bring, with commas between, where the class compares them in a way of its own and
    takes others than `type`; `*` is any."""

    @property
    def upload(self) -> str | None:
        """The media kind this input loads from ComfyUI's input folder (`image`, `video`, …), or None."""
        return next((kind for flag, kind in _UPLOADS.items() if self.options.get(flag)), None)

    @property
    def is_widget(self) -> bool:
        """Whether the input takes a literal value (a widget in the editor) rather than a link."""
        return self.choices is not None or self.type in ("INT", "FLOAT", "STRING", "BOOLEAN", COMBO)


@dataclass(frozen=True, slots=True)
class OwnChecks:
    """What a class checks in its own code (`VALIDATE_INPUTS`, in V3 `validate_inputs`) and ComfyUI therefore does not.

    Source: ComfyUI 0.3.64, execution.py `validate_inputs`: for an input that the method takes as an argument, and for
    every input when it takes `**kwargs`, ranges and choices are not checked; types of links are not compared when it
    takes `input_types`. Missing inputs and values that cannot be converted are told all the same.

    `takes` has, by input, the types of links that pass because the type's own comparison lets them.
    """

    inputs: frozenset[str] = frozenset()
    types: bool = False
    takes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """One node class."""

    class_type: str
    inputs: Mapping[str, InputInfo]
    outputs: tuple[str, ...]
    is_output: bool
    validates: frozenset[str] | None = None
    """The inputs whose ranges and choices the class judges itself, so that ComfyUI does not; None when nobody recorded
    it, as for most custom nodes: then any value of any input may pass."""
    validates_types: bool = False
    """Whether ComfyUI leaves the types of its links to the class."""


OwnChecksOf = Callable[[str], OwnChecks | None]
"""What a class checks itself, by its name; None when that is not known."""


def _nobody_knows(_class_type: str) -> OwnChecks | None:
    return None


class ObjectInfo:
    """All node classes of one ComfyUI, read on demand from its JSON."""

    def __init__(self, raw: Mapping[str, Any], own_checks: OwnChecksOf = _nobody_knows) -> None:
        self.raw = raw
        self.own_checks = own_checks
        self._read: dict[str, NodeInfo] = {}

    def __contains__(self, class_type: object) -> bool:
        return class_type in self.raw

    def __iter__(self) -> Iterator[str]:
        return iter(self.raw)

    def get(self, class_type: str) -> NodeInfo | None:
        """The node class, or None when this ComfyUI lacks it."""
        if class_type not in self._read and class_type in self.raw:
            self._read[class_type] = _read_node(class_type, self.raw[class_type], self.own_checks(class_type))
        return self._read.get(class_type)

    def input(self, class_type: str, name: str) -> InputInfo | None:
        node = self.get(class_type)
        return node.inputs.get(name) if node else None

    def is_output(self, class_type: str) -> bool:
        """Whether the class is an output node; False for one that this ComfyUI lacks."""
        node = self.get(class_type)
        return node.is_output if node else False

    @cached_property
    def class_types(self) -> frozenset[str]:
        return frozenset(self.raw)


def _read_node(class_type: str, raw: Mapping[str, Any], own: OwnChecks | None) -> NodeInfo:
    takes = own.takes if own else {}
    inputs: dict[str, InputInfo] = {}
    for category, required in (("required", True), ("optional", False)):
        for name, config in (raw.get("input", {}).get(category) or {}).items():
            inputs[name] = _read_input(name, config, required, takes.get(name))
    outputs = tuple(kind if isinstance(kind, str) else COMBO for kind in raw.get("output") or ())
    validates, types = (None, False) if own is None else (own.inputs, own.types)
    return NodeInfo(class_type, inputs, outputs, bool(raw.get("output_node")), validates, types)


def _read_input(name: str, config: Any, required: bool, takes: str | None) -> InputInfo:
    kind = config[0] if isinstance(config, (list, tuple)) and config else config
    options = config[1] if isinstance(config, (list, tuple)) and len(config) > 1 else {}
    options = options if isinstance(options, Mapping) else {}
    if isinstance(kind, (list, tuple)):
        return InputInfo(name, COMBO, required, options, tuple(kind), takes=takes)
    if kind == COMBO:
        choices = tuple(options.get("options") or ())
        return InputInfo(name, COMBO, required, options, choices, checked_choices=False, takes=takes)
    return InputInfo(name, str(kind), required, options, takes=takes)

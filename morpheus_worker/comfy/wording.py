"""What is wrong with a graph, in words for the person who can act: the same ones whether ComfyUI found it or we did.

Source of the errors' shapes: ComfyUI 0.3.64, execution.py `validate_prompt`, `validate_inputs`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from morpheus_worker.comfy.folders import INPUT_FOLDER, folder_listed
from morpheus_worker.comfy.graphs import LONGEST_NAMED, named
from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.errors import MOST_TOLD, Code, MorpheusError, Problem, did_you_mean, from_problems

MODEL_SUFFIXES: Final = (".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".gguf", ".onnx", ".pkl")
"""ComfyUI's own list (0.3.64, folder_paths.py `supported_pt_extensions`) and what node packs load beside it."""

SHOWN_CHOICES: Final = 8
LONGEST_SHOWN: Final = 60
"""Characters of any other value of the caller's that a sentence repeats."""
LONGEST_SAID: Final = 2000
"""Characters of what a node says that a sentence repeats."""
LIKE_A_CLASS: Final = 0.75
"""How near the name of a class must be to be what was meant, from 0 to 1: their names are of few words."""
LIKE_A_MODEL: Final = 0.7
"""The same for the name of a model's file, without its ending."""

MISSING_NODE: Final = "missing_node_type"
DANGLING: Final = "dangling_link"
NO_SUCH_OUTPUT: Final = "no_such_output"
CIRCLE: Final = "dependency_cycle"
NO_OUTPUTS: Final = "prompt_no_outputs"
VALUE_FOR_LINK: Final = "value_for_link"
UNDECLARED: Final = "undeclared_input"
LEADS_NOWHERE: Final = "leads_nowhere"
BAD_SHAPE: Final = "invalid_prompt"
BAD_LINK: Final = "bad_linked_input"
NOT_IN_LIST: Final = "value_not_in_list"
OUT_OF_RANGE: Final = ("value_smaller_than_min", "value_bigger_than_max")
OWN_CHECK: Final = "custom_validation_failed"
TRIPPED: Final = ("exception_during_validation", "exception_during_inner_validation")

LIST_AS_VALUE: Final = 'a list that is a value is written {"__value__": [...]}'

LINK_FAULTS: Final = frozenset({DANGLING, NO_SUCH_OUTPUT, CIRCLE})
"""Kinds that ComfyUI (0.3.64) does not tell apart: it trips over them, or says nothing."""

Where = Callable[[str, str], str | None]
"""(node id, input name) → how the caller calls that input, e.g. `params.steps`, or None when it has no name for it."""

PackOf = Callable[[str], str | None]
"""The id of the node pack that has a class of this name, or None when no known one has."""


def no_pack(_class_type: str) -> str | None:
    """A PackOf that knows none."""
    return None


class Weight(Enum):
    """What ComfyUI makes of a fault. CERTAIN: it refuses every output that needs the node. DOUBTFUL: it may, or the
    node's own code may let it pass. HARMLESS: it does not mind, and a person may want to know."""

    CERTAIN = 0
    DOUBTFUL = 1
    HARMLESS = 2


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a graph.

    `kind` is ComfyUI's own name of the error (0.3.64, or a later one's where that has none); `dangling_link`,
    `no_such_output`, `value_for_link`, `undeclared_input` and `leads_nowhere` are ours. `node_id` None means the whole
    graph; `class_type` and `input` are None where they do not apply. `is_model` says that a model's file is not there.
    `links` are those of a circle, as (node id, input name).
    """

    kind: str
    what: str
    hint: str | None = None
    node_id: str | None = None
    class_type: str | None = None
    input: str | None = None
    weight: Weight = Weight.CERTAIN
    is_model: bool = False
    links: tuple[tuple[str, str], ...] = ()

    def as_problem(self, where: Where) -> Problem:
        """With its place in the words of the caller."""
        return Problem(self._param(where) or self.place, self.what, self.hint)

    def code(self, where: Where) -> Code:
        """The code of a failure for which it is the cause."""
        if self.kind == MISSING_NODE:
            return Code.MISSING_NODE
        if self.is_model:
            return Code.MISSING_MODEL
        return Code.INVALID_PARAMS if self._param(where) else Code.INVALID_WORKFLOW

    @property
    def place(self) -> str:
        """`node 6 (CLIPTextEncode) input text`"""
        if self.node_id is None:
            return "workflow"
        known = f" ({named(self.class_type)})" if self.class_type and self.kind != MISSING_NODE else ""
        return f"node {named(self.node_id)}{known}" + (f" input {named(self.input)}" if self.input else "")

    def as_dict(self) -> dict[str, str | None]:
        """For a program: where it is, and what kind of fault."""
        told = {"node_id": self.node_id, "class_type": self.class_type, "input": self.input, "kind": self.kind}
        return {name: None if text is None else named(text) for name, text in told.items()}

    def _param(self, where: Where) -> str | None:
        return where(self.node_id, self.input) if self.node_id is not None and self.input else None


@dataclass(slots=True)
class Guesses:
    """What was probably meant by the names of one graph. A look compares a name with every known one, so that of each
    kind there are only so many, and of each name one."""

    most: int = MOST_TOLD
    _choices: dict[tuple[str, tuple[str, ...]], str | None] = field(default_factory=dict)
    _classes: dict[str, str | None] = field(default_factory=dict)

    def choice(self, name: str, choices: tuple[str, ...]) -> str | None:
        """A hint that names the nearest choice, or None."""
        if (name, choices) not in self._choices and self._is_worth_it(name, self._choices):
            self._choices[name, choices] = did_you_mean(name, choices)
        return self._choices.get((name, choices))

    def model(self, name: str, files: tuple[str, ...]) -> str | None:
        """A hint that names the nearest file, or None."""
        if (name, files) not in self._choices and self._is_worth_it(name, self._choices):
            self._choices[name, files] = _model_like(name, files)
        return self._choices.get((name, files))

    def class_type(self, name: str, object_info: ObjectInfo) -> str | None:
        """A hint that names the nearest class, or None."""
        if name not in self._classes and self._is_worth_it(name, self._classes):
            self._classes[name] = _class_like(name, object_info)
        return self._classes.get(name)

    def _is_worth_it(self, name: str, made: Sized) -> bool:
        return len(name) <= LONGEST_NAMED and len(made) < self.most


def _class_like(name: str, known: Iterable[str]) -> str | None:
    by_folded = {class_type.casefold(): class_type for class_type in known}
    found = difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=LIKE_A_CLASS)
    return f"did you mean '{by_folded[found[0]]}'?" if found else None


def _model_like(name: str, files: Iterable[str]) -> str | None:
    """What all files have in common, their ending, makes none like another."""
    by_stem: dict[str, str] = {}
    for file in files:
        by_stem.setdefault(_stem(file), file)
    found = difflib.get_close_matches(_stem(name), by_stem, n=1, cutoff=LIKE_A_MODEL)
    return f"did you mean '{by_stem[found[0]]}'?" if found else None


def _stem(file: str) -> str:
    name = file.rsplit("/", 1)[-1].casefold()
    return next((name.removesuffix(suffix) for suffix in MODEL_SUFFIXES if name.endswith(suffix)), name)


def brief(value: object) -> str:
    """A value in a sentence, as Python writes it, shortened."""
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "an object"
    if isinstance(value, str) and len(value) > LONGEST_SHOWN:
        return repr(f"{value[:LONGEST_SHOWN]}…")
    return repr(value)


def as_error(faults: Sequence[Fault], where: Where) -> MorpheusError:
    """One error that names every fault, and those first that decide its code: what has to be installed comes before
    what has to be rewritten, and that before what the caller has to send otherwise. There must be one that is certain.

    `details["faults"]` has `node_id`, `class_type`, `input` and `kind` of each problem, in the order of the problems.
    """
    sorted_faults = sorted(faults, key=lambda fault: (fault.weight.value, _rank(fault, where)))
    first = sorted_faults[0]
    ranks = {_rank(fault, where) for fault in faults if fault.weight is first.weight}
    opening = _OPENINGS[min(ranks)] if len(ranks) == 1 else "The workflow cannot run"
    told = [fault.as_dict() for fault in sorted_faults[:MOST_TOLD]]
    problems = [fault.as_problem(where) for fault in sorted_faults]
    return from_problems(first.code(where), opening, problems, details={"faults": told})


_OPENINGS: Final = (
    "The workflow needs nodes that are not installed",
    "The workflow's links are wrong",
    "The workflow names models that are not there",
    "ComfyUI refuses the workflow",
    "The params are refused",
)


def _rank(fault: Fault, where: Where) -> int:
    if fault.kind in LINK_FAULTS:
        return 1
    return {Code.MISSING_NODE: 0, Code.MISSING_MODEL: 2, Code.INVALID_WORKFLOW: 3}.get(fault.code(where), 4)


def missing_class(
    node_id: str, class_type: str, object_info: ObjectInfo, pack_of: PackOf, *, guesses: Guesses | None = None
) -> Fault:
    """The fault of a node whose class this ComfyUI lacks."""
    pack = pack_of(class_type)
    hint = f"the node pack {pack} has it" if pack else (guesses or Guesses()).class_type(class_type, object_info)
    return Fault(MISSING_NODE, f"this ComfyUI has no node class '{named(class_type)}'", hint, node_id, class_type)


def shortened(text: str) -> str:
    """What a node or ComfyUI says, shortened: it may have a whole value of the caller's in it."""
    return text if len(text) <= LONGEST_SAID else f"{text[:LONGEST_SAID]}…"


def said_by_comfyui(error: Mapping[str, Any]) -> str:
    """An error of ComfyUI's in its own words, empty when it has none."""
    return shortened(": ".join(str(error[key]) for key in ("message", "details") if error.get(key)))


def no_such_node(source: Any, graph: Mapping[str, Any]) -> tuple[str, str | None]:
    """A link to no node, in words, and what to do."""
    if isinstance(source, (list, dict)):
        return "is a list of two, which ComfyUI takes for a link to a node", LIST_AS_VALUE
    if not isinstance(source, str) and str(source) in graph:
        what = f"is linked to the number {source}, and a node's id is a text"
        return what, f'write the id in quotes, "{source}"'
    return f"is linked to node {named(source)}, which is not there", None


def no_outputs() -> Fault:
    """The fault of a graph without an output node."""
    hint = "add an output node, such as SaveImage"
    return Fault(NO_OUTPUTS, "has no outputs: none of its nodes saves or shows anything", hint)


def from_comfyui(
    node_id: str,
    class_type: str,
    error: Mapping[str, Any],
    object_info: ObjectInfo,
    *,
    guesses: Guesses | None = None,
) -> Fault:
    """An error of ComfyUI's about a node, as a fault. Any field of it may be missing."""
    extra, kind = error.get("extra_info") or {}, str(error.get("type"))
    # An exception is told with the input by which the walk came to the node: one of its reader's.
    name = None if kind in TRIPPED else str(extra.get("input_name") or "") or None
    if kind == NOT_IN_LIST:
        choices = _choices(class_type, name or "", extra, object_info)
        folder = _folder(class_type, name or "", object_info)
        what, hint, is_model = _not_in_list(str(extra.get("received_value")), choices, folder, guesses or Guesses())
        return Fault(kind, what, hint, node_id, class_type, name, is_model=is_model)
    what = _SENTENCES.get(kind, _as_said)(error, extra.get("received_value"))
    return Fault(kind, what, LIST_AS_VALUE if kind == BAD_LINK else None, node_id, class_type, name)


def _not_in_list(value: str, choices: tuple[str, ...], folder: str | None, guesses: Guesses) -> tuple[str, str, bool]:
    if not value.lower().endswith(MODEL_SUFFIXES):
        hint = guesses.choice(value, choices) or f"choices: {_listed(choices)}"
        return f"'{named(value)}' is not one of the choices", hint, False
    files = tuple(choice for choice in choices if choice.lower().endswith(MODEL_SUFFIXES))
    hint = guesses.model(value.replace("\\", "/"), files) or _how_to_have_it(value, files, folder)
    return f"there is no model '{named(value)}'", hint, True


def _how_to_have_it(value: str, files: tuple[str, ...], folder: str | None) -> str:
    said = ["its folders have Windows' separator: here they are written with '/'"] if "\\" in value else []
    said += [f"put it into {folder}/ of the volume's model cache"] if folder is not None else []
    return "; ".join([*said, f"there are: {_listed(files)}" if files else "there is none in that folder"])


def _folder(class_type: str, name: str, object_info: ObjectInfo) -> str | None:
    """The model folder that the input lists."""
    known = object_info.input(class_type, name)
    folder = folder_listed(class_type, known) if known is not None else None
    return None if folder == INPUT_FOLDER else folder


def _choices(class_type: str, name: str, extra: Mapping[str, Any], object_info: ObjectInfo) -> tuple[str, ...]:
    """ComfyUI leaves a list of more than 20 choices out of its answer; its object info has them."""
    config = extra.get("input_config")
    if isinstance(config, list) and config and isinstance(config[0], list):
        return tuple(str(choice) for choice in config[0])
    known = object_info.input(class_type, name)
    return tuple(str(choice) for choice in (known.choices or ())) if known else ()


def _listed(choices: tuple[str, ...]) -> str:
    more = len(choices) - SHOWN_CHOICES
    return ", ".join(choices[:SHOWN_CHOICES]) + (f" and {more} more" if more > 0 else "")


def _limit(extra: Mapping[str, Any], bound: str) -> str:
    config = extra.get("input_config")
    options = config[1] if isinstance(config, list) and len(config) > 1 else {}
    return str(options.get(bound)) if isinstance(options, Mapping) else "?"


def _too_small(error: Mapping[str, Any], value: object) -> str:
    return f"{brief(value)} is below the smallest value, {_limit(error.get('extra_info') or {}, 'min')}"


def _too_big(error: Mapping[str, Any], value: object) -> str:
    return f"{brief(value)} is above the largest value, {_limit(error.get('extra_info') or {}, 'max')}"


def _absent(_error: Mapping[str, Any], _value: object) -> str:
    return "is required and missing"


def _wrong_type(error: Mapping[str, Any], value: object) -> str:
    return f"{brief(value)} is no {_type_in(error) or 'value'}"


def _wrong_link(error: Mapping[str, Any], _value: object) -> str:
    extra = error.get("extra_info") or {}
    source = (extra.get("linked_node") or ["?"])[0]
    takes, brings = _type_in(error), extra.get("received_type")
    shown = "one of its choices" if isinstance(takes, list) else takes or "another type"
    brought = "a choice" if isinstance(brings, list) else brings
    return f"takes {shown}, but its link to node {named(source)} brings {brought}"


def _no_link(_error: Mapping[str, Any], _value: object) -> str:
    return "is a list, which ComfyUI takes for a link, and a link is [node id, number of its output]"


def _type_in(error: Mapping[str, Any]) -> Any:
    config = (error.get("extra_info") or {}).get("input_config")
    return config[0] if isinstance(config, list) and config else None


def _refused_by_node(error: Mapping[str, Any], _value: object) -> str:
    """`details` is "<input> - <reason>"."""
    return shortened(str(error.get("details", "")).partition(" - ")[2]) or "the node refuses the value"


def _as_said(error: Mapping[str, Any], _value: object) -> str:
    return said_by_comfyui(error) or "ComfyUI does not say why"


_SENTENCES: Final[Mapping[str, Callable[[Mapping[str, Any], object], str]]] = {
    "value_smaller_than_min": _too_small,
    "value_bigger_than_max": _too_big,
    "required_input_missing": _absent,
    "invalid_input_type": _wrong_type,
    "return_type_mismatch": _wrong_link,
    BAD_LINK: _no_link,
    OWN_CHECK: _refused_by_node,
}

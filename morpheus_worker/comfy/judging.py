"""Everything that is wrong with a graph at once, and whether ComfyUI would certainly refuse it.

ComfyUI stops at the first unknown class, at the first exception of a node, and does not look behind a link of the wrong
type; a person wants the whole list. ComfyUI accepts a prompt as soon as one of its outputs can be executed, and what
only a node pack's own code knows, the object info does not say: there the judgement leaves the decision to ComfyUI.

Source: ComfyUI 0.3.64, execution.py `validate_prompt` and `validate_inputs`, comfy_execution/graph.py `add_node`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from morpheus_worker.comfy.check import validate
from morpheus_worker.comfy.examine import (
    LINKED_TYPES,
    LOADERS,
    PROVOKED,
    ComfyError,
    InputExists,
    file_error,
    is_custom,
    link_error,
    missing_error,
    module_of,
    unwrapped,
    value_error,
)
from morpheus_worker.comfy.graphs import (
    STANDS_FOR_OTHERS,
    circles,
    is_link,
    leading_to,
    named,
    reading_from,
    shape_findings,
)
from morpheus_worker.comfy.objectinfo import InputInfo, NodeInfo, ObjectInfo
from morpheus_worker.comfy.wording import (
    BAD_SHAPE,
    CIRCLE,
    DANGLING,
    LEADS_NOWHERE,
    MISSING_NODE,
    NO_SUCH_OUTPUT,
    NOT_IN_LIST,
    OUT_OF_RANGE,
    TRIPPED,
    UNDECLARED,
    VALUE_FOR_LINK,
    Fault,
    Guesses,
    PackOf,
    Weight,
    Where,
    as_error,
    brief,
    from_comfyui,
    missing_class,
    no_outputs,
    no_pack,
    no_such_node,
)
from morpheus_worker.errors import MOST_TOLD, MorpheusError, did_you_mean

Inputs = Collection[tuple[str, str]]
"""Inputs of nodes: (node id, input name)."""

Fresh = Callable[[Collection[str]], ObjectInfo]
"""Asks ComfyUI anew for these classes: the whole object info, with what it says of them now."""

LONGEST_CIRCLE: Final = 10
"""Nodes of a circle that are named."""

_LEFT_TO_CLASS: Final = frozenset({*OUT_OF_RANGE, NOT_IN_LIST})
"""Errors that ComfyUI does not tell of an input which the class judges itself."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """`faults` in the order of the graph. `refused`: ComfyUI certainly answers with an error, or would lose its worker
    thread over the graph. `stale_classes` are classes which it may list otherwise by now (files in a folder, packs that
    have been installed since), where the refusal may rest on that."""

    faults: tuple[Fault, ...] = ()
    refused: bool = False
    stale_classes: frozenset[str] = frozenset()

    def as_error(self, where: Where) -> MorpheusError:
        """The refusal of a graph that is refused, with every fault but the harmless ones."""
        return as_error([fault for fault in self.faults if fault.weight is not Weight.HARMLESS], where)


def judge(
    graph: Mapping[str, Any],
    object_info: ObjectInfo,
    *,
    input_exists: InputExists | None = None,
    pack_of: PackOf = no_pack,
    pending: Inputs = (),
    advice: bool = True,
) -> Judgement:
    """Every fault of a graph in API format.

    `input_exists` tells which files loaders find; without it any may be there. `pack_of` names the node pack of a class
    that is missing. `pending` are inputs whose value is not the one that ComfyUI will get, so that it is not judged.
    Without `advice`, what ComfyUI does not mind is left out.
    """
    return _judged(graph, object_info, input_exists, pack_of, pending, advice=advice, most_guesses=MOST_TOLD)


def _judged(
    graph: Mapping[str, Any],
    object_info: ObjectInfo,
    input_exists: InputExists | None,
    pack_of: PackOf,
    pending: Inputs,
    *,
    advice: bool,
    most_guesses: int,
) -> Judgement:
    shape = list(shape_findings(graph))
    if shape:
        faults = tuple(Fault(BAD_SHAPE, finding.what, finding.hint, finding.node_id) for finding in shape)
        return Judgement(faults, _is_refused(graph, object_info))
    judging = _Judging(graph, object_info, input_exists, pack_of, frozenset(pending), advice)
    judging.guesses = Guesses(most_guesses)
    return judging.judgement()


def refusal(
    graph: Mapping[str, Any],
    object_info: ObjectInfo,
    where: Where,
    *,
    pack_of: PackOf = no_pack,
    pending: Inputs = (),
    fresh: Fresh | None = None,
) -> MorpheusError | None:
    """The error with which ComfyUI would refuse this graph, every problem in it, or None when it may accept it.

    `where` names a node's input as the caller knows it. `fresh` is asked once, when the refusal may rest on an object
    info that has grown old; what it raises is passed on. For the rest see `judge`.
    """
    # A guess at what was meant costs more than all the rest: it is made when it will be told.
    first = _judged(graph, object_info, None, pack_of, pending, advice=False, most_guesses=0)
    if not first.refused:
        return None
    if first.stale_classes and fresh is not None:
        object_info = fresh(first.stale_classes)
    judgement = judge(graph, object_info, pack_of=pack_of, pending=pending, advice=False)
    return judgement.as_error(where) if judgement.refused else None


def _is_refused(graph: Any, object_info: ObjectInfo) -> bool:
    try:
        return not validate(graph, object_info).ok
    except PROVOKED:
        return True


@dataclass(slots=True)
class _Judging:
    """One judgement of a graph whose shape is right. `declared` and `undeclared` are the links by node, as
    `graphs.Sources` has them; ComfyUI checks the first, and follows both when it executes."""

    graph: Mapping[str, Any]
    object_info: ObjectInfo
    input_exists: InputExists | None
    pack_of: PackOf
    pending: frozenset[tuple[str, str]]
    advice: bool
    faults: list[Fault] = field(default_factory=list)
    declared: dict[str, dict[str, str]] = field(default_factory=dict)
    undeclared: dict[str, dict[str, str]] = field(default_factory=dict)
    deadly: set[str] = field(default_factory=set)
    guesses: Guesses = field(default_factory=Guesses)

    def judgement(self) -> Judgement:
        outputs = []
        for node_id, node in self.graph.items():
            known = self.object_info.get(node["class_type"])
            if known is None:
                class_type = node["class_type"]
                self.faults.append(
                    missing_class(node_id, class_type, self.object_info, self.pack_of, guesses=self.guesses)
                )
                self._note_links(node_id, node["inputs"])
                continue
            if known.is_output:
                outputs.append(node_id)
            self._examine(node_id, known, node["inputs"])
        lacks_class = any(fault.kind == MISSING_NODE for fault in self.faults)
        if not outputs and not lacks_class:
            self.faults.append(no_outputs())
        self._find_circles()
        good = self._good(outputs)
        refused = lacks_class or not good or not self.deadly.isdisjoint(leading_to(good, self._all_links()))
        faults = tuple(self._weighed(outputs)) if self.faults or self.advice else ()
        return Judgement(faults, refused, self._stale(faults) if refused else frozenset())

    def _examine(self, node_id: str, known: NodeInfo, inputs: Mapping[str, Any]) -> None:
        for wanted in known.inputs.values():
            name = wanted.name
            if name not in inputs:
                if wanted.required:
                    self._note(node_id, known, missing_error(name), _weight_of_missing(wanted))
            elif isinstance(value := inputs[name], list):
                self._examine_link(node_id, known, wanted, value)
            elif (node_id, name) not in self.pending:
                self._examine_value(node_id, known, wanted, value)
        loader = LOADERS.get(known.class_type)
        if loader is not None and loader.input in inputs and (node_id, loader.input) not in self.pending:
            self._examine_file(node_id, known, inputs)
        if len(inputs) > len(known.inputs) or not inputs.keys() <= known.inputs.keys():
            self._examine_undeclared(node_id, known, inputs)

    def _examine_link(self, node_id: str, known: NodeInfo, wanted: InputInfo, link: list[Any]) -> None:
        if len(link) == 2 and not self._is_node(link[0]):
            return self._note_dangling(node_id, known, wanted.name, link[0])
        if len(link) == 2:
            self.declared.setdefault(node_id, {})[wanted.name] = link[0]
            if self.graph[link[0]]["class_type"] not in self.object_info:
                return None
        try:
            error = link_error(known, wanted, link, self.graph, self.object_info)
        except PROVOKED:
            return self._note_output(node_id, known, wanted.name, link)
        if error is not None:
            weight = self._weight_of_type(known, wanted, link) if len(link) == 2 else Weight.CERTAIN
            self._note(node_id, known, error, weight)
        return None

    def _examine_value(self, node_id: str, known: NodeInfo, wanted: InputInfo, value: Any) -> None:
        try:
            _, error = value_error(known, wanted, value, self.object_info)
        except PROVOKED as failure:
            what = f"{brief(value)} cannot be compared with what the input takes: {failure}"
            weight = self._weight_of_own_check(known)
            self.faults.append(Fault(TRIPPED[0], what, None, node_id, known.class_type, wanted.name, weight))
            return
        if error is not None:
            is_left = error["type"] in _LEFT_TO_CLASS
            self._note(node_id, known, error, self._weight_of_own_check(known) if is_left else Weight.CERTAIN)
        elif wanted.type in LINKED_TYPES and value is not None:
            what = f"takes {wanted.type} by a link, not a value"
            fault = Fault(VALUE_FOR_LINK, what, None, node_id, known.class_type, wanted.name, Weight.DOUBTFUL)
            self.faults.append(fault)

    def _examine_file(self, node_id: str, known: NodeInfo, inputs: Mapping[str, Any]) -> None:
        loader = LOADERS[known.class_type]
        value = unwrapped(inputs[loader.input])
        try:
            error = file_error(loader, {**inputs, loader.input: value}, self.input_exists)
        except PROVOKED:
            if isinstance(value, list) and not is_link(value):
                return
            is_list = isinstance(value, list)
            what = "takes the name of a file, not a link" if is_list else f"{brief(value)} is no file's name"
            self.faults.append(Fault(TRIPPED[0], what, None, node_id, known.class_type, loader.input))
        else:
            if error is not None:
                self._note(node_id, known, error, Weight.CERTAIN)

    def _examine_undeclared(self, node_id: str, known: NodeInfo, inputs: Mapping[str, Any]) -> None:
        for name, value in inputs.items():
            if name in known.inputs:
                continue
            if is_link(value):
                if not self._is_node(value[0]):
                    # ComfyUI (0.3.64) accepts it, and executing it ends its only worker thread: its HTTP goes on
                    # answering, and no later prompt ever runs.
                    self._note_dangling(node_id, known, name, value[0])
                    self.deadly.add(node_id)
                    continue
                self.undeclared.setdefault(node_id, {})[name] = value[0]
            if self.advice:
                self._note_undeclared(node_id, known, name)

    def _note_undeclared(self, node_id: str, known: NodeInfo, name: str) -> None:
        """A pack's class may read what it does not declare: there, only what looks misspelt is told."""
        if is_part(name, known):
            return
        hint = did_you_mean(name, known.inputs)
        if hint or not is_custom(known.class_type, self.object_info):
            what = f"is no input of {known.class_type}, which ignores it"
            self.faults.append(Fault(UNDECLARED, what, hint, node_id, known.class_type, name, Weight.HARMLESS))

    def _note_links(self, node_id: str, inputs: Mapping[str, Any]) -> None:
        """Of a node whose class nobody knows."""
        links = {name: value[0] for name, value in inputs.items() if is_link(value)}
        for name, source in links.items():
            if not self._is_node(source):
                what, hint = no_such_node(source, self.graph)
                self.faults.append(Fault(DANGLING, what, hint, node_id, self.graph[node_id]["class_type"], name))
        if links:
            self.undeclared[node_id] = links

    def _note(self, node_id: str, known: NodeInfo, error: ComfyError, weight: Weight) -> None:
        fault = from_comfyui(node_id, known.class_type, error, self.object_info, guesses=self.guesses)
        self.faults.append(fault if weight is Weight.CERTAIN else replace(fault, weight=weight))

    def _note_dangling(self, node_id: str, known: NodeInfo, name: str, source: Any) -> None:
        what, hint = no_such_node(source, self.graph)
        self.faults.append(Fault(DANGLING, what, hint, node_id, known.class_type, name))

    def _note_output(self, node_id: str, known: NodeInfo, name: str, link: list[Any]) -> None:
        source = self.object_info.get(self.graph[link[0]]["class_type"])
        assert source is not None, "a link to a node of unknown class is not looked at"
        what, hint = f"is linked to output {brief(link[1])} of {source.class_type}", None
        if isinstance(link[1], int) and not isinstance(link[1], bool):
            what += f", which has {len(source.outputs)}"
        else:
            what, hint = f"{what}: an output is a whole number", f'such as ["{named(link[0])}", 0]'
        weight = self._weight_of_own_check(source)
        self.faults.append(Fault(NO_SUCH_OUTPUT, what, hint, node_id, known.class_type, name, weight))

    def _is_node(self, source: Any) -> bool:
        return isinstance(source, str) and source in self.graph

    def _is_understood(self, known: NodeInfo) -> bool:
        """Whether the class has no code that judges its inputs in a way which nobody here knows of."""
        if known.validates is not None:
            return True
        module = module_of(known.class_type, self.object_info)
        return not module or module == "nodes" or module.startswith("comfy_extras.")

    def _weight_of_own_check(self, known: NodeInfo) -> Weight:
        """Of what ComfyUI leaves to a class that checks it in its own code."""
        return Weight.CERTAIN if self._is_understood(known) else Weight.DOUBTFUL

    def _weight_of_type(self, known: NodeInfo, wanted: InputInfo, link: list[Any]) -> Weight:
        """A pack's type may be text that is equal to any other; two lists of files may have been read at two times."""
        source_type = self.graph[link[0]]["class_type"]
        source = self.object_info.get(source_type)
        is_plain = source is not None and self._is_understood(known) and self._is_understood(source)
        same_kind = wanted.choices is not None and source is not None and "COMBO" in source.outputs
        return Weight.CERTAIN if is_plain and not same_kind else Weight.DOUBTFUL

    def _find_circles(self) -> None:
        certain = {frozenset(circle): circle for circle in circles(self.declared)}
        for circle in certain.values():
            self._note_circle(circle, Weight.CERTAIN)
        # Over an input that no class declares, ComfyUI finds the circle only when it executes.
        for circle in circles(self._all_links()) if self.undeclared else ():
            if frozenset(circle) not in certain:
                self._note_circle(circle, Weight.DOUBTFUL)

    def _note_circle(self, circle: tuple[tuple[str, str], ...], weight: Weight) -> None:
        ids = [node_id for node_id, _ in circle]
        shown = ids if len(ids) <= LONGEST_CIRCLE else [*ids[: LONGEST_CIRCLE // 2], "…", *ids[-LONGEST_CIRCLE // 2 :]]
        node_id, name = circle[0]
        what = f"is linked in a circle: {' ← '.join(named(one) for one in [*shown, node_id])}"
        class_type = self.graph[node_id]["class_type"]
        self.faults.append(Fault(CIRCLE, what, None, node_id, class_type, name, weight, links=circle))

    def _good(self, outputs: list[str]) -> list[str]:
        """The outputs that ComfyUI may execute: nothing that they need, over the links that it checks, is certainly
        wrong."""
        deciding = [fault for fault in self.faults if self._decides(fault)]
        wrong = {fault.node_id for fault in deciding if fault.node_id is not None}
        wrong |= {node_id for fault in deciding for node_id, _ in fault.links}
        if not wrong:
            return outputs
        spoilt = reading_from(wrong, self.declared)
        return [output for output in outputs if output not in spoilt]

    def _decides(self, fault: Fault) -> bool:
        """Whether ComfyUI refuses for it what needs its node. It does not look at inputs that no class declares."""
        if fault.weight is not Weight.CERTAIN or fault.node_id is None:
            return False
        known = self.object_info.get(self.graph[fault.node_id]["class_type"])
        return known is None or fault.input is None or fault.input in known.inputs

    def _weighed(self, outputs: list[str]) -> Iterator[Fault]:
        """The faults; those of nodes that lead to no output are harmless, since ComfyUI only looks for their class."""
        needed = leading_to(outputs, self._all_links())
        for fault in self.faults:
            idle = outputs and fault.node_id is not None and fault.node_id not in needed
            if not idle or fault.kind == MISSING_NODE:
                yield fault
            elif self.advice:
                yield replace(fault, weight=Weight.HARMLESS)
        if self.advice and outputs:
            for node_id in self.graph.keys() - needed:
                what = "leads to no output, so ComfyUI does not run it"
                class_type = self.graph[node_id]["class_type"]
                yield Fault(LEADS_NOWHERE, what, None, node_id, class_type, None, Weight.HARMLESS)

    def _stale(self, faults: tuple[Fault, ...]) -> frozenset[str]:
        certain = (fault for fault in faults if fault.weight is Weight.CERTAIN)
        may_change = (fault for fault in certain if fault.kind in (MISSING_NODE, NOT_IN_LIST))
        return frozenset(str(self.graph[fault.node_id or ""]["class_type"]) for fault in may_change)

    def _all_links(self) -> Mapping[str, Mapping[str, str]]:
        if not self.undeclared:
            return self.declared
        nodes = self.declared.keys() | self.undeclared.keys()
        return {node_id: self.declared.get(node_id, {}) | self.undeclared.get(node_id, {}) for node_id in nodes}


def is_part(name: str, known: NodeInfo) -> bool:
    """Whether an input that the class does not list, `resize_type.width`, belongs to one that stands for others."""
    whole = known.inputs.get(name.partition(".")[0]) if "." in name else None
    return whole is not None and whole.type.startswith(STANDS_FOR_OTHERS)


def _weight_of_missing(wanted: InputInfo) -> Weight:
    """Newer ComfyUIs have inputs that stand for several others, under names of their own."""
    return Weight.DOUBTFUL if wanted.type.startswith(STANDS_FOR_OTHERS) else Weight.CERTAIN

"""What a value does besides filling its placeholders, read from presets and effects."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from morpheus_worker.comfy.graphs import is_link
from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.errors import did_you_mean
from morpheus_worker.templates.declared import ANY_KEY, NULL_KEY, Preset
from morpheus_worker.templates.notes import Notes, judge, near_or_all
from morpheus_worker.templates.params import NO_EFFECT, Choice, Effect, Param, from_key, same
from morpheus_worker.templates.places import MISSING
from morpheus_worker.templates.reading import Path

_HOW_TO_NAME_AN_INPUT = 'write "<node id>.<input name>"'


@dataclass(frozen=True, slots=True)
class EffectReader:
    """Reads the effects of one document. `params` are all of them, without their effects; `object_info` knows which
    nodes save or show something."""

    notes: Notes
    params: Mapping[str, Param]
    object_info: ObjectInfo

    def with_effects(self, param: Param) -> Param:
        said = self.notes.document.declaration(param.key)
        if said.presets:
            presets = zip(param.choices, said.presets.items(), strict=True)
            choices = [self._choice(param.key, "choice", name, one, choice.value) for choice, (name, one) in presets]
            param = replace(param, choices=tuple(choices))
        effects: list[Choice] = []
        otherwise: Effect = NO_EFFECT
        for name, preset in said.effects.items():
            if name == ANY_KEY:
                otherwise = self._choice(param.key, "effect", name, preset, name)
                continue
            value = self._value(param, name)
            if any(same(value, other.value) for other in effects):
                what = f"the effects of '{param.key}' name one value twice"
                self.notes.note(param.key, ("effects", name), what, "remove one")
            effects.append(self._choice(param.key, "effect", name, preset, value))
        repeat = self._standing_in(param.key, ("repeat",), f"'{param.key}' repeats", said.repeat)
        if not param.minimum and self._ends_all(repeat):
            what = f"an empty list '{param.key}' takes out {_nodes(repeat)}, and then nothing is saved or shown"
            self.notes.note(param.key, ("repeat",), what, '"min": 1, or repeat a node that no output needs')
            repeat = {}
        return replace(param, effects=tuple(effects), otherwise=otherwise, repeat=repeat)

    def _value(self, param: Param, name: str) -> Any:
        """The value that a key of `effects` stands for."""
        key, at = param.key, ("effects", name)
        if name == NULL_KEY:
            if param.default is not None and not (param.default is MISSING and param.type == "any"):
                why = "it is required" if param.default is MISSING else "it has a default"
                self.notes.note(key, at, f"'{key}' is never without a value: {why}", '"default": null')
            return None
        if param.media is not None or param.type == "output_path":
            hint = f"use '{ANY_KEY}' for any, and '{NULL_KEY}' for none"
            self.notes.note(key, at, f"the effects of '{key}' cannot tell one file from another", hint)
            return name
        if self._is_null_in_other_words(param, name):
            what = f"the key '{name}' in the effects of '{key}' stands for that text"
            self.notes.note(key, at, what, f'no value at all is written "{NULL_KEY}"')
            return name
        what = f"the key '{name}' in the effects of '{key}'"
        return self.notes.read(judge(param), from_key(name, param.type), key, at, what)

    def _is_null_in_other_words(self, param: Param, name: str) -> bool:
        """ComfyUI's own lists have a `None` or `none` of their own now and then."""
        if name.casefold() not in ("null", "none") or param.default is not None or param.type != "string":
            return False
        if NULL_KEY in self.notes.document.declaration(param.key).effects:
            return False
        return name not in (*(choice.value for choice in param.choices), *param.shown_choices)

    def _choice(self, key: str, kind: str, name: str, preset: Preset, value: Any) -> Choice:
        at = ("choices" if kind == "choice" else "effects", name)
        what = f"the {kind} '{name}' of '{key}'"
        links = self._links(key, at, preset)
        bypass = self._standing_in(key, (*at, "bypass"), f"{what} bypasses", preset.bypass, links.keys())
        if self._ends_all(bypass):
            said = f"{what} takes out {_nodes(bypass)}, and then nothing is saved or shown"
            self.notes.note(key, (*at, "bypass"), said, "leave in a node that saves or shows something")
            bypass = {}
        return Choice(
            value,
            sets=self._sets(key, at, what, preset),
            links=links,
            bypass=bypass,
            description=preset.description,
            at=("_params", key, *at),
        )

    def _sets(self, key: str, at: Path, what: str, preset: Preset) -> dict[str, Any]:
        order, document = list(self.params), self.notes.document
        values: dict[str, Any] = {}
        for target, value in preset.sets.items():
            place, said = (*at, "set", target), f"{what} sets '{target}'"
            if target not in self.params:
                self.notes.note(key, place, f"{said}, which is no param", near_or_all(target, self.params, "params"))
            elif target == key:
                self.notes.note(key, place, f"{what} sets '{key}' itself, which has its value already", "remove it")
            elif document.declaration(target).sets_others and order.index(target) <= order.index(key):
                hint = f"declare '{target}' after '{key}'"
                self.notes.note(key, place, f"{said}, whose own choice has been made by then", hint)
            elif value is None:
                values[target] = None
            else:
                values[target] = self.notes.read(judge(self.params[target]), value, key, place, f"{said}, which")
        return values

    def _links(self, key: str, at: Path, preset: Preset) -> dict[tuple[str, str], list[Any]]:
        graph = self.notes.document.graph
        links: dict[tuple[str, str], list[Any]] = {}
        for place, link in preset.links.items():
            where = (*at, "links", place)
            target = self._input_named(place)
            node_id, dot, name = place.partition(".")
            if target is None and dot and node_id and name:
                said = f"'{place}' is an input of node {node_id}, which is not there"
                self.notes.note(key, where, said, near_or_all(node_id, graph, "nodes"))
            elif target is None:
                self.notes.note(key, where, f"'{place}' names no input of a node", _HOW_TO_NAME_AN_INPUT)
            elif link[0] not in graph:
                said = f"'{place}' is linked to node {link[0]}, which is not there"
                self.notes.note(key, where, said, near_or_all(link[0], graph, "nodes"))
            else:
                links[target] = link
        return links

    def _input_named(self, place: str) -> tuple[str, str] | None:
        """`9.images` as (`9`, `images`). An id or a name may have dots of its own."""
        dots = [index for index, character in enumerate(place) if character == "."]
        pairs = ((place[:dot], place[dot + 1 :]) for dot in dots)
        return next((pair for pair in pairs if pair[0] in self.notes.document.graph and pair[1]), None)

    def _standing_in(
        self, key: str, at: Path, what: str, bypass: Mapping[str, list[str]], brought: Collection[tuple[str, str]] = ()
    ) -> dict[str, tuple[str, ...]]:
        """The nodes that are there, whose inputs can stand in for their outputs: they have a link, of the graph or one
        that is `brought` along."""
        sound: dict[str, tuple[str, ...]] = {}
        for node_id, inputs in bypass.items():
            problems = list(self._wrong_inputs(node_id, inputs, brought))
            for said, hint in problems:
                self.notes.note(key, (*at, node_id), f"{what} node {node_id}, {said}", hint)
            if not problems:
                sound[node_id] = tuple(inputs)
        return sound

    def _ends_all(self, bypass: Collection[str]) -> bool:
        """Whether these nodes have in them every one that may be an output."""
        graph, info = self.notes.document.graph, self.object_info
        may_end = {
            node_id
            for node_id, node in graph.items()
            if (known := info.get(node["class_type"])) is None or known.is_output
        }
        return bool(bypass) and bool(may_end) and may_end <= set(bypass)

    def _wrong_inputs(
        self, node_id: str, inputs: list[str], brought: Collection[tuple[str, str]]
    ) -> Iterator[tuple[str, str | None]]:
        graph = self.notes.document.graph
        if node_id not in graph:
            yield "which is not there", did_you_mean(node_id, graph)
            return
        has = graph[node_id]["inputs"]
        for name in inputs:
            if (node_id, name) in brought or is_link(has.get(name)):
                continue
            if name in has:
                yield f"whose input '{name}' is no link", "name the inputs that stand in for its outputs"
            else:
                yield f"which has no input '{name}'", did_you_mean(name, has) or f"inputs: {', '.join(has)}"


def _nodes(ids: Collection[str]) -> str:
    return f"{'node' if len(ids) == 1 else 'nodes'} {', '.join(ids)}"

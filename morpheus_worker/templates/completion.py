"""Puts a document's params together: declaration, placeholders, object info, presets. Everything that does not add up
is gathered, none of it raised."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.errors import Problem, did_you_mean
from morpheus_worker.templates.declared import WORKER_PARAMS, Preset
from morpheus_worker.templates.document import Document, Slot
from morpheus_worker.templates.params import Appearance, DeclarationError, Param, complete, twin_of
from morpheus_worker.templates.places import MISSING, Place
from morpheus_worker.templates.scan import PlaceholderKind
from morpheus_worker.templates.values import RefusedValueError, read_value


class Completion:
    """One completion of one document. `params` and `aliases` are the outcome, `problems` what contradicts itself."""

    def __init__(self, document: Document, object_info: ObjectInfo) -> None:
        self.problems: list[Problem] = []
        self._document = document
        self._object_info = object_info
        plain = self._plain()
        self.params = {key: self._with_presets(param, plain) for key, param in plain.items()}
        self.aliases = self._aliases()
        self._check_use()

    def _plain(self) -> dict[str, Param]:
        """The params without what their presets do."""
        appearances = self._appearances()
        params: dict[str, Param] = {}
        for key in self._document.param_keys():
            aliases = [alias for alias, target in self._document.about.param_aliases.items() if target == key]
            seen = appearances.get(key, Appearance())
            try:
                param = complete(key, self._document.declaration(key), seen, aliases)
            except DeclarationError as failure:
                self._note(key, (), f"the param '{key}' {failure}")
            else:
                params[key] = self._with_read_values(param)
        return params

    def _appearances(self) -> dict[str, Appearance]:
        kinds: dict[str, set[PlaceholderKind]] = {}
        places: dict[str, list[Place]] = {}
        for slot in self._document.slots:
            place = self._place(slot)
            for part in slot.placeholders:
                kinds.setdefault(part.key, set()).add(part.kind)
                places.setdefault(part.key, []).append(place)
        return {key: Appearance(frozenset(kinds[key]), tuple(places[key])) for key in kinds}

    def _place(self, slot: Slot) -> Place:
        class_type = self._document.graph[slot.node_id]["class_type"]
        info = self._object_info.input(class_type, slot.input) if slot.input is not None and slot.is_input else None
        return Place(slot.node_id, class_type, slot.input, slot.is_input and slot.whole is not None, info)

    def _with_read_values(self, param: Param) -> Param:
        """The choices and the default as their own type and range have them."""
        key = param.key
        if param.minimum is not None and param.maximum is not None and param.minimum > param.maximum:
            self._note(key, ("min",), f"the smallest value of '{key}' is larger than the largest")
        said = self._document.declaration(key)
        if said.choices is not None:
            judge, at = replace(param, choices=()), ("choices",)
            read = [self._read(judge, choice.value, at, f"a choice of '{key}'") for choice in param.choices]
            choices = [replace(choice, value=value) for choice, value in zip(param.choices, read, strict=True)]
            param = replace(param, choices=tuple(choices))
        if param.default is None or param.default is MISSING:
            return param
        if said.has_default:
            default = self._read(self._judge(param), param.default, ("default",), f"the default of '{key}'")
            return replace(param, default=default)
        # ComfyUI's own defaults are its own affair, even one that misses its own range.
        with contextlib.suppress(RefusedValueError):
            return replace(param, default=read_value(replace(param, choices=()), param.default))
        return param

    def _judge(self, param: Param) -> Param:
        """The param that judges a template's own values: what models a ComfyUI has is no matter of the template."""
        return param if self._document.declaration(param.key).choices is not None else replace(param, choices=())

    def _with_presets(self, param: Param, params: Mapping[str, Param]) -> Param:
        presets = self._document.declaration(param.key).presets
        if not presets:
            return param
        choices = [
            replace(
                choice, sets=self._sets(param.key, name, preset, params), links=self._links(param.key, name, preset)
            )
            for choice, (name, preset) in zip(param.choices, presets.items(), strict=True)
        ]
        return replace(param, choices=tuple(choices))

    def _sets(self, key: str, name: str, preset: Preset, params: Mapping[str, Param]) -> dict[str, Any]:
        order = list(params)
        values: dict[str, Any] = {}
        for target, value in preset.sets.items():
            at = ("choices", name, "set", target)
            what = f"the choice '{name}' of '{key}' sets '{target}'"
            if target not in params:
                self._note(key, at, f"{what}, which is no param", did_you_mean(target, params))
            elif self._document.declaration(target).presets and order.index(target) <= order.index(key):
                hint = f"declare '{target}' after '{key}'"
                self._note(key, at, f"{what}, whose own choice has been made by then", hint)
            elif value is None:
                values[target] = None
            else:
                values[target] = self._read(self._judge(params[target]), value, at, f"{what}, which")
        return values

    def _links(self, key: str, name: str, preset: Preset) -> dict[tuple[str, str], list[Any]]:
        links: dict[tuple[str, str], list[Any]] = {}
        for place, link in preset.links.items():
            at = ("choices", name, "links", place)
            target = self._input_named(place)
            if target is None:
                self._note(key, at, f"'{place}' names no input of a node", 'write "<node id>.<input name>"')
            elif link[0] not in self._document.graph:
                self._note(key, at, f"'{place}' is linked to node {link[0]}, which is not there")
            else:
                links[target] = link
        return links

    def _input_named(self, place: str) -> tuple[str, str] | None:
        """`9.images` as (`9`, `images`). An id or a name may have dots of its own."""
        dots = [index for index, character in enumerate(place) if character == "."]
        pairs = ((place[:dot], place[dot + 1 :]) for dot in dots)
        return next((pair for pair in pairs if pair[0] in self._document.graph and pair[1]), None)

    def _aliases(self) -> dict[str, str]:
        aliases = {twin: key for key in self.params if (twin := twin_of(key)) is not None}
        for alias, target in self._document.about.param_aliases.items():
            what = None
            if target not in self.params:
                what = f"the alias '{alias}' leads to '{target}', which is no param"
            elif alias in self.params or alias in WORKER_PARAMS:
                what = f"the alias '{alias}' is the name of a param itself"
            if what is not None:
                at = ("_about", "param_aliases", alias)
                self.problems.append(self._document.tree.problem(at, what, did_you_mean(target, self.params)))
            aliases[alias] = target
        return aliases

    def _check_use(self) -> None:
        in_graph = {key for key, param in self.params.items() if param.places}
        for key in self.params.keys() - in_graph:
            if not self._document.declaration(key).presets:
                undeclared = in_graph - self._document.declared.keys()
                what = f"the param '{key}' fills nothing: it has no placeholder in the graph and no presets"
                self._note(key, (), what, did_you_mean(key, undeclared))

    def _read(self, param: Param, value: Any, at: tuple[str, ...], what: str) -> Any:
        try:
            return read_value(param, value)
        except RefusedValueError as refused:
            self._note(param.key, at, f"{what} {refused.what}", refused.hint)
            return value

    def _note(self, key: str, at: tuple[str, ...], what: str, hint: str | None = None) -> None:
        self.problems.append(self._document.tree.problem(("_params", key, *at), what, hint))

"""Puts a document's params together: declaration, placeholders, object info, effects. Everything that does not add up
is gathered, none of it raised."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.errors import Problem, did_you_mean
from morpheus_worker.templates.declared import WORKER_PARAMS, Declaration
from morpheus_worker.templates.document import Document, Slot
from morpheus_worker.templates.effects import EffectReader
from morpheus_worker.templates.notes import Notes, judge, near_or_all
from morpheus_worker.templates.params import Appearance, DeclarationError, Param, complete, twin_of
from morpheus_worker.templates.places import MISSING, Place
from morpheus_worker.templates.reading import Path
from morpheus_worker.templates.repeating import check_repeats, field_appearances
from morpheus_worker.templates.scan import PlaceholderKind
from morpheus_worker.templates.values import RefusedValueError, read_value

_NO_FIELDS = frozenset({"image", "video", "audio", "file", "dir", "seed", "output_path"})
"""Types that a field of an item cannot have."""


class Completion:
    """One completion of one document. `params` and `aliases` are the outcome, `problems` what contradicts itself."""

    def __init__(self, document: Document, object_info: ObjectInfo) -> None:
        self._notes = Notes(document)
        self._document = document
        self._object_info = object_info
        plain = self._plain()
        reader = EffectReader(self._notes, plain, object_info)
        self.params = {key: reader.with_effects(param) for key, param in plain.items()}
        self.aliases = self._aliases()
        check_repeats(self._notes, self.params)
        self._check_use()
        self._check_files()
        self._check_whole_lists()

    @property
    def problems(self) -> list[Problem]:
        return self._notes.problems

    def _plain(self) -> dict[str, Param]:
        """The params without what their values do besides."""
        appearances = self._appearances()
        params: dict[str, Param] = {}
        for key in self._document.param_keys():
            aliases = [alias for alias, target in self._document.about.param_aliases.items() if target == key]
            said = self._document.declaration(key)
            param = self._completed(key, (), key, said, appearances.get(key, Appearance()), aliases)
            if param is not None:
                fields = dict(self._fields(key, said, appearances))
                params[key] = self._with_read_values(replace(param, items=fields), key, (), said)
        return params

    def _fields(self, key: str, said: Declaration, seen: Mapping[str, Appearance]) -> Iterator[tuple[str, Param]]:
        for name, field in said.items.items():
            whole, at, own = f"{key}.{name}", ("items", name), field.as_declaration()
            if field.type in _NO_FIELDS:
                self._notes.note(key, (*at, "type"), f"the field '{whole}' cannot be of type '{field.type}'")
                continue
            appearance = field_appearances(seen.get(whole, Appearance()), said.repeat)
            param = self._completed(key, at, whole, own, appearance)
            if param is None:
                continue
            if param.media is not None:
                self._notes.note(key, at, f"the field '{whole}' fills a loader of files, which no item can bring")
            kind = "int" if param.type == "seed" else param.type
            yield name, self._with_read_values(replace(param, type=kind), key, at, own)

    def _completed(
        self, key: str, at: Path, whole: str, said: Declaration, seen: Appearance, aliases: Iterable[str] = ()
    ) -> Param | None:
        """The param `key`, or the field `whole` of its items, which is declared at `at` below it."""
        try:
            return complete(whole, said, seen, aliases)
        except DeclarationError as failure:
            self._notes.note(key, at, f"the {'field' if at else 'param'} '{whole}' {failure}")
            return None

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

    def _with_read_values(self, param: Param, key: str, at: Path, said: Declaration) -> Param:
        """The choices and the default as their own type and range have them."""
        name, notes = param.key, self._notes
        if param.brackets and param.type != "string":
            notes.note(key, (*at, "brackets"), f"'{name}' has brackets, but is no text", '"type": "string"')
        if param.default_env and param.type not in ("bool", "any"):
            what = f"'{name}' is of type '{param.type}', but {param.default_env} is true or false"
            notes.note(key, (*at, "default_env"), what, '"type": "bool", or another param that is')
        if param.minimum is not None and param.maximum is not None and param.minimum > param.maximum:
            hint = f'"min" may be {param.maximum} at most, or "max" must be {param.minimum} at least'
            notes.note(key, (*at, "min"), f"the smallest value of '{name}' is larger than the largest", hint)
        if param.own_choices:
            bare, where = replace(param, choices=()), (*at, "choices")
            read = [notes.read(bare, choice.value, key, where, f"a choice of '{name}'") for choice in param.choices]
            choices = [replace(choice, value=value) for choice, value in zip(param.choices, read, strict=True)]
            param = replace(param, choices=tuple(choices))
        if param.default is None or param.default is MISSING:
            return param
        if said.has_default:
            default = notes.read(judge(param), param.default, key, (*at, "default"), f"the default of '{name}'")
            return replace(param, default=default)
        # ComfyUI's own defaults are its own affair, even one that misses its own range.
        with contextlib.suppress(RefusedValueError):
            return replace(param, default=read_value(replace(param, choices=()), param.default))
        return param

    def _aliases(self) -> dict[str, str]:
        """Every other name of a param. An alias that names a path has two spellings, as a param's key has."""
        declared = self._document.about.param_aliases
        aliases = {twin: key for key in self.params if (twin := twin_of(key)) is not None}
        for alias, target in declared.items():
            what, hint = None, "remove it, or choose another name"
            if target not in self.params:
                what = f"the alias '{alias}' leads to '{target}', which is no param"
                hint = near_or_all(target, self.params, "params")
            elif alias in self.params or alias in WORKER_PARAMS:
                what = f"the alias '{alias}' is the name of a param itself"
            elif aliases.get(alias, target) != target:
                what = f"the alias '{alias}' is the other spelling of the param '{aliases[alias]}'"
            if what is not None:
                self._notes.note_at(("_about", "param_aliases", alias), what, hint)
            aliases[alias] = target
        twins = {twin: target for alias, target in declared.items() if (twin := twin_of(alias)) is not None}
        return {twin: target for twin, target in twins.items() if twin not in self.params} | aliases

    def _check_use(self) -> None:
        in_graph = {key for key, param in self.params.items() if param.places}
        for key in self.params.keys() - in_graph:
            said = self._document.declaration(key)
            if not (said.presets or said.effects or said.repeat or said.of):
                undeclared = in_graph - self._document.declared.keys()
                what = f"the param '{key}' fills nothing: it has no placeholder in the graph and no presets"
                hint = did_you_mean(key, undeclared) or "put its placeholder where a node reads it, or remove it"
                self._notes.note(key, (), what, hint)

    def _check_files(self) -> None:
        """Params that ask for a copy of a node's file."""
        for key, param in self.params.items():
            if param.suffix and param.media != "file":
                self._notes.note(key, ("suffix",), f"'{key}' has a suffix, but is no file", "suffixes are for files")
            if param.of is None:
                continue
            at = ("of",)
            if param.type != "output_path":
                what = f"'{key}' is for the file of node {param.of}, but is no output path"
                self._notes.note(key, at, what, '"type": "output_path"')
            elif param.places:
                what = f"'{key}' has a placeholder, so its node writes the file itself"
                self._notes.note(key, at, what, "leave out 'of', or the placeholder")
            elif param.of not in self._document.graph:
                hint = did_you_mean(param.of, self._document.graph)
                self._notes.note(key, at, f"'{key}' is for the file of node {param.of}, which is not there", hint)
            elif (known := self._object_info.get(self._document.graph[param.of]["class_type"])) and not known.is_output:
                what = f"'{key}' is for the file of node {param.of} ({known.class_type}), which makes none"
                self._notes.note(key, at, what, "name a node that saves")

    def _check_whole_lists(self) -> None:
        """ComfyUI takes a list for a link, and no list of items is one."""
        for slot in self._document.slots:
            holder = self.params.get(slot.whole or "")
            if holder is None or not holder.items or not slot.is_input:
                continue
            field, key = next(iter(holder.items)), holder.key
            what = f"node {slot.node_id} input {slot.input} takes the whole list '{key}', which ComfyUI reads as a link"
            hint = f'"__param:{key}.{field}__" in a node that the list repeats, or {{"__value__": "__param:{key}__"}}'
            self._notes.note_at(slot.path, what, hint)

"""The graphs that a template can become: its defaults, and one param after another given every value that changes the
wiring. What is wrong with any of them can be told before a job meets it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from morpheus_worker.templates.bind import Bound, fill
from morpheus_worker.templates.declared import WORKER_PARAMS, ParamType
from morpheus_worker.templates.params import MEDIA_TYPES, Param, same
from morpheus_worker.templates.places import MISSING
from morpheus_worker.templates.resolving import lacking_params, resolve
from morpheus_worker.templates.template import Template
from morpheus_worker.templates.values import RefusedValueError, as_text, read_value

COUNTS: Final = (0, 1, 2)
"""How many items a list is tried with."""

FOLDER: Final = "job_outputs/variation"
"""Where files that nobody has are said to be."""


@dataclass(frozen=True, slots=True, eq=False)
class Variation:
    """Params to give to a template, and what they stand for, in words: `aspect = 16:9`, `loras with 2 items`.

    `made_up` are the params whose value is of the right type and range, and means nothing: whether there is a model
    or a file of that name says nothing of the template.
    """

    sentence: str
    params: Mapping[str, Any]
    made_up: frozenset[str] = frozenset()


def variations(template: Template) -> Iterator[Variation]:
    """The defaults first, then one param varied at a time: every choice and every effect of the template's, lists with
    `COUNTS` items, optional media given. What a param needs besides is filled in."""
    base = _variation(template, "the defaults", {}, ())
    yield base
    for param in template.params.values():
        usual = base.params.get(param.key, param.default)
        seen = [usual]
        for sentence, value, is_made_up in _values(param, usual):
            if not any(same(value, other) for other in seen):
                seen.append(value)
                yield _variation(template, sentence, {param.key: value}, (param.key,) if is_made_up else ())


def bound_variation(template: Template, variation: Variation) -> Bound:
    """The template filled with the variation's params. Nothing is staged: media have names of files that nobody has,
    and a list that is made up leaves its input null, since only a caller has a link to put there.

    Raises:
        MorpheusError: `invalid_params`, when the template refuses a value of its own.
    """
    worker_values = dict.fromkeys(WORKER_PARAMS, "variation")
    resolved = resolve(template, variation.params, worker_values=worker_values, draw_seed=lambda: 0)
    placed = {medium.key: f"/{FOLDER}/{medium.key}" if medium.as_path else medium.key for medium in resolved.media}
    bound = fill(resolved, placed | {path.key: f"/{FOLDER}/{path.key}" for path in resolved.output_paths})
    for key in variation.made_up.intersection(template.list_keys):
        for place in template.params[key].places:
            if place.whole and place.node_id in bound.graph and isinstance(resolved.values[key], list):
                bound.graph[place.node_id]["inputs"][place.input] = None
    return bound


def bind_variation(template: Template, variation: Variation) -> dict[str, Any]:
    """The graph of `bound_variation`."""
    return bound_variation(template, variation).graph


def plausible(param: Param) -> tuple[Any, bool]:
    """A value that the param takes, and whether it is made up."""
    usual = [] if param.default is MISSING or param.default is None else [param.default]
    known = [choice.value for choice in param.choices] or list(param.shown_choices)
    # The range that a template declares need not have the node's own default.
    found = next((value for value in (*usual, *known) if _is_taken(param, value)), None)
    return (found, False) if found is not None else (_made_up(param), True)


def _variation(template: Template, sentence: str, params: Mapping[str, Any], made_up: tuple[str, ...]) -> Variation:
    given, invented = dict(params), set(made_up)
    # A param that is filled in may have an effect that asks for another one.
    for _ in template.params:
        for param in (lacking := lacking_params(template, given)):
            given[param.key], is_made_up = plausible(param)
            invented |= {param.key} if is_made_up else set()
        if not lacking:
            break
    return Variation(sentence, given, frozenset(invented))


def _values(param: Param, usual: Any) -> Iterator[tuple[str, Any, bool]]:
    """Each value that is worth a try, in words, and whether it is made up."""
    if param.own_choices:
        yield from ((f"{param.key} = {as_text(choice.value)}", choice.value, False) for choice in param.choices)
    for effect in param.effects:
        absent = effect.value is None
        yield f"{param.key} absent" if absent else f"{param.key} = {as_text(effect.value)}", effect.value, False
    if param.items:
        yield from _lists(param)
        return
    has_effects = bool(param.otherwise or any(param.effects))
    if (has_effects and not _is_other(param, usual)) or (usual is None and param.demanding):
        other, is_made_up = _other(param)
        yield f"{param.key} given", other, is_made_up


def _lists(param: Param) -> Iterator[tuple[str, Any, bool]]:
    for count in COUNTS:
        if (param.minimum or 0) <= count <= (count if param.maximum is None else param.maximum):
            said = "1 item" if count == 1 else f"{count} items"
            is_made_up = any(plausible(field)[1] for field in param.items.values()) and count > 0
            yield f"{param.key} with {said}", [_item(param) for _ in range(count)], is_made_up


def _item(param: Param) -> dict[str, Any]:
    return {name: plausible(field)[0] for name, field in param.items.items()}


def _is_other(param: Param, value: Any) -> bool:
    """Whether no effect is this value's own, so that it has that of every other."""
    return value is not None and not any(same(effect.value, value) for effect in param.effects)


def _other(param: Param) -> tuple[Any, bool]:
    """A value without an effect of its own; where none can be thought of, one that has."""
    likely, is_made_up = plausible(param)
    known = [choice.value for choice in param.choices] or list(param.shown_choices)
    limits = [limit for limit in (param.minimum, param.maximum) if limit is not None]
    for value, invented in (
        (likely, is_made_up),
        *((value, False) for value in known),
        *((value, True) for value in (*limits, 1, 2, 0.5, True, False, f"{param.key}-2")),
    ):
        if _is_other(param, value) and _is_taken(param, value):
            return read_value(param, value), invented
    return likely, is_made_up


def _is_taken(param: Param, value: Any) -> bool:
    try:
        read_value(param, value)
    except RefusedValueError:
        return False
    return True


def _made_up(param: Param) -> Any:
    if param.items:
        return [_item(param) for _ in range(max(1, int(param.minimum or 0)))]
    if param.type in ("int", "float", "seed"):
        lowest = param.minimum if param.minimum is not None else 1
        number = lowest if lowest > 1 else min(1, param.maximum if param.maximum is not None else 1)
        return float(number) if param.type == "float" else int(number)
    if param.type in MEDIA_TYPES or param.type == "output_path":
        return f"{FOLDER}/{param.key}"
    return _PLAIN.get(param.type, param.key)


_PLAIN: Final[Mapping[ParamType, Any]] = {"bool": True, "list": [], "object": {}}

"""A template's params: what the template declares, completed by what ComfyUI knows of the inputs they fill.

Precedence: `_params`, then the kind of the placeholder and the shape of the key, then ComfyUI's object info. A default
that only the object info names is taken too: an author who exports a graph and replaces `20` by a placeholder expects
the node's own default. Seeds are the exception: without a value they are drawn.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from morpheus_worker.templates.declared import Declaration, MediaKind, ParamType
from morpheus_worker.templates.places import MISSING, SEED_NAMES, Facts, Place, facts_of
from morpheus_worker.templates.reading import Path
from morpheus_worker.templates.scan import PlaceholderKind
from morpheus_worker.templates.wiring import Bypass, Links

LARGEST_SEED: Final = 2**64 - 1
DRAW: Final = -1
"""The seed that asks for another one, as in ComfyUI's own editor plugins."""

PATH_ENDINGS: Final = ("_pod_path", "_local_path")
"""Two spellings of one key, whose value is a path on the volume."""

MEDIA_TYPES: Final[Mapping[ParamType, MediaKind]] = {
    "image": "image",
    "video": "video",
    "audio": "audio",
    "file": "file",
    "dir": "dir",
}
MOST_ITEMS: Final = 16
"""How many items a list has at most, unless its declaration says otherwise."""

_NUMERIC: Final[frozenset[ParamType]] = frozenset({"int", "float", "seed"})


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Effect:
    """What a value does besides filling its placeholders: sets other params, rewires inputs, takes nodes out.

    `bypass` names, for each node that is taken out, the input that stands in for each of its outputs. `at` is where the
    template says so.
    """

    sets: Mapping[str, Any] = field(default_factory=dict)
    links: Links = field(default_factory=dict)
    bypass: Bypass = field(default_factory=dict)
    description: str = ""
    at: Path = ()

    def __bool__(self) -> bool:
        return bool(self.sets or self.links or self.bypass)


NO_EFFECT: Final = Effect()


@dataclass(frozen=True, slots=True, eq=False)
class Choice(Effect):
    """A value, and what it does besides."""

    value: Any


@dataclass(frozen=True, slots=True, eq=False)
class Param:
    """One param, complete. `default` MISSING means that a caller must give it, unless it is a seed.

    `choices` are those of the template (`own_choices`), or of the object info where ComfyUI itself would refuse others;
    `shown_choices` are for a person to read, and nothing else. `effects` are those of single values, None for no value
    at all; `otherwise` is that of every other. `items` are the fields of a list's items, and `repeat` the nodes that
    are there once an item, with the inputs that chain them. `minimum` and `maximum` of a list count its items.
    `of` is the node whose file an output path is for.
    """

    key: str
    type: ParamType
    default: Any = MISSING
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[Choice, ...] = ()
    own_choices: bool = False
    shown_choices: tuple[Any, ...] = ()
    media: MediaKind | None = None
    description: str = ""
    label: str | None = None
    places: tuple[Place, ...] = ()
    node_ids: frozenset[str] = frozenset()
    aliases: tuple[str, ...] = ()
    effects: tuple[Choice, ...] = ()
    otherwise: Effect = NO_EFFECT
    items: Mapping[str, Param] = field(default_factory=dict)
    repeat: Bypass = field(default_factory=dict)
    brackets: bool = False
    default_env: str | None = None
    of: str | None = None
    suffix: str = ""

    @property
    def all_effects(self) -> Iterator[Effect]:
        yield from self.choices
        yield from self.effects
        yield self.otherwise

    @property
    def sets_others(self) -> bool:
        return any(effect.sets for effect in self.all_effects)

    @property
    def rewires(self) -> bool:
        """Whether the graph's shape depends on its value."""
        return bool(self.repeat) or any(effect.links or effect.bypass for effect in self.all_effects)

    @property
    def demanding(self) -> bool:
        """Whether it may lack a value, or its value has to be placed before the graph is filled."""
        return self.default is MISSING or self.media is not None or self.type == "output_path"

    @property
    def optional(self) -> bool:
        """Whether every node it fills does without it."""
        return bool(self.places) and all(place.whole and place.optional for place in self.places)

    def choice(self, value: Any) -> Choice | None:
        return next((choice for choice in self.choices if same(choice.value, value)), None)

    def effects_of(self, value: Any) -> list[Effect]:
        """What this value does, in order. MISSING is no value."""
        value = None if value is MISSING else value
        found: list[Effect | None] = [self.choice(value)] if self.choices else []
        if self.effects or self.otherwise:
            own = next((effect for effect in self.effects if same(effect.value, value)), None)
            found.append(self.otherwise if own is None and value is not None else own)
        return [effect for effect in found if effect]

    def bypass_of(self, value: Any) -> Bypass:
        """The repeated nodes, which a list without items takes out."""
        return {} if value else self.repeat


def rewired(params: Iterable[Param], values: Mapping[str, Any]) -> tuple[Links, Bypass]:
    """How these values rewire the graph, and which nodes they take out. Of two that differ the later one wins."""
    links: dict[tuple[str, str], list[Any]] = {}
    bypass: dict[str, Sequence[str]] = {}
    for param in params:
        value = values[param.key]
        for effect in param.effects_of(value):
            links |= effect.links
            bypass |= effect.bypass
        bypass |= param.bypass_of(value)
    return links, bypass


@dataclass(frozen=True, slots=True)
class Appearance:
    """The placeholders of one param in the graph."""

    kinds: frozenset[PlaceholderKind] = frozenset()
    places: tuple[Place, ...] = ()


class DeclarationError(ValueError):
    """A declaration that contradicts itself or the template; the message says how."""


def twin_of(key: str) -> str | None:
    """The other spelling of a key that names a path: `face_pod_path` and `face_local_path` are one."""
    mine = next((ending for ending in PATH_ENDINGS if key.endswith(ending)), None)
    if mine is None:
        return None
    other = next(ending for ending in PATH_ENDINGS if ending != mine)
    return key.removesuffix(mine) + other


def complete(key: str, said: Declaration, seen: Appearance, aliases: Iterable[str] = ()) -> Param:
    """The param without its presets' effects, which need all params.

    Raises:
        DeclarationError: when the type it is declared with cannot be.
    """
    facts = facts_of(seen.places)
    kind = _type_of(key, said, seen, facts)
    lowest, highest = (facts.minimum, facts.maximum) if kind in _NUMERIC else (None, None)
    if kind == "seed":
        lowest, highest = max(lowest or 0, 0), min(highest or LARGEST_SEED, LARGEST_SEED)
    if said.items:
        lowest, highest = 0, MOST_ITEMS
    enforced, shown = _choices(said, facts, kind)
    param = Param(
        key=key,
        type=kind,
        default=_default(said, facts, kind),
        minimum=said.min if said.min is not None else lowest,
        maximum=said.max if said.max is not None else highest,
        choices=enforced,
        own_choices=said.choices is not None,
        shown_choices=shown,
        media=_media_of(kind, said, facts),
        description=said.description,
        label=said.label,
        places=seen.places,
        node_ids=frozenset([*(place.node_id for place in seen.places), *said.repeat, *([said.of] if said.of else [])]),
        aliases=tuple(aliases),
        brackets=said.brackets,
        default_env=said.default_env,
        of=said.of,
        suffix=said.suffix,
    )
    return replace(param, default=None) if param.default is MISSING and param.optional and kind != "seed" else param


def same(left: Any, right: Any) -> bool:
    """Equality of JSON values, in which true is not 1."""
    return bool(left == right) and isinstance(left, bool) == isinstance(right, bool)


def _type_of(key: str, said: Declaration, seen: Appearance, facts: Facts) -> ParamType:
    if said.type is None and said.items:
        return "list"
    if said.type is None:
        return said.media or _type_by_place(key, seen, facts) or _type_by_value(said)
    is_seed = said.type == "int" and (key in SEED_NAMES or facts.feeds_seed)
    stages = said.type in MEDIA_TYPES
    if not stages and seen.kinds - {"param"}:
        raise DeclarationError(f"is declared '{said.type}', but its placeholder names a file or folder")
    if not stages and said.media is not None:
        if said.type != "string":
            raise DeclarationError(f"is declared '{said.type}', but its media is '{said.media}'")
        return said.media
    return "seed" if is_seed else said.type


def _type_by_place(key: str, seen: Appearance, facts: Facts) -> ParamType | None:
    if "dir" in seen.kinds:
        return "dir"
    if "file" in seen.kinds:
        return facts.upload or "file"
    if key.endswith(PATH_ENDINGS):
        return "output_path" if "save" in key else facts.upload or "file"
    if facts.upload:
        return facts.upload
    return "seed" if key in SEED_NAMES or facts.feeds_seed else facts.type


def _type_by_value(said: Declaration) -> ParamType:
    """Without object info the values have to tell. A number may stand for an int or a float: it tells nothing."""
    if said.presets and set(said.presets) <= {"true", "false"}:
        return "bool"
    values = list(said.choices) if isinstance(said.choices, list) else []
    values += [said.default] if said.has_default and said.default is not None else []
    kinds: Mapping[type, ParamType] = {bool: "bool", str: "string", list: "list", dict: "object"}
    found = {kinds.get(type(value), "any") for value in values}
    if len(found) == 1:
        return found.pop()
    return "string" if said.presets and not found else "any"


def _media_of(kind: ParamType, said: Declaration, facts: Facts) -> MediaKind | None:
    if kind == "file":
        return said.media or facts.upload or "file"
    return MEDIA_TYPES.get(kind)


def _default(said: Declaration, facts: Facts, kind: ParamType) -> Any:
    if said.has_default:
        return said.default
    return MISSING if kind == "seed" or kind in MEDIA_TYPES else facts.default


def _choices(said: Declaration, facts: Facts, kind: ParamType) -> tuple[tuple[Choice, ...], tuple[Any, ...]]:
    """Those that are enforced, and those that are shown.

    An empty list of the object info is not enforced: a ComfyUI without a model says so better itself.
    """
    if said.choices is not None:
        return tuple(_declared_choices(said, kind)), ()
    if kind in MEDIA_TYPES or not facts.choices:
        return (), ()
    if facts.checked:
        return tuple(Choice(value) for value in facts.choices), facts.choices
    return (), facts.choices


def _declared_choices(said: Declaration, kind: ParamType) -> Iterator[Choice]:
    if isinstance(said.choices, list):
        yield from (Choice(value) for value in said.choices)
    yield from (Choice(from_key(name, kind)) for name in said.presets)


def from_key(name: str, kind: ParamType) -> Any:
    """The value that a key of presets stands for; a key's text is the value itself where the param takes text."""
    if kind in ("string", "output_path") or kind in MEDIA_TYPES:
        return name
    try:
        return json.loads(name)
    except ValueError:
        return name

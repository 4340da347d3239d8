"""Where a param's placeholders sit, and what ComfyUI's object info says of those inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from morpheus_worker.comfy.objectinfo import COMBO, InputInfo
from morpheus_worker.templates.declared import MediaKind, ParamType

SEED_NAMES: Final = frozenset({"seed", "noise_seed"})

_WIDGET_TYPES: Final[Mapping[str, ParamType]] = {"INT": "int", "FLOAT": "float", "STRING": "string", "BOOLEAN": "bool"}


class Missing:
    """The type of MISSING: no value, where null would be one."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing()


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where a placeholder sits. `whole` means that it is the input's whole value, with its JSON type.

    `input` is None for a placeholder outside of the node's inputs, in `_meta` say; `info` is None when the object info
    does not know the input.
    """

    node_id: str
    class_type: str
    input: str | None
    whole: bool
    info: InputInfo | None = None

    @property
    def optional(self) -> bool:
        """Whether the node does without this input."""
        return self.info is not None and not self.info.required

    @property
    def is_text(self) -> bool:
        """Whether the input is a plain text, which takes a whole path: not a loader's choice of a file."""
        return self.info is not None and self.info.type == "STRING" and self.upload is None

    @property
    def upload(self) -> MediaKind | None:
        """The kind of medium that the input loads from ComfyUI's input folder, or None."""
        return cast(MediaKind | None, self.info.upload) if self.info is not None else None


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """What the object info says of the inputs that one param fills whole, taken together.

    `choices` None: no input is a choice; `checked`: ComfyUI refuses any other value.
    """

    type: ParamType | None = None
    default: Any = MISSING
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[Any, ...] | None = None
    checked: bool = False
    upload: MediaKind | None = None
    feeds_seed: bool = False


def facts_of(places: Sequence[Place]) -> Facts:
    """The narrowest range and the common choices of all inputs, and the default of the first that has one."""
    whole = [place for place in places if place.whole]
    feeds_seed = any(place.input in SEED_NAMES for place in whole)
    upload = next((place.upload for place in places if place.upload), None)
    infos = [place.info for place in whole if place.info is not None and place.info.is_widget]
    checked = [info for info in infos if info.choices is not None and info.checked_choices]
    if not infos:
        return Facts(upload=upload, feeds_seed=feeds_seed)
    return Facts(
        type=_common_type(_type_of_input(info) for info in infos),
        default=next((told for info in infos if (told := info.options.get("default")) is not None), MISSING),
        minimum=_limit(infos, "min", max),
        maximum=_limit(infos, "max", min),
        choices=_common_choices(checked or infos),
        checked=bool(checked),
        upload=upload,
        feeds_seed=feeds_seed,
    )


def _type_of_input(info: InputInfo) -> ParamType:
    if info.type != COMBO:
        return _WIDGET_TYPES[info.type]
    choices = info.choices or ()
    if all(isinstance(choice, str) for choice in choices):
        return "string"
    return "int" if all(type(choice) is int for choice in choices) else "any"


def _common_type(kinds: Iterable[ParamType]) -> ParamType:
    found = set(kinds)
    if found == {"int", "float"}:
        return "int"
    return found.pop() if len(found) == 1 else "any"


def _limit(infos: Iterable[InputInfo], name: str, narrowest: Callable[[list[float]], float]) -> float | None:
    told = [info.options.get(name) for info in infos]
    limits = [limit for limit in told if isinstance(limit, (int, float)) and not isinstance(limit, bool)]
    return narrowest(limits) if limits else None


def _common_choices(infos: Sequence[InputInfo]) -> tuple[Any, ...] | None:
    lists = [info.choices for info in infos if info.choices is not None]
    if not lists:
        return None
    first, *others = lists
    return tuple(choice for choice in first if all(choice in other for other in others))

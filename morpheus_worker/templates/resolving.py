"""Deciding the value of every param of a job: the caller's, else that of a chosen preset, else the default."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from morpheus_worker.comfy.graphs import is_link
from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.errors import MOST_TOLD, Code, MorpheusError, Problem, did_you_mean, from_problems
from morpheus_worker.templates.declared import WORKER_PARAMS, MediaKind
from morpheus_worker.templates.items import read_items
from morpheus_worker.templates.params import DRAW, LARGEST_SEED, Param, rewired
from morpheus_worker.templates.places import MISSING, Place
from morpheus_worker.templates.template import Template
from morpheus_worker.templates.values import LONGEST_NAME, RefusedValueError, listed, named, read_value
from morpheus_worker.templates.wiring import Bypass, Links

LARGEST_DRAWN_SEED: Final = 2**53 - 1
"""The largest whole number that every client reads exactly: JSON numbers are doubles in JavaScript."""


def draw_seed() -> int:
    """A seed from 0 to `LARGEST_DRAWN_SEED`, of the operating system's randomness."""
    return secrets.randbits(LARGEST_DRAWN_SEED.bit_length())


@dataclass(frozen=True, slots=True, eq=False)
class MediaSlot:
    """A medium that the graph needs. `value` is what the caller sent.

    `as_path`: a node takes the medium as a plain text, so it wants an absolute path
    rather than a name in ComfyUI's input folder; where nodes of both sorts share it, the path serves both.
    `suffix` is what its name has to end in, for a loader that lists such files alone.
    """

    key: str
    kind: MediaKind
    value: str
    places: tuple[Place, ...]
    suffix: str = ""

    @property
    def as_path(self) -> bool:
        return any(place.is_text for place in self.places)


@dataclass(frozen=True, slots=True, eq=False)
class OutputPath:
    """A path that the caller wants something written to, unchecked: only the caller's text.

    `of` is the node whose file is to be put there as well; None when a node writes there itself.
    """

    key: str
    value: str
    places: tuple[Place, ...]
    of: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Resolved:
    """Every value decided. `media` and `output_paths` are to be placed, and handed to `fill` by their key.

    `values` has each param that the graph uses, with its JSON type; of media, what the caller sent.
    """

    template: Template
    values: Mapping[str, Any]
    links: Links
    bypass: Bypass
    live: frozenset[str]
    media: tuple[MediaSlot, ...]
    output_paths: tuple[OutputPath, ...]
    warnings: tuple[str, ...]
    worker_values: Mapping[str, Any]


def resolve(
    template: Template,
    params: Mapping[str, Any],
    *,
    strict_keys: Collection[str] | None = None,
    object_info: ObjectInfo | None = None,
    worker_values: Mapping[str, Any] | None = None,
    deployment: Mapping[str, Any] | None = None,
    draw_seed: Callable[[], int] = draw_seed,
) -> Resolved:
    """Decides the value of every param: the caller's, else that of a chosen preset, else the default.

    `strict_keys` are the params that the caller meant as such (None: all of them); an unknown one is an error, while
    any other key only leads to a warning. `object_info` completes the template anew, unless it is the one that has
    completed it. `worker_values` fill the worker's own placeholders. `deployment` has the defaults that the worker's
    environment sets, by the names of `DEPLOYMENT_DEFAULTS`.

    Params that only fill nodes nothing comes of are not required, and their media are not asked for.

    Raises:
        MorpheusError: `invalid_params`, or `missing_model` when a model that the caller named is not there, with every
            problem of the params at once; `invalid_workflow` when a placeholder of the worker's has no value.
    """
    template = template if object_info is None else template.seen_by(object_info)
    resolving = _Resolving(template, frozenset(params if strict_keys is None else strict_keys), draw_seed)
    resolving.take(params)
    if deployment:
        resolving.take_defaults(deployment)
    resolving.decide()
    resolved = resolving.outcome(worker_values or {})
    if template.worker_keys:
        _check_worker_values(template, worker_values or {})
    return resolved


def lacking_params(template: Template, params: Mapping[str, Any]) -> list[Param]:
    """The params that still need a value of the caller's, who sends these."""
    resolving = _Resolving(template, frozenset(), lambda: 0)
    resolving.take(params)
    resolving.decide()
    _, _, live = resolving.wiring()
    return resolving.lacking(resolving.used(live), live)


@dataclass(frozen=True, slots=True)
class _Given:
    """A value that the caller sent, and the name it came under."""

    name: str
    value: Any


@dataclass(slots=True)
class _Resolving:
    """One resolution under way. Problems gather until the end. `defaults` are the deployment's."""

    template: Template
    strict: frozenset[str]
    draw_seed: Callable[[], int]
    given: dict[str, _Given] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    preset_values: dict[str, Any] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    lacks_model: bool = False

    def take(self, params: Mapping[str, Any]) -> None:
        """Sorts what the caller sent by the params it is meant for."""
        ignored: list[str] = []
        for name, value in params.items():
            key = self.template.aliases.get(name, name)
            if key in WORKER_PARAMS or key not in self.template.params:
                self._take_foreign(name, ignored)
            elif key in self.given:
                self._take_again(key, _Given(name, value))
            else:
                self.given[key] = _Given(name, value)
        if ignored:
            said = f"these keys are no params of '{self.template.name}' and were ignored"
            self.warnings.append(f"{said}: {listed(ignored, MOST_TOLD)}")

    def take_defaults(self, deployment: Mapping[str, Any]) -> None:
        """What a deployment says wrongly is not the caller's fault: a warning tells it."""
        for key, param in self.template.params.items():
            said = deployment.get(param.default_env or "")
            if said is None:
                continue
            try:
                self.defaults[key] = read_value(param, said)
            except RefusedValueError as refused:
                self.warnings.append(f"{param.default_env} was ignored: it {refused.what}")

    def decide(self) -> None:
        """What sets others first, in the order of declaration, because they fall back on it."""
        params, setting = self.template.params, self.template.setting_keys
        self.values = {key: param.default for key, param in params.items()}
        self.values.update(self.defaults)
        for key in setting:
            value = self.values[key] = self._value(params[key])
            for effect in params[key].effects_of(value):
                self.preset_values |= effect.sets
        decided_otherwise = self.given.keys() | self.preset_values.keys() | self.template.seed_keys
        for key in params:
            if key in decided_otherwise and key not in setting:
                self.values[key] = self._value(params[key])

    def wiring(self) -> tuple[Links, Bypass, frozenset[str]]:
        """The links that effects change, the nodes that are taken out, and those that something comes of."""
        template = self.template
        links, bypass = _UNCHANGED
        if template.rewiring_keys:
            links, bypass = rewired([template.params[key] for key in template.rewiring_keys], self.values)
        by_value = dict(self._links_by_value())
        return links, bypass, template.live_nodes({**links, **by_value} if by_value else links, bypass)

    def used(self, live: frozenset[str]) -> list[Param]:
        """Of the params that can lack a value or have to be placed, those that something comes of."""
        return [param for param in self.template.demanding if _is_used(param, live)]

    def lacking(self, used: Iterable[Param], live: frozenset[str]) -> list[Param]:
        """Of those the ones that have no value."""
        return [
            param
            for param in used
            if param.key not in self.refused and _lacks_value(param, self.values[param.key], live)
        ]

    def outcome(self, worker_values: Mapping[str, Any]) -> Resolved:
        links, bypass, live = self.wiring()
        used = self.used(live)
        self.problems += [
            Problem(f"params.{param.key}", "is required", param.description or None)
            for param in self.lacking(used, live)
        ]
        if self.problems:
            raise self._failure()
        self._warn_of_lost_files(live)
        texts = [param for param in used if isinstance(self.values[param.key], str)]
        return Resolved(
            template=self.template,
            values={key: value for key in self.template.params if (value := self.values[key]) is not MISSING},
            links=links,
            bypass=bypass,
            live=live,
            media=tuple(
                MediaSlot(param.key, param.media, self.values[param.key], param.places, param.suffix)
                for param in texts
                if param.media is not None
            ),
            output_paths=tuple(
                OutputPath(param.key, self.values[param.key], param.places, param.of)
                for param in texts
                if param.type == "output_path"
            ),
            warnings=tuple(self.warnings),
            worker_values=worker_values,
        )

    def _warn_of_lost_files(self, live: frozenset[str]) -> None:
        """Paths for the file of a node that this job does without."""
        for param in self.template.demanding:
            if param.of is not None and param.of not in live and isinstance(self.values[param.key], str):
                name = self.given[param.key].name if param.key in self.given else param.key
                self.warnings.append(f"'{name}' was ignored: node {param.of}, whose file it is for, is not run")

    def _take_foreign(self, name: str, ignored: list[str]) -> None:
        is_ours = name in WORKER_PARAMS
        at, hint = named(name), None if is_ours else self._meant(name, len(ignored) + len(self.problems))
        if name not in self.strict:
            ignored.append(f"{at} ({hint})" if hint else at)
        elif is_ours:
            self.problems.append(Problem(f"params.{name}", "belongs to the worker", "leave it out"))
        else:
            known = f"params: {listed(list(self.template.params))}" if self.template.params else "there are none"
            self.problems.append(Problem(f"params.{at}", "is no param of this workflow", hint or known))

    def _meant(self, name: str, told: int) -> str | None:
        """A look compares a name with every known one, so it is taken for what will be told alone."""
        if told >= MOST_TOLD or len(name) > LONGEST_NAME:
            return None
        return did_you_mean(name, [*self.template.params, *self.template.aliases])

    def _take_again(self, key: str, other: _Given) -> None:
        """A param under two of its names: an error where both were meant, else the meant or the proper one wins."""
        first = self.given[key]
        if first.name in self.strict and other.name in self.strict:
            what = f"is given a second time, as '{other.name}'"
            self.problems.append(Problem(f"params.{first.name}", what, f"send only '{key}'"))
            return
        winner = other if other.name in self.strict or (first.name not in self.strict and other.name == key) else first
        loser = first if winner is other else other
        self.given[key] = winner
        self.warnings.append(f"'{loser.name}' was ignored: '{winner.name}' is the same param")

    def _value(self, param: Param) -> Any:
        given = self.given.get(param.key)
        value = MISSING if given is None else self._read(param, given)
        if value is None or value is MISSING:
            value = self._fallback(param, value)
        if param.type == "seed" and value in (MISSING, None, DRAW) and param.key not in self.refused:
            return self._drawn(param)
        return value

    def _read(self, param: Param, given: _Given) -> Any:
        if given.value is None:
            return None
        if param.items:
            return self._read_items(param, given)
        try:
            return read_value(param, given.value)
        except RefusedValueError as refused:
            self._refuse(param, f"params.{given.name}", refused)
            return MISSING

    def _read_items(self, param: Param, given: _Given) -> Any:
        items, refusals = read_items(param, given.value)
        for refusal in refusals:
            self._refuse(param, f"params.{given.name}{refusal.at}", refusal.refused)
        return MISSING if refusals else items

    def _refuse(self, param: Param, at: str, refused: RefusedValueError) -> None:
        self.problems.append(Problem(at, refused.what, refused.hint))
        self.lacks_model = self.lacks_model or refused.is_model
        self.refused.add(param.key)

    def _fallback(self, param: Param, value: Any) -> Any:
        """Null means the default; where there is none, it is a value only for a param that takes any."""
        preset = self.preset_values.get(param.key, MISSING)
        if preset is not MISSING and preset is not None:
            return preset
        if param.key in self.defaults:
            return self.defaults[param.key]
        if param.default is MISSING and param.type == "any" and None in (value, preset):
            return None
        return param.default

    def _drawn(self, param: Param) -> int:
        seed = self.draw_seed()
        lowest, highest = int(param.minimum or 0), int(param.maximum or LARGEST_SEED)
        return seed if lowest <= seed <= highest else lowest + seed % (highest - lowest + 1)

    def _links_by_value(self) -> Iterator[tuple[tuple[str, str], list[Any]]]:
        """A list given for an input is a link to ComfyUI when it looks like one."""
        for key in self.template.list_keys:
            value = self.values[key]
            if isinstance(value, list) and is_link(value):
                for place in self.template.params[key].places:
                    if place.whole and place.input is not None:
                        yield (place.node_id, place.input), value

    def _failure(self) -> MorpheusError:
        """What was only worth a warning may be why something else is missing, so it is told, too."""
        code = Code.MISSING_MODEL if self.lacks_model else Code.INVALID_PARAMS
        told = [*self.problems, *(Problem("", warning) for warning in self.warnings)]
        return from_problems(code, f"The params of '{self.template.name}' are refused", told)


_UNCHANGED: Final[tuple[Links, Bypass]] = ({}, {})


def _is_used(param: Param, live: frozenset[str]) -> bool:
    """Whether something comes of it. A param without a place sets others."""
    return not param.node_ids or not param.node_ids.isdisjoint(live)


def _lacks_value(param: Param, value: Any, live: frozenset[str]) -> bool:
    """Null is a value, except for a loader that has nothing to load then."""
    if value is None and param.media is not None:
        return any(place.upload and not place.optional for place in param.places if place.node_id in live)
    return value is MISSING


def _check_worker_values(template: Template, worker_values: Mapping[str, Any]) -> None:
    problems = [
        Problem(f"placeholder {key}", "has no value here", "this worker does not give it")
        for key in sorted(template.worker_keys - worker_values.keys())
    ]
    if problems:
        raise from_problems(Code.INVALID_WORKFLOW, f"The workflow '{template.name}' cannot be filled", problems)

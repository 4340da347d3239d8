"""The params that a graph usually gets: prompts, seed, steps, size, models, pictures."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from morpheus_worker.importing.export import Export, Spot
from morpheus_worker.importing.naming import Names, class_tag, media_key, tag, words
from morpheus_worker.importing.proposal import Proposal, is_number, is_whole, media_kind, proposal
from morpheus_worker.importing.sayings import SAID, described, thing_of, within
from morpheus_worker.importing.tracing import SEEDS, Polarity, Tracing, is_text

ORDER: Final = (
    "prompt", "negative_prompt", "medium", "width", "height", "size", "length", "seed", "steps", "switch_at_step",
    "cfg", "guidance", "sampler_name", "scheduler", "denoise", "batch_size", "checkpoint_name", "unet_name", "vae_name",
    "lora_name", "lora_strength", "lora_clip_strength", "controlnet_name", "controlnet_strength", "upscale_model",
)  # fmt: skip
"""The roles of params, in the order in which a template has them."""

_MODELS: Final[Mapping[str, str]] = {
    "ckpt_name": "checkpoint_name",
    "unet_name": "unet_name",
    "vae_name": "vae_name",
    "lora_name": "lora_name",
    "control_net_name": "controlnet_name",
}
_OWN_WORDS: Final = frozenset({"lyrics", "tags", "style"})
"""Texts beside the prompt that have a name of their own."""
_NUMBER: Final = re.compile(r"_[0-9]+\Z")
_SIDES: Final[tuple[Polarity, Polarity]] = ("positive", "negative")
_BESIDE: Final[Mapping[str, tuple[str, str]]] = {
    "lora_strength": ("lora_name", "strength_model"),
    "lora_clip_strength": ("lora_name", "strength_clip"),
    "controlnet_strength": ("control_net", "strength"),
}
"""Role → an input that tells the node, and the one that the role fills."""


def usual(export: Export) -> list[Proposal]:
    """The usual params of the graph, in the order of `ORDER`; of none of its inputs two."""
    return _Usual(export).propose()


class _Usual:
    """One graph under way. `_found` keeps each proposal with its role, `_numbers` what the keys of a node end in, such
    as `_2`."""

    def __init__(self, export: Export) -> None:
        self._export = export
        self._tracing = Tracing(export)
        self._samplers = self._tracing.samplers()
        self._names = Names()
        self._found: list[tuple[str, Proposal]] = []
        self._taken: set[Spot] = set()
        self._numbers: dict[str, str] = {}

    def propose(self) -> list[Proposal]:
        for place, sampler in enumerate(self._samplers):
            self._take_texts(sampler, place)
            self._take_sampling(sampler, place)
            self._take_canvas(sampler, place)
        self._take_loose_texts()
        self._take_models()
        self._take_media()
        ranks = {role: rank for rank, role in enumerate(ORDER)}
        return [found for _, found in sorted(self._found, key=lambda pair: ranks[pair[0]])]

    # Each thing that may become params.

    def _take_texts(self, sampler: str, place: int) -> None:
        positive, negative = (self._tracing.texts(sampler, side) for side in _SIDES)
        # A guider of two conditions takes the negative text for the second, too; where one text is all there is, it is
        # the prompt.
        positive = [spot for spot in positive if spot not in negative] or positive
        negative = [spot for spot in negative if spot not in positive]
        for role, spots in (("prompt", positive), ("negative_prompt", negative)):
            # Of several in one node the longest is what was written for this picture; an empty one says nothing.
            nodes = list(dict.fromkeys(spot.node_id for spot in spots))
            lengths = {spot: len(self._export.value(spot).strip()) for spot in spots}
            for spot in sorted(spots, key=lambda one: (not lengths[one], nodes.index(one.node_id), -lengths[one])):
                self._add_text(role, spot, sampler, place)

    def _add_text(self, role: str, spot: Spot, sampler: str, place: int) -> None:
        """Two encoders that were given the same text for the same side share one param."""
        for position, (other, found) in enumerate(self._found):
            if other == role and spot not in self._taken and found.default == self._export.value(spot):
                self._found[position] = (role, replace(found, spots=(*found.spots, spot)))
                self._taken.add(spot)
        nodes = {other.node_id for _, found in self._found for other in found.spots}
        part = "_".join(words(spot.input)[-1:]) if spot.node_id in nodes else ""
        whose = self._whose(spot.node_id) or (self._tag_of(sampler) if place else "")
        wished = [role, *([part] if part in _OWN_WORDS else []), *([f"{role}_{part}"] if part else [])]
        self._add(role, [spot], *wished, *([f"{whose}_{role}"] if whose else []))

    def _take_sampling(self, sampler: str, place: int) -> None:
        lead = next((one for one in self._samplers[:place] if self._tracing.goes_on_from(sampler, one)), None)
        if self._adds_noise(sampler):
            self._add_number("seed", sampler, place, *SEEDS, fits=is_whole)
        if not self._shares_steps(sampler, lead):
            self._add_number("steps", sampler, place, "steps", fits=is_whole)
        self._add_number("cfg", sampler, place, "cfg", fits=is_number)
        for node_id in self._tracing.conditioning(sampler):
            if (spot := self._tracing.literal(Spot(node_id, "guidance"), is_number)) is not None:
                self._add("guidance", [spot], *self._wished("guidance", sampler, place))
        for role in ("sampler_name", "scheduler"):
            self._add_number(role, sampler, place, role, fits=_is_name)
        start = self._tracing.start(sampler)
        denoise = self._tracing.numbers(sampler, "denoise", fits=is_number)
        # On a blank canvas there is nothing to keep: less than 1 only leaves noise in the picture.
        if denoise is not None and not (start is not None and start.blank and self._export.value(denoise) == 1):
            self._add("denoise", [denoise], *self._wished("denoise", sampler, place))

    def _shares_steps(self, sampler: str, lead: str | None) -> bool:
        """Two samplers of one schedule count the same steps, and meet at one of them."""
        if lead is None or "start_at_step" not in self._export.inputs(sampler):
            return False
        first, second = (self._tracing.literal(Spot(one, "steps"), is_whole) for one in (lead, sampler))
        end = self._tracing.literal(Spot(lead, "end_at_step"), is_whole)
        begin = self._tracing.literal(Spot(sampler, "start_at_step"), is_whole)
        if end is not None and begin is not None and self._export.value(end) == self._export.value(begin):
            self._add("switch_at_step", list(dict.fromkeys([end, begin])), "switch_at_step")
        for position, (role, found) in enumerate(self._found):
            if role == "steps" and first in found.spots and second is not None and self._same(first, second):
                self._found[position] = (role, replace(found, spots=tuple(dict.fromkeys([*found.spots, second]))))
                self._taken.add(second)
                return True
        return False

    def _take_canvas(self, sampler: str, place: int) -> None:
        start = self._tracing.start(sampler)
        if start is None:
            return
        sides = [self._tracing.literal(Spot(start.node_id, side), is_whole) for side in ("width", "height")]
        if sides[0] is not None and sides[0] == sides[1]:
            self._add("size", [sides[0]], *self._wished("size", sampler, place))
        elif None not in sides:
            also = self._of_the_same_size(sampler, start.node_id, sides)
            for role, spot in zip(("width", "height"), sides, strict=True):
                others = [Spot(node_id, role) for node_id in also]
                self._add(role, [spot, *others] if spot else [], *self._wished(role, sampler, place))
        for role in ("length", "batch_size"):
            spot = self._tracing.literal(Spot(start.node_id, role), is_whole)
            self._add(role, [spot] if spot else [], *self._wished(role, sampler, place))

    def _of_the_same_size(self, sampler: str, canvas: str, sides: Sequence[Spot | None]) -> list[str]:
        """The nodes before the sampler that are told the size of its canvas once more: a model's schedule, say."""
        size = [self._export.value(spot) for spot in sides if spot is not None]
        upstream = self._export.upstream(sampler)
        return [
            node_id
            for node_id in self._export.graph
            if node_id in upstream
            and node_id != canvas
            and all(self._export.literal(node_id, side) for side in ("width", "height"))
            and [self._export.value(Spot(node_id, side)) for side in ("width", "height")] == size
        ]

    def _take_loose_texts(self) -> None:
        """Without a sampler that says what is what, every text of several lines is one to write."""
        if any(role == "prompt" for role, _ in self._found):
            return
        for spot in self._export.live_spots():
            if is_text(self._export.known(spot)) and isinstance(self._export.value(spot), str):
                said = {*words(spot.input), *words(self._export.title(spot.node_id))}
                role = "negative_prompt" if "negative" in said else "prompt"
                whose = self._whose(spot.node_id)
                self._add(role, [spot], role, *([f"{whose}_{role}"] if whose else []))

    def _take_models(self) -> None:
        """Those of the first sampler come first."""
        last = len(self._samplers)
        order: dict[str, int] = {}
        for place, sampler in enumerate(self._samplers):
            for node_id in self._export.upstream(sampler):
                order.setdefault(node_id, place)
        for spot in sorted(self._export.live_spots(), key=lambda spot: order.get(spot.node_id, last)):
            role = self._role_of_model(spot)
            if role is not None and not self._goes_with_the_model(role, spot):
                place = order.get(spot.node_id, last)
                whose = self._whose(spot.node_id) or self._said_by_file(spot)
                whose = whose or (self._tag_of(self._samplers[place]) if 0 < place < last else "")
                number = self._numbers.get(spot.node_id, "")
                self._add(role, [spot], f"{role}{number}", *([f"{whose}_{role}"] if whose else []))
                if (told := _NUMBER.search(self._found[-1][1].key)) is not None:
                    self._numbers[spot.node_id] = told[0]

    def _goes_with_the_model(self, role: str, spot: Spot) -> bool:
        """A LoRA that works as strongly on the text as on the model gets one strength."""
        for position, (other, found) in enumerate(self._found):
            both = (other, role) == ("lora_strength", "lora_clip_strength") and found.spots[0].node_id == spot.node_id
            if both and found.default == self._export.value(spot):
                self._found[position] = (other, replace(found, spots=(*found.spots, spot)))
                self._taken.add(spot)
                return True
        return False

    def _role_of_model(self, spot: Spot) -> str | None:
        inputs = self._export.inputs(spot.node_id)
        if isinstance(self._export.value(spot), str):
            is_upscaler = (self._export.class_of(spot.node_id), spot.input) == ("UpscaleModelLoader", "model_name")
            return "upscale_model" if is_upscaler else _MODELS.get(spot.input)
        role = next((role for role, pair in _BESIDE.items() if pair[0] in inputs and pair[1] == spot.input), None)
        return role if role is None or is_number(self._export.value(spot)) else None

    def _take_media(self) -> None:
        """The same file in two loaders is one medium, unless their titles tell them apart."""
        seen: dict[tuple[str, str, str], int] = {}
        media = [(kind, spot) for spot in self._export.live_spots() if (kind := media_kind(self._export, spot))]
        for kind, spot in sorted(media, key=lambda pair: self._only_masks(pair[1].node_id)):
            value = self._export.value(spot)
            if not isinstance(value, str):
                continue
            noun = "mask" if self._only_masks(spot.node_id) else kind
            key = media_key(self._export.title(spot.node_id), self._export.class_of(spot.node_id), noun)
            same = (kind, value, "" if key in ("image", "mask") else key)
            if value and same in seen:
                role, found = self._found[seen[same]]
                self._found[seen[same]] = (role, replace(found, spots=(*found.spots, spot)))
                self._taken.add(spot)
            else:
                seen[same] = len(self._found)
                self._add("medium", [spot], key, said=SAID.get(noun, SAID["file"]))

    # What they are called.

    def _add(self, role: str, spots: Sequence[Spot], *wished: str, said: str = "") -> None:
        free = [spot for spot in spots if spot not in self._taken]
        if not free:
            return
        self._taken.update(free)
        in_words = described(self._export, said or SAID[role].format(thing=thing_of(self._export)), free[0].node_id)
        made = proposal(self._export, self._names.take(*wished), free, in_words)
        self._found.append((role, within(made, role)))

    def _add_number(self, role: str, sampler: str, place: int, *names: str, fits: Callable[[Any], bool]) -> None:
        spot = self._tracing.numbers(sampler, *names, fits=fits)
        self._add(role, [spot] if spot else [], *self._wished(role, sampler, place))

    def _wished(self, role: str, sampler: str, place: int) -> Iterator[str]:
        """The first sampler's are called as everywhere; those of another after it, where anything tells it apart."""
        whose = self._tag_of(sampler) if place else ""
        yield f"{whose}_{role}" if whose else role

    def _tag_of(self, sampler: str) -> str:
        """What tells a sampler from the first: its title, its class, or that it is a refiner by its checkpoint."""
        own = self._export.class_of(sampler)
        if told := self._whose(sampler):
            return told
        if own != self._export.class_of(self._samplers[0]):
            return class_tag(own)
        upstream = self._export.upstream(sampler)
        models = [spot for spot in self._export.live_spots() if spot.node_id in upstream and spot.input in _MODELS]
        return next((word for spot in models if (word := self._said_by_file(spot))), "")

    def _whose(self, node_id: str) -> str:
        return tag(self._export.title(node_id), self._export.class_of(node_id))

    def _said_by_file(self, spot: Spot) -> str:
        return "refiner" if "refiner" in str(self._export.value(spot)).lower() else ""

    # What is so.

    def _adds_noise(self, sampler: str) -> bool:
        return self._export.inputs(sampler).get("add_noise", True) not in ("disable", False)

    def _same(self, one: Spot | None, other: Spot) -> bool:
        return one is not None and self._export.value(one) == self._export.value(other)

    def _only_masks(self, node_id: str) -> bool:
        """Whether nothing but a mask is read from the loader."""
        read = [
            self._export.output_type(*link)
            for reader in self._export.graph
            for link in self._export.links(reader).values()
            if link[0] == node_id
        ]
        return bool(read) and all(kind == "MASK" for kind in read)


def _is_name(value: Any) -> bool:
    return isinstance(value, str)

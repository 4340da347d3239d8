"""What lies upstream of the samplers of a graph: their texts, their canvas, the nodes that hold their numbers.

Nodes are told by what the object info says of their inputs and outputs. Of a class that it does not know, the names of
the inputs tell: node packs call theirs as ComfyUI does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from morpheus_worker.comfy.objectinfo import InputInfo
from morpheus_worker.importing.export import Export, Spot

Polarity = Literal["positive", "negative"]
Link = tuple[str, int]

CONDITIONING: Final = "CONDITIONING"
SEEDS: Final = ("seed", "noise_seed")
TEXTS: Final = ("text", "prompt", "positive_prompt", "text_g", "text_l", "clip_l", "clip_g", "t5xxl", "string", "value")
_HELPERS: Final = ("noise", "guider", "sampler", "sigmas")
"""Inputs through which a sampler is handed its numbers in parts."""
_LATENTS: Final = ("latent_image", "latent", "latents", "samples")
_LONGEST_CHAIN: Final = 100
"""Nodes of texts that are followed one behind the other."""
_WITHOUT_TEXT: Final = frozenset({"ConditioningZeroOut"})
"""Nodes that take what a text says out of the conditioning: what is behind them does not count."""


@dataclass(frozen=True, slots=True)
class Start:
    """The node that a sampler's latents come from. `blank`: nothing was drawn there yet."""

    node_id: str
    blank: bool


class Tracing:
    """Looks up one graph's wiring."""

    def __init__(self, export: Export) -> None:
        self._export = export

    def samplers(self) -> list[str]:
        """Everything that samples and something comes of: those that others go on from come first, then the order of
        the file."""
        found = [node_id for node_id in self._export.graph if node_id in self._export.live and self._samples(node_id)]
        before = {node_id: len(self._export.upstream(node_id).intersection(found)) for node_id in found}
        return sorted(found, key=before.__getitem__)

    def texts(self, sampler: str, polarity: Polarity) -> list[Spot]:
        """The text inputs that the sampler's conditioning is made from, each once."""
        seen: set[str] = set()
        links = self._export.links(sampler)
        found: list[Spot] = []
        if polarity in links:
            found += self._texts_behind(links[polarity], polarity, seen)
        elif "guider" in links:
            guider = links["guider"][0]
            for link in self._guided(guider, polarity):
                found += self._texts_behind(link, polarity, seen)
        return list(dict.fromkeys(found))

    def conditioning(self, sampler: str) -> list[str]:
        """The nodes that the sampler's positive conditioning passes, nearest first."""
        seen: set[str] = set()
        links = self._export.links(sampler)
        starts = [links["positive"]] if "positive" in links else []
        if "guider" in links and not starts:
            starts = self._guided(links["guider"][0], "positive")
        for link in starts:
            list(self._texts_behind(link, "positive", seen))
        return [node_id for node_id in self._export.graph if node_id in seen]

    def numbers(self, sampler: str, *names: str, fits: Callable[[Any], bool]) -> Spot | None:
        """The first input of one of these names with a fitting value, on the sampler or on what hands it its parts."""
        for node_id in self._with_helpers(sampler):
            for name in names:
                if (spot := self.literal(Spot(node_id, name), fits)) is not None:
                    return spot
        return None

    def literal(self, spot: Spot, fits: Callable[[Any], bool]) -> Spot | None:
        """Where the value of an input stands: there itself, or in the node of one value that it is linked to."""
        seen: set[str] = set()
        while spot.node_id not in seen:
            seen.add(spot.node_id)
            if self._export.literal(spot.node_id, spot.input):
                return spot if fits(self._export.value(spot)) else None
            link = self._export.links(spot.node_id).get(spot.input)
            if link is None:
                return None
            name = self._value_input(link[0], spot.input, fits)
            if name is None:
                return None
            spot = Spot(link[0], name)
        return None

    def start(self, sampler: str) -> Start | None:
        """Where its latents come from, through whatever handles latents in between, other samplers among it."""
        seen: set[str] = set()
        blank, node_id = True, sampler
        while node_id not in seen:
            seen.add(node_id)
            link = self._latent_link(node_id)
            if link is None:
                is_canvas = "width" in self._export.inputs(node_id) or self._export.class_of(node_id).startswith(
                    "Empty"
                )
                return Start(node_id, blank and is_canvas) if node_id != sampler else None
            blank = blank and (node_id == sampler or not self._samples(node_id))
            node_id = link[0]
        return None

    def goes_on_from(self, sampler: str, other: str) -> bool:
        """Whether it samples what the other has sampled, and nothing but latents lies between."""
        seen: set[str] = set()
        node_id: str | None = sampler
        while node_id is not None and node_id not in seen:
            seen.add(node_id)
            link = self._latent_link(node_id)
            node_id = link[0] if link is not None else None
            if node_id == other:
                return True
        return False

    def _samples(self, node_id: str) -> bool:
        links = self._export.links(node_id)
        if "guider" in links and "sigmas" in links:
            return True
        return "positive" in links and any(name in self._export.inputs(node_id) for name in SEEDS)

    def _guided(self, guider: str, polarity: Polarity) -> list[Link]:
        links = self._export.links(guider)
        if polarity in links:
            return [links[polarity]]
        if polarity == "negative":
            return []
        return [link for name, link in links.items() if name != "negative" and self._conditions(guider, name, link)]

    def _texts_behind(self, link: Link, polarity: Polarity, seen: set[str]) -> Iterator[Spot]:
        waiting = [link[0]]
        while waiting:
            node_id = waiting.pop()
            if node_id not in seen and self._export.class_of(node_id) not in _WITHOUT_TEXT:
                seen.add(node_id)
                own = [
                    spot for name in self._text_inputs(node_id) if (spot := self._text_at(node_id, name)) is not None
                ]
                yield from own
                waiting += [behind[0] for behind in reversed(self._further(node_id, polarity, has_text=bool(own)))]

    def _further(self, node_id: str, polarity: Polarity, *, has_text: bool) -> list[Link]:
        """The links through which this side's conditioning comes into a node. One that only passes something on has a
        single link, of whatever name."""
        links = self._export.links(node_id)
        if polarity in links:
            return [links[polarity]]
        if "positive" in links or "negative" in links:
            return []
        found = [behind for name, behind in links.items() if self._conditions(node_id, name, behind)]
        return list(links.values()) if not found and not has_text and len(links) == 1 else found

    def _conditions(self, node_id: str, name: str, link: Link) -> bool:
        """Whether conditioning comes in through this input."""
        known = self._export.known(Spot(node_id, name))
        if known is not None:
            return CONDITIONING in known.type
        return name.startswith("cond") or self._export.output_type(*link) == CONDITIONING

    def _text_inputs(self, node_id: str) -> list[str]:
        """Those that hold what a person writes: where the object info does not say, those that are called so."""
        inputs = self._export.inputs(node_id)
        node = self._export.info.get(self._export.class_of(node_id))
        if node is not None:
            return [name for name in inputs if is_text(node.inputs.get(name))]
        return [name for name in inputs if name in TEXTS]

    def _text_at(self, node_id: str, name: str, seen: frozenset[str] = frozenset()) -> Spot | None:
        if self._export.literal(node_id, name):
            spot = Spot(node_id, name)
            return spot if isinstance(self._export.value(spot), str) else None
        link = self._export.links(node_id).get(name)
        return self._text_of(link[0], seen | {node_id}) if link is not None else None

    def _text_of(self, node_id: str, seen: frozenset[str]) -> Spot | None:
        """The text that a node of texts passes on. Of several the linked one comes first: what stands beside it in the
        node is what its author adds to it."""
        if node_id in seen or len(seen) > _LONGEST_CHAIN:
            return None
        linked = self._export.links(node_id)
        takes = [name for name in self._export.inputs(node_id) if self._takes_text(node_id, name)]
        for name in sorted(takes, key=lambda name: name not in linked):
            if (spot := self._text_at(node_id, name, seen)) is not None:
                return spot
        return None

    def _takes_text(self, node_id: str, name: str) -> bool:
        node = self._export.info.get(self._export.class_of(node_id))
        if node is None:
            value = self._export.inputs(node_id)[name]
            return isinstance(value, str) or name in TEXTS
        wanted = node.inputs.get(name)
        if wanted is None or wanted.type != "STRING":
            return wanted is not None and wanted.type == "*"
        return is_text(wanted) or not any(map(is_text, node.inputs.values()))

    def _with_helpers(self, sampler: str) -> list[str]:
        found = [sampler]
        for node_id in found:
            links = self._export.links(node_id)
            found += [links[name][0] for name in _HELPERS if name in links and links[name][0] not in found]
        return found

    def _value_input(self, node_id: str, wanted: str, fits: Callable[[Any], bool]) -> str | None:
        """The input of a node of one value that holds it, or passes it on."""
        inputs = self._export.inputs(node_id)
        usual = [name for name in (wanted, "value", *SEEDS, "int", "float", "number") if name in inputs]
        if usual:
            return usual[0]
        fitting = [
            name
            for name in inputs
            if self._export.literal(node_id, name) and fits(self._export.value(Spot(node_id, name)))
        ]
        return fitting[0] if len(fitting) == 1 else None

    def _latent_link(self, node_id: str) -> Link | None:
        for name, link in self._export.links(node_id).items():
            known = self._export.known(Spot(node_id, name))
            if known.type == "LATENT" if known is not None else name in _LATENTS:
                return link
        return None


def is_text(wanted: InputInfo | None) -> bool:
    """Whether the editor gives the input several lines."""
    return wanted is not None and wanted.type == "STRING" and bool(wanted.options.get("multiline"))

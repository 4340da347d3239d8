"""How much of what ComfyUI refuses at POST /prompt the check finds by itself, and how long it takes.

The graphs of the shipped templates that a bare ComfyUI accepts are made wrong in one way at a time; each goes to a real
ComfyUI and to the check. One is caught when both refuse it and the check names every node and input that ComfyUI names,
and what was changed. False is what the check refuses and ComfyUI accepts, among graphs made wrong, made otherwise but
as good, and left as they are. ComfyUI executes none of them: a node that never ends holds its queue. Its models are
empty files. What ComfyUI answers is timed from the request to the answer, over loopback.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from benchmarks.rig import (
    COMFYUI_DIR,
    COMFYUI_PYTHON,
    REPOSITORY,
    MissingRigError,
    comfyui_at,
    comfyui_version,
    described,
    load_fact,
    percentile,
    scratch,
)
from morpheus_worker.comfy.judging import refusal
from morpheus_worker.comfy.objectinfo import ObjectInfo
from tests.comfyui.answers import HOLDING_PACK, Compared, HeldComfyUI, compared
from tests.comfyui.bases import place_files, shipped_graphs
from tests.comfyui.mutations import KINDS, Mutation, mutated, varied
from tests.comfyui.process import Installation

EACH: Final = 150
SEED: Final = 20240
LEAST_CAUGHT: Final = 0.95
TRIES: Final = 40
NODES: Final = 50
ROUNDS: Final = 200
TARGET_MS: Final = 5.0
AS_GOOD: Final = "as good as before"
UNCHANGED: Final = "unchanged"


@dataclass(slots=True)
class Tally:
    """What became of the graphs of one class. They are asked about when it counts."""

    name: str
    is_wrong: bool
    asked: Iterator[Compared]
    results: list[Compared] = field(default_factory=list)

    def count(self) -> None:
        self.results = list(self.asked)

    @property
    def refused(self) -> list[Compared]:
        return [result for result in self.results if result.answer.refused]

    @property
    def missed(self) -> list[Compared]:
        return [result for result in self.refused if not result.caught] if self.is_wrong else []

    @property
    def false(self) -> list[Compared]:
        return [result for result in self.results if result.falsely_refused]

    def met(self, wanted: int) -> bool:
        refused = len(self.refused)
        if not self.is_wrong:
            return not self.false
        return not self.false and refused >= wanted and 1 - len(self.missed) / refused >= LEAST_CAUGHT

    def row(self, wanted: int) -> str:
        refused, caught = len(self.refused), len(self.refused) - len(self.missed)
        share = f"{caught:>8}{caught / refused:>8.1%}" if self.is_wrong and refused else f"{'':>16}"
        verdict = "met" if self.met(wanted) else "MISSED"
        return f"{self.name:<20}{len(self.results):>8}{refused:>9}{share}{len(self.false):>8}  {verdict}"

    @staticmethod
    def head() -> str:
        return f"{'':<20}{'graphs':>8}{'refused':>9}{'caught':>8}{'share':>8}{'false':>8}"


def wrong_ones(
    kind: str, comfyui: HeldComfyUI, bases: Sequence[Mapping[str, Any]], info: ObjectInfo, random: Random, wanted: int
) -> Iterator[Compared]:
    """Different graphs made wrong in one way, until ComfyUI has refused `wanted` of them."""
    seen: set[str] = set()
    for _ in range(wanted * TRIES):
        found = mutated(kind, varied_sometimes(bases, info, random), info, random)
        if found is None or (text := json.dumps(found.graph, sort_keys=True)) in seen:
            continue
        seen.add(text)
        result = compared(comfyui, found, info)
        yield result
        wanted -= result.answer.refused
        if not wanted:
            return


def varied_sometimes(bases: Sequence[Mapping[str, Any]], info: ObjectInfo, random: Random) -> Mapping[str, Any]:
    base = random.choice(bases)
    return varied(base, info, random) if random.random() < 0.5 else base


def as_good_ones(
    comfyui: HeldComfyUI, bases: Sequence[Mapping[str, Any]], info: ObjectInfo, random: Random, wanted: int
) -> Iterator[Compared]:
    for _ in range(wanted):
        yield compared(comfyui, Mutation(AS_GOOD, varied(random.choice(bases), info, random), None), info)


def large(bases: Sequence[Mapping[str, Any]], nodes: int) -> dict[str, Any]:
    """A graph of that many nodes out of copies of the largest of these, side by side."""
    base = max(bases, key=len)
    whole: dict[str, Any] = {}
    for copy_number in range(nodes // len(base) + 1):
        for node_id, node in copy.deepcopy(dict(base)).items():
            inputs = node["inputs"]
            for name, value in inputs.items():
                if isinstance(value, list):
                    inputs[name] = [f"{copy_number}.{value[0]}", value[1]]
            whole[f"{copy_number}.{node_id}"] = node
    # In the order of execution, so that what is cut off takes nothing away that is needed.
    return dict(list(whole.items())[:nodes])


def timed_ms(work: Callable[[], object], rounds: int = ROUNDS) -> list[float]:
    took = []
    for _ in range(rounds):
        begun = time.perf_counter()
        work()
        took.append((time.perf_counter() - begun) * 1000)
    return took


def timings(comfyui: HeldComfyUI, bases: Sequence[Mapping[str, Any]], info: ObjectInfo) -> Iterator[tuple[str, bool]]:
    good = large(bases, NODES)
    bad = copy.deepcopy(good)
    wrong = mutated("out of range", bad, info, Random(SEED))
    assert wrong is not None
    # One wrong node is only refused when no other output is left.
    outputs = [key for key, node in wrong.graph.items() if info.is_output(node["class_type"])]
    for key in outputs[1:]:
        wrong.graph[key] = {"class_type": "VAEDecode", "inputs": {}}
    yield f"\n{NODES} nodes{'':<24}{'median ms':>12}{'p95 ms':>10}", True
    for name, graph in (("accepted", good), ("refused", wrong.graph)):

        def ours(graph: Mapping[str, Any] = graph) -> object:
            return refusal(graph, info, lambda *_: None)

        def theirs(graph: Mapping[str, Any] = graph) -> object:
            return comfyui.submit(graph)

        for side, took in (("the check", timed_ms(ours)), ("POST /prompt", timed_ms(theirs, ROUNDS // 4))):
            met = side != "the check" or statistics.median(took) < TARGET_MS
            comfyui.clear()
            yield f"{f'{name}, {side}':<32}{statistics.median(took):>12.2f}{percentile(took, 0.95):>10.2f}", met


def show_failures(tally: Tally) -> None:
    for result in [*tally.missed, *tally.false]:
        print(f"    {result.mutation.place} ComfyUI: {sorted(map(str, result.answer.places))} {result.answer.kind}")
        print(f"      the check: {[(str(fault.place), fault.kind) for fault in result.judgement.faults]}")


def found_comfyui(environ: Mapping[str, str]) -> Installation:
    """Raises MissingRigError."""
    directory, python = environ.get(COMFYUI_DIR), environ.get(COMFYUI_PYTHON)
    if not directory or not python:
        raise MissingRigError(f"set {COMFYUI_DIR} to the folder of a ComfyUI and {COMFYUI_PYTHON} to its Python")
    return Installation(Path(directory), Path(python))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--each", type=int, default=EACH, help="graphs of each class that ComfyUI refuses")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--failures", action="store_true", help="print every graph that was missed or falsely refused")
    parser.add_argument("--packs", type=Path, help="a folder of node packs to link into ComfyUI, for more graphs")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="for ComfyUI")
    given = parser.parse_args()
    try:
        installation = found_comfyui(os.environ)
    except MissingRigError as missing:
        print(f"not run: {missing}")
        return 0
    print(f"comfyui    {comfyui_version(installation)}", f"morpheus   {described(REPOSITORY)}", load_fact(), sep="\n")
    with scratch(given.folder) as folder:
        graphs = shipped_graphs(REPOSITORY / "workflows")
        place_files(graphs.values(), folder)
        (folder / "custom_nodes").mkdir()
        for pack in given.packs.iterdir() if given.packs else ():
            (folder / "custom_nodes" / pack.name).symlink_to(pack.resolve())
        with comfyui_at(installation, folder, {"hold.py": HOLDING_PACK}) as url:
            comfyui = HeldComfyUI(url)
            try:
                return measured(comfyui, graphs, given)
            finally:
                comfyui.close()


def measured(comfyui: HeldComfyUI, graphs: Mapping[str, Any], given: argparse.Namespace) -> int:
    info, random = comfyui.object_info(), Random(given.seed)
    known = {
        name: graph for name, graph in graphs.items() if all(node["class_type"] in info for node in graph.values())
    }
    unchanged = {name: compared(comfyui, Mutation(UNCHANGED, graph, None), info) for name, graph in known.items()}
    bases = [known[name] for name, result in unchanged.items() if not result.answer.refused]
    templates = sorted({name.partition(":")[0] for name, result in unchanged.items() if not result.answer.refused})
    print(
        f"graphs     {len(bases)}, the variations of {', '.join(templates)}", f"\n{Tally.head()}", sep="\n", flush=True
    )
    tallies = [
        *(Tally(kind, True, wrong_ones(kind, comfyui, bases, info, random, given.each)) for kind in KINDS),
        Tally(AS_GOOD, False, as_good_ones(comfyui, bases, info, random, given.each)),
        Tally(UNCHANGED, False, iter(unchanged.values())),
    ]
    for tally in tallies:
        tally.count()
        print(tally.row(given.each), flush=True)
        if given.failures:
            show_failures(tally)
    in_time = []
    for line, met in timings(comfyui, bases, info):
        print(line, flush=True)
        in_time.append(met)
    print(load_fact())
    return 0 if all(tally.met(given.each) for tally in tallies) and all(in_time) else 1


if __name__ == "__main__":
    sys.exit(main())

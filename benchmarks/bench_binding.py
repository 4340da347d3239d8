"""How long binding a template takes: deciding the params and filling the graph. A worker parses once, when it starts.

Every fifth node samples, with a seed, a prompt and three more params of its own; the others pass an image on.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import Any, Final

from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.templates.bind import fill, resolve
from morpheus_worker.templates.template import Template, parse_template

ROUNDS: Final = 300
WARM_UP: Final = 20
LONG_PROMPT: Final = 'a "quoted" line \\ with __param:seed__ in it\n' * 2400

OBJECT_INFO: Final = ObjectInfo(
    {
        "Sample": {
            "input": {
                "required": {
                    "image": ["IMAGE"],
                    "text": ["STRING", {"multiline": True}],
                    "seed": ["INT", {"default": 0, "min": 0, "max": 2**64 - 1}],
                    "steps": ["INT", {"default": 20, "min": 1, "max": 10000}],
                    "cfg": ["FLOAT", {"default": 8.0, "min": 0.0, "max": 100.0}],
                    "sampler": [["euler", "heun", "ddim"]],
                }
            },
            "output": ["IMAGE"],
        },
        "Pass": {
            "input": {"required": {"image": ["IMAGE"], "width": ["INT"], "height": ["INT"], "mode": [["a", "b"]]}},
            "output": ["IMAGE"],
        },
        "Save": {"input": {"required": {"images": ["IMAGE"]}}, "output": [], "output_node": True},
    }
)


def template_of(nodes: int) -> Template:
    """A chain of `nodes` nodes with five params in every fifth."""
    graph: dict[str, Any] = {"0": {"class_type": "Pass", "inputs": {"width": 64, "height": 64, "mode": "a"}}}
    for number in range(1, nodes - 1):
        image = [str(number - 1), 0]
        graph[str(number)] = sampling(number, image) if number % 5 == 0 else passing(image)
    graph[str(nodes - 1)] = {"class_type": "Save", "inputs": {"images": [str(nodes - 2), 0]}}
    return parse_template(json.dumps(graph), name=f"chain{nodes}", object_info=OBJECT_INFO)


def sampling(number: int, image: list[Any]) -> dict[str, Any]:
    keys = ("text", "seed", "steps", "cfg", "sampler")
    inputs = {key: f"__param:{key}{number}__" for key in keys}
    return {"class_type": "Sample", "inputs": {"image": image} | inputs}


def passing(image: list[Any]) -> dict[str, Any]:
    return {"class_type": "Pass", "inputs": {"image": image, "width": 512, "height": 512, "mode": "a"}}


def params_of(template: Template, prompt: str) -> dict[str, Any]:
    return {
        key: prompt if key.startswith("text") else "heun"
        for key in template.params
        if key.startswith(("text", "sampler"))
    }


def timed_ms(work: Callable[[], object]) -> list[float]:
    """One duration a round, in milliseconds, sorted."""
    for _ in range(WARM_UP):
        work()
    took = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        work()
        took.append((time.perf_counter() - begun) * 1000)
    return sorted(took)


def report(name: str, took_ms: list[float], params: int) -> None:
    p95 = took_ms[int(len(took_ms) * 0.95)]
    print(f"{name:<28}{params:>8}{statistics.median(took_ms):>12.3f}{p95:>12.3f}")


def bound(template: Template, prompt: str) -> Callable[[], object]:
    params = params_of(template, prompt)
    return lambda: fill(resolve(template, params))


def main() -> None:
    print(f"{'template':<28}{'params':>8}{'median ms':>12}{'p95 ms':>12}")
    for nodes in (20, 200, 1000):
        template = template_of(nodes)
        report(f"{nodes} nodes", timed_ms(bound(template, "a lighthouse")), len(template.params))
    template = template_of(200)
    report(
        f"200 nodes, {len(LONG_PROMPT) // 1000} kB prompts",
        timed_ms(bound(template, LONG_PROMPT)),
        len(template.params),
    )
    text = json.dumps(template.graph())
    took = timed_ms(lambda: parse_template(text, name="parsed", object_info=OBJECT_INFO))
    report("200 nodes, parsing", took, len(template.params))


if __name__ == "__main__":
    main()

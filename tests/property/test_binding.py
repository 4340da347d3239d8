"""What binding promises for every value and every text."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from morpheus_worker.comfy.graphs import dangling_links, leading_to, sources_of
from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.templates.bind import fill, resolve
from morpheus_worker.templates.brackets import weighed
from morpheus_worker.templates.scan import Placeholder, split
from morpheus_worker.templates.template import Template, parse_template

KEYS = st.text("abcXYZ019.-", min_size=1, max_size=8)
"""Without `_`, so that a key cannot end or begin as a placeholder does."""

AWKWARD = st.sampled_from(
    ['"', "\\", "\n", "\t", "__", "__param:seed__", "__file:a__", "{{x}}", "${x}", "%s", "\\u0041", "雪", "🜚", "\x00"]
)
TEXTS = st.lists(AWKWARD | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)).map("".join)
LONG_TEXTS = st.tuples(TEXTS, st.integers(1, 2000)).map(lambda pair: ((pair[0] or "a") * pair[1])[:100_000])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=12
)


def template_of(value: Any) -> Template:
    return parse_template(json.dumps({"1": {"class_type": "Any", "inputs": {"value": value}}}), name="property")


def bound(template: Template, params: dict[str, Any]) -> Any:
    return fill(resolve(template, params)).graph["1"]["inputs"]["value"]


def identical(left: Any, right: Any) -> bool:
    """Equal to the last bit as JSON: 1 is not 1.0, and true is neither."""
    return json.dumps(left) == json.dumps(right)


@given(KEYS, VALUES)
def test_a_whole_placeholder_becomes_exactly_the_value(key: str, value: Any) -> None:
    assert identical(bound(template_of(f"__param:{key}__"), {key: value}), value)


@given(LONG_TEXTS)
def test_long_text_arrives_verbatim(text: str) -> None:
    assert bound(template_of("__param:x__"), {"x": text}) == text


@given(TEXTS, TEXTS, TEXTS)
def test_text_inside_longer_text_arrives_verbatim(before: str, text: str, after: str) -> None:
    before, after = before.replace("_", "-"), after.replace("_", "-")
    assert bound(template_of(f"{before}__param:x__{after}"), {"x": text}) == before + text + after


@given(st.lists(TEXTS, min_size=2, max_size=2))
def test_a_bound_value_is_never_scanned_again(texts: list[str]) -> None:
    params = {"a": f"__param:b__{texts[0]}", "b": f"__param:a__{texts[1]}"}
    assert bound(template_of("__param:a__|__param:b__"), params) == f"{params['a']}|{params['b']}"


@given(st.lists(KEYS, min_size=1, max_size=6, unique=True), st.data())
def test_bare_placeholders_read_as_quoted_ones(keys: list[str], data: st.DataObject) -> None:
    texts = {key: data.draw(TEXTS).replace("_", "-") for key in keys}
    inputs = {key: [texts[key], f"__param:{key}__"] for key in keys}
    quoted = json.dumps({"1": {"class_type": "Any", "inputs": inputs}})
    bare = quoted
    for key in keys:
        bare = bare.replace(f'"__param:{key}__"', f"__param:{key}__")
    graphs = [parse_template(text, name="x").graph() for text in (quoted, bare)]
    assert bare != quoted
    assert identical(*graphs)


@given(VALUES, VALUES)
def test_binding_leaves_the_template_alone(first: Any, second: Any) -> None:
    template = template_of(["__param:x__", "a __param:x__", {"deep": "__param:x__"}])
    before = copy.deepcopy(template.graph())
    once = bound(template, {"x": first})
    if isinstance(once[0], list):
        once[0].append("changed by somebody")
    once[2]["deep"] = "changed by somebody"
    assert identical(template.graph(), before)
    assert identical(bound(template, {"x": second})[0], second)


PIECES = st.lists(
    st.builds(Placeholder, st.sampled_from(["param", "file", "dir"]), KEYS)
    | TEXTS.map(lambda text: text.replace("_", "-")).filter(bool),
    min_size=1,
)


@given(PIECES)
def test_splitting_finds_exactly_what_was_put_in(pieces: list[str | Placeholder]) -> None:
    merged: list[str | Placeholder] = []
    for piece in pieces:
        if merged and isinstance(piece, str) and isinstance(merged[-1], str):
            merged[-1] += piece
        else:
            merged.append(piece)
    assert split("".join(map(str, pieces))) == tuple(merged)


@given(st.text("_:paramfiledx1.\n ", max_size=60))
def test_splitting_loses_nothing(text: str) -> None:
    assert "".join(map(str, split(text))) == text


# Optional parts. Each node has as many inputs as outputs, and each input stands in for the output of its number.


CLASSES = ObjectInfo({"Begin": {}, "Step": {}, "End": {"output_node": True}})


@st.composite
def chains(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """A graph of nodes that read from earlier ones, params that take some of them out or repeat them, and values."""
    width = draw(st.integers(1, 2))
    names = [f"in{index}" for index in range(width)]
    graph: dict[str, Any] = {"0": {"class_type": "Begin", "inputs": {"label": "0"}}}
    declared: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for number in range(1, draw(st.integers(1, 6)) + 1):
        node_id, kind = str(number), draw(st.sampled_from(["plain", "bypassed", "repeated"]))
        links = {name: [str(draw(st.integers(0, number - 1))), draw(st.integers(0, width - 1))] for name in names}
        label = f"__param:list{number}.label__" if kind == "repeated" else node_id
        graph[node_id] = {"class_type": "Step", "inputs": {"label": label, **links}}
        if kind == "bypassed":
            effects = {"true": {"bypass": {node_id: names}}}
            declared[f"off{number}"] = {"type": "bool", "default": False, "effects": effects}
            values[f"off{number}"] = draw(st.booleans())
        elif kind == "repeated":
            items = {"label": {"type": "string"}}
            repeat = {node_id: names}
            declared[f"list{number}"] = {"type": "list", "default": [], "repeat": repeat, "items": items}
            values[f"list{number}"] = [f"{number}-{index}" for index in range(draw(st.integers(0, 3)))]
    last = [str(len(graph) - 1), draw(st.integers(0, width - 1))]
    graph["end"] = {"class_type": "End", "inputs": {"label": "end", "in0": last}}
    return graph, declared, values


def computed(graph: dict[str, Any], link: list[Any]) -> Any:
    """What an output of a graph is made of: its node's label, its number, and the same of what the node reads."""
    inputs = graph[link[0]]["inputs"]
    return (inputs["label"], link[1], *(computed(graph, value) for value in inputs.values() if isinstance(value, list)))


def meant(graph: dict[str, Any], values: dict[str, Any], link: list[Any]) -> Any:
    """The same of a template, by the meaning of its params."""
    node_id, output = link
    sources = [value for value in graph[node_id]["inputs"].values() if isinstance(value, list)]
    read = [meant(graph, values, source) for source in sources]
    if values.get(f"off{node_id}"):
        return read[output]
    for label in values.get(f"list{node_id}", [node_id]):
        read = [(label, index, *read) for index in range(max(len(read), output + 1))]
    return read[output]


@given(chains())
def test_optional_parts_compose(chain: tuple[dict[str, Any], dict[str, Any], dict[str, Any]]) -> None:
    graph, declared, values = chain
    text = json.dumps({"_params": declared} | graph)
    bound = fill(resolve(parse_template(text, name="property", object_info=CLASSES), values)).graph
    assert list(dangling_links(bound)) == []
    assert leading_to(["end"], sources_of(bound)) == bound.keys()
    assert computed(bound, bound["end"]["inputs"]["in0"]) == meant(graph, values, graph["end"]["inputs"]["in0"])


# Brackets


@given(st.text(st.characters(exclude_characters="[]", exclude_categories=["Cs"])))
def test_a_text_without_brackets_is_not_touched(text: str) -> None:
    assert weighed(text) == text


Nested = str | list[Any]
NESTED: st.SearchStrategy[list[Nested]] = st.recursive(
    st.lists(st.sampled_from(["a", " b ", "\\(", "\\)", "\\[", "\\]", "\nc"]), min_size=1, max_size=3),
    lambda inner: st.lists(inner | st.sampled_from(["a", "\\]"]), min_size=1, max_size=3),
)


def typed(nested: Nested) -> str:
    return nested if isinstance(nested, str) else f"[{''.join(map(typed, nested))}]"


def expected(nested: Nested, weight: float) -> str:
    if isinstance(nested, str):
        return nested.replace("\\[", "[").replace("\\]", "]")
    weight = weight / 1.1
    if len(nested) == 1 and isinstance(nested[0], list):
        return expected(nested[0], weight)
    return f"({''.join(expected(part, weight) for part in nested)}:{round(weight, 2):g})"


@given(st.lists(NESTED, max_size=4))
def test_nested_brackets_multiply_and_escapes_are_kept(texts: list[list[Nested]]) -> None:
    assume(all(str(text).count("[") < 20 for text in texts))
    assert weighed("x".join(map(typed, texts))) == "x".join(expected(text, 1.0) for text in texts)

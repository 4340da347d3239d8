"""What binding promises for every value and every text."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from morpheus_worker.templates.bind import fill, resolve
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

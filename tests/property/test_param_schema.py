"""The schema of a template's params takes what binding takes."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from morpheus_worker.errors import MorpheusError
from morpheus_worker.param_schema import example_params, json_schema
from morpheus_worker.templates.resolving import resolve
from morpheus_worker.templates.template import Template, parse_template

NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
NEAR = st.integers(-12, 12) | st.sampled_from([-1.0, 0.5, 2.0, 9.999, -0.0])
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
PLAIN = st.none() | st.booleans() | NEAR | NUMBERS | TEXTS | st.sampled_from(["a", "b", "7", "true", "null"])
VALUES = PLAIN | st.lists(PLAIN, max_size=4) | st.dictionaries(TEXTS, PLAIN, max_size=2)


@st.composite
def numeric(draw: st.DrawFn) -> dict[str, Any]:
    declared: dict[str, Any] = {"type": draw(st.sampled_from(["int", "float", "seed"]))}
    lowest, highest = sorted(draw(st.tuples(st.integers(-10, 10), st.integers(-10, 10))))
    if declared["type"] == "seed":
        lowest, highest = abs(lowest), abs(lowest) + abs(highest)
    limits = {"min": lowest, "max": highest}
    return declared | {name: limits[name] for name in draw(st.sets(st.sampled_from(["min", "max"])))}


@st.composite
def chosen(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["string", "int", "float"]))
    values = {"string": st.sampled_from(["a", "b", "", "7"]), "int": st.integers(-3, 12), "float": NEAR.map(float)}
    choices = draw(st.lists(values[kind], min_size=1, max_size=4, unique=True))
    has_default = draw(st.booleans())
    return {"type": kind, "choices": choices} | (
        {"default": draw(st.sampled_from([*choices, None]))} if has_default else {}
    )


OTHERS = st.sampled_from(["bool", "string", "image", "file", "list", "object", "any", "output_path"]).map(
    lambda kind: {"type": kind}
)


def template_of(declared: dict[str, Any]) -> Template:
    graph = {"1": {"class_type": "Any", "inputs": {"value": "__param:x__"}}}
    return parse_template(json.dumps({"_params": {"x": declared}, **graph}), name="property")


def binds(template: Template, params: dict[str, Any]) -> bool:
    try:
        resolve(template, params)
    except MorpheusError:
        return False
    return True


@given(numeric() | chosen() | OTHERS, VALUES)
def test_what_the_schema_takes_binding_takes(declared: dict[str, Any], value: Any) -> None:
    template = template_of(declared)
    validator = Draft202012Validator(json_schema(template))
    if validator.is_valid({"x": value}):
        assert binds(template, {"x": value})
    assert validator.is_valid({}) == binds(template, {})


@given(numeric(), NEAR | NUMBERS)
def test_a_number_that_binding_takes_the_schema_takes(declared: dict[str, Any], value: float) -> None:
    template = template_of(declared)
    assert Draft202012Validator(json_schema(template)).is_valid({"x": value}) == binds(template, {"x": value})


@given(chosen(), st.data())
def test_a_choice_that_binding_takes_the_schema_takes(declared: dict[str, Any], data: st.DataObject) -> None:
    template = template_of(declared)
    other = TEXTS if declared["type"] == "string" else NEAR
    value = data.draw(st.sampled_from(declared["choices"]) | other)
    assert Draft202012Validator(json_schema(template)).is_valid({"x": value}) == binds(template, {"x": value})


@given(numeric() | chosen() | OTHERS)
def test_the_schema_is_one_and_the_example_fits_it(declared: dict[str, Any]) -> None:
    template = template_of(declared)
    schema = json_schema(template)
    Draft202012Validator.check_schema(schema)
    assert Draft202012Validator(schema).is_valid(example_params(template))

from __future__ import annotations

import json

import pytest

from morpheus_worker.yaml_lines import Found, as_json, read_document


def said(text: str) -> list[str]:
    document = read_document(text, begins="version: 1")
    return [str(problem) for problem in document.placed(document.found, "f")]


def test_values_and_the_lines_they_stand_on() -> None:
    document = read_document("a: 1\nb:\n  - x\n  - {c: true,\n     d: }\n'5': 1.5\n", begins="a")
    assert document.data == {"a": 1, "b": ["x", {"c": True, "d": None}], "5": 1.5}
    assert document.found == []
    assert [document.line_of(at) for at in [("a",), ("b", 0), ("b", 1, "c"), ("b", 1, "d"), ("5",)]] == [1, 3, 4, 5, 6]
    assert document.line_of(("b", 1, "not there", "at all")) == 4
    assert document.line_of(("not there",)) == 1


def test_json_is_read_with_lines() -> None:
    document = read_document('{\n "a": {"b": "\\u00e4"},\n "c": [null]\n}\n', begins="a")
    assert document.data == {"a": {"b": "ä"}, "c": [None]}
    assert document.line_of(("c", 0)) == 3


@pytest.mark.parametrize("value", ["2024-01-01", "2024-13-45", "=", "<<", "0b_", "'5'", "! 5", "!!str 5"])
def test_what_is_no_number_and_no_truth_is_text(value: str) -> None:
    document = read_document(f"a: {value}", begins="a")
    assert document.found == []
    assert document.data == {"a": value.removeprefix("!!str ").removeprefix("! ").strip("'")}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", ["f:1: is empty (it begins with 'version: 1')"]),
        ("a: !!timestamp x", ["f:1 a: has a tag (leave 'tag:yaml.org,2002:timestamp' out)"]),
        ("a: !mine\n  b: 1", ["f:1 a: has a tag (leave '!mine' out)"]),
        ("a: &x [1]\nb: *x", ["f:2 b: is an alias (write the values out)"]),
        ("a: &x 1\nb: &x [1]\nc: *x", ["f:3 c: is an alias (write the values out)"]),
        ("a: *x", ["f:1 a: is an alias (write the values out)"]),
        ("a: 1\nb: 2\na: 3", ["f:1 a: stands twice, again on line 3"]),
        ("a: 1\n--- \nb: 1", ["f:2: is not YAML: a second document begins"]),
        ("a:\n  - b\n c: 1", ["f:3: is not YAML: did not find expected key"]),
        ("[" * 100_000, ["f:1: is not YAML: nested too deeply"]),
        ("{a: " * 100_000, ["f:1: is not YAML: nested too deeply"]),
        ("- " * 100_000, ["f:1: is not YAML: nested too deeply"]),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, told: list[str]) -> None:
    assert said(text) == told


def test_an_alias_of_one_value_is_that_value() -> None:
    document = read_document("a: &x 1\nb: [*x, &x !!str 2, *x]", begins="a")
    assert (document.data, document.found) == ({"a": 1, "b": [1, "2", "2"]}, [])


def test_yaml_s_own_tags_mean_what_they_say() -> None:
    document = read_document("a: !!int '1'\nb: !!null ''\nc: !!bool maybe\nd: !!seq [!!float 1]", begins="a")
    assert (document.data, document.found) == ({"a": 1, "b": None, "c": "maybe", "d": [1.0]}, [])


@pytest.mark.parametrize("text", ["😀\x85", "\u2028\ufeff", "a\tb\x7f", "\U000e0067", "\\\"'"])
def test_what_is_written_as_json_is_read_as_it_was(text: str) -> None:
    assert read_document(as_json({text: [text]}), begins="a").data == {text: [text]}
    assert json.loads(as_json(text)) == text


def test_of_a_key_that_stands_twice_the_first_counts() -> None:
    assert read_document("a: 1\na: 2", begins="a").data == {"a": 1}


def test_a_key_that_is_no_text_keeps_its_place() -> None:
    assert read_document("? [1, 2]\n: 3", begins="a").data == {"(a key that is no text)": 3}


def test_problems_come_in_the_order_of_their_lines() -> None:
    document = read_document("a: 1\nb: 2", begins="a")
    found = [Found(("b",), "second"), Found(("a", 0, "x"), "first", "hint")]
    assert [str(problem) for problem in document.placed(found, "f")] == ["f:1 a[0].x: first (hint)", "f:2 b: second"]

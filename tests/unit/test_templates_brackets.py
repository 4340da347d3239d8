from __future__ import annotations

import json

import pytest

from morpheus_worker.templates.bind import fill, resolve
from morpheus_worker.templates.brackets import weighed
from morpheus_worker.templates.template import parse_template


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        ("a [word] b", "a (word:0.91) b"),
        ("[a][b c]", "(a:0.91)(b c:0.91)"),
        ("[[word]]", "(word:0.83)"),
        ("[[[word]]]", "(word:0.75)"),
        ("[a [b] c]", "(a (b:0.83) c:0.91)"),
        ("[[a] b]", "((a:0.83) b:0.91)"),
        ("[" * 30 + "a" + "]" * 30, "(a:0.057)"),
        ("[a\nb]", "(a\nb:0.91)"),
        ("[雪]", "(雪:0.91)"),
    ],
)
def test_brackets_weigh_less(typed: str, sent: str) -> None:
    assert weighed(typed) == sent


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        ("[(a:1.2) b]", "((a:1.2) b:0.91)"),
        ("([a])", "((a:1))"),
        ("(a [b]:1.3)", "(a (b:1.18):1.3)"),
        ("((a [b]):0.5)", "((a (b:0.5)):0.5)"),
        ("(a [b] : c)", "(a (b:1) : c)"),
        ("(a [b]:nan)", "(a (b:1):nan)"),
        ("[a] (b) [c]", "(a:0.91) (b) (c:0.91)"),
    ],
)
def test_brackets_weigh_less_than_what_is_around_them(typed: str, sent: str) -> None:
    """ComfyUI multiplies by 1.1 for `(…)`, and takes the number of `(…:1.3)` as it is."""
    assert weighed(typed) == sent


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        (r"\[a\]", "[a]"),
        (r"\[a] [b]", "[a] (b:0.91)"),
        (r"[a \] b]", "(a ] b:0.91)"),
        (r"[a \(b\)]", r"(a \(b\):0.91)"),
        (r"\\[a]", r"\[a]"),
        (r"\(a\) \n \\", r"\(a\) \n \\"),
    ],
)
def test_a_backslash_makes_a_bracket_plain(typed: str, sent: str) -> None:
    assert weighed(typed) == sent


@pytest.mark.parametrize(
    "text",
    [
        "[cat:dog:0.5]",
        "[cat|dog]",
        "[from::5]",
        "[a",
        "a]",
        "][",
        "[]",
        "[ ]",
        "[a :( b]",
        "(a [b) c]",
        "[a (b] c)",
        "( [a]",
        ":) [a]",
        "[a ) b]",
        "(a:1.2), {b|c}, <d>",
    ],
)
def test_what_is_no_weight_stays(text: str) -> None:
    assert weighed(text) == text


def test_a_weight_within_prompt_editing_is_one() -> None:
    assert weighed("[[a]:b:0.5]") == "[(a:0.91):b:0.5]"
    assert weighed("[(a:1.2)|[b]]") == "[(a:1.2)|(b:0.91)]"


def test_a_very_long_text_is_no_trouble() -> None:
    assert weighed("[" * 20_000).count("[") == 20_000
    assert weighed("[a]" * 20_000) == "(a:0.91)" * 20_000
    assert weighed("[" * 20_000 + "a" + "]" * 20_000).startswith("(a:")


def test_a_template_says_which_texts_have_brackets() -> None:
    said = {"prompt": {"type": "string", "brackets": True}, "plain": {"type": "string"}}
    inputs = {"a": "__param:prompt__", "b": "best, __param:prompt__, __param:plain__ [x]"}
    template = parse_template(json.dumps({"_params": said, "1": {"class_type": "Any", "inputs": inputs}}), name="test")
    bound = fill(resolve(template, {"prompt": "[a]", "plain": "[b]"}))
    assert bound.graph["1"]["inputs"] == {"a": "(a:0.91)", "b": "best, (a:0.91), [b] [x]"}
    assert bound.params == {"prompt": "[a]", "plain": "[b]"}


def test_a_field_of_an_item_may_have_brackets() -> None:
    items = {"text": {"type": "string", "brackets": True}}
    said = {"texts": {"type": "list", "default": [], "repeat": {"1": ["after"]}, "items": items}}
    graph = {
        "0": {"class_type": "Any", "inputs": {}},
        "1": {"class_type": "Any", "inputs": {"after": ["0", 0], "text": "__param:texts.text__"}},
        "2": {"class_type": "Any", "inputs": {"after": ["1", 0]}},
    }
    bound = fill(resolve(parse_template(json.dumps({"_params": said} | graph), name="test"), {"texts": ["a", "[b]"]}))
    assert [bound.graph[own_id]["inputs"]["text"] for own_id in ("1", "1_2")] == ["a", "(b:0.91)"]
    assert bound.params == {"texts": [{"text": "a"}, {"text": "[b]"}]}

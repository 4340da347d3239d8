from __future__ import annotations

import pytest

from morpheus_worker.templates.reading import TemplateError, read_tree


def problems_of(text: str) -> list[str]:
    with pytest.raises(TemplateError) as raised:
        read_tree(text, name="x")
    return [str(problem) for problem in raised.value.problems]


def test_a_tree_knows_its_lines() -> None:
    tree = read_tree('{\n  "1": {"a": [1, {"b": "c"}]}\n}', name="x")
    assert tree.value == {"1": {"a": [1, {"b": "c"}]}}
    assert tree.problem(("1", "a", 1, "b"), "is wrong").at == "line 2, column 24"
    assert tree.problem(("1", "absent", "deeper"), "is wrong").at == "line 2, column 8"
    assert tree.problem(("absent",), "is wrong").at == "line 1, column 1"


def test_bare_placeholders_do_not_move_the_columns() -> None:
    tree = read_tree('{"a": __param:x__, "b": __param:y__, "c": 1}', name="x")
    assert tree.problem(("b",), "").at == "line 1, column 25"
    assert tree.problem(("c",), "").at == "line 1, column 43"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1, column 1: the file is empty"),
        (" \n ", "the file is empty"),
        ('{"a": 1} {}', "line 1, column 10: there is text after the end"),
        ('{"a": 1}}', "line 1, column 9: there is text after the end"),
        ('{"a": __param:x__, "b" 1}', "line 1, column 24: is not JSON near '1}': a ':' is missing before this"),
        ('{\n"a": __param:a b__}', "line 2, column 6: is not JSON"),
        ('{"a": "open', "is not JSON near '\"open': this text never ends"),
        ('{"a": "x\ny"}', "line 1, column 9: is not JSON: a text has a line break in it (write \\n for it"),
        ("[]", "line 1, column 1: must be one JSON object"),
        ("7", "must be one JSON object"),
        ('{"a": 1,\n "a": 2}', "line 2, column 2: the key 'a' is given twice"),
        ('{"a": NaN}', "line 1, column 7: NaN is not a finite number"),
        ('{"a": [1, -Infinity]}', "-Infinity is not a finite number"),
        ('{"a": 1e999}', "1e999 is not a finite number"),
        ('{"__param:a__": 1}', "line 1, column 2: a placeholder stands in a key: '__param:a__'"),
        ("{__param:a__: 1}", "line 1, column 2: a placeholder stands in a key"),
        ('{"1": {"x __file:a__": 1}}', "a placeholder stands in a key"),
        ('{"a": "__param:my key__"}', "'__param:my key__' looks like a placeholder and is none"),
        ("[" * 100_000, "is nested too deeply"),
        ('{"a": ' + "[" * 70 + "]" * 70 + "}", "is nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "has a number that cannot be read"),
    ],
)
def test_what_is_wrong_with_a_text(text: str, said: str) -> None:
    assert said in problems_of(text)[0]


def test_all_problems_at_once() -> None:
    text = '{"a": NaN,\n"a": 2,\n"__param:x__": "__params:y__"}'
    assert [problem.split(":")[0] for problem in problems_of(text)] == [
        "line 1, column 7",
        "line 2, column 1",
        "line 3, column 1",
        "line 3, column 16",
    ]


def test_our_own_blocks_are_not_scanned() -> None:
    text = '{"_about": {"description": "write __param:my key__"}, "_params": {"__param:a__": {}}}'
    assert read_tree(text, name="x").value["_about"] == {"description": "write __param:my key__"}


def test_a_huge_whole_number_is_a_number() -> None:
    assert read_tree('{"a": ' + "9" * 400 + "}", name="x").value["a"] == int("9" * 400)

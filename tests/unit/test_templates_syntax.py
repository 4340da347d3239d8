from __future__ import annotations

import json

import pytest

from morpheus_worker.templates.syntax import syntax_fault

CUT = "is the file whole? save or export it again"


def fault(text: str) -> tuple[str, str]:
    with pytest.raises(json.JSONDecodeError) as raised:
        json.loads(text)
    return syntax_fault(raised.value, text)


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("\n", "the file is empty", "export a workflow"),
        ("{} x", "there is text after the end of the JSON object", "a '}' too many"),
        ('{"a": "b\nc"}', "a text has a line break in it", "write \\n for it"),
        ('{"a": "b\tc"}', "a text has a control character in it", "write \\t for it"),
        ('{"a": "b\x01c"}', "a text has a control character in it", "write \\u0001 for it"),
        ('{"a": "C:\\models"}', "near '\\models\"}': a text has a lone backslash in it", "write \\\\ for a backslash"),
        ('{"a": "\\u12"}', "a text has a lone backslash in it", "write \\\\ for a backslash"),
        ('{"a": "b', "near '\"b': this text never ends", 'put a " at its end'),
        ('{"a": {"b": 1', "it ends in the middle", CUT),
        ('{"a":', "it ends in the middle", CUT),
        ("{", "it ends in the middle", CUT),
        ('{"a": 1, // one\n "b": 2}', "near '// one': JSON has no comments", "remove it"),
        ('{"a": 1 /* one */}', "JSON has no comments", "remove it"),
        ('{"a": 1,\n# one\n"b": 2}', "JSON has no comments", "remove it"),
        ('{"a": 1,\n}', "a comma stands before the end of a list or object", "remove it"),
        ('{"a": [1,]}', "a comma stands before the end of a list or object", "remove it"),
        ("{'a': 1}", "these are not JSON's quotes", "straight double quotes"),
        ("{“a”: 1}", "these are not JSON's quotes", "straight double quotes"),
        ('{"a": 1 "b": 2}', "near '\"b\": 2}': a comma is missing before this", "put one there"),
        ('{"a": [1 2]}', "near '2]}': a comma is missing before this", "put one there"),
        ('{"a" 1}', "a ':' is missing before this", '"key": value'),
        ('{"a": True}', "near 'True}': JSON knows true, false and null alone", "write true"),
        ('{"a": FALSE}', "JSON knows true, false and null alone", "write false"),
        ('{"a": None}', "JSON knows true, false and null alone", "write null"),
        ('{"a": euler}', "near 'euler}': this stands without quotes", "double quotes"),
        ("{a: 1}", "near 'a: 1}': this stands without quotes", "double quotes"),
        ('{"a": 1]}', "near ']}': Expecting ',' delimiter", "comma, quote or bracket"),
        ('{"a": }', "near '}': Expecting value", "comma, quote or bracket"),
    ],
)
def test_what_to_write_instead(text: str, what: str, hint: str) -> None:
    said, remedy = fault(text)
    assert what in said
    assert hint in remedy

from __future__ import annotations

import json

import pytest

from morpheus_worker.templates.scan import Placeholder, lookalikes, quote_bare, split


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ("",)),
        ("plain", ("plain",)),
        ("__param:steps__", (Placeholder("param", "steps"),)),
        ("__file:face.png__", (Placeholder("file", "face.png"),)),
        ("__dir:a-b_c__", (Placeholder("dir", "a-b_c"),)),
        ("a __param:b__ c", ("a ", Placeholder("param", "b"), " c")),
        ("__param:a____param:b__", (Placeholder("param", "a"), Placeholder("param", "b"))),
        ("__param:a__b__", (Placeholder("param", "a"), "b__")),
        ("__param:a___", (Placeholder("param", "a"), "_")),
        ("__param:__", ("__param:__",)),
        ("__image:a__", ("__image:a__",)),
    ],
)
def test_split(text: str, parts: tuple[str | Placeholder, ...]) -> None:
    assert split(text) == parts
    assert "".join(str(part) for part in parts) == text


@pytest.mark.parametrize(
    "text", ["__param:my key__", "__params:steps__", "__PARAM:steps__", "__param:steps", "__file:__"]
)
def test_what_only_looks_like_a_placeholder(text: str) -> None:
    assert list(lookalikes(f"a __param:fine__ {text}")) == [text]


def test_lookalikes_spares_placeholders_and_plain_text() -> None:
    assert list(lookalikes("__param:a__ and __init__ and parameters: __file:b__")) == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": __param:x__}', {"a": "__param:x__"}),
        ("[__param:x__,__dir:y__]", ["__param:x__", "__dir:y__"]),
        ("__file:x__", "__file:x__"),
        ('{"a": "say \\"__param:x__\\" \\\\", "b": __param:y__}', {"a": 'say "__param:x__" \\', "b": "__param:y__"}),
        ('{"a": "\\\\", "b": __param:y__}', {"a": "\\", "b": "__param:y__"}),
    ],
)
def test_bare_placeholders_become_strings(text: str, value: object) -> None:
    assert json.loads(quote_bare(text).text) == value


def test_nothing_is_touched_after_a_string_that_never_ends() -> None:
    text = '{"a": __param:x__, "b": "open __param:y__}'
    assert quote_bare(text).text == '{"a": "__param:x__", "b": "open __param:y__}'


def test_offsets_lead_back_to_the_text_as_written() -> None:
    text = '[__param:x__, __param:y__, "z"]'
    quoted = quote_bare(text)
    assert [quoted.original(quoted.text.index(mark)) for mark in ("[", "_param:x", "_param:y", '"z"', "]")] == [
        text.index(mark) for mark in ("[", "_param:x", "_param:y", '"z"', "]")
    ]

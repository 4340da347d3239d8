"""Commands of a moving portrait make the frames that the node pack would make."""

from __future__ import annotations

import pytest
from PIL import Image

from morpheus_worker.rehearsal.packs.motion import (
    PARTS,
    CommandError,
    Expression,
    Motion,
    frame_count,
    length_of,
    parse_commands,
    timeline,
)
from morpheus_worker.rehearsal.values import Images


def expression(**parts: float) -> Expression:
    return Expression(tuple(parts.get(part, 0.0) for part in PARTS))


LEFT, SHUT = expression(rotate_yaw=8.0), expression(blink=-16.0)
MOTION = Motion(Images((Image.new("RGB", (8, 8)),)), (LEFT, SHUT))


def test_an_expression_is_gone_over_to_and_kept() -> None:
    commands = parse_commands("1=4:2\n0 = 2:1\n\n2=1:0", MOTION)
    assert length_of(commands) == 10
    told = list(timeline(commands))
    assert [each["rotate_yaw"] for each in told] == [2, 4, 6, 8, 8, 8, 4, 0, 0, 0]
    assert [each["blink"] for each in told] == [0] * 9 + [-16]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("1=4", 1),
        ("0=1:1\nsmile", 2),
        ("1=one:1", 1),
        ("3=1:1", 1),
        ("-3=1:1", 1),
        ("0=1:1\n\n0=1", 3),
    ],
)
def test_what_is_no_command_is_named_in_the_packs_words(text: str, line: int) -> None:
    with pytest.raises(CommandError) as caught:
        parse_commands(text, MOTION)
    wrong = text.split("\n")[line - 1]
    assert str(caught.value) == f"(AdvancedLivePortrait) Command Err Line {line}: {wrong}"


def test_an_expression_needs_a_motion_link_and_a_change_needs_a_frame() -> None:
    assert length_of(parse_commands("0=5:5", None)) == 10
    with pytest.raises(CommandError, match="Line 1"):
        parse_commands("1=5:5", None)
    with pytest.raises(ZeroDivisionError):
        parse_commands("0=0:5", MOTION)


@pytest.mark.parametrize(
    ("sources", "driving", "animate", "count"),
    [(1, 0, True, 10), (1, 0, False, 1), (1, 25, True, 25), (1, 4, True, 10), (30, 4, False, 30)],
)
def test_how_many_frames(sources: int, driving: int, animate: bool, count: int) -> None:
    commands = parse_commands("1=4:2\n0=2:2", MOTION)
    assert frame_count(sources, driving, commands, animate_without_video=animate) == count


def test_expressions_add_up_and_say_what_they_are() -> None:
    assert LEFT.plus(SHUT) == expression(rotate_yaw=8.0, blink=-16.0)
    assert str(LEFT.plus(SHUT)) == "rotate_yaw 8, blink -16"
    assert str(Expression()) == "at rest"

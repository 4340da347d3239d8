"""The expressions of ComfyUI-AdvancedLivePortrait, and the frames that its commands make. Decisions only.

Source: ComfyUI-AdvancedLivePortrait, nodes.py `ExpressionEditor`, `AdvancedLivePortrait.parsing_command` and `run`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from morpheus_worker.rehearsal.values import Images

PARTS: Final = (
    "rotate_pitch",
    "rotate_yaw",
    "rotate_roll",
    "blink",
    "eyebrow",
    "wink",
    "pupil_x",
    "pupil_y",
    "aaa",
    "eee",
    "woo",
    "smile",
)
"""What an expression consists of: ExpressionEditor's inputs."""


@dataclass(frozen=True, slots=True)
class Expression:
    """How far a face is from rest: a number for each of `PARTS`."""

    values: tuple[float, ...] = (0.0,) * len(PARTS)

    def __getitem__(self, part: str) -> float:
        return self.values[PARTS.index(part)]

    def plus(self, other: Expression) -> Expression:
        return Expression(tuple(mine + its for mine, its in zip(self.values, other.values, strict=True)))

    def towards(self, other: Expression, share: float) -> Expression:
        """This far on the way to the other one: 0 is still this one, 1 the other."""
        return Expression(
            tuple(mine + (its - mine) * share for mine, its in zip(self.values, other.values, strict=True))
        )

    def __str__(self) -> str:
        told = [f"{part} {value:g}" for part, value in zip(PARTS, self.values, strict=True) if value]
        return ", ".join(told) or "at rest"


@dataclass(frozen=True, slots=True)
class Motion:
    """An `EDITOR_LINK`: the portrait, and the expressions that a command names by their number, the first being 1."""

    portrait: Images
    expressions: tuple[Expression, ...] = ()

    def expression(self, number: int) -> Expression:
        """As the pack finds it: in a list whose first item is the portrait.

        Raises:
            LookupError: when there is none of this number.
        """
        if number == 0:
            return Expression()
        listed: Sequence[Expression | None] = (None, *self.expressions)
        found = listed[number]
        if found is None:
            raise LookupError("the portrait is no expression")
        return found

    def __str__(self) -> str:
        return f"{len(self.expressions)} expression(s) of {self.portrait}"


@dataclass(frozen=True, slots=True)
class Command:
    """Goes over to an expression within `change` frames, and stays there for `keep` frames."""

    target: Expression
    change: int
    keep: int


class CommandError(AssertionError):
    """A line that is no command."""

    exception_type: Final = "AssertionError"


def parse_commands(text: str, motion: Motion | None) -> tuple[Command, ...]:
    """Reads lines like `1=10:5`: expression 1 within 10 frames, kept for 5.

    Raises:
        CommandError: in the pack's words, for the first line that is none or names an expression that is not there.
        ZeroDivisionError: as the pack does, when the expression is to change within no frame.
    """
    commands = []
    for number, line in enumerate(text.split("\n"), 1):
        if line == "":
            continue
        try:
            commands.append(_command(line, motion))
        except (LookupError, ValueError, TypeError):
            raise CommandError(f"(AdvancedLivePortrait) Command Err Line {number}: {line}") from None
        if commands[-1].change == 0:
            raise ZeroDivisionError("division by zero")
    return tuple(commands)


def _command(line: str, motion: Motion | None) -> Command:
    name, lengths, *_ = line.split("=")
    change, keep, *_ = lengths.split(":")
    index = int(name)
    if index and motion is None:
        raise TypeError("no motion link")
    return Command(motion.expression(index) if motion else Expression(), int(change), int(keep))


def length_of(commands: Iterable[Command]) -> int:
    """In frames."""
    return sum(command.change + command.keep for command in commands)


def timeline(commands: Iterable[Command]) -> Iterator[Expression]:
    """One expression a frame, for as long as the commands last; after them the last one stays."""
    now = Expression()
    for command in commands:
        for step in range(1, command.change + 1):
            yield now.towards(command.target, step / command.change)
        yield from [command.target] * max(0, command.keep)
        now = command.target


def frame_count(sources: int, driving: int, commands: Sequence[Command], *, animate_without_video: bool) -> int:
    """How many frames the node makes: as many as pictures came in, and, if told so, as the commands last."""
    longest = max(sources, driving)
    return max(longest, length_of(commands)) if animate_without_video else longest

"""ComfyUI-AdvancedLivePortrait: a portrait that moves as the node's commands or a driving clip say.

Source: ComfyUI-AdvancedLivePortrait, nodes.py. Without a face the pack takes the whole picture for one and goes on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from PIL import Image

from morpheus_worker.rehearsal import render
from morpheus_worker.rehearsal.call import Call, Outcome
from morpheus_worker.rehearsal.faces import has_face
from morpheus_worker.rehearsal.packs.motion import (
    PARTS,
    Command,
    Expression,
    Motion,
    frame_count,
    parse_commands,
    timeline,
)
from morpheus_worker.rehearsal.packs.portrait import face_of, posed, region_of
from morpheus_worker.rehearsal.values import Images

MOST_PIXELS: Final = 160_000_000
"""Of all pictures of a clip together; of larger clips fewer pictures are drawn, and each is shown for longer."""

PREVIEW_SIDE: Final = 512
"""Side of the face that ExpressionEditor shows, in pixels."""

SWAY: Final = 6.0
"""Degrees that a head turns to either side while it follows a driving clip, of which nothing is looked at."""

SWAY_FRAMES: Final = 48
"""Frames from one side to the other and back."""

BLINK_EVERY: Final = 60
BLINK_FRAMES: Final = 6
"""How often a head that follows a driving clip blinks, and for how long, in frames."""


def advanced_live_portrait(call: Call) -> Outcome:
    """Nothing when it is switched off or has no portrait.

    Raises:
        CommandError, ZeroDivisionError: when the commands cannot be followed.
    """
    motion = call.given("motion_link", Motion)
    sources = call.given("src_images", Images) or (motion.portrait if motion else None)
    if not call.inputs.get("turn_on", True) or sources is None:
        return Outcome((None,))
    commands = parse_commands(call.text("command"), motion)
    count = _frame_count(call, commands)
    expressions = _expressions(commands, count, driven=len(_driving(call)))
    return Outcome((_clip(call, sources.frames, expressions),), said=_complaint(call, sources.frames[0]))


def frames_of(call: Call) -> int:
    """How many pictures the node makes, one step of its progress each; 0 when its commands are wrong."""
    given = call.given("motion_link", Motion)
    if not call.inputs.get("turn_on", True) or (given is None and call.given("src_images", Images) is None):
        return 0
    try:
        return _frame_count(call, parse_commands(call.text("command"), given))
    except (AssertionError, ZeroDivisionError):
        return 0


def _frame_count(call: Call, commands: Sequence[Command]) -> int:
    sources = call.given("src_images", Images)
    return frame_count(
        len(sources.frames) if sources else 1,
        len(_driving(call)),
        commands,
        animate_without_video=bool(call.inputs.get("animate_without_vid")),
    )


def _driving(call: Call) -> Sequence[Image.Image]:
    images = call.given("driving_images", Images)
    return images.frames if images else ()


def _expressions(commands: Sequence[Command], count: int, *, driven: int) -> list[Expression]:
    """One for each frame: what the commands say, and on top of it the sway of a head that is driven."""
    told = list(timeline(commands))[:count]
    last = told[-1] if told else Expression()
    told += [last] * (count - len(told))
    return [each.plus(_driven(index)) if index < driven else each for index, each in enumerate(told)]


def _driven(index: int) -> Expression:
    amounts = dict.fromkeys(PARTS, 0.0)
    turn = 2 * math.pi * index / SWAY_FRAMES
    amounts["rotate_yaw"], amounts["rotate_pitch"] = SWAY * math.sin(turn), SWAY / 2 * math.sin(turn / 2)
    amounts["blink"] = -15.0 if index % BLINK_EVERY >= BLINK_EVERY - BLINK_FRAMES else 0.0
    return Expression(tuple(amounts.values()))


def _clip(call: Call, sources: Sequence[Image.Image], expressions: Sequence[Expression]) -> Images:
    """The pictures: no two of those that are drawn are alike, for a bar along the lower edge tells how far it is."""
    count, (width, height) = len(expressions), sources[0].size
    drawn = min(count, max(1, MOST_PIXELS // (width * height)))
    lines = [*render.heading(call.class_type), f"{count} pictures"]
    regions = [region_of(source, faceless=call.faceless) for source in sources]
    labelled = [render.labelled(source, lines) for source in sources]
    pictures = []
    for place in range(drawn):
        index = place * count // drawn
        source = min(index, len(sources) - 1)
        image = posed(labelled[source], regions[source], expressions[index])
        pictures.append(render.with_bar(image, (place + 1) / drawn) if drawn > 1 else image)
    return Images(render.spread(pictures, count))


def expression_editor(call: Call) -> Outcome:
    """One portrait with an expression. It goes on as the next of the expressions that commands name."""
    motion, images = call.given("motion_link", Motion), call.given("src_image", Images)
    if motion is None and images is not None:
        motion = Motion(images)
    if motion is None:
        return Outcome((None,) * len(call.node.outputs))
    expression = Expression(tuple(call.number(part, 0.0) for part in PARTS))
    if (added := call.given("add_exp", Expression)) is not None:
        expression = expression.plus(added)
    portrait = motion.portrait.frames[0]
    region = region_of(portrait, faceless=call.faceless)
    image = posed(portrait, region, expression)
    shown = render.labelled(image, [*render.heading(call.class_type), str(expression)])
    outputs = (Images((shown,)), Motion(motion.portrait, (*motion.expressions, expression)), expression)
    report = {"images": [_preview(call, face_of(image, region, PREVIEW_SIDE))]}
    return Outcome(outputs, report, _complaint(call, portrait))


def _complaint(call: Call, portrait: Image.Image) -> tuple[str, ...]:
    """What the pack prints when it takes the whole picture for a face."""
    return () if has_face(portrait) and not call.faceless else ("Failed to detect face!!",)


def _preview(call: Call, face: Image.Image) -> dict[str, str]:
    """The node's own way to name a preview; it names no folder within the temp folder."""
    folder = call.folders.temp
    taken = sum(1 for _ in folder.glob("expression_edit_preview*.png"))
    name = f"expression_edit_preview{taken + 1}.png"
    face.save(folder / name, compress_level=1)
    return {"filename": name, "type": "temp"}


LIVE_PORTRAIT: Final[Mapping[str, Callable[[Call], Outcome]]] = {
    "AdvancedLivePortrait": advanced_live_portrait,
    "ExpressionEditor": expression_editor,
}
LOOKS_FOR_A_FACE: Final = frozenset({"AdvancedLivePortrait", "ExpressionEditor"})

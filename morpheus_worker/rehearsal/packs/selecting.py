"""ComfyUI-VideoHelperSuite's nodes that count and choose among pictures.

Source: ComfyUI-VideoHelperSuite, videohelpersuite/utils.py `convert_str_to_indexes`, `validate_index`,
image_latent_nodes.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from morpheus_worker.rehearsal.call import Call, Outcome
from morpheus_worker.rehearsal.values import Images


class NothingSelectedError(Exception):
    """No picture was named."""

    exception_type: Final = "Exception"


def chosen_indexes(text: str, length: int, *, allow_missing: bool) -> list[int]:
    """The places that a text like `0, -1, 2:5, ::2` names among so many pictures.

    Raises:
        ValueError, IndexError: in the pack's words, for what is no number, or none that is there.
    """
    chosen: list[int] = []
    for group in (part.strip() for part in text.split(",")) if text else ():
        if ":" not in group:
            index = _number(group)
            if not allow_missing and not -length <= index < length:
                raise IndexError(f"Index '{index}' out of range for {length} item(s).")
            chosen.append(index)
            continue
        start, end, step = ([*(part.strip() for part in group.split(":", 2)), ""])[:3]
        bounds = slice(_number(start) if start else None, _number(end) if end else None)
        chosen.extend(list(range(length))[bounds][:: _number(step) if step else 1])
    return chosen


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError as failure:
        raise ValueError(f"Index '{text}' must be an integer.", failure) from failure


def select_images(call: Call) -> Outcome:
    images, text = call.images("image"), call.text("indexes", "0")
    length = len(images.frames)
    chosen = chosen_indexes(text, length, allow_missing=not call.inputs.get("err_if_missing", True))
    found = tuple(images.frames[index] for index in chosen if -length <= index < length)
    if not found:
        raise NothingSelectedError(f"Nothing was selected based on indexes found in '{text}'.")
    return Outcome((Images(found),))


def select_every_nth(call: Call) -> Outcome:
    frames = call.images("images").frames[
        call.integer("skip_first_images", 0) :: max(1, call.integer("select_every_nth", 1))
    ]
    return Outcome((Images(frames), len(frames)))


def count_images(call: Call) -> Outcome:
    return Outcome((len(call.images("images").frames),))


SELECTING: Final[Mapping[str, Callable[[Call], Outcome]]] = {
    "VHS_SelectImages": select_images,
    "VHS_SelectEveryNthImage": select_every_nth,
    "VHS_GetImageCount": count_images,
}

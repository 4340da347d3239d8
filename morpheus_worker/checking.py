"""Whether a file is of the kind that a loader node wants: its first bytes are asked, never its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from morpheus_worker.contents import HEAD_BYTES, Content, content_of
from morpheus_worker.errors import Code, MediaRefusedError
from morpheus_worker.inline import check_size
from morpheus_worker.pictures import NotAPictureError, picture_of

InputKind = Literal["image", "video", "audio", "file", "dir"]

_NOUNS: Final[Mapping[InputKind, str]] = {"image": "a picture", "video": "a video", "audio": "a sound"}
_BEGINNING_BYTES: Final = 12


@dataclass(frozen=True, slots=True)
class Limits:
    """`max_bytes` for any file, `max_pixels` for a picture: width times height, of all its frames together."""

    max_bytes: int
    max_pixels: int


def check_content(path: Path, kind: InputKind, limits: Limits, *, by_url: bool = False) -> Content | None:
    """What the file is by its first bytes; None for one that may be anything, and that nothing is known of.

    Only headers are read: what is broken further on is found by the node that loads it.

    Raises:
        MediaRefusedError: when it is not of the kind, empty, or too large.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
        check_size(path.stat().st_size, limits.max_bytes)
    except OSError as failure:
        raise MediaRefusedError(Code.INPUT_UNREACHABLE, f"cannot be read: {failure.strerror}") from None
    if not head:
        raise MediaRefusedError(Code.INPUT_REJECTED, "is empty")
    content = content_of(head)
    is_page = content is not None and content.kind == "page"
    hint = "does the URL lead to the file itself, and without a login?" if is_page and by_url else None
    if kind == "image":
        _check_picture(path, content, head, limits, hint)
    elif kind in _NOUNS and not (content and suits(content, kind)):
        raise _is_none(kind, content, head, hint)
    elif kind == "file" and hint:
        raise MediaRefusedError(Code.INPUT_REJECTED, "is an HTML page, not the file that was meant", hint)
    return content


def _check_picture(path: Path, content: Content | None, head: bytes, limits: Limits, hint: str | None) -> None:
    """A text may yet be a picture, since some formats are made of text; and what no signature is known of, since one
    format (TGA) has none."""
    if content is not None and content.kind not in ("image", "text"):
        raise _is_none("image", content, head, hint)
    try:
        picture = picture_of(path, most_pixels=limits.max_pixels)
    except NotAPictureError as failure:
        if content is None or content.kind != "image":
            raise _is_none("image", content, head, hint) from None
        because = f": {failure}" if str(failure) else ""
        raise MediaRefusedError(Code.INPUT_REJECTED, f"is {content.said} that cannot be opened{because}") from None
    if picture.pixels > limits.max_pixels:
        size = f"{picture.width}×{picture.height} pixels"
        counted = f"{picture.frames} frames or more, of {picture.pixels} pixels together"
        said = f"has {counted if picture.frames > 1 else size}, more than the {limits.max_pixels} allowed"
        raise MediaRefusedError(Code.INPUT_REJECTED, said)


def noun_of(kind: InputKind) -> str:
    """What one of the kind is called in a sentence."""
    return _NOUNS.get(kind, "a file")


def suits(content: Content, kind: InputKind) -> bool:
    """Whether a file of that content may serve as one of the kind.

    ComfyUI's LoadAudio takes the sound of a video, too (0.3.64, comfy_extras/nodes_audio.py).
    """
    if kind == "video":
        return content.kind == "video" or content.moves
    if kind == "audio":
        return content.kind in ("audio", "video")
    return content.kind == "image" if kind == "image" else content.kind not in ("text", "page")


def _is_none(kind: InputKind, content: Content | None, head: bytes, hint: str | None) -> MediaRefusedError:
    if kind == "image" and content is not None and content.media_type.startswith("image/"):
        taken = "send a PNG, JPEG, WebP, GIF, BMP, TIFF or AVIF"
        return MediaRefusedError(Code.INPUT_REJECTED, f"is {content.said}, which is not taken", taken)
    beginning = f"it begins with {head[:_BEGINNING_BYTES]!r}"
    if content is None:
        return MediaRefusedError(Code.INPUT_REJECTED, f"is not {noun_of(kind)} ({beginning})", hint)
    shown = f" ({beginning})" if content.kind in ("text", "page") else ""
    return MediaRefusedError(Code.INPUT_REJECTED, f"is {content.said}, not {noun_of(kind)}{shown}", hint)

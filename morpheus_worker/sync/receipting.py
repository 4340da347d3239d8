"""A receipt as text, and what it is worth beside the file that it speaks of. Values in, values out."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any, Final

from morpheus_worker.sources import SHA256
from morpheus_worker.sync.planning import Seen, State
from morpheus_worker.sync.terms import Receipt

LONGEST_TAIL: Final = 80
"""Characters of a file's own name that its key keeps: owners and endings must still fit into a name of 255 bytes."""

HIDDEN: Final = ".morpheus"
"""The folder in a cache, or under a bucket's prefix, that holds everything of ours that is no model."""
RECEIPTS: Final = "receipts"
"""The folder in it with a receipt for each file."""

_STRANGE: Final = re.compile(r"[^A-Za-z0-9._-]+")


def key_of(path: PurePosixPath) -> str:
    """The name under which everything about the cache's file `path` is kept: safe, stable, no two paths alike, and
    with the end of the file's own name, so that a person finds it."""
    digest = hashlib.sha256(str(path).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{digest}-{_STRANGE.sub('_', path.name)[-LONGEST_TAIL:]}"


def receipt_file(path: PurePosixPath) -> str:
    """What the receipt of the cache's file `path` is called."""
    return f"{key_of(path)}.json"


def receipt_text(receipt: Receipt) -> str:
    return json_bytes(receipt.as_dict(), indent=1).decode() + "\n"


def json_bytes(value: Any, *, indent: int | None = None, separators: tuple[str, str] | None = None) -> bytes:
    """As people read it. A file's name that is no UTF-8 has half a surrogate pair for each odd byte: only those are
    escaped, in a way that is JSON's own."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators)
    return text.encode("utf-8", "backslashreplace")


def read_receipt(text: str | bytes) -> Receipt | None:
    """The receipt, or None where the text is none: broken, or somebody else's file."""
    try:
        return receipt_of(json.loads(text))
    except (ValueError, RecursionError):
        return None


def receipt_of(told: Any) -> Receipt | None:
    """The receipt that a JSON value is, or None."""
    if not isinstance(told, Mapping) or not _holds(told):
        return None
    known = {name: told[name] for name in ("size", "mtime_ns", "sha256", "by", "source", "etag", "verified_at")}
    return Receipt(path=PurePosixPath(told["path"]), requested=told.get("requested", False), **known)


def standing_of(receipt: Receipt | None, size: int, mtime_ns: int) -> State:
    """How a file of that size (bytes) and time (nanoseconds since 1970) stands to its receipt."""
    if receipt is None:
        return "unreceipted"
    same = receipt.size == size and receipt.mtime_ns in (None, mtime_ns)
    return "present" if same else "changed"


def seen_with(receipt: Receipt | None, size: int, mtime_ns: int) -> Seen:
    return Seen(standing_of(receipt, size, mtime_ns), size, receipt)


def _holds(told: Mapping[str, Any]) -> bool:
    try:
        known = all(is_right(told[name]) for name, is_right in _RIGHT.items())
    except KeyError:
        return False
    return known and type(told.get("requested", False)) is bool


def _is_path(value: Any) -> bool:
    if not isinstance(value, str) or "\0" in value:
        return False
    path = PurePosixPath(value)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


_RIGHT: Final[Mapping[str, Callable[[Any], bool]]] = {
    "path": _is_path,
    "size": _is_count,
    "mtime_ns": lambda value: value is None or type(value) is int,
    "sha256": lambda value: value is None or (isinstance(value, str) and SHA256.fullmatch(value) is not None),
    "by": lambda value: value in ("sync", "adopt", "upload"),
    "source": lambda value: isinstance(value, dict),
    "etag": lambda value: value is None or isinstance(value, str),
    "verified_at": lambda value: isinstance(value, str),
}

"""A caller's value, read by the type of its param."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from morpheus_worker.comfy.faults import MODEL_SUFFIXES
from morpheus_worker.errors import did_you_mean
from morpheus_worker.inline import FORMS
from morpheus_worker.templates.declared import ParamType
from morpheus_worker.templates.params import DRAW, Param

MAX_DEPTH: Final = 64
"""How deep a list or object may be nested."""

SHOWN_CHOICES: Final = 8
SHOWN_CHARACTERS: Final = 60
LONGEST_NAME: Final = 255
"""No file and no param has a longer name, in characters; what was meant by such a text is not looked for."""

LONGEST_SHOWN_MEDIA: Final = 2048
"""Text longer than this, in characters, is no path and no URL that anybody has to see again."""

_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,400}\Z")
_REAL: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\Z")
_HALF_A_PAIR: Final = re.compile("[\ud800-\udfff]")
_DATA_URI: Final = re.compile(r"data:[^,]{0,200},", re.IGNORECASE)
_URL: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>[^/?#\\]*)(?P<path>[^?#]*)(?P<rest>.*)", re.IGNORECASE | re.DOTALL
)


class RefusedValueError(ValueError):
    """A value that its param does not take. `is_model` means: it names a model that this ComfyUI lacks."""

    def __init__(self, what: str, hint: str | None = None, *, is_model: bool = False) -> None:
        super().__init__(what)
        self.what, self.hint, self.is_model = what, hint, is_model


def read_value(param: Param, value: Any) -> Any:
    """The value as the graph takes it: `"7"` is 7 for an int, 7 is 7.0 for a float, everything else as it came.

    Raises:
        RefusedValueError: when the type, the range or the choices do not allow it.
    """
    read = _READERS[param.type](value)
    _check_range(param, read)
    if param.choices and param.choice(read) is None:
        raise _not_a_choice(param, read)
    return read


def as_text(value: Any) -> str:
    """A value inside a longer string: text as it is, null as nothing, anything else as JSON writes it."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def shown(value: Any, most: int = SHOWN_CHARACTERS) -> str:
    """A value in a sentence, a text of at most so many characters."""
    if isinstance(value, str):
        return f"'{named(value, most)}'"
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "an object"
    return json.dumps(value) if value is None or isinstance(value, (int, float)) else f"a {type(value).__name__}"


def named(name: str, most: int = SHOWN_CHARACTERS) -> str:
    """A name as a caller wrote it, shortened."""
    return name if len(name) <= most else f"{name[:most]}…"


def shown_media(value: Any) -> Any:
    """A medium as a result may show it: a path as it came, a URL without what may be a secret (user, query, fragment),
    inline data as its kind and size in bytes."""
    if not isinstance(value, str):
        return value
    if match := _DATA_URI.match(value):
        length = len(value) - match.end()
        is_base64 = ";base64" in match[0].lower()
        size = _decoded_bytes(value, length) if is_base64 else length - 2 * value.count("%", match.end())
        return f"{match[0]}… ({size} bytes)"
    if match := _URL.match(value.strip()):
        return _shown_url(match)
    if len(value) <= LONGEST_SHOWN_MEDIA:
        return value
    return f"base64… ({_decoded_bytes(value, len(value))} bytes)"


def _shown_url(match: re.Match[str]) -> str:
    """A presigned URL is a key to what it names for as long as it holds, and a result is kept and passed on."""
    host = match["host"].rpartition("@")[2]
    told = f"{match['scheme']}://{host}{match['path']}"
    told = told if len(told) <= LONGEST_SHOWN_MEDIA else f"{told[:LONGEST_SHOWN_MEDIA]}…"
    return f"{told}?…" if match["rest"] else told


def _decoded_bytes(value: str, length: int) -> int:
    padding = len(value) - len(value.rstrip("="))
    return (length - padding) * 3 // 4


def _read_int(value: Any) -> int:
    if isinstance(value, str) and _WHOLE.match(value.strip()):
        return int(value)
    number = _number(value)
    if isinstance(number, int):
        return number
    if number is None or not number.is_integer():
        raise RefusedValueError(f"must be a whole number, got {shown(value)}")
    return int(number)


def _read_float(value: Any) -> float:
    number = _number(value)
    if number is None:
        raise RefusedValueError(f"must be a number, got {shown(value)}")
    try:
        return float(number)
    except OverflowError:
        raise RefusedValueError("is too large for a number") from None


def _number(value: Any) -> int | float | None:
    """The number that a number or numeric text is, or None. A boolean is no number."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and _REAL.match(value.strip()):
        value = float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise RefusedValueError("is not a finite number; JSON has no NaN or infinity")
    return value if isinstance(value, (int, float)) else None


def _read_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = value.strip().lower() if isinstance(value, str) else None
    if text not in ("true", "false"):
        raise RefusedValueError(f"must be true or false, got {shown(value)}")
    return text == "true"


def _read_text(value: Any) -> str:
    if not isinstance(value, str):
        raise RefusedValueError(f"must be text, got {shown(value)}")
    _check_json(value)
    return value


def _read_path(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise RefusedValueError(f"must be a path on the volume, as text, got {shown(value)}")
    _check_json(value)
    return value


def _read_medium(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise RefusedValueError(f"must be {FORMS}, as text, got {shown(value)}")
    _check_json(value)
    return value


def _read_list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise RefusedValueError(f"must be a list, got {shown(value)}")
    _check_json(value)
    return value


def _read_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RefusedValueError(f"must be an object, got {shown(value)}")
    _check_json(value)
    return value


def _read_any(value: Any) -> Any:
    _check_json(value)
    return value


def _check_json(value: Any) -> None:
    """Refuses what JSON cannot carry to ComfyUI, anywhere in the value."""
    waiting = [(value, 0)]
    while waiting:
        inner, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise RefusedValueError(f"is nested more than {MAX_DEPTH} levels deep")
        if isinstance(inner, str):
            if not inner.isascii() and _HALF_A_PAIR.search(inner):
                raise RefusedValueError("has half a surrogate pair in it, which is no text")
        elif isinstance(inner, float):
            if not math.isfinite(inner):
                raise RefusedValueError("has a number that is not finite; JSON has no NaN or infinity")
        elif isinstance(inner, dict):
            waiting += [(part, depth + 1) for pair in inner.items() for part in pair]
        elif isinstance(inner, list):
            waiting += [(part, depth + 1) for part in inner]
        elif inner is not None and not isinstance(inner, int):
            raise RefusedValueError(f"has a {type(inner).__name__} in it, which JSON does not know")


def _check_range(param: Param, value: Any) -> None:
    if param.type == "list":
        _check_length(param, value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return
    if param.type == "seed" and value == DRAW:
        return
    if param.minimum is not None and value < param.minimum:
        raise RefusedValueError(f"is {shown(value)}, below the smallest value, {param.minimum}")
    if param.maximum is not None and value > param.maximum:
        raise RefusedValueError(f"is {shown(value)}, above the largest value, {param.maximum}")


def _check_length(param: Param, value: Sequence[Any]) -> None:
    has = "1 item" if len(value) == 1 else f"{len(value)} items"
    if param.minimum is not None and len(value) < param.minimum:
        raise RefusedValueError(f"has {has}, fewer than {param.minimum}")
    if param.maximum is not None and len(value) > param.maximum:
        raise RefusedValueError(f"has {has}, more than {param.maximum}")


def _not_a_choice(param: Param, value: Any) -> RefusedValueError:
    names = [as_text(choice.value) for choice in param.choices]
    is_model = isinstance(value, str) and value.lower().endswith(MODEL_SUFFIXES)
    near = did_you_mean(value, names) if isinstance(value, str) and len(value) <= LONGEST_NAME else None
    hint = near or f"choices: {listed(names)}"
    if is_model:
        return RefusedValueError(f"there is no model {shown(value, LONGEST_NAME)}", hint, is_model=True)
    return RefusedValueError(f"{shown(value)} is not one of the choices", hint)


def listed(names: Sequence[str], most: int = SHOWN_CHOICES) -> str:
    """The first names of a list, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


_READERS: Final[Mapping[ParamType, Callable[[Any], Any]]] = {
    "string": _read_text,
    "int": _read_int,
    "float": _read_float,
    "bool": _read_bool,
    "seed": _read_int,
    "image": _read_medium,
    "video": _read_medium,
    "audio": _read_medium,
    "file": _read_medium,
    "dir": _read_medium,
    "list": _read_list,
    "object": _read_object,
    "any": _read_any,
    "output_path": _read_path,
}

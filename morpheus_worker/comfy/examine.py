"""One input of a node as ComfyUI looks at it at `POST /prompt`: is it there, does its link fit, does its value?

Source: ComfyUI 0.3.64, execution.py `validate_inputs`. What is wrong is said as ComfyUI says it, by an error of its
shape, `{"type", "message", "details", "extra_info"}`; where ComfyUI itself trips, the same exception is raised, one of
PROVOKED.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from morpheus_worker.comfy.graphs import is_link, types_meet
from morpheus_worker.comfy.objectinfo import InputInfo, NodeInfo, ObjectInfo

InputExists = Callable[[str], bool]
"""Whether a loader's value names an existing file: a path within the input folder, or one that ends in ` [output]`,
` [input]` or ` [temp]` and lies in that folder."""

ComfyError = Mapping[str, Any]

LONGEST_SHOWN_LIST: Final = 20
"""ComfyUI names the choices of an input only when they are at most this many."""

PROVOKED: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""ComfyUI catches every exception of a node's validation and reports it; these are the ones that a graph can cause."""


@dataclass(frozen=True, slots=True)
class Loader:
    """The check of its own (`VALIDATE_INPUTS`) that a class of ComfyUI makes of one input: the file must exist."""

    function: str
    input: str
    kind: str


def _loader(owner: str, name: str, kind: str, *, function: str = "VALIDATE_INPUTS") -> Loader:
    return Loader(f"{owner}.{function}()", name, kind)


LOADERS: Final[Mapping[str, Loader]] = {
    "LoadImage": _loader("LoadImage", "image", "image"),
    "LoadImageMask": _loader("LoadImageMask", "image", "image"),
    "LoadImageOutput": _loader("LoadImage", "image", "image"),
    "WebcamCapture": _loader("LoadImage", "image", "image"),
    "LoadAudio": _loader("LoadAudio", "audio", "audio"),
    "LoadLatent": _loader("LoadLatent", "latent", "latent"),
    "LoadVideo": _loader("LoadVideo", "file", "video", function="validate_inputs"),
}

LINKED_TYPES: Final = frozenset(
    {
        *("IMAGE", "MASK", "LATENT", "MODEL", "CLIP", "VAE", "CONDITIONING", "CONTROL_NET", "CLIP_VISION"),
        *("CLIP_VISION_OUTPUT", "UPSCALE_MODEL", "NOISE", "GUIDER", "SAMPLER", "SIGMAS", "AUDIO", "VIDEO"),
    }
)
"""Types of ComfyUI's own that no literal value has; it finds that out when it executes."""

_CONVERSIONS: Final[Mapping[str, Callable[[Any], Any]]] = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}


def module_of(class_type: str, object_info: ObjectInfo) -> str:
    """The Python module of a class, e.g. `nodes`, `comfy_extras.nodes_video`, `custom_nodes.ComfyUI-Impact-Pack`."""
    return str(object_info.raw[class_type].get("python_module") or "")


def is_custom(class_type: str, object_info: ObjectInfo) -> bool:
    """Whether the class is a node pack's."""
    return module_of(class_type, object_info).startswith("custom_nodes")


def declared_type(wanted: InputInfo) -> Any:
    """The type as a link is compared with it: of a choice in the older form, the list itself."""
    return list(wanted.choices or ()) if wanted.checked_choices and wanted.choices is not None else wanted.type


def output_type(class_type: str, slot: Any, object_info: ObjectInfo) -> Any:
    """What an output of the class brings.

    Raises:
        IndexError, TypeError: in Python's words, when the class has no such output.
    """
    raw = object_info.raw[class_type]
    # Older classes hold a tuple and newer ones a list, which shows in Python's words for a slot out of range.
    outputs = raw.get("output") or ()
    return (list(outputs) if raw.get("api_node") is False else tuple(outputs))[slot]


def link_error(
    known: NodeInfo, wanted: InputInfo, link: list[Any], graph: Mapping[str, Any], object_info: ObjectInfo
) -> ComfyError | None:
    """What ComfyUI says of a list, which it takes for a link.

    Raises:
        LookupError, TypeError: when it leads to a node, or an output of one, that is not there.
    """
    if len(link) != 2:
        what = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
        return input_error("bad_linked_input", what, wanted.name, wanted, received_value=link)
    received = output_type(graph[link[0]]["class_type"], link[1], object_info)
    expected = declared_type(wanted)
    if known.validates_types or types_meet(received, expected) or _takes(wanted, received):
        return None
    details = f"{wanted.name}, received_type({received}) mismatch input_type({expected})"
    what = "Return type mismatch between linked nodes"
    return input_error("return_type_mismatch", what, details, wanted, received_type=received, linked_node=link)


def _takes(wanted: InputInfo, received: Any) -> bool:
    return wanted.takes is not None and types_meet(received, wanted.takes)


def unwrapped(value: Any) -> Any:
    """The value itself, of one that is wrapped so that ComfyUI takes it for no link."""
    return value["__value__"] if isinstance(value, dict) and "__value__" in value else value


def value_error(
    known: NodeInfo, wanted: InputInfo, value: Any, object_info: ObjectInfo
) -> tuple[Any, ComfyError | None]:
    """The value as ComfyUI would hand it to the node (5 for `"5"` in an INT), and what it says of it."""
    try:
        value = unwrapped(value)
        if wanted.type in _CONVERSIONS:
            value = _CONVERSIONS[wanted.type](value)
    except (ArithmeticError, TypeError, ValueError) as failure:
        what = f"Failed to convert an input value to a {wanted.type} value"
        more = {"received_value": value, "exception_message": str(failure)}
        return value, input_error("invalid_input_type", what, f"{wanted.name}, {value}, {failure}", wanted, **more)
    return value, None if _judges_itself(known, wanted, object_info) else _out_of_bounds(wanted, value)


def file_error(loader: Loader, inputs: Mapping[str, Any], exists: InputExists | None) -> ComfyError | None:
    """What a loader of ComfyUI's says of the file that it is to load.

    Raises:
        TypeError, AttributeError: when there is no name of a file.
    """
    if loader.input not in inputs:
        raise TypeError(f"{loader.function} missing 1 required positional argument: '{loader.input}'")
    value = None if is_link(inputs[loader.input]) else inputs[loader.input]
    if not isinstance(value, str):
        raise AttributeError(f"'{type(value).__name__}' object has no attribute 'endswith'")
    if exists is None or exists(value):
        return None
    details = f"{loader.input} - Invalid {loader.kind} file: {value}"
    return comfy_error(
        "custom_validation_failed", "Custom validation failed for node", details, {"input_name": loader.input}
    )


def _judges_itself(known: NodeInfo, wanted: InputInfo, object_info: ObjectInfo) -> bool:
    """Whether the class judges the input itself. A pack's class of which nobody knows surely does so with files."""
    loader = LOADERS.get(known.class_type)
    if loader is not None and wanted.name == loader.input:
        return True
    if known.validates is not None:
        return wanted.name in known.validates
    return wanted.upload is not None and is_custom(known.class_type, object_info)


def _out_of_bounds(wanted: InputInfo, value: Any) -> ComfyError | None:
    options = wanted.options
    if "min" in options and value < options["min"]:
        what = f"Value {value} smaller than min of {options['min']}"
        return input_error("value_smaller_than_min", what, wanted.name, wanted, received_value=value)
    if "max" in options and value > options["max"]:
        what = f"Value {value} bigger than max of {options['max']}"
        return input_error("value_bigger_than_max", what, wanted.name, wanted, received_value=value)
    if wanted.choices is None or not wanted.checked_choices or value in wanted.choices:
        return None
    return _not_in_list(wanted, value, list(wanted.choices))


def _not_in_list(wanted: InputInfo, value: Any, choices: list[Any]) -> ComfyError:
    short = len(choices) <= LONGEST_SHOWN_LIST
    shown = str(choices) if short else f"(list of length {len(choices)})"
    details = f"{wanted.name}: '{value}' not in {shown}"
    about = {"input_name": wanted.name, "input_config": _config(wanted) if short else None, "received_value": value}
    return comfy_error("value_not_in_list", "Value not in list", details, about)


def missing_error(name: str) -> ComfyError:
    """What ComfyUI says of a required input that is not there."""
    return comfy_error("required_input_missing", "Required input is missing", name, {"input_name": name})


def _config(wanted: InputInfo) -> list[Any]:
    return [declared_type(wanted), dict(wanted.options)]


def input_error(kind: str, message: str, details: str, wanted: InputInfo, **more: Any) -> dict[str, Any]:
    """An error about an input that the class declares, in ComfyUI's shape."""
    return comfy_error(kind, message, details, {"input_name": wanted.name, "input_config": _config(wanted)} | more)


def comfy_error(kind: str, message: str, details: str, about: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """An error in ComfyUI's shape."""
    return {"type": kind, "message": message, "details": details, "extra_info": dict(about or {})}

"""A template's text: the graph with placeholders in it, its params, and what it says about itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from morpheus_worker.importing.export import Export
from morpheus_worker.importing.proposal import Proposal, media_kind
from morpheus_worker.importing.sayings import thing_of
from morpheus_worker.importing.tracing import Tracing
from morpheus_worker.templates.places import MISSING
from morpheus_worker.templates.values import listed

_INDENT: Final = "  "
_ABBREVIATIONS: Final[Mapping[str, str]] = {
    "api": "API", "sdxl": "SDXL", "sd15": "SD 1.5", "sd3": "SD3", "lora": "LoRA", "vae": "VAE", "pulid": "PuLID",
    "controlnet": "ControlNet", "instantid": "InstantID", "faceid": "FaceID", "ipadapter": "IP-Adapter",
    "txt2img": "text to image", "img2img": "image to image", "txt2vid": "text to video", "img2vid": "image to video",
    "t2i": "text to image", "i2i": "image to image", "t2v": "text to video", "i2v": "image to video",
}  # fmt: skip
_WITH: Final = (
    ("lora", "LoRAs"),
    ("controlnetapply", "a ControlNet"),
    ("ipadapter", "IP-Adapter"),
    ("instantid", "InstantID"),
    ("pulid", "PuLID"),
    ("facedetailer", "faces redrawn"),
    ("upscalewithmodel", "an upscale model"),
)
"""Parts of class types, in small letters, and what the graph then works with."""

_COUNTED: Final[Mapping[str, str]] = {"image": "a picture", "audio": "sound"}


def template_text(name: str, export: Export, params: Sequence[Proposal], packs: Sequence[str] = ()) -> str:
    """The whole file, in the form of the shipped ones; `packs` are the node packs that it needs.

    Filling it with the params' defaults, and with the exported seeds and media, gives back the graph.
    """
    graph = {node_id: _ordered(node) for node_id, node in export.graph.items()}
    for param in params:
        for spot in param.spots:
            inputs, placeholder = graph[spot.node_id]["inputs"], f"__param:{param.key}__"
            is_wrapped = isinstance(inputs[spot.input], dict) and "__value__" in inputs[spot.input]
            inputs[spot.input] = {"__value__": placeholder} if is_wrapped else placeholder
    about = {"title": title_of(name), "description": description_of(export), **({"packs": [*packs]} if packs else {})}
    declared = {param.key: _declaration(param) for param in params}
    return _written({"_about": about, **({"_params": declared} if declared else {}), **graph}) + "\n"


def title_of(name: str) -> str:
    """`sdxl_txt2img` as SDXL text to image."""
    said = [_ABBREVIATIONS.get(word.lower(), word) for word in name.replace("-", "_").split("_") if word]
    title = " ".join(said)
    return title[:1].upper() + title[1:]


def description_of(export: Export) -> str:
    """What the graph does, by its nodes."""
    classes = [export.class_of(node_id) for node_id in export.graph if node_id in export.live]
    folded = [class_type.lower().replace("_", "") for class_type in classes]
    with_what = [said for part, said in _WITH if any(part in class_type for class_type in folded)]
    samplers = Tracing(export).samplers()
    if len(samplers) > 1:
        with_what.insert(0, f"{len(samplers)} samplers")
    said = _deed(export, samplers, folded)
    beside = f", with {', '.join(with_what)}" if with_what else ""
    nodes = list(dict.fromkeys(classes))
    return f"{said}{beside}. Its nodes: {listed(nodes, 12)}."


def _deed(export: Export, samplers: Sequence[str], folded: Sequence[str]) -> str:
    """`Draws pictures from a text`, and from whatever else a job brings."""
    tracing = Tracing(export)
    brings = [kind for spot in export.live_spots() if (kind := media_kind(export, spot)) is not None]
    given = [*(["text"] if any(tracing.texts(one, "positive") for one in samplers) else []), *dict.fromkeys(brings)]
    said = [_COUNTED.get(kind, f"a {kind}") for kind in given]
    sources = " and ".join([", ".join(said[:-1]), said[-1]] if len(said) > 1 else said)
    made = thing_of(export)
    masked = any(part in class_type for class_type in folded for part in ("inpaint", "setlatentnoisemask"))
    if masked and made == "picture" and sources:
        return f"Repaints the masked part of a picture, from {sources}"
    thing = {"sound": "sound", "picture": "pictures"}.get(made, f"a {made}")
    if samplers:
        return f"Draws {thing} from {sources}" if sources else f"Draws {thing}"
    return f"Works on {sources}" if sources else f"Makes {thing}"


def _ordered(node: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with what a reader looks for first."""
    first = {"class_type": node["class_type"], "inputs": dict(node["inputs"])}
    rest = {key: value for key, value in node.items() if key not in ("class_type", "inputs", "_meta")}
    return first | rest | ({"_meta": node["_meta"]} if "_meta" in node else {})


def _declaration(param: Proposal) -> dict[str, Any]:
    said: dict[str, Any] = {"type": param.type}
    if param.default is not MISSING:
        said["default"] = param.default
    limits = {"min": param.minimum, "max": param.maximum}
    as_type = float if param.type == "float" else int
    said |= {name: as_type(limit) for name, limit in limits.items() if limit is not None}
    return said | ({"description": param.description} if param.description else {})


def _written(value: Any, indent: str = "", *, flat: bool = False) -> str:
    """JSON as the shipped files have it: two spaces, a list of plain values on one line, a node's `_meta` too."""
    if isinstance(value, Mapping) and value:
        inner = indent + _INDENT
        pairs = [f"{_plain(key)}: {_written(item, inner, flat=key == '_meta')}" for key, item in value.items()]
        return f"{{ {', '.join(pairs)} }}" if flat else "{\n" + inner + f",\n{inner}".join(pairs) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, (list, Mapping)) for item in value):
        inner = indent + _INDENT
        return "[\n" + inner + f",\n{inner}".join(_written(item, inner) for item in value) + f"\n{indent}]"
    return _plain(value)


def _plain(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    # Half a surrogate pair can be written as an escape and not as a character.
    return text if text.isascii() or _is_encodable(text) else json.dumps(value)


def _is_encodable(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)

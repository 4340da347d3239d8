"""Graphs that ComfyUI refuses at /prompt, and in which words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from .graphs import empty, node, save

FAILED: Final = ("prompt_outputs_failed_validation", "Prompt outputs failed validation")

Said = tuple[str, str, str]
"""type, message and details of an error."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A graph, the error of the whole, and per node the errors said of it and the outputs that depend on it.

    An error's details end where a word may differ from version to version ("…").
    """

    name: str
    graph: Any
    error: Said
    nodes: Mapping[str, tuple[frozenset[Said], frozenset[str]]] = field(default_factory=dict)


def _refused(name: str, graph: Any, nodes: Mapping[str, list[Said]], *, output: str, of_output: str = "") -> Refusal:
    blamed = {node_id: (frozenset(errors), frozenset({output})) for node_id, errors in nodes.items()}
    return Refusal(name, graph, (*FAILED, of_output), blamed)


def _missing(name: str) -> Said:
    return ("required_input_missing", "Required input is missing", name)


_TWO_WRONG: Final = {
    "1": node("EmptyImage", width=0, height=99999, color="red"),
    "2": node("ImageScale", image=["1", 0], upscale_method="fancy", width=8, height=8, crop="disabled"),
    "3": save("2"),
}

REFUSALS: Final = (
    Refusal(
        "unknown class",
        {"1": empty(1), "2": node("NoSuchNode", image=["1", 0]), "3": save("2")},
        ("invalid_prompt", "Cannot execute because node NoSuchNode does not exist.", "Node ID '#2'"),
    ),
    Refusal(
        "a node without a class",
        {"1": {"inputs": {}}, "2": save("1")},
        ("invalid_prompt", "Cannot execute because a node is missing the class_type property.", "Node ID '#1'"),
    ),
    Refusal(
        "the editor's format",
        {"nodes": [], "links": [], "groups": [], "config": {}, "version": 0.4},
        ("invalid_prompt", "Cannot execute because a node is missing the class_type property.", "Node ID '#nodes'"),
    ),
    Refusal("no output", {"1": empty(1)}, ("prompt_no_outputs", "Prompt has no outputs", "")),
    Refusal("an empty graph", {}, ("prompt_no_outputs", "Prompt has no outputs", "")),
    _refused(
        "a missing input",
        {"1": empty(1), "2": node("SaveImage", filename_prefix="x")},
        {"2": [_missing("images")]},
        output="2",
        of_output="Required input is missing: images",
    ),
    _refused(
        "too small",
        {"1": node("EmptyImage", width=0, height=16, batch_size=1, color=0), "2": save("1")},
        {"1": [("value_smaller_than_min", "Value 0 smaller than min of 1", "width")]},
        output="2",
    ),
    _refused(
        "too large",
        {"1": node("EmptyImage", width=16, height=99999, batch_size=1, color=0), "2": save("1")},
        {"1": [("value_bigger_than_max", "Value 99999 bigger than max of 16384", "height")]},
        output="2",
    ),
    _refused(
        "not a number",
        {"1": node("EmptyImage", width="wide", height=16, batch_size=1, color=0), "2": save("1")},
        {
            "1": [
                (
                    "invalid_input_type",
                    "Failed to convert an input value to a INT value",
                    "width, wide, invalid literal for int() with base 10: 'wide'",
                )
            ]
        },
        output="2",
    ),
    _refused(
        "not in the list",
        {
            "1": empty(1),
            "2": node("ImageScale", image=["1", 0], upscale_method="fancy", width=8, height=8, crop="disabled"),
            "3": save("2"),
        },
        {
            "2": [
                (
                    "value_not_in_list",
                    "Value not in list",
                    "upscale_method: 'fancy' not in ['nearest-exact', 'bilinear', 'area', 'bicubic', 'lanczos']",
                )
            ]
        },
        output="3",
    ),
    _refused(
        "not in a long list",
        {
            "1": node("KSamplerSelect", sampler_name="fancy"),
            "2": node("PreviewAny", source=["1", 0]),
        },
        {"1": [("value_not_in_list", "Value not in list", "sampler_name: 'fancy' not in (list of length …")]},
        output="2",
    ),
    _refused(
        "a link of the wrong type",
        {"1": node("EmptyLatentImage", width=64, height=64, batch_size=1), "2": save("1")},
        {
            "2": [
                (
                    "return_type_mismatch",
                    "Return type mismatch between linked nodes",
                    "images, received_type(LATENT) mismatch input_type(IMAGE)",
                )
            ]
        },
        output="2",
        of_output="Return type mismatch between linked nodes: images, received_type(LATENT) mismatch input_type(IMAGE)",
    ),
    _refused(
        "a link that is not one",
        {"1": empty(1), "2": node("SaveImage", images=["1"], filename_prefix="x")},
        {
            "2": [
                (
                    "bad_linked_input",
                    "Bad linked input, must be a length-2 list of [node_id, slot_index]",
                    "images",
                )
            ]
        },
        output="2",
        of_output="Bad linked input, must be a length-2 list of [node_id, slot_index]: images",
    ),
    _refused(
        "a link to nowhere",
        {"1": empty(1), "2": save("9")},
        {"2": [("exception_during_validation", "Exception when validating node", "'9'")]},
        output="2",
        of_output="Exception when validating node: '9'",
    ),
    _refused(
        "a picture that is not there",
        {"1": node("LoadImage", image="absent.png"), "2": save("1")},
        {
            "1": [
                (
                    "custom_validation_failed",
                    "Custom validation failed for node",
                    "image - Invalid image file: absent.png",
                )
            ]
        },
        output="2",
    ),
    _refused(
        "everything at once",
        _TWO_WRONG,
        {
            "1": [
                ("value_smaller_than_min", "Value 0 smaller than min of 1", "width"),
                ("value_bigger_than_max", "Value 99999 bigger than max of 16384", "height"),
                (
                    "invalid_input_type",
                    "Failed to convert an input value to a INT value",
                    "color, red, invalid literal for int() with base 10: 'red'",
                ),
                _missing("batch_size"),
            ],
            "2": [
                (
                    "value_not_in_list",
                    "Value not in list",
                    "upscale_method: 'fancy' not in ['nearest-exact', 'bilinear', 'area', 'bicubic', 'lanczos']",
                )
            ],
        },
        output="3",
    ),
    _refused(
        "a circle",
        {"1": node("ImageInvert", image=["2", 0]), "2": node("ImageInvert", image=["1", 0]), "3": save("2")},
        {},
        output="3",
    ),
)

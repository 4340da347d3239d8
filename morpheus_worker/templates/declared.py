"""The two blocks of a template that are ours: `_about` and `_params`, as pydantic models."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError

from morpheus_worker.errors import Problem, did_you_mean
from morpheus_worker.templates.reading import Path, Tree

ParamType = Literal[
    "string", "int", "float", "bool", "seed", "image", "video", "audio", "file", "dir", "list", "object", "any",
    "output_path",
]  # fmt: skip
MediaKind = Literal["image", "video", "audio", "file", "dir"]

WORKER_PARAMS: Final = frozenset({"job_id", "output_path"})
"""Placeholders whose values the worker gives. No caller sets them and no template declares them."""


def _link(value: list[Any]) -> list[Any]:
    is_index = len(value) == 2 and isinstance(value[1], int) and not isinstance(value[1], bool) and value[1] >= 0
    if not is_index or not isinstance(value[0], str):
        raise ValueError('a link is a node id and an output index, such as ["20", 0]')
    return value


def _finite(value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise ValueError("must be a finite number")
    return value


Limit = Annotated[int | float | None, AfterValidator(_finite)]
Link = Annotated[list[Any], AfterValidator(_link)]


class _Block(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class About(_Block):
    """What a template says about itself."""

    title: str = ""
    description: str = ""
    aliases: list[str] = Field([], description="other names of this workflow")
    param_aliases: dict[str, str] = Field({}, description="other names of its params: {alias: param}")
    timeout_s: float | None = Field(None, gt=0, le=86_400, description="deadline of a job, in seconds")
    packs: list[str] = Field([], description="custom node packs that the graph needs")


class Preset(_Block):
    """What choosing a value does besides: sets other params, and rewires inputs, `{"9.images": ["20", 0]}`."""

    sets: dict[str, Any] = Field({}, alias="set")
    links: dict[str, Link] = {}
    description: str = ""


def _form_of_choices(value: object) -> str:
    return "presets" if isinstance(value, dict) else "values"


class Declaration(_Block):
    """What a template says about one param. Everything left out is read from ComfyUI's object info."""

    type: ParamType | None = None
    default: Any = None
    min: Limit = None
    max: Limit = None
    choices: (
        Annotated[
            Annotated[list[Any], Tag("values")] | Annotated[dict[str, Preset], Tag("presets")],
            Discriminator(_form_of_choices),
        ]
        | None
    ) = None
    media: MediaKind | None = None
    description: str = ""
    label: str | None = None

    @property
    def has_default(self) -> bool:
        """A default of null is one, too."""
        return "default" in self.model_fields_set

    @property
    def presets(self) -> Mapping[str, Preset]:
        return self.choices if isinstance(self.choices, dict) else {}


def read_about(tree: Tree) -> tuple[About, list[Problem]]:
    """The `_about` block, and what is wrong with it."""
    try:
        return About.model_validate(tree.value.get("_about", {})), []
    except ValidationError as failure:
        return About(), list(_as_problems(failure, ("_about",), tree, About))


def read_declarations(tree: Tree) -> tuple[dict[str, Declaration], list[Problem]]:
    """The `_params` block by key, in the order of the file, and what is wrong with it."""
    block = tree.value.get("_params", {})
    if not isinstance(block, dict):
        return {}, [tree.problem(("_params",), "_params must be an object of params by their key")]
    declared: dict[str, Declaration] = {}
    problems: list[Problem] = []
    for key, said in block.items():
        if key in WORKER_PARAMS:
            what = f"the param '{key}' belongs to the worker"
            problems.append(tree.problem(("_params", key), what, "its placeholder needs no declaration"))
        try:
            declared[key] = Declaration.model_validate(said)
        except ValidationError as failure:
            problems += _as_problems(failure, ("_params", key), tree, Declaration)
    return declared, problems


def _as_problems(failure: ValidationError, block: Path, tree: Tree, model: type[BaseModel]) -> Iterator[Problem]:
    for error in failure.errors():
        # A union's branch appears in pydantic's location and nowhere in the file.
        path = block
        for step in error["loc"]:
            path = (*path, step) if (*path, step) in tree.offsets else path
        dotted = ".".join(str(step) for step in path)
        if error["type"] == "extra_forbidden":
            known = [*model.model_fields, "set"]
            yield tree.problem(path, f"{dotted} is not known here", did_you_mean(str(path[-1]), known))
        else:
            yield tree.problem(path, f"{dotted}: {error['msg'].removeprefix('Value error, ')}")

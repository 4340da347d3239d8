"""The two blocks of a template that are ours: `_about` and `_params`, as pydantic models."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError

from morpheus_worker.errors import Problem
from morpheus_worker.templates.misshapen import misshapen
from morpheus_worker.templates.reading import Tree
from morpheus_worker.templates.wiring import how_to_write_link, meant_link

ParamType = Literal[
    "string", "int", "float", "bool", "seed", "image", "video", "audio", "file", "dir", "list", "object", "any",
    "output_path",
]  # fmt: skip
MediaKind = Literal["image", "video", "audio", "file", "dir"]

DeploymentDefault = Literal["ENABLE_FACE_REFINEMENT"]
DEPLOYMENT_DEFAULTS: Final[tuple[str, ...]] = get_args(DeploymentDefault)
"""Variables of a deployment that a template may take a default from. A closed list: any other variable of the worker's,
its keys among them, is no template's to read."""

FailureCode = Literal["no_face", "input_rejected", "missing_model", "execution_failed"]
"""What a line in ComfyUI's log can mean (`errors.Code`)."""

NULL_KEY: Final = "null"
"""The key of `effects` for a param without a value."""
ANY_KEY: Final = "*"
"""The key of `effects` for every value that has no key of its own."""

WORKFLOW_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
"""A workflow's name is its file's stem, and never a path; an alias is a name, too."""

WORKER_PARAMS: Final = frozenset({"job_id", "output_path"})
"""Placeholders whose values the worker gives. No caller sets them and no template declares them."""


def _link(value: list[Any]) -> list[Any]:
    meant = meant_link(value)
    if meant is not None:
        raise ValueError(how_to_write_link(meant))
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
    fails_on: dict[FailureCode, list[Annotated[str, Field(min_length=4)]]] = Field(
        {}, description="failures that its nodes only write into ComfyUI's log: {code: [parts of lines]}"
    )


class Preset(_Block):
    """What a value does besides: sets other params, rewires inputs (`{"9.images": ["20", 0]}`), takes nodes out.

    `bypass` names, for each node that is taken out, the input that stands in for each of its outputs.
    """

    sets: dict[str, Any] = Field({}, alias="set")
    links: dict[str, Link] = {}
    bypass: dict[str, list[str]] = {}
    description: str = ""


def _form_of_choices(value: object) -> str:
    return "presets" if isinstance(value, dict) else "values"


class _Value(_Block):
    """What is said about one value: a param's, or that of an item's field."""

    type: ParamType | None = None
    default: Any = None
    min: Limit = None
    max: Limit = None
    description: str = ""
    label: str | None = None
    brackets: bool = False

    @property
    def has_default(self) -> bool:
        """A default of null is one, too."""
        return "default" in self.model_fields_set


class ItemField(_Value):
    """What a template says about one field of a list's items."""

    choices: list[Any] | None = None

    def as_declaration(self) -> Declaration:
        """The same, as if the field were a param of its own."""
        return Declaration.model_construct(**{name: getattr(self, name) for name in self.model_fields_set})


class Declaration(_Value):
    """What a template says about one param. Everything left out is read from ComfyUI's object info."""

    choices: (
        Annotated[
            Annotated[list[Any], Tag("values")] | Annotated[dict[str, Preset], Tag("presets")],
            Discriminator(_form_of_choices),
        ]
        | None
    ) = None
    effects: dict[str, Preset] = {}
    media: MediaKind | None = None
    items: dict[str, ItemField] = {}
    repeat: dict[str, list[str]] = {}
    default_env: DeploymentDefault | None = None
    of: str | None = None
    suffix: Annotated[str, Field(pattern=r"^\.[A-Za-z0-9]{1,16}$")] = ""

    @property
    def presets(self) -> Mapping[str, Preset]:
        return self.choices if isinstance(self.choices, dict) else {}

    @property
    def holds_items(self) -> bool:
        return bool(self.items or self.repeat)

    @property
    def sets_others(self) -> bool:
        """Whether one of its values sets other params."""
        return any(preset.sets for preset in (*self.presets.values(), *self.effects.values()))


def read_about(tree: Tree) -> tuple[About, list[Problem]]:
    """The `_about` block, and what is wrong with it."""
    try:
        return About.model_validate(tree.value.get("_about", {})), []
    except ValidationError as failure:
        return About(), misshapen(failure, ("_about",), tree, list(About.model_fields))


def read_declarations(tree: Tree) -> tuple[dict[str, Declaration], list[Problem]]:
    """The `_params` block by key, in the order of the file, and what is wrong with it."""
    block = tree.value.get("_params", {})
    if not isinstance(block, dict):
        what, hint = "_params must be an object of params by their key", 'such as {"steps": {"type": "int"}}'
        return {}, [tree.problem(("_params",), what, hint)]
    declared: dict[str, Declaration] = {}
    problems: list[Problem] = []
    for key, said in block.items():
        if key in WORKER_PARAMS:
            what = f"the param '{key}' belongs to the worker"
            problems.append(tree.problem(("_params", key), what, "its placeholder needs no declaration"))
        try:
            declared[key] = Declaration.model_validate(said)
        except ValidationError as failure:
            known = list(Declaration.model_fields)
            problems += misshapen(failure, ("_params", key), tree, known, _KNOWN_WITHIN)
    return declared, problems


_KNOWN_WITHIN: Final = ("set", "links", "bypass")

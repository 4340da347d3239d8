"""The manifest: every model and custom node pack that the workflows need, read from YAML with line numbers.

Parsing is strict and says everything that is wrong at once. It resolves nothing and looks at no volume.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Annotated, Any, Final, Literal
from urllib.parse import parse_qsl, urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from morpheus_worker.errors import Problem, did_you_mean

Phase = Literal["boot", "lazy"]
Location = tuple[str | int, ...]

PACKS_FOLDER: Final = "custom_nodes"

UNFINISHED: Final = (".part", ".tmp", ".lock", ".receipt.json")
"""How files in a cache end that are no models: still written, or notes beside one. They are never linked."""


class ManifestError(Exception):
    """The manifest cannot be used. `problems` holds all of it, each `at` as `file:line place`."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("manifest: " + "; ".join(str(problem) for problem in problems))


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One model file (or folder). `path` is relative to the cache and begins with a ComfyUI folder; `size` in bytes.

    `also` are further places of that form where ComfyUI shall find the same file, each a folder and a name.
    `sources` are in order of preference, each a mapping with its `kind`. `auth_env` names the variable with the key.
    """

    id: str
    path: PurePosixPath
    workflows: tuple[str, ...] = ()
    also: tuple[PurePosixPath, ...] = ()
    phase: Phase = "lazy"
    prefetch: bool = False
    sources: tuple[Mapping[str, Any], ...] = ()
    size: int | None = None
    sha256: str | None = None
    format: str | None = None
    license: str | None = None
    gated: bool = False
    auth_env: str | None = None


@dataclass(frozen=True, slots=True)
class PackEntry:
    """One custom node pack. `id` is its folder's name; `commit` a whole Git hash, or None until it is locked."""

    id: str
    repo: str
    commit: str | None = None
    workflows: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest that was read; ids and paths in it are unique."""

    name: str
    models: tuple[ModelEntry, ...] = ()
    custom_nodes: tuple[PackEntry, ...] = ()

    def required_by(self, workflow: str) -> Manifest:
        """The part of it that one workflow needs."""
        return replace(
            self,
            models=tuple(model for model in self.models if workflow in model.workflows),
            custom_nodes=tuple(pack for pack in self.custom_nodes if workflow in pack.workflows),
        )


def parse_manifest(text: str, *, name: str) -> Manifest:
    """Reads a manifest. `name` is what problems call it, usually the file's name.

    Raises:
        ManifestError: with every problem found.
    """
    data, lines, problems = _read_yaml(text)
    parsed = None
    if data is not None:
        problems += _repeats(data)
        try:
            parsed = _File.model_validate(data)
        except ValidationError as failure:
            problems += [_as_problem(error) for error in failure.errors()]
    if problems or parsed is None:
        raise ManifestError([_placed(*problem, lines, name) for problem in _by_line(problems, lines)])
    return _as_manifest(parsed, name)


# The values: one validator a meaning. None of them repeats what it refuses where that might be a secret.

_TOKEN: Final = re.compile(
    r"hf_[A-Za-z0-9]{20,}|rpa_[A-Za-z0-9]{20,}|A[KS]IA[0-9A-Z]{16}|gh[a-z]_\w{30,}|github_pat_\w{20,}"
)
"""Shapes of keys: Hugging Face, RunPod, AWS, GitHub."""

_ENVIRONMENT_NAME: Final = re.compile(r"(?!.*[A-Z0-9]{24})[A-Z][A-Z0-9]*(_[A-Z0-9]+)*\Z")
"""Upper case with underscores, and no run of letters and digits so long that it must be a key."""

_CREDENTIAL_KEY: Final = re.compile(
    r"(^|[-_])(token|key|api_?key|secret|signature|sig|password|auth|credential)($|[-_])", re.IGNORECASE
)


def _environment_name(value: str) -> str:
    if not _ENVIRONMENT_NAME.match(value) or _TOKEN.search(value):
        raise ValueError("is not the name of a variable; name the variable that holds the key, such as HF_TOKEN")
    return value


def _cache_path(value: str) -> str:
    parts = value.split("/")
    if value.startswith("/"):
        raise ValueError("is absolute; give it relative to the cache")
    if "\\" in value or any(part == "" or part.startswith(".") for part in parts):
        raise ValueError("has an empty, hidden or '..' part, or a backslash")
    if len(parts) < 2 or parts[0] == PACKS_FOLDER:
        raise ValueError("must begin with one of ComfyUI's model folders, such as checkpoints/")
    if value.endswith(UNFINISHED):
        raise ValueError(f"ends as unfinished files do ({', '.join(UNFINISHED)}), which are never linked")
    return value


def _folder_and_name(value: str) -> str:
    # A folder within a model folder is linked as a whole: what lies in it lies on the volume.
    if value.count("/") != 1:
        raise ValueError("must be a model folder and a file name, such as pulid/model.safetensors")
    return value


def _clean_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme != "https" or not parts.hostname:
        raise ValueError("must be an https:// address")
    if "@" in parts.netloc or any(_CREDENTIAL_KEY.search(key) for key, _ in parse_qsl(parts.query)):
        raise ValueError("carries a credential; take it out and name the variable that holds it in 'auth_env'")
    return value


def _no_token(value: str) -> str:
    if _TOKEN.search(value):
        raise ValueError("looks like a key; keep it in a variable and name that in 'auth_env'")
    return value


def _shaped(pattern: str, said: str) -> AfterValidator:
    """Text that matches the whole pattern; `said` completes "must be …"."""
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise ValueError(f"must be {said}")
        return value

    return AfterValidator(check)


_Text = Annotated[str, _shaped(r".+", "a line of text"), AfterValidator(_no_token)]
_Id = Annotated[_Text, _shaped(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", "letters, digits, '.', '_' and '-', at most 128")]
_Url = Annotated[str, AfterValidator(_clean_url)]
_Commit = Annotated[str, _shaped(r"[0-9a-f]{40}", "a whole commit hash, 40 hexadecimal digits")]
_Sha256 = Annotated[str, AfterValidator(str.lower), _shaped(r"[0-9a-f]{64}", "64 hexadecimal digits")]
_Positive = Annotated[int, Field(gt=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Hf(_Strict):
    kind: Literal["hf"]
    repo: Annotated[_Text, _shaped(r"[\w.-]+/[\w.-]+", "owner/name")]
    file: _Text
    revision: _Text | None = None


class _Civitai(_Strict):
    kind: Literal["civitai"]
    version: _Positive
    file: _Positive | None = None


class _S3(_Strict):
    kind: Literal["s3"]
    uri: Annotated[_Text, _shaped(r"s3://[^/]+/.+", "s3://bucket/key")]


class _Gs(_Strict):
    kind: Literal["gs"]
    uri: Annotated[_Text, _shaped(r"gs://[^/]+/.+", "gs://bucket/key")]


class _Https(_Strict):
    kind: Literal["https"]
    url: _Url


class _LocalFile(_Strict):
    kind: Literal["file"]
    path: Annotated[_Text, _shaped(r"/.+", "an absolute path")]


_SOURCES: Final[Mapping[str, type[_Strict]]] = {
    "hf": _Hf, "civitai": _Civitai, "s3": _S3, "gs": _Gs, "https": _Https, "file": _LocalFile,
}  # fmt: skip


class _Model(_Strict):
    id: _Id
    path: Annotated[str, AfterValidator(_cache_path)]
    also: list[Annotated[str, AfterValidator(_cache_path), AfterValidator(_folder_and_name)]] = []
    workflows: list[_Text] = []
    phase: Phase = "lazy"
    prefetch: bool = False
    sources: list[Annotated[_Hf | _Civitai | _S3 | _Gs | _Https | _LocalFile, Field(discriminator="kind")]] = []
    size: _Positive | None = None
    sha256: _Sha256 | None = None
    format: _Text | None = None
    license: _Text | None = None
    gated: bool = False
    auth_env: Annotated[str, AfterValidator(_environment_name)] | None = None


class _Pack(_Strict):
    id: _Id
    repo: _Url
    commit: _Commit | None = None
    workflows: list[_Text] = []


class _File(_Strict):
    version: Literal[1]
    models: list[_Model] | None = None
    custom_nodes: list[_Pack] | None = None


def _as_manifest(parsed: _File, name: str) -> Manifest:
    return Manifest(
        name,
        tuple(_as_model(model) for model in parsed.models or ()),
        tuple(PackEntry(pack.id, pack.repo, pack.commit, tuple(pack.workflows)) for pack in parsed.custom_nodes or ()),
    )


def _as_model(model: _Model) -> ModelEntry:
    fields = {name: getattr(model, name) for name in type(model).model_fields}
    return ModelEntry(
        **fields
        | {
            "path": PurePosixPath(model.path),
            "also": tuple(map(PurePosixPath, model.also)),
            "workflows": tuple(model.workflows),
            "sources": tuple(source.model_dump(exclude_none=True) for source in model.sources),
        }
    )


# Problems, with the place in the file that each belongs to.

_Found = tuple[Location, str, str | None]
"""(place, what is wrong, hint)."""


def _read_yaml(text: str) -> tuple[Any, dict[Location, int], list[_Found]]:
    """The document as plain values, the line of each place in it, and what is wrong with it as YAML."""
    reader = _Reader()
    # Not libyaml's loader, which is four times as fast: deep nesting overflows its stack and ends the whole process.
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        data = reader.plain(loader, node, ()) if node is not None else None
    except (yaml.YAMLError, ValueError, RecursionError) as failure:
        mark = getattr(failure, "problem_mark", None)
        reader.lines[()] = mark.line + 1 if mark else 1
        said = str(getattr(failure, "problem", None) or failure).splitlines()[0]
        reader.problems.append(((), f"is not YAML: {said}", None))
        data = None
    if data is None and not reader.problems:
        reader.problems.append(((), "is empty", "it begins with 'version: 1'"))
    return data, reader.lines, reader.problems


_PLAIN_TAGS: Final = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


class _Reader:
    """Turns YAML nodes into values and remembers the line of each. Stricter than YAML: no key twice, no aliases."""

    def __init__(self) -> None:
        self.lines: dict[Location, int] = {(): 1}
        self.problems: list[_Found] = []
        self._seen: set[int] = set()

    def plain(self, loader: Any, node: yaml.Node, at: Location) -> Any:
        self.lines.setdefault(at, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            return loader.construct_object(node)
        if id(node) in self._seen:
            self.problems.append((at, "is an alias", "write the values out"))
            return None
        self._seen.add(id(node))
        if node.tag not in _PLAIN_TAGS:
            self.problems.append((at, "has a tag", f"leave '{node.tag}' out"))
        if isinstance(node, yaml.SequenceNode):
            return [self.plain(loader, item, (*at, index)) for index, item in enumerate(node.value)]
        return self._mapping(loader, node, at)

    def _mapping(self, loader: Any, node: yaml.Node, at: Location) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "(a key that is no text)"
            if key in values:
                line = key_node.start_mark.line + 1
                self.problems.append(((*at, key), f"stands twice, again on line {line}", None))
            self.lines.setdefault((*at, key), key_node.start_mark.line + 1)
            values[key] = self.plain(loader, value_node, (*at, key))
        return values


def _repeats(data: Any) -> list[_Found]:
    """Ids and paths that more than one entry has."""
    return [
        ((section, index, field), f"is taken by {section}[{first}]", None)
        for section, field in (("models", "id"), ("models", "path"), ("custom_nodes", "id"))
        for index, first in _repeated(data, section, field)
    ]


def _repeated(data: Any, section: str, field: str) -> Iterator[tuple[int, int]]:
    entries = data.get(section) if isinstance(data, dict) else None
    first: dict[str, int] = {}
    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        value = entry.get(field) if isinstance(entry, dict) else None
        if isinstance(value, str) and first.setdefault(value, index) != index:
            yield index, first[value]


def _as_problem(error: Any) -> _Found:
    # The tag of a source ("hf") appears in pydantic's location; the file does not have it.
    tagged: Location = tuple(error["loc"])
    at = tagged[:4] + tagged[5:] if tagged[2:3] == ("sources",) and len(tagged) > 4 else tagged
    match error["type"]:
        case "extra_forbidden":
            return at, "is no key of the manifest", did_you_mean(str(at[-1]), _known_keys(tagged[:-1]))
        case "missing":
            return at, "is missing", None
        case "string_type":
            return at, "must be text", "put it in quotes"
        case "model_type" | "model_attributes_type":
            return at, "must be keys with values", None
        case "union_tag_not_found":
            return at, "has no 'kind'", f"one of {', '.join(_SOURCES)}"
        case "union_tag_invalid":
            kind = str(error["ctx"]["tag"])
            return (
                (*at, "kind"),
                "is no kind of source",
                did_you_mean(kind, _SOURCES) or f"one of {', '.join(_SOURCES)}",
            )
        case _:
            return at, _said(error), None


def _said(error: Any) -> str:
    return str(error["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")


def _known_keys(tagged: Location) -> list[str]:
    owner: type[_Strict] = _File
    if len(tagged) >= 2:
        owner = _Model if tagged[0] == "models" else _Pack
    if len(tagged) == 5:
        owner = _SOURCES[str(tagged[4])]
    return list(owner.model_fields)


def _by_line(problems: list[_Found], lines: Mapping[Location, int]) -> list[_Found]:
    return sorted(problems, key=lambda problem: _line_of(problem[0], lines))


def _line_of(at: Location, lines: Mapping[Location, int]) -> int:
    """The line of the place, or of the nearest one around it that stands in the file."""
    while at not in lines:
        at = at[:-1]
    return lines[at]


def _placed(at: Location, what: str, hint: str | None, lines: Mapping[Location, int], name: str) -> Problem:
    dotted = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in at).removeprefix(".")
    return Problem(f"{name}:{_line_of(at, lines)} {dotted}".rstrip(), what, hint)

"""The manifest: every model and custom node pack that the workflows need, read from YAML with line numbers.

Parsing is strict and says everything that is wrong at once. It resolves nothing and looks at no volume.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Final, Literal

from pydantic import Field, ValidationError

from morpheus_worker.errors import Problem
from morpheus_worker.sources import (
    PACKS_FOLDER,
    UNFINISHED,
    AnySource,
    CachePath,
    Commit,
    EnvironmentName,
    FurtherPlace,
    Id,
    Positive,
    RepositoryUrl,
    Sha256,
    Strict,
    Text,
    as_source,
    in_the_clear,
    may_run_code,
    shape_of,
)
from morpheus_worker.yaml_lines import Found, Location, dotted, read_document

__all__ = [
    "PACKS_FOLDER",
    "UNFINISHED",
    "Manifest",
    "ManifestError",
    "ModelEntry",
    "PackEntry",
    "Phase",
    "parse_manifest",
]

Phase = Literal["boot", "lazy"]


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
    allow_pickle: bool = False

    @property
    def may_run_code(self) -> bool:
        """Whether loading it may run code that is in it. Such a file is fetched only with `allow_pickle`."""
        return may_run_code(self.path, self.format)


@dataclass(frozen=True, slots=True)
class PackEntry:
    """One custom node pack. `id` is its folder's name; `commit` a whole Git hash, or None until it is locked.
    `requirements` are lines for pip; None where the pack's own files are to tell."""

    id: str
    repo: str
    commit: str | None = None
    workflows: tuple[str, ...] = ()
    requirements: tuple[str, ...] | None = None


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
    document = read_document(text, begins="version: 1")
    found, parsed = document.found, None
    if document.data is not None:
        found += _across_entries(document.data)
        try:
            parsed = _File.model_validate(document.data)
        except ValidationError as failure:
            found += _SHAPE.refused(failure, document.data)
    if found or parsed is None:
        raise ManifestError(document.placed(found, name))
    return _as_manifest(parsed, name)


class _Model(Strict):
    id: Id
    path: CachePath
    also: list[FurtherPlace] = Field(default_factory=list)
    workflows: list[Text] = Field(default_factory=list)
    phase: Phase = "lazy"
    prefetch: bool = False
    sources: list[AnySource] = Field(default_factory=list)
    size: Positive | None = None
    sha256: Sha256 | None = None
    format: Text | None = None
    license: Text | None = None
    gated: bool = False
    auth_env: EnvironmentName | None = None
    allow_pickle: bool = False


class _Pack(Strict):
    id: Id
    repo: RepositoryUrl
    commit: Commit | None = None
    workflows: list[Text] = Field(default_factory=list)
    requirements: list[Text] | None = None


class _File(Strict):
    version: Literal[1]
    models: list[_Model] | None = None
    custom_nodes: list[_Pack] | None = None


_SHAPE: Final = shape_of("the manifest", _File, _Model, _Pack)


def _as_manifest(parsed: _File, name: str) -> Manifest:
    return Manifest(
        name,
        tuple(_as_model(model) for model in parsed.models or ()),
        tuple(_as_pack(pack) for pack in parsed.custom_nodes or ()),
    )


def _as_pack(pack: _Pack) -> PackEntry:
    asked = None if pack.requirements is None else tuple(pack.requirements)
    return PackEntry(pack.id, pack.repo, pack.commit, tuple(pack.workflows), asked)


def _as_model(model: _Model) -> ModelEntry:
    fields = {name: getattr(model, name) for name in type(model).model_fields}
    return ModelEntry(
        **fields
        | {
            "path": PurePosixPath(model.path),
            "also": tuple(map(PurePosixPath, model.also)),
            "workflows": tuple(model.workflows),
            "sources": tuple(map(as_source, model.sources)),
        }
    )


# What no entry shows by itself. It is asked of data that may be of any shape: it is found together with the rest.


def _across_entries(data: Any) -> list[Found]:
    models, packs = _entries(data, "models"), _entries(data, "custom_nodes")
    return [
        *_repeated([*_named(models, "models", "id"), *_named(packs, "custom_nodes", "id")]),
        *_repeated(_named(models, "models", "path")),
        *_files_that_are_folders(models),
        *_packs_that_are_model_folders(models, packs),
        *(found for index, entry in models for found in _unsafe_transport(index, entry)),
    ]


_Entry = tuple[int, dict[str, Any]]
_Named = tuple[Location, str]


def _entries(data: Any, section: str) -> list[_Entry]:
    entries = data.get(section) if isinstance(data, dict) else None
    listed = entries if isinstance(entries, list) else ()
    return [(index, entry) for index, entry in enumerate(listed) if isinstance(entry, dict)]


def _named(entries: Iterable[_Entry], section: str, key: str) -> Iterator[_Named]:
    for index, entry in entries:
        if isinstance(name := entry.get(key), str):
            yield (section, index, key), name


def _repeated(named: Iterable[_Named]) -> Iterator[Found]:
    first: dict[str, Location] = {}
    for at, value in named:
        if (taken_at := first.setdefault(value, at)) != at:
            yield Found(at, f"is taken by {dotted(taken_at[:2])}")


def _files_that_are_folders(models: Sequence[_Entry]) -> Iterator[Found]:
    """Entries with sources are files, and no other entry can lie within them."""
    folders: dict[str, Location] = {}
    for at, place in _named(models, "models", "path"):
        for folder in PurePosixPath(place).parents:
            folders.setdefault(str(folder), at)
    for index, entry in models:
        path = entry.get("path")
        if isinstance(path, str) and entry.get("sources") and path in folders:
            within = dotted(folders[path])
            yield Found(("models", index, "path"), f"is a file here, and a folder in {within}")


def _packs_that_are_model_folders(models: Sequence[_Entry], packs: Sequence[_Entry]) -> Iterator[Found]:
    """A pack takes the whole folder of its name, beside the folders of models."""
    taken = {PACKS_FOLDER, *(place.partition("/")[0] for _, place in _named(models, "models", "path"))}
    for at, name in _named(packs, "custom_nodes", "id"):
        if name in taken:
            yield Found(at, "is a folder of models, or of all packs", "a pack's id is the name of its own folder")


def _unsafe_transport(index: int, entry: dict[str, Any]) -> Iterator[Found]:
    """http, which anybody on the way can change, needs a hash to be held to, and may carry no key."""
    sources = entry.get("sources")
    for number, source in enumerate(sources if isinstance(sources, list) else ()):
        url = source.get("url") if isinstance(source, dict) else None
        if not isinstance(url, str) or not in_the_clear(url):
            continue
        at = ("models", index, "sources", number, "url")
        if entry.get("auth_env"):
            yield Found(at, "must be an https:// address", "the key of 'auth_env' would be sent in the clear")
        elif not entry.get("sha256"):
            yield Found(at, "must be an https:// address", "http:// is taken where the entry has a sha256")

"""From files to inspections: single ones, or all templates of a worker."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.holdings import Holdings
from morpheus_worker.inspecting.declaring import declared
from morpheus_worker.inspecting.filling import filled
from morpheus_worker.inspecting.needing import needs
from morpheus_worker.inspecting.remark import Inspection, Placed, Remark, from_problems
from morpheus_worker.inspecting.tried import judged, judged_as_written, tries
from morpheus_worker.library import NAME, Library
from morpheus_worker.manifest import Manifest
from morpheus_worker.templates.document import Document, read_document
from morpheus_worker.templates.reading import OUR_BLOCKS, TemplateError
from morpheus_worker.templates.template import Template, parse_template


@dataclass(frozen=True, slots=True)
class Ground:
    """What workflows are held to. Without holdings there is no volume to look at, without a manifest none to read."""

    object_info: ObjectInfo
    holdings: Holdings | None = None
    manifest: Manifest | None = None


def inspect_templates(shipped: Path, overrides: Path | None, ground: Ground) -> list[Inspection]:
    """Every template of both folders, overrides after the shipped ones, and what keeps them from being found."""
    libraries = [(folder, Library.load(folder)) for folder in (shipped, overrides) if folder is not None]
    found = [] if shipped.exists() else [_no_templates(shipped)]
    for folder, library in libraries:
        found += _of_folder(folder, library, ground)
    claims = Claims.of(libraries)
    return [replace(each, remarks=(*each.remarks, *claims.by_file.get(each.file.resolve(), ()))) for each in found]


@dataclass(frozen=True, slots=True)
class Claims:
    """Which names the workflows of some folders have. `holders` are the workflows by alias; `by_file` is what is wrong
    with the aliases of each file, by its resolved path."""

    names: frozenset[str] = frozenset()
    holders: Mapping[str, str] = field(default_factory=dict)
    by_file: Mapping[Path, Sequence[Remark]] = field(default_factory=dict)

    @classmethod
    def of(cls, libraries: Iterable[tuple[Path, Library]]) -> Claims:
        names: set[str] = set()
        holders: dict[str, str] = {}
        by_file: dict[Path, Sequence[Remark]] = {}
        for folder, library in libraries:
            # An override may be called as a shipped workflow's alias, and takes it.
            names |= library.templates.keys()
            for name, template in library.templates.items():
                by_file[(folder / f"{name}.json").resolve()] = _of_aliases(template.document, names, holders)
        return cls(frozenset(names), holders, by_file)

    @classmethod
    def in_folders(cls, shipped: Path, overrides: Path) -> Claims:
        return cls.of((folder, Library.load(folder)) for folder in (shipped, overrides))

    def against(self, document: Document, path: Path) -> Sequence[Remark]:
        """What is wrong with the aliases of this file's document, which need not be in one of the folders."""
        known = self.by_file.get(path.resolve())
        return _of_aliases(document, self.names, dict(self.holders)) if known is None else known


def inspect_file(path: Path, ground: Ground, claims: Claims | None = None) -> Inspection:
    """A template's file, or a graph's in API format. `claims` are those of the workflows beside which it is to be."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as failure:
        return _unreadable(path, f"cannot be read: {failure.strerror or failure}", None)
    except UnicodeDecodeError as failure:
        return _unreadable(path, f"is not UTF-8 text (byte {failure.start})", "save it as UTF-8")
    try:
        template = parse_template(text, name=path.stem)
    except TemplateError as failure:
        return _broken(path, text, failure, ground, claims or Claims())
    found = inspect_template(template, path, ground)
    return replace(found, remarks=(*found.remarks, *(claims or Claims()).against(template.document, path)))


def _broken(path: Path, text: str, failure: TemplateError, ground: Ground, claims: Claims) -> Inspection:
    """What keeps the text from being a template, and what else is wrong with it where it has a graph."""
    remarks = from_problems(failure.problems, "broken_template")
    try:
        document, _ = read_document(text, name=path.stem)
    except TemplateError:
        return Inspection(path.stem, path, tuple(remarks))
    remarks += judged_as_written(document, failure.problems, ground.object_info)
    remarks += claims.against(document, path)
    return Inspection(path.stem, path, tuple(remarks))


def inspect_template(template: Template, file: Path, ground: Ground) -> Inspection:
    """A template that could be read."""
    info = ground.object_info
    template = template.seen_by(info)
    manifest = ground.manifest if _is_ours(template) else None
    tried = tries(template)
    remarks = [
        *from_problems(template.problems, "contradiction"),
        *_of_own_aliases(template),
        *judged(template, tried, info),
        *filled(template, tried, info),
        *declared(template, tried, info),
        *needs(template, tried, info, ground.holdings, manifest),
    ]
    return Inspection(template.name, file, tuple(remarks), len(tried))


def _of_own_aliases(template: Template) -> Iterator[Remark]:
    """Other names of the workflow by which nobody can call it, or that say nothing."""
    place, seen = Placed(template.document.tree), {template.name}
    for index, alias in enumerate(template.about.aliases):
        way = ("_about", "aliases", index)
        if not NAME.match(alias):
            what, hint = f"the alias '{alias}' cannot be a workflow's name", "use letters, digits, '.', '_' and '-'"
            yield place.remark(way, "error", "bad_alias", what, hint)
        elif alias in seen:
            what = "is the workflow's own name" if alias == template.name else "is there twice"
            yield place.remark(way, "warning", "bad_alias", f"the alias '{alias}' {what}", "remove it")
        seen.add(alias)


def _is_ours(template: Template) -> bool:
    """Whether it is more than a graph."""
    return any(block in template.document.tree.value for block in OUR_BLOCKS) or bool(template.params)


def _no_templates(folder: Path) -> Inspection:
    hint = "set MORPHEUS_WORKFLOWS_DIR to the folder of the workflow templates"
    remark = Remark(severity="error", kind="no_templates", what=f"there is no folder {folder}", hint=hint)
    return Inspection("", folder, (remark,))


def _unreadable(path: Path, what: str, hint: str | None) -> Inspection:
    remark = Remark(severity="error", kind="unreadable", what=what, hint=hint)
    return Inspection(path.stem, path, (remark,))


def _of_folder(folder: Path, library: Library, ground: Ground) -> Iterator[Inspection]:
    names = sorted([*library.templates, *library.broken])
    for name in names:
        file = folder / f"{name}.json"
        if name in library.broken:
            yield _of_broken(file, library.broken[name], ground)
        else:
            yield inspect_template(library.templates[name], file, ground)
    # What is no problem of a file: a folder that cannot be listed.
    for sentence in set(library.warnings) - set(map(str, library.problems)):
        yield Inspection("", folder, (Remark(severity="warning", kind="unreadable", what=sentence),))


def _of_broken(file: Path, failure: TemplateError, ground: Ground) -> Inspection:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        text = ""
    return _broken(file, text, failure, ground, Claims())


def _of_aliases(document: Document, names: Container[str], holders: dict[str, str]) -> list[Remark]:
    """Aliases that lead elsewhere, since another workflow has them. Shipped workflows come first, and in one folder the
    earlier name."""
    place, remarks = Placed(document.tree), []
    for index, alias in enumerate(document.about.aliases):
        holder = alias if alias in names else holders.setdefault(alias, document.name)
        if holder != document.name:
            what, hint = f"the alias '{alias}' is taken by the workflow '{holder}'", "remove it from one of them"
            remarks.append(place.remark(("_about", "aliases", index), "error", "alias_taken", what, hint))
    return remarks


def totals(inspections: Iterable[Inspection]) -> Mapping[str, int]:
    """How many errors and warnings there are in all."""
    held = list(inspections)
    return {"errors": sum(each.errors for each in held), "warnings": sum(each.warnings for each in held)}

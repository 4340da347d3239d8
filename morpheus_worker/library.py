"""The workflow templates of one worker: those that ship with it, and those of the volume that override them.

Files are read once, when the library is loaded: a job must not wait for a folder listing on a slow network volume. A
new or changed template is seen by the next worker that starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self

from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.comfy.recorded import pack_of
from morpheus_worker.errors import Code, Problem, did_you_mean, from_problems
from morpheus_worker.templates.declared import WORKFLOW_NAME
from morpheus_worker.templates.defaults import as_deployed, refused_defaults, way_around
from morpheus_worker.templates.reading import TemplateError
from morpheus_worker.templates.template import Template, absent_classes, parse_template

NAME: Final = WORKFLOW_NAME
"""A workflow's name is a file's stem, and never a path."""

OVERRIDES_FOLDER: Final = Path("morpheus_lib", "workflows")
"""Where a volume has templates of its own."""

HOW_TO_NAME: Final = "use letters, digits, '.', '_' and '-'"

LONGEST_LIST: Final = 12
"""How many names an answer lists when none is near."""

NAMED_CLASSES: Final = 2
"""How many classes of an absent pack are named."""


@dataclass(frozen=True, slots=True)
class Library:
    """Templates by name and alias. Iterating gives them in the order of their names.

    `problems` are what is wrong with the shipped files, each with its file and line. `warnings` are those as sentences,
    and whatever else a person should know: overrides that gave way, templates that lack nodes on this ComfyUI.
    """

    templates: Mapping[str, Template] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    broken: Mapping[str, TemplateError] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()

    @classmethod
    def load(
        cls,
        shipped: Path,
        overrides: Path | None = None,
        *,
        object_info: ObjectInfo | None = None,
        deployment: Mapping[str, Any] | None = None,
    ) -> Self:
        """Reads every `*.json` of both folders. With `object_info`, an override is also held to what this ComfyUI can
        run: one that can run with none of its params' values gives way to the shipped workflow. `deployment` has the
        defaults that the environment sets. A folder that is not there has no templates. Never raises for what a file
        holds."""
        loading = _Loading(object_info, deployment or {})
        loading.take_shipped(shipped)
        if overrides is not None:
            loading.take_overrides(overrides)
        aliases = loading.aliases()
        return cls(
            templates=dict(sorted(loading.templates.items())),
            aliases=aliases,
            broken=loading.broken,
            problems=tuple(loading.problems),
            warnings=(*map(str, loading.problems), *loading.of_shipped.values(), *loading.warnings),
        )

    def get(self, name: str) -> Template:
        """The template of that name or alias.

        Raises:
            MorpheusError: `unknown_workflow`, or `invalid_workflow` for one whose file cannot be used.
        """
        own = self.aliases.get(name, name)
        if own in self.templates:
            return self.templates[own]
        if own in self.broken:
            opening = f"The template of the workflow '{own}' cannot be used"
            raise from_problems(Code.INVALID_WORKFLOW, opening, self.broken[own].problems)
        shown = name if len(name) <= 80 else f"{name[:80]}…"
        what = f"there is no workflow '{shown}'" if NAME.match(name) else f"'{shown}' cannot be a workflow's name"
        problem = Problem("workflow_name", what, self._hint(name))
        raise from_problems(Code.UNKNOWN_WORKFLOW, "The workflow is unknown", [problem])

    def aliases_of(self, name: str) -> list[str]:
        """The other names under which the workflow is found: those that it claims and another one holds are not."""
        return [alias for alias, own in self.aliases.items() if own == name]

    def __len__(self) -> int:
        return len(self.templates)

    def __iter__(self) -> Iterator[Template]:
        return iter(self.templates.values())

    def __contains__(self, name: object) -> bool:
        return name in self.templates or name in self.aliases

    def _hint(self, name: str) -> str | None:
        names = list(self.templates)
        near = did_you_mean(name[:80], [*names, *self.aliases])
        return near or (f"there are: {', '.join(names)}" if 0 < len(names) <= LONGEST_LIST else None)


class _Loading:
    """One load under way. `of_shipped` are the warnings of shipped workflows that no override has replaced."""

    def __init__(self, object_info: ObjectInfo | None, deployment: Mapping[str, Any]) -> None:
        self.templates: dict[str, Template] = {}
        self.broken: dict[str, TemplateError] = {}
        self.problems: list[Problem] = []
        self.warnings: list[str] = []
        self.of_shipped: dict[str, str] = {}
        self._object_info = object_info
        self._deployment = deployment
        self._findings: dict[str, _Finding | None] = {}
        self._shipped_aliases: dict[str, str] = {}
        self._overridden: dict[str, Path] = {}

    def take_shipped(self, folder: Path) -> None:
        if not folder.exists():
            self.problems.append(Problem("MORPHEUS_WORKFLOWS_DIR", f"there is no folder {folder}"))
        for path in self._files(folder):
            try:
                template = self._read(path)
            except TemplateError as failure:
                self.broken[path.stem] = failure
                self.problems += [replace(said, at=f"{path.name} {said.at}".strip()) for said in failure.problems]
            else:
                self.templates[template.name] = template
                finding = self._findings[template.name] = self._check(template)
                if finding:
                    self.of_shipped[template.name] = finding.sentence(f"the workflow '{template.name}'")
        for template in self.templates.values():
            for said in self._claimed(template, self._shipped_aliases):
                self.problems.append(replace(said, at=f"{template.name}.json {said.at}"))

    def take_overrides(self, folder: Path) -> None:
        for path in self._files(folder):
            twin = self._twin(path.stem)
            try:
                template = self._read(path)
                finding = self._check(template)
            except TemplateError as failure:
                self._drop(path, failure, twin)
            else:
                if finding and twin is not None and self._gives_way(finding, twin):
                    self._drop(path, TemplateError(path.stem, [*finding.problems]), twin)
                    continue
                if finding:
                    self.warnings.append(finding.sentence(f"the workflow '{template.name}' of {path}"))
                self._place(template, path)
                self._findings[template.name] = finding

    def aliases(self) -> dict[str, str]:
        """The shipped aliases, which stay with their workflow when it is overridden, and those of the overrides. A
        workflow's own name comes before anybody's alias."""
        aliases = {alias: name for alias, name in self._shipped_aliases.items() if alias not in self.templates}
        for name, path in sorted(self._overridden.items()):
            for said in self._claimed(self.templates[name], aliases):
                self.warnings.append(str(replace(said, at=f"{path} {said.at}")))
        return aliases

    def _files(self, folder: Path) -> list[Path]:
        try:
            return sorted(path for path in folder.iterdir() if path.suffix == ".json" and path.name[0] != ".")
        except FileNotFoundError:
            return []
        except OSError as failure:
            self.warnings.append(f"the workflow templates in {folder} cannot be listed: {failure.strerror}")
            return []

    def _read(self, path: Path) -> Template:
        if not NAME.match(path.stem):
            what = f"'{path.stem}' cannot be a workflow's name"
            raise TemplateError(path.stem, [Problem("", what, HOW_TO_NAME)])
        try:
            text = path.read_text(encoding="utf-8-sig")
        except OSError as failure:
            raise TemplateError(path.stem, [Problem("", f"cannot be read: {failure.strerror}")]) from None
        except UnicodeDecodeError as failure:
            problem = Problem("", f"is not UTF-8 text (byte {failure.start})", "save it as UTF-8")
            raise TemplateError(path.stem, [problem]) from None
        return parse_template(text, name=path.stem, object_info=self._object_info)

    def _check(self, template: Template) -> _Finding | None:
        """What is wrong with it as it is deployed here."""
        if self._object_info is None:
            return None
        template = as_deployed(template, self._deployment)
        absent = absent_classes(template, self._object_info)
        problems = _absent(absent) if absent else refused_defaults(template, self._object_info)
        if not problems and not template.problems:
            return None
        way = way_around(template, self._object_info)
        return _Finding((*problems, *template.problems), _packs(class_type for class_type, _ in absent), way)

    def _gives_way(self, finding: _Finding, twin: str) -> bool:
        """Whether it can run with nothing that is known here, and the other one does not lack the same."""
        if finding.way is not None:
            return False
        others = self._findings[twin]
        return not finding.packs or others is None or not finding.packs <= others.packs

    def _twin(self, name: str) -> str | None:
        """The shipped workflow that answers to this name."""
        own = self._shipped_aliases.get(name, name)
        return own if own in self.templates else None

    def _drop(self, path: Path, failure: TemplateError, twin: str | None) -> None:
        override = f"the override {path} gives way to the shipped workflow '{twin}'"
        self._warn_of(f"the template {path} is left out" if twin is None else override, failure.problems)
        if twin is None:
            self.broken.setdefault(path.stem, failure)

    def _place(self, template: Template, path: Path) -> None:
        taken = self._shipped_aliases.get(template.name)
        if taken is not None:
            self.warnings.append(f"the override {path} takes the place of '{taken}' under the alias '{template.name}'")
        self.broken.pop(template.name, None)
        self.of_shipped.pop(template.name, None)
        self.templates[template.name] = template
        self._overridden[template.name] = path

    def _claimed(self, template: Template, aliases: dict[str, str]) -> Iterator[Problem]:
        """Takes the template's aliases up among the others, and tells which of them it cannot have."""
        name, tree = template.name, template.document.tree
        for index, alias in enumerate(template.about.aliases):
            at = ("_about", "aliases", index)
            if not NAME.match(alias):
                yield tree.problem(at, f"the alias '{alias}' cannot be a workflow's name", HOW_TO_NAME)
            elif alias in self.templates and alias != name:
                what = f"the alias '{alias}' is the name of another workflow, which keeps it"
                yield tree.problem(at, what, "remove it here")
            elif (holder := aliases.get(alias, name)) != name:
                what = f"the alias '{alias}' is taken by the workflow '{holder}', which keeps it"
                yield tree.problem(at, what, "remove it from one of them")
            elif alias != name:
                aliases[alias] = name

    def _warn_of(self, opening: str, problems: Iterable[Problem]) -> None:
        self.warnings.append(f"{opening}: {'; '.join(map(str, problems))}")


@dataclass(frozen=True, slots=True)
class _Finding:
    """What is wrong with a template here. `packs` are those that its defaults lack, and classes of none that is known;
    `way` is `way_around`'s."""

    problems: tuple[Problem, ...]
    packs: frozenset[str]
    way: str | None

    def sentence(self, name: str) -> str:
        opening = f"{name} cannot run here" if self.way != "" else f"{name} can run here by default, and has faults"
        way = f" (it can when {self.way})" if self.way else ""
        return f"{opening}: {'; '.join(map(str, self.problems))}{way}"


def _packs(class_types: Iterable[str]) -> frozenset[str]:
    return frozenset(pack_of(class_type) or class_type for class_type in class_types)


def _absent(lacking: Iterable[tuple[str, str]]) -> list[Problem]:
    """One sentence for all classes that are absent: the packs that have them, and where the others are."""
    by_pack: dict[str, list[str]] = {}
    others: dict[str, str] = {}
    for class_type, place in lacking:
        pack = pack_of(class_type)
        if pack is None:
            others.setdefault(class_type, f"'{class_type}' ({place})")
        elif class_type not in by_pack.setdefault(pack, []):
            by_pack[pack].append(class_type)
    packs = [f"{pack} ({_shortened(classes)})" for pack, classes in by_pack.items()]
    parts = [_counted("node pack", packs), _counted("node class", list(others.values()))]
    return [Problem("", f"this ComfyUI lacks {' and '.join(filter(None, parts))}")]


def _shortened(classes: list[str]) -> str:
    more = len(classes) - NAMED_CLASSES
    return ", ".join(classes[:NAMED_CLASSES]) + (f" and {more} more" if more > 0 else "")


def _counted(kind: str, names: list[str]) -> str:
    if not names:
        return ""
    many = f"{kind}es" if kind.endswith("s") else f"{kind}s"
    return f"the {kind if len(names) == 1 else many} {_listed(names)}"


def _listed(names: list[str]) -> str:
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)

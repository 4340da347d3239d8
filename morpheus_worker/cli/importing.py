"""`morpheus workflows import`: a template of a graph that ComfyUI exported."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from morpheus_worker import entry
from morpheus_worker.cli.models_printing import tell
from morpheus_worker.cli.terminal import print_table
from morpheus_worker.cli.writing import STANDARD_OUTPUT, write_whole
from morpheus_worker.comfy.recorded import load_known, pack_of
from morpheus_worker.errors import Problem
from morpheus_worker.importing.asked import asked as asked_params
from morpheus_worker.importing.export import Export, read_export
from morpheus_worker.importing.proposal import Proposal
from morpheus_worker.importing.remarks import packs_of, remarks
from morpheus_worker.importing.usual import usual
from morpheus_worker.importing.writing import template_text
from morpheus_worker.library import NAME, Library
from morpheus_worker.settings import Settings
from morpheus_worker.templates.places import MISSING
from morpheus_worker.templates.reading import TemplateError
from morpheus_worker.templates.template import check_template, parse_template
from morpheus_worker.templates.values import as_text

LONGEST_DEFAULT: Final = 60
"""Characters of a default that the table shows."""


def workflows_import(asked: argparse.Namespace, settings: Settings) -> int:
    """Writes the template, whole or not at all, prints its params, and tells what is left to look at."""
    target = _target(asked.to, asked.name)
    problems = list(_problems_of(asked.name, target, force=asked.force))
    try:
        export = read_export(asked.export.read_bytes(), name=asked.name, info=load_known())
        params, more = asked_params(export, asked.param) if asked.param else (usual(export), [])
        problems += more
    except TemplateError as failure:
        problems += [Problem(f"{asked.export} {said.at}".strip(), said.what, said.hint) for said in failure.problems]
    except OSError as failure:
        problems.append(Problem(str(asked.export), f"cannot be read: {failure.strerror}"))
    if problems:
        tell(*problems)
        return entry.EXIT_USAGE
    text = template_text(asked.name, export, params, packs_of(export, pack_of))
    warnings = [*remarks(export, params, pack_of), *_checked(text, asked.name, export)]
    warnings += [*_misnamed(target, asked.name), *_in_use(asked.name, target, settings)]
    if target == STANDARD_OUTPUT:
        print(text, end="")
    elif not _written(target, text, force=asked.force):
        return entry.EXIT_FAILED
    else:
        warnings = [
            replace(said, at=f"{target} {said.at}") if said.at.startswith("line ") else said for said in warnings
        ]
        print_table(("param", "node", "class", "input", "type", "default"), list(_rows(export, params)))
        count = "1 param" if len(params) == 1 else f"{len(params)} params"
        print(f"{target}: {count}; jobs call it '{asked.name}' once it is in the workflows folder")
    tell(*warnings)
    return entry.EXIT_OK


def _target(to: Path | None, name: str) -> Path:
    if to is None:
        return Path(f"{name}.json")
    return to / f"{name}.json" if to != STANDARD_OUTPUT and to.is_dir() else to


def _problems_of(name: str, target: Path, *, force: bool) -> Iterator[Problem]:
    if name.lower().endswith(".json"):
        yield Problem("--name", f"'{name}' is a file's name", f"--name {name[:-5]}" if name[:-5] else None)
    elif not NAME.match(name):
        yield Problem("--name", f"'{name}' cannot be a workflow's name", "use letters, digits, '.', '_' and '-'")
    if target != STANDARD_OUTPUT and target.exists() and not force:
        yield Problem(str(target), "is there already", "--force replaces it")


def _checked(text: str, name: str, export: Export) -> Iterator[Problem]:
    """What keeps the template from running, as the worker would find it. Classes that nobody knows have been told."""
    template = parse_template(text, name=name, object_info=export.info)
    unknown = {
        f"'{export.class_of(node_id)}'" for node_id in export.graph if export.class_of(node_id) not in export.info
    }
    for problem in check_template(template, export.info):
        if not any(problem.what.endswith(f"no node class {class_type}") for class_type in unknown):
            yield problem


def _misnamed(target: Path, name: str) -> Iterator[Problem]:
    if target != STANDARD_OUTPUT and target.name != f"{name}.json":
        yield Problem(str(target), f"a workflow is called as its file: as '{name}' it is found in {name}.json")


def _in_use(name: str, target: Path, settings: Settings) -> Iterator[Problem]:
    """Another workflow that a job gets by this name. The file itself may have been there before."""
    known = Library.load(settings.workflows_dir)
    own = settings.workflows_dir / f"{name}.json"
    if name in known.templates and target.absolute() != own.absolute():
        yield Problem("--name", f"a workflow '{name}' is there already: on the volume this one replaces it")
    elif name in known.aliases:
        holder = known.aliases[name]
        what = f"'{name}' is another name of the workflow '{holder}', which loses it to this one"
        yield Problem("--name", what, "choose another, unless that is meant")


def _written(target: Path, text: str, *, force: bool) -> bool:
    try:
        write_whole(target, text, replace=force)
    except OSError as failure:
        tell(Problem(str(target), f"cannot be written: {failure.strerror}"))
        return False
    return True


def _rows(export: Export, params: Sequence[Proposal]) -> Iterator[tuple[str, ...]]:
    for param in params:
        for spot in param.spots:
            yield param.key, spot.node_id, export.class_of(spot.node_id), spot.input, param.type, _default(param)


def _default(param: Proposal) -> str:
    if param.default is MISSING:
        return "drawn" if param.type == "seed" else "required"
    text = as_text(param.default) or '""'
    return text if len(text) <= LONGEST_DEFAULT else f"{text[:LONGEST_DEFAULT]}…"

"""`morpheus check`: what is wrong with workflows, before a GPU finds out."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from morpheus_worker import entry
from morpheus_worker.cli.models_printing import counted
from morpheus_worker.comfy.recorded import load_known, recorded_packs, recorded_version
from morpheus_worker.comfy.saved import load_saved
from morpheus_worker.errors import Code, MorpheusError, did_you_mean
from morpheus_worker.holdings import Holdings
from morpheus_worker.inspecting.inspect import Claims, Ground, inspect_file, inspect_templates, totals
from morpheus_worker.inspecting.remark import Inspection, Remark, from_problems
from morpheus_worker.library import OVERRIDES_FOLDER, Library
from morpheus_worker.manifest import Manifest, ManifestError
from morpheus_worker.manifest_file import read_manifest
from morpheus_worker.settings import Settings
from morpheus_worker.volume import WHERE


def check(asked: argparse.Namespace, settings: Settings) -> int:
    """Checks the named workflows and files, or all templates, and prints everything found. 1 when there is an error."""
    try:
        ground, against, notes, broken = _ground(asked, settings)
        inspections = [*_inspected(asked.workflow, settings, ground), *broken]
    except MorpheusError as failure:
        print(f"morpheus: {failure.message}", file=sys.stderr)
        return entry.EXIT_USAGE if failure.code is Code.INVALID_INPUT else entry.EXIT_FAILED
    for sentence in notes:
        print(f"morpheus: {sentence}", file=sys.stderr)
    _write_anything(sys.stdout)
    if asked.json:
        print(json.dumps(as_json(inspections, against), indent=2))
    else:
        print_inspections(inspections, against)
    return entry.EXIT_FAILED if totals(inspections)["errors"] else entry.EXIT_OK


def _write_anything(stream: TextIO) -> None:
    """What a file holds can be half a character, or one that the terminal does not have: it is written as an escape."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")


def as_json(inspections: Sequence[Inspection], against: str) -> dict[str, Any]:
    """The counts, what was checked against, and each workflow with its file and its problems, as `Remark` has them."""
    count = totals(inspections)
    workflows = [
        {
            "workflow": inspection.workflow,
            "file": str(inspection.file),
            "variations": inspection.variations,
            "problems": [remark.as_dict() for remark in inspection.remarks],
        }
        for inspection in inspections
    ]
    return {"ok": not count["errors"], **count, "against": against, "workflows": workflows}


def print_inspections(inspections: Sequence[Inspection], against: str) -> None:
    """A line for each workflow that is good, and for every other one a line for each thing that is to be said."""
    for inspection in inspections:
        file = _short(inspection.file)
        if not inspection.remarks:
            print(f"{inspection.workflow}: good ({counted(inspection.variations, 'graph')})")
            continue
        print(f"{inspection.workflow}:" if inspection.workflow else f"{file}:")
        for remark in inspection.remarks:
            place = file if remark.line is None else f"{file}:{remark.line}:{remark.column}"
            print(f"  {place}: {remark}")
    count = totals(inspections)
    found = f"{counted(count['errors'], 'error')}, {counted(count['warnings'], 'warning')}"
    print(f"\n{counted(len(inspections), 'file')} checked against {against}: {found}")


def _ground(asked: argparse.Namespace, settings: Settings) -> tuple[Ground, str, list[str], list[Inspection]]:
    """What to check against, in words too, and what could not be had of it, or has something wrong in it.

    Raises:
        MorpheusError: `invalid_input`, when the object info's file cannot be used.
    """
    notes, broken = [], []
    if asked.object_info is not None:
        info, against = load_saved(asked.object_info), str(asked.object_info)
    else:
        info = load_known()
        against = f"ComfyUI {recorded_version()} and {len(recorded_packs())} node packs as recorded"
    holdings = Holdings.of(settings)
    manifest = None
    try:
        manifest = read_manifest(settings)
    except ManifestError as failure:
        broken.append(Inspection("", settings.manifest, tuple(from_problems(failure.problems, "broken_manifest"))))
    except OSError as failure:
        notes.append(f"the model manifest cannot be used, so models and packs are not looked up in it: {failure}")
    if not holdings.present:
        notes.append(f"there is no volume at {settings.volume_root}, so models and packs are not looked for ({WHERE})")
    return Ground(info, holdings if holdings.present else None, manifest), against, notes, broken


def _inspected(wanted: Sequence[str], settings: Settings, ground: Ground) -> list[Inspection]:
    overrides = settings.volume_root / OVERRIDES_FOLDER
    if not wanted:
        found_in_all = inspect_templates(settings.workflows_dir, overrides, ground)
        return [*found_in_all, *_of_manifest(found_in_all, settings, overrides, ground)]
    library: Library | None = None
    claims = Claims.in_folders(settings.workflows_dir, overrides)
    found: dict[Path, Inspection] = {}
    for name in wanted:
        if _is_file(name):
            found.setdefault(Path(name), inspect_file(Path(name), ground, claims))
            continue
        library = library or Library.load(settings.workflows_dir, overrides)
        for file in _files_of(name, library, (settings.workflows_dir, overrides)):
            found.setdefault(file, inspect_file(file, ground, claims))
    return list(found.values())


def _of_manifest(found: Sequence[Inspection], settings: Settings, overrides: Path, ground: Ground) -> list[Inspection]:
    """Workflows that the manifest names and nobody has: its entry would count for none."""
    names = {inspection.workflow for inspection in found}
    aliases = Library.load(settings.workflows_dir, overrides).aliases
    manifest = ground.manifest or Manifest(settings.manifest.name)
    named = [(model.id, name) for model in manifest.models for name in model.workflows]
    named += [(pack.id, name) for pack in manifest.custom_nodes for name in pack.workflows]
    remarks = []
    for entry_id, name in named:
        if name not in names:
            own = aliases.get(name)
            hint = f"write '{own}', whose other name it is" if own else did_you_mean(name, names)
            what = f"the entry '{entry_id}' names the workflow '{name}', which is not there"
            remarks.append(Remark(severity="warning", kind="unknown_workflow", what=what, hint=hint))
    return [Inspection("", settings.manifest, tuple(remarks))] if remarks else []


def _is_file(name: str) -> bool:
    return name.endswith(".json") or os.sep in name


def _files_of(name: str, library: Library, folders: Sequence[Path]) -> list[Path]:
    """The shipped file of a workflow and the one that overrides it, as far as they are there.

    Raises:
        MorpheusError: `invalid_input`, when there is neither.
    """
    own = library.aliases.get(name, name)
    files = [path for folder in folders if (path := folder / f"{own}.json").is_file()]
    if not files:
        hint = did_you_mean(name, [*library.templates, *library.broken, *library.aliases])
        more = hint or f"there are {', '.join(library.templates)}"
        raise MorpheusError(Code.INVALID_INPUT, f"there is no workflow '{name}' ({more})")
    return files


def _short(path: Path) -> str:
    """Relative to where the command runs, when that is shorter."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)

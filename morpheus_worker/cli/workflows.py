"""`morpheus workflows list` and `show`: which templates there are, what they take, and what they need."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from morpheus_worker import entry
from morpheus_worker.cli.needs import Need, needs_of
from morpheus_worker.cli.terminal import print_table
from morpheus_worker.comfy.recorded import load_known
from morpheus_worker.errors import MorpheusError
from morpheus_worker.holdings import Holdings
from morpheus_worker.library import OVERRIDES_FOLDER, Library
from morpheus_worker.manifest import Manifest, ManifestError
from morpheus_worker.manifest_file import read_manifest
from morpheus_worker.param_schema import example_params, json_schema
from morpheus_worker.settings import Settings
from morpheus_worker.sync.advice import command_for
from morpheus_worker.templates.describe import describe
from morpheus_worker.templates.template import Template
from morpheus_worker.volume import WHERE


def workflows_list(asked: argparse.Namespace, settings: Settings) -> int:
    """Every template; with `--models` also whether this volume has what it needs."""
    library = _library(settings)
    needs: dict[str, list[Need]] | None = None
    is_known = True
    if asked.models:
        try:
            manifest, holdings = _read_manifest(settings), _holdings(settings)
            needs = {template.name: needs_of(template, load_known(), manifest, holdings) for template in library}
            is_known = manifest is not None
        except MorpheusError as failure:
            print(f"morpheus: {failure.message}", file=sys.stderr)
            return entry.EXIT_FAILED
        if holdings is None:
            print(f"morpheus: {_nowhere(settings)}", file=sys.stderr)
    if asked.json:
        print(json.dumps([_as_json(template, library, needs, is_known=is_known) for template in library], indent=2))
    else:
        _print_list(library, needs, is_known=is_known)
    return _warned(library)


def workflows_show(asked: argparse.Namespace, settings: Settings) -> int:
    """What a workflow does, its params, an example, and what it needs; or the JSON Schema of its params alone."""
    library = _library(settings)
    try:
        template = library.get(asked.workflow)
        if asked.json_schema:
            print(json.dumps(json_schema(template), indent=2))
        else:
            holdings, manifest = _holdings(settings), _read_manifest(settings)
            needs = needs_of(template, load_known(), manifest, holdings)
            _print_workflow(template, library.aliases_of(template.name), settings)
            _print_needs(needs, "" if holdings is not None else _nowhere(settings), is_known=manifest is not None)
            if any(need.there is False and need.entry_id is not None for need in needs):
                print(f"'{command_for(workflow=template.name)}' fetches what is missing")
    except MorpheusError as failure:
        print(f"morpheus: {failure.message}", file=sys.stderr)
        return entry.EXIT_FAILED if failure.retryable else entry.EXIT_USAGE
    return _warned(library)


def _print_list(library: Library, needs: dict[str, list[Need]] | None, *, is_known: bool) -> None:
    columns = ("workflow", "aliases", "what it does")
    rows = [(t.name, ", ".join(library.aliases_of(t.name)), t.about.title or t.about.description) for t in library]
    if needs is None:
        print_table(columns, rows)
        return
    print_table((*columns, "on this volume"), [(*row, _readiness(needs[row[0]], is_known=is_known)) for row in rows])
    lacking = [name for name, own in needs.items() if _is_lacking_some(own)]
    if lacking:
        each = f", and so for {'the other one' if len(lacking) == 2 else 'the others'}" if len(lacking) > 1 else ""
        said = f"'{command_for(workflow=lacking[0])}' fetches what {lacking[0]} lacks{each}"
        print(f"morpheus: {said}", file=sys.stderr)


def _readiness(needs: list[Need], *, is_known: bool) -> str:
    if any(need.there is None for need in needs):
        return "no volume"
    if lacking := [_called(need) for need in needs if need.is_lacking()]:
        return f"lacks {', '.join(lacking)}"
    if not is_known:
        return "not known without the manifest"
    options = [_called(need) for need in needs if need.is_lacking("option")]
    return f"ready, but for {', '.join(options)}" if options else "ready"


def _called(need: Need) -> str:
    return f"the node pack {need.name}" if need.kind == "pack" else need.name


def _as_json(
    template: Template, library: Library, needs: dict[str, list[Need]] | None, *, is_known: bool
) -> dict[str, Any]:
    about = template.about
    said: dict[str, Any] = {"name": template.name, "title": about.title, "description": about.description}
    said["aliases"] = library.aliases_of(template.name)
    if needs is not None:
        own = needs[template.name]
        unknown = any(need.there is None for need in own)
        lacks = any(need.is_lacking() for need in own)
        said["ready"] = None if unknown or (not lacks and not is_known) else not lacks
        said["lacks"] = None if unknown else _lacks(own)
        said["sync"] = command_for(workflow=template.name) if _is_lacking_some(own) else None
    return said


def _is_lacking_some(needs: list[Need]) -> bool:
    """Whether a sync could bring something that is not there, and that a job may need."""
    lacking = (need for need in needs if need.is_lacking() or need.is_lacking("option"))
    return any(need.entry_id is not None for need in lacking)


def _lacks(needs: list[Need]) -> dict[str, list[str]]:
    """`options` are models that only some params ask for."""
    return {
        "models": [need.name for need in needs if need.kind == "model" and need.is_lacking()],
        "packs": [need.name for need in needs if need.kind == "pack" and need.is_lacking()],
        "options": [need.name for need in needs if need.is_lacking("option")],
    }


def _print_workflow(template: Template, aliases: list[str], settings: Settings) -> None:
    about = template.about
    print(f"{template.name}: {about.title}\n{about.description}\n".rstrip() + "\n")
    if aliases:
        print(f"also called {', '.join(aliases)}")
    if about.timeout_s is not None:
        print(f"a job may take {about.timeout_s:g} seconds")
    if aliases or about.timeout_s is not None:
        print()
    rows = [
        (row.key, row.type, row.default, row.allowed, row.media, row.description)
        for row in describe(template, load_known(), settings.deployment)
    ]
    print_table(("param", "type", "default", "allowed", "media", "meaning"), rows)
    job = {"input": {"workflow_name": template.name, "params": example_params(template)}}
    print(f"\nan example job:\n{json.dumps(job, indent=2)}\n")


def _print_needs(needs: list[Need], nowhere: str, *, is_known: bool) -> None:
    if not needs and is_known:
        print("needs no model and no node pack")
    for need in needs:
        kind = "the node pack" if need.kind == "pack" else "the model"
        verb = {"always": "needs", "option": "for some params needs", "choice": "can use"}[need.use]
        there = {True: "it is there", False: "it is not on this volume", None: ""}[need.there]
        source = f"to be had from {need.source}" if need.source and need.there is not True else ""
        said = [there, source, f"licence {need.license}" if need.license else "", "gated" if need.gated else ""]
        details = "; ".join(part for part in said if part)
        print(f"{verb} {kind} {need.name}" + (f": {details}" if details else ""))
    if not is_known:
        print("what else it needs cannot be said: the model manifest cannot be used")
    if needs and nowhere:
        print(f"whether they are there cannot be said: {nowhere}")


def _library(settings: Settings) -> Library:
    """The templates as a worker would load them, completed by the object info that travels with the project."""
    overrides = settings.volume_root / OVERRIDES_FOLDER
    return Library.load(settings.workflows_dir, overrides, object_info=load_known())


def _read_manifest(settings: Settings) -> Manifest | None:
    """The manifest, or None when it cannot be used, which is then told."""
    try:
        return read_manifest(settings)
    except (ManifestError, OSError) as failure:
        print(f"morpheus: the model manifest cannot be used: {failure}", file=sys.stderr)
        return None


def _holdings(settings: Settings) -> Holdings | None:
    holdings = Holdings.of(settings)
    return holdings if holdings.present else None


def _nowhere(settings: Settings) -> str:
    return f"there is no volume at {settings.volume_root} ({WHERE})"


def _warned(library: Library) -> int:
    for sentence in library.warnings:
        print(f"morpheus: {sentence}", file=sys.stderr)
    return entry.EXIT_FAILED if library.problems else entry.EXIT_OK

"""What the command line prints about the worker itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from morpheus_worker import boot, entry
from morpheus_worker.comfy.recorded import load_recorded
from morpheus_worker.deadlines import Deadline
from morpheus_worker.errors import MorpheusError
from morpheus_worker.jobs import WIRE_MODELS
from morpheus_worker.library import Library
from morpheus_worker.manifest import ManifestError
from morpheus_worker.settings import Settings
from morpheus_worker.templates.describe import describe
from morpheus_worker.volume import wait_for_volume

LONGEST_NAME: Final = 40
"""Columns of a terminal that a name in a table gets at most before it is folded."""


def schema() -> int:
    """The JSON Schema of everything that crosses the wire, one key a model."""
    print(json.dumps({model.__name__: model.model_json_schema() for model in WIRE_MODELS}, indent=2))
    return entry.EXIT_OK


def config(settings: Settings) -> int:
    print_table(("setting", "value", "meaning"), settings.table())
    return entry.EXIT_OK


def workflows_list(settings: Settings) -> int:
    library = _library(settings)
    rows = [(t.name, ", ".join(t.about.aliases), t.about.title or t.about.description) for t in library]
    print_table(("workflow", "aliases", "what it does"), rows)
    return _warned(library)


def workflows_show(name: str, settings: Settings) -> int:
    """What a workflow does, and its params with types, ranges and defaults."""
    library = _library(settings)
    try:
        template = library.get(name)
    except MorpheusError as failure:
        print(f"morpheus: {failure.message}", file=sys.stderr)
        return entry.EXIT_USAGE
    about = template.about
    print(f"{template.name}: {about.title}\n{about.description}\n")
    rows = [
        (row.key, row.type, row.default, row.allowed, row.media, row.description)
        for row in describe(template, load_recorded())
    ]
    print_table(("param", "type", "default", "allowed", "media", "meaning"), rows)
    _print_needs(template.name, settings)
    return _warned(library)


def _print_needs(workflow: str, settings: Settings) -> None:
    """The manifest's models and node packs for a workflow."""
    try:
        needed = boot.read_manifest(settings).required_by(workflow)
    except (ManifestError, OSError) as failure:
        print(f"morpheus: the model manifest cannot be used: {failure}", file=sys.stderr)
        return
    for model in needed.models:
        print(f"needs the model {model.path}")
    for pack in needed.custom_nodes:
        print(f"needs the node pack {pack.id}")


def _library(settings: Settings) -> Library:
    """The templates as a worker would load them, completed by the recorded object info."""
    overrides = settings.volume_root / boot.OVERRIDES_FOLDER
    return Library.load(settings.workflows_dir, overrides, object_info=load_recorded())


def _warned(library: Library) -> int:
    for sentence in library.warnings:
        print(f"morpheus: {sentence}", file=sys.stderr)
    return entry.EXIT_FAILED if library.problems else entry.EXIT_OK


def link(settings: Settings) -> int:
    """Links the volume into ComfyUI as the boot does, and says what was found."""
    if settings.child_dir is None:
        print("morpheus: set MORPHEUS_COMFYUI_DIR to the ComfyUI to link into", file=sys.stderr)
        return entry.EXIT_USAGE
    try:
        folders = boot.comfyui_folders(settings.child_dir, settings)
        wait_for_volume(settings.volume_root, deadline=Deadline.after(0.0))
        print(boot.link_volume(settings, folders).summary())
        for absent in boot.missing_entries(settings, folders):
            print(f"not on the volume: {absent}")
    except (MorpheusError, ManifestError, OSError) as failure:
        print(f"morpheus: {failure}", file=sys.stderr)
        return entry.EXIT_FAILED
    return entry.EXIT_OK


def print_table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """A table on a terminal, tab-separated lines elsewhere."""
    if sys.stdout is None or not sys.stdout.isatty():
        for row in rows:
            print("\t".join(row))
        return
    # Folded, not cut: a file's name or a path is of no use without its end. What a row is called by stays in one piece.
    longest = max((len(row[0]) for row in rows), default=0)
    first = Column(columns[0], overflow="fold", min_width=min(longest, LONGEST_NAME))
    headers = (Column(name, overflow="fold") for name in columns[1:])
    table = Table(first, *headers, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)

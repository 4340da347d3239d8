"""What the command line prints about the worker itself."""

from __future__ import annotations

import json
import sys

from morpheus_worker import boot, entry
from morpheus_worker.cli.terminal import print_table
from morpheus_worker.deadlines import Deadline
from morpheus_worker.errors import MorpheusError
from morpheus_worker.jobs import WIRE_MODELS
from morpheus_worker.linking import how_to_get
from morpheus_worker.manifest import ManifestError
from morpheus_worker.settings import Settings
from morpheus_worker.volume import wait_for_volume


def schema() -> int:
    """The JSON Schema of everything that crosses the wire, one key a model."""
    print(json.dumps({model.__name__: model.model_json_schema() for model in WIRE_MODELS}, indent=2))
    return entry.EXIT_OK


def config(settings: Settings) -> int:
    print_table(("setting", "value", "meaning"), settings.table())
    return entry.EXIT_OK


def link(settings: Settings) -> int:
    """Links the volume into ComfyUI as the boot does, and says what was found."""
    if settings.child_dir is None:
        print("morpheus: set MORPHEUS_COMFYUI_DIR to the ComfyUI to link into", file=sys.stderr)
        return entry.EXIT_USAGE
    try:
        folders = boot.comfyui_folders(settings.child_dir, settings)
        wait_for_volume(settings.volume_root, deadline=Deadline.after(0.0))
        manifest, failure = boot.try_manifest(settings)
        print(boot.link_volume(settings, folders, manifest).summary())
        if failure is not None:
            raise failure
        absent = boot.missing_entries(settings, folders, manifest)
        for each in absent:
            print(f"not on the volume: {each}")
        if hint := how_to_get(absent):
            print(hint)
    except (MorpheusError, ManifestError, OSError) as failure:
        print(f"morpheus: {failure}", file=sys.stderr)
        return entry.EXIT_FAILED
    return entry.EXIT_OK

"""Which entries of the manifest a verb of `morpheus models` is about: by ids, or by any name of a workflow."""

from __future__ import annotations

from collections.abc import Sequence

from morpheus_worker.cli.models_printing import tell
from morpheus_worker.errors import Problem
from morpheus_worker.manifest import Manifest
from morpheus_worker.settings import Settings
from morpheus_worker.syncing.outcomes import Selection
from morpheus_worker.syncing.work import Work


def chosen(work: Work, ids: Sequence[str], workflow: str | None) -> Selection:
    """What `Work.select` selects, for a workflow's aliases, too. A workflow that needs nothing of the manifest selects
    nothing, and that is said.

    Raises:
        SyncError: `invalid`, with every unknown name and the nearest known one.
    """
    if workflow is None or _names(work.manifest, workflow):
        return work.select(ids, workflow)
    own = _own_name(work.settings, workflow)
    if own is None or _names(work.manifest, own):
        return work.select(ids, own or workflow)
    tell(Problem("", f"the workflow '{own}' needs no model and no node pack of {work.manifest.name}"))
    return work.select(ids) if ids else Selection((), ())


def _names(manifest: Manifest, workflow: str) -> bool:
    needed = manifest.required_by(workflow)
    return bool(needed.models or needed.custom_nodes)


def _own_name(settings: Settings, name: str) -> str | None:
    """The name of the workflow that is called so, or None. The templates are read only where no entry says it."""
    from morpheus_worker.library import OVERRIDES_FOLDER, Library

    library = Library.load(settings.workflows_dir, settings.volume_root / OVERRIDES_FOLDER)
    own = library.aliases.get(name, name)
    return own if own in library.templates or own in library.broken else None

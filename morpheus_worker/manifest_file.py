"""The manifest that the settings name, from its file."""

from __future__ import annotations

from morpheus_worker.errors import Problem
from morpheus_worker.manifest import Manifest, ManifestError, parse_manifest
from morpheus_worker.settings import Settings


def read_manifest(settings: Settings) -> Manifest:
    """
    Raises:
        ManifestError: with every problem; the file that is no text among them.
        OSError: when it cannot be read.
    """
    try:
        text = settings.manifest.read_text(encoding="utf-8")
    except UnicodeDecodeError as failure:
        raise ManifestError([Problem(settings.manifest.name, "is not UTF-8", "save it as UTF-8")]) from failure
    return parse_manifest(text, name=settings.manifest.name)

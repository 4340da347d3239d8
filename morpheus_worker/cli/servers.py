"""`morpheus rehearse` and `morpheus gateway`: the servers that run beside a worker."""

from __future__ import annotations

import argparse
import sys

from morpheus_worker import entry
from morpheus_worker.errors import MorpheusError
from morpheus_worker.manifest import ManifestError
from morpheus_worker.manifest_file import read_manifest
from morpheus_worker.settings import Settings


def rehearse(asked: argparse.Namespace, settings: Settings) -> int:
    """Serves the rehearsal engine until SIGTERM or SIGINT. The manifest's models count as present."""
    from morpheus_worker.rehearsal import FaultError, Faults, PacksError, parse_packs, serve

    try:
        serve(
            asked.host,
            asked.port,
            asked.base_directory,
            faults=Faults.parse(asked.fault),
            step_s=asked.step_s,
            model_names=_manifest_names(settings),
            packs=parse_packs(asked.packs),
        )
    except (FaultError, PacksError, ManifestError) as failure:
        return _refused(str(failure), entry.EXIT_USAGE)
    except OSError as failure:
        return _unserved(asked, failure)
    return entry.EXIT_OK


def gateway(asked: argparse.Namespace, _settings: Settings) -> int:
    """Serves the outputs of a volume until SIGTERM or SIGINT."""
    from morpheus_worker.gateway import NotLoopbackError, serve

    try:
        serve(asked.root, asked.host, asked.port, allow_public=asked.allow_public)
    except NotLoopbackError as failure:
        return _refused(f"{failure} (--allow-public)", entry.EXIT_USAGE)
    except MorpheusError as failure:
        return _refused(failure.message, entry.EXIT_FAILED)
    except OSError as failure:
        return _unserved(asked, failure)
    return entry.EXIT_OK


def _manifest_names(settings: Settings) -> dict[str, list[str]]:
    """Model folder → the files that the manifest has in it."""
    manifest = read_manifest(settings)
    names: dict[str, list[str]] = {}
    for place in (place for model in manifest.models for place in (model.path, *model.also)):
        folder, _, name = str(place).partition("/")
        names.setdefault(folder, []).append(name)
    return names


def _unserved(asked: argparse.Namespace, failure: OSError) -> int:
    if failure.filename is not None:
        return _refused(f"{failure.filename} cannot be used: {failure.strerror}", entry.EXIT_FAILED)
    return _refused(f"{asked.host}:{asked.port} cannot be listened on: {failure.strerror}", entry.EXIT_FAILED)


def _refused(sentence: str, exit_code: int) -> int:
    print(f"morpheus: {sentence}", file=sys.stderr)
    return exit_code

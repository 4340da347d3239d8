"""What can be asked of `morpheus models`, and which module answers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TypeAlias

from morpheus_worker import entry
from morpheus_worker.cli.arguments import AnyOrder, Commands, command

Verbs: TypeAlias = "Commands[argparse.ArgumentParser]"

EPILOG = """\
examples:
  morpheus models plan                                 what a sync would fetch, and whether there is room
  morpheus models sync                                 everything in the manifest, onto the volume
  morpheus models sync --workflow sdxl_txt2img         what one workflow needs
  morpheus models sync --to s3://bucket/prefix         into a bucket
  morpheus models add hf:owner/name/model.safetensors  a new entry for the manifest
  morpheus models verify --full                        reads and hashes every file

exit codes:
  0    it was done
  1    something failed, or verify found something
  2    it was asked in a way that cannot be done
  130  interrupted from the keyboard; 143: asked to end. The next run goes on from there.
"""


def add_models(commands: Verbs) -> None:
    parser = commands.add_parser(
        "models",
        help="fill the volume with models and node packs, and see what is there",
        description="Fills the volume with what the manifest lists, and sees what is there. See docs/models.md.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs: Verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True, parser_class=AnyOrder)
    _add_plan(verbs)
    _add_sync(verbs)
    _add_status(verbs)
    _add_verify(verbs)
    _add_adopt(verbs)
    _add_prune(verbs)
    _add_add(verbs)
    _add_lock(verbs)
    _add_import(verbs)
    _add_request(verbs)
    _add_requests(verbs)
    _add_worker(verbs)


def _add_plan(verbs: Verbs) -> None:
    parser = command(verbs, "plan", "say what a sync would do, and whether there is room for it", _plan)
    _selected(parser)
    _to(parser)
    parser.add_argument("--replace", action="store_true", help="as with sync --replace")
    _json(parser)


def _add_sync(verbs: Verbs) -> None:
    parser = command(verbs, "sync", "fetch what is not there yet", _sync)
    _selected(parser)
    _to(parser)
    parser.add_argument("--replace", action="store_true", help="replace files that are not what the manifest wants")
    parser.add_argument("--no-hash", action="store_true", help="trust size and format where no hash is known: faster")
    _shown(parser)


def _add_status(verbs: Verbs) -> None:
    parser = command(verbs, "status", "list the entries and whether each is there", _status)
    _selected(parser)
    parser.add_argument(
        "--requirements", action="store_true", help="print only what the node packs need of pip, for an image"
    )
    _json(parser)


def _add_verify(verbs: Verbs) -> None:
    parser = command(verbs, "verify", "see whether what is there is what it should be", _verify)
    _selected(parser)
    parser.add_argument("--full", action="store_true", help="read and hash every file, not only sizes and times")
    _shown(parser)


def _add_adopt(verbs: Verbs) -> None:
    parser = command(verbs, "adopt", "take over files that were put there by hand: hash them once", _adopt)
    _selected(parser)
    _shown(parser)


def _add_prune(verbs: Verbs) -> None:
    parser = command(verbs, "prune", "list what nobody needs any more; delete nothing unless told to", _prune)
    parser.add_argument("--unlisted", action="store_true", help="also files that the manifest does not list")
    parser.add_argument("--delete", action="store_true", help="delete what is listed")
    _json(parser)


def _add_add(verbs: Verbs) -> None:
    parser = command(verbs, "add", "add an entry to the manifest, with what its host knows of it", _add)
    parser.add_argument(
        "ref",
        metavar="URL|REF",
        help="a page or file of Hugging Face or Civitai, a Git repository, hf:owner/name/file[@revision], "
        "civitai:VERSION[:FILE], s3://bucket/key, gs://bucket/key or https://…",
    )
    parser.add_argument("--id", default=None, help="the entry's id (default: the file's name)")
    parser.add_argument(
        "--path", default=None, help="where in the cache: checkpoints/name.safetensors, or checkpoints/"
    )
    parser.add_argument("--workflow", action="append", default=[], metavar="W", help="a workflow that needs it")
    parser.add_argument("--allow-pickle", action="store_true", help="take a format that may run code when it is loaded")
    parser.add_argument(
        "--auth-env", default=None, metavar="NAME", help="the variable with the key that the host wants"
    )
    parser.add_argument(
        "--to", type=Path, default=None, metavar="FILE", help="the manifest file (default: the one in use)"
    )
    _json(parser)


def _add_lock(verbs: Verbs) -> None:
    parser = command(verbs, "lock", "write down which version, size and hash each source has now", _lock)
    _selected(parser, by_workflow=False)
    _shown(parser)


def _add_import(verbs: Verbs) -> None:
    parser = command(verbs, "import", "make a manifest of an older resource list", _import)
    parser.add_argument("file", type=Path, metavar="OLD.txt", help="lines of GIT, URL_AUTH and MODEL")
    parser.add_argument("--to", type=Path, default=Path("-"), metavar="FILE", help="the manifest to write (default: -)")
    parser.add_argument("--force", action="store_true", help="replace the file if it is there")
    _json(parser)


def _add_request(verbs: Verbs) -> None:
    parser = command(verbs, "request", "ask the sync service for a model", _request)
    parser.add_argument("id", metavar="ID", help="an entry of the manifest, or with --source a name of your own")
    parser.add_argument("--source", default=None, metavar="REF", help="where it is, for what no manifest lists")
    parser.add_argument("--to", default=None, metavar="URI", help="s3://bucket/prefix or gs://… (default: the volume)")
    parser.add_argument("--name", default=None, help="the model's name, which the file's is made of")
    parser.add_argument("--path", default=None, help="its place in the cache, instead of one made of the name")
    parser.add_argument("--again", action="store_true", help="even if it was synced before")
    _json(parser)


def _add_requests(verbs: Verbs) -> None:
    _json(command(verbs, "requests", "list what the sync service was asked for", _requests))


def _add_worker(verbs: Verbs) -> None:
    parser = command(verbs, "worker", "run the sync service: take what is asked for and sync it", _worker)
    parser.add_argument("--once", action="store_true", help="end when nothing is left to do")
    parser.add_argument("--to", default=None, metavar="URI", help="where to, for requests that do not say")
    _shown(parser)


# Arguments that several verbs have.


def _selected(parser: argparse.ArgumentParser, *, by_workflow: bool = True) -> None:
    parser.add_argument("id", nargs="*", metavar="ID", help="entries of the manifest (default: all)")
    if by_workflow:
        parser.add_argument("--workflow", default=None, metavar="W", help="what this workflow needs")


def _to(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--to", default=None, metavar="URI", help="s3://bucket/prefix or gs://… (default: the volume)")


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON document, for machines")


def _shown(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON line an event, the last one the summary")
    parser.add_argument("--quiet", action="store_true", help="say only what went wrong")


# What answers, imported when it is asked.


def _plan(asked: argparse.Namespace) -> int:
    from morpheus_worker.cli.models_looking import plan

    return plan(asked, entry.configured())


def _sync(asked: argparse.Namespace) -> int:
    from morpheus_worker.cli.models import sync

    return sync(asked, entry.configured())


def _status(asked: argparse.Namespace) -> int:
    from morpheus_worker.cli.models_looking import status

    return status(asked, entry.configured())


def _verify(asked: argparse.Namespace) -> int:
    from morpheus_worker.cli.models import verify

    return verify(asked, entry.configured())


def _adopt(asked: argparse.Namespace) -> int:
    from morpheus_worker.cli.models import adopt

    return adopt(asked, entry.configured())


def _prune(asked: argparse.Namespace) -> int:
    from morpheus_worker.cli.models_looking import prune

    return prune(asked, entry.configured())


def _add(asked: argparse.Namespace) -> int:
    from morpheus_worker.cli.models_manifest import add

    return add(asked, entry.configured())


def _lock(asked: argparse.Namespace) -> int:
    from morpheus_worker.cli.models_manifest import lock

    return lock(asked, entry.configured())


def _import(asked: argparse.Namespace) -> int:
    from morpheus_worker.cli.models_manifest import import_old

    return import_old(asked, entry.configured())


def _request(asked: argparse.Namespace) -> int:
    from morpheus_worker.cli.models_requests import request

    return request(asked, entry.configured())


def _requests(asked: argparse.Namespace) -> int:
    from morpheus_worker.cli.models_requests import requests

    return requests(asked, entry.configured())


def _worker(asked: argparse.Namespace) -> int:
    from morpheus_worker.cli.models_requests import worker

    return worker(asked, entry.configured())

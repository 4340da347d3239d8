"""`morpheus models plan`, `status` and `prune`: what would be done, what is there, and what nobody needs any more."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from morpheus_worker import entry
from morpheus_worker.cli.choosing import chosen
from morpheus_worker.cli.models_failing import answering, as_problem
from morpheus_worker.cli.models_printing import (
    counted,
    print_json,
    print_rows,
    remark,
    tell,
    tell_failures,
    tell_left_out,
)
from morpheus_worker.cli.models_stopping import Stopping
from morpheus_worker.errors import Problem
from morpheus_worker.manifest import ModelEntry
from morpheus_worker.settings import Settings
from morpheus_worker.sync.amounts import size_text
from morpheus_worker.sync.planning import LOCK_HINT, Action, Plan
from morpheus_worker.syncing.outcomes import EntryStatus, PruneReport, Selection
from morpheus_worker.syncing.work import Work

DOES: Final = {
    "get": "fetch",
    "replace": "fetch, replacing",
    "hash": "hash",
    "present": "there",
    "unverified": "there, not verified",
    "refuse": "refused",
}
"""What a plan calls what will be done."""

STATES: Final = {
    "present": "there",
    "changed": "changed since its receipt",
    "unreceipted": "there, not verified",
    "absent": "missing",
    "other": "another version",
}
PACK_STATES: Final = {**STATES, "unreceipted": "put there by hand", "other": "another commit"}


@answering
def plan(asked: argparse.Namespace, settings: Settings) -> int:
    """What a sync would do. 1 when it could not do all of it."""
    from morpheus_worker.syncing.foreseeing import plan as planned

    with Work.of(settings) as work, Stopping(tell) as stopping:
        selection = chosen(work, asked.id, asked.workflow)
        made = planned(work, selection, destination=asked.to, replace=asked.replace, stop=stopping.stop)
    if asked.json:
        print_json({"ok": made.ok, **made.as_dict()})
    else:
        _print_plan(asked, selection, made)
    return entry.EXIT_OK if made.ok else entry.EXIT_FAILED


def _print_plan(asked: argparse.Namespace, selection: Selection, made: Plan) -> None:
    rows = [(action.id, DOES[action.what], _size_of(action), str(action.path), action.why) for action in made.actions]
    print_rows(("entry", "what", "size", "path", "why"), rows)
    free = f"; {size_text(made.free)} are free there" if made.free is not None else ""
    remark(f"to {made.destination}: {_to_fetch(made)}{free}", asked)
    tell_left_out(asked, selection)
    if not made.fits:
        short = made.bytes - (made.free or 0)
        said = f"there is no room for all of it: {size_text(short)} more are needed"
        tell(Problem("", said, "'morpheus models prune' says what could go"))
    tell_failures([as_problem(action.id, action.problem) for action in made.problems if action.problem is not None])


def _to_fetch(made: Plan) -> str:
    fetched, unknown = sum(action.fetches for action in made.actions), len(made.unknown)
    sizes = [size_text(made.bytes)] if fetched > unknown else []
    sizes += [f"{unknown if sizes else 'all'} of unknown size"] if unknown else []
    said = f"{counted(fetched, 'entry')} to fetch, {' and '.join(sizes)}" if fetched else "nothing to fetch"
    return said + (f", {len(made.problems)} refused" if made.problems else "")


def _size_of(action: Action) -> str:
    if not action.fetches:
        return ""
    return "unknown" if action.bytes is None else size_text(action.bytes)


@answering
def status(asked: argparse.Namespace, settings: Settings) -> int:
    """Every entry and how the volume stands to it, by receipts alone; or what the node packs ask pip for."""
    from morpheus_worker.syncing.standing import status as looked_at

    with Work.of(settings) as work:
        found = looked_at(work, chosen(work, asked.id, asked.workflow))
        known = {model.id: _known(model, work) for model in work.manifest.models}
    if asked.requirements:
        return _requirements(found, as_json=asked.json)
    if asked.json:
        entries = [{**each.as_dict(), **known.get(each.id, _NOTHING).as_dict()} for each in found]
        print_json({"ok": all(each.ok for each in found), "cache": str(settings.cache_dir), "entries": entries})
        return entry.EXIT_OK
    rows = [_status_row(each, known.get(each.id, _NOTHING)) for each in found]
    print_rows(("entry", "state", "size", "hash", "licence"), rows)
    counts = Counter(_state_of(each) for each in found)
    said = "; ".join(f"{count} {state}" for state, count in counts.items()) or "no entries"
    remark(f"{settings.cache_dir}: {said}", asked)
    tell(*(Problem(each.id, each.stale, LOCK_HINT) for each in found if each.stale))
    return entry.EXIT_OK


@dataclass(frozen=True, slots=True)
class _Known:
    """What manifest and lock say of a model, whether it is there or not."""

    license: str | None = None
    wanted_bytes: int | None = None
    wanted_sha256: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


_NOTHING: Final = _Known()


def _known(model: ModelEntry, work: Work) -> _Known:
    wanted, locked = work.wanted(model), work.lock.models.get(model.id)
    return _Known(model.license or (locked.license if locked else None), wanted.size, wanted.sha256)


def _state_of(each: EntryStatus) -> str:
    return (PACK_STATES if each.kind == "pack" else STATES)[each.state]


def _status_row(each: EntryStatus, known: _Known) -> tuple[str, ...]:
    if each.kind == "pack":
        return each.id, _state_of(each) + (f" (commit {each.version[:12]})" if each.version else ""), "", "", ""
    size = each.size if each.size is not None else known.wanted_bytes
    hashed = "verified" if each.sha256 else "known" if known.wanted_sha256 else "not known"
    return each.id, _state_of(each), "" if size is None else size_text(size), hashed, known.license or ""


def _requirements(found: Sequence[EntryStatus], *, as_json: bool) -> int:
    """Each line once. A pack that is not there is told, unless the manifest or the lock says what it asks for."""
    packs = [each for each in found if each.kind == "pack"]
    what = "is not there, so what it asks pip for is not known"
    unknown = [each for each in packs if each.requirements is None]
    absent = [Problem(each.id, what, "'morpheus models sync' fetches it") for each in unknown]
    lines = sorted({line for each in packs for line in each.requirements or ()}, key=str.casefold)
    if as_json:
        by_pack = {each.id: None if each.requirements is None else list(each.requirements) for each in packs}
        print_json({"ok": not absent, "requirements": lines, "packs": by_pack})
    else:
        print("".join(f"{line}\n" for line in lines), end="")
    tell(*absent)
    return entry.EXIT_FAILED if absent else entry.EXIT_OK


@answering
def prune(asked: argparse.Namespace, settings: Settings) -> int:
    """What nobody needs any more. Deletes only where it is told to."""
    from morpheus_worker.syncing.pruning import prune as pruned

    with Work.of(settings) as work:
        report = pruned(work, delete=asked.delete, unlisted=asked.unlisted)
    if asked.json:
        print_json({"ok": report.ok, **report.as_dict()})
    else:
        _print_pruned(asked, report)
    return entry.EXIT_OK if report.ok else entry.EXIT_FAILED


def _print_pruned(asked: argparse.Namespace, report: PruneReport) -> None:
    print_rows(("path", "size", "why"), [(str(item.path), size_text(item.bytes), item.why) for item in report.items])
    what = f"{counted(len(report.items), 'thing')}, {size_text(report.bytes)}"
    if not report.items:
        remark("there is nothing to delete", asked)
    elif report.deleted:
        remark(f"deleted {what}", asked)
    else:
        remark(f"{what} could go; nothing was deleted, --delete does it", asked)
    tell_failures([Problem(str(item.path), item.why) for item in report.kept])

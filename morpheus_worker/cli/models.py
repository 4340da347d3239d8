"""`morpheus models sync`, `verify` and `adopt`: the verbs that run for long, and what they come to."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Collection
from typing import Final

from morpheus_worker import entry
from morpheus_worker.cli.choosing import chosen
from morpheus_worker.cli.models_failing import answering, as_problem
from morpheus_worker.cli.models_printing import (
    counted,
    duration_text,
    remark,
    tell_failures,
    tell_left_out,
)
from morpheus_worker.cli.models_progress import running
from morpheus_worker.errors import Problem
from morpheus_worker.settings import Settings
from morpheus_worker.sync.amounts import size_text
from morpheus_worker.sync.planning import ADOPT_HINT
from morpheus_worker.sync.terms import SyncCode
from morpheus_worker.syncing.outcomes import AdoptReport, Finding, Outcome, Selection, Summary, VerifyReport
from morpheus_worker.syncing.work import Work

FETCHED: Final = "'morpheus models sync' fetches it"
DELETED: Final = "if it is broken for good, delete it: 'morpheus models sync' then fetches it anew"
"""A sync believes a receipt for as long as size and time are the same, so that it leaves such a file alone."""
HELP: Final = {
    "model": {
        "missing": FETCHED,
        "changed": "'morpheus models sync' sees to it, with --replace also where it is not what a sync fetched",
        "corrupt": DELETED,
        "unverified": ADOPT_HINT,
    },
    "pack": {
        "missing": FETCHED,
        "changed": "'morpheus models sync' fetches the commit that is wanted",
        "corrupt": DELETED,
        "unverified": "'morpheus models adopt' takes a clone of the wanted commit over, and 'morpheus models sync "
        "--replace' fetches it anew",
    },
}
"""What to do about each thing that verify finds, by the kind of entry."""


@answering
def sync(asked: argparse.Namespace, settings: Settings) -> int:
    """Fetches what is not there. 1 when something could not be had."""
    from morpheus_worker.syncing.running import sync as synced

    with Work.of(settings) as work:
        selection = chosen(work, asked.id, asked.workflow)
        with running(asked) as (display, stopping):
            summary = synced(
                work,
                selection,
                destination=asked.to,
                replace=asked.replace,
                hashing=not asked.no_hash,
                on_event=display,
                stop=stopping.stop,
            )
            display.summary({"event": "summary", **summary.as_dict()})
    if not asked.quiet:
        _tell_summary(asked, selection, summary)
    tell_failures([as_problem(each.id, each.error) for each in summary.failed if each.error and not _is_cut(each)])
    return stopping.exit_code(entry.EXIT_OK if summary.ok else entry.EXIT_FAILED)


def _is_cut(outcome: Outcome) -> bool:
    """Whether somebody stopped it, rather than something."""
    return outcome.error is not None and outcome.error.code is SyncCode.INTERRUPTED


def _tell_summary(asked: argparse.Namespace, selection: Selection, summary: Summary) -> None:
    packs = {pack.id for pack in selection.packs}
    counts = Counter(_became(outcome, packs) for outcome in summary.outcomes.values())
    moved = f" ({_pace(summary.received, summary.seconds)})" if summary.received else ""
    said = {
        "fetched": f"{counts['fetched']} fetched{moved}",
        "present": f"{counts['present']} there already",
        "adopted": f"{counts['adopted']} compared and taken over",
        "unverified": f"{counts['unverified']} there, not verified: no source says what it should be",
        "by hand": f"{counted(counts['by hand'], 'node pack')} put there by hand, and left alone without --replace",
        "failed": f"{counts['failed']} failed",
        "cut": f"{counts['cut']} not finished",
    }
    remark(", ".join(words for action, words in said.items() if counts[action]) or "there was nothing to do", asked)
    tell_left_out(asked, selection)
    if asking := len(summary.requirements):
        packs_ask = f"{counted(asking, 'node pack')} {'asks' if asking == 1 else 'ask'}"
        remark(
            f"{packs_ask} for Python packages: 'morpheus models status --requirements' lists them for the image", asked
        )


def _became(outcome: Outcome, packs: Collection[str]) -> str:
    if _is_cut(outcome):
        return "cut"
    return "by hand" if outcome.action == "unverified" and outcome.id in packs else outcome.action


def _pace(received: int, seconds: float) -> str:
    speed = f", {size_text(round(received / seconds))}/s" if seconds > 0 else ""
    return f"{size_text(received)} in {duration_text(seconds)}{speed}"


@answering
def verify(asked: argparse.Namespace, settings: Settings) -> int:
    """Whether what is there is what it should be. 1 when something is not, or cannot be told."""
    from morpheus_worker.syncing.verifying import verify as verified

    with Work.of(settings) as work:
        selection = chosen(work, asked.id, asked.workflow)
        with running(asked) as (display, stopping):
            report = verified(work, selection, full=asked.full, on_event=display, stop=stopping.stop)
            display.summary({"event": "summary", **report.as_dict()})
    if not asked.quiet:
        _tell_verified(asked, report)
    wrong = [finding for finding in report.findings if finding.what != "ok"]
    tell_failures([_wrong(each) for each in wrong])
    return stopping.exit_code(entry.EXIT_OK if report.ok else entry.EXIT_FAILED)


def _wrong(found: Finding) -> Problem:
    help_here = HELP[found.kind][found.what]
    return Problem(found.id, found.why or f"is {found.what}", help_here if help_here not in found.why else None)


def _tell_verified(asked: argparse.Namespace, report: VerifyReport) -> None:
    good = len(report.of("ok"))
    how = "hash" if report.full else "size and time; --full reads every byte"
    remark(f"{good} of {counted(len(report.findings), 'entry')} as they should be, by {how}", asked)


@answering
def adopt(asked: argparse.Namespace, settings: Settings) -> int:
    """Hashes what has no receipt. 1 when a file is not what the lock or the manifest says."""
    from morpheus_worker.syncing.adopting import adopt as adopted

    with Work.of(settings) as work:
        selection = chosen(work, asked.id, asked.workflow)
        with running(asked) as (display, stopping):
            report = adopted(work, selection, on_event=display, stop=stopping.stop)
            display.summary({"event": "summary", **report.as_dict()})
    if not asked.quiet:
        _tell_adopted(asked, report)
    refused = [file for file in report.files if file.what == "refused"]
    tell_failures([Problem(file.id or str(file.path), file.why) for file in refused])
    return stopping.exit_code(entry.EXIT_OK if report.ok else entry.EXIT_FAILED)


def _tell_adopted(asked: argparse.Namespace, report: AdoptReport) -> None:
    taken = [file for file in report.files if file.what == "adopted"]
    files = [file for file in taken if file.sha256 is not None]
    said = f"{counted(len(files), 'file')} taken over ({size_text(sum(file.size for file in files))})"
    packs = f", {counted(len(taken) - len(files), 'node pack')} taken over" if len(taken) > len(files) else ""
    remark(f"{said}{packs}, {report.known} had a receipt already", asked)

"""How a verb of `morpheus models` that cannot be answered ends: what is wrong in sentences, and an exit code."""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

from morpheus_worker import entry
from morpheus_worker.cli.models_printing import is_terminal, print_json, tell
from morpheus_worker.errors import Problem
from morpheus_worker.manifest import ManifestError
from morpheus_worker.settings import Settings
from morpheus_worker.sync.terms import SyncCode, SyncError

Verb = Callable[[argparse.Namespace, Settings], int]


class AskedWronglyError(Exception):
    """The command cannot be run as it was typed; `problems` are all of it."""

    def __init__(self, *problems: Problem) -> None:
        self.problems = problems
        super().__init__("; ".join(str(problem) for problem in problems))


def answering(verb: Verb) -> Verb:
    """The verb, with its failures told. A program gets them on standard output, too: where there are events as the last
    of their lines, elsewhere as the document that `--json` asks for."""

    @functools.wraps(verb)
    def answered(asked: argparse.Namespace, settings: Settings) -> int:
        try:
            return verb(asked, settings)
        except (AskedWronglyError, ManifestError) as failure:
            return _told(asked, failure.problems, SyncCode.INVALID)
        except SyncError as failure:
            return _told(asked, [Problem("", failure.what, failure.hint)], failure.code)

    return answered


def as_problem(at: str, failure: SyncError) -> Problem:
    return Problem(at, failure.what, failure.hint)


def named(subject: str, failure: SyncError, hint: str | None = None) -> SyncError:
    """The same failure, saying of what where it does not by itself; with `hint` where it has none."""
    what = failure.what if subject in failure.what else f"{subject}: {failure.what}"
    return SyncError(failure.code, what, failure.hint or hint)


def _told(asked: argparse.Namespace, problems: Sequence[Problem], code: SyncCode) -> int:
    tell(*problems)
    said: dict[str, Any] = {"ok": False, "code": str(code), "problems": [each.as_dict() for each in problems]}
    has_events = "quiet" in asked
    if has_events and (asked.json or not (asked.quiet or is_terminal())):
        print(json.dumps({"event": "summary", **said}, ensure_ascii=False))
    elif asked.json:
        print_json(said)
    return entry.EXIT_USAGE if code is SyncCode.INVALID else entry.EXIT_FAILED

"""`morpheus models add`, `lock` and `import`: the verbs that write a manifest or its lock."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import morpheus_worker
from morpheus_worker import entry
from morpheus_worker.cli.models_failing import AskedWronglyError, answering, as_problem, named
from morpheus_worker.cli.models_printing import (
    counted,
    is_aside,
    print_json,
    print_rows,
    remark,
    tell,
    tell_failures,
)
from morpheus_worker.cli.models_progress import running
from morpheus_worker.cli.models_stopping import Stopping
from morpheus_worker.cli.writing import STANDARD_OUTPUT, write_whole
from morpheus_worker.errors import Problem
from morpheus_worker.manifest import Manifest, ModelEntry, PackEntry, parse_manifest
from morpheus_worker.settings import Settings
from morpheus_worker.sync.amounts import size_text
from morpheus_worker.sync.locking import Lock, Locked, LockedPack, lock_text
from morpheus_worker.sync.refs import PackRef, shown_source
from morpheus_worker.sync.terms import Source, SyncCode, SyncError

if TYPE_CHECKING:
    from morpheus_worker.sync.oldlist import OldList
    from morpheus_worker.syncing.work import Work

Change = dict[str, str]
SHORT: Final = 12
"""Digits of a hash or a commit that a table shows."""


# A new entry.


@answering
def add(asked: argparse.Namespace, settings: Settings) -> int:
    """Writes an entry behind those that the manifest has; the rest of its text stays as it is."""
    from morpheus_worker.sync.editing import new_manifest_text, with_entries
    from morpheus_worker.sync.refs import parse_ref
    from morpheus_worker.syncing.describing import described

    target = asked.to or settings.manifest
    _refuse_installed(target, "MORPHEUS_MANIFEST names one of your own; or --to FILE")
    reference = parse_ref(asked.ref)
    text = _text_of(target) if target.exists() else None
    with _work_on(settings, target, text) as work, Stopping(tell) as stopping, _told_of(reference):
        made = described(
            work,
            reference,
            entry_id=asked.id,
            path=asked.path,
            workflows=asked.workflow,
            auth_env=asked.auth_env,
            allow_pickle=asked.allow_pickle,
            stop=stopping.stop,
        )
    models, packs = ([made], []) if isinstance(made, ModelEntry) else ([], [made])
    after = new_manifest_text(models, packs) if text is None else with_entries(text, models, packs, name=target.name)
    _write(target, after, replace=text is not None)
    _tell_added(asked, made, target)
    return entry.EXIT_OK


@contextlib.contextmanager
def _told_of(reference: Source | PackRef) -> Iterator[None]:
    """What a host refuses is told of the reference; what was asked wrongly speaks for itself."""
    try:
        yield
    except SyncError as failure:
        if failure.code in (SyncCode.INVALID, SyncCode.INTERRUPTED):
            raise
        raise named(reference.repo if isinstance(reference, PackRef) else shown_source(reference), failure) from failure


def _work_on(settings: Settings, target: Path, text: str | None) -> Work:
    """Work with the manifest that is to be written to. What is locked elsewhere is of no interest to it."""
    from morpheus_worker.syncing.work import Work

    manifest = Manifest(target.name) if text is None else parse_manifest(text, name=target.name)
    return Work.of(settings, manifest=manifest, lock=Lock())


def _tell_added(asked: argparse.Namespace, made: ModelEntry | PackEntry, target: Path) -> None:
    said = {name: getattr(made, name) for name in _TOLD if getattr(made, name, None) not in (None, False, ())}
    if asked.json:
        print_json({"ok": True, "file": str(target), "entry": {"id": made.id, **said}})
        return
    print_rows(("key", "value"), [("id", made.id), *((name, _as_text(name, value)) for name, value in said.items())])
    remark(f"{target}: '{made.id}' is its last entry now", asked)
    if isinstance(made, ModelEntry) and made.gated:
        tell(Problem(made.id, "is gated", "accept its licence on its page, and set the key of that account"))


_TOLD: Final = (
    "path", "repo", "commit", "sources", "size", "sha256", "format", "license", "gated", "auth_env", "allow_pickle",
    "workflows",
)  # fmt: skip


def _as_text(name: str, value: object) -> str:
    if name == "sources" and isinstance(value, tuple):
        return ", ".join(shown_source(source) for source in value)
    if name == "size" and isinstance(value, int):
        return f"{value} ({size_text(value)})"
    return ", ".join(value) if isinstance(value, tuple) else str(value)


# The lock.


@answering
def lock(asked: argparse.Namespace, settings: Settings) -> int:
    """Asks every source what it has now, and writes that down. 1 when something could not be resolved."""
    from morpheus_worker.syncing.resolving import resolve_all
    from morpheus_worker.syncing.work import Work

    _refuse_installed(
        settings.lock_file, "MORPHEUS_MANIFEST names one of your own; or MORPHEUS_MANIFEST_LOCK another place"
    )
    with Work.of(settings) as work:
        selection = work.select(asked.id)
        with running(asked, entries=len(selection.ids)) as (display, stopping):
            after, failures = resolve_all(work, selection, display, stopping.stop)
            changed = list(_changes(work.lock, after))
            written = bool(changed) and not stopping.stop.is_set()
            if written:
                _write(settings.lock_file, lock_text(after), replace=True)
            display.summary(_lock_summary(settings.lock_file, changed, failures, written=written))
    if not asked.quiet:
        _tell_changes(asked, changed, settings.lock_file, written=written)
    tell_failures([as_problem(name, each) for name, each in failures if each.code is not SyncCode.INTERRUPTED])
    return stopping.exit_code(entry.EXIT_FAILED if failures else entry.EXIT_OK)


def _lock_summary(
    target: Path, changed: list[Change], failures: list[tuple[str, SyncError]], *, written: bool
) -> dict[str, Any]:
    failed = [{"id": name, "code": str(each.code), "error": each.what, "hint": each.hint} for name, each in failures]
    said: dict[str, Any] = {"event": "summary", "ok": not failures, "file": str(target), "written": written}
    return said | {"changed": changed, "failed": failed}


def _changes(before: Lock, after: Lock) -> Iterator[Change]:
    """What differs, an entry each: what happened to it, what it was and what it is."""
    pairs: list[tuple[str, Locked | LockedPack | None, Locked | LockedPack | None]] = []
    pairs += [(name, before.models.get(name), after.models.get(name)) for name in {**before.models, **after.models}]
    pairs += [(name, before.packs.get(name), after.packs.get(name)) for name in {**before.packs, **after.packs}]
    for name, old, new in pairs:
        if old != new:
            what = "new" if old is None else "removed" if new is None else "changed"
            was, now = _version_of(old), _version_of(new)
            if was == now:
                was, now = _version_of(old, exactly=True), _version_of(new, exactly=True)
            yield {"id": name, "what": what, "was": was, "is": now}


def _version_of(held: Locked | LockedPack | None, *, exactly: bool = False) -> str:
    """What tells one version from another, as short as a table wants it; `exactly`, where that shows no difference."""
    if held is None:
        return ""
    if isinstance(held, LockedPack):
        asked = "" if held.requirements is None else f", {counted(len(held.requirements), 'requirement')}"
        return f"commit {held.commit[:SHORT]}" + (f", {held.repo}{asked}" if exactly else "")
    size = "" if held.size is None else f"{held.size:,} bytes" if exactly else size_text(held.size)
    if exactly:
        return ", ".join(part for part in (size, shown_source(held.source), held.format, held.license) if part)
    revision = f"revision {str(held.source['revision'])[:SHORT]}" if "revision" in held.source else ""
    sha256 = f"sha256 {held.sha256[:SHORT]}" if held.sha256 else ""
    return ", ".join(part for part in (size, revision, sha256) if part)


def _tell_changes(asked: argparse.Namespace, changed: list[Change], target: Path, *, written: bool) -> None:
    rows = [(row["id"], row["what"], row["was"], row["is"]) for row in changed]
    print_rows(("entry", "what", "was", "is"), rows, aside=is_aside(asked))
    said = f"{counted(len(changed), 'entry')} changed" if written else "nothing changed, so it was not written"
    remark(f"{target}: {said}", asked)


# The older list.


@answering
def import_old(asked: argparse.Namespace, _settings: Settings) -> int:
    """A manifest of an older resource list. 1 when lines had to be left out."""
    from morpheus_worker.sync.editing import new_manifest_text
    from morpheus_worker.sync.oldlist import read_old_list

    if asked.to != STANDARD_OUTPUT and asked.to.exists() and not asked.force:
        raise AskedWronglyError(Problem(str(asked.to), "is there already", "--force replaces it"))
    found = read_old_list(_text_of(asked.file), name=asked.file.name)
    if not found.models and not found.packs:
        raise AskedWronglyError(*found.problems, Problem(str(asked.file), "names no model and no node pack"))
    text = new_manifest_text(found.models, found.packs)
    if asked.to != STANDARD_OUTPUT:
        _write(asked.to, text, replace=asked.force)
    _tell_imported(asked, found, text)
    return entry.EXIT_FAILED if found.problems else entry.EXIT_OK


def _tell_imported(asked: argparse.Namespace, found: OldList, text: str) -> None:
    printed = asked.to == STANDARD_OUTPUT
    if asked.json:
        said: dict[str, Any] = {"ok": not found.problems, "file": None if printed else str(asked.to)}
        said |= {"models": len(found.models), "custom_nodes": len(found.packs)}
        said |= {"remarks": [each.as_dict() for each in found.remarks]}
        said |= {"problems": [each.as_dict() for each in found.problems]}
        print_json(said | ({"manifest": text} if printed else {}))
    elif printed:
        print(text, end="")
    tell(*found.remarks)
    tell_failures(found.problems)
    count = f"{counted(len(found.models), 'model')} and {counted(len(found.packs), 'node pack')}"
    if not asked.json:
        tell(count if printed else f"{asked.to}: {count}")


# Files.


def _text_of(file: Path) -> str:
    """With the ends of its lines as they are."""
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            return stream.read()
    except UnicodeDecodeError:
        raise AskedWronglyError(Problem(str(file), "is not UTF-8")) from None
    except OSError as failure:
        raise AskedWronglyError(Problem(str(file), f"cannot be read: {failure.strerror}")) from failure


def _write(target: Path, text: str, *, replace: bool) -> None:
    try:
        write_whole(target, text, replace=replace)
    except FileExistsError:
        raise AskedWronglyError(Problem(str(target), "is there already", "--force replaces it")) from None
    except OSError as failure:
        raise SyncError(SyncCode.VOLUME, f"{target} cannot be written: {failure.strerror}") from failure


def _refuse_installed(target: Path, hint: str) -> None:
    """What came with an installed package is the package's: an update would take the changes away."""
    if target.is_relative_to(Path(morpheus_worker.__file__).parent):
        raise AskedWronglyError(Problem(str(target), "came with the package, and is not written to", hint))

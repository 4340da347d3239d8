"""Links from ComfyUI's folders into the volume, so that ComfyUI finds models and node packs that it does not hold.

A source is a folder of the volume whose sub-folders carry ComfyUI's names (`checkpoints`, `loras`, …), with custom node
packs beside them or under `custom_nodes`. ComfyUI reads both the older and the newer name of a folder (`unet` and
`diffusion_models`, `clip` and `text_encoders`; 0.3.64, folder_paths.py), so the names stay as they are.

The volume is slow on metadata: each of its folders is listed once, nothing is opened, and a folder that is linked as
one is not looked into.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, Literal

from morpheus_worker.comfy.launch import ComfyFolders
from morpheus_worker.errors import Code, MorpheusError
from morpheus_worker.manifest import PACKS_FOLDER, UNFINISHED, Manifest, ModelEntry
from morpheus_worker.sync.advice import command_for, hint_for

VOLUME_ROOTS: Final = (Path("/runpod-volume"), Path("/workspace"))
"""Where network volumes are mounted, on workers and on pods: a link into one that leads nowhere is a leftover."""

PACK_MARK: Final = "__init__.py"
TEMP_SUFFIX: Final = ".morpheus-link"


class Outcome(StrEnum):
    """What became of one name."""

    LINKED = "linked"
    ALREADY = "already"
    """The link was there and right."""
    REPAIRED = "repaired"
    """A link of ours pointed elsewhere, or to a folder that now has to be entered."""
    REMOVED = "removed"
    """A link of ours to something that is not there any more."""
    KEPT = "kept"
    """ComfyUI has a file, a folder or somebody's link of that name: it stays, and what the source has is not seen."""
    SKIPPED = "skipped"
    """In a source, but not for ComfyUI."""


@dataclass(frozen=True, slots=True)
class Link:
    """`path` is under ComfyUI's folder, `target` in a source (None where nothing is wanted). For `skipped`, `path` is
    the source's own."""

    outcome: Outcome
    path: Path
    target: Path | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class LinkReport:
    """Everything that linking met. `packs` are the node packs ComfyUI finds through links; `absent` the sources that do
    not exist."""

    links: tuple[Link, ...]
    packs: tuple[str, ...] = ()
    absent: tuple[Path, ...] = ()

    def of(self, outcome: Outcome) -> tuple[Link, ...]:
        return tuple(link for link in self.links if link.outcome is outcome)

    @property
    def changed(self) -> bool:
        """Whether anything was written."""
        return any(link.outcome in (Outcome.LINKED, Outcome.REPAIRED, Outcome.REMOVED) for link in self.links)

    def summary(self) -> str:
        """One sentence for the log."""
        count = {outcome: len(self.of(outcome)) for outcome in Outcome}
        in_place = count[Outcome.LINKED] + count[Outcome.REPAIRED] + count[Outcome.ALREADY]
        said = f"{in_place} links in place ({count[Outcome.LINKED]} new, {count[Outcome.REPAIRED]} repaired)"
        said += f", {len(self.packs)} of them node packs"
        if count[Outcome.REMOVED]:
            said += f", {count[Outcome.REMOVED]} stale removed"
        if count[Outcome.KEPT]:
            said += f", {count[Outcome.KEPT]} names that ComfyUI itself has left alone"
        if self.absent:
            said += f"; nothing at {', '.join(str(source) for source in self.absent)}"
        return f"{said}."


@dataclass(frozen=True, slots=True)
class Missing:
    """Something the manifest asks for that is on no source. `path` is relative to the cache."""

    kind: Literal["model", "pack"]
    id: str
    path: str
    workflows: tuple[str, ...]
    has_source: bool = True

    def __str__(self) -> str:
        wanted_by = f", needed by {', '.join(self.workflows)}" if self.workflows else ""
        return f"{self.kind} {self.id} ({self.path}){wanted_by}"


def link_all(
    sources: Sequence[Path],
    folders: ComfyFolders,
    *,
    volume_roots: Sequence[Path] = VOLUME_ROOTS,
    also: Iterable[ModelEntry] = (),
) -> LinkReport:
    """Links everything that the sources hold into ComfyUI's folders; where two hold the same, the first wins.

    Model files are linked one by one. A folder within a model folder becomes one link, unless ComfyUI or another source
    has one of the same name: then its contents are linked. Real files and other people's links are never touched; our
    own are those that point into a source, or into one of `volume_roots` and nowhere. A second run changes nothing, and
    several at once do not disturb each other.

    What the entries of `also` name is linked to their further places, too, unless a source has a file there itself.

    Raises:
        MorpheusError: `volume_unavailable` when a source cannot be read, `internal` when ComfyUI's folder refuses.
    """
    try:
        return _Linker(sources, folders, volume_roots, also).run()
    except OSError as failure:
        raise _explained(failure, sources) from failure


def missing(manifest: Manifest, sources: Sequence[Path], folders: ComfyFolders | None = None) -> list[Missing]:
    """What the manifest names and no source has, nor ComfyUI itself where its `folders` are given. One look each."""
    model_roots = [*([folders.models] if folders else []), *sources]
    pack_roots = [
        *([folders.custom_nodes] if folders else []),
        *itertools.chain.from_iterable((source, source / PACKS_FOLDER) for source in sources),
    ]
    models = [
        Missing("model", model.id, str(model.path), model.workflows, bool(model.sources))
        for model in manifest.models
        if not any(os.path.exists(root / place) for root in model_roots for place in (model.path, *model.also))
    ]
    packs = [
        Missing("pack", pack.id, pack.id, pack.workflows)
        for pack in manifest.custom_nodes
        if not any(os.path.isdir(root / pack.id) for root in pack_roots)
    ]
    return models + packs


def how_to_get(absent: Sequence[Missing]) -> str:
    """A sentence on how to get what is missing; empty where nothing of it has a source."""
    ids = [each.id for each in absent if each.has_source]
    if not ids:
        return ""
    workflows = sorted({name for each in absent if each.has_source for name in each.workflows})
    more = f"; '{command_for(workflow=workflows[0])}' what one workflow needs" if len(ids) > 1 and workflows else ""
    return hint_for(ids) + more


@dataclass(frozen=True, slots=True)
class _Alias:
    """A file of a source under another name than it has there."""

    name: str
    path: str

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return os.path.isdir(self.path) and (follow_symlinks or not os.path.islink(self.path))


_Entry = os.DirEntry[str]
"""One name in a folder of a source; it knows a file from a folder without another look at the volume."""

_Item = _Entry | _Alias


@dataclass(frozen=True, slots=True)
class _Found:
    """What stands at a name under ComfyUI's folder; `leads_to` only for a link, absolute."""

    kind: Literal["file", "folder", "link"]
    leads_to: str = ""


class _Linker:
    def __init__(
        self, sources: Sequence[Path], folders: ComfyFolders, volume_roots: Sequence[Path], also: Iterable[ModelEntry]
    ) -> None:
        self._also = also
        self._folders = folders
        self._sources = sources
        self._ours: list[str] = []
        self._volume_roots = [str(root) for root in volume_roots]
        self._links: list[Link] = []
        self._absent: list[Path] = []
        self._models: dict[str, list[_Item]] = {}
        self._packs: dict[str, list[Path]] = {}

    def run(self) -> LinkReport:
        for folder in (self._folders.models, self._folders.custom_nodes):
            folder.mkdir(parents=True, exist_ok=True)
        for source in self._sources:
            self._read_source(source)
        self._read_aliases()
        self._link_models()
        self._link_packs()
        unseen = {link.target for link in self._links if link.outcome is Outcome.KEPT}
        packs = tuple(name for name, claims in self._packs.items() if claims[0] not in unseen)
        return LinkReport(tuple(self._links), packs, tuple(self._absent))

    # What the sources offer.

    def _read_source(self, source: Path) -> None:
        if overlap := self._overlap(source):
            self._note(Outcome.SKIPPED, source, why=f"shares its place with ComfyUI's own {overlap}")
            return
        self._ours += [str(source), os.path.realpath(source)]
        for item in self._fit(self._list(source)):
            if not item.is_dir():
                self._note(Outcome.SKIPPED, Path(item.path), why="lies loose; ComfyUI reads folders")
            elif item.name == PACKS_FOLDER:
                self._read_packs(item)
            else:
                self._read_folder(item)

    def _read_folder(self, folder: _Entry) -> None:
        items = self._list(Path(folder.path))
        if any(item.name == PACK_MARK for item in items):
            self._packs.setdefault(folder.name, []).append(Path(folder.path))
        else:
            self._models.setdefault(folder.name, []).extend(self._fit(items))

    def _read_packs(self, folder: _Entry) -> None:
        for item in self._fit(self._list(Path(folder.path))):
            if item.is_dir() or item.name.endswith(".py"):
                self._packs.setdefault(item.name, []).append(Path(item.path))
            else:
                self._note(Outcome.SKIPPED, Path(item.path), why="is no node pack")

    def _read_aliases(self) -> None:
        sources = [source for source in self._sources if str(source) in self._ours]
        for model in self._also:
            places = (model.path, *model.also)
            kept = (source / place for place in places for source in sources if os.path.exists(source / place))
            found = next(kept, None)
            # Where the entry itself lies deeper, its folder is linked as a whole.
            for place in (place for place in places if found is not None and len(place.parts) == 2):
                items = self._models.setdefault(place.parent.name, [])
                if all(item.name != place.name for item in items):
                    items.append(_Alias(place.name, str(found)))

    def _list(self, folder: Path) -> list[_Entry]:
        try:
            with os.scandir(folder) as listing:
                return sorted(listing, key=lambda entry: entry.name)
        except FileNotFoundError:
            # Another writer may just have removed it. If its source is gone as well, so is the volume.
            if folder in self._sources:
                self._absent.append(folder)
            elif not any(source.is_dir() for source in self._sources if folder.is_relative_to(source)):
                raise
            return []

    def _fit(self, items: Iterable[_Entry]) -> list[_Entry]:
        fit: list[_Entry] = []
        for item in items:
            if why := _unfit(item):
                self._note(Outcome.SKIPPED, Path(item.path), why=why)
            else:
                fit.append(item)
        return fit

    def _overlap(self, source: Path) -> str:
        real = os.path.realpath(source)
        for own in (self._folders.models, self._folders.custom_nodes):
            real_own = os.path.realpath(own)
            if _within(real, real_own) or _within(real_own, real):
                return str(own)
        return ""

    # What ComfyUI gets.

    def _link_models(self) -> None:
        here = _look(self._folders.models)
        for name, items in self._models.items():
            self._enter(items, self._folders.models / name, here.pop(name, None))
        self._tidy(self._folders.models, here)

    def _link_packs(self) -> None:
        """A pack is one link, and ComfyUI's own packs are never entered. Their names count without regard to case: the
        same pack under two spellings would be loaded twice."""
        place = self._folders.custom_nodes
        here = _look(place)
        own = {name.casefold(): name for name, found in here.items() if found.kind != "link"}
        for name, claims in self._packs.items():
            found = here.pop(name, None)
            if found is None and name.casefold() in own:
                self._note(Outcome.KEPT, place / own[name.casefold()], claims[0], "ComfyUI has this pack")
            else:
                self._place(claims, place / name, found)
        for name, found in here.items():
            self._remove_if_ours(place / name, found)

    def _enter(self, items: Sequence[_Item], dest: Path, found: _Found | None) -> None:
        """Links the items into a real folder at `dest`."""
        if found is not None and self._remove_if_ours(dest, found):
            found = None
        if found is not None and found.kind != "folder":
            for item in items:
                self._keep(dest / item.name, Path(item.path), found, by=dest)
            return
        if items:
            dest.mkdir(exist_ok=True)
        self._merge(items, dest)

    def _merge(self, items: Iterable[_Item], dest: Path) -> None:
        here = _look(dest)
        claims: dict[str, list[_Item]] = {}
        for item in items:
            claims.setdefault(item.name, []).append(item)
        for name, claim in claims.items():
            self._settle(claim, dest / name, here.pop(name, None))
        self._tidy(dest, here)

    def _settle(self, claim: Sequence[_Item], dest: Path, found: _Found | None) -> None:
        """One name within a model folder, wanted by one source or several."""
        # A source's own link to a folder may lead in a circle, so it is passed on as it is and never entered.
        folders = [item for item in claim if item.is_dir(follow_symlinks=False)]
        is_folder = claim[0] in folders
        if is_folder and (len(folders) > 1 or (found is not None and found.kind == "folder")):
            self._shadow(folders[0].path, [item.path for item in claim if item not in folders])
            inside = [item for folder in folders for item in self._fit(self._list(Path(folder.path)))]
            self._enter(inside, dest, found)
        else:
            self._place([Path(item.path) for item in claim], dest, found)

    def _place(self, claims: Sequence[Path], dest: Path, found: _Found | None) -> None:
        """One link at `dest` to the first of `claims`."""
        target, *others = claims
        self._shadow(target, others)
        if found is None:
            with contextlib.suppress(FileExistsError):
                os.symlink(target, dest)
                self._note(Outcome.LINKED, dest, target)
                return
            found = _look(dest.parent).get(dest.name)
        if found is not None and found.kind == "link" and found.leads_to == str(target):
            self._note(Outcome.ALREADY, dest, target)
        elif found is None or self._is_ours(dest, found):
            _link_over(dest, target)
            self._note(Outcome.REPAIRED, dest, target, f"pointed to {found.leads_to}" if found else "")
        else:
            self._keep(dest, target, found, by=dest)

    def _keep(self, dest: Path, target: Path, found: _Found, *, by: Path) -> None:
        """`target` is not linked because of what stands at `by`, unless one reaches it all the same."""
        if found.kind == "link" and os.path.exists(dest) and os.path.samefile(dest, target):
            self._note(Outcome.ALREADY, dest, target, f"through {found.leads_to}")
            return
        stands = f"a link to {found.leads_to}, not one of ours" if found.kind == "link" else f"a {found.kind}"
        self._note(Outcome.KEPT, dest, target, f"{by} is {stands}")

    def _tidy(self, folder: Path, unwanted: Mapping[str, _Found]) -> None:
        """Removes our stale links from what nobody claims, real folders included."""
        for name, found in unwanted.items():
            if found.kind == "folder":
                self._tidy(folder / name, _look(folder / name))
            else:
                self._remove_if_ours(folder / name, found)

    def _remove_if_ours(self, dest: Path, found: _Found) -> bool:
        if not self._is_ours(dest, found):
            return False
        # Another boot may have been here first, and have put a folder in its place.
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            dest.unlink()
        self._note(Outcome.REMOVED, dest, why=f"pointed to {found.leads_to}")
        return True

    def _is_ours(self, dest: Path, found: _Found) -> bool:
        if found.kind != "link":
            return False
        if any(_within(found.leads_to, source) for source in self._ours):
            return True
        return any(_within(found.leads_to, root) for root in self._volume_roots) and not os.path.exists(dest)

    def _shadow(self, winner: Path | str, others: Iterable[Path | str]) -> None:
        for other in others:
            self._note(Outcome.SKIPPED, Path(other), why=f"{winner} comes first")

    def _note(self, outcome: Outcome, path: Path, target: Path | None = None, why: str = "") -> None:
        self._links.append(Link(outcome, path, target, why))


def _unfit(item: _Entry) -> str:
    """Why ComfyUI has no use for the name, or nothing. Only links cost a look more than the listing."""
    if item.name.startswith(".") or item.name.endswith(UNFINISHED) or item.name == "__pycache__":
        return "is hidden, unfinished or a receipt"
    if item.is_symlink() and not os.path.exists(item.path):
        return "leads nowhere"
    return "" if item.is_dir() or item.is_file() else "is neither a file nor a folder"


def _look(folder: Path) -> dict[str, _Found]:
    """What stands in one of ComfyUI's folders; nothing when it does not exist."""
    here = {}
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as listing:
        for entry in listing:
            if not entry.name.endswith(TEMP_SUFFIX) and (found := _found(entry)) is not None:
                here[entry.name] = found
    return here


def _found(entry: os.DirEntry[str]) -> _Found | None:
    if entry.is_symlink():
        # By now another boot may have removed the link, or have put a folder in its place.
        with contextlib.suppress(OSError):
            return _Found("link", os.path.normpath(os.path.join(os.path.dirname(entry.path), os.readlink(entry.path))))
        return _Found("folder") if os.path.isdir(entry.path) else None
    return _Found("folder" if entry.is_dir() else "file")


def _link_over(dest: Path, target: Path) -> None:
    """Replaces a link in one step, so that nobody ever finds the name empty."""
    temporary = dest.with_name(f".{secrets.token_hex(8)}{TEMP_SUFFIX}")
    os.symlink(target, temporary)
    os.replace(temporary, dest)


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _explained(failure: OSError, sources: Sequence[Path]) -> MorpheusError:
    where = str(failure.filename2 or failure.filename or "")
    reason = failure.strerror or str(failure)
    if any(_within(where, str(source)) for source in sources):
        return MorpheusError(Code.VOLUME_UNAVAILABLE, f"The volume cannot be read while linking: {where}: {reason}")
    return MorpheusError(Code.INTERNAL, f"Models cannot be linked into ComfyUI's folder: {where}: {reason}")

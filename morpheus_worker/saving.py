"""Puts outputs where on the volume their caller wants them as well, such as `pid_save_pod_path`.

A file that stands at the place is replaced: whoever names it means it. It is replaced in one rename, when everything
else about the job has been done. In a folder that is named, nothing is: a file there gets a free name.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from morpheus_worker.comfy.history import FileRef
from morpheus_worker.deadlines import Allowance
from morpheus_worker.errors import Code, MorpheusError, Problem, from_problems
from morpheus_worker.jobs import OutputFile
from morpheus_worker.publishing import CHUNK_BYTES, Origins, give_name, output_name
from morpheus_worker.volume import translated

DOING: Final = "saving an output where it is wanted"


@dataclass(frozen=True, slots=True)
class Save:
    """The first file of a node goes to a place on the volume; into it, where that is a folder. `at` is what the caller
    calls it."""

    at: str
    node_id: str
    place: Path
    is_folder: bool = False


@dataclass(slots=True)
class Saves:
    """The places of one job."""

    wanted: Sequence[Save]
    allowance: Allowance
    _parts: dict[Path, tuple[Path, bool]] = field(default_factory=dict)
    """Where each hidden part goes, and whether that may be replaced."""

    def stage(self, outputs: Sequence[OutputFile], refs: Iterable[FileRef], files: Origins) -> None:
        """Copies each file beside its place, hidden.

        Raises:
            MorpheusError: `no_output`, when a node made no file; `input_rejected`, when a place cannot be;
                `volume_full`, `volume_unavailable`, `cancelled`, `timeout`.
        """
        by_node = {ref.node_id: ref for ref in reversed(list(refs))}
        published = [made for made in outputs if made.path]
        for save in self.wanted:
            if (ref := by_node.get(save.node_id)) is None:
                raise MorpheusError(Code.NO_OUTPUT, f"node {save.node_id} made no file for {save.at}")
            mine = next((Path(made.path or "") for made in published if made.node_id == save.node_id), None)
            with translated(DOING), contextlib.ExitStack() as opened:
                if save.is_folder or save.place.is_dir():
                    if mine is None or mine.parent != save.place:
                        part = self._copied(mine or opened.enter_context(files.origin(ref)), save.place, save)
                        self._parts[part] = save.place / output_name(ref.filename), False
                elif any(save.place == Path(made.path or "") for made in published):
                    raise _refused(save, "is an output of this very job")
                else:
                    part = self._copied(mine or opened.enter_context(files.origin(ref)), save.place.parent, save)
                    self._parts[part] = save.place, True

    def commit(self) -> None:
        """Gives every file its place.

        Raises:
            MorpheusError: `volume_full`, `volume_unavailable`.
        """
        with translated(DOING):
            for part, (place, may_replace) in tuple(self._parts.items()):
                if may_replace:
                    os.replace(part, place)
                else:
                    give_name(part, place.parent, place.name)
                del self._parts[part]

    def withdraw(self) -> None:
        """Takes away what has no place yet."""
        for part in self._parts:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)

    def _copied(self, origin: Path | Iterator[bytes], folder: Path, save: Save) -> Path:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise _refused(save, "lies under a file, not in a folder") from None
        part = folder / f".{uuid.uuid4().hex}.part"
        self._parts[part] = part, True
        with contextlib.ExitStack() as opened, part.open("xb") as stream:
            chunks = origin
            if isinstance(chunks, Path):
                source = opened.enter_context(chunks.open("rb"))
                chunks = iter(lambda: source.read(CHUNK_BYTES), b"")
            for chunk in chunks:
                self.allowance.check(DOING)
                stream.write(chunk)
            stream.flush()
            os.fsync(stream.fileno())
        return part


def _refused(save: Save, what: str) -> MorpheusError:
    problem = Problem(save.at, what, "name another path on the volume")
    return from_problems(Code.INPUT_REJECTED, "An output cannot be placed", [problem])


@contextlib.contextmanager
def saves(wanted: Sequence[Save], allowance: Allowance) -> Iterator[Saves]:
    """The places for the time of a job; what has not been committed when the block ends is taken away.

    Raises:
        MorpheusError: `input_rejected`, when two outputs are to replace one file.
    """
    for number, save in enumerate(wanted):
        if not save.is_folder and any(save.place == other.place for other in wanted[:number]):
            raise _refused(save, "is named twice")
    under_way = Saves(wanted, allowance)
    try:
        yield under_way
    finally:
        under_way.withdraw()

"""Brings a job's media to where ComfyUI's loader nodes find it, under names no other job can have.

A file on the volume is linked; what comes inline or from elsewhere is written once, straight to where ComfyUI reads it.
Everything is taken away when the job ends. What arrives is looked at before it is believed: its first bytes say what
it is, whatever its name or its sender calls it.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import re
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from morpheus_worker.addresses import PrivateHosts
from morpheus_worker.checking import InputKind, Limits, check_content, noun_of, suits
from morpheus_worker.comfy.files import ComfyFiles, placing
from morpheus_worker.contents import Content, content_of, right_name
from morpheus_worker.deadlines import Allowance
from morpheus_worker.errors import Code, MediaRefusedError, MorpheusError, Problem, from_problems
from morpheus_worker.fetching import Fetched, Remote, fetch_all
from morpheus_worker.inline import FORMS, base64_chunks, base64_head, data_uri, percent_decoded
from morpheus_worker.paths import (
    JOB_OUTPUTS,
    MAX_PATH_BYTES,
    RESERVED,
    UnsafePathError,
    is_record,
    safe_filename,
    volume_relative,
)
from morpheus_worker.volume import confined

if TYPE_CHECKING:
    from morpheus_worker.s3 import S3Store

__all__ = ["InputKind", "Limits", "Sources", "Stage", "Wanted", "staged"]

DOING: Final = "bringing in its media"
S3_AT_ONCE: Final = 4

_LONGEST_SHOWN: Final = 120
_LONGEST_PREFIX: Final = 200
_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]{0,30})://", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Sources:
    """Where media may be fetched from, and how long one of them may take, in seconds."""

    private_hosts: PrivateHosts
    timeout_s: float
    s3: S3Store | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """One medium to bring in. `at` is the caller's name for it, `as_path` asks for an absolute path as the answer.

    `inline`: the value is never a path. It is base64 unless it says otherwise, behind a data URI's prefix or any other.
    `suffix` ends the name that it gets, for a loader node that lists files of that suffix alone: `.ipadpt`, say.
    """

    at: str
    kind: InputKind
    value: object
    name: str = ""
    as_path: bool = False
    inline: bool = False
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where a medium comes from, and the text that says so. Two params that say the same share one file, unless it has
    to end differently for them."""

    form: Literal["url", "s3", "data", "base64"]
    text: str
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class _Arrived:
    """A file at a reserved path. `name` is the sender's for it."""

    path: Path
    name: str
    by_url: bool = False


@dataclass(slots=True)
class Stage:
    """The media of one job, all under names that begin with the job's own `token`."""

    token: str
    files: ComfyFiles
    volume_root: Path
    limits: Limits
    sources: Sources
    allowance: Allowance
    kept: Sequence[Path] = ()
    """Folders on the volume, beside the reserved ones, that no output may be written to."""

    _placed: list[str] = field(default_factory=list)
    _reserved: list[Path] = field(default_factory=list)

    def bring(self, wanted: Iterable[Wanted]) -> list[str]:
        """Places everything wanted; returns for each the value that its node's input takes.

        What is here already comes first, then everything from elsewhere, several at once.

        Raises:
            MorpheusError: `input_unreachable` or `input_rejected`, naming every medium that cannot be had with its own
                code; `cancelled` or `timeout`, when the job has to stop meanwhile.
        """
        self.allowance.check(DOING)
        items = dict(enumerate(wanted))
        outcomes: dict[int, str | MediaRefusedError] = {}
        sharing: dict[_Origin, dict[int, Wanted]] = {}
        for number, item in items.items():
            try:
                found = self._found(item)
                if isinstance(found, Path):
                    outcomes[number] = self._link(number, item, found)
                else:
                    sharing.setdefault(replace(found, suffix=item.suffix), {})[number] = item
            except MediaRefusedError as refused:
                outcomes[number] = refused
        for origin, arrived in self._arrivals(sharing).items():
            outcomes |= self._place(arrived, sharing[origin])
        refusals = [(items[number], said) for number, said in sorted(outcomes.items()) if not isinstance(said, str)]
        if refusals:
            raise _as_one(refusals)
        return [str(outcomes[number]) for number in items]

    def output_path(self, at: str, value: str) -> str:
        """Where on the volume a node may write what the caller wants at `value`, as an absolute path.

        Raises:
            MorpheusError: `input_rejected`, when that is not on the volume, or in a folder that is the endpoint's own.
        """
        try:
            place = confined(self.volume_root, volume_relative(value, volume_root=self.volume_root))
            self._refuse_unfit(value, place)
            return str(place)
        except UnsafePathError as failure:
            hint = "name a file in a folder of your own on the volume, such as identities/name.bin"
            raise from_problems(
                Code.INPUT_REJECTED, "An output cannot be placed", [Problem(at, str(failure), hint)]
            ) from None

    def _refuse_unfit(self, value: str, place: Path) -> None:
        root = Path(os.path.realpath(self.volume_root))
        # By its name and by where that leads: a folder of models may be a link on the volume.
        named = volume_relative(value, volume_root=self.volume_root)
        kept = [Path(os.path.realpath(folder)) for folder in (*(root / name for name in RESERVED), *self.kept)]
        # Directly in job_outputs lie the jobs' own folders; a file there would take a job its folder.
        meant = value.endswith("/") or place.is_dir()
        is_job = place == root / JOB_OUTPUTS or (place.parent == root / JOB_OUTPUTS and not meant)
        if (
            place == root
            or is_job
            or named.parts[0] in RESERVED
            or is_record(place.name)
            or any(place.is_relative_to(folder) for folder in kept)
        ):
            said = "is in a folder that the endpoint keeps to itself, such as job_outputs itself, or that of the models"
            raise UnsafePathError(f"'{value[:_LONGEST_SHOWN]}' {said}")
        if not next(above for above in place.parents if above.exists()).is_dir():
            raise UnsafePathError(f"'{value[:_LONGEST_SHOWN]}' lies under a file, not in a folder")

    def withdraw(self) -> None:
        """Takes everything away again. Never fails."""
        for value in self._placed:
            self.files.remove(value)
        for path in self._reserved:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def _found(self, item: Wanted) -> Path | _Origin:
        """A path on the volume comes before base64: every path is made of base64's characters, and few are base64."""
        if not isinstance(item.value, str) or not (value := item.value.strip()):
            raise MediaRefusedError(Code.INPUT_REJECTED, f"must be {FORMS}, as text")
        is_data, scheme = data_uri(value) is not None, _SCHEME.match(value)
        if item.kind == "dir" and (is_data or scheme):
            raise MediaRefusedError(Code.INPUT_REJECTED, "must be a folder on the volume")
        if is_data:
            return _Origin("data", value)
        if scheme:
            return _remote(scheme[1].lower(), value)
        if item.inline:
            prefix, comma, _ = value[:_LONGEST_PREFIX].partition(",")
            return _Origin("base64", value[len(prefix) + 1 :] if comma else value)
        if item.kind != "dir" and len(value) >= MAX_PATH_BYTES:
            return _Origin("base64", value)
        try:
            return self._on_volume(item.kind, value)
        except MediaRefusedError:
            if item.kind != "dir" and _is_base64_of(item.kind, value):
                return _Origin("base64", value)
            raise

    def _on_volume(self, kind: InputKind, value: str) -> Path:
        try:
            path = confined(self.volume_root, volume_relative(value, volume_root=self.volume_root))
            is_right = path.is_dir() if kind == "dir" else path.is_file()
            is_bare = kind == "dir" and is_right and all(entry.name.startswith(".") for entry in path.iterdir())
        except UnsafePathError as failure:
            # A URL without its scheme may end in a signature.
            said = str(failure) if "?" not in value else "is no path on the volume"
            raise MediaRefusedError(Code.INPUT_REJECTED, said, f"send {FORMS}") from None
        except OSError as failure:
            raise MediaRefusedError(Code.INPUT_UNREACHABLE, f"cannot be read: {failure.strerror}") from None
        if is_bare:
            raise MediaRefusedError(Code.INPUT_REJECTED, f"the folder '{_shown(value)}' has no files in it")
        if is_right:
            return path
        if kind == "dir":
            raise MediaRefusedError(Code.INPUT_UNREACHABLE, f"there is no folder '{_shown(value)}' on the volume")
        said = f"there is no file '{_shown(value)}' on the volume, nor is the text {noun_of(kind)} in base64"
        raise MediaRefusedError(Code.INPUT_UNREACHABLE, said, f"send {FORMS}")

    def _link(self, number: int, item: Wanted, path: Path) -> str:
        content = None if item.kind == "dir" else check_content(path, item.kind, self.limits)
        placed = self.files.put(self._name(number, item, path.name, content), path)
        self._placed.append(placed)
        return self.files.absolute(placed) if item.as_path else placed

    def _arrivals(self, sharing: Mapping[_Origin, Mapping[int, Wanted]]) -> dict[_Origin, _Arrived | MediaRefusedError]:
        is_remote = {origin: origin.form in ("url", "s3") for origin in sharing}
        here = {
            origin: self._written(origin, next(iter(items.values())).kind)
            for origin, items in sharing.items()
            if not is_remote[origin]
        }
        return {**here, **self._fetched([origin for origin in sharing if is_remote[origin]])}

    def _written(self, origin: _Origin, kind: InputKind) -> _Arrived | MediaRefusedError:
        path = self._reserve()
        try:
            chunks, suffix = _inline(origin, kind, self.limits.max_bytes)
            with placing(), path.open("xb") as stream:
                for chunk in chunks:
                    stream.write(chunk)
        except MediaRefusedError as refused:
            return refused
        return _Arrived(path, f"inline{suffix}")

    def _fetched(self, origins: Sequence[_Origin]) -> dict[_Origin, _Arrived | MediaRefusedError]:
        if not origins:
            return {}
        targets = {origin: self._reserve() for origin in origins}
        urls = [origin for origin in origins if origin.form == "url"]
        with ThreadPoolExecutor(S3_AT_ONCE, thread_name_prefix="media") as pool:
            stored = {
                origin: pool.submit(contextvars.copy_context().run, self._from_s3, origin.text, targets[origin])
                for origin in origins
                if origin.form == "s3"
            }
            answers = fetch_all(
                [Remote(origin.text, targets[origin], self.limits.max_bytes) for origin in urls],
                private_hosts=self.sources.private_hosts,
                timeout_s=self.sources.timeout_s,
                allowance=self.allowance,
            )
            said = dict(zip(urls, answers, strict=True))
            said |= {origin: future.result() for origin, future in stored.items()}
        return {
            origin: answer if isinstance(answer, MediaRefusedError) else _arrived(origin, answer, targets[origin])
            for origin, answer in said.items()
        }

    def _from_s3(self, uri: str, target: Path) -> Fetched | MediaRefusedError:
        if self.sources.s3 is None:
            hint = "set BUCKET_ENDPOINT_URL and its keys, or send a presigned https URL"
            return MediaRefusedError(Code.INPUT_REJECTED, "is in an S3 store, and this worker has none", hint)
        timeout_s = self.sources.timeout_s
        allowance = self.allowance.within(timeout_s)
        try:
            return self.sources.s3.fetch(uri, target, max_bytes=self.limits.max_bytes, allowance=allowance)
        except MediaRefusedError as refused:
            return refused
        except MorpheusError as failure:
            self.allowance.check(DOING)
            if failure.code != Code.TIMEOUT:
                raise
            return MediaRefusedError(Code.INPUT_UNREACHABLE, f"was not fetched within {timeout_s:g} s")

    def _place(
        self, arrived: _Arrived | MediaRefusedError, sharers: Mapping[int, Wanted]
    ) -> dict[int, str | MediaRefusedError]:
        if isinstance(arrived, MediaRefusedError):
            return dict.fromkeys(sharers, arrived)
        outcomes: dict[int, str | MediaRefusedError] = {}
        names: dict[int, str] = {}
        for number, item in sharers.items():
            try:
                content = check_content(arrived.path, item.kind, self.limits, by_url=arrived.by_url)
                names[number] = self._name(number, item, arrived.name, content)
            except MediaRefusedError as refused:
                outcomes[number] = refused
        if names:
            self.allowance.check(DOING)
            placed = self.files.adopt(next(iter(names.values())), arrived.path)
            self._placed.append(placed)
            absolute = self.files.absolute(placed)
            outcomes |= {number: absolute if sharers[number].as_path else placed for number in names}
        return outcomes

    def _reserve(self) -> Path:
        path = self.files.reserve(f"{self.token}-{len(self._reserved)}.part")
        self._reserved.append(path)
        return path

    def _name(self, number: int, item: Wanted, name: str, content: Content | None) -> str:
        right = right_name(safe_filename(item.name or name), content, or_its_own=item.kind == "file")
        right = right if right.endswith(item.suffix) else right + item.suffix
        # ComfyUI reads a name that ends in "[output]" as one in its output folder.
        return f"{self.token}-{number}-{right}".replace("[", "(").replace("]", ")")


@contextlib.contextmanager
def staged(stage: Stage) -> Iterator[Stage]:
    """The stage for the time of a job; afterwards nothing of it is left."""
    try:
        yield stage
    finally:
        stage.withdraw()


def _as_one(refusals: Sequence[tuple[Wanted, MediaRefusedError]]) -> MorpheusError:
    """All of them told together, with the code of the first. Sending the job again helps only if it may help all."""
    problems = [Problem(item.at, refused.what, refused.hint) for item, refused in refusals]
    error = from_problems(
        refusals[0][1].code,
        "An input cannot be used",
        problems,
        retryable=all(refused.retryable for _, refused in refusals),
    )
    for said, (_, refused) in zip(error.details["problems"], refusals, strict=False):
        said["code"] = refused.code
    return error


def _remote(scheme: str, value: str) -> _Origin:
    if scheme in ("http", "https"):
        return _Origin("url", value)
    if scheme == "s3":
        return _Origin("s3", value)
    raise MediaRefusedError(Code.INPUT_REJECTED, f"begins with {scheme}://, which is not fetched", f"send {FORMS}")


def _arrived(origin: _Origin, fetched: Fetched, path: Path) -> _Arrived:
    in_url = urllib.parse.unquote(re.split("[?#]", origin.text, maxsplit=1)[0].rpartition("/")[2])
    return _Arrived(path, fetched.filename or in_url or "fetched", by_url=True)


def _inline(origin: _Origin, kind: InputKind, max_bytes: int) -> tuple[Iterable[bytes], str]:
    """The bytes, and the suffix that a data URI's media type asks for."""
    said = data_uri(origin.text) if origin.form == "data" else None
    if said is None:
        return base64_chunks(origin.text, 0, max_bytes), ""
    # Whoever forgot to write ";base64" means it all the same.
    if said.is_base64 or _is_base64_of(kind, origin.text, said.start):
        return base64_chunks(origin.text, said.start, max_bytes), said.suffix
    return [percent_decoded(origin.text, said.start, max_bytes)], said.suffix


def _is_base64_of(kind: InputKind, text: str, start: int = 0) -> bool:
    head = base64_head(text, start)
    content = content_of(head) if head else None
    return content is not None and suits(content, kind)


def _shown(text: str) -> str:
    """A path as it may be told: not too long, and without what follows a question mark, should it be half a URL."""
    path, mark, _ = text.partition("?")
    told = f"{path}?…" if mark else path
    return told if len(told) <= _LONGEST_SHOWN else f"{told[:_LONGEST_SHOWN]}…"

"""Brings what a prompt made to where the job wants it: the volume, a bucket, or the answer itself.

Three destinations, one path: each takes the same files and answers with the same records. A graph's answer has, beside
them, its pictures in the form that clients of the official ComfyUI worker read.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from morpheus_worker.comfy.files import LocalFiles, Origin
from morpheus_worker.comfy.history import FileRef, Reported, TextRef
from morpheus_worker.comfy.http import OutputMissingError
from morpheus_worker.deadlines import Allowance, awaited
from morpheus_worker.errors import Code, MorpheusError, Problem, from_problems
from morpheus_worker.jobs import JobRequest, OutputFile, ResultImage, StoreName
from morpheus_worker.looks import looks_of
from morpheus_worker.paths import safe_filename
from morpheus_worker.publishing import DOING, JobFolder, Origins, output_of, too_large, wait_for_begun
from morpheus_worker.s3 import S3Folder, S3Store
from morpheus_worker.settings import Settings

RUN_BYTES: Final = 10_000_000
RUNSYNC_BYTES: Final = 20_000_000
"""What RunPod carries back (its docs, "Send requests": payload limits). A larger answer is lost: the SDK logs that it
was refused, and the job never ends."""

RUNSYNC_PREFIX: Final = "sync-"
"""How RunPod begins the id of a job that came by /runsync."""

INLINE_TEXT_BYTES: Final = 256 * 1024
"""A longer text comes as a file."""


class Destination(Protocol):
    """Where outputs go: `publishing.JobFolder`, `s3.S3Folder`, `Inline`."""

    def publish(self, refs: Sequence[FileRef], files: Origins) -> list[OutputFile | MorpheusError]:
        """Delivers every file, in order; one that cannot be delivered is its entry's error.

        Raises:
            MorpheusError: when the job cannot go on. What was delivered is then taken back.
        """


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a job's outputs go: all of them to `store`; and a graph's pictures, as `images`, into the answer."""

    store: StoreName
    images: Literal["s3", "base64"] | None = None


@dataclass(frozen=True, slots=True)
class Delivered:
    """`images` is None where the answer has no such list; `errors` are outputs that it does without."""

    outputs: list[OutputFile]
    images: list[ResultImage] | None = None
    errors: list[str] = field(default_factory=list)


def plan_of(request: JobRequest, settings: Settings, s3: S3Store | None) -> Plan:
    """By the job's own wish, else the worker's setting, else the volume. A graph whose job says nothing of it gets its
    pictures in the answer besides, as its clients expect them: as URLs where there is a bucket, else as base64.

    Raises:
        MorpheusError: `invalid_input`, when the bucket is asked for and there is none.
    """
    has_bucket = s3 is not None and s3.can_store
    store = request.outputs or settings.outputs or "volume"
    if store == "s3" and not has_bucket:
        hint = "set BUCKET_ENDPOINT_URL, or ask for volume or base64"
        problem = Problem("input.outputs", "is s3, but this worker has no bucket", hint)
        raise from_problems(Code.INVALID_INPUT, "The outputs have no place to go", [problem])
    if request.graph is None or request.outputs == "volume":
        return Plan(store)
    return Plan(store, store if store != "volume" else "s3" if has_bucket else "base64")


def largest_result(job_id: str, settings: Settings) -> int:
    """How many bytes an answer to this job may have."""
    return settings.max_result_bytes or (RUNSYNC_BYTES if job_id.startswith(RUNSYNC_PREFIX) else RUN_BYTES)


@functools.cache
def _encoder() -> ThreadPoolExecutor:
    """One for the process: what it does holds Python's lock, so several would only disturb one another."""
    return ThreadPoolExecutor(1, thread_name_prefix="encode")


class Inline:
    """Outputs in the answer, as base64."""

    def __init__(self, max_bytes: int, allowance: Allowance) -> None:
        self._max_bytes = max_bytes
        self._left = max_bytes
        self._allowance = allowance
        self._begun: dict[FileRef, Future[OutputFile | MorpheusError]] = {}

    def begin(self, refs: Sequence[FileRef], files: Origins) -> None:
        """Starts on files that `publish` will be asked for, in the background."""
        for ref in refs:
            if ref not in self._begun:
                self._begun[ref] = _encoder().submit(self._record, ref, files)

    def publish(self, refs: Sequence[FileRef], files: Origins) -> list[OutputFile | MorpheusError]:
        """As `Destination.publish`.

        Raises:
            MorpheusError: `result_too_large`, `cancelled`, `timeout`, `connection`.
        """
        self.begin(refs, files)
        begun = [self._begun[ref] for ref in refs]
        awaited(begun, lambda: self._allowance.check(DOING))
        return [future.result() for future in begun]

    def withdraw(self) -> None:
        """There is nothing to take back; what was begun is not finished."""
        wait_for_begun(self._begun.values())

    def _record(self, ref: FileRef, files: Origins) -> OutputFile | MorpheusError:
        self._allowance.check(DOING)
        try:
            with files.origin(ref) as origin:
                content = self._content(origin)
                looks = looks_of(origin if isinstance(origin, Path) else io.BytesIO(content), ref.media_type)
        except OutputMissingError as failure:
            return failure
        except OSError as failure:
            return MorpheusError(Code.NO_OUTPUT, f"'{ref.filename}' cannot be read: {failure.strerror}")
        sha256, data = hashlib.sha256(content).hexdigest(), base64.b64encode(content).decode("ascii")
        return output_of(ref, safe_filename(ref.filename), len(content), sha256, looks, data=data)

    def _content(self, origin: Origin) -> bytes:
        if isinstance(origin, Path):
            self._check(origin.stat().st_size)
            content = origin.read_bytes()
        else:
            content = self._gathered(origin)
        self._left -= self._check(len(content))
        return content

    def _gathered(self, chunks: Iterator[bytes]) -> bytes:
        content = bytearray()
        for chunk in chunks:
            self._allowance.check(DOING)
            content += chunk
            self._check(len(content))
        return bytes(content)

    def _check(self, size: int) -> int:
        """What that many bytes take as base64, once it is known that they fit."""
        encoded = encoded_size(size)
        if encoded > self._left:
            raise too_large(self._max_bytes)
        return encoded


def encoded_size(size: int) -> int:
    """Characters of base64 for that many bytes."""
    return (size + 2) // 3 * 4


class Delivery:
    """The delivery of one job's outputs."""

    def __init__(
        self, plan: Plan, folder: JobFolder, files: Origins, s3: S3Store | None, max_result_bytes: int
    ) -> None:
        self._plan = plan
        self._folder = folder
        self._files = files
        self._max_result_bytes = max_result_bytes
        self._inline = Inline(max_result_bytes, folder.allowance)
        self._is_complete = False
        self._destinations: dict[StoreName, Destination] = {"volume": folder, "base64": self._inline}
        self._bucket = S3Folder(s3, folder.relative.name, folder.allowance) if s3 is not None else None
        if self._bucket is not None:
            self._destinations["s3"] = self._bucket

    def begin(self, made: Reported) -> None:
        """Starts on the outputs of a prompt that has succeeded, before its history entry confirms them: copying and
        hashing fill the time until it does. Nothing is to be seen of it yet, so nothing is uploaded."""
        if self._too_large(made):
            return
        if self._plan.store == "volume":
            self._folder.begin(made.files, self._files)
        elif self._plan.store == "base64":
            self._inline.begin(made.files, self._files)

    def deliver(self, made: Reported) -> Delivered:
        """Delivers everything. Where the answer has a list of errors, it may do without some of the outputs, though
        never without all; anywhere else one that cannot be delivered fails the job.

        Raises:
            MorpheusError: `no_output`, `upload_failed`, `result_too_large`, `volume_full`, `volume_unavailable`,
                `connection`, `cancelled`, `timeout`.
        """
        if self._too_large(made):
            raise too_large(self._max_result_bytes)
        long = {_text_file(n, text): text.text for n, text in enumerate(made.texts) if _is_long(text)}
        refs = [*made.files, *long]
        entries = self._publish(self._plan.store, refs, _WithTexts(self._files, long))
        outputs = {ref: entry for ref, entry in zip(refs, entries, strict=True) if isinstance(entry, OutputFile)}
        errors = [str(entry) for entry in entries if isinstance(entry, MorpheusError)]
        images = self._images(outputs, errors)
        inline = [_inline_text(text) for text in made.texts if not _is_long(text)]
        return Delivered([*outputs.values(), *inline], images, errors)

    def complete(self, result: Mapping[str, Any]) -> Path:
        """Writes the job's record, after which nothing is taken back any more, and returns its path.

        Raises:
            MorpheusError: as `publishing.JobFolder.complete`.
        """
        record = self._folder.complete(result, max_bytes=self._max_result_bytes)
        self._is_complete = True
        return record

    def end(self) -> None:
        """Takes back what was delivered, unless the job is complete. The folder is withdrawn by whoever made it."""
        self._inline.withdraw()
        if self._bucket is not None and not self._is_complete:
            self._bucket.withdraw()

    def _too_large(self, made: Reported) -> bool:
        """Whether the files that go into the answer are known to be too large for it, before they are copied."""
        inline = made.files if self._plan.store == "base64" else _as_images(made.files)
        if "base64" not in (self._plan.store, self._plan.images):
            return False
        return sum(encoded_size(size) for ref in inline if (size := self._size(ref))) > self._max_result_bytes

    def _size(self, ref: FileRef) -> int | None:
        """In bytes, where that can be had without fetching the file."""
        if not isinstance(self._files, LocalFiles):
            return None
        with contextlib.suppress(OSError, OutputMissingError), self._files.origin(ref) as origin:
            return origin.stat().st_size if isinstance(origin, Path) else None
        return None

    def _publish(self, store: StoreName, refs: Sequence[FileRef], files: Origins) -> list[OutputFile | MorpheusError]:
        entries = self._destinations[store].publish(refs, files) if refs else []
        failures = [entry for entry in entries if isinstance(entry, MorpheusError)]
        if failures and (self._plan.images is None or len(failures) == len(entries)):
            raise failures[0]
        return entries

    def _images(self, outputs: dict[FileRef, OutputFile], errors: list[str]) -> list[ResultImage] | None:
        """The list that clients of the official worker read. A picture's data stands there, and nowhere else."""
        if (form := self._plan.images) is None:
            return None
        shown = _as_images(outputs)
        if form != self._plan.store:
            for ref, entry in zip(shown, self._publish(form, shown, _Published(outputs)), strict=True):
                if isinstance(entry, MorpheusError):
                    errors.append(str(entry))
                else:
                    more = {"url": entry.url, "s3_uri": entry.s3_uri, "data": entry.data}
                    outputs[ref] = outputs[ref].model_copy(update=more)
        images = [image for ref in shown if (image := _as_image(outputs[ref])) is not None]
        outputs.update({ref: outputs[ref].model_copy(update={"data": None}) for ref in shown})
        return images


@contextlib.contextmanager
def delivery(
    plan: Plan, folder: JobFolder, files: Origins, s3: S3Store | None, max_result_bytes: int
) -> Iterator[Delivery]:
    """The delivery for the time of a job. What is not complete when the block ends is taken back."""
    delivered_by = Delivery(plan, folder, files, s3, max_result_bytes)
    try:
        yield delivered_by
    finally:
        delivered_by.end()


def _as_images(refs: Iterable[FileRef]) -> list[FileRef]:
    """Those that the official worker answers with: saved ones, that came under a node's `images`."""
    return [ref for ref in refs if ref.key == "images" and ref.folder == "output"]


def _as_image(output: OutputFile) -> ResultImage | None:
    if output.data is not None:
        return ResultImage(filename=output.filename, type="base64", data=output.data)
    return ResultImage(filename=output.filename, type="s3_url", data=output.url) if output.url else None


class _WithTexts:
    """The files that nodes saved, and the texts that are to become files."""

    def __init__(self, files: Origins, texts: Mapping[FileRef, str]) -> None:
        self._files = files
        self._texts = texts

    def origin(self, ref: FileRef) -> contextlib.AbstractContextManager[Origin]:
        if ref in self._texts:
            return contextlib.nullcontext(iter([self._texts[ref].encode()]))
        return self._files.origin(ref)


class _Published:
    """Files that lie on the volume already, and stay there."""

    def __init__(self, outputs: Mapping[FileRef, OutputFile]) -> None:
        self._outputs = outputs

    def origin(self, ref: FileRef) -> contextlib.AbstractContextManager[Origin]:
        return contextlib.nullcontext(Path(self._outputs[ref].path or ""))


def _is_long(text: TextRef) -> bool:
    return len(text.text.encode()) > INLINE_TEXT_BYTES


def _text_file(number: int, text: TextRef) -> FileRef:
    return FileRef(text.node_id, f"{safe_filename(text.node_id)}.txt", str(number), "text", "text")


def _inline_text(ref: TextRef) -> OutputFile:
    raw = ref.text.encode()
    return OutputFile(
        kind="text",
        filename=f"{safe_filename(ref.node_id)}.txt",
        node_id=ref.node_id,
        media_type="text/plain",
        bytes=len(raw),
        sha256=hashlib.sha256(raw).hexdigest(),
        text=ref.text,
    )

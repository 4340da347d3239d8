"""Answers a job that was done before with its stored result, so that nothing runs twice.

RunPod may deliver a job again, to this worker or to another one on the same volume, and an app may send one again under
its `idempotency_key`. The result of a job lies on the volume already, as its record; beside the records, `job_index`
says which of them answers which question:

    job_index/<2 hex>/<40 hex>.json    {"kind": "job", "job_id": "7f3c", "record": "job_outputs/7f3c/result-2.json"}

The name is a hash over the kind of key (the job's id, or its `idempotency_key`), the key, and the fingerprint of what
is asked. So to look up is to open one file (two where there is an `idempotency_key`), no folder is ever listed, and the
same id with another input is simply another entry.

An entry is a hint, never a proof. It is written without a sync, after the record, and what it leads to is believed only
as far as it can be seen: a record that is whole, of a success, of that job; its files still there, of the size that it
says; its URLs signed anew. Whatever is missing, torn or in the way costs a second run and never a wrong answer:

- *Two deliveries at the same moment.* Within one worker the second waits for the first (`one_at_a_time`) and is
  answered with its result. Two workers both run the job, because a lock on a network volume is not to be relied on:
  both succeed beside one another, under names of their own (`publishing`), each answers with its own result, and the
  entry that was renamed last says which one is remembered. Either of them is right.
- *A worker that is killed* before the record is there left nothing to find. Killed between the record and the entry, it
  left a result that no delivery finds, and the job runs anew, beside it.
- *What is asked* is the input as it was sent. A template, a default of the settings or a file behind a path that has
  changed since makes no other question of it.
- *Clocks* take no part: the order of renames decides, nothing is compared with a time, and no entry expires. A janitor
  may remove entries, records and files in any order.
- *Secrets.* Of a job's input nothing is stored but its fingerprint, and the `idempotency_key` only within the hash.
- *Another version's record* is read for what this one knows: keys that it does not know are left out, and those that
  may be absent may be missing. A record without what every result has is not used.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import stat
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from morpheus_worker.deadlines import Allowance
from morpheus_worker.errors import MorpheusError
from morpheus_worker.jobs import JOB_ID_PATTERN, JobRequest, JobResult, OutputFile
from morpheus_worker.paths import JOB_OUTPUTS, volume_relative
from morpheus_worker.volume import confined, open_beneath, translated

log = logging.getLogger(__name__)

JOB_INDEX: Final = "job_index"
"""The folder of the volume that holds the entries."""

LOCAL_TEST: Final = "local_test"
"""What the SDK calls every `--test_input` job without an id (runpod 1.12, serverless/modules/rp_local.py)."""

MAX_RECORD_BYTES: Final = 24 * 1024 * 1024
"""The largest answer that RunPod carries back has 20 MB; a record of one is indented besides."""

MAX_ENTRY_BYTES: Final = 4096

LOOKING: Final = "looking for its stored result"

POLL_S: Final = 0.05
"""How often one that waits for another delivery looks, in seconds."""

_RECORD_NAME: Final = re.compile(r"result(-[0-9]+)?\.json")
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW

Kind = Literal["job", "key"]
Renewed = Callable[[Sequence[str], Allowance], list[str]]
Read = TypeVar("Read", bound=BaseModel)


class _Entry(BaseModel):
    """What an entry of the index says. `record` is relative to the volume."""

    kind: Kind
    job_id: str
    record: str


class _UnusableError(ValueError):
    """A stored result that cannot be answered with; the message says why, and quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class _Key:
    """One of the names that a job is known by, together with what it asks."""

    kind: Kind
    digest: str

    @property
    def shard(self) -> str:
        return self.digest[:2]

    @property
    def filename(self) -> str:
        return f"{self.digest[2:42]}.json"

    @property
    def path(self) -> PurePosixPath:
        return PurePosixPath(JOB_INDEX, self.shard, self.filename)


class Replays:
    """Stored results by what was asked.

    `renewed` gives objects in a bucket, by their `s3://` names, URLs that work from now on; it raises MorpheusError
    where it cannot, because one is gone or the bucket another one, or because the job has to stop. Without it, results
    with outputs in a bucket are not answered again: their URLs may have expired.
    """

    def __init__(self, volume_root: Path, *, renewed: Renewed | None = None) -> None:
        self._root = volume_root
        self._renewed = renewed
        self._lock = threading.Lock()
        self._running: set[_Key] = set()

    def find(self, request: JobRequest, allowance: Allowance) -> dict[str, Any] | None:
        """The stored result as it is answered, `replayed: true` in it; None where there is none. What is wrong with a
        stored result is logged, and the job runs.

        Where an `idempotency_key` found the result of another job, `job_id` and the paths are that job's, because they
        name files that exist; RunPod's own envelope around the answer carries the id that was asked for. `trace_id` is
        that of the run that made the outputs.

        Raises:
            MorpheusError: `cancelled`, `timeout`, when the job has to stop.
        """
        for key in _keys_of(request):
            try:
                if (entry := self._entry(key)) is not None:
                    return self._answer(key, entry, request, allowance)
            except (OSError, ValueError, MorpheusError) as failure:
                allowance.check(LOOKING)
                log.warning("a stored result is not used, and the job runs: %s", failure)
        return None

    def remember(self, request: JobRequest, record: Path) -> None:
        """Makes the result that was completed with `record` the answer to this request from now on; the newest
        success wins. It never fails the job: what cannot be written is logged, and the job would run again."""
        for key in _keys_of(request):
            try:
                relative = record.relative_to(self._root).as_posix()
                self._write(key, _Entry(kind=key.kind, job_id=record.parent.name, record=relative))
            except (OSError, ValueError, MorpheusError) as failure:
                log.warning("the result will not be found by its %s: %s", _WORDS[key.kind], failure)

    @contextlib.contextmanager
    def one_at_a_time(self, request: JobRequest, wait: Callable[[float], None]) -> Iterator[None]:
        """Within it, no other delivery of this job is within it, in this worker. `find` belongs inside: whoever had to
        wait then finds the result of the one that went before.

        `wait` sleeps for that many seconds, and raises when the job has to stop; it is what ends the waiting.
        """
        keys = frozenset(_keys_of(request))
        while not self._claimed(keys):
            wait(POLL_S)
        try:
            yield
        finally:
            with self._lock:
                self._running -= keys

    def _claimed(self, keys: frozenset[_Key]) -> bool:
        """All of a request's names or none, so that no two can wait for one another."""
        with self._lock:
            if self._running & keys:
                return False
            self._running |= keys
            return True

    def _entry(self, key: _Key) -> _Entry | None:
        try:
            raw = _read(self._root, key.path, MAX_ENTRY_BYTES)
        except FileNotFoundError:
            return None
        return _parsed(_Entry, raw, str(key.path))

    def _answer(self, key: _Key, entry: _Entry, request: JobRequest, allowance: Allowance) -> dict[str, Any]:
        relative = _record_of(key, entry, request)
        outputs_root = confined(self._root, PurePosixPath(JOB_OUTPUTS))
        record = _read(outputs_root, relative, MAX_RECORD_BYTES, follow_links=True)
        result = _parsed(JobResult, record, entry.record)
        if result.job_id != entry.job_id or "status" not in result.model_fields_set:
            raise _UnusableError(f"'{entry.record}' is no result of job {entry.job_id}")
        answer = self._checked(result, outputs_root, allowance)
        log.info("answered with %s, of trace id %s; nothing runs", entry.record, result.trace_id)
        return answer.wire()

    def _checked(self, result: JobResult, outputs_root: Path, allowance: Allowance) -> JobResult:
        """The result as it holds now: every file of it there, and every path and URL one that works here."""
        inline = frozenset(image.filename for image in result.images or () if image.type == "base64")
        present = [self._present(output, result.job_id, outputs_root, inline) for output in result.outputs]
        outputs = self._with_new_urls(present, allowance)
        now: dict[str | None, str | None] = {}
        for before, after in zip(result.outputs, outputs, strict=True):
            now |= {before.path: after.path, before.url: after.url}
        images = result.images
        if images is not None:
            unknown = [image.filename for image in images if image.type == "s3_url" and not now.get(image.data)]
            if unknown:
                raise _UnusableError(f"job {result.job_id} has pictures by URL that are none of its outputs")
            images = [
                image.model_copy(update={"data": now[image.data]}) if image.type == "s3_url" else image
                for image in images
            ]
        pod_paths = {
            "image_pod_path": now.get(result.image_pod_path),
            "video_pod_path": now.get(result.video_pod_path),
        }
        return result.model_copy(update={"outputs": outputs, "images": images, "replayed": True, **pod_paths})

    def _present(self, output: OutputFile, job_id: str, outputs_root: Path, inline: frozenset[str]) -> OutputFile:
        """The output, once it is known to be there still, in the bucket apart. A worker that sees the volume elsewhere
        than the one that wrote the record answers with paths of its own. `inline` are the names of pictures whose data
        stands in `images`."""
        if named := output.volume_path or output.path:
            relative = volume_relative(named, volume_root=self._root)
            if relative.parts[:2] != (JOB_OUTPUTS, job_id):
                raise _UnusableError(f"job {job_id} has an output that is not in its folder")
            found = confined(outputs_root, relative.relative_to(JOB_OUTPUTS)).stat()
            if not stat.S_ISREG(found.st_mode) or found.st_size != output.bytes:
                raise _UnusableError(f"'{relative}' is not the file that job {job_id} made")
            output = output.model_copy(update={"path": str(self._root / relative), "volume_path": str(relative)})
        elif not any((output.s3_uri, output.data, output.text is not None, output.filename in inline)):
            raise _UnusableError(f"job {job_id} has an output of which nothing is left but its name")
        return output

    def _with_new_urls(self, outputs: Sequence[OutputFile], allowance: Allowance) -> list[OutputFile]:
        uris = [output.s3_uri for output in outputs if output.s3_uri is not None]
        if uris and self._renewed is None:
            raise _UnusableError("its outputs are in a bucket, and this worker has none to sign their URLs")
        urls = dict(zip(uris, self._renewed(uris, allowance), strict=True)) if self._renewed and uris else {}
        return [
            output.model_copy(update={"url": urls[output.s3_uri]}) if output.s3_uri is not None else output
            for output in outputs
        ]

    def _write(self, key: _Key, entry: _Entry) -> None:
        """Whole or not at all, beneath the volume that is there, and through no link."""
        with contextlib.ExitStack() as folders:
            with translated(f"opening the volume {self._root}"):
                folder = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
            folders.callback(os.close, folder)
            for name in (JOB_INDEX, key.shard):
                folder = _folder(name, folder)
                folders.callback(os.close, folder)
            _replace(key.filename, entry.model_dump_json().encode(), folder)


_WORDS: Final = {"job": "job id", "key": "idempotency_key"}


def _keys_of(request: JobRequest) -> tuple[_Key, ...]:
    """The names under which a request's result is stored.

    None for a local test: its id says nothing, and neither does its `idempotency_key`. A job that was copied from
    production to be tried here would else be answered without having been tried, and what a trial made would be
    answered to production. None for a request of which it is not known what it asks.
    """
    if request.job_id == LOCAL_TEST or not request.fingerprint:
        return ()
    by_id = _key("job", request.job_id, request.fingerprint)
    if request.idempotency_key is None:
        return (by_id,)
    return by_id, _key("key", request.idempotency_key, request.fingerprint)


def _key(kind: Kind, text: str, fingerprint: str) -> _Key:
    # JSON keeps the three apart, whatever characters are in them.
    return _Key(kind, hashlib.sha256(json.dumps([kind, text, fingerprint]).encode()).hexdigest())


def _record_of(key: _Key, entry: _Entry, request: JobRequest) -> PurePosixPath:
    """The record's path relative to `job_outputs`, once it is known to be a record's, and of the right job."""
    job_id = request.job_id if key.kind == "job" else entry.job_id
    folder, _, name = entry.record.rpartition("/")
    is_record = _RECORD_NAME.fullmatch(name) and JOB_ID_PATTERN.match(job_id)
    if entry.kind != key.kind or entry.job_id != job_id or folder != f"{JOB_OUTPUTS}/{job_id}" or not is_record:
        raise _UnusableError(f"'{key.path}' names no record of such a job")
    return PurePosixPath(job_id, name)


def _read(root: Path, relative: PurePosixPath, limit: int, *, follow_links: bool = False) -> bytes:
    with open_beneath(root, relative, follow_links=follow_links) as stream:
        raw = stream.read(limit + 1)
    if len(raw) > limit:
        raise _UnusableError(f"'{relative}' has more than {limit} bytes")
    return raw


def _parsed(model: type[Read], raw: bytes, name: str) -> Read:
    try:
        return model.model_validate_json(raw)
    except ValidationError as failure:
        # Its own text quotes what it read: a signed URL, a picture in base64.
        first = failure.errors(include_input=False, include_context=False, include_url=False)[0]
        at = ".".join(str(step) for step in first["loc"]) or "the whole"
        raise _UnusableError(f"'{name}' cannot be used ({at}: {first['type']})") from None


def _folder(name: str, parent: int) -> int:
    """Opens the folder, made where it is not. Two workers may make it at the same moment."""
    try:
        return os.open(name, _FOLDER, dir_fd=parent)
    except FileNotFoundError:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=parent)
        return os.open(name, _FOLDER, dir_fd=parent)


def _replace(name: str, content: bytes, folder: int) -> None:
    """Under a hidden name beside it, then renamed. Not synced: an entry that is lost costs a run, a sync costs every
    job."""
    part = f".{uuid.uuid4().hex}.part"
    try:
        with os.fdopen(os.open(part, _NEW_FILE, 0o666, dir_fd=folder), "wb") as stream:
            stream.write(content)
        os.replace(part, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(part, dir_fd=folder)
        raise

"""Brings one file into a bucket as it arrives: on no disk, in little memory, seen by nobody before it was verified."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from morpheus_worker.s3.uploading import MIB, MOST_PARTS, NotS3Error
from morpheus_worker.sync.buckets.arriving import (
    Arrival,
    Judge,
    RangedArrival,
    StartOverError,
    StreamedArrival,
    Tally,
    Tries,
    UnrangedError,
)
from morpheus_worker.sync.buckets.clients import Store
from morpheus_worker.sync.buckets.faults import writing
from morpheus_worker.sync.buckets.memory import Memory
from morpheus_worker.sync.buckets.multipart import LEFT_AFTER_S, Multipart, PartBody
from morpheus_worker.sync.buckets.places import ObjectName
from morpheus_worker.sync.buckets.waiting import POLL_S, awaited, begun, waited
from morpheus_worker.sync.terms import Downloaded, Feed, Pace, Stop, SyncCode, SyncError, stopped

LARGEST_PART: Final = 500 * 1000 * 1000
"""Bytes, in a part and in an object that is sent whole (RunPod, "S3-compatible API", multipart uploads)."""
FAREWELL_S: Final = 1.0
"""How long threads are waited for that are to end, in seconds. They can do no harm."""
HASH_KEY: Final = "sha256"
"""Of an object's metadata."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """A file of no more than a part is sent whole. All parts but the last have one size, because R2 asks for that; they
    grow with the file, because there may be 10,000 of them (Amazon, "Multipart upload limits")."""

    part_bytes: int = 16 * MIB
    unknown_part_bytes: int = 32 * MIB
    """Of a file whose size nobody says."""
    parts: int = 9000
    window_bytes: int = 96 * MIB
    """What is held in memory of all files together, or one part where that is more."""
    left_after_s: float = LEFT_AFTER_S

    def part_bytes_of(self, size: int | None) -> int:
        """
        Raises:
            SyncError: `store`, for what no store takes.
        """
        if size is None:
            return self.unknown_part_bytes
        step = max(self.part_bytes, -(-size // self.parts // MIB) * MIB)
        if step > LARGEST_PART:
            raise SyncError(SyncCode.STORE, f"has {size} bytes, more than fit into {self.parts} parts of an upload")
        return step

    def at_once(self, step: int, connections: int) -> int:
        return max(1, min(connections, self.window_bytes // step))


@dataclass(slots=True)
class Put:
    """One file on its way from `feed` to the object `name`. `size` and `sha256` are what it must have, if known."""

    store: Store
    name: ObjectName
    feed: Feed
    size: int | None
    sha256: str | None
    hashing: bool
    judge: Judge | None
    pace: Pace
    connections: int
    on_bytes: Callable[[int], None]
    ready: Callable[[], None]
    stop: Stop
    sizes: Sizes
    memory: Memory
    _received: int = 0

    def run(self) -> Downloaded:
        """
        Raises:
            SyncError: `rejected` for another size or hash; as the feed, the judge and the store do. No object and no
                part of one is left then, but where the store did not answer when it was told to make it.
        """
        ranged = self._may_be_cut() and self.size is not None and self.size > self.sizes.part_bytes_of(self.size)
        tries = Tries(self.pace, lambda seconds: waited(seconds, self._check))
        while True:
            tally = self._tally()
            try:
                return self._once(tally, ranged=ranged)
            except UnrangedError:
                ranged = False
            except StartOverError as failure:
                tries.failed(failure.failure, progressed=False)

    def _once(self, tally: Tally, *, ranged: bool) -> Downloaded:
        step = self.sizes.part_bytes_of(self.size)
        upload = Multipart(self.store, self.name, self._metadata(self.sha256), tally.check, self.sizes.left_after_s)
        try:
            whole = self._sent(tally, upload, step, ranged=ranged)
            size, sha256 = tally.end()
            self._verify(size, sha256)
            self.on_bytes(size)
            self._check()
            self.ready()
            if whole is None:
                upload.complete(size, self._check)
            else:
                self._send_whole(whole, sha256)
        except BaseException:
            upload.abort()
            raise
        finally:
            self._received += tally.received
        return Downloaded(size, sha256, self._received)

    def _sent(self, tally: Tally, upload: Multipart, step: int, *, ranged: bool) -> bytes | None:
        """Sends all parts; or gives back the file's content, where that is only one."""
        if ranged and self.size is not None:
            arrival: Arrival = RangedArrival(self.feed, tally, self.pace, size=self.size, part_bytes=step)
            return self._work(tally, upload, arrival, step)
        # One byte more than there should be, so that the end is seen.
        buffer_bytes = step if self.size is None else min(step, self.size + 1)
        with closing(StreamedArrival(self.feed, tally, self.pace, part_bytes=step)) as streamed:
            return self._work(tally, upload, streamed, buffer_bytes)

    def _work(self, tally: Tally, upload: Multipart, arrival: Arrival, buffer_bytes: int) -> bytes | None:
        """Several threads, each with one part in its hands."""

        def carry() -> bytes | None:
            more, whole = True, None
            while more:
                with self.memory.lent(buffer_bytes, tally.check) as buffer:
                    more, whole = _carried(arrival, upload, buffer)
            return whole

        count = self.sizes.at_once(buffer_bytes, self.connections)
        futures = [begun(carry, "bucket-part") for _ in range(count)]
        try:
            self._await(futures, tally)
        finally:
            tally.halt()
            wait(futures, FAREWELL_S)
        return next((future.result() for future in futures if future.result() is not None), None)

    def _await(self, futures: list[Future[bytes | None]], tally: Tally) -> None:
        """Tells how far it is. Returns when all are done.

        Raises:
            Exception: the first failure, unless it is only the others' answer to it.
        """
        pending = set(futures)
        while pending:
            done, pending = wait(pending, timeout=POLL_S, return_when=FIRST_COMPLETED)
            self._check()
            self.on_bytes(tally.received)
            for future in done:
                future.result()

    def _send_whole(self, content: bytes, sha256: str | None) -> None:
        target = {"Bucket": self.name.bucket, "Key": self.name.key}

        def send() -> None:
            with writing(self.store.place, self.name), self.store.checked(self._check):
                body = PartBody(memoryview(content), self._check)
                answer = self.store.client("sending").put_object(**target, Body=body, Metadata=self._metadata(sha256))
                if not answer.get("ETag"):
                    raise NotS3Error

        awaited(send, self._check, "bucket-whole")

    def _verify(self, size: int, sha256: str | None) -> None:
        if self.size is not None and size != self.size:
            raise SyncError(SyncCode.REJECTED, f"has {size} bytes instead of {self.size}")
        if self.sha256 is not None and sha256 != self.sha256:
            raise SyncError(SyncCode.REJECTED, f"has the SHA-256 {sha256} instead of {self.sha256}")

    def _may_be_cut(self) -> bool:
        """Whether ranges that are asked for one by one are of one version, or it would show that they are not."""
        return self.feed.ranges and (self.feed.resolved.version is not None or self.sha256 is not None)

    def _tally(self) -> Tally:
        hashing = self.hashing or self.sha256 is not None
        return Tally(size=self.size, hashing=hashing, judge=self.judge)

    def _metadata(self, sha256: str | None) -> dict[str, str]:
        return {HASH_KEY: sha256} if sha256 else {}

    def _check(self) -> None:
        if self.stop.is_set():
            raise stopped()


def _carried(arrival: Arrival, upload: Multipart, buffer: memoryview) -> tuple[bool, bytes | None]:
    """Takes one part and sends it. Says whether there may be another, and gives back the content of an only one."""
    part = arrival.take(buffer)
    if part is None:
        return False, None
    if part.whole:
        return False, bytes(buffer[: part.size])
    if part.number > MOST_PARTS:
        raise SyncError(SyncCode.STORE, "is larger than an upload of unknown size may be")
    with buffer[: part.size] as content:
        upload.send(part.number, content)
    return True, None

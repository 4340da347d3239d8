"""The store: one client for the process, made when it is first needed.

What is sent is what every store that speaks S3 takes: version 4 signatures, payloads signed as a whole (none of the
`aws-chunked` trailers that R2, Google's interoperability and older MinIO refuse), and no conditional headers, which
some stores answer with 501 and others ignore.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

from morpheus_worker.deadlines import Allowance, Deadline, awaited
from morpheus_worker.errors import Code, MediaRefusedError, MorpheusError
from morpheus_worker.fetching import Fetched
from morpheus_worker.s3.calling import FETCHING, UPLOADING, Calls
from morpheus_worker.s3.downloading import Download
from morpheus_worker.s3.endpoint import Endpoint, S3Name, UnusableUriError, endpoint_of
from morpheus_worker.s3.faults import fault_of, not_s3, sdk_errors, unreachable, upload_failed
from morpheus_worker.s3.uploading import NotS3Error, Sizes, Upload
from morpheus_worker.settings import Settings

log = logging.getLogger(__name__)

FILES_AT_ONCE: Final = 4
LOOKS_AT_ONCE: Final = 8
RENEWAL_S: Final = 5.0
"""How long the store may take to say that the outputs of an earlier job are still there; then the job runs instead."""
RENEWING: Final = "looking for its stored outputs"
REMOVAL_S: Final = 10.0
"""How long the removal of one object is tried, in seconds."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one request waits, in seconds, and how often it is tried."""

    connect_s: float = 5.0
    read_s: float = 30.0
    tries: int = 4


class S3Store:
    """The configured store. Safe to use from several threads.

    Its credentials go to the configured endpoint alone: a caller's `s3://` names a bucket and a key, never a host.
    """

    def __init__(self, settings: Settings, *, sizes: Sizes | None = None, patience: Patience | None = None) -> None:
        self._settings = settings
        self._sizes = sizes or Sizes()
        self._patience = patience or Patience()
        self._calls = Calls()
        self._lock = threading.Lock()
        self._made: Any = None
        self.endpoint: Endpoint = endpoint_of(settings)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(settings)

    def prepare(self) -> None:
        """Makes the client now, which takes most of a second, instead of at the first use."""
        self._client()

    @property
    def can_store(self) -> bool:
        """Whether a bucket for outputs is known."""
        return self.endpoint.bucket is not None

    def uri_of(self, key: str) -> str:
        """The `s3://` name of an output's key.

        Raises:
            MorpheusError: `upload_failed`, when no bucket for outputs is known.
        """
        if self.endpoint.bucket is None:
            said = "The outputs could not be uploaded: the BUCKET_ settings name no bucket; set BUCKET_NAME"
            raise MorpheusError(Code.UPLOAD_FAILED, said, retryable=False)
        return str(S3Name(self.endpoint.bucket, key))

    def has(self, key: str, allowance: Allowance) -> bool:
        """Whether the bucket for outputs holds this key.

        An answer 4xx counts as no: credentials that may not list are told 403 of what is not there, and whatever else
        is wrong the upload will be told, with a reason.

        Raises:
            MorpheusError: `upload_failed`, `cancelled`, `timeout`.
        """
        name = S3Name.of(self.uri_of(key))
        try:
            with self._uploading(name), self._calls.checked(lambda: allowance.check(UPLOADING)):
                self._client().head_object(Bucket=name.bucket, Key=name.key)
        except MorpheusError as failure:
            if 400 <= failure.details.get("status", 0) < 500:
                return False
            raise
        return True

    def upload(self, path: Path, key: str, *, media_type: str, allowance: Allowance) -> str:
        """Makes the file the bucket's object `key`, and returns its `s3://` name. Blocks no longer than the job may go
        on, unless the store hangs: then until a request's own timeout.

        Raises:
            MorpheusError: `upload_failed`; `cancelled`, `timeout`. No part of a large file stays at the store then.
            OSError: when the file cannot be opened.
        """
        name = S3Name.of(self.uri_of(key))
        target = {"Bucket": name.bucket, "Key": name.key}
        with path.open("rb", buffering=0) as source, self._uploading(name):
            client = self._client()
            upload = Upload(client, self._calls, target, media_type, self._sizes, lambda: allowance.check(UPLOADING))
            upload.send(source)
        return str(name)

    def url_of(self, s3_uri: str) -> str:
        """Where the object can be downloaded: its public address, or an address that is signed now. Asks nobody.

        Raises:
            MorpheusError: `upload_failed`, when there are no credentials to sign it with.
        """
        name = S3Name.of(s3_uri)
        public = self._settings.s3_public_url
        if public is not None and name.bucket == self.endpoint.bucket:
            return f"{public.rstrip('/')}/{quote(name.key, safe='/~')}"
        with self._uploading(name):
            params = {"Bucket": name.bucket, "Key": name.key}
            lasts_s = self._settings.s3_url_ttl_s
            url: str = self._client().generate_presigned_url("get_object", Params=params, ExpiresIn=lasts_s)
        return url

    def renewed(self, uris: Sequence[str], allowance: Allowance) -> list[str]:
        """URLs that work from now on, for outputs of earlier jobs, which are asked for first, all at once.

        Raises:
            MorpheusError: `upload_failed`, when one is not in the bucket for outputs any more, or the store does not
                say so in `RENEWAL_S`; `cancelled`, `timeout`.
        """
        limit = allowance.within(RENEWAL_S)

        def check() -> None:
            allowance.check(RENEWING)
            if limit.deadline.passed:
                raise MorpheusError(Code.UPLOAD_FAILED, "the store does not say whether the outputs are still there")

        bucket = self.uri_of("")
        if strange := [uri for uri in uris if not uri.startswith(bucket)]:
            raise MorpheusError(Code.UPLOAD_FAILED, f"{strange[0]} is not in this worker's bucket")
        pool = ThreadPoolExecutor(LOOKS_AT_ONCE, thread_name_prefix="s3-look")
        futures = [pool.submit(copy_context().run, self.has, uri.removeprefix(bucket), limit) for uri in uris]
        try:
            awaited(futures, check)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        if gone := [uri for uri, future in zip(uris, futures, strict=True) if not future.result()]:
            raise MorpheusError(Code.UPLOAD_FAILED, f"{gone[0]} is not there any more")
        return [self.url_of(uri) for uri in uris]

    def remove(self, s3_uri: str) -> None:
        """Takes an object away. Never fails."""
        allowance = Allowance.of(REMOVAL_S)
        try:
            name = S3Name.of(s3_uri)
            with self._uploading(name), self._calls.checked(lambda: allowance.check("removing an object")):
                self._client().delete_object(Bucket=name.bucket, Key=name.key)
        except UnusableUriError as failure:
            log.warning("An object was not removed: its name %s", failure)
        except MorpheusError as failure:
            log.warning("%s stays at the store: %s", s3_uri, failure.details.get("store_code") or failure.code)

    def fetch(self, uri: str, target: Path, *, max_bytes: int, allowance: Allowance) -> Fetched:
        """Brings the object `s3://bucket/key` to `target`, which does not exist yet.

        Raises:
            MediaRefusedError: `input_rejected`, `input_unreachable`. The target does not exist then.
            MorpheusError: `cancelled`, `timeout`; `internal` when the disk fails.
        """
        try:
            name = S3Name.of(uri)
        except UnusableUriError as failure:
            raise MediaRefusedError(Code.INPUT_REJECTED, str(failure)) from None
        with self._fetching(name):
            client = self._client()
        return self._awaited(Download(client, self._calls, name, target, max_bytes, allowance))

    def close(self) -> None:
        """Closes the connections."""
        with self._lock:
            if self._made is not None:
                self._made.close()
                self._made = None

    def _awaited(self, download: Download) -> Fetched:
        limit = Deadline.after(self._settings.media_timeout_s)

        def check() -> None:
            download.allowance.check(FETCHING)
            if limit.passed:
                said = f"did not arrive from the store within {self._settings.media_timeout_s:g} s"
                raise MediaRefusedError(Code.INPUT_UNREACHABLE, said)

        pool = ThreadPoolExecutor(1, thread_name_prefix="s3-fetch")
        future = pool.submit(copy_context().run, download.run)
        try:
            awaited([future], check)
        except BaseException:
            download.stop()
            raise
        finally:
            pool.shutdown(wait=False)
        return future.result()

    def _client(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made = self._new_client()
                self._calls.attach(self._made)
            return self._made

    def _new_client(self) -> Any:
        # Imported here, because only jobs with S3 need it and it takes half a second.
        from boto3.session import Session
        from botocore.config import Config

        key, secret = self._settings.bucket_access_key_id, self._settings.bucket_secret_access_key
        config = Config(
            signature_version="s3v4",
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            retries={"mode": "standard", "total_max_attempts": self._patience.tries},
            connect_timeout=self._patience.connect_s,
            read_timeout=self._patience.read_s,
            max_pool_connections=FILES_AT_ONCE * self._sizes.parts_at_once * (self._settings.concurrency + 1),
            s3={"addressing_style": self.endpoint.addressing},
        )
        return Session().client(
            "s3",
            endpoint_url=self.endpoint.url,
            region_name=self.endpoint.region,
            aws_access_key_id=key.get_secret_value() if key else None,
            aws_secret_access_key=secret.get_secret_value() if secret else None,
            config=config,
        )

    @contextlib.contextmanager
    def _uploading(self, name: S3Name) -> Iterator[None]:
        """Within it, what the SDK raises becomes `upload_failed`."""
        try:
            yield
        except sdk_errors() as failure:
            raise upload_failed(name.filename, name.bucket, self.endpoint.shown, fault_of(failure)) from None
        except NotS3Error:
            raise upload_failed(name.filename, name.bucket, self.endpoint.shown, not_s3()) from None

    @contextlib.contextmanager
    def _fetching(self, name: S3Name) -> Iterator[None]:
        """Within it, what the SDK raises becomes a refusal of the medium."""
        try:
            yield
        except sdk_errors() as failure:
            raise unreachable(name.bucket, fault_of(failure)) from None

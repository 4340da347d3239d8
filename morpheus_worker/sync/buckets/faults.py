"""What a store says of an object that is read or written, as a `SyncError`.

Said are the bucket, the file's name and the endpoint's host; never a key, a signature or an address that holds one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from morpheus_worker.s3.faults import MISSING, Fault, fault_of, not_s3, sdk_errors
from morpheus_worker.s3.uploading import NotS3Error
from morpheus_worker.sync.answers import Answer, retry_after_s
from morpheus_worker.sync.buckets.places import ObjectName, Place
from morpheus_worker.sync.terms import SyncCode, SyncError

_OF_ANOTHER_VERSION: Final = frozenset({412, 416})
"""The ETag is not the one that was asked for; the object ends before the range that was."""
_FULL: Final = frozenset({"InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "507"})
_ALSO_OF_MISSING: Final = "a store says the same of an object that is not there, where listing is not allowed"


@contextlib.contextmanager
def reading(place: Place, name: ObjectName) -> Iterator[None]:
    """Within it, what the SDK raises becomes a `SyncError` about a source."""
    try:
        yield
    except sdk_errors() as failure:
        raise unreadable(place, name, read(failure, place), after_s=_asked_wait_s(failure)) from None


@contextlib.contextmanager
def writing(place: Place, name: ObjectName) -> Iterator[None]:
    """Within it, what the SDK raises becomes a `SyncError` about where a file goes."""
    try:
        yield
    except sdk_errors() as failure:
        raise unwritable(place, name, read(failure, place), after_s=_asked_wait_s(failure)) from None
    except NotS3Error:
        raise unwritable(place, name, not_s3(place.names)) from None


def read(failure: Exception, place: Place) -> Fault:
    """Reads one of the `sdk_errors`. What the SDK tells of missing credentials is put as a refusal."""
    fault = fault_of(failure, place.names)
    return replace(fault, status=401) if _is_lack_of_credentials(failure) else fault


def is_missing(failure: Exception) -> bool:
    """Whether the store says that it has no such object."""
    return fault_of(failure).code in MISSING


def unreadable(place: Place, name: ObjectName, fault: Fault, *, after_s: float = 0.0) -> SyncError:
    """The error about a source. Codes: `not_found`, `access_denied`, `changed`, `unreachable`."""
    where = _where(place, name)
    if fault.code in MISSING:
        return SyncError(SyncCode.NOT_FOUND, f"is not in {where} (the store {fault.what})")
    if fault.status == 404:
        return SyncError(SyncCode.NOT_FOUND, f"is not in {where} (the store {fault.what})", fault.advice)
    if fault.status in (401, 403):
        hint = f"{fault.advice}; {_ALSO_OF_MISSING}" if fault.code in ("403", "AccessDenied") else fault.advice
        return SyncError(SyncCode.ACCESS_DENIED, f"may not be read from {where} (the store {fault.what})", hint)
    if fault.status in _OF_ANOTHER_VERSION:
        return SyncError(SyncCode.CHANGED, f"was replaced in {where} (the store {fault.what})", "resolve it anew")
    what = f"cannot be read from {where}: the store {fault.what}"
    return SyncError(SyncCode.UNREACHABLE, what, fault.advice, passing=fault.retryable, after_s=after_s)


def unwritable(place: Place, name: ObjectName, fault: Fault, *, after_s: float = 0.0) -> SyncError:
    """The error about where a file goes. Codes: `store`, `no_space`; `access_denied` without any credentials."""
    what = f"cannot be written to {_where(place, name)}: the store {fault.what}"
    if {fault.code, str(fault.status)} & _FULL:
        return SyncError(SyncCode.NO_SPACE, what, "make room there, or choose a larger volume")
    if fault.status == 401 and fault.code is None:
        return SyncError(SyncCode.ACCESS_DENIED, what, fault.advice)
    return SyncError(SyncCode.STORE, what, fault.advice, passing=fault.retryable, after_s=after_s)


def no_key(place: Place, name: ObjectName) -> SyncError:
    """The error where a store takes no other key than its own, and none is set."""
    what = f"cannot be had from {_where(place, name)} without a key for it"
    return SyncError(SyncCode.ACCESS_DENIED, what, f"set {place.names.credentials}")


def _where(place: Place, name: ObjectName) -> str:
    return f"the bucket '{name.bucket}' at {place.host} as '{name.filename}'"


def _is_lack_of_credentials(failure: Exception) -> bool:
    from botocore.exceptions import NoCredentialsError, PartialCredentialsError

    return isinstance(failure, NoCredentialsError | PartialCredentialsError)


def _asked_wait_s(failure: Exception) -> float:
    """What the store's Retry-After asks for, in seconds or as a date."""
    response: Any = getattr(failure, "response", None)
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {}) if isinstance(response, dict) else {}
    return retry_after_s(Answer(0, headers), time.time())

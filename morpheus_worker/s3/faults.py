"""What the AWS SDK raises, in words: what the store said, what to do, and whether a retry can help.

Only the store's code and status are passed on. Its message, and the texts of the SDK's exceptions, may hold an access
key, a signature or a whole signed URL.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from morpheus_worker.errors import Code, MediaRefusedError, MorpheusError


@dataclass(frozen=True, slots=True)
class Names:
    """What the variables are called that a store is configured with, for advice that can be followed."""

    endpoint: str
    region: str
    bucket: str
    key: str
    secret: str
    credentials: str

    def told(self, advice: str) -> str:
        return advice.format_map({each.name: getattr(self, each.name) for each in fields(self)})


OUTPUTS: Final = Names(
    endpoint="BUCKET_ENDPOINT_URL",
    region="BUCKET_REGION",
    bucket="BUCKET_NAME",
    key="BUCKET_ACCESS_KEY_ID",
    secret="BUCKET_SECRET_ACCESS_KEY",
    credentials="BUCKET_ACCESS_KEY_ID and BUCKET_SECRET_ACCESS_KEY, or the AWS SDK's own variables (AWS_*)",
)
"""The store that outputs go to."""

_CODE: Final = re.compile(r"[A-Za-z0-9.]{1,64}")
_WRONG_KEY: Final = "check {key}"
_WRONG_SECRET: Final = "check {secret}, and that {region} is the bucket's"
_WRONG_REGION: Final = "set {region} to the bucket's region"
_NO_RIGHT: Final = "give the credentials the rights to read, write and delete objects there (s3:GetObject, and so on)"
_WRONG_PLACE: Final = "check {endpoint}: what answers there does not take S3 uploads"
_NEW_TOKEN: Final = "renew the temporary credentials"
_LATER: Final = "try again"

ADVICE: Final = {
    "NoSuchBucket": "check {bucket} and {endpoint}",
    "InvalidBucketName": "check {bucket}",
    "AccessDenied": _NO_RIGHT,
    "AllAccessDisabled": _NO_RIGHT,
    "InvalidAccessKeyId": _WRONG_KEY,
    "SignatureDoesNotMatch": _WRONG_SECRET,
    "AuthorizationHeaderMalformed": _WRONG_REGION,
    "IllegalLocationConstraintException": _WRONG_REGION,
    "InvalidRegion": _WRONG_REGION,
    "PermanentRedirect": _WRONG_REGION,
    "ExpiredToken": _NEW_TOKEN,
    "InvalidToken": _NEW_TOKEN,
    "RequestTimeTooSkewed": "set this machine's clock",
    "EntityTooLarge": "the store takes no file of this size",
    "MethodNotAllowed": _WRONG_PLACE,
    "NotImplemented": _WRONG_PLACE,
    "401": _NO_RIGHT,
    "403": _NO_RIGHT,
    "404": _WRONG_PLACE,
    "405": _WRONG_PLACE,
}
"""By the store's code, or the status of an answer without one."""

_MAY_PASS: Final = frozenset({"RequestTimeTooSkewed", "NoSuchUpload", "OperationAborted", "RequestTimeout"})
"""Refusals that another worker, or another moment, may not meet."""

_PASSING_STATUSES: Final = frozenset({408, 409, 425, 429})
MISSING: Final = frozenset({"NoSuchKey", "NoSuchVersion", "404"})


@dataclass(frozen=True, slots=True)
class Fault:
    """`what` is half a sentence about the store (`said NoSuchBucket (404)`), `advice` what to do."""

    what: str
    advice: str
    retryable: bool
    code: str | None = None
    status: int | None = None


_NOT_S3: Final = Fault("answered with something that is not S3's", "check {endpoint}", False)


def sdk_errors() -> tuple[type[Exception], ...]:
    """What the SDK raises: its own, what it lets through of urllib3's amid an answer, and the ValueError of an endpoint
    that is none. For an `except` clause."""
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    exceptions = _botocore_exceptions()
    return (exceptions.BotoCoreError, exceptions.ClientError, ResponseParserError, HTTPError, ValueError)


def not_s3(names: Names = OUTPUTS) -> Fault:
    """What is to be said where an answer to S3's request did not say what S3 does."""
    return replace(_NOT_S3, advice=names.told(_NOT_S3.advice))


def fault_of(failure: Exception, names: Names = OUTPUTS) -> Fault:
    """Reads one of the `sdk_errors`, of the store that is configured with `names`."""
    fault = _read(failure)
    return replace(fault, advice=names.told(fault.advice))


def _read(failure: Exception) -> Fault:
    from urllib3.exceptions import HTTPError

    exceptions = _botocore_exceptions()
    if isinstance(failure, exceptions.ClientError):
        return _said(failure.response)
    if isinstance(failure, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        return Fault("was not asked, because this worker has no credentials for it", "set {credentials}", False)
    if isinstance(failure, exceptions.SSLError):
        return Fault("has a certificate that this worker does not trust", "check {endpoint}", False)
    if isinstance(failure, exceptions.ConnectionError):
        return Fault("cannot be reached", "check {endpoint}, or try again", True)
    if isinstance(failure, exceptions.ReadTimeoutError):
        return Fault("stopped answering", _LATER, True)
    if isinstance(failure, exceptions.HTTPClientError | exceptions.IncompleteReadError | HTTPError):
        return Fault("broke the connection", _LATER, True)
    if isinstance(failure, exceptions.BotoCoreError):
        return Fault(
            f"could not be asked ({type(failure).__name__})", "check {endpoint} and what is set beside it", False
        )
    if isinstance(failure, ValueError):
        return Fault("has an address that the AWS SDK does not take", "check {endpoint}", False)
    return _NOT_S3


def _botocore_exceptions() -> Any:
    # Imported here, because only jobs with S3 need it and it takes a tenth of a second.
    from botocore import exceptions

    return exceptions


def upload_failed(name: str, bucket: str, endpoint: str, fault: Fault) -> MorpheusError:
    """The failure of one output's upload."""
    where = f"to the bucket '{bucket}': the store at {endpoint}"
    said = f"'{name}' could not be uploaded {where} {fault.what}; {fault.advice}"
    details = {"bucket": bucket, "endpoint": endpoint, "store_code": fault.code, "status": fault.status}
    known = {key: value for key, value in details.items() if value is not None}
    return MorpheusError(Code.UPLOAD_FAILED, said, details=known, retryable=fault.retryable)


def unreachable(bucket: str, fault: Fault) -> MediaRefusedError:
    """The failure of one input's download."""
    code = Code.INPUT_UNREACHABLE
    if fault.code in MISSING:
        return MediaRefusedError(code, f"is not in the bucket '{bucket}' (the store {fault.what})", retryable=False)
    if fault.status in (401, 403):
        what = f"may not be read from the bucket '{bucket}' with this worker's credentials (the store {fault.what})"
        hint = "a store says the same of an object that is not there, where listing is not allowed"
        return MediaRefusedError(code, what, hint, retryable=False)
    what = f"cannot be read from the bucket '{bucket}': the store {fault.what}"
    return MediaRefusedError(code, what, fault.advice, retryable=fault.retryable)


def _said(response: dict[str, Any]) -> Fault:
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    raw = str(response.get("Error", {}).get("Code") or status)
    code = raw if _CODE.fullmatch(raw) else str(status)
    what = f"answered {status}" if code == str(status) else f"said {code} ({status})"
    may_pass = code in _MAY_PASS or status is None or status >= 500 or status in _PASSING_STATUSES
    retryable = may_pass and code != "NotImplemented"
    advice = ADVICE.get(code) or (_LATER if retryable else "see the store's documentation of this answer")
    return Fault(what, advice, retryable, code, status)

"""What the AWS SDK raises, in words: what the store said, what to do, and whether a retry can help.

Only the store's code and status are passed on. Its message, and the texts of the SDK's exceptions, may hold an access
key, a signature or a whole signed URL.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from morpheus_worker.errors import Code, MediaRefusedError, MorpheusError

CREDENTIALS: Final = "BUCKET_ACCESS_KEY_ID and BUCKET_SECRET_ACCESS_KEY, or the AWS SDK's own variables (AWS_*)"

_CODE: Final = re.compile(r"[A-Za-z0-9.]{1,64}")
_WRONG_KEY: Final = "check BUCKET_ACCESS_KEY_ID"
_WRONG_SECRET: Final = "check BUCKET_SECRET_ACCESS_KEY, and that BUCKET_REGION is the bucket's"
_WRONG_REGION: Final = "set BUCKET_REGION to the bucket's region"
_NO_RIGHT: Final = "give the credentials the rights to read, write and delete objects there (s3:GetObject, and so on)"
_WRONG_PLACE: Final = "check BUCKET_ENDPOINT_URL: what answers there does not take S3 uploads"
_NEW_TOKEN: Final = "renew the temporary credentials"
_LATER: Final = "try again"

ADVICE: Final = {
    "NoSuchBucket": "check BUCKET_NAME and BUCKET_ENDPOINT_URL",
    "InvalidBucketName": "check BUCKET_NAME",
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
_MISSING: Final = frozenset({"NoSuchKey", "NoSuchVersion", "404"})


@dataclass(frozen=True, slots=True)
class Fault:
    """`what` is half a sentence about the store (`said NoSuchBucket (404)`), `advice` what to do."""

    what: str
    advice: str
    retryable: bool
    code: str | None = None
    status: int | None = None


NOT_S3: Final = Fault("answered with something that is not S3's", "check BUCKET_ENDPOINT_URL", False)


def sdk_errors() -> tuple[type[Exception], ...]:
    """What the SDK raises: its own, what it lets through of urllib3's amid an answer, and the ValueError of an endpoint
    that is none. For an `except` clause."""
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    exceptions = _botocore_exceptions()
    return (exceptions.BotoCoreError, exceptions.ClientError, ResponseParserError, HTTPError, ValueError)


def fault_of(failure: Exception) -> Fault:
    """Reads one of the `sdk_errors`."""
    from urllib3.exceptions import HTTPError

    exceptions = _botocore_exceptions()
    if isinstance(failure, exceptions.ClientError):
        return _said(failure.response)
    if isinstance(failure, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        return Fault("was not asked, because this worker has no credentials for it", f"set {CREDENTIALS}", False)
    if isinstance(failure, exceptions.SSLError):
        return Fault("has a certificate that this worker does not trust", "check BUCKET_ENDPOINT_URL", False)
    if isinstance(failure, exceptions.ConnectionError):
        return Fault("cannot be reached", "check BUCKET_ENDPOINT_URL, or try again", True)
    if isinstance(failure, exceptions.ReadTimeoutError):
        return Fault("stopped answering", _LATER, True)
    if isinstance(failure, exceptions.HTTPClientError | exceptions.IncompleteReadError | HTTPError):
        return Fault("broke the connection", _LATER, True)
    if isinstance(failure, exceptions.BotoCoreError):
        return Fault(f"could not be asked ({type(failure).__name__})", "check the BUCKET_ settings", False)
    if isinstance(failure, ValueError):
        return Fault("has an address that the AWS SDK does not take", "check BUCKET_ENDPOINT_URL", False)
    return NOT_S3


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
    if fault.code in _MISSING:
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

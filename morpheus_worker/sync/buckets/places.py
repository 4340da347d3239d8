"""Which store a name in a bucket leads to, and with which keys. The keys of one store are never sent to another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Final, Self
from urllib.parse import urlsplit

from pydantic import SecretStr

from morpheus_worker.s3.endpoint import Addressing, Endpoint, UnusableUriError, endpoint_at, is_known, object_of
from morpheus_worker.s3.faults import OUTPUTS, Names
from morpheus_worker.settings import Settings
from morpheus_worker.sync.terms import SyncCode, SyncError

SCHEMES: Final = ("s3", "gs")

GS_KEYS: Final = "https://console.cloud.google.com/storage/settings;tab=interoperability"
"""Where Google makes HMAC keys (Cloud Storage, "HMAC keys": they are what its S3 interface takes)."""
RUNPOD_KEYS: Final = "https://console.runpod.io/user/settings"
"""Where RunPod makes keys for its volumes' S3 interface; its API key does not open it (RunPod, "S3-compatible API")."""
GS_REGION: Final = "auto"

_OF_SDK: Final = "or the AWS SDK's own variables (AWS_*)"

MODELS: Final = Names(
    endpoint="MORPHEUS_MODELS_ENDPOINT_URL",
    region="MORPHEUS_MODELS_REGION",
    bucket="the bucket's name",
    key="MORPHEUS_MODELS_ACCESS_KEY_ID",
    secret="MORPHEUS_MODELS_SECRET_ACCESS_KEY",
    credentials=f"MORPHEUS_MODELS_ACCESS_KEY_ID and MORPHEUS_MODELS_SECRET_ACCESS_KEY, {_OF_SDK}",
)
DESTINATION: Final = Names(
    endpoint="MORPHEUS_MODELS_TO_ENDPOINT_URL",
    region="MORPHEUS_MODELS_TO_REGION",
    bucket="the bucket's name",
    key="MORPHEUS_MODELS_TO_ACCESS_KEY_ID",
    secret="MORPHEUS_MODELS_TO_SECRET_ACCESS_KEY",
    credentials="MORPHEUS_MODELS_TO_ACCESS_KEY_ID and MORPHEUS_MODELS_TO_SECRET_ACCESS_KEY",
)
GS: Final = Names(
    endpoint="MORPHEUS_GS_ENDPOINT_URL",
    region="MORPHEUS_GS_ENDPOINT_URL",
    bucket="the bucket's name",
    key="MORPHEUS_GS_ACCESS_KEY_ID",
    secret="MORPHEUS_GS_SECRET_ACCESS_KEY",
    credentials=f"MORPHEUS_GS_ACCESS_KEY_ID and MORPHEUS_GS_SECRET_ACCESS_KEY; such a key is made at {GS_KEYS}",
)


@dataclass(frozen=True, slots=True)
class ObjectName:
    """An object: `<scheme>://<bucket>/<key>`, the key exactly as it stands there, neither decoded nor cut at a `?`."""

    scheme: str
    bucket: str
    key: str

    @classmethod
    def of(cls, uri: str) -> Self:
        """
        Raises:
            SyncError: `invalid`, for anything but a bucket and a key of a scheme that is known.
        """
        scheme = uri.partition("://")[0].lower()
        if scheme not in SCHEMES:
            raise SyncError(SyncCode.INVALID, "names no bucket", "s3://<bucket>/<key> or gs://<bucket>/<key>")
        try:
            return cls(scheme, *object_of(uri, f"{scheme}://"))
        except UnusableUriError as failure:
            raise SyncError(SyncCode.INVALID, f"has an address that {failure}") from None

    @classmethod
    def under(cls, prefix: str, path: PurePosixPath | str) -> Self:
        """The object of a path under `s3://<bucket>/<prefix>`, whose slash at the end makes no difference.

        Raises:
            SyncError: `invalid`.
        """
        return cls.of(f"{prefix.rstrip('/')}/{path}")

    @property
    def filename(self) -> str:
        return self.key.rpartition("/")[2]

    @property
    def source(self) -> Mapping[str, str]:
        """As a manifest names it."""
        return {"kind": self.scheme, "uri": str(self)}

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}"


@dataclass(frozen=True, slots=True)
class Place:
    """A store: where it is, which key opens it, and what its settings are called.

    Without a key the AWS SDK looks for one, unless `needs_key`: there it would find another store's.
    """

    scheme: str
    endpoint: Endpoint
    key: SecretStr | None
    secret: SecretStr | None
    names: Names
    needs_key: bool = False
    """Whether one has to be set, and none is."""

    @property
    def host(self) -> str:
        return urlsplit(self.endpoint.url).netloc if self.endpoint.url else "Amazon S3"


def place_of(settings: Settings, name: ObjectName, *, destination: bool = False) -> Place:
    """The store of an object: of one to read, or, `destination`, of one to be made there."""
    if name.scheme == "gs":
        return _of_google(settings)
    return _of_destination(settings, name.bucket) if destination else _of_models(settings, name.bucket)


def _of_google(settings: Settings) -> Place:
    endpoint = endpoint_at(settings.gs_endpoint_url, region=GS_REGION)
    key, secret = settings.gs_access_key_id, settings.gs_secret_access_key
    return Place("gs", endpoint, key, secret, GS, needs_key=key is None)


def _of_destination(settings: Settings, bucket: str) -> Place:
    """MORPHEUS_MODELS_TO_*, and what they leave out from where models are read, where that is the same store. A store
    of its own takes a key of its own: what the AWS SDK finds may be the other's, and is used at Amazon's alone."""
    sources, address = _of_models(settings, bucket), settings.models_to_endpoint_url
    key, secret, region = (
        settings.models_to_access_key_id,
        settings.models_to_secret_access_key,
        settings.models_to_region,
    )
    if address is None and region is None and key is None:
        return sources
    endpoint = sources.endpoint if address is None else _endpoint(address, bucket, None)
    is_same = _are_one(endpoint, sources.endpoint)
    names = DESTINATION if address is not None else replace(DESTINATION, endpoint=sources.names.endpoint)
    if key is None and is_same:
        of_key = sources.names
        names = replace(names, key=of_key.key, secret=of_key.secret, credentials=of_key.credentials)
        key, secret = sources.key, sources.secret
    elif endpoint.url is None:
        names = replace(names, credentials=f"{names.credentials}, {_OF_SDK}")
    else:
        names = _hinting(names, endpoint)
    needs_key = key is None and not is_same and endpoint.url is not None
    return Place("s3", replace(endpoint, region=region or endpoint.region), key, secret, names, needs_key)


def _of_models(settings: Settings, bucket: str) -> Place:
    """MORPHEUS_MODELS_*, and what they leave out from BUCKET_*, where that is the store. BUCKET_'s key is used at
    BUCKET_'s endpoint alone."""
    outputs = _endpoint(settings.bucket_endpoint_url, bucket, settings.bucket_region, settings.s3_addressing)
    has_outputs = settings.bucket_endpoint_url is not None or settings.bucket_name is not None
    names = MODELS
    if settings.models_endpoint_url is not None:
        endpoint = _endpoint(settings.models_endpoint_url, bucket, settings.models_region)
    elif has_outputs:
        endpoint = replace(outputs, region=settings.models_region or outputs.region)
        names = replace(MODELS, endpoint=OUTPUTS.endpoint, region=OUTPUTS.region)
    else:
        endpoint = _endpoint(None, bucket, settings.models_region)
    if settings.models_access_key_id is None and has_outputs and _are_one(endpoint, outputs):
        names = replace(names, key=OUTPUTS.key, secret=OUTPUTS.secret, credentials=OUTPUTS.credentials)
        return Place("s3", endpoint, settings.bucket_access_key_id, settings.bucket_secret_access_key, names)
    return Place(
        "s3", endpoint, settings.models_access_key_id, settings.models_secret_access_key, _hinting(names, endpoint)
    )


def _hinting(names: Names, endpoint: Endpoint) -> Names:
    """With the place where such keys are made, where that is easily missed."""
    if not (endpoint.url or "").endswith(".runpod.io"):
        return names
    return replace(names, credentials=f"{names.credentials}; such a key is made at {RUNPOD_KEYS}, under S3 API keys")


def _are_one(one: Endpoint, other: Endpoint) -> bool:
    """Amazon's regions are one store each: an account of China's partition is none of the others'."""
    return one.url == other.url and (one.url is not None or one.region == other.region)


def _endpoint(address: str | None, bucket: str, region: str | None, addressing: Addressing = "auto") -> Endpoint:
    """The endpoint for a bucket that the name in it says. One that stands in the address, as a provider shows it, is
    not part of it; only a store of one's own may have a path."""
    named = None if address is not None and is_known(address) else bucket
    return endpoint_at(address, bucket=named, region=region, addressing=addressing)

"""What the settings say about the store: the address to speak to, the bucket, its region, and how URLs name it.

People set BUCKET_ENDPOINT_URL in three ways, and each must lead to URLs that name the bucket once: the bucket in the
host (`https://<bucket>.s3.<region>.amazonaws.com`, as the official ComfyUI worker documents it), in the path
(`https://<account>.r2.cloudflarestorage.com/<bucket>`), or beside it in BUCKET_NAME.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, Self
from urllib.parse import unquote, urlsplit

from morpheus_worker.settings import Settings

Addressing = Literal["auto", "path", "virtual"]

SCHEME: Final = "s3://"
USUAL_REGION: Final = "us-east-1"
"""What a store of one's own expects where nobody has told it a region (MinIO, versitygw); R2 takes it for its `auto`
(Cloudflare, "S3 API compatibility", bucket region)."""

_BUCKET: Final = r"(?:(?P<bucket>[a-z0-9][a-z0-9.-]*)\.)?"
_REGION: Final = r"(?P<region>[a-z0-9-]+)"

# Hosts of known providers. A name that says nothing about region or bucket to us is left alone: `media.s3.svc.local`
# is somebody's own.
_AMAZON: Final = re.compile(
    rf"{_BUCKET}s3(?:(?P<variant>-fips)?(?:\.(?P<dualstack>dualstack))?[.-](?P<region>[a-z]{{2}}(?:-[a-z]+)+-\d))?"
    r"\.amazonaws\.com(?:\.cn)?"
)
_KNOWN: Final = tuple(
    re.compile(pattern)
    for pattern in (
        _AMAZON.pattern,
        rf"{_BUCKET}s3\.{_REGION}\.(?:backblazeb2\.com|wasabisys\.com|scw\.cloud|io\.cloud\.ovh\.net)",
        rf"{_BUCKET}{_REGION}\.(?:digitaloceanspaces|linodeobjects|vultrobjects|your-objectstorage)\.com",
        rf"{_BUCKET}[0-9a-f]{{32}}(?:\.(?:eu|fedramp))?\.r2\.cloudflarestorage\.com",
        rf"{_BUCKET}storage\.googleapis\.com",
        rf"s3api-{_REGION}\.runpod\.io",
    )
)
_OF_EVERY_REGION: Final = re.compile(r".*(?:\.r2\.cloudflarestorage|storage\.googleapis)\.com")
_AUTO: Final = "auto"

_BUCKET_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
"""Wider than Amazon's rule, for other stores; but no ARN, which would choose another host than the configured one."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`url` is None for Amazon's own, `bucket` where none is known, `region` where the AWS SDK is to find it.

    `key_prefix` begins the key of every output, before the job id.
    """

    url: str | None
    bucket: str | None
    region: str | None
    addressing: Addressing
    key_prefix: str

    @property
    def shown(self) -> str:
        return self.url or "Amazon S3"


class UnusableUriError(ValueError):
    """A text that is no `s3://bucket/key`; the message is a phrase that says why."""


@dataclass(frozen=True, slots=True)
class S3Name:
    """An object's name: `s3://<bucket>/<key>`, the key exactly as it stands there, neither decoded nor cut at a `?`."""

    bucket: str
    key: str

    @classmethod
    def of(cls, uri: str) -> Self:
        """
        Raises:
            UnusableUriError: for anything but a bucket's name and a key.
        """
        return cls(*object_of(uri, SCHEME))

    @property
    def filename(self) -> str:
        return self.key.rpartition("/")[2]

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.key}"


def object_of(uri: str, scheme: str) -> tuple[str, str]:
    """The bucket and the key of `<scheme><bucket>/<key>`, for a scheme like `s3://`.

    Raises:
        UnusableUriError: for anything but a bucket's name and a key.
    """
    if not uri.lower().startswith(scheme):
        raise UnusableUriError(f"is not an {scheme} address")
    bucket, _, key = uri[len(scheme) :].partition("/")
    if not _BUCKET_NAME.fullmatch(bucket):
        raise UnusableUriError(f"does not name a bucket: {scheme}<bucket>/<key>")
    if not key or key.endswith("/"):
        raise UnusableUriError(f"names no object: {scheme}<bucket>/<key>")
    # An HTTP client takes these parts out of a path, and asks for another object than the one that was signed.
    if {".", ".."} & set(key.split("/")):
        raise UnusableUriError("has a '.' or '..' part in its key")
    return bucket, key


def endpoint_of(settings: Settings) -> Endpoint:
    """Where outputs go, by the settings alone.

    A bucket that nobody named stays unknown. The RunPod SDK would take the month for its name (`11-26`), which on
    Amazon may be anybody's bucket.
    """
    return endpoint_at(
        settings.bucket_endpoint_url,
        bucket=settings.bucket_name,
        region=settings.bucket_region,
        addressing=settings.s3_addressing,
        key_prefix=settings.s3_key_prefix,
    )


def endpoint_at(
    address: str | None,
    *,
    bucket: str | None = None,
    region: str | None = None,
    addressing: Addressing = "auto",
    key_prefix: str = "",
) -> Endpoint:
    """The endpoint at an address as people write it, with what they said beside it. No address: Amazon's own."""
    prefix = _plain(key_prefix)
    if address is None:
        return Endpoint(None, _usable(bucket), region, _addressing(addressing, virtual=True), prefix)
    url = urlsplit(address)
    host, in_host, in_name = _read_host(url.netloc.lower(), bucket, addressing)
    path, found, folder = _read_path(unquote(url.path).strip("/"), bucket or in_host, bucket)
    amazon = _is_plain_amazon(url.scheme, host, path)
    return Endpoint(
        url=None if amazon else f"{url.scheme}://{host}{path}",
        bucket=_usable(found),
        region=region or in_name,
        addressing=_addressing(addressing, virtual=amazon or (in_host is not None and in_host == found)),
        key_prefix=_plain(folder) + prefix,
    )


def is_known(address: str) -> bool:
    """Whether the host is a provider's, whose endpoints have no path: a bucket stands there, if anything."""
    return any(pattern.fullmatch(urlsplit(address).netloc.lower()) for pattern in _KNOWN)


def _addressing(wanted: Addressing, *, virtual: bool) -> Addressing:
    """What `auto` means. For Amazon it is said, not left to the SDK, which would sign URLs for `s3.amazonaws.com`; that
    redirects to the bucket's region, where the signature is not for the host."""
    return "virtual" if virtual and wanted == "auto" else wanted


def _read_host(host: str, wanted: str | None, addressing: Addressing) -> tuple[str, str | None, str | None]:
    """The host without the bucket, the bucket that stood in it, and the region."""
    for pattern in _KNOWN:
        if match := pattern.fullmatch(host):
            said = match.groupdict()
            bucket = said.get("bucket")
            return host.removeprefix(f"{bucket}.") if bucket else host, bucket, _region(host, said.get("region"))
    rest = host.removeprefix(f"{wanted}.")
    if wanted is not None and rest != host and addressing != "path":
        return rest, wanted, USUAL_REGION
    return host, None, USUAL_REGION


def _region(host: str, said: str | None) -> str | None:
    if said is not None:
        # RunPod calls its data centres EU-RO-1.
        return said.upper() if host.endswith(".runpod.io") else said
    return _AUTO if _OF_EVERY_REGION.fullmatch(host) else None


def _read_path(path: str, known: str | None, wanted: str | None) -> tuple[str, str | None, str]:
    """What of the path belongs to the endpoint, the bucket, and the folder that begins every key.

    Beside a BUCKET_NAME the path is the endpoint's own (a store behind a proxy), unless it repeats the name. Without
    one, its first part is the bucket where the host names none, and the rest is a folder in it.
    """
    first, _, rest = path.partition("/")
    if not path:
        return "", known, ""
    if wanted is not None:
        return (f"/{path}", wanted, "") if first != wanted else ("", wanted, _folder(rest))
    return ("", first, _folder(rest)) if known is None else ("", known, _folder(path))


def _usable(bucket: str | None) -> str | None:
    return bucket if bucket and _BUCKET_NAME.fullmatch(bucket) else None


def _plain(prefix: str) -> str:
    """Without what would make a key unusable, as `S3Name.of` says it."""
    return "/".join(part for part in prefix.lstrip("/").split("/") if part not in (".", ".."))


def _folder(path: str) -> str:
    return f"{path}/" if path else ""


def _is_plain_amazon(scheme: str, host: str, path: str) -> bool:
    """Left to the SDK, which then follows a bucket to another region."""
    match = _AMAZON.fullmatch(host)
    return bool(match and scheme == "https" and not path and not match["variant"] and not match["dualstack"])

"""Civitai: a version's file among several, by its own API, and its bytes behind a signed address or a login."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from functools import cache
from http import HTTPStatus
from typing import Final

from pydantic import BaseModel, Field, ValidationError

from morpheus_worker.addresses import BadUrlError, MediaUrl
from morpheus_worker.settings import Settings
from morpheus_worker.sources import SHA256
from morpheus_worker.sync.answers import Answer, denied, refusal
from morpheus_worker.sync.hosts.connecting import MOST_TOLD_BYTES, Connections
from morpheus_worker.sync.hosts.following import First, Key, Landing, follow, key_for
from morpheus_worker.sync.hosts.web import ONE_BYTE, Refusal, WebFeed, check, url_of
from morpheus_worker.sync.terms import Feed, Resolved, Source, SyncCode, SyncError

GRANTS: Final = "https://civitai.com/user/account is where keys are made"

_FORMATS: Final = {
    "SafeTensor": "safetensors", "PickleTensor": "pickle", "GGUF": "gguf", "ONNX": "onnx", "Core ML": "coreml",
}  # fmt: skip
_LOGIN: Final = "/login"
_PARTS: Final = frozenset({"VAE", "Text Encoder"})
"""Types of files that are no model of their version's own kind."""


class _Hashes(BaseModel):
    sha256: str | None = Field(None, alias="SHA256")


class _Metadata(BaseModel):
    format: str | None = None
    fp: str | None = None
    size: str | None = None


class _File(BaseModel):
    """`size_kb` is in KiB: whole bytes in most answers, rounded in old ones."""

    id: int
    name: str | None = None
    type: str | None = None
    size_kb: float | None = Field(None, alias="sizeKB")
    hashes: _Hashes | None = None
    metadata: _Metadata | None = None
    primary: bool | None = None
    address: str | None = Field(None, alias="downloadUrl")

    @property
    def size(self) -> int | None:
        """In bytes, where it is a whole number of them."""
        size = (self.size_kb or 0.5) * 1024
        return int(size) if size.is_integer() and size > 0 and self.size_kb else None

    @property
    def is_surely_sized(self) -> bool:
        """A size in KiB with up to two decimals may have been rounded to them."""
        return self.size is not None and self.size % 256 != 0

    @property
    def sha256(self) -> str | None:
        told = (self.hashes and self.hashes.sha256) or ""
        return told.lower() if SHA256.fullmatch(told.lower()) else None

    @property
    def format(self) -> str | None:
        """In the manifest's words."""
        return _FORMATS.get((self.metadata and self.metadata.format) or "")

    @property
    def shown(self) -> str:
        about = self.metadata or _Metadata()
        told = ", ".join(filter(None, (self.type, about.format, about.fp, about.size)))
        return f"{self.id} {self.name or 'without a name'} ({told})"


class _Model(BaseModel):
    type: str | None = None


class _Version(BaseModel):
    files: list[_File] = []
    model: _Model | None = None


class Civitai:
    """Files of kind `civitai`: `version`, and `file` where it has several."""

    def __init__(self, connections: Connections, settings: Settings) -> None:
        self._connections, self._settings = connections, settings
        self._places: dict[tuple[int, int], tuple[MediaUrl, bool]] = {}
        """Of a version's file: where it is fetched from, and whether that may be a private address."""
        self._asking = threading.Lock()

    def resolve(self, source: Source, auth_env: str | None) -> Resolved:
        """What the API says of a version's file.

        Raises:
            SyncError: as its refusal says; `invalid` when the file is to be chosen.
        """
        file, kind = self._chosen(source, auth_env)
        pinned = {**source, "file": file.id}
        size = file.size if file.is_surely_sized else self._measured(pinned, auth_env)
        return Resolved(
            pinned,
            size,
            file.sha256,
            filename=file.name or None,
            format=file.format,
            names_version=file.sha256 is not None,
            kind=file.type if file.type in _PARTS else kind,
        )

    def feed(self, resolved: Resolved, auth_env: str | None) -> Feed:
        """Its bytes. The API is asked for their address when the first of them are wanted."""
        source = resolved.source
        shown = f"{self._settings.civitai_url}/api/download/models/{source['version']}"
        return WebFeed(
            self._connections,
            resolved,
            cache(lambda: self._first(source, auth_env)),
            shown=shown,
            fixed=False,
            refused=self._refusing(source, auth_env),
            landed=lambda landing: self._check_login(landing, source, auth_env),
        )

    def _chosen(self, source: Source, auth_env: str | None) -> tuple[_File, str | None]:
        """The file, and what kind of model its version is one of."""
        with self._asking:
            first = self._of(
                url_of(f"{self._settings.civitai_url}/api/v1/model-versions/{source['version']}"), auth_env
            )
            exchange, landing = follow(self._connections, first)
            with exchange:
                check(exchange.answer, landing, self._refusing(source, auth_env))
                version = _read(exchange.read(MOST_TOLD_BYTES), first.shown)
            file = _chosen(version.files, source)
            if file.address:
                # As a redirect: no person wrote it.
                private = landing.private and not exchange.wire.public
                self._places[int(source["version"]), file.id] = _place(landing, file.address), private
            return file, version.model.type if version.model else None

    def _of(self, url: MediaUrl, auth_env: str | None, *, private: bool = True) -> First:
        return First(url, self._key(auth_env), private)

    def _key(self, auth_env: str | None) -> Key:
        origin = url_of(self._settings.civitai_url).origin
        return key_for(self._settings, "civitai", auth_env, origin, grants=GRANTS)

    def _first(self, source: Source, auth_env: str | None) -> First:
        version, file = int(source["version"]), int(source.get("file") or 0)
        if (version, file) not in self._places:
            file = self._chosen(source, auth_env)[0].id
        if (version, file) not in self._places:
            raise SyncError(SyncCode.NOT_FOUND, f"version {version} has no address to fetch its file from")
        url, private = self._places[version, file]
        return self._of(url, auth_env, private=private)

    def _measured(self, source: Source, auth_env: str | None) -> int | None:
        """The size that the store says, where it can be asked: who may not fetch the file yet may still lock it."""
        try:
            exchange, landing = follow(self._connections, self._first(source, auth_env), headers=ONE_BYTE)
            with exchange:
                check(exchange.answer, landing, self._refusing(source, auth_env))
                within = exchange.answer.content_range
        except SyncError:
            return None
        return within.total if within and not exchange.answer.is_page else None

    def _check_login(self, landing: Landing, source: Source, auth_env: str | None) -> None:
        if landing.moved and not landing.away and landing.url.path.startswith(_LOGIN):
            raise denied(self._told(source), self._key(auth_env).access_at(landing.url))

    def _told(self, source: Source) -> str:
        return f"version {source['version']} on Civitai"

    def _refusing(self, source: Source, auth_env: str | None) -> Refusal:
        def refused(answer: Answer, landing: Landing) -> SyncError:
            access = self._key(auth_env).access_at(landing.url)
            if answer.status == HTTPStatus.NOT_FOUND:
                hint = "give the version's number, not the model's"
                return SyncError(SyncCode.NOT_FOUND, f"{self._told(source)} is not there", hint)
            if answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                return denied(self._told(source), access)
            return refusal(answer, landing.told, access, time.time())

        return refused


def _read(answer: bytes, told: str) -> _Version:
    try:
        return _Version.model_validate_json(answer)
    except ValidationError:
        raise SyncError(SyncCode.UNREACHABLE, f"{told} answered what cannot be read", passing=True) from None


def _place(landing: Landing, address: str) -> MediaUrl:
    try:
        return landing.url.redirected(address)
    except BadUrlError as failure:
        said = f"{landing.told} names an address that cannot be fetched: {failure}"
        raise SyncError(SyncCode.REJECTED, said) from None


def _chosen(files: Sequence[_File], source: Source) -> _File:
    """The file that a source means, of those that the API lists.

    Raises:
        SyncError: `not_found` when there is none, `invalid` when one must be named.
    """
    wanted, version = source.get("file"), source["version"]
    if wanted is not None:
        found = [file for file in files if file.id == wanted]
        return _only(found, f"version {version} on Civitai has no file {wanted}", files)
    candidates = [file for file in files if file.primary] or [file for file in files if file.type == "Model"] or files
    return _only(candidates, f"version {version} on Civitai has {len(candidates)} files to choose from", files)


def _only(found: Sequence[_File], else_what: str, files: Sequence[_File]) -> _File:
    if len(found) == 1:
        return found[0]
    listed = "; ".join(file.shown for file in files) or "it has none"
    code = SyncCode.INVALID if found else SyncCode.NOT_FOUND
    raise SyncError(code, else_what, f"name one in 'file': {listed}" if files else listed)

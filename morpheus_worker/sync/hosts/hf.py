"""Hugging Face: a revision becomes a commit, a large file's hash is known beforehand, refusals have reasons."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import quote

from pydantic import BaseModel, Field, ValidationError

from morpheus_worker.settings import Settings
from morpheus_worker.sources import COMMIT
from morpheus_worker.sync.answers import (
    REDIRECTS,
    Access,
    Answer,
    changed,
    check_plain,
    count_in,
    denied,
    refusal,
    sha256_in,
    strong_etag,
)
from morpheus_worker.sync.hosts import local
from morpheus_worker.sync.hosts.connecting import MOST_TOLD_BYTES, Connections
from morpheus_worker.sync.hosts.following import First, Landing, follow, key_for
from morpheus_worker.sync.hosts.local import CachedFile, LocalFeed
from morpheus_worker.sync.hosts.web import Refusal, WebFeed, check, url_of
from morpheus_worker.sync.terms import Feed, Resolved, Source, SyncCode, SyncError

PAGES: Final = "https://huggingface.co"
"""Where a person is sent, whichever mirror the bytes come from."""


class HuggingFace:
    """Files of kind `hf`: `repo`, `file`, and `revision`, which is main where it is left out."""

    def __init__(self, connections: Connections, settings: Settings) -> None:
        self._connections, self._settings = connections, settings
        self._endpoint = settings.hf_endpoint.rstrip("/")
        self._cache: Path = settings.hf_cache or settings.volume_root / "huggingface-cache"
        self._unfit: set[Path] = set()
        """Files of the cache that turned out not to be what was wanted."""

    def resolve(self, source: Source, auth_env: str | None, *, details: bool = False) -> Resolved:
        """What it says of a file, by one HEAD, or nothing but the cache. `details`: its licence, too, and always by the
        host's own word: what goes into a manifest or a lock holds for other machines.

        Raises:
            SyncError: as its refusal says.
        """
        if not details and (found := self._cached(source)) is not None:
            return local.look_cached(source, found)
        first = self._first(source, auth_env)
        exchange, landing = follow(self._connections, first, method="HEAD", until=_tells)
        exchange.close()
        if not _tells(exchange.answer):
            check(exchange.answer, landing, _refusing(source, first))
            check_plain(exchange.answer, landing.told)
        resolved = _resolved(source, exchange.answer, landing)
        return self._with_details(resolved, first) if details else resolved

    def feed(self, resolved: Resolved, auth_env: str | None) -> Feed:
        """Its bytes, from the cache where they are."""
        if (found := self._cached(resolved.source)) is not None:
            return LocalFeed(resolved, found.path, fixed=False)
        first = self._first(resolved.source, auth_env)
        return WebFeed(
            self._connections,
            resolved,
            lambda: first,
            shown=first.shown,
            fixed=False,
            refused=_refusing(resolved.source, first),
            landed=lambda landing: _check_commit(resolved.source, landing),
        )

    def pass_over_cache(self, resolved: Resolved) -> bool:
        """Has a file come from the network from now on that came from the cache until now; False where it did not."""
        found = self._cached(resolved.source)
        if found is not None:
            self._unfit.add(found.path)
        return found is not None

    def _cached(self, source: Source) -> CachedFile | None:
        found = local.cached(self._cache, source)
        return None if found is None or found.path in self._unfit else found

    def _first(self, source: Source, auth_env: str | None) -> First:
        repo, file = str(source["repo"]), str(source["file"])
        if any(part in ("", ".", "..") for part in [*repo.split("/"), *file.split("/")]):
            hint = "write it as the host has it"
            raise SyncError(SyncCode.INVALID, "the name of the file or its repository has an empty part, or '..'", hint)
        revision = quote(str(source.get("revision") or "main"), safe="")
        url = url_of(f"{self._endpoint}/{quote(repo)}/resolve/{revision}/{quote(file)}")
        grants = f"{PAGES}/{repo} is where access is granted"
        return First(url, key_for(self._settings, "hf", auth_env, url.origin, grants=grants))

    def _with_details(self, resolved: Resolved, first: First) -> Resolved:
        """What the repository says of itself: a courtesy, without which the file is resolved all the same."""
        source = resolved.source
        at = f"{quote(str(source['repo']))}/revision/{quote(str(source.get('revision') or 'main'), safe='')}"
        api = replace(first, url=url_of(f"{self._endpoint}/api/models/{at}?expand=cardData&expand=gated"))
        try:
            exchange, landing = follow(self._connections, api)
            with exchange:
                check(exchange.answer, landing, _refusing(source, api))
                about = _About.model_validate_json(exchange.read(MOST_TOLD_BYTES))
        except (SyncError, ValidationError):
            return resolved
        return replace(resolved, license=about.license, gated=bool(about.gated))


class _Card(BaseModel):
    license: str | list[str] | None = None


class _About(BaseModel):
    """`gated` is false, or says how access is granted."""

    gated: bool | str | None = None
    card: _Card | None = Field(None, alias="cardData")

    @property
    def license(self) -> str | None:
        told = self.card.license if self.card else None
        return ", ".join(told) if isinstance(told, list) else told


def _tells(answer: Answer) -> bool:
    """Whether an answer says which commit it is of, and so is Hugging Face's own: behind its redirect is a store."""
    linked = answer.status in REDIRECTS and count_in(answer.header("x-linked-size")) is not None
    return bool(answer.header("x-repo-commit")) and (linked or answer.status == 200)


def _resolved(source: Source, answer: Answer, landing: Landing) -> Resolved:
    commit = landing.headers.get("x-repo-commit", "")
    whole = COMMIT.fullmatch(commit) is not None
    _check_commit(source, landing)
    linked = count_in(answer.header("x-linked-size"))
    size = answer.length if linked is None and answer.status == 200 else linked
    etag = answer.header("x-linked-etag") or answer.header("etag")
    sha256 = sha256_in(etag)
    return Resolved(
        {**source, "revision": commit} if whole else source,
        size,
        sha256,
        None if sha256 else strong_etag(etag),
        str(source["file"]).rpartition("/")[2],
        names_version=whole or COMMIT.fullmatch(str(source.get("revision"))) is not None,
    )


def _check_commit(source: Source, landing: Landing) -> None:
    """That a pinned revision is the one that is sent.

    Raises:
        SyncError: `changed`.
    """
    wanted, commit = str(source.get("revision")), landing.headers.get("x-repo-commit", "")
    if COMMIT.fullmatch(wanted) and COMMIT.fullmatch(commit) and wanted != commit:
        raise changed(landing.told, f"sends the commit {commit}, not {wanted}")


def _refusing(source: Source, first: First) -> Refusal:
    return lambda answer, landing: refused(answer, landing.told, source, first.key.access_at(landing.url), time.time())


def refused(answer: Answer, told: str, source: Source, access: Access, now_s: float) -> SyncError:
    """What Hugging Face means by an answer that is no success: `X-Error-Code` says more than the status."""
    repo, file, revision = source["repo"], source["file"], source.get("revision") or "main"
    match answer.header("x-error-code"):
        case "GatedRepo":
            if not access.sent:
                return SyncError(SyncCode.ACCESS_DENIED, f"{repo} is gated and asks for a key", access.hint)
            what = f"{repo} is gated, and access was not granted to who the key in {access.variable} is of"
            return SyncError(SyncCode.ACCESS_DENIED, what, access.grants)
        case "RepoNotFound":
            what = f"there is no repository {repo}, or it is private"
            return SyncError(SyncCode.NOT_FOUND, what, f"check its name; for a private one {access.hint}")
        case "RevisionNotFound":
            return SyncError(SyncCode.NOT_FOUND, f"{repo} has no revision {revision}", "check 'revision'")
        case "EntryNotFound":
            return SyncError(
                SyncCode.NOT_FOUND, f"{repo} has no file {file} in the revision {revision}", "check 'file'"
            )
    if answer.status in (401, 403):
        return denied(told, access)
    return refusal(answer, told, access, now_s)

"""The hosts that models come from: what they say of a file, and its bytes."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Final, Protocol, Self

from morpheus_worker.deadlines import backoff_s
from morpheus_worker.settings import Settings
from morpheus_worker.sync.hosts import local
from morpheus_worker.sync.hosts.civitai import Civitai
from morpheus_worker.sync.hosts.connecting import Connections
from morpheus_worker.sync.hosts.following import First, key_for
from morpheus_worker.sync.hosts.hf import HuggingFace
from morpheus_worker.sync.hosts.local import LocalFeed
from morpheus_worker.sync.hosts.web import WebFeed, look, refused_by, url_of
from morpheus_worker.sync.hosts.wires import Terms
from morpheus_worker.sync.terms import Feed, Pace, Resolved, Source, Stop, SyncCode, SyncError, stopped

__all__ = ["BucketHost", "Hosts"]

LOOKS: Final = 3
"""How often a host is asked what it says of a file, as long as it fails in passing."""
_POLL_S: Final = 0.1


class BucketHost(Protocol):
    """What knows s3:// and gs:// names."""

    def resolve(self, uri: str) -> Resolved: ...

    def feed(self, resolved: Resolved) -> Feed: ...


class Hosts:
    """Every host that a source can name. For several threads. Without `buckets` it makes its own when it needs them."""

    def __init__(self, settings: Settings, *, buckets: BucketHost | None = None, terms: Terms | None = None) -> None:
        self._settings, self._terms = settings, terms or Terms()
        self._connections = Connections(self._terms, settings.sync_host_connections)
        self._hf = HuggingFace(self._connections, settings)
        self._civitai = Civitai(self._connections, settings)
        self._buckets = buckets
        self._making = threading.Lock()
        self._own = contextlib.ExitStack()
        self._closed = threading.Event()

    @classmethod
    def of(cls, settings: Settings, *, buckets: BucketHost | None = None, pace: Pace | None = None) -> Self:
        return cls(settings, buckets=buckets, terms=Terms(pace or Pace()))

    def resolve(
        self, source: Source, *, auth_env: str | None = None, details: bool = False, stop: Stop | None = None
    ) -> Resolved:
        """What the host says of a file, in the version that it has now, or that the source names: one small look.

        `auth_env` names the variable with the key, where it is another than the host's own. `details`: the licence
        and whether it is gated, too, where that takes another request.

        Raises:
            SyncError: as the host refuses, or fails after `LOOKS` looks; `interrupted` when `stop` is set.
        """
        if stop is not None and stop.is_set():
            raise stopped()
        pace = self._terms.pace
        waits = backoff_s(pace.first_wait_s, pace.longest_wait_s)
        for _ in range(LOOKS - 1):
            try:
                return self._look(source, auth_env, details)
            except SyncError as failure:
                if not failure.passing or failure.after_s > pace.longest_asked_wait_s:
                    raise
                self._wait(max(next(waits), failure.after_s), stop)
        return self._look(source, auth_env, details)

    def feed(self, resolved: Resolved, *, auth_env: str | None = None) -> Feed:
        """The bytes of a file that was resolved, now or when it was locked. Nothing is asked of the host yet.

        Raises:
            SyncError: `invalid`.
        """
        source = resolved.source
        match source["kind"]:
            case "hf":
                return self._hf.feed(resolved, auth_env)
            case "civitai":
                return self._civitai.feed(resolved, auth_env)
            case "https":
                first = self._web(source, auth_env)
                refused = refused_by(first)
                return WebFeed(
                    self._connections, resolved, lambda: first, shown=first.shown, fixed=True, refused=refused
                )
            case "file":
                return LocalFeed(resolved, Path(source["path"]), fixed=True)
            case _:
                return self._bucket(source).feed(resolved)

    def pass_over_cache(self, resolved: Resolved) -> bool:
        """Has a file come from its host from now on, where it was offered from RunPod's cached models and that was not
        what is wanted; whether that is worth another try."""
        return resolved.source["kind"] == "hf" and self._hf.pass_over_cache(resolved)

    def close(self) -> None:
        """Ends everything that is under way, from any thread: who reads or waits gets a `SyncError`."""
        self._closed.set()
        self._connections.close()
        with self._making:
            self._own.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _look(self, source: Source, auth_env: str | None, details: bool) -> Resolved:
        match source["kind"]:
            case "hf":
                return self._hf.resolve(source, auth_env, details=details)
            case "civitai":
                return self._civitai.resolve(source, auth_env)
            case "https":
                return look(self._connections, self._web(source, auth_env), source)
            case "file":
                return local.look(source, Path(source["path"]))
            case _:
                return self._bucket(source).resolve(str(source["uri"]))

    def _web(self, source: Source, auth_env: str | None) -> First:
        url = url_of(str(source["url"]))
        return First(url, key_for(self._settings, "https", auth_env, url.origin))

    def _bucket(self, source: Source) -> BucketHost:
        if source["kind"] not in ("s3", "gs"):
            raise SyncError(SyncCode.INVALID, f"nothing here fetches a source of kind '{source['kind']}'")
        from morpheus_worker.sync.buckets import Buckets

        with self._making:
            if self._buckets is None:
                self._buckets = self._own.enter_context(contextlib.closing(Buckets.of(self._settings))).sources
            return self._buckets

    def _wait(self, seconds: float, stop: Stop | None) -> None:
        left = seconds
        while left > 0:
            if self._closed.wait(min(_POLL_S, left)) or (stop is not None and stop.is_set()):
                raise stopped()
            left -= _POLL_S

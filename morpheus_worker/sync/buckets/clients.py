"""The SDK's clients, made when they are first needed.

What is sent is what every store that speaks S3 takes: version 4 signatures, payloads signed as a whole, checksums only
where S3 requires them, objects removed one by one, nothing presigned. RunPod's volumes take no more than that
(RunPod, "S3-compatible API", compatibility reference).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal

from morpheus_worker.s3.calling import Calls, Check
from morpheus_worker.settings import Settings
from morpheus_worker.sync.buckets.faults import no_key
from morpheus_worker.sync.buckets.places import ObjectName, Place, place_of

Doing = Literal["looking", "fetching", "sending", "completing"]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one answer is waited for, in seconds, and how often the SDK tries a request.

    RunPod advises ten tries against its gateway's 502, and two hours for the completion of a large upload, in which its
    store copies all parts into one file ("S3-compatible API": transfer files, timeout configuration for large files).
    """

    connect_s: float = 10.0
    look_s: float = 60.0
    look_tries: int = 4
    fetch_s: float = 30.0
    """Without a byte. Who fetches tries again where it broke off, so the SDK tries only once more."""
    fetch_tries: int = 2
    send_s: float = 120.0
    send_tries: int = 10
    complete_s: float = 7200.0
    complete_tries: int = 6
    """Asked by `multipart`, which looks before each whether it was completed after all."""
    settle_s: float = 60.0
    """How long, after a completion whose answer was lost, the object is looked for before it is asked for again."""

    def of(self, doing: Doing) -> tuple[float, int]:
        """Seconds to wait for an answer, tries of the SDK."""
        return {
            "looking": (self.look_s, self.look_tries),
            "fetching": (self.fetch_s, self.fetch_tries),
            "sending": (self.send_s, self.send_tries),
            "completing": (self.complete_s, 1),
        }[doing]


class Store:
    """The clients of one place. Safe to use from several threads."""

    def __init__(self, place: Place, patience: Patience, connections: int, make: Callable[..., Any]) -> None:
        self.place = place
        self.patience = patience
        self._connections = connections
        self._make = make
        self._calls = Calls()
        self._lock = threading.Lock()
        self._made: dict[Doing, Any] = {}

    def client(self, doing: Doing) -> Any:
        """The SDK's client for requests of this kind; each waits differently long.

        Raises:
            faults.sdk_errors: ValueError for an address that the SDK does not take.
        """
        with self._lock:
            if doing not in self._made:
                self._made[doing] = self._new(doing)
                self._calls.attach(self._made[doing])
            return self._made[doing]

    def is_at(self, other: Store) -> bool:
        """Whether both are one store, whichever key opens it."""
        mine, theirs = self.place.endpoint, other.place.endpoint
        return self.place.scheme == other.place.scheme and mine.url == theirs.url

    def checked(self, check: Check) -> AbstractContextManager[None]:
        """Within it, requests of this thread are not tried again once the check raises."""
        return self._calls.checked(check)

    def close(self) -> None:
        with self._lock:
            for client in self._made.values():
                client.close()
            self._made.clear()

    def _new(self, doing: Doing) -> Any:
        from botocore.config import Config

        read_s, tries = self.patience.of(doing)
        config = Config(
            signature_version="s3v4",
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            retries={"mode": "standard", "total_max_attempts": tries},
            connect_timeout=self.patience.connect_s,
            read_timeout=read_s,
            max_pool_connections=self._connections,
            s3={"addressing_style": self.place.endpoint.addressing},
        )
        key, secret = self.place.key, self.place.secret
        return self._make(
            endpoint_url=self.place.endpoint.url,
            region_name=self.place.endpoint.region,
            aws_access_key_id=key.get_secret_value() if key else None,
            aws_secret_access_key=secret.get_secret_value() if secret else None,
            config=config,
        )


@dataclass(slots=True)
class Stores:
    """The stores that names lead to, each made at its first use."""

    settings: Settings
    patience: Patience = field(default_factory=Patience)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _making: threading.Lock = field(default_factory=threading.Lock)
    _session: Any = None
    _made: dict[Place, Store] = field(default_factory=dict)

    def of(self, name: ObjectName, *, destination: bool = False) -> Store:
        """The store of an object that is read, or, `destination`, of one that is made there.

        Raises:
            SyncError: `access_denied`, where a key is needed and none is set.
        """
        place = place_of(self.settings, name, destination=destination)
        if place.needs_key:
            raise no_key(place, name)
        with self._lock:
            if place not in self._made:
                connections = self.settings.sync_connections * self.settings.sync_files
                self._made[place] = Store(place, self.patience, connections, self._new_client)
            return self._made[place]

    def close(self) -> None:
        with self._lock:
            stores = list(self._made.values())
            self._made.clear()
        for store in stores:
            store.close()

    def _new_client(self, **options: Any) -> Any:
        # Imported here, because only models in buckets need it and it takes half a second.
        from boto3.session import Session

        # A session, which has read the SDK's descriptions of S3, is for one thread at a time; its clients are for all.
        with self._making:
            self._session = self._session or Session()
            return self._session.client("s3", **options)

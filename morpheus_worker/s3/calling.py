"""How long a request to the store may go on: as long as the job does, whatever the SDK would still try."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

Check = Callable[[], None]
"""Raises when there is a reason to stop."""

UPLOADING: Final = "uploading the outputs"
FETCHING: Final = "fetching its media"


class Calls:
    """Ties each thread's requests to a check. The SDK wraps whatever a body raises into an error that it tries again;
    asked before each further try, the check ends that."""

    def __init__(self) -> None:
        self._thread = threading.local()

    def attach(self, client: Any) -> None:
        client.meta.events.register_first("needs-retry.s3", self._before_another_try)

    @contextlib.contextmanager
    def checked(self, check: Check) -> Iterator[None]:
        """Within it, requests of this thread are not tried again once the check raises."""
        outer: Check | None = getattr(self._thread, "check", None)
        self._thread.check = check
        try:
            check()
            yield
        finally:
            self._thread.check = outer

    def _before_another_try(
        self, *, response: object, caught_exception: Exception | None, operation: Any, request_dict: Any, **_: object
    ) -> None:
        if operation.name == "HeadBucket":
            # Redirected, the SDK asks so for the bucket's region. Where that is redirected, too, it would ask for ever.
            request_dict["context"].setdefault("s3_redirect", {})["redirected"] = True
        check: Check | None = getattr(self._thread, "check", None)
        if check is not None and (caught_exception is not None or _failed(response)):
            check()


def _failed(response: object) -> bool:
    return isinstance(response, tuple) and getattr(response[0], "status_code", 0) >= 300

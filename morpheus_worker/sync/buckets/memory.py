"""What may be held in memory of all files on their way into buckets, together."""

from __future__ import annotations

import contextlib
import mmap
import threading
from collections.abc import Callable, Iterator
from typing import Final

POLL_S: Final = 0.2


class Memory:
    """A limit in bytes that several files share. Whoever asked is given a part's worth in turn; what is larger than all
    of it is given when nobody else holds any."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lent = 0
        self._given_back = threading.Condition()

    @contextlib.contextmanager
    def lent(self, size: int, check: Callable[[], None]) -> Iterator[memoryview]:
        """So many bytes, of which only what is filled takes memory. They are gone in the end, and so must be every view
        of them; of one that is not, such as a failure's, the memory is free when that is.

        Raises:
            Exception: what `check` raises while they are waited for.
        """
        with self._given_back:
            while self._lent and self._lent + size > self._limit:
                self._given_back.wait(POLL_S)
                check()
            self._lent += size
        try:
            pages = mmap.mmap(-1, size)
            try:
                with memoryview(pages) as view:
                    yield view
            finally:
                # The variable that it was given into would keep all of it while the next is waited for.
                with contextlib.suppress(BufferError):
                    pages.close()
        finally:
            with self._given_back:
                self._lent -= size
                self._given_back.notify_all()

"""Names to addresses, by the machine's resolver, without ever waiting for one that hangs."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from ipaddress import ip_address

from morpheus_worker.addresses import Address

Lookup = Callable[[str, int], Sequence[Address]]
"""Host and port to addresses. It may block, and raises OSError when there are none."""


def looked_up(host: str, port: int) -> list[Address]:
    """The addresses of a name, in the order to try them.

    Raises:
        OSError: when it has none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return list(dict.fromkeys(ip_address(entry[4][0]) for entry in found))


def begun(lookup: Lookup, host: str, port: int) -> asyncio.Future[Sequence[Address]]:
    """The lookup, in a thread that nobody ever joins: a resolver can hang for minutes, and the event loop's own
    threads would be waited for when the job is cancelled, those of any pool when the worker stops."""
    outcome: Future[Sequence[Address]] = Future()
    outcome.set_running_or_notify_cancel()

    def run() -> None:
        try:
            outcome.set_result(lookup(host, port))
        except (OSError, ValueError) as failure:
            outcome.set_exception(failure)

    threading.Thread(target=run, name="lookup", daemon=True).start()
    return asyncio.wrap_future(outcome)

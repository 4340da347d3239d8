"""Calls that a store may take hours to answer, in threads that nobody waits for once there is a reason to stop."""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from types import TracebackType
from typing import Final, TypeVar

from morpheus_worker.s3.calling import Check

POLL_S: Final = 0.2

Got = TypeVar("Got")


def begun(call: Callable[[], Got], name: str) -> Future[Got]:
    """What becomes of a call in a thread of its own, which does not keep the program from ending."""
    outcome: Future[Got] = Future()
    outcome.set_running_or_notify_cancel()

    def kept(_kind: object, failure: BaseException | None, _trace: TracebackType | None) -> bool:
        if failure is not None:
            outcome.set_exception(failure)
        return True

    def run() -> None:
        with contextlib.ExitStack() as stack:
            stack.push(kept)
            outcome.set_result(call())

    threading.Thread(target=contextvars.copy_context().run, args=(run,), name=name, daemon=True).start()
    return outcome


def awaited(call: Callable[[], Got], check: Check, name: str) -> Got:
    """What a call returns or raises, or what `check` raises meanwhile; nobody waits for the call's end then."""
    outcome = begun(call, name)
    while not wait([outcome], POLL_S).done:
        check()
    return outcome.result()


def waited(seconds: float, check: Check) -> None:
    """Waits so many seconds, or until `check` raises."""
    never = threading.Event()
    while seconds > 0:
        check()
        never.wait(min(POLL_S, seconds))
        seconds -= POLL_S
    check()

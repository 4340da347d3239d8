"""The way of one medium, and of all of a job's: hop by hop, try after try, within the terms."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence
from typing import Final

import aiohttp

from morpheus_worker.addresses import Address, BadUrlError, MediaUrl
from morpheus_worker.deadlines import Allowance, backoff_s
from morpheus_worker.errors import Code, MediaRefusedError
from morpheus_worker.fetching.asking import asked, check, filename, media_type
from morpheus_worker.fetching.lookup import begun
from morpheus_worker.fetching.terms import DOING, Fetched, PassingError, Remote, Terms
from morpheus_worker.fetching.watch import Watch
from morpheus_worker.fetching.writing import new_file, remove, write

log = logging.getLogger(__name__)

AT_ONCE: Final = 8
MAX_REDIRECTS: Final = 5

POLL_S: Final = 0.05
"""How soon a cancelled job, a passed deadline or a sender that stalls is noticed."""

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})

_AS_A_PATH: Final = "upload the file to the volume and send its path"


async def all_of(remotes: Sequence[Remote], terms: Terms, allowance: Allowance) -> list[Fetched | MediaRefusedError]:
    """As `fetch_all` says. It looks up every `POLL_S` seconds: the cancellation comes from another thread."""
    gate = asyncio.Semaphore(AT_ONCE)
    fetches = [_Fetch(remote, terms, gate) for remote in remotes]
    tasks = [asyncio.create_task(fetch.run()) for fetch in fetches]
    try:
        waiting = set(tasks)
        while waiting:
            wait_s = min(POLL_S, allowance.deadline.remaining_s)
            done, waiting = await asyncio.wait(waiting, timeout=wait_s, return_when=asyncio.FIRST_EXCEPTION)
            allowance.check(DOING)
            _raise_failures(done)
            for fetch, task in zip(fetches, tasks, strict=True):
                if task in waiting and fetch.turns_late():
                    task.cancel()
        return [fetch.outcome(task) for fetch, task in zip(fetches, tasks, strict=True)]
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for remote, task in zip(remotes, tasks, strict=True):
            if not task.cancelled() and not task.exception() and isinstance(task.result(), Fetched):
                remove(remote.target)
        raise


def _raise_failures(done: set[asyncio.Task[Fetched | MediaRefusedError]]) -> None:
    """What no single medium is to blame for ends them all."""
    for task in done:
        if not task.cancelled() and (failure := task.exception()):
            raise failure


class _Fetch:
    """One medium on its way here."""

    def __init__(self, remote: Remote, terms: Terms, gate: asyncio.Semaphore) -> None:
        self._remote, self._terms, self._gate = remote, terms, gate
        self._watch = Watch(asyncio.get_running_loop().time)
        self._told = ""
        self._verdict: MediaRefusedError | None = None

    def turns_late(self) -> bool:
        """Whether it has just become too late, and is to be cancelled; `outcome` says why afterwards."""
        if self._verdict is not None:
            return False
        if complaint := self._watch.complaint(self._terms.pace, self._terms.timeout_s):
            self._verdict = MediaRefusedError(Code.INPUT_UNREACHABLE, f"{self._told} {complaint}", _AS_A_PATH)
        return self._verdict is not None

    def outcome(self, task: asyncio.Task[Fetched | MediaRefusedError]) -> Fetched | MediaRefusedError:
        return self._verdict if self._verdict and task.cancelled() else task.result()

    async def run(self) -> Fetched | MediaRefusedError:
        async with self._gate:
            self._watch.start()
            try:
                url = MediaUrl.of(self._remote.url)
                self._told = url.shown
                return await self._tried(url)
            except BadUrlError as failure:
                return MediaRefusedError(Code.INPUT_REJECTED, f"is a URL that cannot be fetched: {failure}")
            except MediaRefusedError as failure:
                # What led to it may quote the whole URL, with the signature in its query.
                failure.__context__ = None
                return failure.with_traceback(None)

    async def _tried(self, url: MediaUrl) -> Fetched:
        pace = self._terms.pace
        waits = backoff_s(pace.first_wait_s, pace.longest_wait_s)
        for _ in range(pace.tries - 1):
            try:
                return await self._once(url)
            except PassingError as failure:
                log.info("%s; trying again", failure.what)
                self._watch.connect()
                await asyncio.sleep(max(next(waits), failure.after_s))
        return await self._once(url)

    async def _once(self, first: MediaUrl) -> Fetched:
        url, self._told = first, first.shown
        for _ in range(1 + MAX_REDIRECTS):
            self._watch.connect()
            addresses = await self._addresses(url)
            self._watch.ask()
            async with asked(url, addresses, self._terms, self._told) as answer:
                if answer.status not in _REDIRECTS:
                    check(answer, self._told, self._terms.pace)
                    size = await self._receive(answer)
                    log.debug("fetched %s: %d bytes", url.shown, size)
                    name = filename(answer) or url.filename or first.filename
                    return Fetched(size, name, media_type(answer))
                location = answer.headers.get("Location", "")
            url = self._redirected(url, location)
            self._told = f"{first.shown} redirects, and {url.shown}"
        raise MediaRefusedError(Code.INPUT_REJECTED, f"{first.shown} redirects more than {MAX_REDIRECTS} times")

    def _redirected(self, url: MediaUrl, location: str) -> MediaUrl:
        try:
            return url.redirected(location)
        except BadUrlError as failure:
            said = f"{self._told} redirects to a URL that cannot be fetched: {failure}"
            raise MediaRefusedError(Code.INPUT_REJECTED, said) from None

    async def _addresses(self, url: MediaUrl) -> list[Address]:
        """Those of the URL's addresses that it may lead to."""
        found = [url.address] if url.address is not None else await self._looked_up(url)
        allowed = [address for address in found if self._terms.private_hosts.allows(url.host, address)]
        if not allowed:
            hint = "MORPHEUS_MEDIA_PRIVATE_HOSTS names the private hosts that URLs may lead to"
            raise MediaRefusedError(Code.INPUT_REJECTED, f"{self._told} leads to a private address", hint)
        return allowed

    async def _looked_up(self, url: MediaUrl) -> Sequence[Address]:
        limit_s = self._terms.pace.connect_s
        answer = begun(self._terms.lookup, url.host, url.port)
        try:
            done, _ = await asyncio.wait({answer}, timeout=limit_s)
            if not done:
                raise PassingError(f"{self._told} has a host that could not be looked up within {limit_s:g} s")
            return answer.result()
        except (OSError, ValueError) as failure:
            if isinstance(failure, socket.gaierror) and failure.errno == socket.EAI_AGAIN:
                raise PassingError(f"{self._told} has a host that cannot be looked up at the moment") from None
            said = f"{self._told} has a host that does not exist"
            raise MediaRefusedError(Code.INPUT_UNREACHABLE, said, "check the URL", retryable=False) from None
        finally:
            answer.cancel()

    async def _receive(self, answer: aiohttp.ClientResponse) -> int:
        """Writes the body to the target and returns its size."""
        self._watch.receive()
        expected, most, size = answer.content_length, self._remote.max_bytes, 0
        if expected is not None and expected > most:
            said = f"{self._told} has {expected} bytes, more than the {most} allowed"
            raise MediaRefusedError(Code.INPUT_REJECTED, said)
        with new_file(self._remote.target) as file:
            while chunk := await answer.content.readany():
                size += len(chunk)
                if size > most:
                    said = f"{self._told} has more than the {most} bytes allowed"
                    raise MediaRefusedError(Code.INPUT_REJECTED, said)
                write(file, chunk)
                self._watch.hear(size)
            if expected is not None and size != expected:
                raise PassingError(f"{self._told} ended after {size} of {expected} bytes")
        return size

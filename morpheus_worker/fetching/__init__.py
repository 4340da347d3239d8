"""Fetches media by http(s) URL: several at once, each within its limits, and only from where a stranger may send us.

At every hop a name is looked up once, its addresses are checked, and the connection goes to one of exactly those: what
the name answers the next time (DNS rebinding) is never asked. Redirects are followed by hand for that reason.

`lookup` asks the machine's resolver, `asking` sends one request, `fetch` is the way of one medium and of all of them,
`watch` knows when one has taken too long, `writing` puts it on the disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from morpheus_worker.addresses import PrivateHosts
from morpheus_worker.deadlines import Allowance
from morpheus_worker.errors import MediaRefusedError
from morpheus_worker.fetching.lookup import Lookup, looked_up
from morpheus_worker.fetching.terms import DOING, Fetched, Pace, Remote, Terms

if TYPE_CHECKING:
    import ssl

__all__ = ["Fetched", "Lookup", "Pace", "Remote", "fetch_all", "looked_up"]


def fetch_all(
    remotes: Sequence[Remote],
    *,
    private_hosts: PrivateHosts,
    timeout_s: float,
    allowance: Allowance,
    pace: Pace | None = None,
    lookup: Lookup = looked_up,
    tls: ssl.SSLContext | None = None,
) -> list[Fetched | MediaRefusedError]:
    """Fetches everything, a few at a time, each within `timeout_s` seconds; answers in the order of `remotes`.

    Blocks; call it in a thread where no event loop runs. `tls` replaces the trust in certifi's authorities and the
    machine's own.

    Raises:
        MorpheusError: `cancelled` or `timeout` as soon as the job has to stop, `internal` when the disk fails. No
            target exists then.
    """
    if not remotes:
        return []
    allowance.check(DOING)
    # aiohttp takes a quarter of a second to import, which a booting worker has not got and a job never waits for: the
    # RunPod SDK has imported it long before.
    from morpheus_worker.fetching.fetch import all_of

    return asyncio.run(all_of(remotes, Terms(private_hosts, timeout_s, pace or Pace(), lookup, tls), allowance))

"""The cache on the volume: where files lie, how they get there whole, what is known of them, who is at work on which.

`places` has the folder and the one rename that publishes; `receipts` what was verified; `leases` who fetches what, and
what an earlier try left to go on from; `space` what is left of the volume; `leftovers` what nobody will come back for.
"""

from __future__ import annotations

from morpheus_worker.sync.cache.leases import BEATS, Beats, Holder, Lease, hold
from morpheus_worker.sync.cache.leftovers import Leftover, leftovers, remove_leftover
from morpheus_worker.sync.cache.parts import Prior
from morpheus_worker.sync.cache.places import Cache
from morpheus_worker.sync.cache.receipts import Known, Receipts
from morpheus_worker.sync.cache.space import Space, check_space, room_of, space_of
from morpheus_worker.sync.cache.writing import on_volume
from morpheus_worker.sync.receipting import key_of

__all__ = [
    "BEATS",
    "Beats",
    "Cache",
    "Holder",
    "Known",
    "Lease",
    "Leftover",
    "Prior",
    "Receipts",
    "Space",
    "check_space",
    "hold",
    "key_of",
    "leftovers",
    "on_volume",
    "remove_leftover",
    "room_of",
    "space_of",
]

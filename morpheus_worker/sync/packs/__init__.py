"""Custom node packs: fetched at one commit, without history, and published as one folder, whole.

Git itself fetches them: what it hands out for a commit's hash is that commit or an error. What a pack wants installed
is read and told; nothing of it is run here. `git` runs the program, `contents` looks into a folder, `records` has the
receipts, `fetching` brings a pack onto the volume.
"""

from __future__ import annotations

from morpheus_worker.sync.packs.contents import requirements_of
from morpheus_worker.sync.packs.fetching import adopt_pack, fetch_pack, resolve_commit
from morpheus_worker.sync.packs.records import (
    PACKS,
    PackReceipt,
    PackStanding,
    changed_files,
    pack_receipt,
    pack_standing,
)

__all__ = [
    "PACKS",
    "PackReceipt",
    "PackStanding",
    "adopt_pack",
    "changed_files",
    "fetch_pack",
    "pack_receipt",
    "pack_standing",
    "requirements_of",
    "resolve_commit",
]

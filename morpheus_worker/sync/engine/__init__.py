"""Brings one file's bytes onto a disk: in parallel, resumable after any kill, hashed while they arrive.

How a wrong byte cannot come out of it: what `download` returns as the hash was computed over what is on the disk, in
order, whichever run wrote it. Where a SHA-256 is known it is compared, and a journal that claims too much costs one
download. Where only a strong validator is known, nothing could be compared: so each segment's CRC-32 stands in the
journal, is compared while the segment is hashed, and one that differs is fetched again. Where not even that is known,
nothing of an earlier run is used.
"""

from morpheus_worker.sync.engine.downloading import OnBytes, download
from morpheus_worker.sync.engine.journal import journal_of
from morpheus_worker.sync.engine.partfile import PartFile, discard, inherit

__all__ = ["OnBytes", "PartFile", "discard", "download", "inherit", "journal_of"]

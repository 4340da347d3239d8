"""What a volume's refusals mean."""

from __future__ import annotations

import errno
import os
from typing import Final

from morpheus_worker.sync.terms import SyncCode, SyncError

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def disk_error(failure: OSError, doing: str) -> SyncError:
    """`failure` as what it is to a sync; `doing` says of what: "writing the part"."""
    reason = os.strerror(failure.errno).lower() if failure.errno else str(failure)
    if failure.errno in _FULL:
        hint = "free some space, or raise the volume's size; what has arrived is kept for the next run"
        return SyncError(SyncCode.NO_SPACE, f"the volume is full: {doing} failed with '{reason}'", hint)
    return SyncError(SyncCode.VOLUME, f"the volume refuses: {doing} failed with '{reason}'")

"""Stores that speak S3: where outputs may go and inputs may come from.

`S3Store` is the process's one way to them, `S3Folder` the outputs of one job. What the settings mean is decided in
`endpoint`, what a store says is put into words in `faults`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from morpheus_worker.s3.folder import S3Folder
    from morpheus_worker.s3.store import S3Store

__all__ = ["S3Folder", "S3Store"]


def __getattr__(name: str) -> type[S3Folder | S3Store]:
    """Imported when asked for: who needs `endpoint` or `faults` alone would pay a quarter of a second for the rest."""
    if name == "S3Folder":
        from morpheus_worker.s3.folder import S3Folder

        return S3Folder
    if name == "S3Store":
        from morpheus_worker.s3.store import S3Store

        return S3Store
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

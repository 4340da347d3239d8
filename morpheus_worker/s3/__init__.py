"""Stores that speak S3: where outputs may go and inputs may come from.

`S3Store` is the process's one way to them, `S3Folder` the outputs of one job. What the settings mean is decided in
`endpoint`, what a store says is put into words in `faults`.
"""

from morpheus_worker.s3.folder import S3Folder
from morpheus_worker.s3.store import S3Store

__all__ = ["S3Folder", "S3Store"]

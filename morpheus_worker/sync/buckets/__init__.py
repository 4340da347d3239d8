"""Buckets that models come from and go to: RunPod's volumes through their S3 interface, R2, Google's, Amazon's.

`Buckets` is the one way to them. What the settings mean is decided in `places`, what a store says is put into words in
`faults`; `reading` brings bytes out, `arriving` and `putting` bring them in, `receipts` says what was verified.
"""

from morpheus_worker.sync.buckets.arriving import Judge
from morpheus_worker.sync.buckets.buckets import Buckets

__all__ = ["Buckets", "Judge"]

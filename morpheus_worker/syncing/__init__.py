"""Filling a volume or a bucket with models and node packs, and knowing what is there: the stories.

`Work` is what each of them works with, `sync` the one that fills. `obtaining` tells the way of one model onto the
volume, `sending` into a bucket, `packing` that of a node pack; `running` runs several at once. `foreseeing` plans,
`resolving` makes the lock, `describing` an entry for the manifest. `standing`, `verifying`, `adopting` and `pruning`
are about what is there already. `requested` and `service` are for apps that ask for their models.
"""

"""Where requests are kept: a table that apps in any language read and write, in SQLite or PostgreSQL.

`open_store` opens it, `RequestStore` is what one does with it, `Rows` the few things that a database does for that.
"""

from morpheus_worker.sync.store.opening import open_store
from morpheus_worker.sync.store.requests import RequestStore
from morpheus_worker.sync.store.terms import Rows, StoreError

__all__ = ["RequestStore", "Rows", "StoreError", "open_store"]

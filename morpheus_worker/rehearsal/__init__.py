"""The rehearsal engine: a ComfyUI that needs no GPU and no models.

It speaks ComfyUI's HTTP and WebSocket protocol, knows its node classes and those of node packs from recorded object
info, refuses graphs as ComfyUI does, carries out image plumbing for real, and for everything else makes a picture, clip
or sound that says what it is. It is what the demo and the tests run on and what an app can be written against; the
worker never falls back to it.
"""

from morpheus_worker.rehearsal.engine import RehearsalEngine, running_engine, serve
from morpheus_worker.rehearsal.faults import FaultError, Faults
from morpheus_worker.rehearsal.offer import PacksError, parse_packs
from morpheus_worker.rehearsal.tree import install_tree

__all__ = [
    "FaultError",
    "Faults",
    "PacksError",
    "RehearsalEngine",
    "install_tree",
    "parse_packs",
    "running_engine",
    "serve",
]

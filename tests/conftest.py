"""What every test stands on: an environment of its own, and property tests that behave the same on a busy machine."""

from __future__ import annotations

import os

from hypothesis import settings

TEST_PREFIX = "MORPHEUS_TEST_"

settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, database=None, print_blob=True)


def pytest_configure() -> None:
    """Forgets what the caller's environment says to the worker, the SDK and make: children would inherit it."""
    settings.load_profile("ci" if os.environ.get("CI") else "here")
    for name in list(os.environ):
        ours = name.startswith(("MORPHEUS_", "RUNPOD_")) and not name.startswith(TEST_PREFIX)
        if ours or name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL"):
            del os.environ[name]

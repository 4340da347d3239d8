"""What a wheel takes along only where it is there: the lock beside the model manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

LOCK = "model_manifest.lock"


class ShippedLock(BuildHookInterface):  # type: ignore[type-arg]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        lock = Path(self.root, LOCK)
        if version == "standard" and lock.is_file():
            build_data["force_include"][str(lock)] = f"morpheus_worker/_shipped/{LOCK}"

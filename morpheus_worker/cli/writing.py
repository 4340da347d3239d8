"""Writing a manifest, a lock or a template: whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from pathlib import Path
from typing import Final

STANDARD_OUTPUT: Final = Path("-")
"""As the place to write to."""


def write_whole(target: Path, text: str, *, replace: bool) -> None:
    """Puts `text` at `target`, or at what it links to, in one step; a file that is replaced keeps its mode.

    Raises:
        OSError: it cannot be written; `FileExistsError` when it is there and shall not be replaced.
    """
    target = Path(os.path.realpath(target))
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with part.open("w", encoding="utf-8", newline="") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        if not replace:
            os.link(part, target)
            return
        with contextlib.suppress(FileNotFoundError):
            shutil.copymode(target, part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)

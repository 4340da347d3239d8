"""What a file is called that the manifest gives no place: in a bucket `models/<name>/<version><extension>`, on a volume
`<folder>/<name>-<version><extension>`, in the model folder where ComfyUI looks for its kind.

The same request has the same name on every machine, and two versions never share one.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import unquote, urlsplit

from morpheus_worker.sources import COMMIT
from morpheus_worker.sync.terms import Resolved, Source

FOLDER: Final = "models"
LONGEST: Final = 80
"""Characters of a part that is made safe, without what tells it from others."""
DIGITS: Final = 16
"""Hexadecimal digits of a hash in a name."""
REVISION: Final = 12
"""Hexadecimal digits of a commit in a name."""

_PLAIN: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")
_HASHED: Final = re.compile(rf".*-[0-9a-f]{{{DIGITS}}}")
_EXTENSION: Final = re.compile(r"\.[A-Za-z0-9]{1,16}")


def blob_name(name: str, source: Source, resolved: Resolved) -> str:
    """The name of one version of a model: `name` as its app calls it, `source` as it was asked for.

    >>> blob_name("My Model", {"kind": "civitai", "version": 131960}, Resolved({}, filename="x.safetensors"))
    'models/My_Model/131960.safetensors'
    """
    return f"{FOLDER}/{safe_name(name)}/{version_id(source, resolved)}{extension_of(source, resolved)}"


def volume_name(folder: str, name: str | None, source: Source, resolved: Resolved) -> str:
    """The place of one version of a model in a model folder. Without a `name` it has the file's own.

    >>> volume_name("loras", "My Model", {"kind": "civitai", "version": 131960}, Resolved({}, filename="x.safetensors"))
    'loras/My_Model-131960.safetensors'
    """
    version, extension = version_id(source, resolved), extension_of(source, resolved)
    file = source.get("file")
    own = PurePosixPath(resolved.filename or (file if isinstance(file, str) else _end_of(source))).name
    called = safe_name(name or own.removesuffix(extension)) if name or own else ""
    # A version of Hugging Face has the file's own name in it.
    is_said = not called or (name is None and version.endswith(f"-{called}"))
    return f"{folder}/{version if is_said else f'{called}-{version}'}{extension}"


def safe_name(text: str) -> str:
    """The text as one part of a path, of ASCII letters, digits, '.', '_' and '-'.

    Spaces become '_', as apps have always done. Where more has to change, or the text is long, a hash of the whole text
    follows, so that two texts that differ in more than that never meet.
    """
    spaced = text.replace(" ", "_")
    if _PLAIN.fullmatch(spaced) and len(spaced) <= LONGEST and not _HASHED.fullmatch(spaced):
        return spaced
    kept = _UNSAFE.sub("_", spaced).lstrip(".")[:LONGEST]
    return f"{kept}-{_hash(spaced)}"


def version_id(source: Source, resolved: Resolved) -> str:
    """What tells this version of a model from all others: Civitai's number, the commit and the file on Hugging Face,
    else the file's hash, else that of what names it."""
    if source.get("kind") == "civitai":
        file = source.get("file")
        return f"{source['version']}" if file is None else f"{source['version']}-{file}"
    revision = str(resolved.source.get("revision") or source.get("revision") or "")
    if source.get("kind") == "hf" and COMMIT.fullmatch(revision):
        file = PurePosixPath(str(source["file"]))
        stem = str(file.with_suffix("") if file.suffix == extension_of(source, resolved) else file)
        return f"{revision[:REVISION]}-{safe_name(stem)}"
    if resolved.sha256:
        return resolved.sha256[:DIGITS]
    return _hash(json.dumps([dict(source), resolved.etag], sort_keys=True))


def extension_of(source: Source, resolved: Resolved) -> str:
    """How the file's name ends, with its dot, or nothing where that is no plain extension."""
    for name in (resolved.filename, source.get("file"), _end_of(source)):
        if isinstance(name, str) and _EXTENSION.fullmatch(suffix := PurePosixPath(name).suffix):
            return suffix
    return ""


def _end_of(source: Source) -> str:
    """The last part of the address or path that the source names."""
    address = str(source.get("url") or source.get("uri") or source.get("path") or "")
    path = urlsplit(address).path if "://" in address else address
    return unquote(path).rpartition("/")[2]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]

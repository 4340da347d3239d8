"""A new entry for the manifest, with everything that its host knows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Final

from morpheus_worker.manifest import ModelEntry, PackEntry
from morpheus_worker.paths import safe_filename
from morpheus_worker.sources import cache_path, may_run_code
from morpheus_worker.sync.editing import as_id
from morpheus_worker.sync.packs import resolve_commit
from morpheus_worker.sync.refs import PackRef
from morpheus_worker.sync.terms import Resolved, Source, Stop, SyncCode, SyncError
from morpheus_worker.syncing.work import Work

FOLDERS: Final = frozenset(
    {
        "audio_encoders", "checkpoints", "clip", "clip_vision", "controlnet", "diffusers", "diffusion_models",
        "embeddings", "gligen", "hypernetworks", "insightface", "instantid", "ipadapter", "latent_upscale_models",
        "liveportrait", "loras", "model_patches", "onnx", "photomaker", "pulid", "sams", "style_models", "t2i_adapter",
        "text_encoders", "ultralytics", "unet", "upscale_models", "vae", "vae_approx",
    }
)  # fmt: skip
"""Names of model folders, ComfyUI's own (0.3.64, folder_paths.py) and those of the node packs that workflows use: a
file that a repository keeps in a folder of that name belongs there."""

BY_KIND: Final[Mapping[str, str]] = {
    "checkpoint": "checkpoints", "lora": "loras", "locon": "loras", "dora": "loras", "vae": "vae",
    "textualinversion": "embeddings", "hypernetwork": "hypernetworks", "controlnet": "controlnet",
    "upscaler": "upscale_models", "textencoder": "text_encoders", "motionmodule": "animatediff_models",
    "detection": "ultralytics/bbox",
}  # fmt: skip
"""Folders by what Civitai calls a model (its API's `model.type`)."""

PATH_HINT: Final = "give --path FOLDER/FILE, such as checkpoints/name.safetensors or loras/"


def described(
    work: Work,
    ref: Source | PackRef,
    *,
    entry_id: str | None = None,
    path: str | None = None,
    workflows: Sequence[str] = (),
    auth_env: str | None = None,
    allow_pickle: bool = False,
    stop: Stop | None = None,
) -> ModelEntry | PackEntry:
    """The entry for what a reference names: its source pinned, size, hash, format and licence as the host has them.

    `path` is where in the cache, or the folder alone with a slash at its end; without it the folder is told by what the
    host calls such a model, or by the folder that the file is in there.

    Raises:
        SyncError: as the host refuses; `invalid` when it cannot be told where the file belongs, or the manifest has
            such an entry already; `rejected` for a format that may run code, unless `allow_pickle`.
    """
    stop = stop or Stop()
    if isinstance(ref, PackRef):
        pack_id = _free_id(work, entry_id or ref.id)
        return PackEntry(pack_id, ref.repo, ref.commit or resolve_commit(ref.repo, stop), tuple(workflows))
    resolved = work.hosts.resolve(ref, auth_env=auth_env, details=True, stop=stop)
    place = _free_place(work, _placed(path, ref, resolved))
    if may_run_code(place, resolved.format) and not allow_pickle:
        said = f"is of the format {resolved.format}" if resolved.format else f"ends in {place.suffix}"
        raise SyncError(SyncCode.REJECTED, f"{said}, so it may run code when it is loaded", "--allow-pickle takes it")
    return ModelEntry(
        id=_free_id(work, entry_id or as_id(place.stem)),
        path=place,
        workflows=tuple(workflows),
        sources=(resolved.source,),
        size=resolved.size,
        sha256=resolved.sha256,
        format=resolved.format,
        license=resolved.license,
        gated=resolved.gated,
        auth_env=auth_env,
        allow_pickle=allow_pickle and may_run_code(place, resolved.format),
    )


def _placed(path: str | None, ref: Source, resolved: Resolved) -> PurePosixPath:
    name = safe_filename(resolved.filename or _last_part(ref))
    if path is None:
        folder = folder_of(ref, resolved)
        if folder is None:
            raise SyncError(SyncCode.INVALID, f"{name}: nothing tells which folder it belongs in", PATH_HINT)
        path = f"{folder}/"
    wanted = f"{path}{name}" if path.endswith("/") else path
    try:
        return PurePosixPath(cache_path(wanted))
    except ValueError as problem:
        raise SyncError(SyncCode.INVALID, f"the path '{wanted}' {problem}", PATH_HINT) from None


def folder_of(ref: Source, resolved: Resolved) -> str | None:
    """The model folder that a file belongs in, or None where nothing tells: by what the host calls the model, else the
    innermost of the folders there that has a model folder's name."""
    kind = re.sub(r"[^a-z]", "", (resolved.kind or "").lower())
    named = (part for part in reversed(_parts(ref)[:-1]) if part in FOLDERS)
    return BY_KIND.get(kind) or next(named, None)


def _parts(ref: Source) -> list[str]:
    address = next((str(ref[key]) for key in ("file", "url", "uri", "path") if isinstance(ref.get(key), str)), "")
    return address.partition("?")[0].split("/")


def _last_part(ref: Source) -> str:
    return _parts(ref)[-1]


def _free_id(work: Work, entry_id: str) -> str:
    return _free(entry_id, work.select().ids, "the id", "--id gives it another")


def _free_place(work: Work, place: PurePosixPath) -> PurePosixPath:
    taken = (str(entry.path) for entry in work.manifest.models)
    return PurePosixPath(_free(str(place), taken, "the path", "--path gives it another"))


def _free(wanted: str, taken: Iterable[str], what: str, hint: str) -> str:
    if wanted in taken:
        raise SyncError(SyncCode.INVALID, f"the manifest has an entry with {what} '{wanted}' already", hint)
    return wanted

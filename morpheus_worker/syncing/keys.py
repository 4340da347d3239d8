"""Whether a key that a file needs is not there, as far as that shows before any host is asked."""

from __future__ import annotations

from morpheus_worker.sync.answers import Access
from morpheus_worker.sync.locking import Wanted
from morpheus_worker.sync.refs import shown_source
from morpheus_worker.sync.terms import Source, SyncCode, SyncError
from morpheus_worker.syncing.work import Work


def lacking_key(work: Work, wanted: Wanted) -> SyncError | None:
    """Why every source of a file will refuse it: each needs a key, because the entry names one (`auth_env`) or is
    gated, and the variable for it is not set. None where one of them needs none, or has its own."""
    if work.settings.models_mirror is not None or not wanted.sources:
        return None
    lacking = [_lacking(work, wanted, source) for source in wanted.sources]
    told = [(source, access) for source, access in zip(wanted.sources, lacking, strict=True) if access is not None]
    if len(told) < len(lacking):
        return None
    source, access = told[0]
    said = f"{shown_source(source)} needs a key and will refuse it: {access.variable} is not set"
    return SyncError(SyncCode.ACCESS_DENIED, said, access.hint)


def _lacking(work: Work, wanted: Wanted, source: Source) -> Access | None:
    """What the source's host will be shown, where that lacks the key; None where it has one, or needs none."""
    # Here, as everything of the hosts: where all is there, none is asked.
    from morpheus_worker.sync.hosts import civitai, following, hf, local, web

    settings, kind = work.settings, source["kind"]
    grants: str | None = None
    match kind:
        case "hf":
            if local.cached(settings.hf_cache or settings.volume_root / "huggingface-cache", source) is not None:
                return None
            address, grants = settings.hf_endpoint, f"{hf.PAGES}/{source['repo']} is where access is granted"
        case "civitai":
            address, grants = settings.civitai_url, civitai.GRANTS
        case "https":
            address = str(source["url"])
        case _:
            return None
    origin = web.url_of(address).origin
    key = following.key_for(settings, kind, wanted.entry.auth_env, origin, grants=grants)
    needs = key.variable is not None and (key.variable == wanted.entry.auth_env or (wanted.gated and kind != "https"))
    return Access(key.variable, False, grants) if needs and key.value is None else None

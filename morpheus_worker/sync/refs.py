"""References as people paste them, read into sources: the URL of a file, a model or a repository, and short forms."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlencode, urlsplit, urlunsplit

from morpheus_worker.errors import did_you_mean
from morpheus_worker.sources import (
    COMMIT,
    TOKEN,
    carries_credential,
    in_the_clear,
    is_credential,
    is_secret,
    is_url,
    parameters,
    read_source,
)
from morpheus_worker.sync.terms import Source, SyncCode, SyncError

HF_HOSTS: Final = frozenset({"huggingface.co", "www.huggingface.co", "hf.co"})
CIVITAI_HOSTS: Final = frozenset({"civitai.com", "www.civitai.com", "civitai.green"})
GITHUB_HOSTS: Final = frozenset({"github.com", "www.github.com"})

SHORT_FORMS: Final = "hf:owner/name/file[@revision], civitai:VERSION[:FILE]"

_SIGNED: Final = re.compile(r"(^|[-_])(signature|sig|credential)($|[-_])|accesskeyid|key-pair-id", re.IGNORECASE)
_DEFAULT_BRANCHES: Final = frozenset({"main", "master", "HEAD"})


@dataclass(frozen=True, slots=True)
class PackRef:
    """A node pack's repository: `id` is the folder it is given, `commit` a whole hash where the reference has one."""

    id: str
    repo: str
    commit: str | None = None


def parse_ref(text: str) -> Source | PackRef:
    """What a reference stands for: a source of one file, or a node pack's repository.

    Taken are URLs of Hugging Face (a file's page or its download), Civitai (a model's page with `modelVersionId`, a
    download), GitHub repositories, s3:// and gs:// names, any other https:// file, an absolute path, and short forms.

    Raises:
        SyncError: `invalid`, saying what is missing. A key in the reference is named by its parameter, never repeated.
    """
    ref = text.strip()
    _refuse_keys(ref)
    found = _url(ref) if _is_http(ref) else _short(ref)
    if isinstance(found, PackRef):
        return found
    try:
        return read_source(found)
    except ValueError as failure:
        raise _invalid(f"is no reference that can be fetched: {failure}") from None


def shown_source(source: Source) -> str:
    """A source as it may be shown, in the form that `parse_ref` takes; of a URL, without its query."""
    match source["kind"]:
        case "hf":
            revision = source.get("revision")
            return f"hf:{source['repo']}/{source['file']}" + (f"@{revision}" if revision else "")
        case "civitai":
            file = source.get("file")
            return f"civitai:{source['version']}" + (f":{file}" if file else "")
        case "https":
            return shown_url(source["url"])
        case "file":
            return str(source["path"])
    return str(source["uri"])


def shown_url(url: str) -> str:
    """A URL without what may be secret in it: user, password, query, fragment."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A URL without the credentials that were in it. `names` says where they were; `signed`: it was a signed URL, which
    works for a while only, and not at all without them."""

    url: str
    names: tuple[str, ...] = ()
    signed: bool = False


def without_credentials(url: str) -> Cleaned:
    """Takes user, password and every parameter that is a key out of a URL, and the part after '#'.

    Raises:
        SyncError: `invalid`, when it is no URL, or a key stands in its path, where it cannot be taken out.
    """
    if not is_url(url):
        raise _invalid("is no URL")
    parts = urlsplit(url)
    if TOKEN.search(unquote(parts.path)):
        raise _invalid("carries a key in its path", "take it out and keep it in a variable of the environment")
    pairs = parameters(parts.query)
    if any(TOKEN.search(key) for key, _ in pairs):
        raise _invalid("carries a key in its query", "take it out and keep it in a variable of the environment")
    secret = [key for key, value in pairs if is_credential(key) or is_secret(key, value)]
    query = parts.query if not secret else urlencode([pair for pair in pairs if pair[0] not in secret])
    names = [_parameter(key) for key, value in pairs if key in secret and is_secret(key, value)]
    if "@" in parts.netloc:
        names.append("the user and password before the host")
    if carries_credential(f"https://host/#{parts.fragment}"):
        names.append("the part after '#'")
    clean = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, query, ""))
    return Cleaned(clean, tuple(dict.fromkeys(names)), any(_SIGNED.search(key) for key in secret))


def _parameter(name: str) -> str:
    """A parameter as it may be named: where its '=' was written in another way, the key is a part of the name."""
    return f"the parameter '{name}'" if re.fullmatch(r"[A-Za-z][A-Za-z_-]{0,31}", name) else "its query"


def _refuse_keys(ref: str) -> None:
    if not _is_http(ref):
        if TOKEN.search(unquote(ref)) or ("://" in ref and carries_credential(ref)):
            raise _invalid("carries a key", "take it out and keep it in a variable of the environment")
        return
    cleaned = without_credentials(ref)
    if cleaned.signed:
        raise _invalid("is a signed address, which works for a while only", "give the address it was made from")
    if cleaned.names:
        hint = "take it out; Civitai's key goes into CIVITAI_API_KEY, Hugging Face's into HF_TOKEN"
        where = " and ".join(cleaned.names)
        raise _invalid(f"carries a key in {where}", f"{hint}, another host's where 'auth_env' names it")


def _is_http(ref: str) -> bool:
    return ref[:8].lower().startswith(("http://", "https://"))


def _invalid(what: str, hint: str | None = None) -> SyncError:
    return SyncError(SyncCode.INVALID, f"the reference {what}", hint)


# Short forms.


def _short(ref: str) -> Source | PackRef:
    scheme, colon, rest = ref.partition(":")
    if ref.startswith("/"):
        return {"kind": "file", "path": ref}
    if ref.startswith("git@") and colon:
        return pack_of(f"https://{scheme.removeprefix('git@')}/{rest}")
    read = _SCHEMES.get(scheme.lower()) if colon else None
    if read is None:
        near = did_you_mean(scheme, [*_SCHEMES, "https"]) if colon else None
        raise _invalid("is no URL and no short form", near or f"https://…, s3://…, gs://…, {SHORT_FORMS}")
    return read(rest)


def _short_hf(rest: str) -> Source:
    named, _, revision = rest.removeprefix("//").rpartition("@") if "@" in rest else (rest.removeprefix("//"), "", "")
    # huggingface_hub puts the revision behind the repository: hf://owner/name@revision/file.
    if re.fullmatch(r"[^/]+/[^/]+", named) and "/" in revision:
        revision, _, file = revision.partition("/")
        named = f"{named}/{file}"
    parts = named.split("/", 2)
    if len(parts) < 3 or not parts[2]:
        raise _invalid("names no file", "hf:owner/name/file[@revision]")
    return _hf("/".join(parts[:2]), parts[2], revision)


def _hf(repo: str, file: str, revision: str) -> Source:
    pinned = {"revision": revision} if revision and revision != "main" else {}
    return {"kind": "hf", "repo": repo, "file": file, **pinned}


def _short_civitai(rest: str) -> Source:
    version, _, file = rest.partition(":")
    if not version.isdecimal() or (file and not file.isdecimal()):
        raise _invalid("names no version of Civitai by its number", "civitai:VERSION[:FILE]")
    return {"kind": "civitai", "version": int(version)} | ({"file": int(file)} if file else {})


def _urn(rest: str) -> Source:
    """Civitai's own names: urn:air:ecosystem:type:civitai:MODEL@VERSION."""
    found = re.search(r"civitai:\d+@(\d+)", rest)
    if not found:
        raise _invalid("is no name of a version on Civitai", "urn:air:…:civitai:MODEL@VERSION")
    return _short_civitai(found[1])


_SCHEMES: Final[Mapping[str, Callable[[str], Source]]] = {
    "hf": _short_hf,
    "civitai": _short_civitai,
    "urn": _urn,
    "s3": lambda rest: {"kind": "s3", "uri": f"s3:{rest}"},
    "gs": lambda rest: {"kind": "gs", "uri": f"gs:{rest}"},
    "file": lambda rest: {"kind": "file", "path": unquote("/" + rest.lstrip("/"))},
}


# URLs.


def _url(ref: str) -> Source | PackRef:
    parts = urlsplit(ref)
    host = (parts.hostname or "").lower()
    if host in HF_HOSTS:
        return _hf_url(parts)
    if host in CIVITAI_HOSTS:
        return _civitai_url(parts)
    if host in GITHUB_HOSTS:
        return _github_url(parts)
    if re.search(r"\.git(@[0-9a-f]+)?/?\Z", parts.path):
        return pack_of(ref)
    return _file_url(parts)


def _hf_url(parts: SplitResult) -> Source:
    steps = parts.path.strip("/").split("/")
    whose = 3 if steps[0] in ("datasets", "spaces") else 2
    if len(steps) < whose + 3 or steps[whose] not in ("resolve", "blob", "raw"):
        raise _invalid("names no file on Hugging Face", "take the address of the file's page, …/blob/main/FILE")
    repo, revision, file = steps[:whose], steps[whose + 1], steps[whose + 2 :]
    if whose == 2:
        return _hf("/".join(repo), unquote("/".join(file)), unquote(revision))
    path = "/".join([*repo, "resolve", revision, *file])
    return {"kind": "https", "url": f"https://huggingface.co/{path}"}


def _civitai_url(parts: SplitResult) -> Source:
    query = parse_qs(parts.query)
    found = re.search(r"/(?:api/download/models|api/v1/model-versions|model-versions)/(\d+)", parts.path)
    version = found[1] if found else next(iter(query.get("modelVersionId", [])), "")
    if not version.isdecimal():
        hint = "pick the version on the model's page; its address then ends in ?modelVersionId=NUMBER"
        raise _invalid("names no version of a model on Civitai", hint)
    return _short_civitai(version)


def _github_url(parts: SplitResult) -> Source | PackRef:
    steps = parts.path.strip("/").split("/")
    match steps[2:]:
        case []:
            return pack_of(f"https://github.com/{'/'.join(steps)}")
        case ["tree" | "commit", named] if COMMIT.fullmatch(named):
            return pack_of(f"https://github.com/{'/'.join(steps[:2])}@{named}")
        case ["tree", named] if named in _DEFAULT_BRANCHES:
            return pack_of(f"https://github.com/{'/'.join(steps[:2])}")
        case ["tree" | "commit", *_]:
            raise _invalid("names a branch, a tag or a part of a hash", "give the whole commit: …/commit/HASH")
        case ["blob", revision, *file] if file:
            path = "/".join([*steps[:2], "raw", revision, *file])
            return {"kind": "https", "url": f"https://github.com/{path}"}
    return _file_url(parts)


def _file_url(parts: SplitResult) -> Source:
    url = urlunsplit((parts.scheme.lower(), parts.netloc, quote(parts.path, safe="/%:@!$&'()*+,;=~"), parts.query, ""))
    if in_the_clear(url):
        hint = "use https://; an entry written by hand may say http:// where it has a sha256"
        raise _invalid("is an http:// address, which anybody on the way can change", hint)
    if parts.path.endswith("/") or not parts.path:
        raise _invalid("names a folder or a page, not a file")
    return {"kind": "https", "url": url}


def pack_of(url: str) -> PackRef:
    """A repository's URL, with `@commit` behind it or not, as a node pack.

    Raises:
        SyncError: `invalid`, when it is none.
    """
    parts = urlsplit(url.strip())
    path, _, commit = parts.path.partition("@")
    path = path.strip("/").removesuffix(".git")
    if commit and not COMMIT.fullmatch(commit):
        raise _invalid("pins a pack to something that is no whole commit hash", "40 hexadecimal digits")
    if parts.scheme not in ("https", "http") or not parts.hostname or "/" not in path:
        raise _invalid("names no repository", "https://host/owner/name")
    name = re.sub(r"[^A-Za-z0-9._-]", "-", path.rpartition("/")[2]).lstrip("._-")
    if not name:
        raise _invalid("names no repository", "https://host/owner/name")
    return PackRef(name, f"https://{parts.netloc.rpartition('@')[2]}/{path}", commit or None)

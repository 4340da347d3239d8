"""The older resource list, one resource a line, read into entries of a manifest.

`GIT,name,url` · `URL,path,url` and `URL_AUTH,path,url` · `MODEL,folder,hf_repo,file`; `#` begins a comment. `DUMMY_URL`
in the place of an address stands for a folder that somebody fills by hand.

Such lists have keys in their URLs. None of them ever gets into an entry, a remark or a problem.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from morpheus_worker.errors import Problem, did_you_mean
from morpheus_worker.manifest import PACKS_FOLDER, ModelEntry, PackEntry
from morpheus_worker.sources import COMMIT, ENTRY_ID, TOKEN, cache_path, read_source
from morpheus_worker.sync.editing import entry_id
from morpheus_worker.sync.refs import (
    CIVITAI_HOSTS,
    GITHUB_HOSTS,
    HF_HOSTS,
    Cleaned,
    PackRef,
    pack_of,
    parse_ref,
    without_credentials,
)
from morpheus_worker.sync.terms import Source, SyncError

DUMMY: Final = "DUMMY_URL"
_DUMMY: Final = re.compile(rf"(https?://)?{DUMMY}/?", re.IGNORECASE)

_MAY_BE_KEY: Final = re.compile(rf"{TOKEN.pattern}|[A-Za-z0-9]{{24,}}|[^ -~]")


@dataclass(frozen=True, slots=True)
class OldList:
    """What a list comes to. `remarks` say what somebody has to know or do, `problems` which lines were left out and
    why; each `at` is `file:line`."""

    models: tuple[ModelEntry, ...] = ()
    packs: tuple[PackEntry, ...] = ()
    remarks: tuple[Problem, ...] = ()
    problems: tuple[Problem, ...] = ()


def read_old_list(text: str, *, name: str) -> OldList:
    """Reads a list; `name` is what problems call it, usually the file's name. A bad line is left out, and said."""
    reader = _Reader(name)
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text.removeprefix("\ufeff")), 1):
        reader.line(number, line)
    return reader.read()


class _LeftOutError(Exception):
    """A line that no entry can be made of."""

    def __init__(self, what: str, hint: str | None = None) -> None:
        super().__init__(what)
        self.what, self.hint = what, hint


@dataclass(frozen=True, slots=True)
class _Key:
    """A key that a line had: the variable that shall hold it, and where in the address it was."""

    auth_env: str
    where: str


_ROOTS: Final = (
    re.compile(r"/?(runpod-volume|workspace)/"),
    re.compile(r"(\./)+"),
    re.compile(r"ComfyUI/", re.IGNORECASE),
    re.compile(r"(morpheus_model_cache|models)/"),
)
"""What lists put before a path in the cache, in this order."""

_FILE_SUFFIX: Final = re.compile(
    r"\.(safetensors|sft|ckpt|pth?|bin|onnx|gguf|pkl|pickle|zip|json|ya?ml|txt|model|h5|msgpack|tflite|task|engine"
    r"|np[yz]|tar|gz|7z|patch|dat|caffemodel|prototxt|torchscript|pb)\Z",
    re.IGNORECASE,
)
"""What tells a file's name from a folder's: `v1.5` is a folder."""


class _Reader:
    def __init__(self, name: str) -> None:
        self._name = name
        self._models: dict[str, tuple[int, ModelEntry]] = {}
        self._packs: dict[str, tuple[int, PackEntry]] = {}
        self._remarks: list[tuple[int, Problem]] = []
        self._problems: list[Problem] = []
        self._keys: dict[_Key, list[int]] = {}
        self._named_by_hand: set[str] = set()
        self._number = 0

    def line(self, number: int, line: str) -> None:
        self._number = number
        told = re.sub(r"(^|\s)#.*", "", line.replace("\u200b", "")).strip().rstrip(",").rstrip()
        if not told:
            return
        word, comma, rest = told.partition(",")
        try:
            self._resource(_field(word) if comma else "", rest)
        except (_LeftOutError, SyncError) as failure:
            self._problems.append(Problem(self._at(number), failure.what, failure.hint))

    def read(self) -> OldList:
        for key, lines in self._keys.items():
            self._remarks.append((lines[0], self._about(key, lines)))
        self._leave_out_packs_that_are_folders()
        return OldList(
            tuple(entry for _, entry in self._models.values()),
            tuple(pack for _, pack in self._packs.values()),
            tuple(remark for _, remark in sorted(self._remarks, key=lambda each: each[0])),
            tuple(self._problems),
        )

    def _leave_out_packs_that_are_folders(self) -> None:
        """A pack takes the whole folder of its name: no manifest takes one that is called as a folder of models."""
        folders = {PACKS_FOLDER, *(entry.path.parts[0] for _, entry in self._models.values())}
        for key, (number, pack) in list(self._packs.items()):
            if pack.id in folders:
                del self._packs[key]
                self._problems.append(Problem(self._at(number), "names a pack as a folder of models", _FORMS["GIT"]))

    def _at(self, number: int) -> str:
        return f"{self._name}:{number}"

    def _remark(self, what: str, hint: str | None = None) -> None:
        self._remarks.append((self._number, Problem(self._at(self._number), what, hint)))

    def _about(self, key: _Key, lines: list[int]) -> Problem:
        also = f", here and in {_lines(lines[1:])}" if len(lines) > 1 else ""
        what = f"the key in {key.where} was left out{also}"
        hint = f"set {key.auth_env} to a key, and revoke the one in the old file, which whoever has the file knows"
        return Problem(self._at(lines[0]), what, hint)

    def _resource(self, word: str, rest: str) -> None:
        read = _WORDS.get(word.upper())
        fields = [*([] if read else [word]), *(_field(each) for each in rest.split(","))]
        if any(_DUMMY.fullmatch(each) for each in fields):
            return self._by_hand(fields)
        if read is None:
            near = did_you_mean(word.upper(), _WORDS)
            # A line may be anything, a key among it: only what can be nothing but a word is repeated.
            said = f"'{word}'" if re.fullmatch(r"[A-Za-z_]{1,20}", word) else "its first word"
            raise _LeftOutError(f"{said} is no kind of resource", near or f"there are {', '.join(_FORMS.values())}")
        return read(self, word.upper(), rest)

    def _by_hand(self, fields: list[str]) -> None:
        folder = next((each for each in fields if each and not _DUMMY.fullmatch(each)), "")
        shown = re.fullmatch(r"[\w ./\\-]+", folder) and not _MAY_BE_KEY.search(folder)
        place = _in_cache(folder).rstrip("/") if shown else "this"
        if place not in self._named_by_hand:
            hint = "fill it by hand, or write an entry for each of its files, with where it comes from"
            self._remark(f"{place} has no address, so there is no entry for it", hint)
        self._named_by_hand.add(place)

    def _git(self, _: str, rest: str) -> None:
        named, url = _name_and_url(rest)
        address, _, pinned = url.partition(",")
        cleaned = without_credentials(_as_https(address.strip()))
        ref = pack_of(cleaned.url) if _host(cleaned.url) not in GITHUB_HOSTS else parse_ref(cleaned.url)
        if not isinstance(ref, PackRef):
            raise _LeftOutError("leads to a file, not to a repository", _FORMS["URL"])
        if cleaned.names:
            where = " and ".join(cleaned.names)
            self._remark(
                f"the key in {where} was left out", "revoke it; a repository that asks for a key is not fetched"
            )
        folder = _in_cache(named).strip("/").removeprefix(f"{PACKS_FOLDER}/") if named else ref.id
        if not ENTRY_ID.fullmatch(folder) or TOKEN.search(folder):
            raise _LeftOutError("has no name that a node pack's folder can have", _FORMS["GIT"])
        self._add_pack(PackEntry(folder, ref.repo, ref.commit or self._commit(pinned.strip())))

    def _commit(self, pinned: str) -> str | None:
        if COMMIT.fullmatch(pinned):
            return pinned
        if pinned:
            self._remark(
                "what follows the address was left out", "a pack is pinned to a whole commit hash, or by the lock"
            )
        return None

    def _url(self, word: str, rest: str) -> None:
        named, url = self._without_more(*_name_and_url(rest))
        cleaned = without_credentials(url) if url.lower().startswith("http") else Cleaned(url)
        if cleaned.signed:
            raise _LeftOutError(
                "has a signed address, which works for a while only", "give the address it was made from"
            )
        parts = urlsplit(cleaned.url)
        auth_env = self._auth_env(word, parts, cleaned, url)
        source = parse_ref(cleaned.url)
        if isinstance(source, PackRef):
            raise _LeftOutError("leads to a repository, not to a file", _FORMS["GIT"])
        self._note_choice(source, parts)
        self._add_model(_with_file_name(_in_cache(named), parts), source, auth_env)

    def _without_more(self, named: str, url: str) -> tuple[str, str]:
        """Without a further field: some lists have a key there. In an address that goes on there may be commas."""
        address, comma, more = url.partition(",")
        if not comma or "/" in more or "?" in address or not _FILE_SUFFIX.search(address.strip()):
            return named, url
        self._remark("what follows the address was left out", "where it is a key, revoke it")
        return named, _field(address)

    def _note_choice(self, source: Source, parts: SplitResult) -> None:
        asked = parse_qs(parts.query)
        other = asked.get("type", ["Model"])[0].lower() != "model" or "size" in asked or "fp" in asked
        if source["kind"] == "civitai" and other:
            hint = "name the file by its number in the source's 'file' if it is not"
            self._remark("asks Civitai for one of several files; the entry's is the version's primary one", hint)

    def _auth_env(self, word: str, parts: SplitResult, cleaned: Cleaned, url: str) -> str | None:
        host = (parts.hostname or "").lower()
        auth_env = _HOST_KEYS.get(host)
        if cleaned.names:
            auth_env = auth_env or _derived_name(host)
            if not _only_placeholders(url):
                self._keys.setdefault(_Key(auth_env, " and ".join(cleaned.names)), []).append(self._number)
            return auth_env
        return auth_env if word == "URL_AUTH" else None

    def _model(self, _: str, rest: str) -> None:
        fields = [_field(each) for each in rest.split(",")]
        if len(fields) != 3 or not all(fields) or fields[2].endswith(("/", "*")):
            hint = f"{_FORMS['MODEL']}; a whole repository is a line for each of its files"
            raise _LeftOutError("does not name a folder, a repository and a file in it", hint)
        folder, repo, file = fields
        repo = re.sub(r"\Ahttps?://(www\.)?(huggingface\.co|hf\.co)/", "", repo).strip("/")
        try:
            source = read_source({"kind": "hf", "repo": repo, "file": file.strip("/")})
        except ValueError as failure:
            raise _LeftOutError(f"names no file: {failure}", _FORMS["MODEL"]) from None
        path, file_name = _in_cache(folder), PurePosixPath(file).name
        is_file = PurePosixPath(path).suffix.lower() == PurePosixPath(file).suffix.lower() != ""
        self._add_model(path if is_file else f"{path.rstrip('/')}/{file_name}", source, None)

    def _add_model(self, path: str, source: Source, auth_env: str | None) -> None:
        if TOKEN.search(path):
            raise _LeftOutError("has a key in its path")
        try:
            place = PurePosixPath(cache_path(path))
        except ValueError as failure:
            raise _LeftOutError(f"has a path that {failure}") from None
        before = self._models.get(path.casefold())
        if before is None:
            entry = ModelEntry(entry_id(place, self._taken()), place, sources=(source,), auth_env=auth_env)
            self._models[path.casefold()] = self._number, entry
            return self._note_code(entry)
        number, entry = before
        if entry.path != place or entry.sources != (source,):
            raise _LeftOutError(f"has the path of line {number}, from another place", "keep one of the two")
        self._models[path.casefold()] = number, replace(entry, auth_env=entry.auth_env or auth_env)
        return self._remark(f"repeats line {number}")

    def _taken(self) -> set[str]:
        """Ids of models and of packs: they share the names by which a sync is asked for them."""
        return {entry.id for _, entry in self._models.values()} | {pack.id for _, pack in self._packs.values()}

    def _note_code(self, entry: ModelEntry) -> None:
        if entry.may_run_code:
            hint = "trust its author, then write 'allow_pickle: true' in its entry"
            self._remark(f"{entry.path} may run code when it is loaded, and is not fetched as the entry is", hint)

    def _add_pack(self, pack: PackEntry) -> None:
        before = self._packs.setdefault(pack.id.casefold(), (self._number, pack))
        for key, (number, entry) in self._models.items():
            if entry.id == pack.id:
                self._models[key] = number, replace(entry, id=entry_id(entry.path, self._taken()))
        if before[0] == self._number:
            return
        if before[1] != pack:
            raise _LeftOutError(f"has the folder of line {before[0]}, from another place", "keep one of the two")
        self._remark(f"repeats line {before[0]}")


_WORDS: Final[Mapping[str, Callable[[_Reader, str, str], None]]] = {
    "GIT": _Reader._git, "URL": _Reader._url, "URL_AUTH": _Reader._url, "MODEL": _Reader._model,
}  # fmt: skip

_FORMS: Final = {
    "GIT": "GIT,name,url",
    "URL": "URL,path,url",
    "URL_AUTH": "URL_AUTH,path,url",
    "MODEL": "MODEL,folder,owner/name,file",
}

_HOST_KEYS: Final[Mapping[str, str]] = {
    **dict.fromkeys(CIVITAI_HOSTS, "CIVITAI_API_KEY"),
    **dict.fromkeys(HF_HOSTS, "HF_TOKEN"),
}


def _field(text: str) -> str:
    return text.strip().strip("\"'").strip()


def _lines(numbers: list[int]) -> str:
    return f"line{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def _name_and_url(rest: str) -> tuple[str, str]:
    """The name or path before the address, and the address, in which there may be commas."""
    found = re.match(r"(?:(.*?),)?\s*[\"']?((?:https?://|ssh://|git://|git@|s3://|gs://).*)\Z", rest, re.IGNORECASE)
    if found is None:
        raise _LeftOutError("has no address", "a name or a path, a comma, and an address that begins with https://")
    return _field(found[1] or ""), _field(found[2])


def _host(url: str) -> str:
    return (urlsplit(url).hostname or "").lower()


def _as_https(address: str) -> str:
    """A repository's address in the form that is fetched from."""
    if found := re.fullmatch(r"(?:ssh://)?git@([^:/]+)[:/](.+)", address):
        return f"https://{found[1]}/{found[2]}"
    return re.sub(r"\A(git|http)://", "https://", address)


def _in_cache(path: str) -> str:
    """The path without what leads to the cache: every list has its own idea of where it begins."""
    path = re.sub(r"\s*[\\/]+\s*", "/", path)
    for root in _ROOTS:
        if found := root.match(path):
            path = path[found.end() :]
    return path


def _with_file_name(path: str, parts: SplitResult) -> str:
    """The path, with the name that the address ends in where the path is a folder's."""
    named = PurePosixPath(unquote(parts.path)).name
    if not path.endswith("/") and (_FILE_SUFFIX.search(path) or PurePosixPath(path).name == named):
        return path
    if not _FILE_SUFFIX.search(named):
        hint = "write the folder and the file's name: checkpoints/name.safetensors"
        raise _LeftOutError("names a folder, and its address does not tell the file's name", hint)
    return f"{path.rstrip('/')}/{named}" if path else named


def _derived_name(host: str) -> str:
    """A variable for the key of a host that has none of its own: files.example.com → FILES_EXAMPLE_COM_KEY."""
    words = [word for word in re.split(r"[^A-Z0-9]+", host.removeprefix("www.").upper()) if word]
    words = [word[:20] for word in words]  # Longer ones could be keys, which no variable is called after.
    return "_".join([*words, "KEY"]) if words and words[0][0].isalpha() else "_".join(["HOST", *words, "KEY"])


_PLACEHOLDER: Final = re.compile(r"=(\$\{?\w+\}?|\{+\w+\}+|<\w+>|%\w+%|)(?=&|\Z)|(?<=//)\$\{?\w+\}?@")


def _only_placeholders(url: str) -> bool:
    """Whether what stands where keys are is a variable's name that a script puts the key in for."""
    return not without_credentials(_PLACEHOLDER.sub("", url)).names

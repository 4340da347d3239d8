"""Where a model can be fetched, as a manifest writes it, and the values that its entries are made of.

No value that is refused is repeated where it might be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from pathlib import PurePosixPath
from typing import Annotated, Any, Final, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from morpheus_worker.yaml_lines import Location, Shape

PACKS_FOLDER: Final = "custom_nodes"

UNFINISHED: Final = (".part", ".tmp", ".lock", ".receipt.json")
"""How files in a cache end that are no models: still written, or notes beside one. They are never linked."""

LONGEST_NAME_BYTES: Final = 255
"""Of one file or folder, on Linux and on object stores' mounts."""

TOKEN: Final = re.compile(
    r"hf_[A-Za-z0-9]{20,}|rpa_[A-Za-z0-9]{20,}|A[KS]IA[0-9A-Z]{16}|gh[a-z]_\w{30,}|github_pat_\w{20,}"
)
"""Shapes of keys: Hugging Face, RunPod, AWS, GitHub."""

_CREDENTIAL: Final = re.compile(
    r"(^|_)(((access|api|auth|secret|private)_?)?(token|key)|secret|signature|sig|auth|credential|jwt|bearer"
    r"|password|passwd|pwd)($|_)",
    re.IGNORECASE,
)


def is_credential(parameter: str) -> bool:
    """Whether a parameter of a URL is called as keys and signatures are: `token`, `apiKey`, `X-Amz-Signature`."""
    return bool(_CREDENTIAL.search(re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+", "_", parameter)))


def parameters(query: str) -> list[tuple[str, str]]:
    """The names and values in a URL's query, also where ';' stands between them, as it once did."""
    return parse_qsl(query.replace(";", "&"), keep_blank_values=True)


def is_secret(parameter: str, value: str) -> bool:
    """Whether the parameter holds a key. One without a value holds none, unless its '=' was written as '%3D'."""
    return bool((is_credential(parameter) and (value or "=" in parameter)) or TOKEN.search(f"{parameter}={value}"))


def is_url(value: str) -> bool:
    """Whether it is an http or https URL with a host, and nothing in it that no URL has."""
    try:
        parts = urlsplit(value)
        # Asking for the port checks it. What urlsplit says of a bad URL is not told: it may repeat a password.
        fits = parts.scheme in ("https", "http") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return fits and value.isprintable() and " " not in value


def carries_credential(url: str) -> bool:
    """Whether a key, a password or a signature is anywhere in the URL."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return bool(TOKEN.search(url))
    said = [*parameters(parts.query), *parameters(parts.fragment)]
    return "@" in parts.netloc or any(is_secret(*pair) for pair in said) or bool(TOKEN.search(unquote(url)))


_ENVIRONMENT_NAME: Final = re.compile(r"(?!.*[A-Z0-9]{24})[A-Z][A-Z0-9]*(_[A-Z0-9]+)*\Z")
"""Upper case with underscores, and no run of letters and digits so long that it must be a key."""

RUNS_CODE: Final = frozenset({"pickle", "torchscript"})
SAFE_FORMATS: Final = frozenset({"safetensors", "gguf", "onnx"})
_OFTEN_PICKLES: Final = frozenset({".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle"})


def may_run_code(path: PurePosixPath, format_name: str | None) -> bool:
    """Whether loading such a file may run code that is in it: by its format, or by its name where the format is not
    known to be harmless."""
    said = (format_name or "").lower()
    return said in RUNS_CODE or (said not in SAFE_FORMATS and path.suffix.lower() in _OFTEN_PICKLES)


def read_source(said: Mapping[str, Any]) -> Mapping[str, Any]:
    """The source as a manifest has it.

    Raises:
        ValueError: saying what is wrong with it.
    """
    try:
        return as_source(_ANY_SOURCE.validate_python(dict(said)))
    except ValidationError as failure:
        error = failure.errors()[0]
    # Not within the block: what was refused would hang on to the error, and it may hold a key.
    if error["type"].startswith("union_tag"):
        raise ValueError(f"has no kind that there is, one of {', '.join(SOURCES)}")
    phrase = str(error["msg"]).removeprefix("Value error, ")
    raise ValueError(f"{error['loc'][-1]} {phrase}" if error["loc"] else phrase)


def in_the_clear(url: str) -> bool:
    """Whether what is fetched from there can be read and changed on its way: http to another machine."""
    return is_url(url) and urlsplit(url).scheme == "http" and not _is_loopback(urlsplit(url).hostname or "")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _environment_name(value: str) -> str:
    if not _ENVIRONMENT_NAME.match(value) or TOKEN.search(value):
        raise ValueError("is not the name of a variable; name the variable that holds the key, such as HF_TOKEN")
    return value


_CONTROLS: Final = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)
"""What no file is called that people named, and what makes a line look like another one."""


def cache_path(value: str) -> str:
    """A place in the cache: a ComfyUI folder and a name at least.

    Raises:
        ValueError: saying what is wrong with it.
    """
    parts = value.split("/")
    if value.startswith("/"):
        raise ValueError("is absolute; give it relative to the cache")
    if "\\" in value or any(part == "" or part.startswith(".") for part in parts):
        raise ValueError("has an empty, hidden or '..' part, or a backslash")
    if _CONTROLS.search(value) or value != value.strip():
        raise ValueError("begins or ends with a space, or has a control character")
    if any(len(part.encode()) > LONGEST_NAME_BYTES for part in parts):
        raise ValueError(f"has a name longer than {LONGEST_NAME_BYTES} bytes")
    if len(parts) < 2 or parts[0] == PACKS_FOLDER:
        raise ValueError("must begin with one of ComfyUI's model folders, such as checkpoints/")
    if value.endswith(UNFINISHED):
        raise ValueError(f"ends as unfinished files do ({', '.join(UNFINISHED)}), which are never linked")
    return value


def _folder_and_name(value: str) -> str:
    # A folder within a model folder is linked as a whole: what lies in it lies on the volume.
    if value.count("/") != 1:
        raise ValueError("must be a model folder and a file name, such as pulid/model.safetensors")
    return value


def _clean_url(value: str) -> str:
    if carries_credential(value):
        raise ValueError("carries a credential; take it out and name the variable that holds it in 'auth_env'")
    if " " in value:
        raise ValueError("has a space in it; write it as %20")
    if not is_url(value):
        raise ValueError("must be an https:// address")
    return value


def _https(value: str) -> str:
    if not value.startswith("https://"):
        raise ValueError("must be an https:// address")
    return value


def _no_token(value: str) -> str:
    if TOKEN.search(value):
        raise ValueError("looks like a key; keep it in a variable and name that in 'auth_env'")
    return value


def _without_key(value: str) -> str:
    if carries_credential(value):
        raise ValueError("carries a credential; take it out, and keep it in a variable of the environment")
    return value


def _path_within(value: str) -> str:
    parts = [part for part in value.split("/") if part not in ("", ".")]
    if not parts or ".." in parts:
        raise ValueError("must be a file's path within the repository")
    return "/".join(parts)


def _shaped(pattern: str, said: str) -> AfterValidator:
    """Text that matches the whole pattern; `said` completes "must be …"."""
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise ValueError(f"must be {said}")
        return value

    return AfterValidator(check)


ENTRY_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
COMMIT: Final = re.compile(r"[0-9a-f]{40}")
"""A whole commit hash of Git."""
SHA256: Final = re.compile(r"[0-9a-f]{64}")
"""In lower case, as it is kept everywhere."""

Text = Annotated[str, _shaped(r".+", "a line of text"), AfterValidator(_no_token)]
Id = Annotated[Text, _shaped(ENTRY_ID.pattern, "letters, digits, '.', '_' and '-', at most 128")]
CachePath = Annotated[str, AfterValidator(cache_path)]
FurtherPlace = Annotated[CachePath, AfterValidator(_folder_and_name)]
Url = Annotated[str, AfterValidator(_clean_url)]
RepositoryUrl = Annotated[Url, AfterValidator(_https)]
Commit = Annotated[str, _shaped(COMMIT.pattern, "a whole commit hash, 40 hexadecimal digits")]
Sha256 = Annotated[str, AfterValidator(str.lower), _shaped(SHA256.pattern, "64 hexadecimal digits")]
EnvironmentName = Annotated[str, AfterValidator(_environment_name)]
Positive = Annotated[int, Field(gt=0)]


class Strict(BaseModel):
    """Keys that are not known are refused, and values of another type are not converted."""

    model_config = ConfigDict(extra="forbid", strict=True)


_REVISION: Final = _shaped(r"[^\s\x00-\x1f\x7f~^:?*\[\\]+", "a commit, a tag or a branch")


class Hf(Strict):
    kind: Literal["hf"]
    repo: Annotated[Text, _shaped(r"(?!\.+/)[\w.-]+/(?!\.+\Z)[\w.-]+", "owner/name")]
    file: Annotated[Text, AfterValidator(_path_within)]
    revision: Annotated[Text, _REVISION, AfterValidator(_path_within)] | None = None


class Civitai(Strict):
    kind: Literal["civitai"]
    version: Positive
    file: Positive | None = None


class S3(Strict):
    kind: Literal["s3"]
    uri: Annotated[Text, _shaped(r"s3://[^/]+/.+", "s3://bucket/key"), AfterValidator(_without_key)]


class Gs(Strict):
    kind: Literal["gs"]
    uri: Annotated[Text, _shaped(r"gs://[^/]+/.+", "gs://bucket/key"), AfterValidator(_without_key)]


class Https(Strict):
    kind: Literal["https"]
    url: Url


class LocalFile(Strict):
    kind: Literal["file"]
    path: Annotated[Text, _shaped(r"/.+", "an absolute path")]


SOURCES: Final[Mapping[str, type[Strict]]] = {
    "hf": Hf, "civitai": Civitai, "s3": S3, "gs": Gs, "https": Https, "file": LocalFile,
}  # fmt: skip


def shape_of(called: str, file: type[Strict], model: type[Strict], pack: type[Strict]) -> Shape:
    """What may stand where in a document of models, packs and their sources: a manifest, or its lock."""

    def keys_at(at: Location, around: Any) -> Iterable[str]:
        match at:
            case ():
                return file.model_fields
            case ("models", _):
                return model.model_fields
            case ("custom_nodes", _):
                return pack.model_fields
        return SOURCES[around["kind"]].model_fields

    return Shape(called, keys_at, tuple(SOURCES))


AnySource = Annotated[Hf | Civitai | S3 | Gs | Https | LocalFile, Field(discriminator="kind")]

_ANY_SOURCE: Final[TypeAdapter[Any]] = TypeAdapter(AnySource)


def as_source(parsed: BaseModel) -> Mapping[str, Any]:
    """The mapping that stands for a source everywhere else: its kind, and the keys that were given."""
    return parsed.model_dump(exclude_none=True)

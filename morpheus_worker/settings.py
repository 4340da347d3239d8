"""Settings: one frozen model, the only reader of the environment.

Each field `name` is read from `MORPHEUS_NAME`; `bucket_name` and its like from `BUCKET_NAME`, `comfy_org_api_key` from
`COMFY_ORG_API_KEY` and `hf_token` from `HF_TOKEN`, as the RunPod SDK, the official ComfyUI worker and the hosts call
them. Units are in the names. An empty variable counts as absent, because endpoint consoles cannot unset one.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    model_validator,
)

from morpheus_worker.errors import Problem, did_you_mean
from morpheus_worker.jobs import StoreName

PREFIX: Final = "MORPHEUS_"
BUCKET_PREFIX: Final = "bucket_"
OTHERS: Final = frozenset({"comfy_org_api_key", "enable_face_refinement", "hf_token", "hf_endpoint", "civitai_api_key"})
"""Fields of this prefix, and these, are other people's names, used as they are."""

LONGEST_PRESIGNED_S: Final = 7 * 24 * 3600
"""What a signature of version 4 allows (AWS, "Authenticating requests: query parameters")."""
TEST_PREFIX: Final = "MORPHEUS_TEST_"
"""Variables that only the tests read; never reported as unknown."""

SHELL_NAMES: Final = frozenset({"MORPHEUS_PYTHON"})
"""Variables that pod_start.sh reads, before there is a Python."""

IMAGE_COMFYUI_DIR: Final = Path("/comfyui")
"""Where the official ComfyUI worker image keeps ComfyUI (its Dockerfile, WORKDIR)."""

_CHECKOUT: Final = Path(__file__).resolve().parent.parent
_SHIPPED: Final = Path(__file__).resolve().parent / "_shipped"


class SettingsError(Exception):
    """The environment does not add up. `problems` holds all of it, not the first thing found."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("settings: " + "; ".join(str(problem) for problem in problems))


def _split_arguments(value: object) -> object:
    return tuple(shlex.split(value)) if isinstance(value, str) else value


def _split_list(value: object) -> object:
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


def _stripped(value: object) -> object:
    return value.strip() if isinstance(value, str) else value


def _shipped(name: str) -> Path:
    """A file or folder that comes with the project: from the checkout, or from the wheel that was built of it."""
    return _CHECKOUT / name if (_CHECKOUT / name).exists() else _SHIPPED / name


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("must be an absolute path")
    return path


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]


class Settings(BaseModel):
    """Everything that can be set, with its default. Build it with `Settings.from_environment`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    volume_root: AbsolutePath = Field(
        Path("/runpod-volume"), description="Where this machine sees the network volume.", validate_default=True
    )
    model_cache: AbsolutePath | None = Field(
        None, description="Folder of models and node packs; default: morpheus_model_cache on the volume."
    )
    comfyui_dir: AbsolutePath | None = Field(
        None,
        description="ComfyUI's own folder; it is then started as a child. Default: /comfyui, "
        "unless MORPHEUS_COMFYUI_URL names one that already runs.",
    )
    comfyui_python: Path | None = Field(
        None, description="Python that runs ComfyUI; default: a venv in its folder, else the worker's own."
    )
    comfyui_url: str = Field(
        "http://127.0.0.1:8188", description="Where ComfyUI listens.", pattern=r"^https?://[^/\s?#@]+/?$"
    )
    comfyui_args: Annotated[tuple[str, ...], BeforeValidator(_split_arguments)] = Field(
        (), description="Further arguments for ComfyUI, split as a shell splits words."
    )
    workflows_dir: Path = Field(
        default_factory=lambda: _shipped("workflows"), description="Folder of the shipped workflow templates."
    )
    manifest: Path = Field(default_factory=lambda: _shipped("model_manifest.yaml"), description="The model manifest.")
    concurrency: int = Field(1, ge=1, le=8, description="Jobs held at once; 2 lets the next one wait at ComfyUI.")
    job_timeout_s: float = Field(
        600.0, gt=0, description="Deadline of a job whose workflow or request names none, in seconds."
    )
    boot_timeout_s: float = Field(300.0, gt=0, description="How long ComfyUI may take to answer, in seconds.")
    volume_timeout_s: float = Field(
        60.0, ge=0, description="How long to wait for the volume to be mounted, in seconds."
    )
    stop_grace_s: float = Field(10.0, ge=0, description="What ComfyUI gets between SIGTERM and SIGKILL, in seconds.")
    max_input_bytes: int = Field(2 * 1024**3, gt=0, description="Largest media file that a job may bring in, in bytes.")
    max_image_pixels: int = Field(
        178_956_970, gt=0, description="Largest input picture, in pixels (Pillow's own bomb limit)."
    )
    media_timeout_s: float = Field(300.0, gt=0, description="How long fetching one medium may take, in seconds.")
    media_private_hosts: Annotated[tuple[str, ...], BeforeValidator(_split_list)] = Field(
        (),
        description="Hosts, addresses and networks (10.0.0.0/8) that media URLs may lead to although they are private; "
        "* for all, metadata services too.",
    )
    outputs: StoreName | None = Field(
        None, description="Where outputs go when a job does not say: volume, s3 or base64; default: volume."
    )
    max_result_bytes: int | None = Field(
        None,
        gt=0,
        description="Largest answer, in bytes; default: what RunPod carries, 10 MB, and 20 MB for /runsync.",
    )
    comfy_org_api_key: SecretStr | None = Field(
        None, description="Key for ComfyUI's paid API nodes, for jobs that bring none."
    )
    enable_face_refinement: Annotated[bool | None, BeforeValidator(_stripped)] = Field(
        None, description="Whether sdxl_txt2img_pag redraws faces when a job does not say; default: it does."
    )
    bucket_endpoint_url: str | None = Field(
        None,
        description="The S3 endpoint; the bucket may be part of it.",
        pattern=r"^https?://[^/\s?#@]+(/[^\s?#@]*)?$",
    )
    bucket_name: str | None = Field(
        None,
        description="The bucket for outputs; default: the one in the endpoint's URL.",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$",
    )
    bucket_region: str | None = Field(
        None, description="Its region; default: the one in the endpoint's URL, else what such a store takes."
    )
    bucket_access_key_id: SecretStr | None = Field(None, description="Default: what the AWS SDK finds (AWS_*).")
    bucket_secret_access_key: SecretStr | None = Field(None, description="Belongs to BUCKET_ACCESS_KEY_ID.")
    s3_key_prefix: str = Field("", description="Begins the keys of outputs, before the job id: a/folder/.")
    s3_addressing: Literal["auto", "path", "virtual"] = Field(
        "auto", description="Whether the bucket stands in the path or the host of a URL."
    )
    s3_public_url: str | None = Field(
        None,
        description="Address under which the bucket can be read by everybody; URLs of outputs are then not presigned.",
        pattern=r"^https?://[^/\s?#@]+(/[^\s?#@]*)?$",
    )
    s3_url_ttl_s: int = Field(
        LONGEST_PRESIGNED_S, gt=0, le=LONGEST_PRESIGNED_S, description="How long a presigned URL works, in seconds."
    )
    manifest_lock: Path | None = Field(
        None, description="What the manifest's sources turned out to be; default: beside it, .lock."
    )
    hf_token: SecretStr | None = Field(None, description="Hugging Face's key, for gated and private repositories.")
    hf_endpoint: str = Field(
        "https://huggingface.co",
        description="Hugging Face, or a mirror of it.",
        pattern=r"^https?://[^/\s?#@]+(/[^\s?#@]*)?$",
    )
    hf_cache: AbsolutePath | None = Field(
        None, description="RunPod's own cached models, a source; default: huggingface-cache on the volume."
    )
    civitai_api_key: SecretStr | None = Field(None, description="Civitai's key, for models that ask for a login.")
    civitai_url: str = Field("https://civitai.com", description="Civitai.", pattern=r"^https?://[^/\s?#@]+$")
    models_mirror: str | None = Field(
        None,
        description="Bucket that 'morpheus models sync --to' filled, asked before the manifest's sources: s3://bucket/prefix.",
        pattern=r"^(s3|gs)://[^/\s]+(/[^\s]*)?$",
    )
    models_endpoint_url: str | None = Field(
        None,
        description="S3 endpoint of s3:// names of models; default: BUCKET_ENDPOINT_URL, else Amazon's.",
        pattern=r"^https?://[^/\s?#@]+(/[^\s?#@]*)?$",
    )
    models_region: str | None = Field(None, description="Its region; default: the one in the endpoint's URL.")
    models_access_key_id: SecretStr | None = Field(
        None, description="Default: BUCKET_ACCESS_KEY_ID where its endpoint is used, else what the AWS SDK finds."
    )
    models_secret_access_key: SecretStr | None = Field(None, description="Belongs to MORPHEUS_MODELS_ACCESS_KEY_ID.")
    models_to_endpoint_url: str | None = Field(
        None,
        description="S3 endpoint of the s3:// name that models are sent to (--to); default: that of s3:// sources.",
        pattern=r"^https?://[^/\s?#@]+(/[^\s?#@]*)?$",
    )
    models_to_region: str | None = Field(None, description="Its region; default: the one in the endpoint's URL.")
    models_to_access_key_id: SecretStr | None = Field(
        None, description="Default: the key of s3:// sources, where they are at the same endpoint."
    )
    models_to_secret_access_key: SecretStr | None = Field(
        None, description="Belongs to MORPHEUS_MODELS_TO_ACCESS_KEY_ID."
    )
    gs_endpoint_url: str = Field(
        "https://storage.googleapis.com",
        description="Endpoint of gs:// names, in S3's form.",
        pattern=r"^https?://[^/\s?#@]+$",
    )
    gs_access_key_id: SecretStr | None = Field(None, description="An HMAC key of Google Cloud Storage.")
    gs_secret_access_key: SecretStr | None = Field(None, description="Belongs to MORPHEUS_GS_ACCESS_KEY_ID.")
    sync_connections: int = Field(8, ge=1, le=32, description="Connections that fetch one model at once.")
    sync_files: int = Field(3, ge=1, le=16, description="Models that are fetched at once.")
    sync_host_connections: int = Field(16, ge=1, le=64, description="Connections to one host, of all models together.")
    sync_store: SecretStr | None = Field(
        None,
        description="Database of what apps ask to sync: sqlite:///… or postgresql://…; default: a file at home.",
    )
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="json, text, or auto: text on a terminal, JSON elsewhere."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Lowest level that is logged.")

    _url_was_set: bool = False
    _given: Mapping[str, str] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _s3_adds_up(self) -> Self:
        if (self.bucket_access_key_id is None) != (self.bucket_secret_access_key is None):
            raise ValueError(
                "BUCKET_ACCESS_KEY_ID and BUCKET_SECRET_ACCESS_KEY belong together; one of them is missing"
            )
        for kind, key, secret in (
            ("MODELS", self.models_access_key_id, self.models_secret_access_key),
            ("MODELS_TO", self.models_to_access_key_id, self.models_to_secret_access_key),
            ("GS", self.gs_access_key_id, self.gs_secret_access_key),
        ):
            if (key is None) != (secret is None):
                both = f"MORPHEUS_{kind}_ACCESS_KEY_ID and MORPHEUS_{kind}_SECRET_ACCESS_KEY"
                raise ValueError(f"{both} belong together; one of them is missing")
        if self.outputs == "s3" and self.bucket_endpoint_url is None and self.bucket_name is None:
            raise ValueError("MORPHEUS_OUTPUTS is s3, but neither BUCKET_ENDPOINT_URL nor BUCKET_NAME says where")
        return self

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """Reads `environ`, usually `os.environ`.

        Raises:
            SettingsError: with every variable that is wrong, at once, and the misspelt ones beside them.
        """
        given = {name: value for name, value in environ.items() if value.strip()}
        values: dict[str, Any] = {
            field: given[variable_of(field)] for field in cls.model_fields if variable_of(field) in given
        }
        try:
            settings = cls.model_validate(values)
        except ValidationError as failure:
            problems = [_as_problem(error) for error in failure.errors()]
            raise SettingsError(problems + unknown_settings(environ)) from None
        settings._url_was_set = "comfyui_url" in values
        settings._given = given
        return settings

    def secret(self, name: str) -> SecretStr | None:
        """The value of a variable that a manifest's `auth_env` names."""
        value = self._given.get(name, "").strip()
        return SecretStr(value) if value else None

    @property
    def lock_file(self) -> Path:
        return self.manifest_lock or self.manifest.with_suffix(".lock")

    @property
    def cache_dir(self) -> Path:
        return self.model_cache or self.volume_root / "morpheus_model_cache"

    @property
    def child_dir(self) -> Path | None:
        """The ComfyUI folder to start a child in, or None when an already running ComfyUI is named by its URL."""
        if self.comfyui_dir is not None:
            return self.comfyui_dir
        return None if self._url_was_set else IMAGE_COMFYUI_DIR

    @property
    def deployment(self) -> Mapping[str, Any]:
        """The defaults of params that the environment sets, by the names that templates know them under."""
        told = {variable_of("enable_face_refinement"): self.enable_face_refinement}
        return {name: value for name, value in told.items() if value is not None}

    def table(self) -> list[tuple[str, str, str]]:
        """Rows of (variable, value in force, description), for `morpheus config`."""
        return [
            (variable_of(name), _shown(getattr(self, name)), field.description or "")
            for name, field in type(self).model_fields.items()
        ]


def variable_of(field: str) -> str:
    """The environment variable that a field is read from."""
    is_ours = not field.startswith(BUCKET_PREFIX) and field not in OTHERS
    return PREFIX + field.upper() if is_ours else field.upper()


def _shown(value: object) -> str:
    if value is None:
        return ""
    return shlex.join(value) if isinstance(value, tuple) else str(value)


def unknown_settings(environ: Mapping[str, str]) -> list[Problem]:
    """Variables with our prefix that nothing reads: most likely misspelt, so worth a warning at boot.

    Not an error, or an image could not be rolled back without editing the endpoint's environment.
    """
    known = [variable_of(name) for name in Settings.model_fields]
    return [
        Problem(name, "no such setting", did_you_mean(name, known) or "'morpheus config' lists the settings")
        for name in sorted(environ)
        if name.startswith(PREFIX) and not name.startswith(TEST_PREFIX) and name not in {*known, *SHELL_NAMES}
    ]


def _as_problem(error: Any) -> Problem:
    where = variable_of(str(error["loc"][0])) if error["loc"] else ""
    return Problem(where, str(error["msg"]).removeprefix("Value error, "))

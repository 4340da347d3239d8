"""Settings: one frozen model, the only reader of the environment.

Each field `name` is read from `MORPHEUS_NAME`. Units are in the names. An empty variable counts as absent, because
endpoint consoles cannot unset one.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from morpheus_worker.errors import Problem, did_you_mean

PREFIX: Final = "MORPHEUS_"
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
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="json, text, or auto: text on a terminal, JSON elsewhere."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Lowest level that is logged.")

    _url_was_set: bool = False

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """Reads `environ`, usually `os.environ`.

        Raises:
            SettingsError: with every variable that is wrong, at once, and the misspelt ones beside them.
        """
        given = {name: value for name, value in environ.items() if value.strip()}
        values: dict[str, Any] = {
            field: given[PREFIX + field.upper()] for field in cls.model_fields if PREFIX + field.upper() in given
        }
        try:
            settings = cls.model_validate(values)
        except ValidationError as failure:
            problems = [_as_problem(error) for error in failure.errors()]
            raise SettingsError(problems + unknown_settings(environ)) from None
        settings._url_was_set = "comfyui_url" in values
        return settings

    @property
    def cache_dir(self) -> Path:
        return self.model_cache or self.volume_root / "morpheus_model_cache"

    @property
    def child_dir(self) -> Path | None:
        """The ComfyUI folder to start a child in, or None when an already running ComfyUI is named by its URL."""
        if self.comfyui_dir is not None:
            return self.comfyui_dir
        return None if self._url_was_set else IMAGE_COMFYUI_DIR

    def table(self) -> list[tuple[str, str, str]]:
        """Rows of (variable, value in force, description), for `morpheus config`."""
        return [
            (PREFIX + name.upper(), _shown(getattr(self, name)), field.description or "")
            for name, field in type(self).model_fields.items()
        ]


def _shown(value: object) -> str:
    if value is None:
        return ""
    return shlex.join(value) if isinstance(value, tuple) else str(value)


def unknown_settings(environ: Mapping[str, str]) -> list[Problem]:
    """Variables with our prefix that nothing reads: most likely misspelt, so worth a warning at boot.

    Not an error, or an image could not be rolled back without editing the endpoint's environment.
    """
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    return [
        Problem(name, "no such setting", did_you_mean(name, known) or "'morpheus config' lists the settings")
        for name in sorted(environ)
        if name.startswith(PREFIX) and not name.startswith(TEST_PREFIX) and name not in {*known, *SHELL_NAMES}
    ]


def _as_problem(error: Any) -> Problem:
    where = PREFIX + str(error["loc"][0]).upper() if error["loc"] else ""
    return Problem(where, str(error["msg"]).removeprefix("Value error, "))

"""What travels along a graph's links in a rehearsal.

Pictures are real. A latent is only its size; a model, a conditioning and everything else is a stand-in that carries a
label.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from morpheus_worker.rehearsal.faces import Region

if TYPE_CHECKING:
    from PIL.Image import Image

DEFAULT_SIDE: Final = 512
"""Side of a picture when nothing in the graph says how large it should be, in pixels."""


@dataclass(frozen=True, slots=True)
class Images:
    """A batch of RGB pictures, all of one size. Nobody changes a picture once it is here."""

    frames: tuple[Image, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, in pixels."""
        return self.frames[0].size

    def __str__(self) -> str:
        return f"{len(self.frames)} picture(s) of {self.size[0]}x{self.size[1]}"


@dataclass(frozen=True, slots=True)
class Masks:
    """A batch of grey pictures, all of one size; white is 1.0."""

    frames: tuple[Image, ...]

    @property
    def size(self) -> tuple[int, int]:
        return self.frames[0].size

    def __str__(self) -> str:
        return f"{len(self.frames)} mask(s) of {self.size[0]}x{self.size[1]}"


@dataclass(frozen=True, slots=True)
class Latent:
    """The size of the pictures that it will become, and their number; or of the sound, in seconds."""

    width: int = DEFAULT_SIDE
    height: int = DEFAULT_SIDE
    batch: int = 1
    seconds: float | None = None

    def __str__(self) -> str:
        return f"latent of {self.batch} x {self.width}x{self.height}"


@dataclass(frozen=True, slots=True)
class Sound:
    """A tone, or silence when `pitch_hz` is 0."""

    seconds: float
    rate: int = 22_050
    channels: int = 1
    pitch_hz: float = 0.0

    def __str__(self) -> str:
        return f"sound of {self.seconds:g} s"


@dataclass(frozen=True, slots=True)
class Clip:
    """Moving pictures. `source` is set when the clip is a file that was loaded: it is passed on as it is. `sound` is
    None when there is none."""

    images: Images
    fps: float
    source: str | None = None
    sound: Sound | None = None

    def __str__(self) -> str:
        return f"clip of {self.images} at {self.fps:g} fps"


@dataclass(frozen=True, slots=True)
class Segments:
    """What a detector found in a picture of this size: none, where it found nothing."""

    size: tuple[int, int]
    regions: tuple[Region, ...]

    def __str__(self) -> str:
        return f"{len(self.regions)} segment(s) of {self.size[0]}x{self.size[1]}"


@dataclass(frozen=True, slots=True)
class StandIn:
    """Stands for a value that only a real ComfyUI has. `label` says which one: a model's name, say."""

    kind: str
    class_type: str
    label: str = ""

    def __str__(self) -> str:
        about = f" ({self.label})" if self.label else ""
        return f"rehearsal: {self.kind} from {self.class_type}{about}"

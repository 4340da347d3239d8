"""The words in which a job fails.

Every failure that a caller can see is a `MorpheusError` with one of the codes below. The set is closed: clients
switch on it, so a code is added only together with its documentation, and never renamed.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final


class Code(StrEnum):
    """What went wrong, for a program."""

    INVALID_INPUT = "invalid_input"
    UNKNOWN_WORKFLOW = "unknown_workflow"
    INVALID_PARAMS = "invalid_params"
    INVALID_WORKFLOW = "invalid_workflow"
    MISSING_NODE = "missing_node"
    MISSING_MODEL = "missing_model"
    INPUT_UNREACHABLE = "input_unreachable"
    INPUT_REJECTED = "input_rejected"
    NO_FACE = "no_face"
    GPU_OUT_OF_MEMORY = "gpu_out_of_memory"
    EXECUTION_FAILED = "execution_failed"
    NO_OUTPUT = "no_output"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    CONNECTION = "connection"
    COMFYUI_CRASHED = "comfyui_crashed"
    VOLUME_UNAVAILABLE = "volume_unavailable"
    VOLUME_FULL = "volume_full"
    UPLOAD_FAILED = "upload_failed"
    RESULT_TOO_LARGE = "result_too_large"
    INTERNAL = "internal"


MOST_TOLD: Final = 20
"""Problems that one error tells. RunPod refuses an answer of many megabytes, and the job would never end."""

RETRYABLE: Final[frozenset[Code]] = frozenset(
    {
        Code.INPUT_UNREACHABLE,
        Code.TIMEOUT,
        Code.CONNECTION,
        Code.COMFYUI_CRASHED,
        Code.VOLUME_UNAVAILABLE,
        Code.VOLUME_FULL,
        Code.UPLOAD_FAILED,
    }
)
"""Codes for which the same job, sent again unchanged, may succeed."""

NOT_REFUNDABLE: Final[frozenset[Code]] = frozenset({Code.CANCELLED})
"""Codes whose cause is the caller's own decision; every other failure delivered nothing, so a charge goes back."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, said so that the person who can act finds it.

    `at` names the place in the caller's own words (`params.steps`, `node 6 (CLIPTextEncode) input text`), `what`
    says what is wrong there, `hint` what to do next.
    """

    at: str
    what: str
    hint: str | None = None

    def __str__(self) -> str:
        said = f"{self.at}: {self.what}" if self.at else self.what
        return f"{said} ({self.hint})" if self.hint else said

    def as_dict(self) -> dict[str, str]:
        said = {"at": self.at, "what": self.what}
        return said | {"hint": self.hint} if self.hint else said


class MorpheusError(Exception):
    """A failure with a code, one human sentence, and whatever details a person needs to act on it.

    `retryable` and `refundable` follow from the code unless the place that raises knows better.
    """

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        problems: Sequence[Problem] = (),
        details: Mapping[str, Any] | None = None,
        retryable: bool | None = None,
        refundable: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.problems = tuple(problems)
        self.details = dict(details or {})
        if problems:
            self.details["problems"] = [problem.as_dict() for problem in problems]
        self.retryable = code in RETRYABLE if retryable is None else retryable
        self.refundable = code not in NOT_REFUNDABLE if refundable is None else refundable


class MediaRefusedError(Exception):
    """One medium of a job that cannot be had, before it is told together with the others.

    `code` is `input_unreachable` or `input_rejected`; `retryable` says whether the same medium may be had the next
    time, where the code alone would say it wrongly.
    """

    def __init__(self, code: Code, what: str, hint: str | None = None, *, retryable: bool | None = None) -> None:
        super().__init__(what)
        self.code, self.what, self.hint = code, what, hint
        self.retryable = code in RETRYABLE if retryable is None else retryable


@contextlib.contextmanager
def disk_failing(said: str) -> Iterator[None]:
    """Within it, an OSError of the worker's own disk becomes a failure of the job that another try may not meet."""
    try:
        yield
    except OSError as failure:
        reason = failure.strerror or failure
        raise MorpheusError(Code.INTERNAL, f"{said}: {reason}", retryable=True) from failure


def from_problems(code: Code, opening: str, problems: Sequence[Problem], **more: Any) -> MorpheusError:
    """One error for all problems at once: `opening: first; second; third`; of very many, the first `MOST_TOLD`."""
    rest = len(problems) - MOST_TOLD
    told = [*problems[:MOST_TOLD], *([Problem("", f"and {rest} more")] if rest > 0 else [])]
    return MorpheusError(code, f"{opening}: " + "; ".join(str(problem) for problem in told), problems=told, **more)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` was probably meant to be, or None when nothing is near.

    Compared without regard to case, and by the last path component too, so that `SDXL.safetensors` finds
    `xl/sdxl.safetensors`.
    """
    by_folded: dict[str, str] = {}
    for candidate in known:
        by_folded.setdefault(candidate.casefold(), candidate)
        by_folded.setdefault(candidate.rsplit("/", 1)[-1].casefold(), candidate)
    found = difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.6)
    return by_folded[found[0]] if found else None


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """A hint that names the nearest known name, or None."""
    found = nearest(name, known)
    return f"did you mean '{found}'?" if found else None

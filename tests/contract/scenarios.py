"""What is played against a ComfyUI, scenario by scenario, each with the assertion that judges it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from . import assert_failures as failures
from . import assert_results as results
from . import assert_sockets as sockets
from . import plays
from .live import Live
from .model import Recording

Need = Literal["checkpoint", "previews"]


@dataclass(frozen=True, slots=True)
class Scenario:
    """`play` does it, `check` judges what was seen. `needs`: a checkpoint, or previews switched on."""

    name: str
    about: str
    play: Callable[[Live], None]
    check: Callable[[Recording], None]
    needs: frozenset[Need] = frozenset()


_CHECKPOINT: Final[frozenset[Need]] = frozenset({"checkpoint"})
_PREVIEWS: Final[frozenset[Need]] = frozenset({"checkpoint", "previews"})

_ALL: Final = (
    Scenario("success", "A prompt runs to its end.", plays.success, results.assert_success),
    Scenario("cached", "The same prompt again: nothing runs, the outputs are those of before.", plays.cached,
             results.assert_cached),
    Scenario("partly_cached", "A prompt that differs in its last node.", plays.partly_cached,
             results.assert_partly_cached),
    Scenario("batch_and_preview", "Three pictures saved, three previewed.", plays.batch_and_preview,
             results.assert_batch_and_preview),
    Scenario("upscale", "An uploaded picture through a model.", plays.upscale, results.assert_upscale),
    Scenario("upload", "What becomes of names of uploads.", plays.upload, results.assert_upload),
    Scenario("text", "Text as an output.", plays.text, results.assert_text),
    Scenario("video", "A video as an output.", plays.video, results.assert_video),
    Scenario("animation", "An animated picture as an output.", plays.animation, results.assert_animation),
    Scenario("audio", "Sound as an output, saved and previewed.", plays.audio, results.assert_audio),
    Scenario("latent", "A file that is no medium as an output.", plays.latent, results.assert_latent),
    Scenario("refusals", "Graphs that are refused.", plays.refusals, failures.assert_refusals),
    Scenario("not_a_prompt", "Bodies that are no prompt.", plays.not_a_prompt, failures.assert_not_a_prompt),
    Scenario("partly_valid", "One good output and a bad one: accepted, with node errors.", plays.partly_valid,
             results.assert_partly_valid),
    Scenario("execution_error", "A node raises.", plays.execution_error, failures.assert_execution_error),
    Scenario("error_after_output", "A node raises when another has already put out something.",
             plays.error_after_output, failures.assert_error_after_output),
    Scenario("missing_model", "A model that is not there, found out only at run time.", plays.missing_model,
             failures.assert_missing_model),
    Scenario("interrupt", "The running prompt is interrupted by its id.", plays.interrupt, failures.assert_interrupt),
    Scenario("interrupt_queued", "Interrupting a queued prompt does nothing; without an id, the running one stops.",
             plays.interrupt_queued, failures.assert_interrupt_queued),
    Scenario("interrupt_idle", "An interrupt while nothing runs harms nothing.", plays.interrupt_idle,
             failures.assert_interrupt_idle),
    Scenario("delete_queued", "A queued prompt is deleted; a running one cannot be.", plays.delete_queued,
             failures.assert_delete_queued),
    Scenario("clear_queue", "Everything queued is thrown away; what runs goes on.", plays.clear_queue,
             failures.assert_clear_queue),
    Scenario("reconnect", "The client comes back while its prompt runs.", plays.reconnect, sockets.assert_reconnect),
    Scenario("reconnect_late", "The client comes back when its prompt has ended: nothing tells it.",
             plays.reconnect_late, sockets.assert_reconnect_late),
    Scenario("reconnect_beside", "A second socket under the same id; closing the first deafens the second.",
             plays.reconnect_beside, sockets.assert_reconnect_beside),
    Scenario("second_client", "A client hears of others' prompts only the queue's length.", plays.second_client,
             sockets.assert_second_client),
    Scenario("no_client", "The progress of a prompt without a client goes to everybody.", plays.no_client,
             sockets.assert_no_client),
    Scenario("own_prompt_id", "A prompt id of the client's choice.", plays.own_prompt_id, results.assert_own_prompt_id),
    Scenario("same_prompt_id", "One id for two prompts: the second's history replaces the first's.",
             plays.same_prompt_id, results.assert_same_prompt_id),
    Scenario("unknown_history", "The history of a prompt that never was.", plays.unknown_history,
             results.assert_unknown_history),
    Scenario("forget_history", "A history entry is deleted.", plays.forget_history, results.assert_forget_history),
    Scenario("facts", "What the server says of itself.", plays.facts, results.assert_facts),
    Scenario("feature_flags", "What client and server can do, told to each other.", plays.feature_flags,
             sockets.assert_feature_flags),
    Scenario("sampler", "A text-to-image graph; the sampler tells its steps.", plays.sampler, results.assert_sampler,
             _CHECKPOINT),
    Scenario("sampler_preview", "A sampler shows what it draws.", plays.sampler_preview, sockets.assert_sampler_preview,
             _PREVIEWS),
    Scenario("preview_with_metadata", "The same for a client that understands metadata.", plays.preview_with_metadata,
             sockets.assert_preview_with_metadata, _PREVIEWS),
)  # fmt: skip

SCENARIOS: Final = {scenario.name: scenario for scenario in _ALL}

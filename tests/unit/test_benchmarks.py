"""The arithmetic that the benchmarks' tables rest on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.big_video import head_of, write
from benchmarks.rig import (
    COMFYUI_DIR,
    COMFYUI_PYTHON,
    OFFICIAL_DIR,
    Compared,
    MissingRigError,
    Span,
    found_rig,
    idle_ms,
    percentile,
    span_of,
)
from morpheus_worker.contents import content_of
from morpheus_worker.durations import duration_of

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("count", "share", "expected"), [(10, 0.9, 9), (30, 0.9, 27), (11, 0.9, 10), (1, 0.9, 1), (4, 0.5, 2), (5, 0.0, 1)]
)
def test_a_percentile_is_a_value_that_was_measured(count: int, share: float, expected: int) -> None:
    assert percentile(list(range(count, 0, -1)), share) == expected


def test_a_comparison_holds_the_ratio_of_the_medians_to_its_target() -> None:
    at_target = Compared("x", [30.0, 3.0, 300.0], [10.0, 1.0, 90.0], 1 / 3)
    assert at_target.met
    assert at_target.row().endswith("met")
    assert not Compared("x", [30.0], [10.1], 1 / 3).met


def test_a_span_is_what_the_history_says() -> None:
    messages = [["execution_start", {"timestamp": 1000}], ["execution_success", {"timestamp": 1250}]]
    span = span_of("p", {"status": {"messages": messages}})
    assert (span, span.length_ms) == (Span("p", 1000, 1250), 250)


def test_a_prompt_that_failed_has_no_span() -> None:
    messages = [["execution_start", {"timestamp": 1000}], ["execution_error", {"timestamp": 1250}]]
    with pytest.raises(ValueError, match="did not succeed"):
        span_of("p", {"status": {"messages": messages}})


def test_idle_is_from_one_end_to_the_next_start() -> None:
    assert idle_ms([Span("a", 0, 100), Span("b", 107, 200), Span("c", 1200, 1300)]) == [7, 1000]


def test_a_missing_rig_is_named_in_full(tmp_path: Path) -> None:
    with pytest.raises(MissingRigError) as said:
        found_rig({COMFYUI_DIR: str(tmp_path)})
    assert [name for name in (COMFYUI_DIR, COMFYUI_PYTHON, OFFICIAL_DIR) if name not in str(said.value)] == []


def test_the_large_video_is_a_video_of_that_size(tmp_path: Path) -> None:
    path, size = tmp_path / "large.mp4", 5_000_000_000
    write(path, size)
    assert path.stat().st_size == size
    assert path.stat().st_blocks < 100, "it takes no disk"
    content = content_of(head_of(size))
    assert content is not None
    assert content.media_type == "video/mp4"
    assert duration_of(path, "video/mp4") == 1.0


def test_an_unknown_benchmark_is_refused_with_the_names_there_are() -> None:
    command = [sys.executable, "benchmarks/run.py", "nonsense"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "nonsense" in done.stderr
    assert "official" in done.stderr

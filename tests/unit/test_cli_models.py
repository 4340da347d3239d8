"""`morpheus models`: how it says sizes, times and what happens, and how it ends when it is asked to."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from rich.console import Console

from morpheus_worker.cli.main import _parser, main
from morpheus_worker.cli.models_bars import Bars, Rows
from morpheus_worker.cli.models_printing import duration_text, print_rows, tell_failures
from morpheus_worker.cli.models_progress import BarsWhenNeeded, Lines, shown
from morpheus_worker.cli.models_stopping import SAID, Stopping
from morpheus_worker.errors import Problem
from morpheus_worker.sync.amounts import size_text
from morpheus_worker.sync.terms import Event, SyncCode, SyncError

# Sizes, times, tables.


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (99_949, "99.9 kB"),
        (99_950, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (334_641_164, "335 MB"),
        (6_938_078_334, "6.9 GB"),
        (2_000_000_000_000_000_000, "2000 PB"),
    ],
)
def test_a_size_has_two_or_three_digits_and_a_unit(count: int, said: str) -> None:
    assert size_text(count) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.04, "0.0 s"),
        (0.4, "0.4 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (200.0, "3 min 20 s"),
        (3599.7, "1 h 0 min"),
        (7500.0, "2 h 5 min"),
    ],
)
def test_a_duration_has_two_units_at_most(seconds: float, said: str) -> None:
    assert duration_text(seconds) == said


def test_rows_are_lines_with_tabs_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(("id", "state"), [("a", "is\tthere"), ("b", "")])
    assert capsys.readouterr().out == "a\tis there\nb\t\n"


def test_failures_are_told_once_more_in_one_block(capsys: pytest.CaptureFixture[str]) -> None:
    tell_failures([Problem("a", "is gone", "look elsewhere"), Problem("b", "is not")])
    tell_failures([])
    assert capsys.readouterr().err == ("\nmorpheus: 2 things went wrong:\n  a: is gone (look elsewhere)\n  b: is not\n")


# Events as lines.


def lines_of(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_a_line_and_the_summary_the_last() -> None:
    stream = io.StringIO()
    lines = Lines(stream)
    lines(Event("started", "a", bytes_total=7))
    lines(Event("failed", "b", message="gone", code="not_found"))
    lines.summary({"ok": False})
    assert lines_of(stream) == [
        {"event": "started", "id": "a", "bytes_total": 7},
        {"event": "failed", "id": "b", "message": "gone", "code": "not_found"},
        {"ok": False},
    ]


def test_progress_is_said_once_a_second_of_each_entry() -> None:
    now, stream = [0.0], io.StringIO()
    lines = Lines(stream, clock=lambda: now[0])
    for now[0] in (0.0, 0.2, 0.9, 1.0, 1.5):
        lines(Event("progress", "a", bytes_done=round(now[0] * 10)))
        lines(Event("progress", "b", bytes_done=0))
    lines(Event("published", "a"))
    assert [(line["event"], line["id"]) for line in lines_of(stream)] == [
        ("progress", "a"), ("progress", "b"), ("progress", "a"), ("progress", "b"), ("published", "a"),
    ]  # fmt: skip


def test_quiet_leaves_the_summary_where_a_program_asked_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    for as_json in (True, False):
        with shown(as_json=as_json, quiet=True) as display:
            display(Event("started", "a"))
            display.summary({"ok": as_json})
    assert capsys.readouterr().out == '{"ok": true}\n'


def test_a_reader_that_went_away_ends_nothing() -> None:
    read, write = os.pipe()
    os.close(read)
    with contextlib.suppress(BrokenPipeError), open(write, "w") as stream:
        lines = Lines(stream)
        lines(Event("started", "a"))
        lines(Event("published", "a"))
        lines.summary({})


def test_lines_of_many_threads_stay_whole() -> None:
    stream = io.StringIO()
    lines = Lines(stream)

    def tell(name: str) -> None:
        for _ in range(50):
            lines(Event("retrying", name, message="x" * 500))

    threads = [threading.Thread(target=tell, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines_of(stream)) == 200


# Events as bars.


def drawn(events: list[Event], *, width: int = 120, entries: int | None = None) -> tuple[str, str]:
    """What stands above the bars, and the bars themselves."""
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None, legacy_windows=False)
    progress = Rows(console=console, auto_refresh=False)
    display = Bars(progress, entries=entries)
    for event in events:
        display(event)
    above = console.file.getvalue()  # type: ignore[attr-defined]
    rows = Console(file=io.StringIO(), width=width, color_system=None)
    rows.print(progress.get_renderable())
    return above, rows.file.getvalue()  # type: ignore[attr-defined]


ON_ITS_WAY = [
    Event("planned", bytes_total=3_000_000),
    Event("started", "a", bytes_done=0, bytes_total=2_000_000),
    Event("started", "b", bytes_done=0, bytes_total=1_000_000),
    Event("progress", "a", bytes_done=500_000, bytes_total=2_000_000),
    Event("published", "b", bytes_done=1_000_000, bytes_total=1_000_000),
]


def test_a_file_on_its_way_has_a_bar_and_all_have_one() -> None:
    above, rows = drawn(ON_ITS_WAY)
    assert above.startswith("b: 1.0 MB in ")
    every, first = rows.splitlines()
    assert every.split()[0] == "all"
    assert "50%" in every
    assert "1.5/3.0 MB" in every
    assert first.split()[0] == "a"
    assert "25%" in first
    assert "0.5/2.0 MB" in first


def test_what_was_not_planned_for_counts_in_the_end() -> None:
    _, rows = drawn([Event("planned", bytes_total=0), *ON_ITS_WAY[1:]])
    assert "1.5/3.0 MB" in rows.splitlines()[0]


def test_what_was_interrupted_needs_no_line() -> None:
    above, rows = drawn([*ON_ITS_WAY[:2], Event("failed", "a", message="was interrupted", code="interrupted")])
    assert above == ""
    assert len(rows.splitlines()) == 1


def test_what_failed_stands_above_the_bars() -> None:
    above, rows = drawn([*ON_ITS_WAY, Event("failed", "a", message="was [not] there", code="not_found")])
    assert above.splitlines()[-1] == "a: was [not] there"
    assert len(rows.splitlines()) == 1


def test_what_waits_says_so_in_its_bar_until_it_comes() -> None:
    waiting = [Event("started", "a"), Event("waiting", "a", message="another machine fetches it")]
    _, rows = drawn(waiting)
    assert rows.split()[:2] == ["a", "waiting"]
    _, rows = drawn([*waiting, Event("progress", "a", bytes_done=1000, bytes_total=2000)])
    assert "waiting" not in rows


def test_a_file_that_is_hashed_has_a_bar_that_moves() -> None:
    _, rows = drawn([Event("verifying", "a", bytes_done=done, bytes_total=2_000_000) for done in (0, 1_000_000)])
    (row,) = rows.splitlines()
    assert row.split()[:2] == ["a", "verifying"]
    assert "50%" in row
    assert "1.0/2.0 MB" in row


LONG = "a-family-of-models-with-a-long-name"


@pytest.mark.parametrize(
    ("width", "whole"), [(30, False), (40, False), (50, False), (60, False), (80, False), (120, True)]
)
def test_a_row_is_one_line_with_its_bytes_in_a_window_of_any_width(width: int, whole: bool) -> None:
    names = [f"{LONG}-{number}" for number in (1, 2)]
    events = [Event("planned", bytes_total=30_000_000)]
    events += [Event("progress", name, bytes_done=12_300_000, bytes_total=15_000_000) for name in names]
    _, rows = drawn(events, width=width)
    every, *each = rows.splitlines()
    assert every.split()[0] == "all"
    for row, name in zip(each, names, strict=True):
        assert "12.3/15.0 MB" in row
        assert "82%" in row
        assert row.split()[0].endswith(f"e-{name[-1]}"), "the end of a name tells it from the others"
        assert (name in row) is whole
    assert max(map(len, rows.splitlines())) <= width - len("^C"), "the terminal's echo of Ctrl-C makes no new line"


def test_without_a_plan_nothing_is_said_of_all() -> None:
    _, rows = drawn([Event("progress", "a", bytes_done=1, bytes_total=2)])
    assert [row.split()[0] for row in rows.splitlines()] == ["a"]


def test_entries_are_counted_where_no_bytes_move() -> None:
    told = [Event("present", "a", bytes_total=7), Event("failed", "b", message="is gone", code="not_found")]
    above, rows = drawn(told, entries=3)
    assert above == "b: is gone\n"
    (every,) = rows.splitlines()
    assert every.split()[0] == "all"
    assert "67%" in every
    assert "2/3" in every
    assert "bytes" not in every


def test_it_is_said_which_source_is_asked_next() -> None:
    event = Event("next_source", "a", message="https://one answered 404", details={"next": "https://two"})
    above, _ = drawn([event])
    assert above == "a: https://one answered 404; now from https://two\n"


def test_bars_are_drawn_although_a_log_has_lost_its_stream(capsys: pytest.CaptureFixture[str]) -> None:
    with Path(os.devnull).open("w") as stream:
        lost = logging.StreamHandler(stream)
    logging.getLogger().addHandler(lost)
    try:
        with contextlib.ExitStack() as stack:
            BarsWhenNeeded(stack)(Event("published", "b", bytes_done=1000, bytes_total=1000))
    finally:
        logging.getLogger().removeHandler(lost)
    assert capsys.readouterr().out.strip() == "b: 1.0 kB"


def test_where_there_is_nothing_to_do_nothing_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    before = set(sys.modules)
    with contextlib.ExitStack() as stack:
        display = BarsWhenNeeded(stack)
        for event in (Event("planned", bytes_total=0), Event("present", "a"), Event("finished", bytes_done=0)):
            display(event)
        display.say("nothing")
        assert capsys.readouterr() == ("", "morpheus: nothing\n")
        assert "rich.live" not in set(sys.modules) - before
        display(Event("published", "b", bytes_done=1000, bytes_total=1000))
        assert capsys.readouterr().out == "b: 1.0 kB\n"


# Ending.


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_to_stop_and_is_said(signum: signal.Signals) -> None:
    said: list[str] = []
    before = signal.getsignal(signum)
    with Stopping(said.append) as stopping:
        assert stopping.exit_code(1) == 1
        os.kill(os.getpid(), signum)
        assert stopping.stop.wait(10)
    assert said == [SAID]
    assert stopping.exit_code(0) == 128 + signum
    assert signal.getsignal(signum) == before


ENDLESS = """
import threading
from morpheus_worker.cli.models_stopping import Stopping
with Stopping(lambda said: print(said, flush=True)):
    print("ready", flush=True)
    while True:
        threading.Event().wait(0.05)
"""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_ends_what_the_first_did_not(signum: signal.Signals) -> None:
    command = [sys.executable, "-c", ENDLESS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for expected in ("ready", SAID):
            assert process.stdout.readline() == f"{expected}\n"
            process.send_signal(signum)
        assert process.wait(timeout=30) == -signum


def test_what_was_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with Stopping(print) as stopping:
            os.kill(os.getpid(), signal.SIGTERM)
        assert not stopping.stop.is_set()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("code", [SyncCode.INTERRUPTED, SyncCode.VOLUME])
def test_what_a_signal_interrupted_ends_with_its_code_and_nothing_else(code: SyncCode) -> None:

    def run() -> None:
        with Stopping(lambda _: None) as stopping:
            os.kill(os.getpid(), signal.SIGTERM)
            assert stopping.stop.wait(10)
            raise SyncError(code, "was ended")

    with pytest.raises(SystemExit if code is SyncCode.INTERRUPTED else SyncError) as raised:
        run()
    assert getattr(raised.value, "code", None) == (143 if code is SyncCode.INTERRUPTED else code)


def test_it_can_be_used_in_another_thread() -> None:
    entered = threading.Event()

    def use() -> None:
        with Stopping(print):
            entered.set()

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert entered.is_set()


# The words.


@pytest.fixture(autouse=True)
def own_log() -> object:
    handlers = logging.getLogger().handlers[:]
    yield
    logging.getLogger().handlers[:] = handlers


def test_the_examples_of_the_help_can_be_typed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--help"]) == 0
    examples = re.findall(r"^ +morpheus (\S.*?)(?:  .*)?$", capsys.readouterr().out, re.MULTILINE)
    assert len(examples) == 6
    for example in examples:
        _parser().parse_args(shlex.split(example))


def test_options_and_names_are_taken_in_any_order() -> None:
    for line in ("sync base --replace style", "sync --replace base style", "sync base style --replace"):
        asked = _parser().parse_args(["models", *line.split()])
        assert (asked.id, asked.replace) == (["base", "style"], True)
    assert _parser().parse_args(["models", "add", "--id", "x", "civitai:7", "--json"]).ref == "civitai:7"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("sync base --bogus", "unrecognized arguments: --bogus"),
        ("lock --workflow draw", "unrecognized arguments: --workflow"),
        ("add --json", "the following arguments are required: URL|REF"),
    ],
)
def test_what_cannot_be_asked_is_told_with_how_it_can(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", *line.split()]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"usage: morpheus models {line.split()[0]} ")
    assert said in told


@pytest.mark.parametrize(
    "verb",
    ["add", "lock", "plan", "sync", "status", "verify", "adopt", "prune", "import", "request", "requests", "worker"],
)
def test_every_verb_says_what_it_does(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", verb, "--help"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: morpheus models {verb}")
    assert "--json" in printed

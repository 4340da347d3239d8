"""Real children, real signals. The scripts stand for a ComfyUI that behaves, hangs, leaves children, or shouts."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from morpheus_worker.comfy.process import MAX_LINE_BYTES, TAIL_LINES, ComfyProcess, LineSplitter, describe_exit_code
from morpheus_worker.errors import Code, MorpheusError

PATIENCE_S = 10.0
CHECKOUT = Path(__file__).parents[2]


class Lines:
    """What the child said, to wait for."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._more = threading.Condition()

    def __call__(self, line: str) -> None:
        with self._more:
            self.seen.append(line)
            self._more.notify_all()

    def wait_for(self, beginning: str) -> str:
        """The rest of the first line that begins so."""
        with self._more:
            assert self._more.wait_for(lambda: self._find(beginning) is not None, PATIENCE_S), self.seen
        found = self._find(beginning)
        assert found is not None
        return found.removeprefix(beginning)

    def _find(self, beginning: str) -> str | None:
        return next((line for line in self.seen if line.startswith(beginning)), None)


Start = Callable[..., ComfyProcess]


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def start(tmp_path: Path, lines: Lines) -> Iterator[Start]:
    started: list[ComfyProcess] = []

    def run(script: str, on_line: Callable[[str], None] = lines) -> ComfyProcess:
        command = [sys.executable, "-u", "-c", textwrap.dedent(script)]
        started.append(ComfyProcess.start(command, cwd=tmp_path, env=os.environ, on_line=on_line))
        return started[-1]

    yield run
    for process in started:
        process.stop(0)


def handle_of(pid: int) -> int:
    """A file that becomes readable when the process ends; it cannot come to mean another one."""
    return os.pidfd_open(pid)


def has_ended(handle: int) -> bool:
    readable, _, _ = select.select([handle], [], [], PATIENCE_S)
    os.close(handle)
    return bool(readable)


SLEEPER = "import time; print('ready'); time.sleep(600)"

DEAF = """
    import signal, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("ready")
    time.sleep(600)
"""

WITH_CHILD = """
    import signal, subprocess, sys, time
    child = subprocess.Popen([sys.executable, "-u", "-c", '''if True:
        import signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("deaf")
        time.sleep(600)'''])
    print(f"child {child.pid}")
    AFTERWARDS
"""


def test_output_and_exit_code_arrive(start: Start, lines: Lines) -> None:
    process = start("import sys; print('one'); print('two', file=sys.stderr); sys.exit(3)")
    assert process.wait(PATIENCE_S) == 3
    assert lines.seen == ["one", "two"]
    assert process.tail == ("one", "two")
    assert process.describe_exit() == "exit code 3"


def test_a_living_child_has_no_exit_code(start: Start, lines: Lines) -> None:
    process = start(SLEEPER)
    lines.wait_for("ready")
    assert process.exit_code is None
    assert process.wait(0) is None
    assert process.describe_exit() == "still running"


def test_the_child_reads_nothing_and_leads_its_own_group(start: Start, lines: Lines) -> None:
    process = start("import os, sys; print(repr(sys.stdin.read()), os.getpgid(0) == os.getpid() == os.getsid(0))")
    assert process.wait(PATIENCE_S) == 0
    assert lines.seen == ["'' True"]


def test_stop_asks_first(start: Start, lines: Lines) -> None:
    process = start("""
        import signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: (print("bye"), sys.exit(0)))
        print("ready")
        time.sleep(600)
    """)
    lines.wait_for("ready")
    process.stop(PATIENCE_S)
    assert process.exit_code == 0
    assert process.tail[-1] == "bye"
    assert process.describe_exit() == "stopped by the worker (exit code 0)"


def test_stop_kills_what_does_not_listen(start: Start, lines: Lines) -> None:
    process = start(DEAF)
    lines.wait_for("ready")
    process.stop(0.05)
    assert process.exit_code == -signal.SIGKILL
    assert process.describe_exit() == "stopped by the worker (killed by SIGKILL (137))"


def test_stop_ends_a_child_that_was_paused(start: Start, lines: Lines) -> None:
    process = start(SLEEPER)
    lines.wait_for("ready")
    os.kill(process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    process.stop(0.05)
    assert process.exit_code == -signal.SIGKILL


def test_stop_reaps_and_may_be_called_again(start: Start, lines: Lines) -> None:
    process = start(SLEEPER)
    lines.wait_for("ready")
    for _ in range(3):
        process.stop(PATIENCE_S)
    with pytest.raises(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)
    assert process.exit_code == -signal.SIGTERM


def test_stop_from_several_threads_at_once(start: Start, lines: Lines) -> None:
    process = start(DEAF)
    lines.wait_for("ready")
    threads = [threading.Thread(target=process.stop, args=(0.05,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert process.exit_code == -signal.SIGKILL


def test_stop_from_a_signal_handler_that_interrupts_stop(start: Start, lines: Lines) -> None:
    process = start(DEAF)
    lines.wait_for("ready")
    before = signal.signal(signal.SIGALRM, lambda *_: process.stop(0))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        process.stop(600)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert process.exit_code == -signal.SIGKILL


def test_no_thread_and_no_file_is_left_behind(start: Start, lines: Lines) -> None:
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    process = start(SLEEPER)
    lines.wait_for("ready")
    process.stop(PATIENCE_S)
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == files


def test_being_killed_from_outside_is_told(start: Start, lines: Lines) -> None:
    process = start(SLEEPER)
    lines.wait_for("ready")
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(PATIENCE_S) == -signal.SIGKILL
    process.stop(0)
    said = "killed by SIGKILL (137): the container ran out of host memory, or somebody killed it"
    assert process.describe_exit() == said


def test_children_of_the_child_go_with_it(start: Start, lines: Lines) -> None:
    process = start(WITH_CHILD.replace("AFTERWARDS", "time.sleep(600)"))
    handle = handle_of(int(lines.wait_for("child ")))
    lines.wait_for("deaf")
    process.stop(PATIENCE_S)
    assert process.exit_code == -signal.SIGTERM
    assert has_ended(handle)


def test_children_that_outlived_the_child_are_killed(start: Start, lines: Lines) -> None:
    process = start(WITH_CHILD.replace("AFTERWARDS", "sys.stdin.read()"))
    handle = handle_of(int(lines.wait_for("child ")))
    lines.wait_for("deaf")
    assert process.wait(PATIENCE_S) == 0
    assert select.select([handle], [], [], 0)[0] == []
    process.stop(PATIENCE_S)
    assert has_ended(handle)
    assert process.describe_exit() == "exit code 0"


def test_a_daemon_that_left_the_group_does_not_hold_up_stop(start: Start, lines: Lines) -> None:
    process = start("""
        import subprocess, sys
        script = "import time; print('away'); time.sleep(600)"
        away = subprocess.Popen([sys.executable, "-u", "-c", script], start_new_session=True)
        print(f"child {away.pid}")
    """)
    pid = int(lines.wait_for("child "))
    lines.wait_for("away")
    handle = handle_of(pid)
    process.stop(PATIENCE_S)
    os.kill(pid, signal.SIGKILL)
    assert has_ended(handle)


def test_the_child_dies_with_a_worker_that_is_killed(tmp_path: Path) -> None:
    worker = textwrap.dedent("""
        import os, sys, threading
        from pathlib import Path
        from morpheus_worker.comfy.process import ComfyProcess
        script = "import subprocess, sys, time; print(subprocess.Popen(['sleep', '600']).pid); time.sleep(600)"
        command = [sys.executable, "-u", "-c", script]
        tell = lambda line: print(process.pid, line)
        process = ComfyProcess.start(command, cwd=Path("/"), env=os.environ, on_line=tell)
        threading.Event().wait()
    """)
    command = [sys.executable, "-u", "-c", worker]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        handles = [handle_of(int(pid)) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert len(handles) == 2
    assert all(has_ended(handle) for handle in handles)


def test_only_the_last_lines_are_kept(start: Start, lines: Lines) -> None:
    process = start(f"for number in range({TAIL_LINES + 5}): print(number)")
    process.wait(PATIENCE_S)
    assert process.tail == tuple(str(number) for number in range(5, TAIL_LINES + 5))
    assert len(lines.seen) == TAIL_LINES + 5


def test_output_of_any_shape_does_no_harm(start: Start, lines: Lines) -> None:
    process = start(r"""
        import os
        os.write(1, b"\xff\xfe caf\xc3\xa9 \x1b[31mred\x1b[0m\n\n  \n")
        os.write(1, b"x" * 3_000_000 + b"\n")
        for step in range(11): os.write(2, f"\r{step * 10:3}%|".encode())
        os.write(1, b"\r\nno newline at the end")
    """)
    assert process.wait(PATIENCE_S) == 0
    assert lines.seen == ["�� café red", "x" * MAX_LINE_BYTES + " […]", "100%|", "no newline at the end"]


def test_a_reader_that_fails_does_not_freeze_the_child(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    def fail(line: str) -> None:
        raise ValueError(line)

    process = start("print('first'); print('x' * 300_000); print('last')", on_line=fail)
    assert process.wait(PATIENCE_S) == 0
    assert process.tail[-1] == "last"
    assert "could not be handed on" in caplog.text


def test_without_a_reader_lines_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="comfyui")
    command = [sys.executable, "-c", "print('100% of %s')"]
    process = ComfyProcess.start(command, cwd=tmp_path, env={})
    try:
        process.wait(PATIENCE_S)
    finally:
        process.stop(0)
    assert [record.getMessage() for record in caplog.records if record.name == "comfyui"] == ["100% of %s"]


def test_a_command_that_cannot_be_started_says_which(tmp_path: Path) -> None:
    for command, cwd in ((["/no/python"], tmp_path), ([sys.executable], tmp_path / "none")):
        with pytest.raises(MorpheusError, match=r"cannot be started: .*(/no/python|/none): No such file") as caught:
            ComfyProcess.start(command, cwd=cwd, env={})
        assert caught.value.code is Code.COMFYUI_CRASHED


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (0, "exit code 0"),
        (1, "exit code 1"),
        (255, "exit code 255"),
        (137, "killed by SIGKILL (137): the container ran out of host memory, or somebody killed it"),
        (-11, "killed by SIGSEGV (139): native code crashed"),
        (-7, "killed by SIGBUS (135): a mapped file could not be read"),
        (-1, "killed by SIGHUP (129)"),
    ],
)
def test_exit_codes_are_explained(code: int, said: str) -> None:
    assert describe_exit_code(code).startswith(said)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_lines_do_not_depend_on_how_the_bytes_arrive(size: int) -> None:
    data = "first\r\n\r50%\r100%\nsécond\nlast".encode()
    splitter = LineSplitter()
    found = [line for at in range(0, len(data), size) for line in splitter.feed(data[at : at + size])]
    assert [*found, *splitter.end()] == ["first", "100%", "sécond", "last"]

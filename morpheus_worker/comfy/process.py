"""ComfyUI as a child process: started, listened to, and ended for certain. When to do which is decided elsewhere.

The child leads a process group of its own. It is watched without being reaped, so that its number, which is the group's
too, cannot go to a stranger before the whole group has been killed.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import re
import selectors
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Final, Self

from morpheus_worker.errors import Code, MorpheusError

log = logging.getLogger(__name__)
comfyui_log = logging.getLogger("comfyui")

TAIL_LINES: Final = 40
MAX_LINE_BYTES: Final = 16 * 1024
READ_BYTES: Final = 64 * 1024
DRAIN_S: Final = 1.0
"""How long the last output may take to arrive after the child's end: something outside its group may hold the pipe."""
KILL_S: Final = 5.0
"""How long SIGKILL may take. A process that waits for a dead volume in the kernel does not die at all."""
UNKNOWN_EXIT: Final = 255
"""The exit code reported when somebody else in this process reaped the child."""

GUARD: Final = 'read -r _; kill -s KILL -- "-$0"'
"""Reads a pipe that only the worker holds: when the worker is gone, however it went, its ComfyUI goes too. The kernel's
own way (PR_SET_PDEATHSIG) follows the thread that forked, not the process, and must be asked for between fork and exec,
where a program with threads may not run Python."""

_CONTROL: Final = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")
_MEANINGS: Final[Mapping[int, str]] = {
    signal.SIGKILL: "the container ran out of host memory, or somebody killed it",
    signal.SIGTERM: "somebody asked it to end",
    signal.SIGINT: "somebody interrupted it",
    signal.SIGSEGV: "native code crashed: a driver, a CUDA library or a node pack's extension",
    signal.SIGABRT: "native code gave up: a failed assertion in a driver or library",
    signal.SIGBUS: "a mapped file could not be read: the volume failed, or a model file was cut short",
    signal.SIGILL: "native code was built for another processor",
}


class ComfyProcess:
    """One ComfyUI. `stop` it in a `finally`, even after it has died: only then is it reaped and its group gone."""

    def __init__(
        self, child: subprocess.Popen[bytes], guard: subprocess.Popen[bytes] | None, on_line: Callable[[str], None]
    ) -> None:
        self._child = child
        self._guard = guard
        self._on_line = on_line
        self._tail: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
        self._exit_code: int | None = None
        self._exited = threading.Event()
        self._stopping = threading.RLock()
        self._stop_asked = False
        self._wake_reader, self._wake_writer = os.pipe()
        self._watcher = threading.Thread(target=self._watch, name="comfyui-exit", daemon=True)
        self._reader = threading.Thread(target=self._read, name="comfyui-output", daemon=True)

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        on_line: Callable[[str], None] | None = None,
    ) -> Self:
        """Starts `command`. Each line of its output goes to `on_line`, in a thread of its own (the default: a log).

        Raises:
            MorpheusError: `comfyui_crashed`, when the command cannot be started at all.
        """
        try:
            child = subprocess.Popen(
                command,
                cwd=cwd,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as failure:
            what = f"ComfyUI cannot be started: {failure.filename or command[0]}: {failure.strerror}"
            raise MorpheusError(Code.COMFYUI_CRASHED, what) from failure
        process = cls(child, _start_guard(child.pid), on_line or comfyui_log.info)
        process._watcher.start()
        process._reader.start()
        return process

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def exit_code(self) -> int | None:
        """None while it lives; then its exit code, or the negative number of the signal that killed it."""
        return self._exit_code

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines of its output."""
        return tuple(self._tail)

    def wait(self, timeout_s: float | None = None) -> int | None:
        """The exit code, once it has ended and its last lines have arrived; None when it lives on after `timeout_s`."""
        if self._exited.wait(timeout_s):
            self._reader.join(DRAIN_S)
        return self._exit_code

    def describe_exit(self) -> str:
        """How it ended, for a person."""
        if self._exit_code is None:
            return "still running"
        said = describe_exit_code(self._exit_code)
        return f"stopped by the worker ({said.partition(':')[0]})" if self._stop_asked else said

    def stop(self, grace_s: float) -> None:
        """Ends it and everything in its group: SIGTERM, `grace_s` seconds, SIGKILL. Returns when it is gone.

        May be called again, from a signal handler too, and from any thread but the one that hands out lines.
        """
        with self._stopping:
            self._stop_asked |= not self._exited.is_set()
            self._signal_group(signal.SIGTERM)
            self._exited.wait(grace_s)
            self._signal_group(signal.SIGKILL)
            if not self._exited.wait(KILL_S):
                log.error(
                    "ComfyUI (pid %d) does not die of SIGKILL: it hangs in the kernel, most likely on the volume.",
                    self.pid,
                )
                return
            if not self._reaped:
                self._release()

    @property
    def _reaped(self) -> bool:
        return self._child.returncode is not None

    def _signal_group(self, number: signal.Signals) -> None:
        if not self._reaped:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, number)

    def _release(self) -> None:
        """Reaps the child, whose group is dead, and gives back threads and files."""
        self._watcher.join()
        if self._guard is not None:
            _end_guard(self._guard)
        self._child.wait()
        self._reader.join(DRAIN_S)
        os.close(self._wake_writer)
        self._reader.join(DRAIN_S)
        if self._reader.is_alive():
            log.error("The output of ComfyUI (pid %d) is left open: handing out its lines takes too long.", self.pid)
            return
        os.close(self._wake_reader)
        self._output.close()

    @property
    def _output(self) -> IO[bytes]:
        assert self._child.stdout is not None
        return self._child.stdout

    def _watch(self) -> None:
        try:
            end = os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:
            end = None
        if end is None:
            self._exit_code = UNKNOWN_EXIT
        else:
            self._exit_code = end.si_status if end.si_code == os.CLD_EXITED else -end.si_status
        self._exited.set()

    def _read(self) -> None:
        lines = LineSplitter()
        with selectors.DefaultSelector() as ready:
            ready.register(self._output, selectors.EVENT_READ)
            ready.register(self._wake_reader, selectors.EVENT_READ)
            while self._wake_reader not in {key.fileobj for key, _ in ready.select()}:
                data = os.read(self._output.fileno(), READ_BYTES)
                if not data:
                    break
                self._hand_out(lines.feed(data))
        self._hand_out(lines.end())

    def _hand_out(self, lines: Iterator[str]) -> None:
        for line in lines:
            self._tail.append(line)
            try:
                self._on_line(line)
            except Exception:
                # Whatever it was, the reading goes on: once the pipe is full, ComfyUI would stand still.
                log.exception("A line of ComfyUI's output could not be handed on.")


class LineSplitter:
    """Bytes to lines, as a terminal would show them: what a carriage return overwrote is gone (progress bars), colours
    and control characters too, blank lines are left out, and of a very long line only the beginning is kept."""

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, data: bytes) -> Iterator[str]:
        *whole, rest = data.split(b"\n")
        for piece in whole:
            self._hold(piece)
            yield from self.end()
        self._hold(rest)

    def end(self) -> Iterator[str]:
        """The line so far, as if it ended here."""
        line, self._pending = self._pending, b""
        shown = line.rstrip(b"\r").rpartition(b"\r")[2]
        text = _CONTROL.sub("", shown[:MAX_LINE_BYTES].decode(errors="replace")).rstrip()
        if text:
            yield f"{text} […]" if len(shown) > MAX_LINE_BYTES else text

    def _hold(self, piece: bytes) -> None:
        held = self._pending + piece
        overwritten = held.rstrip(b"\r").rfind(b"\r") + 1
        self._pending = held[overwritten : overwritten + MAX_LINE_BYTES + 1]


def describe_exit_code(code: int) -> str:
    """What an exit code means. Negative ones are signals; a shell reports signal n as 128 + n, containers do as well.

    >>> describe_exit_code(-9)
    'killed by SIGKILL (137): the container ran out of host memory, or somebody killed it'
    """
    number = -code if code < 0 else code - 128
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"exit code {code}"
    said = f"killed by {name} ({128 + number})"
    return f"{said}: {_MEANINGS[number]}" if number in _MEANINGS else said


def _start_guard(group: int) -> subprocess.Popen[bytes] | None:
    try:
        guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, str(group)],
            cwd="/",
            env={},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as failure:
        log.warning("ComfyUI would survive a worker that is killed: there is no shell to watch over it (%s).", failure)
        return None
    # The RunPod SDK forks a process for its heartbeat. With the pipe's end in it, too, the guard would wait for ever.
    os.register_at_fork(after_in_child=lambda: _let_go_of(guard))
    return guard


def _let_go_of(guard: subprocess.Popen[bytes]) -> None:
    if guard.stdin is not None:
        guard.stdin.close()


def _end_guard(guard: subprocess.Popen[bytes]) -> None:
    guard.kill()
    guard.wait()
    if guard.stdin is not None:
        guard.stdin.close()

"""A PostgreSQL of the tests' own, from Debian's package: its data in a folder that is gone afterwards."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

import pytest

from tests.commands import free_port

PROGRAMS: Final = Path("/usr/lib/postgresql")
USER: Final = "morpheus"
START_S: Final = 30


@dataclass(frozen=True, slots=True)
class Postgres:
    """A server on loopback that wants a password."""

    programs: Path
    data: Path
    port: int
    password: str

    @property
    def url(self) -> str:
        return self.url_with(self.password)

    def url_with(self, password: str) -> str:
        return f"postgresql://{USER}:{quote(password, safe='')}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = f"-p {self.port} -h 127.0.0.1 -k '' -c fsync=off -c shared_buffers=8MB"
        self._control("start", "-o", options, "-l", str(self.data / "log"))

    def stop(self) -> None:
        """At once, as a server that is lost: connections are cut."""
        self._control("stop", "-m", "immediate")

    def _control(self, verb: str, *more: str) -> None:
        _run([str(self.programs / "pg_ctl"), verb, "-D", str(self.data), "-w", "-t", str(START_S), *more])


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """Makes and starts one; skips the test where the package is not installed."""
    programs = _programs()
    home = Path(tempfile.mkdtemp(prefix="morpheus-postgres-"))
    try:
        server = Postgres(programs, home / "data", free_port(), secrets.token_hex(8) + "@:/%")
        (home / "password").write_text(server.password, encoding="utf-8")
        if os.geteuid() == 0:
            shutil.chown(home, "postgres")
            shutil.chown(home / "password", "postgres")
        asks_for_password = ["-U", USER, "--pwfile", str(home / "password"), "-A", "scram-sha-256"]
        plain = ["--no-sync", "-E", "UTF8", "--locale=C"]
        _run([str(programs / "initdb"), "-D", str(server.data), *asks_for_password, *plain])
        server.start()
        try:
            yield server
        finally:
            if (server.data / "postmaster.pid").exists():
                server.stop()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _programs() -> Path:
    found = sorted(PROGRAMS.glob("*/bin/initdb"))
    if not found:
        pytest.skip("PostgreSQL is not installed (Debian's package postgresql)")
    return found[-1].parent


def _run(command: list[str]) -> None:
    user = "postgres" if os.geteuid() == 0 else None
    done = subprocess.run(command, user=user, cwd="/", capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

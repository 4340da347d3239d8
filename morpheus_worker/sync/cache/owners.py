"""Who works on a part: one process, told from every other, on this machine and on others.

An owner's token says which machine, process namespace and process it is, and so anybody on the same machine can see
from a file's name alone whether its owner still lives.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

UNKNOWN_MACHINE: Final = "unknown"
UNKNOWN_NAMESPACE: Final = 0

_PROC: Final = Path("/proc")
_TOKEN: Final = re.compile(r"([0-9a-f]{12}|unknown)-(\d+)-(\d+)-(\d+)-([0-9a-f]{8})")


@dataclass(frozen=True, slots=True)
class Owner:
    """`machine` stands for one boot of one machine, `namespace` for its process namespace, `began` is when the process
    started, in the kernel's clock ticks since that boot; `mark` tells several works of one process apart."""

    machine: str
    namespace: int
    pid: int
    began: int
    mark: str

    @classmethod
    def new(cls) -> Self:
        """This process, at a new piece of work. Asked anew each time: a process may have forked."""
        pid = os.getpid()
        return cls(_machine(), _namespace(), pid, _began(pid) or 0, secrets.token_hex(4))

    @classmethod
    def of(cls, token: str) -> Self | None:
        """The owner that a token names, or None where it is none."""
        found = _TOKEN.fullmatch(token)
        if found is None:
            return None
        machine, namespace, pid, began, mark = found.groups()
        return cls(machine, int(namespace), int(pid), int(began), mark)

    def __str__(self) -> str:
        return f"{self.machine}-{self.namespace}-{self.pid}-{self.began}-{self.mark}"

    @property
    def provably_dead(self) -> bool:
        """Whether the process is certainly gone. On another machine, or in another namespace, nobody can know."""
        if self.machine == UNKNOWN_MACHINE or self.namespace == UNKNOWN_NAMESPACE:
            return False
        if (self.machine, self.namespace) != (_machine(), _namespace()):
            return False
        try:
            # Asked first: where /proc hides other users' processes, theirs look gone.
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except (PermissionError, OverflowError):
            pass
        began = _began(self.pid)
        return began is not None and (began != self.began or _is_ended(self.pid))


def provably_dead(token: str) -> bool:
    """Whether the owner that `token` names is certainly gone; False for a text that names none."""
    owner = Owner.of(token)
    return owner is not None and owner.provably_dead


def _machine() -> str:
    try:
        boot = Path(_PROC, "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return UNKNOWN_MACHINE
    # With the name: clones of one snapshot share the boot's id.
    return hashlib.sha256(f"{boot} {os.uname().nodename}".encode()).hexdigest()[:12]


def _namespace() -> int:
    try:
        return os.stat(_PROC / "self/ns/pid").st_ino
    except OSError:
        return UNKNOWN_NAMESPACE


def _stat_of(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on: a process's own name, the second, may contain anything. See
    proc(5)."""
    try:
        return Path(_PROC, str(pid), "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _began(pid: int) -> int | None:
    told = _stat_of(pid)
    return int(told[19]) if len(told) > 19 else None


def _is_ended(pid: int) -> bool:
    """A process that ended and that its parent has not asked after, as in a container without an init. Its first
    thread may end before the others, which could still write."""
    if _stat_of(pid)[:1] not in (["Z"], ["X"]):
        return False
    try:
        return len(os.listdir(_PROC / str(pid) / "task")) <= 1
    except OSError:
        return True

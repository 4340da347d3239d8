"""How fast, how thrifty and how lean `morpheus models sync` is, beside wget, curl, aria2c and `hf download`.

All of them fetch from one nginx on loopback, in turn, in the same run; nginx's files and every target lie in memory
(`/dev/shm`), so nobody waits for a disk. A time is that of the whole command, its start included; `engine` is this
project's transfer alone, called in a process that runs already, because an interpreter and its settings take 0.3 s to
start and a gigabyte on loopback less than one. nginx lets a connection's first second pass unthrottled, for everybody;
who asks for a part at a time over one connection has that for each request.

aria2c's `-x` alone leaves it at five connections (`--split`), so it also runs with `-s` at the same number.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.rig import MEMORY_FOLDER, REPOSITORY, MissingRigError, load_fact, scratch
from morpheus_worker.settings import Settings
from morpheus_worker.sync.engine import PartFile, download
from morpheus_worker.sync.hosts import Hosts
from morpheus_worker.sync.terms import Pace
from tests.commands import free_port
from tests.integration.model_server import ModelServer
from tests.integration.model_server import throttled as throttled_to
from tests.integration.sync_child import Nursery, job_of
from tests.integration.syncs import Volume, entry, safetensors

MIB: Final = 1024 * 1024
HF: Final = "MORPHEUS_TEST_HF"
PROGRAMS: Final = ("nginx", "wget", "curl", "aria2c", "sha256sum", "strace")
REPEATS: Final = 5
SLOW_BYTES_PER_S: Final = 20_000_000
CONNECTIONS: Final = 16
ENTRIES: Final = 500
KILLS: Final = 200
REPOSITORY_NAME: Final = "owner/model"
COMMIT: Final = "0123456789abcdef0123456789abcdef01234567"

SYNC: Final = (sys.executable, "-m", "morpheus_worker.cli.main", "models", "sync")
OURS: Final = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""The environment of every command: with compiled code, as after the first run of whatever is installed."""

NGINX: Final = """
worker_processes 2; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; {user}
events {{ worker_connections 512; }}
http {{
  log_format sent '$body_bytes_sent'; access_log {folder}/access.log sent;
  sendfile on; tcp_nopush on; keepalive_requests 100000; default_type application/octet-stream;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{ listen 127.0.0.1:{fast}; root {folder}/www;
    location ~ ^/owner/model/resolve/[^/]+/(.*)$ {{ add_header X-Repo-Commit {commit}; try_files /$1 =404; }} }}
  server {{ listen 127.0.0.1:{slow}; root {folder}/www; limit_rate {rate}; }}
}}
"""

ENGINE: Final = """
import sys
from pathlib import Path
from benchmarks.bench_sync import transferred
url, target, hashing = sys.argv[1:4]
print(transferred(url, Path(target), hashing == "hash"))
"""


@dataclass
class Rig:
    """An nginx with a file of each size, and what it has sent so far."""

    folder: Path
    fast: int
    slow: int
    hashes: dict[int, str] = field(default_factory=dict)

    def url(self, mib: int, *, slow: bool = False) -> str:
        return f"http://127.0.0.1:{self.slow if slow else self.fast}/{mib}.safetensors"

    def make(self, mib: int) -> None:
        """A safetensors file of that size, of random bytes."""
        if mib in self.hashes:
            return
        header, size = b"", mib * MIB
        for _ in range(3):  # The header's length depends on a number in it.
            data = size - 8 - len(header)
            tensor = {"w": {"dtype": "U8", "shape": [data], "data_offsets": [0, data]}}
            header = json.dumps(tensor).encode().ljust(128)
        content_left, digest = size - 8 - len(header), hashlib.sha256()
        with (self.folder / "www" / f"{mib}.safetensors").open("wb") as stream:
            for piece in itertools.chain([len(header).to_bytes(8, "little"), header], _random(content_left)):
                digest.update(piece)
                stream.write(piece)
        self.hashes[mib] = digest.hexdigest()

    def requests(self) -> list[int]:
        """The body's bytes of every request that has ended."""
        time.sleep(0.1)
        log = self.folder / "access.log"
        return [int(line) for line in log.read_text().split()] if log.exists() else []

    def forget(self) -> None:
        (self.folder / "access.log").write_text("")


def _random(size: int) -> Iterator[bytes]:
    block = os.urandom(16 * MIB)
    while size > 0:
        yield block[:size]
        size -= len(block)


@contextlib.contextmanager
def nginx_in(folder: Path) -> Iterator[Rig]:
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        raise MissingRigError(f"install {', '.join(missing)}")
    rig = Rig(folder, free_port(), free_port())
    (folder / "www").mkdir()
    user = "user root;" if os.geteuid() == 0 else ""
    settings = NGINX.format(
        folder=folder, fast=rig.fast, slow=rig.slow, rate=SLOW_BYTES_PER_S, commit=COMMIT, user=user
    )
    (folder / "nginx.conf").write_text(settings)
    server = subprocess.Popen(["nginx", "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")])
    try:
        _until(lambda: (folder / "nginx.pid").exists() and (folder / "nginx.pid").read_text().strip() != "")
        yield rig
    finally:
        server.terminate()
        server.wait()


def _until(is_so: Callable[[], bool], limit_s: float = 60.0) -> None:
    end_s = time.monotonic() + limit_s
    while not is_so():
        if time.monotonic() > end_s:
            raise RuntimeError("what the benchmark waits for does not happen")
        time.sleep(0.01)


# What is timed: each is a command, or several in a row, that leaves the file in a fresh folder.


@dataclass(frozen=True)
class Contender:
    name: str
    commands: Callable[[Path], Sequence[Sequence[str]]]
    environment: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[Path], object] = lambda _folder: None
    told: bool = False
    """Whether what the last command prints is the time itself."""

    def run(self, parent: Path) -> float:
        folder = parent / "out"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self.prepare(folder)
        began, said = time.perf_counter(), ""
        for command in self.commands(folder):
            environment = {**OURS, **self.environment, "HOME": str(folder)}
            done = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise RuntimeError(f"{command[0]} failed: {done.stderr[-2000:]}{done.stdout[-2000:]}")
            said = done.stdout
        return float(said) if self.told else time.perf_counter() - began


def curl(url: str, *, hashed: bool = False) -> Contender:
    then = [["sha256sum", "{}/x"]] if hashed else []
    commands = [["curl", "-sf", "-o", "{}/x", url], *then]
    return Contender("curl" + (" + sha256sum" if hashed else ""), _in_folder(commands))


def wget(url: str) -> Contender:
    return Contender("wget", _in_folder([["wget", "-q", "-O", "{}/x", url]]))


def aria2c(url: str, connections: int, *, split: bool = False, hashed: bool = False) -> Contender:
    more = [f"-s{connections}", "-k1M"] if split else []
    then = [["sha256sum", "{}/x"]] if hashed else []
    name = " ".join([f"aria2c -x{connections}", *more]) + (" + sha256sum" if hashed else "")
    return Contender(name, _in_folder([["aria2c", "-q", f"-x{connections}", *more, "-d", "{}", "-o", "x", url], *then]))


def hugging_face(rig: Rig, mib: int) -> Contender | None:
    """Hugging Face's own downloader, where the environment names its command."""
    program = os.environ.get(HF)
    if not program:
        return None
    command = [program, "download", REPOSITORY_NAME, f"{mib}.safetensors", "--local-dir", "{}", "--quiet"]
    environment = {"HF_ENDPOINT": f"http://127.0.0.1:{rig.fast}", "HF_HUB_DISABLE_XET": "1"}
    return Contender(
        "hf download + sha256sum", _in_folder([command, ["sha256sum", f"{{}}/{mib}.safetensors"]]), environment
    )


def _in_folder(commands: Sequence[Sequence[str]]) -> Callable[[Path], Sequence[Sequence[str]]]:
    return lambda folder: [[word.replace("{}", str(folder)) for word in command] for command in commands]


def morpheus(rig: Rig, mib: int, *, slow: bool = False, connections: int = 8, hashing: bool = True) -> Contender:
    command = [*SYNC, "--quiet"]
    sha256 = rig.hashes[mib] if hashing else None
    return Contender(
        "morpheus models sync" + ("" if hashing else " --no-hash"),
        lambda _folder: [command if hashing else [*command, "--no-hash"]],
        volume_environment(rig.folder / "out", connections),
        lambda folder: write_manifest(folder, [(f"{mib}.safetensors", rig.url(mib, slow=slow), sha256)]),
    )


def engine(rig: Rig, mib: int, *, hashing: bool) -> Contender:
    arguments = [rig.url(mib), "{}/x", "hash" if hashing else "none"]
    return Contender("engine alone", _in_folder([[sys.executable, "-c", ENGINE, *arguments]]), told=True)


def transferred(url: str, target: Path, hashing: bool) -> float:
    """Seconds that one transfer takes, everything imported before."""
    settings, stop = Settings.from_environment({}), threading.Event()
    with Hosts.of(settings) as hosts:
        began = time.perf_counter()
        resolved = hosts.resolve({"kind": "https", "url": url})
        with PartFile.open(target, resolved) as part:
            got = download(hosts.feed(resolved), part, pace=Pace(), hashing=hashing, stop=stop)
        took = time.perf_counter() - began
    if got.size != resolved.size or (got.sha256 is not None) != hashing:
        raise RuntimeError("the transfer is not what was asked for")
    return took


def volume_environment(folder: Path, connections: int = 8) -> dict[str, str]:
    return {
        "MORPHEUS_VOLUME_ROOT": str(folder),
        "MORPHEUS_MANIFEST": str(folder / "manifest.yaml"),
        "MORPHEUS_SYNC_CONNECTIONS": str(connections),
        "MORPHEUS_SYNC_HOST_CONNECTIONS": str(max(connections, 16)),
    }


def write_manifest(folder: Path, files: Sequence[tuple[str, str, str | None]]) -> None:
    """Of files as (name, url, SHA-256)."""
    lines = ["version: 1", "models:"]
    for name, url, sha256 in files:
        lines += [
            f"  - id: {name.removesuffix('.safetensors')}m",
            f"    path: checkpoints/{name}",
            f"    sources: [{{kind: https, url: '{url}'}}]",
            *([f"    sha256: {sha256}"] if sha256 else []),
        ]
    (folder / "manifest.yaml").write_text("\n".join(lines) + "\n")


# The measures.


def compared(contenders: Sequence[Contender | None], folder: Path, repeats: int) -> dict[str, list[float]]:
    """Seconds of each contender, all of them in turn."""
    times: dict[str, list[float]] = {}
    for _ in range(repeats):
        for contender in contenders:
            if contender is not None:
                times.setdefault(contender.name, []).append(contender.run(folder))
    return times


def table(title: str, times: Mapping[str, Sequence[float]]) -> str:
    medians = {name: statistics.median(values) for name, values in times.items()}
    ours = {name: median for name, median in medians.items() if name.startswith(("morpheus", "engine"))}
    head = ["", "median", "least", "most", *(f"{name} ÷ it" for name in ours)]
    rows = [
        [name, *(f"{value:.2f} s" for value in (median, min(times[name]), max(times[name])))]
        + [f"{own / median:.2f}" for own in ours.values()]
        for name, median in medians.items()
    ]
    return "\n".join([title, *(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))])


def throttled(rig: Rig, repeats: int) -> str:
    mib, url = 512, ""
    rig.make(mib)
    url = rig.url(mib, slow=True)
    contenders = [
        wget(url),
        aria2c(url, CONNECTIONS),
        aria2c(url, CONNECTIONS, split=True),
        morpheus(rig, mib, slow=True, connections=CONNECTIONS),
    ]
    title = f"\n512 MiB at {SLOW_BYTES_PER_S / 1e6:g} MB/s a connection, {CONNECTIONS} connections"
    return table(title, compared(contenders, rig.folder, max(2, repeats - 2)))


def unthrottled(rig: Rig, repeats: int) -> Iterator[str]:
    rig.make(1024)
    url = rig.url(1024)
    hashed = [
        curl(url, hashed=True),
        aria2c(url, 8, hashed=True),
        aria2c(url, 8, split=True, hashed=True),
        hugging_face(rig, 1024),
        morpheus(rig, 1024),
        engine(rig, 1024, hashing=True),
    ]
    yield table("\n1 GiB, with its SHA-256", compared(hashed, rig.folder, repeats))
    plain = [curl(url), aria2c(url, 8), morpheus(rig, 1024, hashing=False), engine(rig, 1024, hashing=False)]
    yield table("\n1 GiB, without", compared(plain, rig.folder, repeats))


def killed(rig: Rig, repeats: int) -> str:
    """Bytes that nginx sends for one file whose sync is killed at half, and run again."""
    mib = 256
    rig.make(mib)
    totals = []
    for _ in range(repeats):
        contender = morpheus(rig, mib, slow=True)
        folder = fresh(rig.folder / "out")
        contender.prepare(folder)
        rig.forget()
        child = subprocess.Popen(contender.commands(folder)[0], env={**OURS, **contender.environment})
        _until(lambda: sum(rig.requests()) >= mib * MIB // 2)
        child.send_signal(signal.SIGKILL)
        child.wait()
        subprocess.run(contender.commands(folder)[0], env={**OURS, **contender.environment}, check=True)
        totals.append(sum(rig.requests()))
        _whole(folder / "morpheus_model_cache" / "checkpoints" / f"{mib}.safetensors", rig.hashes[mib])
    most, allowed = max(totals), mib * MIB + 8 * 8 * MIB
    return (
        f"\nKilled at half, run again, {repeats} times, 8 connections: nginx sent {most / MIB:.1f} MiB at most "
        f"({statistics.median(totals) / MIB:.1f} in the median) for {mib} MiB; size + connections × part is "
        f"{allowed / MIB:.0f} MiB"
    )


def peak_memory(rig: Rig) -> str:
    mib = 512
    rig.make(mib)
    contender = morpheus(rig, mib, slow=True, connections=CONNECTIONS)
    folder = fresh(rig.folder / "out")
    contender.prepare(folder)
    child = subprocess.Popen(contender.commands(folder)[0], env={**OURS, **contender.environment})
    # Not getrusage: what it says of a child begins with what its parent had when it forked.
    peak_kib = 0
    while child.poll() is None:
        with contextlib.suppress(OSError, StopIteration):
            lines = Path(f"/proc/{child.pid}/status").read_text().splitlines()
            peak_kib = int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
        time.sleep(0.01)
    if child.returncode != 0:
        raise RuntimeError("the sync failed")
    return f"\nPeak memory with {CONNECTIONS} connections: {peak_kib * 1024 / 1e6:.0f} MB for the process"


def all_present(rig: Rig, repeats: int) -> str:
    folder = fresh(rig.folder / "out")
    small = rig.folder / "www" / "small"
    small.mkdir(exist_ok=True)
    for number in range(ENTRIES):
        data = number.to_bytes(4, "little")
        header = json.dumps({"w": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}).encode().ljust(64)
        (small / f"m{number}.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + data)
    base = f"http://127.0.0.1:{rig.fast}/small"
    write_manifest(
        folder, [(f"m{number}.safetensors", f"{base}/m{number}.safetensors", None) for number in range(ENTRIES)]
    )
    command = [*SYNC, "--quiet"]
    environment = {**OURS, **volume_environment(folder)}
    subprocess.run(command, env=environment, check=True)
    rig.forget()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        subprocess.run(command, env=environment, check=True)
        times.append(time.perf_counter() - began)
    trace = rig.folder / "trace"
    traced = ["strace", "-f", "-qq", "-e", "trace=file,network", "-o", str(trace), *command]
    subprocess.run(traced, env=environment, check=True)
    calls = [
        line for line in trace.read_text(errors="replace").splitlines() if "morpheus_model_cache/checkpoints/m" in line
    ]
    stats = [line for line in calls if re.search(r"\b(new)?f?statx?(at)?\(|\bstat\(|\blstat\(", line)]
    connects = [line for line in trace.read_text(errors="replace").splitlines() if "connect(" in line]
    return (
        f"\n{ENTRIES} entries all present: {len(rig.requests())} requests, {len(connects)} connections, "
        f"{len(stats)} stats and {len(calls) - len(stats)} other calls on the files; {statistics.median(times):.2f} s"
    )


def together(rig: Rig, repeats: int) -> str:
    """Four processes that sync the same manifest into one folder at once."""
    sizes = (64, 65, 66, 67)
    for mib in sizes:
        rig.make(mib)
    shares = []
    for _ in range(repeats):
        folder = fresh(rig.folder / "out")
        write_manifest(folder, [(f"{mib}.safetensors", rig.url(mib, slow=True), rig.hashes[mib]) for mib in sizes])
        rig.forget()
        command = [*SYNC, "--quiet"]
        environment = {**OURS, **volume_environment(folder)}
        running = [subprocess.Popen(command, env=environment) for _ in range(4)]
        if any(child.wait() for child in running):
            raise RuntimeError("a sync failed")
        shares.append(sum(rig.requests()) / (sum(sizes) * MIB))
    return f"\n4 processes, one folder: nginx sent {max(shares):.3f} × the files' size at most, of {repeats} runs"


def random_kills(rig: Rig, kills: int) -> str:
    """Kills a sync of three files at random moments, and looks each time at what lies at a final path."""
    contents = {f"m{number}": safetensors(size, number) for number, size in enumerate((3_000, 200_000, 600_000))}
    chance, killed, seen = random.Random(7), 0, 0
    volume = Volume(fresh(rig.folder / "out"))
    with ModelServer() as server, Nursery() as nursery:
        entries = [
            entry(name, server.file(f"/{name}", content, faults=[throttled_to(1_000_000)]), content=content)
            for name, content in contents.items()
        ]
        job = job_of(volume.root, entries, part_bytes=64 * 1024)
        for _ in range(kills):
            child = nursery.start(job)
            time.sleep(chance.uniform(0, 0.3))
            child.kill()
            killed += child.ended() < 0
            for path in volume.finals():
                if path.read_bytes() != contents[path.stem]:
                    raise RuntimeError(f"{path} is not whole")
                path.unlink()
                seen += 1
        if nursery.start(job).ended() != 0 or volume.parts() or volume.leases():
            raise RuntimeError("the run after the last kill did not bring everything to its end")
    return f"\n{kills} random kills, {killed} of them in mid-run: {seen} files at a final path, all whole"


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _whole(path: Path, sha256: str) -> None:
    with path.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != sha256:
            raise RuntimeError(f"{path} is not whole")


def facts() -> Iterator[str]:
    for command in (["nginx", "-v"], ["wget", "--version"], ["curl", "--version"], ["aria2c", "--version"]):
        said = subprocess.run(command, capture_output=True, text=True, check=False)
        yield f"{command[0]:10} {textwrap.shorten((said.stdout or said.stderr).splitlines()[0], 60)}"
    if program := os.environ.get(HF):
        said = subprocess.run([program, "version"], capture_output=True, text=True, check=False)
        yield f"hf         {' '.join(re.findall(r'[0-9][0-9.]+', said.stdout)[-1:])}"
    yield load_fact()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=REPEATS, help="runs of each (default: %(default)s)")
    parser.add_argument(
        "--only", choices=("throttled", "unthrottled", "killed", "memory", "present", "together", "kills")
    )
    asked = parser.parse_args(arguments)
    measures: dict[str, Callable[[Rig], Iterator[str] | str]] = {
        "throttled": lambda rig: throttled(rig, asked.repeats),
        "unthrottled": lambda rig: unthrottled(rig, asked.repeats),
        "killed": lambda rig: killed(rig, asked.repeats),
        "memory": peak_memory,
        "present": lambda rig: all_present(rig, asked.repeats),
        "together": lambda rig: together(rig, asked.repeats),
        "kills": lambda rig: random_kills(rig, KILLS),
    }
    try:
        with scratch(MEMORY_FOLDER) as folder, nginx_in(folder) as rig:
            subprocess.run([*SYNC, "--help"], env=OURS, check=True, stdout=subprocess.DEVNULL)
            for fact in facts():
                print(fact)
            for name, measure in measures.items():
                if asked.only in (None, name):
                    said = measure(rig)
                    for part in [said] if isinstance(said, str) else said:
                        print(part, flush=True)
            print(load_fact())
    except MissingRigError as failure:
        print(f"skipped: {failure}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Runs the benchmarks beside this file and prints their tables, under a header that says what they ran on.

    python benchmarks/run.py [NAME ...]

A name is that of a file without `bench_`; without one, all of them run.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parent


def machine_facts() -> Iterator[str]:
    """What the numbers depend on: processor, cores this process may use, memory, Python, kernel."""
    yield f"processor  {processor()}"
    yield f"cores      {len(os.sched_getaffinity(0))}"
    yield f"memory     {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"
    yield f"python     {platform.python_implementation()} {platform.python_version()}"
    yield f"kernel     {platform.system()} {platform.release()}"


def processor() -> str:
    """The model name that Linux gives, or the architecture where it gives none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def main() -> int:
    """Exit status 0 when every benchmark ran to its end, or said what it lacks; 2 when there is none of a name."""
    known = {script.stem.removeprefix("bench_"): script for script in sorted(BENCHMARKS.glob("bench_*.py"))}
    wanted = sys.argv[1:] or list(known)
    if unknown := [name for name in wanted if name not in known]:
        print(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    print(*machine_facts(), sep="\n", flush=True)
    failed = []
    for name in wanted:
        print(f"\n== {name}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{known[name].stem}"]
        if subprocess.run(command, cwd=BENCHMARKS.parent, check=False).returncode:
            failed.append(known[name].name)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

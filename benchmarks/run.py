"""Runs every benchmark beside this file and prints their tables, under a header that says what they ran on."""

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
    """Exit status 0 when every benchmark ran to its end."""
    print(*machine_facts(), sep="\n", flush=True)
    failed = []
    for script in sorted(BENCHMARKS.glob("bench_*.py")):
        print(f"\n== {script.stem.removeprefix('bench_')}", flush=True)
        if subprocess.run([sys.executable, str(script)], check=False).returncode:
            failed.append(script.name)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

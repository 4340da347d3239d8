"""The rehearsal engine in the place of ComfyUI's main.py: `python -m morpheus_worker.rehearsal --port 8188`.

It takes ComfyUI's flags for addresses and folders, and passes over those it has no use for (`--cpu`, say).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from morpheus_worker import logs
from morpheus_worker.rehearsal.engine import DEFAULT_HOST, DEFAULT_PORT, DEFAULT_STEP_S, serve
from morpheus_worker.rehearsal.faults import FaultError, Faults
from morpheus_worker.rehearsal.offer import ALL, PacksError, parse_packs

EVERYWHERE: Final = "0.0.0.0,::"
"""What ComfyUI listens on when `--listen` comes without an address."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m morpheus_worker.rehearsal", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--listen", nargs="?", const=EVERYWHERE, default=DEFAULT_HOST, metavar="IP")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT)
    for folder in ("base", "input", "output", "temp"):
        parser.add_argument(f"--{folder}-directory", type=Path)
    parser.add_argument("--disable-metadata", action="store_true")
    parser.add_argument("--step-s", type=float, default=DEFAULT_STEP_S, help="seconds that a sampler's step takes")
    parser.add_argument("--fault", action="append", default=[], metavar="NAME=VALUE", help="may be given several times")
    parser.add_argument("--packs", default=ALL, metavar="none|all|ID,...", help="node packs that it has (default: all)")
    return parser


def main(arguments: Sequence[str] | None = None, *, base_directory: Path | None = None) -> None:
    """Serves until SIGTERM or SIGINT. `base_directory` holds when the arguments name none."""
    parser = _parser()
    asked, _ = parser.parse_known_args(arguments)
    try:
        faults, packs = Faults.parse(asked.fault), parse_packs(asked.packs)
    except (FaultError, PacksError) as failure:
        parser.error(str(failure))
    logs.configure("auto", "INFO")
    serve(
        asked.listen,
        asked.port,
        asked.base_directory or base_directory,
        input_directory=asked.input_directory,
        output_directory=asked.output_directory,
        # As ComfyUI does, in a folder of its own within the one given.
        temp_directory=asked.temp_directory / "temp" if asked.temp_directory else None,
        packs=packs,
        faults=faults,
        step_s=asked.step_s,
        metadata=not asked.disable_metadata,
    )


if __name__ == "__main__":
    main()

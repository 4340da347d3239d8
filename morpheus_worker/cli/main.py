"""The command line's words: what can be asked, and which module answers."""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from morpheus_worker import __version__, entry
from morpheus_worker.cli.arguments import Commands
from morpheus_worker.cli.arguments import command as _command
from morpheus_worker.cli.models_parser import add_models
from morpheus_worker.jobs import StoreName
from morpheus_worker.settings import SettingsError

DESCRIPTION = """\
Runs ComfyUI workflows as a dependable service: on a RunPod endpoint, or here.

Settings come from the environment; 'morpheus config' lists them.
"""

EPILOG = """\
examples:
  morpheus rehearse --port 8188                       a ComfyUI that needs no GPU and no models
  MORPHEUS_VOLUME_ROOT=/tmp/volume MORPHEUS_COMFYUI_URL=http://127.0.0.1:8188 \\
      morpheus run sdxl_txt2img --param prompt="a lighthouse"
  morpheus workflows show upscale                     what it does, its params and their ranges
  morpheus gateway --root /workspace --port 8000      serves the outputs to clients

exit codes:
  0  it was done
  1  it failed: a job ended with an error, ComfyUI or the volume is not there
  2  it was asked in a way that cannot be done: wrong arguments, settings or params
  130  interrupted from the keyboard; 143: asked to end
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal may not know a letter of a title, and half a surrogate pair is valid JSON.
            stream.reconfigure(errors="backslashreplace")
    try:
        asked = _parser().parse_args(arguments)
        code = int(asked.command(asked))
    except SettingsError as failure:
        for problem in failure.problems:
            print(f"morpheus: {problem}", file=sys.stderr)
        code = entry.EXIT_USAGE
    except KeyboardInterrupt:
        print("morpheus: interrupted", file=sys.stderr)
        code = entry.EXIT_INTERRUPTED
    except BrokenPipeError:
        code = entry.EXIT_OK
    except OSError as failure:
        print(f"morpheus: {failure}", file=sys.stderr)
        code = entry.EXIT_FAILED
    except SystemExit as ended:
        code = int(ended.code or entry.EXIT_OK)
    return _flushed(code)


def _flushed(code: int) -> int:
    """`code`, unless what was printed cannot be written. A reader that has seen enough, `head` say, is no failure."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as failure:
        # Python flushes once more at its end, and would complain once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(failure, BrokenPipeError):
            print(f"morpheus: standard output cannot be written: {failure.strerror}", file=sys.stderr)
            return entry.EXIT_FAILED
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "morpheus",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_run(commands)
    _add_rehearse(commands)
    _add_gateway(commands)
    _add_workflows(commands)
    _add_check(commands)
    _add_object_info(commands)
    add_models(commands)
    _command(commands, "schema", "print the JSON Schema of jobs, results, failures and progress", _schema)
    _command(commands, "config", "print every setting, its value in force and what it means", _config)
    _command(commands, "link", "link the volume's models and node packs into ComfyUI", _link)
    _command(commands, "version", "print the version", _version)
    return parser


def _port(text: str) -> int:
    if not (text.isdecimal() and int(text) <= 65_535):
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, not '{text}'")
    return int(text)


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds")


def _add_run(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "run", "run one job and print its result as JSON", _run)
    parser.add_argument("workflow", help="name of a template, or a file with one or with a graph in API format")
    parser.add_argument(
        "--param", action="append", default=[], metavar="KEY=VALUE", help="a param; lists and objects as JSON"
    )
    parser.add_argument(
        "--image",
        action="append",
        default=[],
        metavar="KEY=FILE",
        help="a picture from a file here, for a param or a graph's input",
    )
    parser.add_argument("--id", default=None, help="the job's id, and its folder's name (default: a new one)")
    parser.add_argument("--timeout", type=float, default=None, metavar="SECONDS", help="the job's deadline")
    parser.add_argument("--outputs", choices=get_args(StoreName), default=None, help="where the outputs go")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def _add_rehearse(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "rehearse", "serve a ComfyUI that needs no GPU and no models", _rehearse)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=8188, help="port; 0 takes a free one (default: %(default)s)")
    parser.add_argument(
        "--base-directory", type=Path, default=None, help="folder of input/, output/ and models/ (default: a new one)"
    )
    parser.add_argument("--step-s", type=_seconds, default=0.005, help="seconds a sampler's step takes (%(default)s)")
    parser.add_argument(
        "--packs", default="all", metavar="none|all|ID,...", help="node packs that it offers (default: %(default)s)"
    )
    parser.add_argument(
        "--fault", action="append", default=[], metavar="NAME=VALUE", help="a fault to rehearse, see docs/rehearsal.md"
    )


def _add_gateway(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "gateway", "serve the volume's outputs over HTTP", _gateway)
    parser.add_argument("--root", type=Path, default=Path("/workspace"), help="the volume (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=8000, help="port; 0 takes a free one (default: %(default)s)")
    parser.add_argument(
        "--allow-public", action="store_true", help="listen where others reach it, though it asks nobody who they are"
    )


def _add_workflows(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("workflows", help="list, show or import workflow templates")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    listing = _command(verbs, "list", "list the workflow templates", _workflows_list)
    listing.add_argument("--models", action="store_true", help="say which of them this volume has the models for")
    listing.add_argument("--json", action="store_true", help="for machines")
    show = _command(verbs, "show", "show what a workflow does, its params and what it needs", _workflows_show)
    show.add_argument("workflow", help="name or alias")
    show.add_argument("--json-schema", action="store_true", help="the JSON Schema of its params, for machines")
    taking = _command(verbs, "import", "make a template of a graph exported from ComfyUI", _workflows_import)
    taking.add_argument("export", type=Path, metavar="EXPORT", help="a file in API format")
    taking.add_argument("--name", required=True, help="the workflow's name")
    taking.add_argument(
        "--param",
        action="append",
        default=[],
        metavar="KEY=NODE.INPUT",
        help="a param and the input it fills; without any, the usual ones are proposed",
    )
    taking.add_argument("--to", type=Path, default=None, metavar="FILE", help="default: NAME.json; - prints it")
    taking.add_argument("--force", action="store_true", help="replace the file if it is there")


def _add_check(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "check", "find what is wrong with workflows, without a GPU", _check)
    parser.add_argument(
        "workflow", nargs="*", help="name or alias of a template, or a file with one or with a graph (default: all)"
    )
    parser.add_argument(
        "--object-info", type=Path, default=None, metavar="FILE", help="what 'morpheus object-info save' wrote"
    )
    parser.add_argument("--json", action="store_true", help="for machines")


def _add_object_info(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("object-info", help="save what a running ComfyUI knows of its nodes")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    save = _command(verbs, "save", "save a running ComfyUI's object info, compactly", _object_info_save)
    save.add_argument("file", type=Path, help="the file to write; a name that ends in .gz is compressed")
    save.add_argument("--url", default=None, help="where that ComfyUI listens (default: MORPHEUS_COMFYUI_URL)")


def _run(asked: argparse.Namespace) -> int:
    from morpheus_worker.cli.run import run

    return run(asked, entry.configured())


def _rehearse(asked: argparse.Namespace) -> int:
    from morpheus_worker.cli.servers import rehearse

    return rehearse(asked, entry.configured())


def _gateway(asked: argparse.Namespace) -> int:
    from morpheus_worker.cli.servers import gateway

    return gateway(asked, entry.configured())


def _workflows_list(asked: argparse.Namespace) -> int:
    from morpheus_worker.cli.workflows import workflows_list

    return workflows_list(asked, entry.configured())


def _workflows_show(asked: argparse.Namespace) -> int:
    from morpheus_worker.cli.workflows import workflows_show

    return workflows_show(asked, entry.configured())


def _workflows_import(asked: argparse.Namespace) -> int:
    from morpheus_worker.cli.importing import workflows_import

    return workflows_import(asked, entry.configured())


def _check(asked: argparse.Namespace) -> int:
    from morpheus_worker.cli.check import check

    return check(asked, entry.configured())


def _object_info_save(asked: argparse.Namespace) -> int:
    from morpheus_worker.cli.objectinfo import save

    return save(asked, entry.configured())


def _schema(_asked: argparse.Namespace) -> int:
    from morpheus_worker.cli.show import schema

    return schema()


def _config(_asked: argparse.Namespace) -> int:
    from morpheus_worker.cli.show import config

    return config(entry.configured())


def _link(_asked: argparse.Namespace) -> int:
    from morpheus_worker.cli.show import link

    return link(entry.configured())


def _version(_asked: argparse.Namespace) -> int:
    print(__version__)
    return entry.EXIT_OK


if __name__ == "__main__":
    sys.exit(main())

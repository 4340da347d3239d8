"""Imports flow only downward, L4 to L0, and importing a module does nothing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import morpheus_worker

PACKAGE = Path(morpheus_worker.__file__).parent

LEVELS = {
    # L0 words
    "": 0, "errors": 0, "settings": 0, "jobs": 0, "logs": 0, "deadlines": 0,
    # L1 decisions
    "entry": 1, "templates": 1, "manifest": 1, "paths": 1, "addresses": 1, "contents": 1, "inline": 1,
    "importing": 1, "param_schema": 1, "sources": 1, "yaml_lines": 1,
    "comfy": 1, "comfy.messages": 1, "comfy.codec": 1, "comfy.objectinfo": 1, "comfy.check": 1, "comfy.tracker": 1,
    "comfy.history": 1, "comfy.habits": 1, "comfy.isolation": 1, "comfy.launch": 1, "comfy.faults": 1,
    "comfy.graphs": 1, "comfy.compact": 1, "comfy.folders": 1, "comfy.unreported": 1,
    "comfy.examine": 1, "comfy.wording": 1, "comfy.judging": 1,
    # L2 effects
    "comfy.http": 2, "comfy.socket": 2, "comfy.client": 2, "comfy.watch": 2, "comfy.process": 2, "comfy.files": 2,
    "comfy.recorded": 2, "comfy.saved": 2, "comfy.overheard": 2,
    "sync": 1, "sync.hosts": 2, "sync.engine": 2, "sync.cache": 2, "sync.buckets": 2, "sync.store": 2, "sync.packs": 2,
    "manifest_file": 2, "relinking": 2,
    "library": 2, "linking": 2, "volume": 2, "media": 2, "checking": 2, "fetching": 2, "pictures": 2, "durations": 2,
    "looks": 2, "publishing": 2, "s3": 2, "delivering": 2, "replaying": 2, "saving": 2, "holdings": 2, "inspecting": 2,
    # L3 stories
    "pipeline": 3, "preparing": 3, "boot": 3, "syncing": 3,
    # L4 faces
    "gateway": 4, "rehearsal": 4, "cli": 4, "runner": 4, "reporting": 4,
}  # fmt: skip


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        dotted = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        yield dotted.removesuffix("__init__").removesuffix("."), path


def level_of(module: str) -> int:
    """The level of the module, or of the nearest folder above it that has one."""
    name = module
    while name not in LEVELS:
        assert "." in name, f"morpheus_worker.{module} has no level: give it one in {Path(__file__).name}"
        name = name.rpartition(".")[0]
    return LEVELS[name]


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("morpheus_worker"):
            base = node.module.removeprefix("morpheus_worker").removeprefix(".")
            for name in node.names:
                inner = f"{base}.{name.name}" if base else name.name
                is_module = (PACKAGE / inner.replace(".", "/")).with_suffix(".py").exists()
                is_package = (PACKAGE / inner.replace(".", "/") / "__init__.py").exists()
                yield inner if is_module or is_package else base
        elif isinstance(node, ast.Import):
            for name in node.names:
                if name.name.startswith("morpheus_worker"):
                    yield name.name.removeprefix("morpheus_worker").removeprefix(".")


def test_imports_flow_downward() -> None:
    upward = [
        f"{module} (L{level_of(module)}) imports {imported} (L{level_of(imported)})"
        for module, path in modules()
        for imported in imports_of(path)
        if level_of(imported) > level_of(module)
    ]
    assert upward == []


def test_only_the_entry_points_read_the_environment() -> None:
    """Settings are handed in; `os.environ` is read once, where a process begins."""
    allowed = {"entry", "boot"}
    readers = {
        module
        for module, path in modules()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
    }
    assert readers <= allowed

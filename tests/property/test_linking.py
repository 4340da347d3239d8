"""Whatever state the volume and ComfyUI's folders are in, linking leaves them so that everything can be reached."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from morpheus_worker.comfy.launch import ComfyFolders
from morpheus_worker.linking import LinkReport, Outcome, link_all

NAMES = st.sampled_from(["loras", "vae", "custom_nodes", "Pack", "a", "b", "x.pth", "y.part", ".z", "__init__.py"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(lambda parts: "/".join(parts))
FILES = st.lists(PATHS, max_size=8)
STATES = ["file", "folder", "right", "wrong", "gone", "old volume", "theirs", "theirs, dead", "a folder of ours"]
STANDING = st.lists(st.tuples(PATHS, st.sampled_from(STATES)), max_size=6)


class World:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.sources = [root / "cache", root / "official"]
        base = root / "comfyui"
        self.folders = ComfyFolders(*(base / name for name in ("models", "custom_nodes", "input", "output", "temp")))
        self.theirs = root / "theirs"
        self.theirs.write_text("theirs", encoding="utf-8")

    def link(self) -> LinkReport:
        return link_all(self.sources, self.folders, volume_roots=[self.root / "old volume"])

    def put(self, path: Path, relative: str, state: str) -> None:
        targets = {
            "right": self.sources[0] / relative,
            "wrong": self.sources[0] / "loras/x.pth",
            "gone": self.sources[1] / "gone",
            "old volume": self.root / "old volume/gone",
            "theirs": self.theirs,
            "theirs, dead": self.root / "nothing",
            "a folder of ours": self.sources[0] / "loras",
        }
        if os.path.lexists(path) or not made(path.parent, self.root / "comfyui"):
            return
        if state == "file":
            path.write_text("own", encoding="utf-8")
        elif state == "folder":
            path.mkdir()
        else:
            path.symlink_to(targets[state])


def made(folder: Path, within: Path) -> bool:
    """Whether the folder could be made of real folders alone."""
    for step in reversed([folder, *folder.parents]):
        if step.is_relative_to(within) and (step.is_symlink() or step.is_file()):
            return False
    folder.mkdir(parents=True, exist_ok=True)
    return True


def files_below(root: Path) -> list[Path]:
    return [Path(folder) / name for folder, _, names in os.walk(root) for name in names]


def own_things(world: World) -> dict[Path, str]:
    """Real files of ComfyUI and links that are not ours, with what they hold or where they lead."""
    ours = (*map(str, world.sources), str(world.root / "old volume"))
    found = {}
    for folder, folders, names in os.walk(world.root / "comfyui"):
        for path in (Path(folder) / name for name in (*folders, *names)):
            if path.is_symlink() and not os.readlink(path).startswith(ours):
                found[path] = os.readlink(path)
            elif path.is_file() and not path.is_symlink():
                found[path] = path.read_text(encoding="utf-8")
    return found


def is_reached(world: World, file: Path, source: Path) -> bool:
    relative = file.relative_to(source)
    places = [
        world.folders.models / relative,
        world.folders.custom_nodes / relative,
        world.folders.custom_nodes / relative.relative_to(relative.parts[0]),
    ]
    return any(place.exists() and place.samefile(file) for place in places)


def is_reported(report: LinkReport, file: Path) -> bool:
    said = [link.path for link in report.of(Outcome.SKIPPED)]
    said += [link.target for link in report.of(Outcome.KEPT) if link.target is not None]
    return any(file.is_relative_to(path) for path in said)


@settings(max_examples=60, deadline=None)
@given(first=FILES, second=FILES, standing=STANDING)
def test_everything_is_reached_or_reported_and_nothing_of_others_is_touched(
    first: list[str], second: list[str], standing: list[tuple[str, str]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        for source, names in zip(world.sources, (first, second), strict=True):
            for name in names:
                path = source / name
                if not os.path.lexists(path) and made(path.parent, source):
                    path.write_text(str(path), encoding="utf-8")
        for relative, state in standing:
            world.put(world.root / "comfyui/models" / relative, relative, state)
            world.put(world.root / "comfyui/custom_nodes" / relative, relative, state)
        own, held = own_things(world), [files_below(source) for source in world.sources]

        report = world.link()

        for source in world.sources:
            for file in files_below(source):
                assert is_reached(world, file, source) or is_reported(report, file), file
        assert own.items() <= own_things(world).items()
        assert [files_below(source) for source in world.sources] == held
        assert not world.link().changed

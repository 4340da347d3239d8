from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from morpheus_worker.comfy.launch import ComfyFolders
from morpheus_worker.errors import Code, MorpheusError
from morpheus_worker.linking import LinkReport, Missing, Outcome, how_to_get, link_all, missing
from morpheus_worker.manifest import Manifest, ModelEntry, PackEntry


class Place:
    """A volume with its two sources, and a ComfyUI, in a temporary folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.volume = root / "volume"
        self.cache = self.volume / "morpheus_model_cache"
        self.official = self.volume / "models"
        comfyui = root / "comfyui"
        self.folders = ComfyFolders(
            comfyui / "models", comfyui / "custom_nodes", comfyui / "input", comfyui / "output", comfyui / "temp"
        )
        self.models = self.folders.models
        self.packs = self.folders.custom_nodes
        self.models.mkdir(parents=True)
        self.packs.mkdir()
        self.cache.mkdir(parents=True)

    def link(self, *also: ModelEntry) -> LinkReport:
        roots = [self.root / "old-volume"]
        return link_all([self.cache, self.official], self.folders, volume_roots=roots, also=also)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text or str(path), encoding="utf-8")
    return path


def symlink(path: Path, target: Path | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)
    return path


def paths(report: LinkReport, outcome: Outcome) -> list[Path]:
    return [link.path for link in report.of(outcome)]


def tree(root: Path) -> dict[str, str]:
    """Every name below, and where links lead, or what files hold."""
    return {
        str(path.relative_to(root)): os.readlink(path)
        if path.is_symlink()
        else path.read_text(encoding="utf-8")
        if path.is_file()
        else "/"
        for path in sorted(root.rglob("*"))
    }


def test_files_are_linked_one_by_one_and_folders_within_as_one(place: Place) -> None:
    single = write(place.cache / "checkpoints/a.safetensors")
    nested = write(place.cache / "ultralytics/bbox/face.pt")
    official = write(place.official / "loras/b.safetensors")
    report = place.link()
    assert os.readlink(place.models / "checkpoints/a.safetensors") == str(single)
    assert os.readlink(place.models / "ultralytics/bbox") == str(nested.parent)
    assert os.readlink(place.models / "loras/b.safetensors") == str(official)
    assert len(report.of(Outcome.LINKED)) == 3
    assert report.summary() == "3 links in place (3 new, 0 repaired), 0 of them node packs."


def test_a_second_run_writes_nothing(place: Place) -> None:
    write(place.cache / "checkpoints/a.safetensors")
    write(place.cache / "ultralytics/bbox/face.pt")
    write(place.cache / "Pack/__init__.py")
    write(place.models / "checkpoints/own.safetensors")
    place.link()
    before = {path: path.lstat().st_mtime_ns for path in [place.models, *place.models.rglob("*")]}
    report = place.link()
    assert not report.changed
    assert len(report.of(Outcome.ALREADY)) == 3
    assert before == {path: path.lstat().st_mtime_ns for path in before}


def test_the_first_source_wins(place: Place) -> None:
    first = write(place.cache / "loras/a.safetensors", "first")
    second = write(place.official / "loras/a.safetensors", "second")
    report = place.link()
    assert os.readlink(place.models / "loras/a.safetensors") == str(first)
    assert paths(report, Outcome.SKIPPED) == [second]
    assert report.of(Outcome.SKIPPED)[0].why == f"{first} comes first"


def test_a_folder_that_two_sources_have_is_merged(place: Place) -> None:
    write(place.cache / "loras/style/a.safetensors")
    write(place.official / "loras/style/b.safetensors")
    write(place.official / "loras/style/deep/c.safetensors")
    place.link()
    style = place.models / "loras/style"
    assert not style.is_symlink()
    assert sorted(path.name for path in style.iterdir()) == ["a.safetensors", "b.safetensors", "deep"]
    assert (style / "deep").is_symlink()


def test_a_folder_that_comfyui_has_is_merged(place: Place) -> None:
    own = write(place.models / "loras/style/own.safetensors")
    write(place.cache / "loras/style/a.safetensors")
    place.link()
    assert own.read_text(encoding="utf-8") == str(own)
    assert (place.models / "loras/style/a.safetensors").is_symlink()


def test_a_folder_link_makes_way_when_a_second_source_brings_the_folder_too(place: Place) -> None:
    write(place.cache / "loras/style/a.safetensors")
    place.link()
    assert (place.models / "loras/style").is_symlink()
    write(place.official / "loras/style/b.safetensors")
    report = place.link()
    assert paths(report, Outcome.REMOVED) == [place.models / "loras/style"]
    assert sorted(path.name for path in (place.models / "loras/style").iterdir()) == ["a.safetensors", "b.safetensors"]
    assert not place.link().changed


def test_node_packs_are_one_link_each(place: Place) -> None:
    marked = write(place.cache / "ComfyUI-Manager/__init__.py").parent
    write(marked / ".git/config")
    unmarked = write(place.cache / "custom_nodes/Pack/nodes.py").parent
    single = write(place.cache / "custom_nodes/single.py")
    write(place.cache / "custom_nodes/README.md")
    report = place.link()
    assert {path.name: os.readlink(path) for path in place.packs.iterdir()} == {
        "ComfyUI-Manager": str(marked),
        "Pack": str(unmarked),
        "single.py": str(single),
    }
    assert sorted(report.packs) == ["ComfyUI-Manager", "Pack", "single.py"]
    assert paths(report, Outcome.SKIPPED) == [place.cache / "custom_nodes/README.md"]
    assert list(place.models.iterdir()) == []


@pytest.mark.parametrize("spelling", ["ComfyUI-Manager", "comfyui-manager"])
def test_a_pack_that_comfyui_has_is_not_linked_again(place: Place, spelling: str) -> None:
    own = write(place.packs / spelling / "__init__.py", "own")
    write(place.cache / "ComfyUI-Manager/__init__.py")
    report = place.link()
    assert [path.name for path in place.packs.iterdir()] == [spelling]
    assert own.read_text(encoding="utf-8") == "own"
    assert paths(report, Outcome.KEPT) == [own.parent]
    assert report.packs == ()


@pytest.mark.parametrize(
    "name",
    [".hidden", ".git/config", "a.part", "a.safetensors.tmp", "a.lock", "a.safetensors.receipt.json", "__pycache__/x"],
)
def test_what_is_hidden_or_unfinished_is_skipped(place: Place, name: str) -> None:
    write(place.cache / "loras" / name)
    write(place.cache / name)
    report = place.link()
    assert list(place.models.rglob("*")) == []
    assert len(report.of(Outcome.SKIPPED)) == 2


def test_loose_files_and_dead_links_are_skipped_with_a_reason(place: Place) -> None:
    loose = write(place.cache / "resource_list.txt")
    dead = symlink(place.cache / "loras/dead.safetensors", place.root / "nowhere")
    circle = symlink(place.cache / "loras/circle", "circle")
    os.mkfifo(place.cache / "loras/pipe")
    report = place.link()
    why = {link.path: link.why for link in report.of(Outcome.SKIPPED)}
    assert why == {
        loose: "lies loose; ComfyUI reads folders",
        dead: "leads nowhere",
        circle: "leads nowhere",
        place.cache / "loras/pipe": "is neither a file nor a folder",
    }


def test_links_within_a_source_are_passed_on_and_never_entered(place: Place) -> None:
    write(place.cache / "loras/a/x.safetensors")
    symlink(place.cache / "loras/up", "..")
    symlink(place.official / "loras/up", "..")
    symlink(place.cache / "vae", write(place.volume / "elsewhere/y.safetensors").parent)
    place.link()
    assert (place.models / "loras/up").is_symlink()
    assert (place.models / "vae/y.safetensors").is_symlink()
    assert not (place.models / "vae").is_symlink()


def test_real_files_are_kept(place: Place) -> None:
    own = write(place.models / "loras/a.safetensors", "own")
    write(place.models / "vae", "a file where a folder belongs")
    wanted = write(place.cache / "loras/a.safetensors")
    lost = write(place.cache / "vae/b.safetensors")
    report = place.link()
    assert own.read_text(encoding="utf-8") == "own"
    assert {(link.path, link.target, link.why) for link in report.of(Outcome.KEPT)} == {
        (own, wanted, f"{own} is a file"),
        (place.models / "vae/b.safetensors", lost, f"{place.models / 'vae'} is a file"),
    }
    assert "2 names that ComfyUI itself has left alone" in report.summary()


def test_links_of_ours_are_repaired_and_removed(place: Place) -> None:
    right = write(place.cache / "loras/a.safetensors")
    other = write(place.cache / "loras/b.safetensors")
    wrong = symlink(place.models / "loras/a.safetensors", other)
    stale = symlink(place.models / "loras/gone.safetensors", place.cache / "loras/gone.safetensors")
    nested = symlink(place.models / "vae/deep/old.safetensors", place.root / "old-volume/cache/vae/old.safetensors")
    pack = symlink(place.packs / "Gone", place.cache / "Gone")
    whole = symlink(place.models / "checkpoints", place.cache / "checkpoints")
    inner = symlink(place.models / "loras/loras", place.cache / "loras")
    report = place.link()
    assert os.readlink(wrong) == str(right)
    assert paths(report, Outcome.REPAIRED) == [wrong]
    assert sorted(paths(report, Outcome.REMOVED)) == sorted([stale, nested, pack, whole, inner])
    assert not any(path.is_symlink() for path in (stale, nested, pack, whole, inner))
    assert not place.link().changed


def test_links_of_an_absent_volume_are_removed(place: Place) -> None:
    link = symlink(place.models / "loras/a.safetensors", place.cache / "loras/a.safetensors")
    place.cache.rmdir()
    report = place.link()
    assert not link.is_symlink()
    assert report.absent == (place.cache, place.official)
    assert f"nothing at {place.cache}, {place.official}" in report.summary()


def test_links_of_others_are_left_alone(place: Place) -> None:
    theirs = write(place.root / "theirs/a.safetensors")
    live = symlink(place.models / "loras/a.safetensors", theirs)
    dead = symlink(place.models / "loras/b.safetensors", place.root / "theirs/none")
    unwanted = symlink(place.models / "loras/c.safetensors", place.root / "theirs/none")
    folder = symlink(place.models / "vae", theirs.parent)
    for name in ("loras/a.safetensors", "loras/b.safetensors", "vae/d.safetensors"):
        write(place.cache / name)
    report = place.link()
    assert all(path.is_symlink() for path in (live, dead, unwanted, folder))
    assert sorted(paths(report, Outcome.KEPT)) == [live, dead, folder / "d.safetensors"]
    assert "not one of ours" in report.of(Outcome.KEPT)[0].why
    assert [path.name for path in theirs.parent.iterdir()] == ["a.safetensors"]


def test_a_link_that_leads_there_by_another_way_is_right(place: Place) -> None:
    wanted = write(place.cache / "loras/a.safetensors")
    alias = symlink(place.root / "workspace", place.volume)
    link = symlink(place.models / "loras/a.safetensors", alias / wanted.relative_to(place.volume))
    report = place.link()
    assert paths(report, Outcome.ALREADY) == [link]
    assert not report.changed


def test_a_source_that_is_comfyuis_own_folder_is_not_linked_into_itself(place: Place) -> None:
    """ComfyUI with its base directory on the volume reads `models` there as its own."""
    folders = ComfyFolders(place.official, place.volume / "custom_nodes", *[place.root / name for name in "iot"])
    write(place.official / "loras/own.safetensors")
    symlink(place.official / "loras/alias.safetensors", place.official / "loras/own.safetensors")
    write(place.cache / "loras/a.safetensors")
    report = link_all([place.cache, place.official], folders)
    assert sorted(path.name for path in (place.official / "loras").iterdir()) == [
        "a.safetensors", "alias.safetensors", "own.safetensors",
    ]  # fmt: skip
    assert paths(report, Outcome.SKIPPED) == [place.official]
    assert not link_all([place.cache, place.official], folders).changed


def test_folders_that_comfyui_lacks_are_made(place: Place) -> None:
    """ComfyUI 0.3.64 ends at once when its `custom_nodes` does not exist (main.py, `execute_prestartup_script`)."""
    place.models.rmdir()
    place.packs.rmdir()
    place.link()
    assert place.models.is_dir()
    assert place.packs.is_dir()


def test_the_volume_is_listed_once_a_folder_and_nothing_below_a_link(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "loras/a",
        "loras/style/b",
        "loras/style/deep/c",
        "ultralytics/bbox/d",
        "Pack/__init__.py",
        "Pack/x/y",
    ):
        write(place.cache / name)
    write(place.official / "loras/style/e")
    counted: Counter[str] = Counter()
    real_scandir = os.scandir

    def scandir(folder: Any) -> Iterator[os.DirEntry[str]]:
        counted[os.path.relpath(folder, place.volume)] += 1
        return real_scandir(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    place.link()
    assert {name: times for name, times in counted.items() if not name.startswith("..")} == {
        "morpheus_model_cache": 1,
        "morpheus_model_cache/Pack": 1,
        "morpheus_model_cache/loras": 1,
        "morpheus_model_cache/loras/style": 1,
        "morpheus_model_cache/ultralytics": 1,
        "models": 1,
        "models/loras": 1,
        "models/loras/style": 1,
    }


def test_several_boots_at_once_do_not_disturb_each_other(place: Place) -> None:
    for number in range(60):
        write(place.cache / f"loras/{number}.safetensors")
        symlink(place.models / f"loras/{number}.safetensors", place.cache / f"loras/{number + 1}.safetensors")
        symlink(place.models / f"vae/{number}.safetensors", place.cache / f"vae/{number}.safetensors")
        write(place.cache / f"unet/{number}/a")
        write(place.official / f"unet/{number}/b")
        symlink(place.models / f"unet/{number}", place.cache / f"unet/{number}")
    boots = 6
    together = threading.Barrier(boots)

    def boot() -> None:
        together.wait()
        place.link()

    with ThreadPoolExecutor(boots) as pool:
        for ended in [pool.submit(boot) for _ in range(boots)]:
            ended.result()
    settled = tree(place.models)
    assert not place.link().changed
    assert settled == tree(place.models)
    assert len(settled) == 3 + 60 + 3 * 60


def test_a_source_that_cannot_be_read_is_the_volumes_fault(place: Place) -> None:
    place.cache.rmdir()
    place.cache.write_text("a file", encoding="utf-8")
    with pytest.raises(MorpheusError) as caught:
        place.link()
    assert caught.value.code is Code.VOLUME_UNAVAILABLE
    assert caught.value.message == f"The volume cannot be read while linking: {place.cache}: Not a directory"


def test_a_comfyui_folder_that_refuses_is_not_the_volumes_fault(place: Place) -> None:
    place.packs.rmdir()
    place.packs.write_text("a file", encoding="utf-8")
    with pytest.raises(MorpheusError) as caught:
        place.link()
    assert caught.value.code is Code.INTERNAL
    assert str(place.packs) in caught.value.message


def test_a_volume_that_goes_away_meanwhile_is_an_error(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    write(place.cache / "loras/a.safetensors")
    real_scandir = os.scandir

    def scandir(folder: Any) -> Iterator[os.DirEntry[str]]:
        if Path(folder) == place.cache / "loras":
            place.volume.rename(place.root / "unmounted")
        return real_scandir(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(MorpheusError) as caught:
        place.link()
    assert caught.value.code is Code.VOLUME_UNAVAILABLE


def test_a_folder_that_another_writer_removes_meanwhile_is_just_gone(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place.cache / "loras").mkdir()
    write(place.cache / "vae/a.safetensors")
    real_scandir = os.scandir

    def scandir(folder: Any) -> Iterator[os.DirEntry[str]]:
        if Path(folder) == place.cache / "loras":
            (place.cache / "loras").rmdir()
        return real_scandir(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    assert len(place.link().of(Outcome.LINKED)) == 1


def test_missing_names_what_is_on_no_source_and_not_in_comfyui(place: Place) -> None:
    write(place.cache / "loras/cached")
    write(place.official / "loras/official")
    write(place.models / "loras/baked")
    write(place.cache / "PackA/__init__.py")
    write(place.official / "custom_nodes/PackB/__init__.py")
    write(place.packs / "PackC/__init__.py")
    names = ("cached", "official", "baked", "nowhere")
    manifest = Manifest(
        "m.yaml",
        tuple(ModelEntry(name, PurePosixPath("loras", name), ("upscale",)) for name in names),
        tuple(PackEntry(f"Pack{letter}", "https://host/p", None, ("one", "two")) for letter in "ABCD"),
    )
    sources = [place.cache, place.official]
    assert [str(thing) for thing in missing(manifest, sources, place.folders)] == [
        "model nowhere (loras/nowhere), needed by upscale",
        "pack PackD (PackD), needed by one, two",
    ]
    assert [thing.id for thing in missing(manifest, sources)] == ["baked", "nowhere", "PackC", "PackD"]
    assert missing(manifest.required_by("nothing"), sources) == []


def elsewhere(path: str, *also: str) -> ModelEntry:
    return ModelEntry("a", PurePosixPath(path), also=tuple(map(PurePosixPath, also)))


def test_a_model_is_linked_to_its_further_places(place: Place) -> None:
    file = write(place.official / "ipadapter/pulid.safetensors")
    entry = elsewhere("ipadapter/pulid.safetensors", "pulid/pulid.safetensors", "other/renamed.safetensors")
    place.link(entry)
    for name in ("ipadapter/pulid.safetensors", "pulid/pulid.safetensors", "other/renamed.safetensors"):
        assert os.readlink(place.models / name) == str(file)
    assert not place.link(entry).changed
    assert place.link().of(Outcome.REMOVED)
    assert not (place.models / "pulid/pulid.safetensors").is_symlink()


def test_a_further_place_gives_way_to_what_the_volume_and_comfyui_have_there(place: Place) -> None:
    write(place.cache / "ipadapter/pulid.safetensors")
    own = write(place.official / "pulid/pulid.safetensors")
    real = write(place.models / "other/pulid.safetensors")
    place.link(elsewhere("ipadapter/pulid.safetensors", "pulid/pulid.safetensors", "other/pulid.safetensors"))
    assert os.readlink(place.models / "pulid/pulid.safetensors") == str(own)
    assert not real.is_symlink()


def test_a_model_that_is_nowhere_has_no_further_places(place: Place) -> None:
    place.link(elsewhere("ipadapter/pulid.safetensors", "pulid/pulid.safetensors"))
    assert not (place.models / "pulid").exists()


def test_a_model_in_a_further_place_is_not_missing(place: Place) -> None:
    entry = elsewhere("ipadapter/pulid.safetensors", "pulid/pulid.safetensors")
    wanted = Manifest("m.yaml", (entry,))
    assert [absent.id for absent in missing(wanted, [place.cache])] == ["a"]
    write(place.cache / "pulid/pulid.safetensors")
    assert missing(wanted, [place.cache]) == []


def test_a_model_that_lies_in_a_further_place_is_linked_to_its_own(place: Place) -> None:
    file = write(place.cache / "pulid/pulid.safetensors")
    place.link(elsewhere("ipadapter/pulid.safetensors", "pulid/pulid.safetensors", "other/pulid.safetensors"))
    for name in ("ipadapter", "pulid", "other"):
        assert os.readlink(place.models / name / "pulid.safetensors") == str(file)


def test_a_model_deeper_in_its_folder_has_further_places_too(place: Place) -> None:
    file = write(place.cache / "insightface/models/a/p.onnx")
    place.link(elsewhere("insightface/models/a/p.onnx", "pulid/p.onnx"))
    assert os.readlink(place.models / "pulid/p.onnx") == str(file)
    assert sorted(path.name for path in place.models.iterdir()) == ["insightface", "pulid"]


# How to get what is missing


def absent(name: str, *workflows: str, has_source: bool = True) -> Missing:
    return Missing("model", name, f"loras/{name}.safetensors", workflows, has_source)


@pytest.mark.parametrize(
    ("lacking", "said"),
    [
        ([], ""),
        ([absent("a", has_source=False)], ""),
        ([absent("a", "draw"), absent("b", has_source=False)], "'morpheus models sync a' fetches it"),
        ([absent("a"), absent("b")], "'morpheus models sync a b' fetches them"),
        (
            [absent(name, "draw") for name in "abcde"],
            "'morpheus models sync' fetches them; 'morpheus models sync --workflow draw' what one workflow needs",
        ),
    ],
)
def test_what_is_missing_and_has_a_source_can_be_fetched(lacking: list[Missing], said: str) -> None:
    assert how_to_get(lacking) == said


def test_what_is_missing_says_whether_it_has_a_source(place: Place) -> None:
    source = {"kind": "https", "url": "https://host/x"}
    models = (
        ModelEntry("a", PurePosixPath("loras/a.safetensors")),
        ModelEntry("b", PurePosixPath("loras/b.safetensors"), sources=(source,)),
    )
    found = missing(Manifest("m", models, (PackEntry("Pack", "https://host/pack"),)), [place.cache])
    assert [(each.id, each.has_source) for each in found] == [("a", False), ("b", True), ("Pack", True)]

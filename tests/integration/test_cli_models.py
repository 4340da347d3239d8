"""`morpheus models` from its words to its files: a manifest, hosts on loopback, a volume in a folder."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from morpheus_worker.cli.main import main
from tests.integration.model_server import COMMIT, CivitaiFile, ModelServer, status
from tests.integration.s3_server import ACCESS_KEY, SECRET_KEY, new_bucket

KEY = "hf_" + "s3cr3t" * 6


def safetensors(count: int, seed: int = 0) -> bytes:
    """A file of the format with one tensor of so many bytes."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [count], "data_offsets": [0, count]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes((seed + at * 7) % 251 for at in range(count))


BASE, LORA, VAE = safetensors(40_000, 1), safetensors(9_000, 2), safetensors(5_000, 3)

MANIFEST = """\
# Ours.
version: 1

models:
  - id: base
    path: checkpoints/base.safetensors
    workflows: [draw]
    license: openrail++
    sources: [{kind: hf, repo: some/base, file: base.safetensors}]

  # The style.
  - id: style
    path: loras/style.safetensors
    sources: [{kind: civitai, version: 77}]
"""


@dataclass(frozen=True)
class Told:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def rows(self) -> list[list[str]]:
        return [line.split("\t") for line in self.out.splitlines()]


@dataclass(frozen=True)
class Here:
    """A volume, a manifest and hosts."""

    folder: Path
    host: ModelServer
    capsys: pytest.CaptureFixture[str]

    @property
    def cache(self) -> Path:
        return self.folder / "volume" / "morpheus_model_cache"

    @property
    def manifest(self) -> Path:
        return self.folder / "models.yaml"

    @property
    def lock(self) -> Path:
        return self.folder / "models.lock"

    def models(self, *arguments: str) -> Told:
        self.capsys.readouterr()
        code = main(["models", *arguments])
        said = self.capsys.readouterr()
        assert KEY not in said.out + said.err
        return Told(code, said.out, said.err)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Here]:
    handlers = logging.getLogger().handlers[:]
    (tmp_path / "volume").mkdir()
    (tmp_path / "models.yaml").write_text(MANIFEST, encoding="utf-8")
    with ModelServer() as host:
        host.hf("some/base", "base.safetensors", BASE)
        host.civitai(77, [CivitaiFile(5, "style.safetensors", LORA, primary=True)])
        for name, value in {
            "MORPHEUS_VOLUME_ROOT": str(tmp_path / "volume"),
            "MORPHEUS_MANIFEST": str(tmp_path / "models.yaml"),
            "MORPHEUS_SYNC_STORE": f"sqlite:///{tmp_path}/requests.db",
            "HF_ENDPOINT": host.hf_endpoint,
            "MORPHEUS_CIVITAI_URL": host.civitai_url,
        }.items():
            monkeypatch.setenv(name, value)
        yield Here(tmp_path, host, capsys)
    logging.getLogger().handlers[:] = handlers


# Filling.


def test_a_sync_fills_the_volume_and_the_next_one_asks_nobody(here: Here) -> None:
    first = here.models("sync", "--json")
    assert first.code == 0, first.err
    assert first.lines[0]["event"] == "planned"
    assert {line["id"] for line in first.lines if line["event"] == "published"} == {"base", "style"}
    assert first.lines[-1] == {**first.lines[-1], "event": "summary", "ok": True, "received": len(BASE) + len(LORA)}
    assert (here.cache / "checkpoints/base.safetensors").read_bytes() == BASE
    assert (here.cache / "loras/style.safetensors").read_bytes() == LORA
    asked = len(here.host.requests)
    assert here.models("sync").err.splitlines()[-1] == "2 there already"
    assert len(here.host.requests) == asked


def test_events_are_lines_without_being_asked_for_and_a_person_is_told_beside_them(here: Here) -> None:
    told = here.models("sync", "style")
    assert [line["event"] for line in told.lines if line["event"] in ("started", "published", "summary")] == [
        "started", "published", "summary",
    ]  # fmt: skip
    assert told.err.startswith("1 fetched (9.1 kB in ")


def test_quiet_says_nothing_of_what_went_well(here: Here) -> None:
    told = here.models("sync", "--quiet")
    assert (told.code, told.out, told.err) == (0, "", "")


def test_what_failed_stands_in_one_block_at_the_end_and_the_rest_is_there(here: Here) -> None:
    here.host.hf("some/base", "base.safetensors", BASE, token=KEY, gated=True)
    told = here.models("sync")
    assert told.code == 1
    assert "1 fetched" in told.err
    assert "1 failed" in told.err
    block = told.err[told.err.index("morpheus: 1 thing went wrong:") :].splitlines()
    assert block[1].startswith("  base: ")
    assert "HF_TOKEN" in block[1]
    assert "https://huggingface.co/some/base" in block[1]
    assert not (here.cache / "checkpoints/base.safetensors").exists()
    (failed,) = [each for each in told.lines[-1]["outcomes"] if each["action"] == "failed"]
    assert (failed["id"], failed["code"]) == ("base", "access_denied")


def test_only_what_a_workflow_needs_is_fetched(here: Here) -> None:
    assert here.models("sync", "--workflow", "draw").lines[-1]["received"] == len(BASE)
    assert not (here.cache / "loras").exists()


@pytest.mark.parametrize("verb", ["plan", "sync", "status", "verify", "adopt", "lock"])
def test_an_unknown_id_is_told_with_the_nearest_one(here: Here, verb: str) -> None:
    told = here.models(verb, "stile", "--json")
    assert told.code == 2
    assert told.err == "morpheus: no entry is called 'stile' (did you mean 'style'?)\n"
    assert (told.document["ok"], told.document["code"]) == (False, "invalid")
    assert here.host.requests == []
    several = here.models(verb, "stile", "xyz")
    assert several.err.startswith(
        "morpheus: no entry is called 'stile' (did you mean 'style'?); no entry is called 'xyz'"
    )
    assert several.err.count("lists the entries") == 1


@pytest.mark.parametrize("verb", ["sync", "verify", "adopt", "lock", "worker"])
def test_where_there_are_events_a_refusal_is_the_last_of_their_lines(here: Here, verb: str) -> None:
    here.manifest.write_text("version: 2\n", encoding="utf-8")
    for arguments in ([verb], [verb, "--json"]):
        told = here.models(*arguments)
        assert told.code == 2
        (line,) = told.lines
        assert (line["event"], line["ok"], line["code"]) == ("summary", False, "invalid")
        assert line["problems"][0]["at"] == "models.yaml:1 version"
    assert here.models(verb, "--quiet").out == ""


def test_every_problem_of_a_manifest_is_told_with_its_line(here: Here) -> None:
    here.manifest.write_text(MANIFEST.replace("loras/style", "../style") + "    sise: 7\n", encoding="utf-8")
    told = here.models("sync")
    assert told.code == 2
    assert [line.split()[1] for line in told.err.splitlines()] == ["models.yaml:13", "models.yaml:15"]


def test_without_a_volume_nothing_is_made(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MORPHEUS_VOLUME_ROOT", str(here.folder / "nowhere"))
    told = here.models("sync")
    assert told.code == 1
    assert "MORPHEUS_VOLUME_ROOT" in told.err
    assert not (here.folder / "nowhere").exists()


# Looking.


def test_a_plan_says_what_would_come_and_brings_nothing(here: Here) -> None:
    told = here.models("plan")
    assert told.code == 0
    assert [row[:4] for row in told.rows] == [
        ["base", "fetch", "40.1 kB", "checkpoints/base.safetensors"],
        ["style", "fetch", "9.1 kB", "loras/style.safetensors"],
    ]
    assert f"to {here.cache}: 2 entries to fetch, 49.1 kB; " in told.err
    assert not here.cache.exists()
    document = here.models("plan", "style", "--json").document
    assert (document["ok"], document["bytes"], len(document["actions"])) == (True, len(LORA), 1)


def test_a_file_that_is_not_what_is_wanted_is_refused_until_it_may_be_replaced(here: Here) -> None:
    here.models("lock")
    (here.cache / "loras").mkdir(parents=True)
    (here.cache / "loras/style.safetensors").write_bytes(VAE)
    plan = here.models("plan")
    assert plan.code == 1
    assert plan.rows[-1][:2] == ["style", "refused"]
    assert "--replace" in plan.err
    assert here.models("sync").code == 1
    assert (here.cache / "loras/style.safetensors").read_bytes() == VAE
    assert here.models("plan", "--replace").rows[-1][:2] == ["style", "fetch, replacing"]
    assert here.models("sync", "--replace").code == 0
    assert (here.cache / "loras/style.safetensors").read_bytes() == LORA


def test_status_tells_each_entry_and_asks_nobody(here: Here) -> None:
    here.models("sync", "base")
    asked = len(here.host.requests)
    told = here.models("status")
    assert told.rows == [
        ["base", "there", "40.1 kB", "verified", "openrail++"],
        ["style", "missing", "", "not known", ""],
    ]
    assert told.err == f"{here.cache}: 1 there; 1 missing\n"
    document = here.models("status", "--json").document
    assert [(each["id"], each["state"], each["license"]) for each in document["entries"]] == [
        ("base", "present", "openrail++"),
        ("style", "absent", None),
    ]
    assert len(here.host.requests) == asked


def test_verify_finds_what_has_changed(here: Here) -> None:
    here.models("sync")
    assert here.models("verify").code == 0
    rotten = here.cache / "checkpoints/base.safetensors"
    before = rotten.stat()
    with rotten.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\0")
    os.utime(rotten, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert here.models("verify").code == 0
    told = here.models("verify", "--full", "--json")
    assert told.code == 1
    assert {each["id"]: each["what"] for each in told.lines[-1]["findings"]} == {"base": "corrupt", "style": "ok"}
    assert "  base: " in told.err
    assert "delete it: 'morpheus models sync' then fetches it anew" in told.err
    rotten.unlink()
    assert here.models("sync").code == 0
    assert here.models("verify", "--full").code == 0


def test_a_cache_filled_by_hand_is_taken_over(here: Here) -> None:
    (here.cache / "loras").mkdir(parents=True)
    (here.cache / "loras/style.safetensors").write_bytes(LORA)
    assert here.models("status", "style").rows[0][1] == "there, not verified"
    told = here.models("adopt")
    assert told.code == 0
    assert told.err.splitlines()[0].startswith("1 file taken over (9.1 kB)")
    assert here.models("verify", "style").code == 0
    assert here.models("sync", "style", "--json").lines[-1]["received"] == 0


def test_prune_deletes_only_when_it_is_told_to(here: Here) -> None:
    here.models("sync")
    (here.cache / "loras/old.safetensors").write_bytes(VAE)
    assert here.models("prune", "--json").document["items"] == []
    told = here.models("prune", "--unlisted")
    assert told.rows[0][0] == "loras/old.safetensors"
    assert "nothing was deleted, --delete does it" in told.err
    assert (here.cache / "loras/old.safetensors").exists()
    assert here.models("prune", "--unlisted", "--delete").code == 0
    assert not (here.cache / "loras/old.safetensors").exists()
    assert here.models("verify").code == 0


def test_what_node_packs_ask_pip_for_is_listed_for_an_image(here: Here) -> None:
    packs = "custom_nodes:\n" + "".join(
        f'  - {{id: {name}, repo: "https://example.com/{name}"}}\n' for name in ("One", "Two", "Three")
    )
    here.manifest.write_text(MANIFEST + packs, encoding="utf-8")
    for name, lines in (("One", "numpy\nopencv-python  # for pictures\n"), ("Two", "Pillow>=10\nnumpy\n")):
        (here.cache / name).mkdir(parents=True)
        (here.cache / name / "requirements.txt").write_text(lines, encoding="utf-8")
    told = here.models("status", "--requirements")
    assert told.code == 1
    assert told.out == "numpy\nopencv-python\nPillow>=10\n"
    assert told.err.startswith("morpheus: Three: is not there")
    assert here.models("status", "One", "Two", "--requirements", "--json").document == {
        "ok": True,
        "requirements": ["numpy", "opencv-python", "Pillow>=10"],
        "packs": {"One": ["numpy", "opencv-python"], "Two": ["Pillow>=10", "numpy"]},
    }
    says = here.manifest.read_text(encoding="utf-8").replace(
        'example.com/Three"', 'example.com/Three", requirements: []'
    )
    here.manifest.write_text(
        says.replace('example.com/One"', 'example.com/One", requirements: [scipy]'), encoding="utf-8"
    )
    known = here.models("status", "--requirements")
    assert (known.code, known.out, known.err) == (0, "numpy\nopencv-python\nPillow>=10\nscipy\n", "")


def test_node_packs_that_somebody_put_there_are_called_so(here: Here) -> None:
    here.manifest.write_text(
        MANIFEST + 'custom_nodes: [{id: One, repo: "https://example.com/some/one"}]\n', encoding="utf-8"
    )
    (here.cache / "One").mkdir(parents=True)
    (here.cache / "One/__init__.py").write_text("", encoding="utf-8")
    assert here.models("status", "One").rows[0][:2] == ["One", "put there by hand"]
    here.models("sync", "base")
    assert here.models("status").err == f"{here.cache}: 1 there; 1 missing; 1 put there by hand\n"
    told = here.models("sync", "One")
    assert told.err == "1 node pack put there by hand, and left alone without --replace\n"
    verified = here.models("verify", "One")
    assert verified.code == 1
    assert "'morpheus models adopt' takes a clone of the wanted commit over" in verified.err


# A bucket.


def test_a_bucket_is_filled_in_place_of_the_volume(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = new_bucket()
    monkeypatch.setenv("MORPHEUS_MODELS_ENDPOINT_URL", bucket.url)
    monkeypatch.setenv("MORPHEUS_MODELS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("MORPHEUS_MODELS_SECRET_ACCESS_KEY", SECRET_KEY)
    prefix = f"s3://{bucket.name}/cache"
    assert here.models("plan", "--to", prefix).rows[0][:2] == ["base", "fetch"]
    told = here.models("sync", "--to", prefix, "--json")
    assert told.code == 0, told.err
    uris = [each["uri"] for each in told.lines[-1]["outcomes"]]
    assert uris == [f"{prefix}/checkpoints/base.safetensors", f"{prefix}/loras/style.safetensors"]
    assert bucket.read("cache/loras/style.safetensors") == LORA
    assert not here.cache.exists()
    here.manifest.write_text(
        MANIFEST + 'custom_nodes: [{id: One, repo: "https://example.com/some/one"}]\n', encoding="utf-8"
    )
    left_out = "1 node pack left out: a bucket is filled with models alone"
    assert here.models("sync", "--to", prefix).err.splitlines() == ["2 there already", left_out]
    assert here.models("plan", "--to", prefix).err.splitlines() == [f"to {prefix}: nothing to fetch", left_out]


@pytest.mark.parametrize("verb", ["plan", "sync", "worker"])
def test_a_destination_that_is_none_is_refused(here: Here, verb: str) -> None:
    told = here.models(verb, "--to", str(here.folder))
    assert told.code == 2
    assert "s3://bucket/prefix" in told.err


# The manifest and its lock.


def test_the_lock_is_written_once_and_says_what_changed(here: Here) -> None:
    told = here.models("lock")
    assert told.code == 0
    assert f"base\tnew\t\t40.1 kB, revision {COMMIT[:12]}, sha256 {hashlib.sha256(BASE).hexdigest()[:12]}" in told.err
    assert json.loads(here.lock.read_text())["models"]["style"]["source"] == {
        "kind": "civitai",
        "version": 77,
        "file": 5,
    }
    before = here.lock.stat()
    assert "nothing changed" in here.models("lock").err
    assert here.lock.stat().st_mtime_ns == before.st_mtime_ns
    newer = safetensors(50_000, 9)
    here.host.hf("some/base", "base.safetensors", newer, commit="d" * 40)
    summary = here.models("lock", "base", "--json").lines[-1]
    assert [(each["id"], each["what"]) for each in summary["changed"]] == [("base", "changed")]


def test_a_change_of_one_byte_is_to_be_seen(here: Here) -> None:
    url = here.host.file("/a.safetensors", safetensors(700_000))
    here.manifest.write_text(
        f'version: 1\nmodels: [{{id: a, path: vae/a.safetensors, sources: [{{kind: https, url: "{url}"}}]}}]\n',
        encoding="utf-8",
    )
    here.models("lock")
    here.host.file("/a.safetensors", safetensors(700_001))
    (changed,) = here.models("lock").lines[-1]["changed"]
    assert (changed["was"], changed["is"]) == (f"700,078 bytes, {url}", f"700,079 bytes, {url}")


def test_a_lock_of_nothing_is_not_written(here: Here) -> None:
    for repo in ("base", "none"):
        here.host.hf(f"some/{repo}", "base.safetensors", BASE, faults=[status(404).on("GET", "HEAD")])
    told = here.models("lock", "base")
    assert told.code == 1
    assert f"{here.lock}: nothing changed, so it was not written" in told.err
    assert not here.lock.exists()


def test_a_lock_keeps_what_could_not_be_resolved_and_says_so(here: Here) -> None:
    here.models("lock")
    before = json.loads(here.lock.read_text())
    here.host.hf("some/base", "base.safetensors", BASE, faults=[status(404).on("GET", "HEAD")])
    told = here.models("lock")
    assert told.code == 1
    assert "  base: " in told.err
    assert json.loads(here.lock.read_text()) == before


def test_add_puts_an_entry_behind_the_others_and_keeps_every_line(here: Here) -> None:
    here.host.hf("some/vae", "vae/fine.safetensors", VAE)
    told = here.models("add", "hf:some/vae/vae/fine.safetensors", "--workflow", "draw", "--json")
    assert told.code == 0, told.err
    assert told.document["entry"]["id"] == "fine"
    text = here.manifest.read_text()
    assert text.startswith(MANIFEST)
    added = yaml.safe_load(text)["models"][-1]
    source = {"kind": "hf", "repo": "some/vae", "file": "vae/fine.safetensors", "revision": COMMIT}
    assert {key: added[key] for key in added if key != "format"} == {
        "id": "fine",
        "path": "vae/fine.safetensors",
        "workflows": ["draw"],
        "sources": [source],
        "size": len(VAE),
        "sha256": hashlib.sha256(VAE).hexdigest(),
    }
    assert here.models("sync", "fine").code == 0


def test_add_makes_the_manifest_where_there_is_none(here: Here) -> None:
    target = here.folder / "new.yaml"
    told = here.models("add", "civitai:77", "--path", "loras/", "--id", "mine", "--to", str(target))
    assert told.code == 0, told.err
    assert [each["id"] for each in yaml.safe_load(target.read_text())["models"]] == ["mine"]
    assert here.manifest.read_text() == MANIFEST


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "no short form"),
        (["hf:some/base/base.safetensors", "--id", "base", "--path", "vae/"], "--id"),
        (["civitai:77", "--path", "loras/style.safetensors"], "--path"),
        (["civitai:77", "--path", "../"], "--path"),
        ([f"https://civitai.com/models/7?token={KEY}"], "the parameter 'token'"),
    ],
)
def test_what_cannot_be_added_is_told_and_changes_nothing(here: Here, arguments: list[str], said: str) -> None:
    told = here.models("add", *arguments)
    assert told.code == 2
    assert said in told.err
    assert here.manifest.read_text() == MANIFEST


def test_a_file_that_may_run_code_is_added_only_with_a_word(here: Here) -> None:
    here.host.hf("some/old", "upscale_models/big.pth", b"\x80\x02}q\x00.")
    refused = here.models("add", "hf:some/old/upscale_models/big.pth")
    assert refused.err.startswith("morpheus: hf:some/old/upscale_models/big.pth: ends in .pth, so it may run code")
    assert "--allow-pickle" in refused.err
    assert here.manifest.read_text() == MANIFEST
    assert here.models("add", "hf:some/old/upscale_models/big.pth", "--allow-pickle").code == 0
    assert yaml.safe_load(here.manifest.read_text())["models"][-1]["allow_pickle"] is True


def test_what_came_with_the_package_is_not_written_to(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    import morpheus_worker

    shipped = Path(morpheus_worker.__file__).parent / "_shipped" / "model_manifest.yaml"
    monkeypatch.setenv("MORPHEUS_MANIFEST", str(shipped))
    for arguments in (["add", "civitai:77", "--path", "loras/"], ["lock"]):
        told = here.models(*arguments)
        assert told.code == 2
        assert "MORPHEUS_MANIFEST" in told.err
    assert not shipped.exists()


OLD_LIST = f"""\
# Ours, by hand.
GIT, Some-Pack , https://github.com/some/Some-Pack.git
MODEL,checkpoints,some/base,base.safetensors
URL_AUTH,loras/style.safetensors,https://civitai.com/api/download/models/77?token={KEY}
MODEL,insightface/models,DUMMY_URL
"""


def test_an_older_list_becomes_a_manifest_without_its_keys(here: Here) -> None:
    old, target = here.folder / "old.txt", here.folder / "taken.yaml"
    old.write_text(OLD_LIST, encoding="utf-8")
    printed = here.models("import", str(old))
    assert printed.code == 0
    assert "CIVITAI_API_KEY" in printed.err
    assert [each["id"] for each in yaml.safe_load(printed.out)["models"]] == ["base", "style"]
    written = here.models("import", str(old), "--to", str(target), "--json")
    assert (written.code, written.document["models"], written.document["custom_nodes"]) == (0, 2, 1)
    assert target.read_text() == printed.out
    again = here.models("import", str(old), "--to", str(target))
    assert again.code == 2
    assert "--force" in again.err
    assert here.models("import", str(old), "--to", str(target), "--force").code == 0


def test_lines_that_are_left_out_are_told(here: Here) -> None:
    old = here.folder / "old.txt"
    old.write_text(OLD_LIST + "WHAT,is,this\n", encoding="utf-8")
    told = here.models("import", str(old))
    assert told.code == 1
    assert "old.txt:6" in told.err[told.err.index("went wrong") :]
    old.write_text("# nothing\n", encoding="utf-8")
    assert here.models("import", str(old)).code == 2
    assert here.models("import", str(here.folder / "none.txt")).code == 2


# The service.


def test_a_request_is_seen_to_by_a_worker(here: Here) -> None:
    assert here.models("request", "style").err == "style: queued\n"
    here.host.hf("some/base", "checkpoints/base.safetensors", BASE)
    source = "hf:some/base/checkpoints/base.safetensors"
    asked = here.models("request", "other", "--source", source, "--name", "My Base", "--json")
    assert asked.document["state"] == "queued"
    worked = here.models("worker", "--once", "--json")
    assert worked.code == 0, worked.err
    assert worked.lines[-1] == {
        "event": "summary", "ok": True, "synced": 2, "failed": 0, "retried": 0, "returned": 0,
    }  # fmt: skip
    rows = {each["id"]: each for each in here.models("requests", "--json").document["requests"]}
    assert {name: row["state"] for name, row in rows.items()} == {"style": "synced", "other": "synced"}
    assert rows["style"]["uri"] == str(here.cache / "loras/style.safetensors")
    assert Path(rows["other"]["uri"]).parent == here.cache / "checkpoints"
    assert Path(rows["other"]["uri"]).read_bytes() == BASE
    assert here.models("request", "style").err == f"style: synced, at {rows['style']['uri']}\n"
    assert [row[:3] for row in here.models("requests").rows] == [
        ["style", "synced", "9.1 kB"],
        ["other", "synced", "40.1 kB"],
    ]


def test_a_request_that_no_worker_could_see_to_is_refused(here: Here) -> None:
    told = here.models("request", "stile")
    assert told.code == 2
    assert told.err == "morpheus: no model of the manifest is called 'stile' (did you mean 'style'?)\n"
    assert "--source" in here.models("request", "nothing-like-it").err
    pack = here.models("request", "x", "--source", "https://github.com/some/pack")
    assert (pack.code, pack.err.startswith("morpheus: x: is a node pack (")) == (2, True)
    assert here.models("request", "x", "--source", "nonsense").code == 2
    assert here.models("request", "style", "--to", "/tmp").code == 2
    assert here.models("requests").rows == []


def test_a_worker_that_fails_a_request_ends_with_1(here: Here) -> None:
    here.models("request", "gone", "--source", "hf:some/none/none.safetensors")
    told = here.models("worker", "--once")
    assert told.code == 1
    assert "1 failed\n\nmorpheus: 1 thing went wrong:\n  gone: " in told.err
    quiet = here.models("request", "gone", "--again") and here.models("worker", "--once", "--quiet")
    assert quiet.out == ""
    assert quiet.err.startswith("\nmorpheus: 1 thing went wrong:\n  gone: "), "its log says nothing more"
    ((_, state, *_, why),) = here.models("requests").rows
    assert state == "failed"
    assert why


def test_the_password_of_a_store_is_not_told(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MORPHEUS_SYNC_STORE", f"postgresql://me:{KEY}@127.0.0.1:1/none")
    told = here.models("requests")
    assert told.code == 1
    assert "127.0.0.1" in told.err
    assert told.err.endswith("(MORPHEUS_SYNC_STORE says where it is)\n")
    monkeypatch.setenv("MORPHEUS_SYNC_STORE", "mysql://x/y")
    assert here.models("requests").err.count("the request store") == 1


# A workflow under any of its names


def templates(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """`draw`, which the manifest names, also called `creation`, and `plain`, which needs nothing."""
    nodes = {"1": {"class_type": "PreviewImage", "inputs": {}}}
    for name, about in (("draw", {"aliases": ["creation"]}), ("plain", {"aliases": ["bare"]})):
        (here.folder / "workflows").mkdir(exist_ok=True)
        (here.folder / f"workflows/{name}.json").write_text(json.dumps({"_about": about, **nodes}), encoding="utf-8")
    monkeypatch.setenv("MORPHEUS_WORKFLOWS_DIR", str(here.folder / "workflows"))


@pytest.mark.parametrize("verb", ["plan", "status", "sync", "adopt", "verify"])
def test_a_workflow_may_be_called_by_its_alias(here: Here, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    templates(here, monkeypatch)
    assert here.models("sync", "--workflow", "draw").code == 0
    told = here.models(verb, "--workflow", "creation")
    assert (told.code, "style" in told.out + told.err) == (0, False), told.err


def test_a_workflow_that_needs_nothing_selects_nothing(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    templates(here, monkeypatch)
    for name in ("plain", "bare"):
        told = here.models("sync", "--workflow", name)
        assert told.code == 0
        assert "the workflow 'plain' needs no model and no node pack of models.yaml" in told.err
    assert here.host.requests == []
    assert "base" not in here.models("status", "style", "--workflow", "plain").out
    unknown = here.models("sync", "--workflow", "drow")
    assert (unknown.code, "did you mean 'draw'?" in unknown.err) == (2, True)


def test_where_there_is_no_volume_a_pod_s_view_is_named(here: Here) -> None:
    (here.folder / "volume").rmdir()
    told = here.models("status")
    assert told.code == 1
    assert "a pod sees it as /workspace: set MORPHEUS_VOLUME_ROOT=/workspace there" in told.err

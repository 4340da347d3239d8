from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from morpheus_worker.manifest import ModelEntry, PackEntry, parse_manifest
from morpheus_worker.sync.editing import new_manifest_text
from morpheus_worker.sync.oldlist import OldList, read_old_list

COMMIT = "0123456789" * 4
CIVITAI = "https://civitai.com/api/download/models"


def read(*lines: str) -> OldList:
    return read_old_list("\n".join(lines), name="old.txt")


def model(*lines: str) -> ModelEntry:
    found = read(*lines)
    assert found.problems == ()
    (entry,) = found.models
    return entry


def problem(*lines: str) -> str:
    found = read(*lines)
    assert (found.models, found.packs) == ((), ())
    (one,) = found.problems
    return str(one)


@pytest.mark.parametrize(
    "line",
    [
        "URL_AUTH,vae/a.safetensors,https://host/a.safetensors?x=1;token=SECRET",
        "URL_AUTH,vae/a.safetensors,https://host/a.safetensors?x=1&amp;token=SECRET",
        "URL_AUTH,vae/a.safetensors,https://host/a.safetensors?TOKEN%3DSECRET",
        "URL_AUTH,vae/a.safetensors,https://host/a.safetensors,SECRET",
        "URL_AUTH,vae/a.safetensors,https://host/a.safetensors token=SECRET",
        "URL_AUTH,vae/a.safetensors,s3://me:SECRET@bucket/a.safetensors",
        "URL_AUTH,vae/a.safetensors,s3://bucket/a.safetensors?token=SECRET",
    ],
)
def test_a_key_in_an_unusual_place_is_left_out_and_said(line: str) -> None:
    found = read(line)
    assert found.remarks or found.problems
    assert "SECRET" not in f"{found!r} {found.remarks} {found.problems}"


@pytest.mark.parametrize(
    "line", ["insightface/models,DUMMY_URL", "DUMMY_URL,insightface/models", "MODEL,insightface/models,DUMMY_URL"]
)
def test_a_folder_that_is_filled_by_hand_is_named(line: str) -> None:
    found = read(line)
    assert (found.models, found.problems) == ((), ())
    assert "insightface/models has no address" in str(found.remarks[0])


def test_a_branch_s_page_on_github_is_its_repository() -> None:
    (pack,) = read("GIT,p,https://github.com/a/b/tree/main").packs
    assert pack == PackEntry("p", "https://github.com/a/b")
    assert "whole commit" in problem("GIT,p,https://github.com/a/b/tree/dev")
    assert "leads to a file" in problem("GIT,p,https://github.com/a/b/blob/main/x.py")


def test_a_whole_list_becomes_a_manifest() -> None:
    found = read(
        "\ufeff# what the workers need",
        "",
        "  GIT , ComfyUI-Manager , https://github.com/ltdrdata/ComfyUI-Manager.git  # the manager",
        f"URL_AUTH,checkpoints/x.safetensors,{CIVITAI}/131960?type=Model&format=SafeTensor&token=SECRET",
        "MODEL,ipadapter/,h94/IP-Adapter,sdxl_models/ip-adapter-plus-face_sdxl.bin",
        "URL,vae/v.safetensors,https://huggingface.co/a/b/resolve/main/v.safetensors?download=true,",
        "MODEL,insightface/models/antelopev2,DUMMY_URL",
    )
    assert found.packs == (PackEntry("ComfyUI-Manager", "https://github.com/ltdrdata/ComfyUI-Manager"),)
    bin_file = {"kind": "hf", "repo": "h94/IP-Adapter", "file": "sdxl_models/ip-adapter-plus-face_sdxl.bin"}
    assert found.models == (
        ModelEntry(
            "x",
            PurePosixPath("checkpoints/x.safetensors"),
            sources=({"kind": "civitai", "version": 131960},),
            auth_env="CIVITAI_API_KEY",
        ),
        ModelEntry(
            "ip-adapter-plus-face_sdxl",
            PurePosixPath("ipadapter/ip-adapter-plus-face_sdxl.bin"),
            sources=(bin_file,),
        ),
        ModelEntry(
            "v",
            PurePosixPath("vae/v.safetensors"),
            sources=({"kind": "hf", "repo": "a/b", "file": "v.safetensors"},),
        ),
    )
    assert found.problems == ()
    assert [remark.at for remark in found.remarks] == ["old.txt:4", "old.txt:5", "old.txt:7"]
    text = new_manifest_text(found.models, found.packs)
    manifest = parse_manifest(text, name="m.yaml")
    assert (manifest.models, manifest.custom_nodes) == (found.models, found.packs)
    assert "SECRET" not in f"{text}{found}"


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_lines_end_as_they_may(newline: str) -> None:
    text = newline.join(["# c", "GIT,p,https://github.com/a/p", "", "MODEL,vae,a/b,x.safetensors", "WHAT,x", ""])
    found = read_old_list(text, name="old.txt")
    assert [pack.repo for pack in found.packs] == ["https://github.com/a/p"]
    assert [str(entry.path) for entry in found.models] == ["vae/x.safetensors"]
    assert [one.at for one in found.problems] == ["old.txt:5"]


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("URL,loras/a.safetensors,https://h/b.safetensors", "loras/a.safetensors"),
        ("url,'loras/a.safetensors',\"https://h/b.safetensors\"", "loras/a.safetensors"),
        ("URL,loras/,https://h/b.safetensors?v=1", "loras/b.safetensors"),
        ("URL,loras,https://h/b%20c.safetensors", "loras/b c.safetensors"),
        ("URL,loras/v1.5,https://h/b.safetensors", "loras/v1.5/b.safetensors"),
        ("URL,loras/a,b.safetensors,https://h/b.safetensors", "loras/a,b.safetensors"),
        ("URL,models\\loras\\a.safetensors,https://h/b.safetensors", "loras/a.safetensors"),
        ("URL,./models/loras / a.safetensors,https://h/b.safetensors", "loras/a.safetensors"),
        ("URL,/workspace/ComfyUI/models/loras/a.safetensors,https://h/b", "loras/a.safetensors"),
        ("URL,/runpod-volume/morpheus_model_cache/loras/a.safetensors,https://h/b", "loras/a.safetensors"),
        ("MODEL,loras,a/b,sub/c.safetensors", "loras/c.safetensors"),
        ("MODEL,loras/mine.safetensors,a/b,sub/c.safetensors", "loras/mine.safetensors"),
        ("MODEL, loras / sub , https://huggingface.co/a/b , c.safetensors", "loras/sub/c.safetensors"),
    ],
)
def test_where_a_file_is_to_be(line: str, path: str) -> None:
    assert str(model(line).path) == path


def test_commas_in_an_address_are_part_of_it() -> None:
    entry = model("URL,loras/a.safetensors,https://h/x,y/a.safetensors?size=1,2")
    assert entry.sources == ({"kind": "https", "url": "https://h/x,y/a.safetensors?size=1,2"},)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("MODLE,a,b/c,d", "'MODLE' is no kind of resource (did you mean 'MODEL'?)"),
        ("URLAUTH,a,b", "did you mean 'URL_AUTH'?"),
        ("hello", "is no kind of resource (there are GIT,name,url"),
        ("URL,loras/a.safetensors", "has no address"),
        ("GIT,pack", "has no address"),
        ("GIT,../pack,https://github.com/a/p", "no name that a node pack's folder can have"),
        ("GIT,pack,https://github.com/a", "names no repository"),
        ("MODEL,loras,a/b", "does not name a folder, a repository and a file"),
        ("MODEL,loras,a/b,*", "a whole repository is a line for each of its files"),
        ("MODEL,loras,a/b,c,d", "does not name a folder, a repository and a file"),
        ("MODEL,loras,nobody,c.bin", "repo must be owner/name"),
        (f"URL_AUTH,checkpoints,{CIVITAI}/1?type=Model", "its address does not tell the file's name"),
        ("URL,a.safetensors,https://h/b", "must begin with one of ComfyUI's model folders"),
        ("URL,../a.safetensors,https://h/b", "'..' part"),
        ("URL,/etc/a.bin,https://h/b", "is absolute"),
        ("URL,loras/a.safetensors,http://h/b", "http:// address"),
        ("URL,loras/a.safetensors,https://github.com/a/b", "leads to a repository"),
        ("URL,loras/a.safetensors,https://civitai.com/models/1", "names no version"),
    ],
)
def test_lines_that_are_left_out(line: str, said: str) -> None:
    told = problem("# c", line)
    assert told.startswith("old.txt:2: ")
    assert said in told


def test_every_bad_line_is_said_and_the_good_ones_are_taken() -> None:
    found = read("WHAT,x", "MODEL,vae,a/b,x.safetensors", "URL,x")
    assert [one.at for one in found.problems] == ["old.txt:1", "old.txt:3"]
    assert len(found.models) == 1


@pytest.mark.parametrize(
    "line",
    [
        "MODEL,insightface/models/antelopev2,DUMMY_URL",
        "URL_AUTH, insightface/models/antelopev2/ ,DUMMY_URL",
        "URL,insightface/models/antelopev2,dummy_url",
        "DUMMY_URL,insightface/models/antelopev2",
        "MODEL,insightface/models/antelopev2,DUMMY_URL,DUMMY_URL",
    ],
)
def test_a_folder_filled_by_hand_is_a_remark_and_no_entry(line: str) -> None:
    found = read(line, line)
    assert (found.models, found.packs, found.problems) == ((), (), ())
    (remark,) = found.remarks
    assert remark.at == "old.txt:1"
    assert "insightface/models/antelopev2 has no address" in remark.what
    assert remark.hint is not None
    assert "fill it by hand" in remark.hint


def test_keys_are_moved_to_a_variable_and_said_once_each() -> None:
    found = read(
        f"URL_AUTH,checkpoints/a.safetensors,{CIVITAI}/1?token=SECRET",
        "URL,loras/h.safetensors,https://huggingface.co/a/b/resolve/main/h.safetensors?token=SECRET",
        f"URL,checkpoints/b.safetensors,{CIVITAI}/2?type=Model&token=SECRET",
        "URL,loras/f.safetensors,https://files.example.com/f.safetensors?v=2&api_key=SECRET",
        "URL,loras/u.safetensors,https://user:SECRET@example.org/u.safetensors",
    )
    assert found.problems == ()
    assert [entry.auth_env for entry in found.models] == [
        "CIVITAI_API_KEY", "HF_TOKEN", "CIVITAI_API_KEY", "FILES_EXAMPLE_COM_KEY", "EXAMPLE_ORG_KEY",
    ]  # fmt: skip
    assert found.models[3].sources == ({"kind": "https", "url": "https://files.example.com/f.safetensors?v=2"},)
    assert [remark.at for remark in found.remarks] == ["old.txt:1", "old.txt:2", "old.txt:4", "old.txt:5"]
    assert found.remarks[0].what == "the key in the parameter 'token' was left out, here and in line 3"
    assert all("revoke" in (remark.hint or "") for remark in found.remarks)
    assert "set HF_TOKEN to a key" in (found.remarks[1].hint or "")
    assert "SECRET" not in f"{found}{new_manifest_text(found.models)}"


@pytest.mark.parametrize("held", ["$CIVITAI_TOKEN", "${CIVITAI_TOKEN}", "{{token}}", "<TOKEN>", ""])
def test_a_place_for_a_key_is_no_key_to_revoke(held: str) -> None:
    found = read(f"URL_AUTH,checkpoints/a.safetensors,{CIVITAI}/1?token={held}")
    assert [entry.auth_env for entry in found.models] == ["CIVITAI_API_KEY"]
    assert found.remarks == ()


@pytest.mark.parametrize(
    ("line", "auth_env"),
    [
        (f"URL_AUTH,loras/a.safetensors,{CIVITAI}/1", "CIVITAI_API_KEY"),
        (f"URL,loras/a.safetensors,{CIVITAI}/1", None),
        ("URL_AUTH,loras/a.safetensors,https://huggingface.co/a/b/resolve/main/a.safetensors", "HF_TOKEN"),
        ("URL_AUTH,loras/a.safetensors,https://host/a.safetensors", None),
        ("URL,loras/a.safetensors,https://127.0.0.1/a.safetensors?token=x", "HOST_127_0_0_1_KEY"),
        (f"URL,loras/a.safetensors,https://{'b' * 40}.org/a.safetensors?token=x", f"{'B' * 20}_ORG_KEY"),
    ],
)
def test_which_variable_holds_the_key(line: str, auth_env: str | None) -> None:
    entry = model(line)
    assert entry.auth_env == auth_env
    new_manifest_text([entry])


@pytest.mark.parametrize(
    "line",
    [
        "CIVITAI_TOKEN=SECRET",
        "SECRETSECRETSECRETSECRETSECRET",
        "TOKEN,SECRET",
        "hf_SECRETSECRETSECRETSECRET,x",
        "URL,loras/hf_SECRETSECRETSECRETSECRET.bin,https://h/x",
        "URL,loras/x.bin,https://h/hf_SECRETSECRETSECRETSECRET",
        "URL,loras/x.bin,https://h/x?X-Amz-Signature=SECRET",
        "URL,loras/x.bin,https://u:SECRET#@h/x",
        "GIT,SECRETx y,https://github.com/a/b",
        "GIT,pack,https://github.com/a/b,SECRET",
        "GIT,pack,https://SECRET@github.com/a/b",
        "MODEL,loras,a/b,c.bin,SECRET",
        "MODEL,loras,SECRET,c.bin",
        "DUMMY_URL,SECRETSECRETSECRETSECRETSECRET",
    ],
)
def test_no_key_is_repeated_from_wherever_it_stands(line: str) -> None:
    found = read(line)
    assert "SECRET" not in str(found)
    assert found.problems or found.remarks


def test_the_key_of_a_line_that_is_left_out_is_to_be_revoked_as_well() -> None:
    found = read("URL,loras/a.safetensors,https://civitai.com/models/1?token=SECRET")
    assert [remark.what for remark in found.remarks] == ["the key in the parameter 'token' was left out"]
    assert len(found.problems) == 1


def test_a_pack_may_have_a_commit_a_key_or_a_branch() -> None:
    found = read(
        f"GIT,custom_nodes/A,git@github.com:a/pack.git,{COMMIT}",
        "GIT,B,https://user:SECRET@github.com/b/pack",
        "GIT,C,http://github.com/c/pack,dev",
        "GIT,https://github.com/d/ComfyUI-D",
    )
    assert found.problems == ()
    assert found.packs == (
        PackEntry("A", "https://github.com/a/pack", COMMIT),
        PackEntry("B", "https://github.com/b/pack"),
        PackEntry("C", "https://github.com/c/pack"),
        PackEntry("ComfyUI-D", "https://github.com/d/ComfyUI-D"),
    )
    assert [remark.at for remark in found.remarks] == ["old.txt:2", "old.txt:3"]


def test_repeated_lines_are_one_entry() -> None:
    line = "MODEL,vae,a/b,x.safetensors"
    found = read(line, "GIT,P,https://github.com/a/p", line, "GIT,P,https://github.com/a/p.git")
    assert (len(found.models), len(found.packs), found.problems) == (1, 1, ())
    assert [str(remark) for remark in found.remarks] == ["old.txt:3: repeats line 1", "old.txt:4: repeats line 2"]


def test_one_place_for_two_things_is_left_to_a_person() -> None:
    found = read(
        "MODEL,vae,a/b,x.safetensors",
        "MODEL,vae,c/d,X.safetensors",
        "GIT,Pack,https://github.com/a/p",
        "GIT,pack,https://github.com/b/p",
    )
    assert [entry.sources[0]["repo"] for entry in found.models] == ["a/b"]
    assert [str(one) for one in found.problems] == [
        "old.txt:2: has the path of line 1, from another place (keep one of the two)",
        "old.txt:4: has the folder of line 3, from another place (keep one of the two)",
    ]


def test_ids_are_unique_and_stay_when_a_list_grows() -> None:
    lines = [
        "MODEL,vae,a/b,x.safetensors",
        "MODEL,loras,a/b,x.safetensors",
        "MODEL,loras/sub,a/b,x.bin",
        "MODEL,loras/sub,a/b,x.safetensors",
        "MODEL,unet/sub,a/b,x.safetensors",
        "MODEL,controlnet/instantid,a/b,diffusion_pytorch_model.safetensors",
        "MODEL,vae,a/b,Über Modell (1).safetensors",
    ]
    ids = [entry.id for entry in read(*lines).models]
    assert ids == [
        "x", "loras-x", "sub-x", "loras-sub-x", "unet-sub-x", "instantid-diffusion_pytorch_model", "ber-modell-1",
    ]  # fmt: skip
    for length in range(len(lines)):
        assert [entry.id for entry in read(*lines[:length]).models] == ids[:length]


def test_what_may_run_code_is_said_and_not_allowed() -> None:
    found = read("MODEL,vae,a/b,x.pt")
    assert not found.models[0].allow_pickle
    assert "vae/x.pt may run code" in found.remarks[0].what
    assert "allow_pickle: true" in (found.remarks[0].hint or "")


@pytest.mark.parametrize(("query", "said"), [("type=VAE", True), ("type=Model&fp=fp16", True), ("type=Model", False)])
def test_a_file_of_several_on_civitai_is_said(query: str, said: bool) -> None:
    found = read(f"URL,vae/x.safetensors,{CIVITAI}/1?{query}")
    assert bool(found.remarks) is said


def test_nothing_comes_to_nothing() -> None:
    assert read_old_list("", name="old.txt") == OldList()


@pytest.mark.parametrize("turned", [False, True])
def test_a_pack_and_a_model_of_one_name_get_ids_of_their_own(turned: bool) -> None:
    lines = ["GIT,loader,https://github.com/o/loader", "URL,loras/loader.safetensors,https://x.org/loader.safetensors"]
    found = read(*(lines[::-1] if turned else lines))
    assert [pack.id for pack in found.packs] == ["loader"]
    assert [entry.id for entry in found.models] == ["loras-loader"]


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("name", ["loras", "custom_nodes"])
def test_a_pack_called_as_a_folder_of_models_is_left_out_and_told(name: str, turned: bool) -> None:
    lines = [f"GIT,{name},https://github.com/o/pack", "URL,loras/a.safetensors,https://x.org/a.safetensors"]
    found = read(*(lines[::-1] if turned else lines))
    assert found.packs == ()
    (told,) = found.problems
    assert "names a pack as a folder of models" in str(told)
    assert parse_manifest(new_manifest_text(found.models, found.packs), name="m.yaml").models

"""A job's media from here: what is taken, what is refused, and that nothing of them stays."""

from __future__ import annotations

import base64
import dataclasses
import io
import os
import urllib.parse
from pathlib import Path

import pytest
from PIL import Image

from morpheus_worker.addresses import PrivateHosts
from morpheus_worker.comfy.files import LocalFiles
from morpheus_worker.comfy.launch import ComfyFolders
from morpheus_worker.deadlines import Allowance
from morpheus_worker.errors import Code, MorpheusError
from morpheus_worker.media import InputKind, Limits, Sources, Stage, Wanted, staged
from morpheus_worker.rehearsal.clip import mp4

LIMITS = Limits(max_bytes=1_000_000, max_pixels=1_000_000)


def picture(kind: str = "png", size: tuple[int, int] = (8, 6)) -> bytes:
    raw = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(raw, kind)
    return raw.getvalue()


PNG = picture()
CLIP = mp4([Image.new("RGB", (16, 16))], 8)


class Desk:
    """A volume with some media on it, and a ComfyUI's folders."""

    def __init__(self, path: Path) -> None:
        self.volume, self.comfy = path / "volume", path / "comfy"
        for name in ComfyFolders.__slots__:
            (self.comfy / name).mkdir(parents=True)
        self.input = self.comfy / "input"
        self.files = LocalFiles(ComfyFolders(**{name: self.comfy / name for name in ComfyFolders.__slots__}))
        self.put("job_outputs/7/face.png", PNG)
        self.put("job_outputs/7/clip.mp4", CLIP)
        self.put("faces/a.png", PNG)
        self.put("faces/b.png", PNG)
        self.outside = path / "secret.png"
        self.outside.write_bytes(PNG)

    def put(self, name: str, content: bytes) -> Path:
        path = self.volume / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def stage(self, token: str = "tok", limits: Limits = LIMITS) -> Stage:
        return Stage(token, self.files, self.volume, limits, Sources(PrivateHosts(), 5.0), Allowance.of(60.0))

    def bring(self, value: object, kind: InputKind = "image", *, limits: Limits = LIMITS, name: str = "") -> bytes:
        """What a loader node reads for the value."""
        with staged(self.stage(limits=limits)) as stage:
            [placed] = stage.bring([Wanted("params.image", kind, value, name)])
            return (self.input / placed).read_bytes()

    def refusal(self, value: object, kind: InputKind = "image", *, limits: Limits = LIMITS) -> MorpheusError:
        with pytest.raises(MorpheusError) as refused:
            self.bring(value, kind, limits=limits)
        assert not list(self.input.iterdir())
        assert [problem.at for problem in refused.value.problems] == ["params.image"]
        assert len(refused.value.message) < 500
        return refused.value


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def uri(data: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


# --- from the volume


@pytest.mark.parametrize(
    "view", ["/runpod-volume/", "runpod-volume/", "/workspace/", "workspace/", "", "/", "VOLUME/", " /workspace/"]
)
def test_a_path_in_every_form(desk: Desk, view: str) -> None:
    value = f"{view}job_outputs/7/face.png".replace("VOLUME", str(desk.volume))
    assert desk.bring(value) == PNG


def test_a_file_of_any_kind(desk: Desk) -> None:
    assert desk.bring("/workspace/job_outputs/7/clip.mp4", "video") == CLIP
    assert desk.bring("/workspace/job_outputs/7/clip.mp4", "file") == CLIP


def test_a_folder(desk: Desk) -> None:
    with staged(desk.stage()) as stage:
        [placed] = stage.bring([Wanted("params.faces", "dir", "/workspace/faces")])
        assert sorted(os.listdir(desk.input / placed)) == ["a.png", "b.png"]
    assert not list(desk.input.iterdir())
    assert sorted(os.listdir(desk.volume / "faces")) == ["a.png", "b.png"]


def test_a_link_that_stays_on_the_volume(desk: Desk) -> None:
    (desk.volume / "latest.png").symlink_to(desk.volume / "faces" / "a.png")
    (desk.volume / "all").symlink_to("faces")
    assert desk.bring("latest.png") == PNG
    assert desk.bring("all/b.png") == PNG


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("/etc/passwd", "outside the volume"),
        ("../secret.png", "'..'"),
        ("/runpod-volume/../secret.png", "'..'"),
        ("~/secret.png", "home folder"),
        ("link.png", "leads out of the volume"),
        ("folder/secret.png", "leads out of the volume"),
        ("circle", "circle"),
        ("x\x00.png", "control character"),
        ("x\ud83d.png", "surrogate"),
        ("x\\y.png", "backslash"),
        ("x" * 300, "255 bytes"),
    ],
)
def test_a_path_that_leads_elsewhere_is_rejected(desk: Desk, value: str, what: str) -> None:
    (desk.volume / "link.png").symlink_to(desk.outside)
    (desk.volume / "folder").symlink_to(desk.outside.parent)
    (desk.volume / "circle").symlink_to("circle")
    failure = desk.refusal(value)
    assert failure.code == Code.INPUT_REJECTED
    assert what in failure.message


@pytest.mark.parametrize(
    ("value", "kind", "what"),
    [
        ("gone.png", "image", "no file 'gone.png'"),
        ("/workspace/gone/x.png", "image", "no file"),
        ("faces", "image", "no file"),
        ("faces/a.png/x.png", "image", "no file"),
        ("faces/a.png", "dir", "no folder"),
        ("gone", "dir", "no folder"),
        ("pipe", "file", "no file"),
        ("dangling", "file", "no file"),
    ],
)
def test_what_is_not_there_is_unreachable(desk: Desk, value: str, kind: InputKind, what: str) -> None:
    os.mkfifo(desk.volume / "pipe")
    (desk.volume / "dangling").symlink_to("nowhere")
    failure = desk.refusal(value, kind)
    assert failure.code == Code.INPUT_UNREACHABLE
    assert what in failure.message


def test_a_volume_that_is_not_there(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.volume = tmp_path / "unmounted"
    assert desk.refusal("x.png").code in (Code.INPUT_UNREACHABLE, Code.VOLUME_UNAVAILABLE)


# --- inline


@pytest.mark.parametrize(
    "value",
    [
        uri(PNG),
        uri(PNG, ""),
        uri(PNG, "image/png;name=x.png"),
        uri(PNG).replace("data:", "DATA:").replace(";base64", ";BASE64"),
        uri(PNG).rstrip("="),
        f"  {uri(PNG)}\n",
        "data:image/png;base64,\n" + base64.encodebytes(PNG).decode(),
        "data:image/png;base64," + base64.encodebytes(PNG).decode().replace("\n", "\r\n "),
        "data:image/png;base64," + urllib.parse.quote(base64.b64encode(PNG).decode(), safe=""),
        "data:image/png," + urllib.parse.quote_from_bytes(PNG),
        "data:," + urllib.parse.quote_from_bytes(PNG, safe=""),
        "data:application/octet-stream;charset=x," + urllib.parse.quote_from_bytes(PNG),
    ],
    ids=range(12),
)
def test_a_data_uri_in_every_form(desk: Desk, value: str) -> None:
    assert desk.bring(value) == PNG


def test_a_data_uri_of_another_kind(desk: Desk) -> None:
    assert desk.bring("data:text/plain,caf%C3%A9%20%26%2B+", "file") == "café &++".encode()
    assert desk.bring(uri(CLIP, "video/mp4"), "video") == CLIP


def test_inline_data_gets_a_name_that_says_what_it_is(desk: Desk) -> None:
    wanted = [
        Wanted("a", "image", uri(PNG)),
        Wanted("b", "image", uri(picture("jpeg"), "image/jpeg")),
        Wanted("c", "video", uri(CLIP, "application/octet-stream")),
        Wanted("d", "image", uri(PNG), "face.png"),
    ]
    with staged(desk.stage()) as stage:
        suffixes = [Path(value).suffix for value in stage.bring(wanted)]
    assert suffixes == [".png", ".jpg", ".mp4", ".png"]


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("data:image/png;base64,", "is empty"),
        ("data:,", "is empty"),
        ("data:image/png;base64,QUJD!", "not valid base64"),
        ("data:image/png;base64,Q", "not valid base64"),
        ("data:image/png;base64,äöü", "not valid base64"),
        ("data:image/png;base64,\ud83d", "not valid base64"),
        ("data:image/png;base64,QUJD", "is plain text, not a picture (it begins with b'ABC')"),
        ("data:image/png,ABC", "not a picture"),
        ("data:image/png;base64", "no file"),
    ],
)
def test_inline_data_that_is_broken(desk: Desk, value: str, what: str) -> None:
    failure = desk.refusal(value)
    assert failure.code in (Code.INPUT_REJECTED, Code.INPUT_UNREACHABLE)
    assert what in failure.message


def test_a_folder_cannot_come_inline(desk: Desk) -> None:
    assert "folder on the volume" in desk.refusal(uri(PNG), "dir").message


@pytest.mark.parametrize("value", ["ftp://me:geheim@host/x.png", "file:///etc/passwd", "GS://b/x.png", "blob+x://y"])
def test_a_url_of_another_scheme_says_what_is_taken(desk: Desk, value: str) -> None:
    failure = desk.refusal(value)
    assert failure.code == Code.INPUT_REJECTED
    assert f"begins with {value.partition(':')[0].lower()}://, which is not fetched" in failure.message
    assert "http, https or s3" in failure.message
    assert "geheim" not in failure.message


@pytest.mark.parametrize("value", ["https://example.com/faces", "s3://bucket/faces", uri(PNG)], ids=range(3))
def test_a_folder_is_on_the_volume(desk: Desk, value: str) -> None:
    assert "must be a folder on the volume" in desk.refusal(value, "dir").message


def test_a_worker_without_a_store_says_so(desk: Desk) -> None:
    failure = desk.refusal("s3://bucket/x.png")
    assert (failure.code, failure.retryable) == (Code.INPUT_REJECTED, False)
    assert "BUCKET_ENDPOINT_URL" in failure.message


# --- base64 without a prefix


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "gif", "bmp", "tiff"])
@pytest.mark.parametrize("form", ["plain", "unpadded", "in lines"])
def test_base64_alone(desk: Desk, kind: str, form: str) -> None:
    content = picture(kind)
    text = (base64.encodebytes if form == "in lines" else base64.b64encode)(content).decode()
    assert desk.bring(text.rstrip("=") if form == "unpadded" else text) == content


def test_base64_longer_than_any_path(desk: Desk) -> None:
    content = PNG + os.urandom(200_000)
    assert desk.bring(base64.b64encode(content).decode()) == content
    assert desk.bring(base64.b64encode(b"\x80\x02" + bytes(9000)).decode(), "file") == b"\x80\x02" + bytes(9000)


def test_base64_of_a_video(desk: Desk) -> None:
    assert desk.bring(base64.b64encode(CLIP[:300]).decode(), "video") == CLIP[:300]


def test_a_jpeg_in_base64_begins_as_a_path_would(desk: Desk) -> None:
    text = base64.b64encode(picture("jpeg")).decode()
    assert text.startswith("/9j/")
    assert desk.bring(text) == picture("jpeg")


def test_a_file_on_the_volume_comes_before_base64(desk: Desk) -> None:
    text = base64.b64encode(PNG).decode().replace("/", "A")
    desk.put(text, picture("jpeg"))
    assert len(text) < 255
    assert desk.bring(text) == picture("jpeg")


@pytest.mark.parametrize("kind", ["image", "video", "file"])
def test_what_is_neither_a_path_nor_base64_is_told_as_both(desk: Desk, kind: InputKind) -> None:
    for value in ("QUJD", "x" * 200, base64.b64encode(b"just some text, and nothing but text" * 3).decode()):
        failure = desk.refusal(value, kind)
        assert failure.code == Code.INPUT_UNREACHABLE
        assert "there is no file" in failure.message
        assert "in base64" in failure.message
        assert "a data URI" in failure.message


def test_base64_of_another_kind_is_no_base64_of_this_one(desk: Desk) -> None:
    failure = desk.refusal(base64.b64encode(PNG).decode(), "video")
    assert "nor is the text a video in base64" in failure.message


@pytest.mark.parametrize("text", ["A" * 4097 + "!", "A" * 5001, "é" * 5000], ids=range(3))
def test_a_text_too_long_for_a_path_is_base64_or_nothing(desk: Desk, text: str) -> None:
    failure = desk.refusal(text)
    assert failure.code == Code.INPUT_REJECTED
    assert "is not valid base64" in failure.message


def test_a_path_that_may_be_half_a_url_is_told_without_its_signature(desk: Desk) -> None:
    for value in ("example.com/x.png?X-Amz-Signature=geheim", "example.com/x.png?geheim=" + "x" * 300):
        failure = desk.refusal(value)
        assert "geheim" not in failure.message
        assert "an http, https or s3 URL" in failure.message


@pytest.mark.parametrize(
    "prefix", ["", "data:image/png;base64,", "data:image/png,", "image/png;base64,", "data:;base64,"]
)
@pytest.mark.parametrize("content", [PNG, PNG + bytes(9000)], ids=["short", "long"])
def test_a_graphs_picture_has_any_prefix_or_none(desk: Desk, prefix: str, content: bytes) -> None:
    """What clients of the official worker send: it drops whatever comes before the first comma."""
    wanted = Wanted("images", "image", prefix + base64.b64encode(content).decode(), "in.png", inline=True)
    with staged(desk.stage()) as stage:
        [placed] = stage.bring([wanted])
        assert (desk.input / placed).read_bytes() == content


def test_a_graphs_picture_is_never_a_path(desk: Desk) -> None:
    wanted = Wanted("images", "image", "job_outputs/7/face.png", "in.png", inline=True)
    with pytest.raises(MorpheusError, match="is not valid base64"), staged(desk.stage()) as stage:
        stage.bring([wanted])


@pytest.mark.parametrize("value", [None, 7, True, ["x.png"], {"path": "x.png"}, "", "   "])
def test_what_is_no_text_is_rejected(desk: Desk, value: object) -> None:
    assert desk.refusal(value).code == Code.INPUT_REJECTED


# --- what is in it


@pytest.mark.parametrize("content", [b"text", b"%PDF-1.7", PNG[:20], CLIP], ids=range(4))
def test_what_is_not_what_is_wanted_is_rejected_however_it_comes(desk: Desk, content: bytes) -> None:
    desk.put("x.png", content)
    for value in ("x.png", uri(content)):
        failure = desk.refusal(value)
        assert failure.code == Code.INPUT_REJECTED
        assert "picture" in failure.message


def test_an_empty_file_is_rejected_however_it_comes(desk: Desk) -> None:
    desk.put("x", b"")
    for kind in ("image", "file"):
        for value in ("x", "data:,"):
            assert "is empty" in desk.refusal(value, kind).message


def test_a_name_says_what_is_in_it(desk: Desk) -> None:
    desk.put("download.php", picture("jpeg"))
    desk.put("wrong.png", picture("jpeg"))
    desk.put("none", CLIP)
    desk.put("model.ckpt", b"PK\3\4")
    wanted = [
        Wanted("a", "image", "download.php"),
        Wanted("b", "image", "wrong.png"),
        Wanted("c", "video", "none"),
        Wanted("d", "file", "model.ckpt"),
        Wanted("e", "image", uri(picture("jpeg")), "face.png"),
        Wanted("f", "file", "data:text/csv,a;b"),
    ]
    with staged(desk.stage()) as stage:
        names = [value.removeprefix(f"tok-{number}-") for number, value in enumerate(stage.bring(wanted))]
    assert names == ["download.jpg", "wrong.jpg", "none.mp4", "model.ckpt", "face.jpg", "inline.csv"]


# --- size


@pytest.mark.parametrize("kind", ["image", "file"])
def test_a_file_larger_than_the_limit_is_rejected(desk: Desk, kind: InputKind) -> None:
    desk.put("x.png", PNG)
    limits = Limits(len(PNG) - 1, 10**6)
    for value in ("x.png", uri(PNG), "data:," + urllib.parse.quote_from_bytes(PNG)):
        failure = desk.refusal(value, kind, limits=limits)
        assert failure.code == Code.INPUT_REJECTED
        assert f"more than the {len(PNG) - 1} allowed" in failure.message
    assert desk.bring("x.png", kind, limits=Limits(len(PNG), 10**6)) == PNG
    assert desk.bring(uri(PNG), kind, limits=Limits(len(PNG), 10**6)) == PNG


def test_a_folder_has_no_size_of_its_own(desk: Desk) -> None:
    with staged(desk.stage(limits=Limits(10, 10))) as stage:
        stage.bring([Wanted("params.faces", "dir", "faces")])


# --- all at once, and gone afterwards


def test_every_problem_is_named_at_once(desk: Desk) -> None:
    wanted = [
        Wanted("params.image", "image", "gone.png"),
        Wanted("params.face", "image", "faces/a.png"),
        Wanted("params.mask", "image", "data:image/png;base64,!"),
        Wanted("params.clip", "video", "/etc/passwd"),
        Wanted("params.pose", "image", None),
    ]
    with pytest.raises(MorpheusError) as refused, staged(desk.stage()) as stage:
        stage.bring(wanted)
    assert [problem.at for problem in refused.value.problems] == [
        "params.image",
        "params.mask",
        "params.clip",
        "params.pose",
    ]
    assert not list(desk.input.iterdir())


def test_each_problem_has_its_own_code_and_the_error_that_of_the_first(desk: Desk) -> None:
    wanted = [Wanted("a", "image", "gone.png"), Wanted("b", "image", "data:,x"), Wanted("c", "image", "gone.png")]
    with pytest.raises(MorpheusError) as refused, staged(desk.stage()) as stage:
        stage.bring(wanted)
    assert (refused.value.code, refused.value.retryable) == (Code.INPUT_UNREACHABLE, False)
    told = [(problem["at"], problem["code"]) for problem in refused.value.details["problems"]]
    assert told == [("a", "input_unreachable"), ("b", "input_rejected"), ("c", "input_unreachable")]


def test_a_job_is_worth_sending_again_when_all_its_media_may_be_had_then(desk: Desk) -> None:
    with pytest.raises(MorpheusError) as refused, staged(desk.stage()) as stage:
        stage.bring([Wanted("a", "image", "gone.png"), Wanted("b", "video", "gone.mp4")])
    assert refused.value.retryable


def test_inline_data_that_two_params_share_is_written_once(desk: Desk) -> None:
    wanted = [
        Wanted("a", "image", uri(PNG)),
        Wanted("b", "file", uri(PNG), as_path=True),
        Wanted("c", "video", uri(PNG)),
    ]
    with pytest.raises(MorpheusError) as refused, staged(desk.stage()) as stage:
        stage.bring(wanted)
    assert [problem.at for problem in refused.value.problems] == ["c"]
    with staged(desk.stage()) as stage:
        name, path = stage.bring(wanted[:2])
        assert path == str(desk.input / name)
        assert len(list(desk.input.iterdir())) == 1
    assert not list(desk.input.iterdir())


def test_a_job_that_has_to_stop_brings_nothing(desk: Desk) -> None:
    allowance = Allowance.of(60.0)
    allowance.cancelled.set()
    stage = Stage("tok", desk.files, desk.volume, LIMITS, Sources(PrivateHosts(), 5.0), allowance)
    with pytest.raises(MorpheusError) as stopped, staged(stage):
        stage.bring([Wanted("a", "image", uri(PNG))])
    assert stopped.value.code == Code.CANCELLED
    assert not list(desk.input.iterdir())


def test_nothing_is_left_and_nothing_of_the_volume_is_touched(desk: Desk) -> None:
    before = {path: path.read_bytes() for path in desk.volume.rglob("*") if path.is_file()}
    wanted = [Wanted("a", "image", "faces/a.png"), Wanted("b", "image", uri(PNG)), Wanted("c", "dir", "faces")]
    with staged(desk.stage()) as stage:
        assert len(stage.bring(wanted)) == len(list(desk.input.iterdir())) == 3
    assert not list(desk.input.iterdir())
    assert {path: path.read_bytes() for path in desk.volume.rglob("*") if path.is_file()} == before


def test_what_is_gone_already_does_not_hinder(desk: Desk) -> None:
    with staged(desk.stage()) as stage:
        for value in stage.bring([Wanted("a", "image", uri(PNG)), Wanted("b", "image", "faces/a.png")]):
            (desk.input / value).unlink()


def test_no_two_media_share_a_name(desk: Desk) -> None:
    (desk.input / "a.png").write_bytes(b"somebody's")
    wanted = [Wanted("a", "image", "faces/a.png"), Wanted("b", "image", "faces/b.png"), Wanted("c", "image", uri(PNG))]
    with staged(desk.stage("one")) as one, staged(desk.stage("other")) as other:
        names = one.bring(wanted) + other.bring(wanted)
        assert len(set(names)) == 6
        assert all(name.startswith(("one-", "other-")) for name in names)
    assert [path.name for path in desk.input.iterdir()] == ["a.png"]


def test_a_node_that_takes_a_path_gets_one(desk: Desk) -> None:
    with staged(desk.stage()) as stage:
        [value] = stage.bring([Wanted("a", "dir", "faces", as_path=True)])
        assert Path(value).is_absolute()
        assert sorted(os.listdir(value)) == ["a.png", "b.png"]


@pytest.mark.parametrize(
    "name", ["../../evil.png", "/etc/evil.png", ".hidden", "a/b.png", "x\n.png", "ü" * 200, "x [output]"]
)
def test_a_name_from_outside_stays_in_the_input_folder(desk: Desk, name: str) -> None:
    """ComfyUI reads a name that ends in ` [output]`, ` [temp]` or ` [input]` as one in that folder."""
    with staged(desk.stage()) as stage:
        [placed] = stage.bring([Wanted("images[0]", "image", uri(PNG), name)])
        assert (desk.input / placed).parent == desk.input
        assert not placed.endswith(("[output]", "[temp]", "[input]"))
        assert (desk.input / placed).read_bytes() == PNG
    assert not list(desk.input.iterdir())


def test_an_input_folder_that_is_full_or_gone_is_said(desk: Desk) -> None:
    desk.input.rmdir()
    desk.input.write_bytes(b"in the way")
    with pytest.raises(MorpheusError) as failed, staged(desk.stage()) as stage:
        stage.bring([Wanted("a", "image", uri(PNG))])
    assert failed.value.code == Code.INTERNAL
    assert failed.value.retryable


def test_a_file_ends_as_its_loader_wants_it(desk: Desk) -> None:
    (desk.volume / "a.pid").write_bytes(b"vector")
    (desk.volume / "b.ipadpt").write_bytes(b"vector")
    inline = "data:application/octet-stream;base64,AAAA"
    wanted = [Wanted(name, "file", name, suffix=".ipadpt") for name in ("a.pid", "b.ipadpt", inline)]
    with staged(desk.stage()) as stage:
        placed = stage.bring([*wanted, Wanted("plain", "file", inline)])
        assert [name.rpartition("-")[2] for name in placed[:2]] == ["a.pid.ipadpt", "b.ipadpt"]
        assert placed[2].endswith(".ipadpt")
        assert not placed[3].endswith(".ipadpt")


# --- where a node may write


@pytest.mark.parametrize("value", ["/workspace/pids/x.pid", "runpod-volume/pids/x.pid", "pids/x.pid"])
def test_an_output_path_is_on_the_volume(desk: Desk, value: str) -> None:
    assert desk.stage().output_path("params.save_pod_path", value) == str(desk.volume / "pids" / "x.pid")


@pytest.mark.parametrize(
    "value",
    [
        *("/etc/x", "../x", "", "link/x", "~/x", "x\x00"),
        *("models/x", "morpheus_model_cache/custom_nodes/x.py", "huggingface-cache/x", "morpheus_lib/workflows/x.json"),
        *(
            "job_index/x",
            "cache/x",
            "inward/x",
            "job_outputs/7/result.json",
            "job_outputs/7/Result-2.JSON",
            ".",
            "/",
            "file/x",
            "job_outputs/later",
            "morpheus_lib/workflows/linked.json",
            "shared/x.json",
            "job_outputs",
        ),
    ],
)
def test_an_output_path_elsewhere_is_rejected(desk: Desk, value: str) -> None:
    (desk.volume / "link").symlink_to(desk.outside.parent)
    (desk.volume / "inward").symlink_to(desk.volume / "models")
    (desk.volume / "shared").mkdir()
    (desk.volume / "morpheus_lib").symlink_to(desk.volume / "shared")
    (desk.volume / "file").touch()
    stage = dataclasses.replace(desk.stage(), kept=[desk.volume / "cache"])
    with pytest.raises(MorpheusError) as refused:
        stage.output_path("params.save_pod_path", value)
    assert refused.value.code == Code.INPUT_REJECTED
    assert [problem.at for problem in refused.value.problems] == ["params.save_pod_path"]


@pytest.mark.parametrize("value", ["job_outputs/abc", "job_outputs/abc/", "job_outputs/abc/x.pid"])
def test_an_output_may_go_to_another_job_s_folder(desk: Desk, value: str) -> None:
    (desk.volume / "job_outputs" / "abc").mkdir(parents=True)
    assert desk.stage().output_path("params.save_pod_path", value) == str(desk.volume / value)


def test_base64_is_no_folder(desk: Desk) -> None:
    with pytest.raises(MorpheusError) as failed, staged(desk.stage()) as stage:
        stage.bring([Wanted("a", "dir", base64.b64encode(PNG).decode())])
    assert failed.value.code == Code.INPUT_UNREACHABLE


def test_a_folder_without_files_is_told_at_once(desk: Desk) -> None:
    (desk.volume / "bare").mkdir()
    (desk.volume / "bare" / ".hidden").touch()
    (desk.volume / "nested" / "inner").mkdir(parents=True)
    with pytest.raises(MorpheusError) as failed, staged(desk.stage()) as stage:
        stage.bring([Wanted("a", "dir", "bare")])
    assert "the folder 'bare' has no files in it" in failed.value.message
    with staged(desk.stage()) as stage:
        assert stage.bring([Wanted("a", "dir", "nested")])

"""Asks a running ComfyUI what it thinks of many broken graphs, and writes its answers down for the graph check's test:

    python -m tests.tools.record_validation http://127.0.0.1:8188

The ComfyUI should run without custom nodes and models. The few graphs that it accepts in part make a 16x16 picture
in its temp folder. The input folder is given one picture, `morpheus_check.png`.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import requests
from PIL import Image

DESTINATION: Final = Path(__file__).parent.parent / "data" / "validation_answers.json"
TIMEOUT_S: Final = 60.0
PICTURE: Final = "morpheus_check.png"

Graph = dict[str, Any]


def node(class_type: str, **inputs: Any) -> Graph:
    return {"class_type": class_type, "inputs": inputs}


def empty(**inputs: Any) -> Graph:
    return node("EmptyImage", **({"width": 16, "height": 16, "batch_size": 1, "color": 0} | inputs))


def shown(first: Graph, **more: Graph) -> Graph:
    """A graph whose only output shows the first node's picture."""
    return {"1": first, "2": node("PreviewImage", images=["1", 0]), **more}


def sampler(**inputs: Any) -> Graph:
    """A whole text-to-image graph, without a checkpoint that anybody has."""
    given: Graph = {"seed": 1, "steps": 2, "cfg": 7, "sampler_name": "euler", "scheduler": "normal", "denoise": 1}
    links: Graph = {"model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0], "latent_image": ["4", 0]}
    return {
        "1": node("CheckpointLoaderSimple", ckpt_name="nobody_has_this.safetensors"),
        "2": node("CLIPTextEncode", clip=["1", 1], text="a lighthouse"),
        "3": node("CLIPTextEncode", clip=["1", 1], text=""),
        "4": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "5": node("KSampler", **(given | links | inputs)),
        "6": node("VAEDecode", samples=["5", 0], vae=["1", 2]),
        "7": node("SaveImage", images=["6", 0], filename_prefix="check"),
    }


def without(graph: Graph, node_id: str, *names: str) -> Graph:
    inputs = {name: value for name, value in graph[node_id]["inputs"].items() if name not in names}
    return {**graph, node_id: {**graph[node_id], "inputs": inputs}}


def cases() -> dict[str, Any]:
    """Graphs by what is wrong with them."""
    return {**_shapes(), **_values(), **_links(), **_loaders(), **_several()}


def _shapes() -> dict[str, Any]:
    return {
        "an empty graph": {},
        "a list": [],
        "a node that is text": {"1": "EmptyImage"},
        "a node without class_type": {"1": {"inputs": {}}},
        "a class that does not exist": shown(node("NoSuchNode", width=1)),
        "a class that is null": {"1": {"class_type": None, "inputs": {}}},
        "no output node": {"1": empty()},
        "a missing class in a branch that leads nowhere": shown(empty(), **{"9": node("NoSuchNode")}),
        "an output node without inputs": {"1": {"class_type": "PreviewImage"}},
        "an inner node without inputs": shown({"class_type": "EmptyImage"}),
        "inputs that are null": shown({"class_type": "EmptyImage", "inputs": None}),
        "inputs that are a list": shown({"class_type": "EmptyImage", "inputs": ["width"]}),
    }


def _values() -> dict[str, Any]:
    return {
        "a required input is missing": without(shown(empty()), "1", "width"),
        "two required inputs are missing": without(shown(empty()), "1", "width", "height"),
        "all inputs of the output are missing": {"1": node("SaveImage")},
        "text for a number": shown(empty(width="wide")),
        "a fraction as text for an integer": shown(empty(width="16.5")),
        "null for a number": shown(empty(width=None)),
        "an object for a number": shown(empty(width={"a": 1})),
        "a list of three for a number": shown(empty(width=[1, 2, 3])),
        "an empty list for a number": shown(empty(width=[])),
        "a wrapped value that is too small": shown(empty(width={"__value__": 0})),
        "too small": shown(empty(width=0)),
        "too big": shown(empty(width=99999, height="88888")),
        "a converted number is too small": shown(empty(width="-3", batch_size=0.9)),
        "NaN passes the bounds": shown(node("ImageScaleBy", image=["9", 0], upscale_method="no", scale_by="nan")),
        "infinity for an integer": shown(empty(width="inf")),
        "text for a fraction": {**sampler(cfg="much"), "1": node("CheckpointLoaderSimple", ckpt_name="x")},
        "a fraction that is too big": sampler(denoise=1.5, cfg=1000),
        "a choice that does not exist": shown(
            node("ImageScale", image=["9", 0], upscale_method="magic", width=8, height=8, crop="left"), **{"9": empty()}
        ),
        "a choice that is null": shown(
            node("ImageScaleBy", image=["9", 0], upscale_method=None, scale_by=2), **{"9": empty()}
        ),
        "a choice of a long list": sampler(sampler_name="no_such_sampler", scheduler=3),
        "a model that does not exist": sampler(),
        "a newer kind of choice is not checked": shown(
            node("ImageScaleToTotalPixels", image=["9", 0], upscale_method="magic", megapixels=0), **{"9": empty()}
        ),
        "a switch takes anything": {
            "1": node(
                "SaveAnimatedWEBP", images=["9", 0], filename_prefix=5, fps="x", lossless="no", quality=101, method=1
            ),
            "9": empty(),
        },
        "an input that the class does not have": shown(empty(width=0, colour="red")),
        "a value for a linked input": {"1": node("PreviewImage", images="picture.png")},
    }


def _links() -> dict[str, Any]:
    return {
        "a link to nowhere": {"1": node("PreviewImage", images=["99", 0])},
        "an inner link to nowhere": shown(node("ImageInvert", image=["99", 0])),
        "a link to a number": {"1": node("PreviewImage", images=[99, 0])},
        "a link to a list": {"1": node("PreviewImage", images=[["1"], 0])},
        "a slot that does not exist": {"1": empty(), "2": node("PreviewImage", images=["1", 3])},
        "a slot of a newer class that does not exist": {
            "1": node("ImageBlur", image=["9", 0], blur_radius=1, sigma=1),
            "2": node("PreviewImage", images=["1", 3]),
            "9": empty(),
        },
        "a slot that is text": {"1": empty(), "2": node("PreviewImage", images=["1", "0"])},
        "a slot that is null": {"1": empty(), "2": node("PreviewImage", images=["1", None])},
        "a slot of an output node": {"1": node("PreviewImage", images=["2", 0]), "2": node("PreviewAny", source=1)},
        "another type": {
            "1": node("PreviewImage", images=["2", 0]),
            "2": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        },
        "a picture for a number": shown(empty(width=["9", 0]), **{"9": empty()}),
        "text for a choice": shown(
            node("ImageScaleBy", image=["9", 0], upscale_method=["8", 0], scale_by=0),
            **{"9": empty(), "8": node("PrimitiveString", value="area")},
        ),
        "anything for anything": {"1": node("PreviewAny", source=["2", 0]), "2": empty(width=0)},
        "a loop": {
            "1": node("ImageInvert", image=["2", 0]),
            "2": node("ImageInvert", image=["1", 0]),
            "3": node("PreviewImage", images=["1", 0]),
        },
        "a node that needs itself": shown(node("ImageInvert", image=["1", 0])),
        "a loop with a wrong value in it": shown(
            node("ImageScaleBy", image=["3", 0], upscale_method="area", scale_by=0),
            **{"3": node("ImageInvert", image=["1", 0])},
        ),
    }


def _loaders() -> dict[str, Any]:
    def mask(**inputs: Any) -> Graph:
        return {"1": node("LoadImageMask", **inputs), "2": node("MaskPreview", mask=["1", 0])}

    def sound(**inputs: Any) -> Graph:
        return {"1": node("LoadAudio", **inputs), "2": node("PreviewAudio", audio=["1", 0])}

    def clip(**inputs: Any) -> Graph:
        return {
            "1": node("LoadVideo", **inputs),
            "2": node("SaveVideo", video=["1", 0], filename_prefix="check", format="auto", codec="auto"),
        }

    return {
        "a picture that does not exist": shown(node("LoadImage", image="no_such.png")),
        "a picture outside the input folder that does not exist": shown(node("LoadImage", image="../no_such.png")),
        "an absolute path that does not exist": shown(node("LoadImage", image="/no/such.png")),
        "an output that does not exist": shown(node("LoadImage", image="no_such.png [output]")),
        "an output of another loader that does not exist": shown(node("LoadImageOutput", image="no_such.png [output]")),
        "a loader without its file": shown(node("LoadImage")),
        "a loader of outputs without its file": shown(node("LoadImageOutput")),
        "a loader with null": shown(node("LoadImage", image=None)),
        "a loader with a number": shown(node("LoadImage", image=5)),
        "a loader with a list": shown(node("LoadImage", image=["a.png"])),
        "a loader with a link": shown(node("LoadImage", image=["3", 0]), **{"3": node("PrimitiveString", value="a")}),
        "a mask of a picture that does not exist": mask(image="no_such.png", channel="purple"),
        "a mask of a picture that exists": mask(image=PICTURE, channel="purple"),
        "a sound that does not exist": sound(audio="no_such.wav"),
        "a loader of sounds without its file": sound(),
        "a clip that does not exist": clip(file="no_such.mp4"),
        "a loader of clips without its file": clip(),
        "a loader of clips with null": clip(file=None),
        "a latent that does not exist": {
            "1": node("LoadLatent", latent="no_such.latent"),
            "2": node("SaveLatent", samples=["1", 0], filename_prefix="check"),
        },
    }


def _several() -> dict[str, Any]:
    preview = node("PreviewImage", images=["1", 0])
    return {
        "one output passes, one does not": shown(empty(), **{"3": node("SaveImage", images=["1", 0])}),
        "one output passes, one depends on a wrong node": shown(
            empty(), **{"3": empty(width=0), "4": node("PreviewImage", images=["3", 0])}
        ),
        "a wrong node that leads nowhere": shown(empty(), **{"3": empty(width=0)}),
        "two outputs of one wrong node": {"1": empty(width=0), "2": preview, "3": preview},
        "two outputs with a fault each": {
            "1": empty(width=0),
            "2": node("PreviewImage", images=["1", 0]),
            "3": empty(height=0),
            "4": node("SaveImage", images=["3", 0]),
        },
        "an output that is wrong and needs a wrong node": {
            "1": empty(width=0),
            "2": node("SaveImage", images=["1", 0]),
        },
    }


def ask(session: requests.Session, base_url: str, graph: Any) -> dict[str, Any]:
    answer = session.post(f"{base_url}/prompt", json={"prompt": graph}, timeout=TIMEOUT_S)
    if answer.headers["Content-Type"].startswith("application/json"):
        said = answer.json()
        return {"status": answer.status_code, "error": said.get("error"), "node_errors": _plain(said["node_errors"])}
    return {"status": answer.status_code}


def _plain(node_errors: Mapping[str, Any]) -> Any:
    """Without prose and without places on the machine that was asked."""
    for found in node_errors.values():
        for error in found["errors"]:
            about = error["extra_info"]
            if "traceback" in about:
                about["traceback"] = []
            if isinstance(about.get("input_config"), list):
                about["input_config"][1].pop("tooltip", None)
    return node_errors


def _picture() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (16, 16), "teal").save(content, "PNG")
    return content.getvalue()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base_url", help="where ComfyUI listens")
    asked = parser.parse_args(arguments)
    with requests.Session() as session:
        session.trust_env = False
        files = {"image": (PICTURE, _picture(), "image/png")}
        session.post(f"{asked.base_url}/upload/image", data={"overwrite": "true"}, files=files, timeout=TIMEOUT_S)
        version = session.get(f"{asked.base_url}/system_stats", timeout=TIMEOUT_S).json()["system"]["comfyui_version"]
        answers = [
            {"case": case, "graph": graph, "answer": ask(session, asked.base_url, graph)}
            for case, graph in cases().items()
        ]
    DESTINATION.parent.mkdir(exist_ok=True)
    lines = ",\n".join(json.dumps(answer) for answer in answers)
    head = f'{{"comfyui_version": {json.dumps(version)}, "input_files": {json.dumps([PICTURE])},\n"answers": [\n'
    DESTINATION.write_text(f"{head}{lines}\n]}}\n", encoding="utf-8")
    print(f"{DESTINATION}: {len(answers)} answers of ComfyUI {version}")


if __name__ == "__main__":
    main()

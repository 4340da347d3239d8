"""The object info of a real ComfyUI that travels with the project: facts about its nodes, no prose.

`object_info.json` holds one class a line, without what follows from the rest; tests/tools/record_object_info.py writes
it. Inputs that list files of one machine are recorded without them, and `folder_of` says which folder they list.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any, Final

from morpheus_worker.comfy.objectinfo import ObjectInfo

RECORDED_NAME: Final = "object_info.json"

INPUT_FOLDER: Final = "input"
"""What `folder_of` answers for an input that lists ComfyUI's input folder."""

_FOLDERS: Final[Mapping[tuple[str, str], str]] = {
    ("CLIPVisionLoader", "clip_name"): "clip_vision",
    ("DiffusersLoader", "model_path"): "diffusers",
    ("ModelPatchLoader", "name"): "model_patches",
    ("UpscaleModelLoader", "model_name"): "upscale_models",
    ("TrainLoraNode", "existing_lora"): "loras",
    ("LoadLatent", "latent"): INPUT_FOLDER,
    ("Load3D", "model_file"): INPUT_FOLDER,
    ("Load3DAnimation", "model_file"): INPUT_FOLDER,
    ("LoadImageSetFromFolderNode", "folder"): INPUT_FOLDER,
    ("LoadImageTextSetFromFolderNode", "folder"): INPUT_FOLDER,
}
_FOLDERS_BY_INPUT: Final[Mapping[str, str]] = {
    "audio_encoder_name": "audio_encoders",
    "ckpt_name": "checkpoints",
    "clip_name": "text_encoders",
    "clip_name1": "text_encoders",
    "clip_name2": "text_encoders",
    "clip_name3": "text_encoders",
    "clip_name4": "text_encoders",
    "config_name": "configs",
    "control_net_name": "controlnet",
    "gligen_name": "gligen",
    "hypernetwork_name": "hypernetworks",
    "lora_name": "loras",
    "photomaker_model_name": "photomaker",
    "style_model_name": "style_models",
    "unet_name": "diffusion_models",
    "vae_name": "vae",
}


def folder_of(class_type: str, name: str, config: Any) -> str | None:
    """The model folder whose files this input lists, `input` for ComfyUI's input folder, None for any other input.

    `config` is the input's own entry in the object info: an upload flag tells a loader of media.
    """
    options = config[1] if isinstance(config, (list, tuple)) and len(config) > 1 else {}
    if isinstance(options, Mapping) and any(
        options.get(flag) for flag in ("image_upload", "audio_upload", "video_upload")
    ):
        return INPUT_FOLDER if options.get("image_folder", INPUT_FOLDER) == INPUT_FOLDER else None
    return _FOLDERS.get((class_type, name)) or _FOLDERS_BY_INPUT.get(name)


@cache
def load_recorded() -> ObjectInfo:
    """Every node class of the recorded ComfyUI, in the shape of its own `GET /object_info`."""
    return ObjectInfo({name: expand(name, facts) for name, facts in _recording()["nodes"].items()})


def recorded_version() -> str:
    """The version of the ComfyUI that was recorded, e.g. `0.3.64`."""
    return str(_recording()["comfyui_version"])


def expand(class_type: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """One class as ComfyUI describes it, from its recorded facts."""
    inputs, output = facts.get("input", {}), list(facts.get("output", ()))
    return {
        "input": inputs,
        "input_order": {category: list(names) for category, names in inputs.items()},
        "output": output,
        "output_is_list": facts.get("output_is_list", [False] * len(output)),
        "output_name": facts.get("output_name", output),
        "name": class_type,
        "display_name": class_type,
        "description": "",
        "python_module": facts.get("python_module", "nodes"),
        "category": "",
        "output_node": facts.get("output_node", False),
        **({"api_node": False} if facts.get("api_node") is False else {}),
    }


@cache
def _recording() -> Mapping[str, Any]:
    content = resources.files("morpheus_worker.comfy").joinpath(RECORDED_NAME).read_text(encoding="utf-8")
    recording: Mapping[str, Any] = json.loads(content)
    return recording

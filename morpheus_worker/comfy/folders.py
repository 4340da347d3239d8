"""Which of ComfyUI's folders the inputs of loaders list.

Source: ComfyUI 0.3.64, and the node packs that `recorded` knows, each asked twice: with empty folders and with a file
in every one of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from morpheus_worker.comfy.objectinfo import InputInfo

INPUT_FOLDER: Final = "input"
"""What `folder_of` answers for an input that lists ComfyUI's input folder, its files or the folders in it."""

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
    # ComfyUI-Impact-Pack, ComfyUI-Impact-Subpack
    ("SAMLoader", "model_name"): "sams",
    ("ONNXDetectorProvider", "model_name"): "onnx",
    # Its names begin with bbox/ or segm/, the folders in it.
    ("UltralyticsDetectorProvider", "model_name"): "ultralytics",
    ("ImageReceiver", "image"): INPUT_FOLDER,
    ("LatentReceiver", "latent"): INPUT_FOLDER,
    # ComfyUI-Advanced-ControlNet
    ("ACN_ControlNetLoaderAdvanced", "cnet"): "controlnet",
    ("ACN_DiffControlNetLoaderAdvanced", "cnet"): "controlnet",
    ("ACN_ControlNet++LoaderSingle", "name"): "controlnet",
    ("ACN_ControlNet++LoaderAdvanced", "name"): "controlnet",
    ("ACN_CtrLoRALoader", "base"): "controlnet",
    ("ACN_CtrLoRALoader", "lora"): "controlnet",
    ("ACN_SparseCtrlLoaderAdvanced", "sparsectrl_name"): "controlnet",
    ("ACN_SparseCtrlMergedLoaderAdvanced", "sparsectrl_name"): "controlnet",
    # ComfyUI_IPAdapter_plus
    ("IPAdapterLoadEmbeds", "embeds"): INPUT_FOLDER,
    # ComfyUI-VideoHelperSuite
    ("VHS_LoadVideo", "video"): INPUT_FOLDER,
    ("VHS_LoadVideoFFmpeg", "video"): INPUT_FOLDER,
    ("VHS_LoadImages", "directory"): INPUT_FOLDER,
    ("VHS_LoadAudioUpload", "audio"): INPUT_FOLDER,
}
_OWN_LISTS: Final = frozenset(
    {
        ("DepthAnythingPreprocessor", "ckpt_name"),
        ("DepthAnythingV2Preprocessor", "ckpt_name"),
        ("Unimatch_OptFlowPreprocessor", "ckpt_name"),
    }
)
"""Inputs named like a folder's list that have a list of their own (comfyui_controlnet_aux)."""

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
    "instantid_file": "instantid",
    "ipadapter_file": "ipadapter",
    "lora_name": "loras",
    "photomaker_model_name": "photomaker",
    "pulid_file": "pulid",
    "style_model_name": "style_models",
    "unet_name": "diffusion_models",
    "vae_name": "vae",
    # How ComfyUI-Impact-Pack names it, in the nodes that take a prompt with wildcards.
    "Select to add LoRA": "loras",
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
    if (class_type, name) in _OWN_LISTS:
        return None
    return _FOLDERS.get((class_type, name)) or _FOLDERS_BY_INPUT.get(name)


def folder_listed(class_type: str, known: InputInfo) -> str | None:
    """`folder_of` for an input that has been read already."""
    return folder_of(class_type, known.name, [known.type, known.options])

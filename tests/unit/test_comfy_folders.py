"""Which folder an input lists."""

from __future__ import annotations

from typing import Any

import pytest

from morpheus_worker.comfy.folders import INPUT_FOLDER, folder_of


@pytest.mark.parametrize(
    ("class_type", "name", "config", "folder"),
    [
        ("CheckpointLoaderSimple", "ckpt_name", [[]], "checkpoints"),
        ("DualCLIPLoader", "clip_name2", [[]], "text_encoders"),
        ("CLIPVisionLoader", "clip_name", [[]], "clip_vision"),
        ("UpscaleModelLoader", "model_name", ["COMBO", {"options": []}], "upscale_models"),
        ("LoadImage", "image", [[], {"image_upload": True}], INPUT_FOLDER),
        ("LoadImageOutput", "image", ["COMBO", {"image_upload": True, "image_folder": "output"}], None),
        ("KSampler", "sampler_name", [["euler"]], None),
        ("KSampler", "seed", ["INT", {}], None),
        ("UltralyticsDetectorProvider", "model_name", [[]], "ultralytics"),
        ("SAMLoader", "model_name", [[]], "sams"),
        ("PulidModelLoader", "pulid_file", [[]], "pulid"),
        ("IPAdapterModelLoader", "ipadapter_file", [[]], "ipadapter"),
        ("IPAdapterLoadEmbeds", "embeds", [[]], INPUT_FOLDER),
        ("InstantIDModelLoader", "instantid_file", [[]], "instantid"),
        ("ControlNetLoaderAdvanced", "control_net_name", [[]], "controlnet"),
        ("ACN_ControlNetLoaderAdvanced", "cnet", [[]], "controlnet"),
        ("VHS_LoadVideo", "video", [[]], INPUT_FOLDER),
        ("VHS_LoadVideoPath", "video", ["STRING", {}], None),
    ],
)
def test_folder_of(class_type: str, name: str, config: Any, folder: str | None) -> None:
    assert folder_of(class_type, name, config) == folder

"""Files of numbers: ComfyUI's latents and models, which are safetensors files, and node packs' embeddings, which are
PyTorch's. They are whole and can be read, and hold nothing but zeros.

Sources: the safetensors format (README of huggingface/safetensors), torch/serialization.py (`torch.save`), the pickle
protocol 2 (Python's pickletools).
"""

from __future__ import annotations

import io
import json
import math
import struct
import zipfile
from collections.abc import Mapping
from typing import Final

MADE_BY: Final = "rehearsal"
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_ALIGNMENT: Final = 64
"""Where the numbers of a PyTorch file begin, in bytes."""


def latent_file(shape: tuple[int, ...], metadata: Mapping[str, str]) -> bytes:
    """Zeros of this shape as ComfyUI's `.latent` file."""
    return _safetensors({"latent_tensor": shape, "latent_format_version_0": (0,)}, metadata)


def model_file(metadata: Mapping[str, str]) -> bytes:
    """Stands for a model: one number, and the words that this is a rehearsal's."""
    return _safetensors({MADE_BY: (1,)}, {"made_by": MADE_BY, **metadata})


def _safetensors(tensors: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str]) -> bytes:
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, shape in tensors.items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(end)


def tensor_file(shape: tuple[int, ...]) -> bytes:
    """Zeros of this shape as `torch.save` writes a tensor of float32, for `torch.load` to read."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for name, data in (
            ("data.pkl", _pickled(shape)),
            ("byteorder", b"little"),
            ("data/0", bytes(4 * math.prod(shape))),
            ("version", b"3\n"),
            (MADE_BY, b"stands for embeddings\n"),
        ):
            archive.writestr(_aligned(f"{MADE_BY}/{name}", content.tell()), data)
    return content.getvalue()


def _aligned(name: str, at: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _EPOCH)
    used = at + 30 + len(name) + 4
    padding = -used % _ALIGNMENT
    info.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
    return info


def _pickled(shape: tuple[int, ...]) -> bytes:
    """The call that makes the tensor: `_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)`."""
    strides = [math.prod(shape[place + 1 :]) for place in range(len(shape))]
    storage = [_text("storage"), b"ctorch\nFloatStorage\n", _text("0"), _text("cpu"), _number(math.prod(shape))]
    arguments = [
        _tuple(*storage) + b"Q",
        _number(0),
        _tuple(*map(_number, shape)),
        _tuple(*map(_number, strides)),
        b"\x89",
        b"ccollections\nOrderedDict\n)R",
    ]
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n" + _tuple(*arguments) + b"R."


def _tuple(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def _number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)

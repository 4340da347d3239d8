"""Files of numbers are whole, in the formats that they claim."""

from __future__ import annotations

import io
import pickle
import zipfile
from typing import Any

import pytest

from morpheus_worker.rehearsal.weights import tensor_file


class Reading(pickle.Unpickler):
    """Puts what a tensor's file asks for in the place of PyTorch."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, *_: (storage, offset, size, stride)
        return f"{module}.{name}" if module == "torch" else dict

    def persistent_load(self, pid: Any) -> Any:
        return pid


@pytest.mark.parametrize(
    ("shape", "strides"), [((2, 3, 5), (15, 5, 1)), ((1, 257, 1280), (257 * 1280, 1280, 1)), ((4,), (1,))]
)
def test_a_tensor_is_a_file_of_pytorch(shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
    count = shape[0] * strides[0]
    with zipfile.ZipFile(io.BytesIO(tensor_file(shape))) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert names[:2] == ["rehearsal/data.pkl", "rehearsal/byteorder"]
        storage, offset, size, stride = Reading(io.BytesIO(archive.read("rehearsal/data.pkl"))).load()
        assert storage == ("storage", "torch.FloatStorage", "0", "cpu", count)
        assert (offset, size, stride) == (0, shape, strides)
        assert len(archive.read("rehearsal/data/0")) == 4 * count
        numbers = archive.getinfo("rehearsal/data/0")
        assert numbers.compress_type == zipfile.ZIP_STORED
        assert (numbers.header_offset + 30 + len(numbers.filename) + len(numbers.extra)) % 64 == 0

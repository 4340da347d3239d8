"""Jobs that tests send, and what they look at afterwards."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

from morpheus_worker.jobs import JobFailure, JobResult

SMOKE_GRAPH: dict[str, Any] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 16, "batch_size": 1, "color": 255}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "graph"}},
}
INVERT_GRAPH: dict[str, Any] = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "input_image.png"}},
    "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "inverted"}},
}


def png(color: tuple[int, int, int] = (200, 30, 30), size: tuple[int, int] = (24, 16)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, color).save(stream, "PNG")
    return stream.getvalue()


def data_uri(content: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def graph_job(graph: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"workflow": json.loads(json.dumps(graph)), **more}


def succeeded(answer: dict[str, Any]) -> JobResult:
    """The answer as a result; fails with the answer's own sentence where it is a failure."""
    assert "error" not in answer, answer
    return JobResult.model_validate(answer)


def failed(answer: dict[str, Any]) -> JobFailure:
    assert "error" in answer, answer
    return JobFailure.model_validate(answer)


def check_files(result: JobResult, volume: Path) -> list[Path]:
    """Every file of the result lies whole on the volume, under the path and hash that the result says."""
    paths = []
    for output in result.outputs:
        if output.path is None:
            continue
        path = Path(output.path)
        content = path.read_bytes()
        assert path.parent == volume / "job_outputs" / result.job_id
        assert output.volume_path == f"job_outputs/{result.job_id}/{output.filename}"
        assert (len(content), hashlib.sha256(content).hexdigest()) == (output.bytes, output.sha256)
        paths.append(path)
    return paths


def files_below(*folders: Path) -> list[str]:
    """Every file and link in the folders, hidden ones too."""
    return sorted(
        str(path.relative_to(folder)) for folder in folders for path in folder.rglob("*") if not path.is_dir()
    )

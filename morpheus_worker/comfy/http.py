"""ComfyUI over HTTP: one keep-alive session per process, one method per route that the worker uses.

Source of the routes and shapes: ComfyUI 0.3.64, server.py.
"""

from __future__ import annotations

import contextlib
import json
import urllib.parse
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, cast

import requests
import urllib3
from requests.adapters import HTTPAdapter

from morpheus_worker.comfy.history import FileRef, HistoryEntry, read_entry
from morpheus_worker.comfy.tracker import Place
from morpheus_worker.errors import Code, MorpheusError

CONNECT_TIMEOUT_S: Final = 3.05
READ_TIMEOUT_S: Final = 30.0
OBJECT_INFO_TIMEOUT_S: Final = 120.0
"""Answering it makes ComfyUI list every model folder, which a cold network volume takes its time over."""

POOL_SIZE: Final = 8
CHUNK_BYTES: Final = 1024 * 1024


class NotAnsweringError(MorpheusError):
    """ComfyUI refused the connection, dropped it, stayed silent, or answered 5xx: the moment's fault, not the job's."""

    def __init__(self, doing: str, reason: str) -> None:
        super().__init__(Code.CONNECTION, f"ComfyUI did not answer while {doing}: {reason}")


class UnexpectedAnswerError(MorpheusError):
    """ComfyUI, or something in front of it, answered 4xx: it will do so the next time, too."""

    def __init__(self, doing: str, status: int) -> None:
        if status == requests.codes.request_entity_too_large:
            said = f"What was sent while {doing} is larger than ComfyUI takes (413: see its --max-upload-size)"
            super().__init__(Code.INVALID_INPUT, said)
        else:
            super().__init__(Code.INTERNAL, f"ComfyUI answered {status} while {doing}")


class OutputMissingError(MorpheusError):
    """A node reported a file that is not there, or not within ComfyUI's folders."""

    def __init__(self, ref: FileRef) -> None:
        name = f"{ref.subfolder}/{ref.filename}" if ref.subfolder else ref.filename
        said = f"node {ref.node_id} reported the file '{name}', which is not in ComfyUI's {ref.folder} folder"
        super().__init__(Code.NO_OUTPUT, said)


# ComfyUI's words for no file, a name with "..", and a sub-folder outside its own (server.py `view_image`).
_NO_SUCH_OUTPUT: Final = (requests.codes.not_found, requests.codes.bad_request, requests.codes.forbidden)


@dataclass(frozen=True, slots=True)
class Refusal:
    """ComfyUI's answer 400 to a prompt: `error` for the whole, `node_errors` by node id."""

    error: Mapping[str, Any]
    node_errors: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Accepted:
    """The prompt is queued. `node_errors` names outputs that ComfyUI will ignore while it executes the others."""

    prompt_id: str
    node_errors: Mapping[str, Any]


class ComfyHttp:
    """The routes of one ComfyUI. Safe to use from several threads."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url.rstrip("/")
        self._session = requests.Session()
        # Neither a proxy nor a .netrc of the machine has any business between the worker and its ComfyUI.
        self._session.trust_env = False
        adapter = HTTPAdapter(pool_connections=1, pool_maxsize=POOL_SIZE)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)
        # Requests' own pool, and so the same connections. What requests does around it takes a millisecond a call, and
        # a job makes several.
        here = requests.Request("GET", self.base_url).prepare()
        self._pool = cast(urllib3.HTTPConnectionPool, adapter.get_connection_with_tls_context(here, verify=True))

    def close(self) -> None:
        self._session.close()

    def submit(
        self,
        graph: Mapping[str, Any],
        *,
        prompt_id: str,
        client_id: str,
        extra_data: Mapping[str, Any],
        timeout_s: float = READ_TIMEOUT_S,
    ) -> Accepted | Refusal:
        """Queues a prompt under the id given, so that its events are expected before ComfyUI answers."""
        body = {"prompt": graph, "prompt_id": prompt_id, "client_id": client_id, "extra_data": dict(extra_data)}
        doing = "queueing the prompt"
        answer = self._call("POST", "/prompt", doing, json_body=body, refusal_is_answer=True, read_timeout_s=timeout_s)
        said = _object(answer.data, doing)
        if answer.status == requests.codes.bad_request:
            return Refusal(_mapping(said.get("error")), _mapping(said.get("node_errors")))
        return Accepted(str(said.get("prompt_id") or prompt_id), _mapping(said.get("node_errors")))

    def history(self, prompt_id: str, *, timeout_s: float = READ_TIMEOUT_S) -> HistoryEntry | None:
        """The prompt's entry, or None while it has none."""
        doing = "reading the history"
        answer = self._call("GET", f"/history/{prompt_id}", doing, read_timeout_s=timeout_s)
        raw = _object(answer.data, doing).get(prompt_id)
        return read_entry(prompt_id, raw) if isinstance(raw, Mapping) else None

    def place(self, prompt_id: str, *, timeout_s: float = READ_TIMEOUT_S) -> Place:
        """Whether the queue holds the prompt, and where."""
        doing = "reading the queue"
        said = _object(self._call("GET", "/queue", doing, read_timeout_s=timeout_s).data, doing)
        for key, place in (("queue_running", Place.RUNNING), ("queue_pending", Place.PENDING)):
            if any(isinstance(item, list) and len(item) > 1 and item[1] == prompt_id for item in said.get(key) or ()):
                return place
        return Place.NOWHERE

    def delete_queued(self, prompt_id: str, *, timeout_s: float = READ_TIMEOUT_S) -> None:
        """Takes a prompt that does not run yet out of the queue; one that runs stays."""
        doing = "removing the prompt from the queue"
        self._call("POST", "/queue", doing, json_body={"delete": [prompt_id]}, read_timeout_s=timeout_s)

    def interrupt(self, prompt_id: str, *, timeout_s: float = READ_TIMEOUT_S) -> None:
        """Stops the prompt if it is the one that runs; any other stays."""
        doing = "interrupting the prompt"
        self._call("POST", "/interrupt", doing, json_body={"prompt_id": prompt_id}, read_timeout_s=timeout_s)

    def object_info(self, *, timeout_s: float = OBJECT_INFO_TIMEOUT_S) -> dict[str, Any]:
        doing = "describing its nodes"
        return _object(self._call("GET", "/object_info", doing, read_timeout_s=timeout_s).data, doing)

    def node_info(self, class_type: str, *, timeout_s: float = READ_TIMEOUT_S) -> dict[str, Any]:
        """One class of the object info by its name, as it is now; an empty answer when this ComfyUI lacks it."""
        doing = "describing a node class"
        path = f"/object_info/{urllib.parse.quote(class_type, safe='')}"
        return _object(self._call("GET", path, doing, read_timeout_s=timeout_s).data, doing)

    def system_stats(self) -> dict[str, Any]:
        """Versions, devices and memory."""
        doing = "describing its system"
        return _object(self._call("GET", "/system_stats", doing).data, doing)

    def log_entries(self, *, timeout_s: float = READ_TIMEOUT_S) -> list[tuple[str, str]]:
        """What ComfyUI wrote last, oldest first: (when, by its own clock; the text of one write)."""
        doing = "reading its log"
        answer = self._call("GET", "/internal/logs/raw", doing, read_timeout_s=timeout_s)
        entries = _object(answer.data, doing).get("entries")
        found = [_mapping(entry) for entry in entries] if isinstance(entries, list) else []
        return [(str(entry.get("t", "")), str(entry.get("m", ""))) for entry in found]

    def upload(self, name: str, content: BinaryIO, *, subfolder: str = "") -> str:
        """Puts a file into ComfyUI's input folder and returns the name that loader nodes take.

        Despite its name the route takes any kind of file.
        """
        form = _FormWithFile({"type": "input", "overwrite": "true", "subfolder": subfolder}, name, content)
        doing = "taking an input file"
        try:
            answer = self._session.post(
                f"{self.base_url}/upload/image",
                data=form,
                headers={"Content-Type": form.media_type},
                timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S),
            )
        except requests.RequestException as failure:
            raise NotAnsweringError(doing, _reason(failure)) from None
        _check_status(answer.status_code, doing)
        said = _object(answer.content, doing)
        return f"{said['subfolder']}/{said['name']}" if said.get("subfolder") else str(said["name"])

    @contextlib.contextmanager
    def view(self, ref: FileRef) -> Iterator[Iterator[bytes]]:
        """The bytes of an output file, in chunks.

        Raises:
            OutputMissingError: when ComfyUI has no such file.
        """
        query = {"filename": ref.filename, "subfolder": ref.subfolder, "type": ref.folder}
        try:
            with self._session.get(
                f"{self.base_url}/view", params=query, stream=True, timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S)
            ) as answer:
                if answer.status_code in _NO_SUCH_OUTPUT:
                    raise OutputMissingError(ref)
                if not answer.ok:
                    raise NotAnsweringError("sending an output file", f"it answered {answer.status_code}")
                yield answer.iter_content(CHUNK_BYTES)
        except requests.RequestException as failure:
            raise NotAnsweringError("sending an output file", _reason(failure)) from None

    def _call(
        self,
        method: str,
        path: str,
        doing: str,
        *,
        json_body: Mapping[str, Any] | None = None,
        read_timeout_s: float = READ_TIMEOUT_S,
        refusal_is_answer: bool = False,
    ) -> urllib3.BaseHTTPResponse:
        try:
            answer = self._pool.urlopen(
                method,
                path,
                body=None if json_body is None else json.dumps(json_body, allow_nan=False).encode(),
                headers={"Accept": "*/*"} | ({"Content-Type": "application/json"} if json_body is not None else {}),
                timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=read_timeout_s),
                retries=False,
                redirect=False,
            )
        except urllib3.exceptions.HTTPError as failure:
            raise NotAnsweringError(doing, _reason(failure)) from None
        if not (refusal_is_answer and answer.status == requests.codes.bad_request):
            _check_status(answer.status, doing)
        return answer


def _check_status(status: int, doing: str) -> None:
    if status >= requests.codes.internal_server_error:
        raise NotAnsweringError(doing, f"it answered {status}")
    if status >= requests.codes.bad_request:
        raise UnexpectedAnswerError(doing, status)


class _FormWithFile:
    """A multipart form with one file, streamed: requests' own encoder would hold the whole file in memory."""

    def __init__(self, fields: Mapping[str, str], name: str, content: BinaryIO) -> None:
        boundary = uuid.uuid4().hex
        self.media_type = f"multipart/form-data; boundary={boundary}"
        plain = [_part(boundary, f'form-data; name="{key}"') + text.encode() + b"\r\n" for key, text in fields.items()]
        # A backslash escapes for aiohttp's parser, and so for ComfyUI; percent-encoding would stay as it is.
        quoted = name.replace("\\", "\\\\").replace('"', '\\"')
        disposition = f'form-data; name="image"; filename="{quoted}"'
        self._before = b"".join(plain) + _part(boundary, disposition, "application/octet-stream")
        self._after = f"\r\n--{boundary}--\r\n".encode()
        self._content = content

    def __len__(self) -> int:
        return len(self._before) + _length(self._content) + len(self._after)

    def __iter__(self) -> Iterator[bytes]:
        yield self._before
        while chunk := self._content.read(CHUNK_BYTES):
            yield chunk
        yield self._after


def _part(boundary: str, disposition: str, media_type: str | None = None) -> bytes:
    typed = f"Content-Type: {media_type}\r\n" if media_type else ""
    return f"--{boundary}\r\nContent-Disposition: {disposition}\r\n{typed}\r\n".encode()


def _length(content: BinaryIO) -> int:
    start = content.tell()
    end = content.seek(0, 2)
    content.seek(start)
    return end - start


def _object(answer: bytes, doing: str) -> dict[str, Any]:
    try:
        said = json.loads(answer)
    except ValueError:
        raise NotAnsweringError(doing, "its answer was not JSON") from None
    if not isinstance(said, dict):
        raise NotAnsweringError(doing, "its answer was not a JSON object")
    return said


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _reason(failure: requests.RequestException | urllib3.exceptions.HTTPError) -> str:
    cut = (requests.ConnectionError, urllib3.exceptions.NewConnectionError, urllib3.exceptions.ProtocolError)
    late = (requests.Timeout, urllib3.exceptions.TimeoutError)
    # A connection that was refused is a timeout to urllib3; one that took too long is a lost connection to requests.
    if isinstance(failure, late) and not isinstance(failure, urllib3.exceptions.NewConnectionError):
        return "no answer in time"
    if isinstance(failure, cut):
        return "no connection, or the connection was cut"
    return type(failure).__name__

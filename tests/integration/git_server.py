"""Git repositories over HTTP on loopback: Git's own server program behind a small web server.

>>> with GitServer(folder) as server:
...     repo = server.repository("pack", {"__init__.py": "", "requirements.txt": "numpy\\n"})
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

AUTHOR = ("-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")


def git(folder: Path, *arguments: str) -> str:
    command = ["git", *AUTHOR, "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@dataclass(frozen=True)
class Repository:
    """`url` is where it is cloned from."""

    url: str
    folder: Path

    def commit(self, files: Mapping[str, str]) -> str:
        """Writes the files, commits everything and returns the commit."""
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        git(self.folder, "add", "--all")
        git(self.folder, "commit", "--quiet", "--allow-empty", "--message", "change")
        return git(self.folder, "rev-parse", "HEAD")


@dataclass
class GitServer:
    """Serves every repository below `folder`. `requests` are the paths that were asked for; while `failing` is above 0,
    each request is answered 503 and takes one from it. Without `by_hash` it hands out only what a branch points to, as
    servers of before Git's second protocol do."""

    folder: Path
    requests: list[str] = field(default_factory=list)
    failing: int = 0
    by_hash: bool = True

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def repository(self, name: str, files: Mapping[str, str]) -> Repository:
        """A new one with one commit."""
        folder = self.folder / name
        folder.mkdir(parents=True)
        git(folder, "init", "--quiet", "--initial-branch=main")
        repository = Repository(f"http://127.0.0.1:{self._server.server_address[1]}/{name}", folder)
        repository.commit(files)
        return repository

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                self.answer(b"")

            def do_POST(self) -> None:
                if self.headers.get("Transfer-Encoding") == "chunked":
                    self.answer(b"".join(iter(self.chunk, b"")))
                else:
                    self.answer(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

            def chunk(self) -> bytes:
                size = int(self.rfile.readline().split(b";")[0], 16)
                content = self.rfile.read(size)
                self.rfile.readline()
                return content

            def answer(self, body: bytes) -> None:
                path, _, query = self.path.partition("?")
                outer.requests.append(path)
                if outer.failing > 0:
                    outer.failing -= 1
                    self.send_error(503)
                    return
                self.reply(*outer.run(self.command, path, query, dict(self.headers.items()), body))

            def reply(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        return Handler

    def run(
        self, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """What `git http-backend` answers, a CGI program (RFC 3875)."""
        variables = {
            "GIT_PROJECT_ROOT": str(self.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": method,
            "CONTENT_TYPE": headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": headers.get("Git-Protocol", "") if self.by_hash else "",
            "GIT_CONFIG_COUNT": "2",
            "GIT_CONFIG_KEY_0": "uploadpack.allowAnySHA1InWant",
            "GIT_CONFIG_VALUE_0": str(self.by_hash).lower(),
            "GIT_CONFIG_KEY_1": "safe.directory",
            "GIT_CONFIG_VALUE_1": "*",
        }
        done = subprocess.run(
            ["git", "http-backend"], input=body, capture_output=True, env={**os.environ, **variables}, check=False
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        lines = [line.partition(": ")[::2] for line in head.decode().splitlines()]
        status = next((int(value.split()[0]) for name, value in lines if name == "Status"), 200)
        return status, [(name, value) for name, value in lines if name != "Status"], content

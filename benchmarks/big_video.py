"""A video as large as one likes that takes no disk: a small MP4 whose last box is long and empty.

    python -m benchmarks.big_video BYTES

serves one at every path of a free port of loopback, and prints the port.
"""

from __future__ import annotations

import struct
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

from PIL import Image

from morpheus_worker.rehearsal.clip import mp4

BLOCK: Final = bytes(1024 * 1024)


def head_of(size: int) -> bytes:
    """The first bytes of a video of `size` bytes; all others are zeros."""
    moving = mp4([Image.new("RGB", (64, 48), shade) for shade in ("black", "grey")], fps=2.0)
    return moving + struct.pack(">I4sQ", 1, b"free", size - len(moving))


def write(path: Path, size: int) -> None:
    """The video as a file with a hole."""
    path.write_bytes(head_of(size))
    with path.open("r+b") as stream:
        stream.truncate(size)


def serve(size: int) -> None:
    """Serves until it is told to end."""

    class Video(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the base class's name for it
            self.send_response(200)
            self.send_header("Content-Type", "video/mp4")
            self.send_header("Content-Length", str(size))
            self.end_headers()
            head = head_of(size)
            self.wfile.write(head)
            for begin in range(len(head), size, len(BLOCK)):
                self.wfile.write(BLOCK[: size - begin])

        def log_message(self, *_said: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Video) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()


if __name__ == "__main__":
    serve(int(sys.argv[1]))

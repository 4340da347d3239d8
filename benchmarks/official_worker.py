"""The official ComfyUI worker in the SDK's job loop, as its image starts it, at a ComfyUI that runs already.

python -m benchmarks.official_worker CHECKOUT COMFYUI_URL
"""

from __future__ import annotations

import sys

from benchmarks.handler_child import official


def main() -> None:
    checkout, url = sys.argv[1:]
    with official(checkout, url) as handler:
        import runpod

        sys.argv[1:] = []
        runpod.serverless.start({"handler": handler})


if __name__ == "__main__":
    main()

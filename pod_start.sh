#!/bin/sh
# Container entry point: finds the code and a Python that can run it, sets the environment, and becomes that Python.
# `exec` matters: only the container's first process is told to stop, and a shell in between would not pass that on.
set -eu

here=$(dirname -- "$(readlink -f -- "$0")")

# A network volume must not become the working directory: it would be busy for as long as the worker runs.
case "$here/" in
    "${MORPHEUS_VOLUME_ROOT:-/runpod-volume}"/* | /runpod-volume/* | /workspace/*) cd / ;;
    *) cd -- "$here" ;;
esac

# MORPHEUS_PYTHON, else a virtual environment beside this file, else the one of the official ComfyUI worker image.
python=${MORPHEUS_PYTHON:-}
for candidate in "$here/.venv/bin/python" /opt/venv/bin/python python3; do
    if [ -z "$python" ] && command -v "$candidate" >/dev/null; then python=$candidate; fi
done
if ! command -v "${python:=python3}" >/dev/null; then
    echo "pod_start.sh: there is no '$python' to run the worker with; set MORPHEUS_PYTHON to a Python 3.11 or newer." >&2
    exit 1
fi

if ! missing=$("$python" - 2>&1 <<'PYTHON'
import sys
if sys.version_info < (3, 11):
    sys.exit("Python 3.11")
from importlib.util import find_spec
wanted = ("runpod", "requests", "websocket", "boto3", "pydantic", "aiohttp", "yaml", "PIL", "rich")
sys.exit(", ".join(name for name in wanted if find_spec(name) is None) or 0)
PYTHON
); then
    echo "pod_start.sh: '$python' lacks what the worker needs ($missing); run: python3 -m venv '$here/.venv' &&" \
        "'$here/.venv/bin/pip' install --require-hashes -r '$here/requirements.lock'" >&2
    exit 1
fi

export PYTHONUNBUFFERED=1
# The SDK's own check would load torch and take GPU memory in this process; the worker asks ComfyUI instead.
export RUNPOD_SKIP_GPU_CHECK="${RUNPOD_SKIP_GPU_CHECK:-true}"

exec "$python" -u "$here/handler.py" "$@"

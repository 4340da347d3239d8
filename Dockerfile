# The worker on top of the official ComfyUI worker image, which brings CUDA, ComfyUI in /comfyui and its Python in /opt/venv.
#
# It adds the worker with its locked requirements in an environment of its own, so that ComfyUI's stays as it is.
# It brings no models and no custom node packs: those come from the network volume.
ARG BASE_IMAGE=runpod/worker-comfyui:5.8.5-base
FROM ${BASE_IMAGE}

LABEL org.opencontainers.image.title="morpheus-worker" \
      org.opencontainers.image.description="A RunPod serverless worker that makes ComfyUI a dependable service" \
      org.opencontainers.image.licenses="MIT"

ENV MORPHEUS_PYTHON=/opt/morpheus/bin/python

# The lock file alone first: this layer stays as long as the requirements do.
COPY requirements.lock /opt/morpheus-worker/
RUN python3 -m venv /opt/morpheus \
 && /opt/morpheus/bin/python -m pip install --no-cache-dir --no-deps --require-hashes \
        --requirement /opt/morpheus-worker/requirements.lock

WORKDIR /opt/morpheus-worker
COPY . .
RUN /opt/morpheus/bin/python -m pip install --no-cache-dir --no-deps --no-build-isolation --editable . \
 && ln -s /opt/morpheus/bin/morpheus /usr/local/bin/morpheus

STOPSIGNAL SIGTERM
CMD ["/opt/morpheus-worker/pod_start.sh"]

"""Morpheus: a RunPod serverless worker that makes ComfyUI a dependable service."""

__version__ = "0.1.0"

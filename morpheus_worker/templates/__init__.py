"""Workflow templates: ComfyUI graphs in API format with placeholders.

A file's way through the modules: `scan` finds placeholders in text, `reading` parses the file, `declared` reads
`_about` and `_params`, `document` holds what the file says; `places`, `params` and `completion` add what ComfyUI's
object info knows, which makes a `template`. A job's way: `resolving` decides values (`values` reads the caller's),
`bind` fills the graph.
"""

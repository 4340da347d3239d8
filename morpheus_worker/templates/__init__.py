"""Workflow templates: ComfyUI graphs in API format with placeholders.

A file's way through the modules: `scan` finds placeholders in text, `reading` parses the file, `declared` reads
`_about` and `_params`, `document` holds what the file says; `places`, `params`, `effects` and `completion` add what
ComfyUI's object info knows, which makes a `template`. A job's way: `resolving` decides values (`values` and `items`
read the caller's), `wiring` knows what a graph becomes when its links change, `bind` fills it, with `repeating` for
the nodes of lists and `brackets` for weights. `variations` are the graphs that a template can become.
"""

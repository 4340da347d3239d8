"""Files that output nodes saved without a word: ComfyUI's checkpoint and LoRA savers do so, and node packs' savers of
embeddings.

A node that reports nothing is asked after by its file name prefix, in the folder that `isolation` bound it to. A node
that reports something is believed: what it left beside that are parts and thumbnails.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, Final

from morpheus_worker.comfy.history import FileRef, Reported
from morpheus_worker.comfy.isolation import PREFIX_INPUT

MOST_GUESSES: Final = 32
"""Names that are tried for one file, each a request."""


def with_unreported(
    made: Reported, graph: Mapping[str, Any], outputs: Mapping[str, Any], found: Iterable[PurePosixPath]
) -> Reported:
    """What a prompt has to show, with the files of nodes that reported nothing.

    `graph` is the isolated graph that ran, `outputs` what its nodes reported, `found` the files in the job's own
    folder, relative to ComfyUI's output folder.
    """
    claimed = {posixpath.join(ref.subfolder, ref.filename) for ref in made.files if ref.folder == "output"}
    left = [path for path in dict.fromkeys(found) if str(path) not in claimed]
    silent = tuple(_unreported(graph, outputs, left)) if left else ()
    if not silent:
        return made
    saved = tuple(ref for ref in made.files if ref.folder == "output")
    previews = tuple(ref for ref in made.files if ref.folder != "output")
    return Reported(saved + silent, made.texts, made.unused + previews)


def guesses(graph: Mapping[str, Any], outputs: Mapping[str, Any]) -> Iterator[PurePosixPath]:
    """What silent nodes of known classes call their files in a new folder, for a ComfyUI whose folders nobody can list.
    Relative to ComfyUI's output folder."""
    prefixes = [node["inputs"].get(PREFIX_INPUT) for node in graph.values()]
    # ComfyUI counts on from what lies there under the prefix, so others that save under it come before.
    told = sum(map(_files_in, outputs.values()))
    for node_id, node in graph.items():
        prefix, ending = node["inputs"].get(PREFIX_INPUT), _ENDINGS.get(node["class_type"])
        if ending is not None and isinstance(prefix, str) and "%" not in prefix and not outputs.get(node_id):
            for number in range(1, min(prefixes.count(prefix) + told, MOST_GUESSES) + 1):
                yield PurePosixPath(f"{prefix}_{number:05}{ending}")


def _files_in(output: Any) -> int:
    lists = output.values() if isinstance(output, Mapping) else ()
    return sum(isinstance(item, Mapping) for value in lists if isinstance(value, list) for item in value)


_ENDINGS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("CheckpointSave", "ImageOnlyCheckpointSave", "ModelSave", "VAESave", "LoraSave"), "_.safetensors"),
    "IPAdapterSaveEmbeds": ".ipadpt",
}
"""Sources: ComfyUI 0.3.64, comfy_extras/nodes_model_merging.py and nodes_lora_extract.py; ComfyUI_IPAdapter_plus."""


def _unreported(
    graph: Mapping[str, Any], outputs: Mapping[str, Any], left: Iterable[PurePosixPath]
) -> Iterator[FileRef]:
    prefixes = {node_id: node["inputs"].get(PREFIX_INPUT) for node_id, node in graph.items()}
    # What ComfyUI itself fills in, %date% and its like, ends what is known of a name. Where several could have made a
    # file, it is theirs whose prefix says most; and of these, of those that reported nothing, one each in their order.
    known = {node_id: said.partition("%")[0] for node_id, said in prefixes.items() if isinstance(said, str)}
    claims: dict[str, list[PurePosixPath]] = {}
    for path in sorted(left):
        fitting = [prefix for prefix in known.values() if str(path).startswith(prefix)]
        if fitting:
            claims.setdefault(max(fitting, key=len), []).append(path)
    makers: dict[str, list[PurePosixPath]] = {}
    for prefix, paths in claims.items():
        silent = [node_id for node_id in graph if known.get(node_id) == prefix and not outputs.get(node_id)]
        if len(silent) == len(paths):
            makers |= {node_id: [path] for node_id, path in zip(silent, paths, strict=True)}
        elif silent:
            makers[silent[0]] = paths
    for node_id in graph:
        yield from (
            FileRef(node_id, path.name, str(path.parent), "output", "files") for path in makers.get(node_id, ())
        )

"""Entries added to a manifest's own text, which stays as it is: every comment, every line, its indentation."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

import yaml

from morpheus_worker.errors import Problem
from morpheus_worker.manifest import Manifest, ManifestError, ModelEntry, PackEntry, parse_manifest
from morpheus_worker.yaml_lines import as_json

LINE_WIDTH: Final = 120
"""Lists that would make a line longer than this are written one value a line."""

NEW_MANIFEST: Final = """\
# What the workflows need: every model file and every custom node pack, one entry each.
#
# Keys are never written here: `auth_env` is the NAME of the environment variable that holds one.

version: 1
"""

_UNTELLING: Final = frozenset(
    {"model", "pytorch_model", "diffusion_pytorch_model", "adapter_model", "ip-adapter", "config"}
)
"""File names that many models share; what tells them apart is their folder."""


def entry_id(path: PurePosixPath, taken: Collection[str]) -> str:
    """An id for the file, made of its name; of its folder's as well, or of its whole path, where that is taken."""
    stem = path.stem
    plain, with_folder = as_id(stem), as_id(f"{path.parent.name}-{stem}")
    mark = hashlib.sha256(str(path).encode()).hexdigest()
    numbered = (f"{with_folder[:100]}-{mark[:length]}" for length in range(6, len(mark)))
    first = [with_folder] if stem.lower() in _UNTELLING else [plain, with_folder]
    return next(each for each in (*first, as_id("-".join(path.with_name(stem).parts)), *numbered) if each not in taken)


def as_id(text: str) -> str:
    """The text as an id that an entry can have."""
    return re.sub(r"[^a-z0-9._]+", "-", text.lower()).strip("-._")[:128] or "model"


def new_manifest_text(entries: Sequence[ModelEntry], packs: Sequence[PackEntry] = ()) -> str:
    """A manifest of these entries.

    Raises:
        ManifestError: with every problem, such as an id that two of them have.
    """
    return with_entries(NEW_MANIFEST, entries, packs)


def with_entries(
    manifest_text: str, entries: Sequence[ModelEntry], packs: Sequence[PackEntry] = (), *, name: str = "the manifest"
) -> str:
    """The manifest's text with the entries behind those that it has. Nothing else of it is changed.

    Raises:
        ManifestError: when the text is no manifest, has one of the ids or paths already, or the entries are not valid.
    """
    before = parse_manifest(manifest_text, name=name)
    problems = [*_taken(before, entries), *_taken_packs(before, packs)]
    if problems:
        raise ManifestError(problems)
    cannot = [Problem(name, "is written in a way that nothing can be added to", "add the entry by hand")]
    text = manifest_text
    try:
        for section, items in (
            ("models", [_model(each) for each in entries]),
            ("custom_nodes", [_pack(each) for each in packs]),
        ):
            if items:
                text = _with_items(text, section, items)
    except yaml.YAMLError:
        raise ManifestError(cannot) from None
    after = parse_manifest(text, name=name)
    if after != Manifest(name, (*before.models, *entries), (*before.custom_nodes, *packs)):
        raise ManifestError(cannot)
    return text


def _taken(manifest: Manifest, entries: Iterable[ModelEntry]) -> Iterator[Problem]:
    ids = {entry.id for entry in manifest.models}
    places = {str(place).casefold(): entry.id for entry in manifest.models for place in (entry.path, *entry.also)}
    for entry in entries:
        if entry.id in ids:
            yield Problem(f"models.{entry.id}", "is the id of an entry already", "give it another one")
        for place in (entry.path, *entry.also):
            if owner := places.get(str(place).casefold()):
                yield Problem(f"models.{entry.id}", f"has the path {place}, which '{owner}' has already")


def _taken_packs(manifest: Manifest, packs: Iterable[PackEntry]) -> Iterator[Problem]:
    ids = {pack.id.casefold(): pack.id for pack in manifest.custom_nodes}
    for pack in packs:
        if owner := ids.get(pack.id.casefold()):
            yield Problem(f"custom_nodes.{pack.id}", f"is the folder of '{owner}' already")


# An entry as keys and values, what is not said left out, in the order in which they are read.


def _model(entry: ModelEntry) -> dict[str, Any]:
    told = {
        "id": entry.id,
        "path": str(entry.path),
        "also": [str(place) for place in entry.also],
        "workflows": list(entry.workflows),
        "phase": entry.phase if entry.phase != "lazy" else None,
        "prefetch": entry.prefetch,
        "sources": [dict(source) for source in entry.sources],
        "auth_env": entry.auth_env,
        "size": entry.size,
        "sha256": entry.sha256,
        "format": entry.format,
        "allow_pickle": entry.allow_pickle,
        "license": entry.license,
        "gated": entry.gated,
    }
    return {key: value for key, value in told.items() if value not in (None, False, [])}


def _pack(pack: PackEntry) -> dict[str, Any]:
    asked = None if pack.requirements is None else list(pack.requirements)
    told = {"id": pack.id, "repo": pack.repo, "commit": pack.commit, "workflows": list(pack.workflows) or None}
    # No line is something to say, too: that pip has nothing to do.
    return {key: value for key, value in {**told, "requirements": asked}.items() if value is not None}


# As text.

_PLAIN: Final = re.compile(r"[A-Za-z0-9/](?:[A-Za-z0-9 ._/+@()=-]*[A-Za-z0-9._/+()=-])?")
_REPOSITORY: Final = re.compile(r"https://[A-Za-z0-9./_-]+")


def _scalar(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return str(value)
    if _PLAIN.fullmatch(value) and yaml.safe_load(value) == value:
        return value
    return as_json(value)


def _flow(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _scalar(value)


def _block(item: Mapping[str, Any], margin: int) -> list[str]:
    """One item of a block sequence whose dashes stand at the column `margin`."""
    lines: list[str] = []
    for key, value in item.items():
        flow = f"{key}: {_flow(value)}"
        if key == "repo" and _REPOSITORY.fullmatch(value):
            lines.append(f"{key}: {value}")
        elif isinstance(value, list) and (key == "sources" or margin + 2 + len(flow) > LINE_WIDTH):
            lines += [f"{key}:", *(f"  - {_flow(each)}" for each in value)]
        else:
            lines.append(flow)
    return [" " * margin + ("- " if number == 0 else "  ") + line for number, line in enumerate(lines)]


def _blocks(items: Iterable[Mapping[str, Any]], margin: int) -> str:
    return "\n\n".join("\n".join(_block(item, margin)) for item in items) + "\n"


# Where it goes. Positions are of characters in the text.


@dataclass(frozen=True, slots=True)
class _Edit:
    start: int
    end: int
    text: str


def _with_items(text: str, section: str, items: Sequence[Mapping[str, Any]]) -> str:
    root = yaml.compose(text, yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)  # A manifest that could be read is one.
    found = next(((key, value) for key, value in root.value if key.value == section), None)
    if found is None:
        edit = _new_section(text, root, section, items)
    elif isinstance(found[1], yaml.SequenceNode) and found[1].value:
        edit = _behind_items(text, found[1], items)
    else:
        edit = _into_empty(text, root, *found, items)
    added = re.sub(r"(?<!\r)\n", "\r\n", edit.text) if "\r\n" in text else edit.text
    return text[: edit.start] + added + text[edit.end :]


def _new_section(text: str, root: yaml.MappingNode, section: str, items: Sequence[Mapping[str, Any]]) -> _Edit:
    last = max(_end(text, value) for _, value in root.value)
    if root.flow_style:
        return _Edit(last, last, f", {section}: {_flow(list(items))}")
    margin = _column(text, root)
    # Behind whatever comments come last, but within the document where its end is marked.
    marked = re.compile(r"^\.\.\.", re.MULTILINE).search(text, last)
    at = marked.start() if marked else len(text)
    opening = "" if text[:at].endswith(("\n\n", "\n\r\n")) else "\n" if text[:at].endswith("\n") else "\n\n"
    return _Edit(at, at, f"{opening}{' ' * margin}{section}:\n{_blocks(items, margin + 2)}")


def _behind_items(text: str, sequence: yaml.SequenceNode, items: Sequence[Mapping[str, Any]]) -> _Edit:
    if sequence.flow_style:
        last = _end(text, sequence.value[-1])
        return _Edit(last, last, "".join(f", {_flow(item)}" for item in items))
    margin = _column(text, sequence)
    at, complete = _behind_comments(text, _end(text, sequence.value[-1]), margin)
    return _Edit(at, at, ("\n" if complete else "\n\n") + _blocks(items, margin))


def _into_empty(
    text: str, root: yaml.MappingNode, key: yaml.Node, value: yaml.Node, items: Sequence[Mapping[str, Any]]
) -> _Edit:
    colon = text.find(":", key.end_mark.index, max(key.end_mark.index, value.start_mark.index))
    begin, end = (colon + 1 if colon >= 0 else key.end_mark.index), max(value.end_mark.index, value.start_mark.index)
    if isinstance(value, yaml.SequenceNode) and "\n" in text[begin:end]:
        inside = text.index("[", begin) + 1
        return _Edit(inside, inside, ", ".join(map(_flow, items)))
    if root.flow_style:
        return _Edit(begin, end, f"{' ' if colon >= 0 else ': '}{_flow(list(items))}")
    margin = _column(text, root)
    at, complete = _behind_comments(text, end, margin)
    return _Edit(begin, at, text[end:at] + ("" if complete else "\n") + _blocks(items, margin + 2))


def _behind_comments(text: str, end: int, margin: int) -> tuple[int, bool]:
    """Where the line at `end` is over, and with it the comments below that are indented deeper than `margin`: they
    belong to what stands there. With it, whether that line has an end, or the text ends first."""
    at, complete = _line_end(text, end)
    while belonging := re.compile(rf"[ ]{{{margin + 1},}}#").match(text, at):
        at, complete = _line_end(text, belonging.end())
    return at, complete


def _line_end(text: str, at: int) -> tuple[int, bool]:
    found = text.find("\n", at)
    return (found + 1, True) if found >= 0 else (len(text), False)


_PROPERTIES: Final = re.compile(r"(?:[&!][^\s,]*(?:[ \t]+|(?=[\r\n])))*(?:[ \t]*(?:#[^\r\n]*)?\r?\n)*[ ]*")


def _column(text: str, node: yaml.Node) -> int:
    """How far in the node's first key or dash stands. Before it there may be an anchor and a tag, with which YAML says
    that the node begins."""
    begin = int(node.start_mark.index)
    if text[begin : begin + 1] not in ("&", "!"):
        return int(node.start_mark.column)
    found = _PROPERTIES.match(text, begin)
    first = found.end() if found else begin
    return first - (text.rfind("\n", 0, first) + 1)


def _end(text: str, node: Any) -> int:
    """Behind the last character of it. The end that YAML gives a block is where the next one begins."""
    begin, end = int(node.start_mark.index), int(node.end_mark.index)
    if isinstance(node, yaml.ScalarNode):
        return begin + len(text[begin:end].rstrip()) if node.style in ("|", ">") else end
    if node.flow_style:
        return end
    pairs = node.value if isinstance(node, yaml.MappingNode) else [(each,) for each in node.value]
    return max(_end(text, each) for pair in pairs for each in pair)

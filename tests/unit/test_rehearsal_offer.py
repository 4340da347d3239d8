"""A rehearsal has the node packs that it is told to have."""

from __future__ import annotations

import pytest

from morpheus_worker.comfy.recorded import load_known, load_recorded, recorded_packs
from morpheus_worker.rehearsal.offer import PacksError, offered, parse_packs


def test_all_none_and_some() -> None:
    assert parse_packs("all") == set(recorded_packs())
    assert parse_packs("none") == set()
    assert parse_packs(" ComfyUI-PuLID , ComfyUI_InstantID,") == {"ComfyUI-PuLID", "ComfyUI_InstantID"}


def test_all_unknown_packs_are_named_at_once() -> None:
    with pytest.raises(PacksError) as caught:
        parse_packs("ComfyUI-PuLI,nothing")
    assert [problem.at for problem in caught.value.problems] == ["ComfyUI-PuLI", "nothing"]
    assert "did you mean 'ComfyUI-PuLID'?" in str(caught.value)


def test_what_is_offered() -> None:
    core, known = load_recorded(), load_known()
    assert offered().class_types == known.class_types
    assert offered([]).class_types == core.class_types
    some = offered(["ComfyUI-PuLID"])
    assert some.class_types == core.class_types | recorded_packs()["ComfyUI-PuLID"].class_types
    assert "ApplyPulid" in some
    with pytest.raises(PacksError):
        offered(["nothing"])

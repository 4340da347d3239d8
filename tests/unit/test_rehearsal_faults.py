"""Faults are read from words, all problems at once, and counted ones are spent."""

from __future__ import annotations

import pytest

from morpheus_worker.comfy.codec import MalformedFrameError, decode
from morpheus_worker.comfy.messages import Other
from morpheus_worker.rehearsal.faults import GARBAGE, OUT_OF_MEMORY, Box, FaultError, Faults, NodeFaultError


def test_nothing_goes_wrong_by_default() -> None:
    assert Faults.parse([]) == Faults()
    Box(Faults()).check("1", "KSampler")


def test_words() -> None:
    words = ["slow_node=0.5", "crash=KSampler", "drop_socket=2", "no_history", "empty_history=off", "http_500=1"]
    assert Faults.parse(words) == Faults(
        slow_node=0.5, crash="KSampler", drop_socket=2, no_history=True, empty_history=False, http_500=1
    )


def test_all_wrong_words_are_named_at_once() -> None:
    with pytest.raises(FaultError) as caught:
        Faults.parse(["slow_nod=1", "drop_socket=many", "crash", "slow_node=-1", "no_history=perhaps", "slow_node=inf"])
    assert [problem.at for problem in caught.value.problems] == [
        "slow_nod=1",
        "drop_socket=many",
        "crash",
        "slow_node=-1",
        "no_history=perhaps",
        "slow_node=inf",
    ]
    assert "did you mean 'slow_node'?" in str(caught.value)


def test_every_fault_is_explained() -> None:
    assert all(explained for _, explained in Faults.table())
    assert {name for name, _ in Faults.table()} == set(Faults.__dataclass_fields__)


@pytest.mark.parametrize("named", ["5", "KSampler"])
def test_a_node_is_named_by_its_id_or_class(named: str) -> None:
    with pytest.raises(NodeFaultError) as caught:
        Box(Faults(out_of_memory=named)).check("5", "KSampler")
    assert caught.value.exception_type == OUT_OF_MEMORY
    with pytest.raises(NodeFaultError, match="KSampler was told to fail"):
        Box(Faults(node_error=named)).check("5", "KSampler")
    Box(Faults(node_error=named)).check("6", "VAEDecode")


def test_counted_faults_are_spent() -> None:
    box = Box(Faults(http_500=2))
    assert [box.spend("http_500") for _ in range(3)] == [True, True, False]
    assert not box.spend("drop_socket")


def test_garbage_is_garbage() -> None:
    for frame in GARBAGE:
        try:
            assert isinstance(decode(frame), Other)
        except MalformedFrameError:
            continue

"""The judgement of a graph: every fault at once, and a refusal only where ComfyUI's is certain."""

from __future__ import annotations

import copy
import difflib
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from morpheus_worker.comfy.judging import Judgement, judge, refusal
from morpheus_worker.comfy.objectinfo import ObjectInfo, OwnChecks
from morpheus_worker.comfy.recorded import load_recorded
from morpheus_worker.comfy.wording import TRIPPED, Weight
from morpheus_worker.errors import MOST_TOLD, Code, MorpheusError

RECORDED = json.loads((Path(__file__).parent.parent / "data" / "validation_answers.json").read_text(encoding="utf-8"))
CASES = {case["case"]: case for case in RECORDED["answers"]}

STEPS = ["INT", {"default": 20, "min": 1, "max": 100}]
INFO = ObjectInfo(
    {
        "Make": {
            "input": {
                "required": {"size": STEPS, "name": ["STRING", {}], "mode": [["soft", "hard"], {}]},
                "optional": {"image": ["IMAGE"]},
            },
            "output": ["IMAGE", "MASK"],
            "python_module": "nodes",
        },
        "Turn": {"input": {"required": {"image": ["IMAGE"]}}, "output": ["IMAGE"], "python_module": "nodes"},
        "Load": {"input": {"required": {"model": [["a.safetensors"], {}]}}, "output": ["IMAGE"]},
        "Save": {"input": {"required": {"images": ["IMAGE"]}}, "output": [], "output_node": True},
        "Pack": {
            "input": {
                "required": {"image": ["IMAGE"], "size": STEPS, "mode": [["soft", "hard"], {}]},
                "optional": {"many": ["COMFY_AUTOGROW_V3", {}]},
            },
            "output": ["IMAGE"],
            "python_module": "custom_nodes.Pack",
        },
    }
)


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def make(**inputs: Any) -> dict[str, Any]:
    return node("Make", **({"size": 20, "name": "x", "mode": "soft"} | inputs))


def saved(first: dict[str, Any], **more: dict[str, Any]) -> dict[str, Any]:
    return {"1": first, "2": node("Save", images=["1", 0]), **more}


def told(judgement: Judgement) -> list[tuple[str | None, str | None, str, Weight]]:
    return [(fault.node_id, fault.input, fault.kind, fault.weight) for fault in judgement.faults]


def nowhere(_node_id: str, _name: str) -> str | None:
    return None


def refused(graph: Mapping[str, Any], info: ObjectInfo = INFO, **more: Any) -> MorpheusError:
    failure = refusal(graph, info, nowhere, **more)
    assert failure is not None
    return failure


def named_by_comfyui(answer: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for node_id, said in answer["node_errors"].items():
        for error in said["errors"]:
            if error["type"] not in TRIPPED:
                yield node_id, error["extra_info"]["input_name"]


@pytest.mark.parametrize("name", CASES)
def test_refuses_what_the_real_comfyui_refused_and_nothing_else(name: str) -> None:
    graph, answer = CASES[name]["graph"], CASES[name]["answer"]
    before = copy.deepcopy(graph)

    judgement = judge(graph, load_recorded(), input_exists=lambda file: file in RECORDED["input_files"])

    assert judgement.refused == (answer["status"] != 200)
    faults = {(fault.node_id, fault.input) for fault in judgement.faults}
    assert [place for place in named_by_comfyui(answer) if place not in faults] == []
    assert graph == before, "the caller's graph is not touched"


def test_a_good_graph_has_no_faults() -> None:
    assert judge(saved(make()), INFO) == Judgement()
    assert refusal(saved(make()), INFO, nowhere) is None


def test_everything_is_named_at_once_also_where_comfyui_would_have_stopped() -> None:
    graph = {
        "1": node("Make", size=0, mode="sift", image=["9", 0]),
        "2": node("Turn", image=["1", 1]),
        "3": node("Gone", image=["2", 0]),
        "4": node("Save", images=["2", 7]),
        "5": node("Save", images=["2"]),
        "6": node("Save", images="text"),
    }
    assert sorted(told(judge(graph, INFO, advice=False)), key=str) == [
        ("1", "image", "dangling_link", Weight.CERTAIN),
        ("1", "mode", "value_not_in_list", Weight.CERTAIN),
        ("1", "name", "required_input_missing", Weight.CERTAIN),
        ("1", "size", "value_smaller_than_min", Weight.CERTAIN),
        ("2", "image", "return_type_mismatch", Weight.CERTAIN),
        ("3", None, "missing_node_type", Weight.CERTAIN),
        ("4", "images", "no_such_output", Weight.CERTAIN),
        ("5", "images", "bad_linked_input", Weight.CERTAIN),
        ("6", "images", "value_for_link", Weight.DOUBTFUL),
    ]


def test_the_error_names_all_of_it_and_first_what_has_to_be_installed() -> None:
    failure = refused({**saved(make(size=0)), "3": node("Mak"), "4": node("Gone")}, pack_of={"Gone": "Some-Pack"}.get)
    assert failure.code == Code.MISSING_NODE
    assert failure.message == (
        "The workflow cannot run: "
        "node 3: this ComfyUI has no node class 'Mak' (did you mean 'Make'?); "
        "node 4: this ComfyUI has no node class 'Gone' (the node pack Some-Pack has it); "
        "node 1 (Make) input size: 0 is below the smallest value, 1"
    )
    assert failure.details["faults"][1:] == [
        {"node_id": "4", "class_type": "Gone", "input": None, "kind": "missing_node_type"},
        {"node_id": "1", "class_type": "Make", "input": "size", "kind": "value_smaller_than_min"},
    ]


def test_a_param_is_named_as_the_caller_knows_it() -> None:
    failure = refusal(saved(make(size=0)), INFO, params)
    assert failure is not None
    assert failure.code == Code.INVALID_PARAMS
    assert failure.message == "The params are refused: params.steps: 0 is below the smallest value, 1"


def params(node_id: str, name: str) -> str | None:
    return "params.steps" if (node_id, name) == ("1", "size") else None


def test_a_missing_model_comes_before_a_wrong_value() -> None:
    graph = saved(make(size=0), **{"3": node("Load", model="b.safetensors"), "4": node("Save", images=["3", 0])})
    failure = refused(graph)
    assert failure.code == Code.MISSING_MODEL
    assert [fault["kind"] for fault in failure.details["faults"]] == ["value_not_in_list", "value_smaller_than_min"]


# --- circles, outputs, idle nodes


def test_a_circle_is_named_with_its_links() -> None:
    graph = {
        "1": node("Turn", image=["3", 0]),
        "2": node("Turn", image=["1", 0]),
        "3": node("Turn", image=["2", 0]),
        "4": node("Save", images=["3", 0]),
    }
    (fault,) = judge(graph, INFO).faults
    assert fault.what == "is linked in a circle: 1 ← 3 ← 2 ← 1"
    assert fault.links == (("1", "image"), ("3", "image"), ("2", "image"))
    assert refused(graph).message.startswith("The workflow's links are wrong: node 1 (Turn) input image: ")


def test_a_node_that_reads_from_itself() -> None:
    (fault,) = judge(saved(node("Turn", image=["1", 0])), INFO).faults
    assert (fault.what, fault.links) == ("is linked in a circle: 1 ← 1", (("1", "image"),))


def test_a_long_circle_is_shortened() -> None:
    graph = {str(index): node("Turn", image=[str((index + 1) % 50), 0]) for index in range(50)}
    (fault,) = judge({**graph, "end": node("Save", images=["0", 0])}, INFO).faults
    assert fault.what == "is linked in a circle: 0 ← 1 ← 2 ← 3 ← 4 ← … ← 45 ← 46 ← 47 ← 48 ← 49 ← 0"
    assert len(fault.links) == 50


def test_a_graph_without_an_output() -> None:
    judgement = judge({"1": make()}, INFO)
    assert judgement.refused
    assert told(judgement) == [(None, None, "prompt_no_outputs", Weight.CERTAIN)]


def test_comfyui_does_not_look_at_what_leads_to_no_output() -> None:
    graph = saved(make(), **{"3": make(size=0)})
    assert not judge(graph, INFO).refused
    assert told(judge(graph, INFO)) == [
        ("3", "size", "value_smaller_than_min", Weight.HARMLESS),
        ("3", None, "leads_nowhere", Weight.HARMLESS),
    ]
    assert judge(graph, INFO, advice=False).faults == ()


def test_one_output_that_can_be_executed_is_enough() -> None:
    graph = saved(make(size=0), **{"3": make(), "4": node("Save", images=["3", 0])})
    judgement = judge(graph, INFO)
    assert not judgement.refused
    assert told(judgement) == [("1", "size", "value_smaller_than_min", Weight.CERTAIN)]


# --- inputs that no class declares


def test_an_input_that_the_class_does_not_have_is_worth_a_word() -> None:
    judgement = judge(saved(make(sise=3)), INFO)
    assert not judgement.refused
    assert told(judgement) == [("1", "sise", "undeclared_input", Weight.HARMLESS)]
    assert judgement.faults[0].hint == "did you mean 'size'?"


def test_a_link_to_nowhere_in_such_an_input_would_end_comfyuis_thread() -> None:
    failure = refused(saved(make(other=["9", 0])))
    assert failure.message == (
        "The workflow's links are wrong: node 1 (Make) input other: is linked to node 9, which is not there"
    )


def test_it_does_not_where_comfyui_does_not_execute_it() -> None:
    idle = saved(make(), **{"3": make(other=["9", 0])})
    assert not judge(idle, INFO).refused
    left_out = saved(make(), **{"3": make(size=0, other=["9", 0]), "4": node("Save", images=["3", 0])})
    assert not judge(left_out, INFO).refused, "ComfyUI leaves the wrong output out, and runs the other"


def test_a_circle_over_such_an_input_is_left_to_comfyui() -> None:
    judgement = judge(saved(make(other=["2", 0])), INFO)
    assert not judgement.refused
    assert ("dependency_cycle", Weight.DOUBTFUL) in [(fault.kind, fault.weight) for fault in judgement.faults]


# --- in doubt, ComfyUI decides


@pytest.mark.parametrize(
    "inputs", [{"size": 0}, {"size": 101}, {"mode": "sift"}, {"image": ["1", 1]}], ids=["low", "high", "choice", "type"]
)
def test_a_pack_of_which_nobody_knows_may_judge_for_itself(inputs: dict[str, Any]) -> None:
    wanted = {"image": ["1", 0], "size": 5, "mode": "soft"} | inputs
    graph = {"1": make(), "2": node("Pack", **wanted), "3": node("Save", images=["2", 0])}
    judgement = judge(graph, INFO)
    assert not judgement.refused
    assert [fault.weight for fault in judgement.faults] == [Weight.DOUBTFUL]

    known = judge(graph, ObjectInfo(INFO.raw, lambda _: OwnChecks()))
    assert known.refused
    left_to_it = OwnChecks(frozenset({"size", "mode"}), types=True)
    assert not judge(graph, ObjectInfo(INFO.raw, lambda _: left_to_it)).faults


@pytest.mark.parametrize("inputs", [{"size": "wide"}, {"size": [1]}, {"image": ["9", 0]}, {"image": ["1", 5]}])
def test_what_no_code_of_a_pack_can_let_pass(inputs: dict[str, Any]) -> None:
    wanted = {"image": ["1", 0], "size": 5, "mode": "soft"} | inputs
    graph = {"1": make(), "2": node("Pack", **wanted), "3": node("Save", images=["2", 0])}
    assert judge(graph, INFO).refused


def test_an_output_that_a_pack_of_which_nobody_knows_does_not_list() -> None:
    graph = {
        "1": make(),
        "2": node("Pack", image=["1", 0], size=5, mode="soft"),
        "3": node("Save", images=["2", 4]),
    }
    judgement = judge(graph, INFO)
    assert told(judgement) == [("3", "images", "no_such_output", Weight.DOUBTFUL)]
    assert not judgement.refused


def test_an_input_that_stands_for_others_may_be_absent() -> None:
    raw = {"Grow": {"input": {"required": {"many": ["COMFY_AUTOGROW_V3", {}]}}, "output": [], "output_node": True}}
    judgement = judge({"1": node("Grow", **{"many.0": 1})}, ObjectInfo(raw))
    assert not judgement.refused


def test_a_part_of_such_an_input_is_one_of_the_class() -> None:
    raw = {"Grow": {"input": {"required": {"many": ["COMFY_AUTOGROW_V3", {}]}}, "output_node": True}}
    judgement = judge({"1": node("Grow", many="x", **{"many.0": 1, "few.0": 1})}, ObjectInfo(raw))
    assert [(name, kind) for _, name, kind, _ in told(judgement)] == [("few.0", "undeclared_input")]


SWITCH = {
    "input": {"required": {"if_true": ["COMFY_MATCHTYPE_V3", {}]}},
    "output": ["COMFY_MATCHTYPE_V3"],
    "python_module": "comfy_extras.nodes_logic",
}


def test_a_type_that_stands_for_others_meets_any() -> None:
    info = ObjectInfo({**INFO.raw, "Switch": SWITCH})
    graph = saved(make(), **{"2": node("Switch", if_true=["1", 0]), "3": node("Save", images=["2", 0])})
    assert judge(graph, info) == Judgement()
    assert judge({**graph, "1": node("Gone")}, info).refused


@pytest.mark.parametrize("kind", ["INT,FLOAT", "NUMBER"])
def test_a_value_that_nobody_here_can_compare_is_left_to_the_pack(kind: str) -> None:
    counts = {"input": {"required": {"n": [kind, {"min": 0}]}}, "output": ["IMAGE"]}
    graph = saved(node("Count", n="3"))
    judgement = judge(graph, ObjectInfo({**INFO.raw, "Count": {**counts, "python_module": "custom_nodes.Pack"}}))
    assert told(judgement) == [("1", "n", TRIPPED[0], Weight.DOUBTFUL)]
    assert not judgement.refused
    assert judge(graph, ObjectInfo({**INFO.raw, "Count": {**counts, "python_module": "nodes"}})).refused


LONG = "a" * 1_000_000


@pytest.mark.parametrize(
    "graph",
    [
        pytest.param(saved(make(size=LONG)), id="a value of another type"),
        pytest.param(saved(make(mode=LONG)), id="a choice"),
        pytest.param(saved(node("Load", model=f"{LONG}.safetensors")), id="a model"),
        pytest.param(saved(make(image=[LONG, 0])), id="a link"),
        pytest.param(saved(make(image=["1", LONG])), id="an output"),
        pytest.param(saved(make(size={"__value__": [LONG]})), id="a list"),
        pytest.param({LONG: make(size=0), "2": node("Save", images=[LONG, 0])}, id="a node id"),
        pytest.param({LONG: make(image=[LONG, 0]), "2": node("Save", images=[LONG, 0])}, id="a circle"),
        pytest.param(saved(make(), **{"3": node(LONG)}), id="a class"),
        pytest.param(saved(make(**{LONG: ["9", 0]})), id="an input"),
        pytest.param({LONG: {"class_type": "Make"}}, id="a shape"),
    ],
)
def test_what_a_caller_sends_is_not_told_back_whole(graph: dict[str, Any]) -> None:
    failure = refused(graph)
    assert len(failure.message) + len(json.dumps(failure.details)) < 5_000


def test_a_class_is_only_looked_for_among_others_when_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    look = difflib.get_close_matches

    def counted(word: str, possibilities: Any, **more: Any) -> list[str]:
        looks.append(word)
        return look(word, possibilities, **more)

    monkeypatch.setattr(difflib, "get_close_matches", counted)
    graph = saved(make(), **{f"g{count}": node(f"Gone{count % 300}") for count in range(600)})
    assert "did you mean" not in refused(graph, fresh=Asked([])).message
    assert looks == [f"gone{count}" for count in range(MOST_TOLD)], "each once, and no more than are told"


def test_two_lists_of_files_may_have_been_read_at_two_times() -> None:
    files = {"input": {"required": {}}, "output": [["a.pt", "b.pt"]], "python_module": "nodes"}
    info = ObjectInfo({**INFO.raw, "Pick": files})
    judgement = judge({"1": node("Pick"), "2": node("Load", model=["1", 0]), "3": node("Save", images=["2", 0])}, info)
    assert told(judgement) == [("2", "model", "return_type_mismatch", Weight.DOUBTFUL)]
    assert not judgement.refused
    text = {"3": node("Save", images=["2", 0]), "2": node("Make", size=["1", 0], name="x", mode="soft")}
    assert judge({"1": node("Pick"), **text}, info).refused, "a choice is no number"


def test_a_class_that_is_only_a_little_alike_was_not_meant() -> None:
    for name, hint in (("SamplerK", None), ("Savee", "did you mean 'Save'?"), ("save", "did you mean 'Save'?")):
        (fault,) = (fault for fault in judge({"1": node(name)}, INFO).faults if fault.node_id)
        assert fault.hint == hint


@pytest.mark.parametrize(
    ("link", "what", "hint"),
    [
        ([1, 0], "is linked to the number 1, and a node's id is a text", 'write the id in quotes, "1"'),
        ([7, 0], "is linked to node 7, which is not there", None),
        (["1", "0"], "is linked to output '0' of Make: an output is a whole number", 'such as ["1", 0]'),
        (["1", 2], "is linked to output 2 of Make, which has 2", None),
        (
            [{"a": 1}, {"a": 2}],
            "is a list of two, which ComfyUI takes for a link to a node",
            'a list that is a value is written {"__value__": [...]}',
        ),
    ],
)
def test_a_link_that_is_written_wrongly_comes_with_the_way_to_write_it(link: Any, what: str, hint: str | None) -> None:
    (fault,) = judge({"1": make(), "2": node("Save", images=link)}, INFO, advice=False).faults
    assert (fault.what, fault.hint) == (what, hint)


def test_a_model_of_a_windows_machine_is_found_by_its_name() -> None:
    failure = refused(loaded("sub\\b.safetensors"), fresh=Asked(["sub/b.safetensors", "a.safetensors"]))
    assert failure.problems[0].hint == "did you mean 'sub/b.safetensors'?"
    failure = refused(loaded("sub\\other.safetensors"), fresh=Asked(["z.pt"]))
    assert failure.problems[0].hint == (
        "its folders have Windows' separator: here they are written with '/'; there are: z.pt"
    )


def test_one_headline_is_for_one_kind_of_problem() -> None:
    graph = {**loaded("c.safetensors"), "3": make(size=0), "4": node("Save", images=["3", 0])}
    failure = refused(graph)
    assert failure.code == Code.MISSING_MODEL
    assert failure.message.startswith("The workflow cannot run: node 1 (Load) input model: there is no model")


def test_outputs_behind_one_fault_are_judged_in_one_walk() -> None:
    chain = {str(i): node("Turn", image=[str(i - 1), 0]) for i in range(2, 400)}
    saves = {f"s{i}": node("Save", images=[str(i), 0]) for i in range(1, 400)}
    assert not judge(
        {"1": make(), **chain, **saves, "w": make(size=0), "sw": node("Save", images=["w", 0])}, INFO
    ).refused
    assert judge({"1": make(size=0), **chain, **saves}, INFO).refused


def test_a_value_that_is_still_to_come_is_not_judged() -> None:
    graph = saved(make(size="__later__"))
    assert judge(graph, INFO).refused
    assert not judge(graph, INFO, pending={("1", "size")}).faults
    absent = saved(node("Make", name="x", mode="soft"))
    assert judge(absent, INFO, pending={("1", "size")}).refused, "it has to be there"


@pytest.mark.parametrize(
    ("class_type", "name"), [("LoadImage", "image"), ("LoadImageMask", "image"), ("LoadAudio", "audio")]
)
def test_a_files_name_may_be_wrapped(class_type: str, name: str) -> None:
    graph = {"1": node(class_type, **{name: {"__value__": "any.png"}, "channel": "red"})}
    judgement = judge(graph, load_recorded(), input_exists=lambda file: file == "any.png")
    assert [fault.kind for fault in judgement.faults if fault.input == name] == []
    assert judge(graph, load_recorded(), input_exists=lambda _: False).faults[0].input == name


def test_a_loader_takes_what_will_be_staged() -> None:
    graph = saved(node("LoadImage", image="any.png"), **{"2": node("PreviewImage", images=["1", 0])})
    assert not judge(graph, load_recorded()).refused
    assert judge(graph, load_recorded(), input_exists=lambda _: False).refused
    linked = {**graph, "1": node("LoadImage", image=["3", 0]), "3": node("PrimitiveString", value="a.png")}
    assert [fault.what for fault in judge(linked, load_recorded()).faults] == [
        "takes one of its choices, but its link to node 3 brings STRING",
        "takes the name of a file, not a link",
    ]


# --- lists that have grown old


class Asked:
    """A ComfyUI that has other files by now."""

    def __init__(self, models: list[str]) -> None:
        self.asked: list[Collection[str]] = []
        self._models = models

    def __call__(self, class_types: Collection[str]) -> ObjectInfo:
        self.asked.append(class_types)
        load = {**INFO.raw["Load"], "input": {"required": {"model": [self._models, {}]}}}
        return ObjectInfo({**INFO.raw, "Load": load})


def loaded(model: str) -> dict[str, Any]:
    return {"1": node("Load", model=model), "2": node("Save", images=["1", 0])}


def test_a_model_that_has_come_since_is_no_reason_to_refuse() -> None:
    fresh = Asked(["a.safetensors", "b.safetensors"])
    assert refusal(loaded("b.safetensors"), INFO, nowhere, fresh=fresh) is None
    assert fresh.asked == [{"Load"}]


def test_a_model_that_is_still_absent_is_told_with_the_new_list() -> None:
    failure = refused(loaded("c_v1.safetensors"), fresh=Asked(["c_v2.safetensors"]))
    assert failure.code == Code.MISSING_MODEL
    assert "did you mean 'c_v2.safetensors'?" in failure.message


def test_comfyui_is_not_asked_when_it_could_not_say_otherwise() -> None:
    fresh = Asked([])
    assert refused(saved(make(size=0)), fresh=fresh).code == Code.INVALID_WORKFLOW
    assert refusal(loaded("a.safetensors"), INFO, nowhere, fresh=fresh) is None
    assert fresh.asked == []


# --- shapes


@pytest.mark.parametrize(
    ("graph", "is_refused"),
    [
        (None, True),
        ([], True),
        ({}, True),
        ({"1": 5}, True),
        ({"1": {"inputs": {}}}, True),
        ({"1": {"class_type": "Save"}}, True),
        (saved(make(), **{"3": {"class_type": "Make"}}), False),
    ],
)
def test_a_shape_that_is_none(graph: Any, is_refused: bool) -> None:
    judgement = judge(graph, INFO)
    assert judgement.refused is is_refused
    assert {fault.kind for fault in judgement.faults} == {"invalid_prompt"}


def test_the_editors_own_format_comes_with_the_way_out() -> None:
    failure = refused({"nodes": [], "links": []})
    assert failure.code == Code.INVALID_WORKFLOW
    assert "Export (API)" in failure.message


def test_a_chain_longer_than_the_stack_is_deep() -> None:
    graph: dict[str, Any] = {"0": make()}
    for index in range(1, 3000):
        graph[str(index)] = node("Turn", image=[str(index - 1), 0])
    assert not judge({**graph, "end": node("Save", images=["2999", 0])}, INFO).faults

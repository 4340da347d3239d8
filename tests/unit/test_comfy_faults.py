"""ComfyUI's refusals and errors, in words for the person who can act. The shapes are those of ComfyUI 0.3.64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from morpheus_worker.comfy.faults import TRACEBACK_LINES, from_execution, from_refusal, ignored_outputs
from morpheus_worker.comfy.messages import ExecutionError
from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.errors import Code, MorpheusError

MODELS = [f"family/model_{number:02}.safetensors" for number in range(30)]
STEPS = ["INT", {"default": 20, "min": 1, "max": 10000}]
INFO = ObjectInfo(
    {
        "KSampler": {
            "input": {
                "required": {
                    "model": ["MODEL"],
                    "steps": STEPS,
                    "sampler_name": [["euler", "ddim", "uni_pc"]],
                }
            },
            "output": ["LATENT"],
        },
        "CheckpointLoaderSimple": {"input": {"required": {"ckpt_name": [MODELS, {}]}}, "output": ["MODEL"]},
        "UpscaleModelLoader": {"input": {"required": {"model_name": [[], {}]}}, "output": ["UPSCALE_MODEL"]},
        "LoadImage": {"input": {"required": {"image": [["a.png"], {"image_upload": True}]}}, "output": ["IMAGE"]},
    }
)
GRAPH = {
    "3": {"class_type": "KSampler", "inputs": {}},
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {}},
    "5": {"class_type": "UpscaleModelLoader", "inputs": {}},
    "7": {"class_type": "LoadImage", "inputs": {}},
}
FAILED = {
    "type": "prompt_outputs_failed_validation",
    "message": "Prompt outputs failed validation",
    "details": "",
    "extra_info": {},
}


def too_small(value: int = 0) -> dict[str, Any]:
    return {
        "type": "value_smaller_than_min",
        "message": "Value 0 smaller than min of 1",
        "details": "steps",
        "extra_info": {"input_name": "steps", "input_config": STEPS, "received_value": value},
    }


def not_in_list(name: str, value: object, choices: list[str] | None) -> dict[str, Any]:
    """ComfyUI leaves the config out (null) where the list is longer than 20."""
    return {
        "type": "value_not_in_list",
        "message": "Value not in list",
        "details": f"{name}: '{value}' not in …",
        "extra_info": {
            "input_name": name,
            "input_config": [choices, {}] if choices is not None else None,
            "received_value": value,
        },
    }


def node_error(class_type: str, *errors: dict[str, Any]) -> dict[str, Any]:
    return {"errors": list(errors), "dependent_outputs": ["9"], "class_type": class_type}


def refused(
    node_errors: Mapping[str, Any],
    *,
    params: Mapping[tuple[str, str], str] | None = None,
    graph: Mapping[str, Any] = GRAPH,
    error: Mapping[str, Any] = FAILED,
) -> MorpheusError:
    names = params or {}
    return from_refusal(error, node_errors, graph, INFO, lambda node_id, name: names.get((node_id, name)))


def the_problem(failure: MorpheusError) -> str:
    [problem] = failure.problems
    assert str(problem) in failure.message
    return str(problem)


# --- a refused prompt


def test_a_value_that_came_from_a_param_is_the_params_fault() -> None:
    failure = refused({"3": node_error("KSampler", too_small())}, params={("3", "steps"): "params.steps"})
    assert failure.code == Code.INVALID_PARAMS
    assert not failure.retryable
    assert the_problem(failure) == "params.steps: 0 is below the smallest value, 1"


def test_a_value_of_the_graph_is_named_by_its_node() -> None:
    failure = refused({"3": node_error("KSampler", too_small())})
    assert failure.code == Code.INVALID_WORKFLOW
    assert the_problem(failure) == "node 3 (KSampler) input steps: 0 is below the smallest value, 1"


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (
            {
                "type": "value_bigger_than_max",
                "message": "Value 20000 bigger than max of 10000",
                "details": "steps",
                "extra_info": {"input_name": "steps", "input_config": STEPS, "received_value": 20000},
            },
            "20000 is above the largest value, 10000",
        ),
        (
            {
                "type": "required_input_missing",
                "message": "Required input is missing",
                "details": "steps",
                "extra_info": {"input_name": "steps"},
            },
            "is required and missing",
        ),
        (
            {
                "type": "invalid_input_type",
                "message": "Failed to convert an input value to a INT value",
                "details": "steps, many, invalid literal for int() with base 10: 'many'",
                "extra_info": {
                    "input_name": "steps",
                    "input_config": STEPS,
                    "received_value": "many",
                    "exception_message": "invalid literal for int() with base 10: 'many'",
                },
            },
            "'many' is no INT",
        ),
        (
            {
                "type": "return_type_mismatch",
                "message": "Return type mismatch between linked nodes",
                "details": "steps, received_type(IMAGE) mismatch input_type(INT)",
                "extra_info": {
                    "input_name": "steps",
                    "input_config": STEPS,
                    "received_type": "IMAGE",
                    "linked_node": ["7", 0],
                },
            },
            "takes INT, but its link to node 7 brings IMAGE",
        ),
        (
            {
                "type": "custom_validation_failed",
                "message": "Custom validation failed for node",
                "details": "steps - they must be even - and few",
                "extra_info": {"input_name": "steps", "input_config": STEPS, "received_value": 3},
            },
            "they must be even - and few",
        ),
        (
            {
                "type": "bad_linked_input",
                "message": "Bad linked input, must be a length-2 list of [node_id, slot_index]",
                "details": "steps",
                "extra_info": {"input_name": "steps", "input_config": STEPS, "received_value": ["7"]},
            },
            "is a list, which ComfyUI takes for a link, and a link is [node id, number of its output] "
            '(a list that is a value is written {"__value__": [...]})',
        ),
    ],
)
def test_each_kind_of_error_is_a_sentence(error: dict[str, Any], what: str) -> None:
    assert the_problem(refused({"3": node_error("KSampler", error)})) == f"node 3 (KSampler) input steps: {what}"


def test_an_exception_is_told_of_the_node_and_not_of_the_input_by_which_comfyui_came_to_it() -> None:
    error = {
        "type": "exception_during_inner_validation",
        "message": "Exception when validating inner node",
        "details": "boom",
        "extra_info": {"input_name": "positive", "exception_type": "ValueError", "traceback": []},
    }
    said = the_problem(refused({"3": node_error("KSampler", error)}))
    assert said == "node 3 (KSampler): Exception when validating inner node: boom"


def test_a_picture_that_comfyui_does_not_find() -> None:
    error = {
        "type": "custom_validation_failed",
        "message": "Custom validation failed for node",
        "details": "image - Invalid image file: gone.png",
        "extra_info": {"input_name": "image", "input_config": [["a.png"], {}], "received_value": "gone.png"},
    }
    assert the_problem(refused({"7": node_error("LoadImage", error)})) == (
        "node 7 (LoadImage) input image: Invalid image file: gone.png"
    )


def test_a_choice_that_is_none_names_the_nearest() -> None:
    error = not_in_list("sampler_name", "eular", ["euler", "ddim", "uni_pc"])
    failure = refused({"3": node_error("KSampler", error)}, params={("3", "sampler_name"): "params.sampler"})
    assert failure.code == Code.INVALID_PARAMS
    assert the_problem(failure) == "params.sampler: 'eular' is not one of the choices (did you mean 'euler'?)"


def test_a_choice_that_is_like_none_names_some() -> None:
    error = not_in_list("sampler_name", "???", ["euler", "ddim", "uni_pc"])
    assert the_problem(refused({"3": node_error("KSampler", error)})) == (
        "node 3 (KSampler) input sampler_name: '???' is not one of the choices (choices: euler, ddim, uni_pc)"
    )


def test_a_model_that_is_not_there_names_the_nearest_of_a_list_that_comfyui_left_out() -> None:
    error = not_in_list("ckpt_name", "model_07.safetensor", None)
    failure = refused({"4": node_error("CheckpointLoaderSimple", error)})
    assert "did you mean 'family/model_07.safetensors'?" in failure.message


def test_a_missing_model_is_the_operators_fault_even_where_a_param_named_it() -> None:
    error = not_in_list("ckpt_name", "other.safetensors", None)
    failure = refused({"4": node_error("CheckpointLoaderSimple", error)}, params={("4", "ckpt_name"): "params.model"})
    assert failure.code == Code.MISSING_MODEL
    assert the_problem(failure).startswith("params.model: there is no model 'other.safetensors'")


def test_a_long_list_of_models_is_shortened() -> None:
    error = not_in_list("ckpt_name", "quite/different.ckpt", None)
    said = the_problem(refused({"4": node_error("CheckpointLoaderSimple", error)}))
    assert said.endswith(f"there are: {', '.join(MODELS[:8])} and 22 more)")
    assert "(put it into checkpoints/ of the volume's model cache; there are" in said


def test_an_empty_folder_of_models_says_so() -> None:
    error = not_in_list("model_name", "x4.pth", [])
    said = the_problem(refused({"5": node_error("UpscaleModelLoader", error)}))
    assert said == (
        "node 5 (UpscaleModelLoader) input model_name: there is no model 'x4.pth' "
        "(put it into upscale_models/ of the volume's model cache; there is none in that folder)"
    )


def test_a_model_of_another_family_was_not_meant() -> None:
    error = not_in_list("vae_name", "ae.safetensors", ["sdxl_vae_fp16_fix.safetensors", "pixel_space"])
    said = the_problem(refused({"5": node_error("VAELoader", error)}))
    assert said.endswith("there are: sdxl_vae_fp16_fix.safetensors)")


def test_all_problems_of_all_nodes_are_named_at_once() -> None:
    failure = refused(
        {
            "3": node_error("KSampler", too_small(), not_in_list("sampler_name", "eular", ["euler"])),
            "4": node_error("CheckpointLoaderSimple", not_in_list("ckpt_name", "x.ckpt", None)),
        },
        params={("3", "steps"): "params.steps"},
    )
    assert [problem.at for problem in failure.problems] == [
        "node 4 (CheckpointLoaderSimple) input ckpt_name",
        "node 3 (KSampler) input sampler_name",
        "params.steps",
    ]
    assert failure.details["faults"] == [
        {"node_id": "4", "class_type": "CheckpointLoaderSimple", "input": "ckpt_name", "kind": "value_not_in_list"},
        {"node_id": "3", "class_type": "KSampler", "input": "sampler_name", "kind": "value_not_in_list"},
        {"node_id": "3", "class_type": "KSampler", "input": "steps", "kind": "value_smaller_than_min"},
    ]


def test_a_missing_model_comes_before_a_wrong_value() -> None:
    failure = refused(
        {
            "3": node_error("KSampler", too_small()),
            "4": node_error("CheckpointLoaderSimple", not_in_list("ckpt_name", "x.ckpt", None)),
        },
        params={("3", "steps"): "params.steps"},
    )
    assert failure.code == Code.MISSING_MODEL


def test_a_broken_workflow_comes_before_a_wrong_param() -> None:
    failure = refused(
        {"3": node_error("KSampler", too_small(), not_in_list("sampler_name", "eular", ["euler"]))},
        params={("3", "steps"): "params.steps"},
    )
    assert failure.code == Code.INVALID_WORKFLOW


def test_missing_nodes_are_all_named_with_the_nearest() -> None:
    graph = {
        "20": {"class_type": "KSamplerr", "inputs": {}},
        "21": {"class_type": "SomethingElseEntirely", "inputs": {}},
    }
    error = {
        "type": "invalid_prompt",
        "message": "Cannot execute because node KSamplerr does not exist.",
        "details": "Node ID '#20'",
        "extra_info": {},
    }
    failure = refused({}, graph=graph, error=error)
    assert failure.code == Code.MISSING_NODE
    assert [str(problem) for problem in failure.problems] == [
        "node 20: this ComfyUI has no node class 'KSamplerr' (did you mean 'KSampler'?)",
        "node 21: this ComfyUI has no node class 'SomethingElseEntirely'",
    ]


@pytest.mark.parametrize(
    "node", [{"inputs": {}}, {"class_type": None, "inputs": {}}, {"class_type": 7, "inputs": {}}], ids=str
)
def test_a_node_without_a_class_is_an_invalid_workflow(node: dict[str, Any]) -> None:
    error = {
        "type": "invalid_prompt",
        "message": "Cannot execute because a node is missing the class_type property.",
        "details": "Node ID '#20'",
        "extra_info": {},
    }
    failure = refused({}, graph={**GRAPH, "20": node}, error=error)
    assert failure.code == Code.INVALID_WORKFLOW
    assert "node 20" in failure.message


def test_a_graph_without_outputs() -> None:
    error = {"type": "prompt_no_outputs", "message": "Prompt has no outputs", "details": "", "extra_info": {}}
    failure = refused({}, error=error)
    assert failure.code == Code.INVALID_WORKFLOW
    assert the_problem(failure) == (
        "workflow: has no outputs: none of its nodes saves or shows anything (add an output node, such as SaveImage)"
    )
    assert failure.details["faults"] == [
        {"node_id": None, "class_type": None, "input": None, "kind": "prompt_no_outputs"}
    ]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ({"type": "x", "message": "This", "details": "that"}, "This: that"),
        ({}, "it does not say why"),
    ],
)
def test_a_refusal_of_the_whole(error: dict[str, Any], said: str) -> None:
    failure = refused({}, error=error)
    assert failure.code == Code.INVALID_WORKFLOW
    assert failure.message == f"ComfyUI refuses the workflow: {said}"


@pytest.mark.parametrize(
    "node_errors",
    [
        {"99": {"errors": [too_small()]}},
        {"3": {"errors": [{"type": "unheard_of"}], "class_type": "KSampler"}},
        {"3": {"errors": [{"type": "value_smaller_than_min", "extra_info": None}], "class_type": None}},
        {"3": {"errors": [{"type": "value_not_in_list"}], "class_type": "NoSuchNode"}},
        {"3": {"errors": [{"type": "invalid_input_type", "extra_info": {"input_config": []}}]}},
        {"3": {"errors": None}},
    ],
)
def test_an_unfamiliar_refusal_is_still_one(node_errors: dict[str, Any]) -> None:
    assert refused(node_errors).code in (Code.INVALID_WORKFLOW, Code.INVALID_PARAMS)


def test_outputs_that_comfyui_leaves_out_are_warnings() -> None:
    warnings = ignored_outputs({"3": node_error("KSampler", too_small())}, GRAPH, INFO)
    assert warnings == [
        "ComfyUI left outputs out: node 3 (KSampler) input steps: 0 is below the smallest value, 1",
    ]
    assert ignored_outputs({}, GRAPH, INFO) == []


# --- a node that raised


def raised(message: str, exception_type: str = "RuntimeError", traceback: tuple[str, ...] = ()) -> MorpheusError:
    return from_execution(ExecutionError("p", "3", "KSampler", exception_type, message, traceback))


@pytest.mark.parametrize(
    ("exception_type", "message"),
    [
        ("torch.OutOfMemoryError", "Allocation on device "),
        ("torch.cuda.OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB"),
        ("RuntimeError", "CUDA out of memory"),
        ("OutOfMemoryError", ""),
    ],
)
def test_out_of_memory(exception_type: str, message: str) -> None:
    failure = raised(message, exception_type)
    assert failure.code == Code.GPU_OUT_OF_MEMORY
    assert not failure.retryable
    assert "node 3 (KSampler)" in failure.message


@pytest.mark.parametrize(
    "message",
    [
        "No face detected",
        "no faces found in the image",
        "Face not detected",
        "The faces were not found",
        "No human face",
    ],
)
def test_no_face(message: str) -> None:
    assert raised(message, "Exception").code == Code.NO_FACE


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("image file is truncated (3 bytes not processed)", "OSError"),
        ("cannot identify image file '/input/x.png'", "PIL.UnidentifiedImageError"),
        ("broken PNG file (chunk b'IDAT')", "SyntaxError"),
    ],
)
def test_a_picture_that_cannot_be_read_is_the_callers(message: str, kind: str) -> None:
    assert raised(message, kind).code == Code.INPUT_REJECTED


@pytest.mark.parametrize("message", ["surface not found", "no facet", "interface not detected", "nonface"])
def test_no_face_is_not_read_into_other_words(message: str) -> None:
    assert raised(message).code == Code.EXECUTION_FAILED


def test_a_model_that_a_node_misses_while_it_runs() -> None:
    failure = raised("Model in folder 'upscale_models' with filename 'x4.pth' not found.", "FileNotFoundError")
    assert failure.code == Code.MISSING_MODEL
    assert "'x4.pth'" in failure.message
    assert "'upscale_models'" in failure.message


def test_any_other_failure_names_the_node_and_the_first_line() -> None:
    failure = raised(
        "mat1 and mat2 shapes cannot be multiplied\nsecond line", traceback=tuple(f"line {n}\n" for n in range(40))
    )
    assert failure.code == Code.EXECUTION_FAILED
    assert failure.message == "node 3 (KSampler) failed: mat1 and mat2 shapes cannot be multiplied"
    assert failure.details["exception_message"].endswith("second line")
    assert failure.details["node_id"] == "3"
    assert failure.details["class_type"] == "KSampler"
    assert failure.details["exception_type"] == "RuntimeError"
    assert failure.details["traceback"] == [f"line {n}" for n in range(40 - TRACEBACK_LINES, 40)]


def test_a_failure_without_a_message_is_named_by_its_type() -> None:
    assert raised("  \n", "AssertionError").message == "node 3 (KSampler) failed: AssertionError"

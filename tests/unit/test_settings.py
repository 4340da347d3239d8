"""Settings: every variable of the environment, its default, and what is said when it is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from morpheus_worker.settings import Settings, SettingsError, unknown_settings, variable_of


def problems_of(**environ: str) -> dict[str, str]:
    with pytest.raises(SettingsError) as refused:
        Settings.from_environment({f"MORPHEUS_{name}": value for name, value in environ.items()})
    assert all(str(problem) in str(refused.value) for problem in refused.value.problems)
    return {problem.at: problem.what for problem in refused.value.problems}


def test_an_empty_environment_is_that_of_a_serverless_worker() -> None:
    settings = Settings.from_environment({})
    assert settings.volume_root == Path("/runpod-volume")
    assert settings.cache_dir == Path("/runpod-volume/morpheus_model_cache")
    assert settings.child_dir == Path("/comfyui")
    assert settings.comfyui_url == "http://127.0.0.1:8188"
    assert settings.concurrency == 1
    assert settings.workflows_dir.is_dir()
    assert settings.manifest.is_file()


@pytest.mark.parametrize(
    ("variable", "value", "field", "meaning"),
    [
        ("MORPHEUS_VOLUME_ROOT", "/mnt/v", "volume_root", Path("/mnt/v")),
        ("MORPHEUS_MODEL_CACHE", "/mnt/cache", "cache_dir", Path("/mnt/cache")),
        ("MORPHEUS_COMFYUI_DIR", "/opt/ComfyUI", "child_dir", Path("/opt/ComfyUI")),
        ("MORPHEUS_COMFYUI_PYTHON", "/opt/venv/bin/python", "comfyui_python", Path("/opt/venv/bin/python")),
        ("MORPHEUS_COMFYUI_URL", "https://comfy.example:8443/", "comfyui_url", "https://comfy.example:8443/"),
        ("MORPHEUS_COMFYUI_ARGS", "--cpu --extra 'two words'", "comfyui_args", ("--cpu", "--extra", "two words")),
        ("MORPHEUS_WORKFLOWS_DIR", "/mnt/w", "workflows_dir", Path("/mnt/w")),
        ("MORPHEUS_MANIFEST", "/mnt/m.yaml", "manifest", Path("/mnt/m.yaml")),
        ("MORPHEUS_CONCURRENCY", "2", "concurrency", 2),
        ("MORPHEUS_JOB_TIMEOUT_S", "90.5", "job_timeout_s", 90.5),
        (
            "MORPHEUS_MEDIA_PRIVATE_HOSTS",
            "10.0.0.0/8, files.internal",
            "media_private_hosts",
            ("10.0.0.0/8", "files.internal"),
        ),
        ("MORPHEUS_OUTPUTS", "base64", "outputs", "base64"),
        ("MORPHEUS_MAX_RESULT_BYTES", "5000000", "max_result_bytes", 5_000_000),
        ("MORPHEUS_LOG_FORMAT", "text", "log_format", "text"),
        ("MORPHEUS_LOG_LEVEL", "DEBUG", "log_level", "DEBUG"),
    ],
)
def test_a_variable_sets_its_field(variable: str, value: str, field: str, meaning: Any) -> None:
    assert getattr(Settings.from_environment({variable: value}), field) == meaning


@pytest.mark.parametrize(("value", "told"), [(" 0", False), ("False ", False), ("1", True), ("", None)])
def test_the_name_that_face_refinement_has_elsewhere(value: str, told: bool | None) -> None:
    settings = Settings.from_environment({"ENABLE_FACE_REFINEMENT": value})
    assert dict(settings.deployment) == ({} if told is None else {"ENABLE_FACE_REFINEMENT": told})


def test_the_buckets_variables_keep_the_names_that_others_gave_them() -> None:
    said = {
        "BUCKET_ENDPOINT_URL": "https://s3.example",
        "BUCKET_ACCESS_KEY_ID": "me",
        "BUCKET_SECRET_ACCESS_KEY": "s3cr3t",
    }
    settings = Settings.from_environment(said)
    assert settings.bucket_endpoint_url == "https://s3.example"
    assert settings.bucket_secret_access_key is not None
    assert settings.bucket_secret_access_key.get_secret_value() == "s3cr3t"
    assert "s3cr3t" not in repr(settings) + str(settings.table())
    assert unknown_settings(said | {"BUCKET_NAMES": "x"}) == [], "only names with our own prefix are judged"


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"BUCKET_ACCESS_KEY_ID": "me"}, "BUCKET_SECRET_ACCESS_KEY"),
        ({"BUCKET_SECRET_ACCESS_KEY": "s3cr3t"}, "BUCKET_ACCESS_KEY_ID"),
        ({"MORPHEUS_MODELS_TO_SECRET_ACCESS_KEY": "s3cr3t"}, "MORPHEUS_MODELS_TO_ACCESS_KEY_ID"),
        ({"MORPHEUS_MODELS_TO_ENDPOINT_URL": "https://me:s3cr3t@s3.example"}, "MORPHEUS_MODELS_TO_ENDPOINT_URL"),
        ({"MORPHEUS_OUTPUTS": "s3"}, "BUCKET_ENDPOINT_URL"),
        ({"BUCKET_ENDPOINT_URL": "s3.example"}, "BUCKET_ENDPOINT_URL"),
        ({"BUCKET_NAME": "arn:aws:s3:us-west-2:1:accesspoint/b"}, "BUCKET_NAME"),
        ({"BUCKET_ENDPOINT_URL": "https://me:s3cr3t@s3.example"}, "BUCKET_ENDPOINT_URL"),
        ({"MORPHEUS_S3_URL_TTL_S": "604801"}, "MORPHEUS_S3_URL_TTL_S"),
    ],
)
def test_a_bucket_that_cannot_be_used_is_said_without_its_secret(environ: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError, match=said) as refused:
        Settings.from_environment(environ)
    assert "s3cr3t" not in str(refused.value)


def test_a_url_alone_names_a_comfyui_that_already_runs() -> None:
    url = {"MORPHEUS_COMFYUI_URL": "http://127.0.0.1:8188"}
    assert Settings.from_environment(url).child_dir is None
    assert Settings.from_environment({**url, "MORPHEUS_COMFYUI_DIR": "/opt/ComfyUI"}).child_dir == Path("/opt/ComfyUI")


@pytest.mark.parametrize("nothing", ["", "  ", "\n"])
def test_an_empty_variable_counts_as_absent(nothing: str) -> None:
    names = [f"MORPHEUS_{field.upper()}" for field in Settings.model_fields]
    assert Settings.from_environment(dict.fromkeys(names, nothing)) == Settings.from_environment({})
    assert Settings.from_environment(dict.fromkeys(names, nothing)).child_dir == Path("/comfyui")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CONCURRENCY", "0"),
        ("CONCURRENCY", "9"),
        ("CONCURRENCY", "many"),
        ("CONCURRENCY", "1.5"),
        ("JOB_TIMEOUT_S", "0"),
        ("JOB_TIMEOUT_S", "-1"),
        ("JOB_TIMEOUT_S", "nan"),
        ("VOLUME_TIMEOUT_S", "-1"),
        ("COMFYUI_URL", "127.0.0.1:8188"),
        ("COMFYUI_URL", "ws://127.0.0.1:8188"),
        ("COMFYUI_URL", "http://127.0.0.1:8188/api"),
        ("COMFYUI_URL", "http://"),
        ("COMFYUI_ARGS", "--extra 'no end"),
        ("LOG_FORMAT", "yaml"),
        ("LOG_LEVEL", "LOUD"),
        ("MAX_INPUT_BYTES", "0"),
    ],
)
def test_a_wrong_value_is_named_by_its_variable(name: str, value: str) -> None:
    [(at, what)] = problems_of(**{name: value}).items()
    assert at == f"MORPHEUS_{name}"
    assert what


def test_all_wrong_values_are_named_at_once() -> None:
    found = problems_of(CONCURRENCY="0", JOB_TIMEOUT_S="soon", LOG_FORMAT="yaml", COMFYUI_ARGS="'")
    assert set(found) == {
        "MORPHEUS_CONCURRENCY",
        "MORPHEUS_JOB_TIMEOUT_S",
        "MORPHEUS_LOG_FORMAT",
        "MORPHEUS_COMFYUI_ARGS",
    }


@pytest.mark.parametrize("name", ["VOLUME_ROOT", "MODEL_CACHE", "COMFYUI_DIR"])
def test_a_relative_folder_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=f"MORPHEUS_{name}.*absolute"):
        Settings.from_environment({f"MORPHEUS_{name}": "some/where"})


def test_a_relative_folder_is_named_beside_the_other_problems() -> None:
    found = problems_of(VOLUME_ROOT="some/where", MODEL_CACHE="else/where", CONCURRENCY="0")
    assert set(found) == {"MORPHEUS_VOLUME_ROOT", "MORPHEUS_MODEL_CACHE", "MORPHEUS_CONCURRENCY"}


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Settings.from_environment({}).concurrency = 2  # type: ignore[misc]


def test_a_misspelt_variable_is_found_with_the_nearest_name() -> None:
    environ = {
        "MORPHEUS_VOLUM_ROOT": "/x",
        "MORPHEUS_ZZZZZZ": "1",
        "MORPHEUS_CONCURRENCY": "1",
        "MORPHEUS_TEST_COMFYUI_DIR": "/x",
        "HOME": "/root",
    }
    found = {problem.at: problem.hint for problem in unknown_settings(environ)}
    assert found == {
        "MORPHEUS_VOLUM_ROOT": "did you mean 'MORPHEUS_VOLUME_ROOT'?",
        "MORPHEUS_ZZZZZZ": "'morpheus config' lists the settings",
    }


def test_the_table_has_every_setting_with_its_value_and_meaning() -> None:
    settings = Settings.from_environment({"MORPHEUS_COMFYUI_ARGS": "--extra 'two words'"})
    table = {name: (value, description) for name, value, description in settings.table()}
    assert set(table) == {variable_of(field) for field in Settings.model_fields}
    assert all(description for _, description in table.values())
    assert table["MORPHEUS_COMFYUI_ARGS"][0] == "--extra 'two words'"
    assert table["MORPHEUS_MODEL_CACHE"][0] == ""
    assert table["MORPHEUS_VOLUME_ROOT"][0] == "/runpod-volume"

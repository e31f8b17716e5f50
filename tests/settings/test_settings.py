from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from entrypoint.settings import command_line, schema, services
from entrypoint.system.errors import UserError


def test_flag_comes_before_environment_before_service_file_before_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    service_file = tmp_path / services.HYPERPARAMETERS
    service_file.parent.mkdir(parents=True)
    service_file.write_text(json.dumps({"batch_size": "3", "seed": "3", "num_steps": "3"}))
    monkeypatch.setattr(services, "ROOT", tmp_path)
    monkeypatch.setenv("BATCH_SIZE", "2")
    monkeypatch.setenv("SEED", "2")
    values = command_line.load(["--batch-size", "1"]).settings
    assert (values.batch_size, values.seed, values.num_steps, values.max_skipped) == (1, 2, 3, 0.1)


@pytest.mark.parametrize("flag", ["--batch-size=8", "--batch_size=8", "--BATCH_SIZE=8", "--Batch-Size=8"])
def test_flag_is_read_in_every_spelling(flag: str) -> None:
    assert command_line.load([flag]).settings.batch_size == 8


def test_first_number_is_the_number_of_steps() -> None:
    command = command_line.load(["30", "--seed", "1"])
    assert (command.name, command.settings.num_steps, command.settings.seed) == (None, 30, 1)


def test_manifests_can_leave_the_number_of_steps_to_the_job() -> None:
    command = command_line.load(["auto", "--seed", "1"])
    assert (command.name, command.settings.num_steps) == (None, "auto")


def test_number_of_steps_given_twice_is_refused() -> None:
    with pytest.raises(UserError, match="NUM_STEPS is given twice: 30 and --num_steps 20"):
        command_line.load(["30", "--num-steps", "20"])


@pytest.mark.parametrize("arguments", [["--batch-sise", "8"], ["--batchsize=8"]])
def test_unknown_flag_is_refused_with_the_nearest_name(arguments: list[str]) -> None:
    with pytest.raises(UserError, match=r"not a setting of this job. The nearest is BATCH_SIZE"):
        command_line.load(arguments)


def test_abbreviated_flag_is_refused() -> None:
    with pytest.raises(UserError, match="--batch is not a setting"):
        command_line.load(["--batch=8"])


def test_misspelt_variable_is_refused_with_the_nearest_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEARNING_RATES", "0.1")
    with pytest.raises(UserError, match=r"LEARNING_RATES is not a setting of this job. The nearest is LEARNING_RATE"):
        command_line.load([])


def test_foreign_variables_are_let_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MODELS", "SEEDS", "WORKSPACE_DIR", "CHECKPOINT_PATH"):
        monkeypatch.setenv(name, "x")
    assert command_line.load([]).settings.seed == 42


def test_stray_word_is_refused_as_such() -> None:
    with pytest.raises(UserError, match="'20' is one word too many"):
        command_line.load(["10", "20"])


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("NUM_STEPS", "0", "greater than or equal to 1"),
        ("NUM_STEPS", "many", "valid integer"),
        ("LEARNING_RATE", "-1", "greater than 0"),
        ("VALIDATION_FRACTION", "1", "less than or equal to 0.9"),
        ("EXPORTS", "tflite,caffe", "saved_model, tflite"),
        ("SERVING_VERSION", "0", "greater than or equal to 1"),
        ("SERVING_VERSION", "v1", "valid integer"),
        ("CHECKPOINT_SHA256", "abc", "pattern"),
    ],
)
def test_bad_value_is_refused_with_name_value_and_what_is_right(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as caught:
        command_line.load([])
    assert name in str(caught.value)
    assert value.rpartition(",")[2] in str(caught.value)
    assert words in str(caught.value)


def test_results_lie_in_the_bucket_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_DIR", "/some/bucket")
    assert command_line.load([]).settings.result_dir == Path("/some/bucket/results")
    assert command_line.load(["--result-dir", "/else"]).settings.result_dir == Path("/else")


def test_work_dir_is_the_same_for_the_same_bucket_and_another_for_another() -> None:
    first, again, other = (command_line.load(["--data-dir", name]).settings.work_dir for name in ("/a", "/a", "/b"))
    assert first == again
    assert first != other


def test_relative_paths_are_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert command_line.load(["--data-dir", "bucket"]).settings.data_dir == tmp_path / "bucket"


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        command_line.load([]).settings.seed = 1


def test_one_wrong_place_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_DIR", "ftp://host/x")
    with pytest.raises(UserError) as caught:
        command_line.load([])
    assert str(caught.value) == "DATA_DIR='ftp://host/x': neither a folder nor one of s3://, cos://, gs://"


@pytest.mark.parametrize("name", ["RESULT_DIR", "CHECKPOINT_DIR", "TENSORBOARD_DIR"])
def test_nothing_is_published_into_the_work(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORK_DIR", str(tmp_path))
    monkeypatch.setenv(name, str(tmp_path / "checkpoint"))
    with pytest.raises(UserError, match=f"WORK_DIR=.* and {name}=.* lie in one another"):
        command_line.load([])


def numbers_in(annotation: Any, constraints: list[Any]) -> Iterator[set[str]]:
    """The names of the constraints on each type of numbers in an annotation."""
    if annotation in (int, float):
        yield {type(each).__name__ for each in constraints}
    inner = list(getattr(annotation, "__metadata__", ()))
    own = [each for field in inner for each in getattr(field, "metadata", [field])]
    for part in get_args(annotation):
        yield from numbers_in(part, own or constraints)


def test_every_number_is_bounded_on_both_sides() -> None:
    fields = schema.Settings.model_fields
    found = {name: list(numbers_in(field.annotation, field.metadata)) for name, field in fields.items()}
    found = {name: types for name, types in found.items() if types}
    assert {"num_steps", "batch_size", "learning_rate", "seed", "train_image_size", "workers"} <= found.keys()
    for name, types in found.items():
        for constraints in types:
            assert constraints & {"Ge", "Gt"}, name
            assert constraints & {"Le", "Lt"}, name


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e300"])
@pytest.mark.parametrize("name", ["LEARNING_RATE", "CHECKPOINT_SECONDS", "RETRY_SECONDS", "MAX_SKIPPED"])
def test_number_without_end_is_refused_by_name(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"{name}="):
        command_line.load([])


@pytest.mark.parametrize("value", ["2147483648", str(2**32), "99999999999999999999"])
def test_seed_that_training_could_not_resume_with_is_refused(value: str) -> None:
    with pytest.raises(UserError, match="SEED="):
        command_line.load(["--seed", value])


def test_json_and_only_are_refused_where_they_mean_nothing() -> None:
    for words in (["--json"], ["30", "--json"], ["train", "--json"]):
        with pytest.raises(UserError, match="--json belongs to check and models"):
            command_line.load(words)
    for words in (["--only"], ["30", "--only"], ["check", "--only"]):
        with pytest.raises(UserError, match="--only belongs to a step"):
            command_line.load(words)
    assert command_line.load(["check", "--json"]).as_json
    assert command_line.load(["train", "--only"]).only


@pytest.mark.parametrize(
    "words", [["--exports", ","], ["--work-dir", "s3://bucket/x"], ["--pipeline-config", "gs://a/b"]]
)
def test_value_that_would_mean_nothing_is_refused_by_name(words: list[str]) -> None:
    with pytest.raises(UserError, match=f"{words[0].lstrip('-').upper().replace('-', '_')}="):
        command_line.load(words)


def test_version_for_tensorflow_serving_needs_a_saved_model() -> None:
    with pytest.raises(UserError, match=r"SERVING_VERSION=3 .* EXPORTS=tflite .* set EXPORTS=saved_model,tflite"):
        command_line.load(["--serving-version", "3", "--exports", "tflite"])
    assert command_line.load(["--serving-version", "3"]).settings.serving_version == 3


@pytest.mark.parametrize(
    ("arguments", "is_on", "steps"),
    [
        (["--profile", "300"], True, 300),
        (["300", "--profile"], True, 300),
        (["--profile", "false", "300"], False, 300),
        (["--PROFILE=true", "300"], True, 300),
        (["--profile", "--seed", "7", "300"], True, 300),
        (["300"], False, 300),
    ],
)
def test_switch_needs_no_value_and_takes_one(arguments: list[str], is_on: bool, steps: int) -> None:
    settings = command_line.load(arguments).settings
    assert (settings.profile, settings.num_steps) == (is_on, steps)

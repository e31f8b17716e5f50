from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from entrypoint.settings import command_line, services
from entrypoint.system.errors import UserError

CLUSTER = {"cluster": {"chief": ["a:2222"], "worker": ["b:2222"]}, "task": {"type": "worker", "index": 0}}


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the container's root."""
    monkeypatch.setattr(services, "ROOT", tmp_path)
    return tmp_path


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def sagemaker(root: Path, channels: tuple[str, ...] = ("training",), **hyperparameters: str) -> None:
    """The files and folders of a SageMaker training job."""
    write(root / services.HYPERPARAMETERS, hyperparameters)
    write(root / services.CHANNELS, {name: {"TrainingInputMode": "File"} for name in channels})
    write(root / services.RESOURCES, {"current_host": "algo-1", "hosts": ["algo-1"]})
    for path in (*(f"input/data/{name}" for name in channels), "model", "output/data", "checkpoints"):
        (root / "opt/ml" / path).mkdir(parents=True)


def test_sagemaker_s_folders_and_hyperparameters(root: Path) -> None:
    given = {"num_steps": "30", "Batch-Size": "4", "sagemaker_region": "x", "model": "smoke"}
    sagemaker(root, ("training",), **given)
    values = command_line.load([]).settings
    assert (values.num_steps, values.batch_size, values.model) == (30, 4, "smoke")
    assert values.data_dir == root / "opt/ml/input/data/training"
    assert values.result_dir == root / "opt/ml/model"
    assert values.checkpoint_dir == root / "opt/ml/checkpoints"
    assert values.tf_config is None


def test_sagemaker_s_only_channel_is_the_data_whatever_its_name(root: Path) -> None:
    sagemaker(root, channels=("photos",))
    assert command_line.load([]).settings.data_dir == root / "opt/ml/input/data/photos"


def test_sagemaker_s_channel_that_is_named_like_data_comes_first(root: Path) -> None:
    sagemaker(root, channels=("checkpoint", "train"))
    assert command_line.load([]).settings.data_dir == root / "opt/ml/input/data/train"


def test_sagemaker_s_channels_without_a_hint_are_refused(root: Path) -> None:
    sagemaker(root, channels=("one", "two"))
    with pytest.raises(
        UserError, match="channels are one, two, and no channel is called training or train or data: set the"
    ):
        command_line.load([])


def test_hyperparameter_names_the_channel(root: Path) -> None:
    sagemaker(root, channels=("one", "two"), data_dir="/opt/ml/input/data/two")
    assert command_line.load([]).settings.data_dir == Path("/opt/ml/input/data/two")


def test_flag_names_the_channel(root: Path) -> None:
    sagemaker(root, channels=("one", "two"))
    assert command_line.load(["--data-dir", "/opt/ml/input/data/one"]).settings.data_dir == Path(
        "/opt/ml/input/data/one"
    )


def test_what_a_service_gives_malformed_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTER_SPEC", "{")
    with pytest.raises(UserError, match="CLUSTER_SPEC is not what Vertex AI documents"):
        command_line.load([])
    monkeypatch.delenv("CLUSTER_SPEC")
    sagemaker(root)
    write(root / services.RESOURCES, {"hosts": ["a", "b"]})
    with pytest.raises(UserError, match=r"resourceconfig\.json is not what SageMaker documents: KeyError"):
        command_line.load([])


def test_unknown_hyperparameter_is_refused_with_the_nearest_name(root: Path) -> None:
    sagemaker(root, batchsize="4")
    with pytest.raises(
        UserError, match=r"batchsize in /opt/ml.* is not a setting of this job. The nearest is BATCH_SIZE"
    ):
        command_line.load([])


def test_sagemaker_s_hosts_are_a_cluster(root: Path) -> None:
    sagemaker(root)
    write(root / services.RESOURCES, {"current_host": "algo-2", "hosts": ["algo-2", "algo-1"]})
    found = command_line.load([]).settings.tf_config
    assert found is not None
    assert found.cluster == {"worker": ["algo-1:2222", "algo-2:2222"]}
    assert (found.rank, found.is_chief) == (1, False)


def test_vertex_s_addresses_become_its_mounts(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "gcs/bucket").mkdir(parents=True)
    for name, folder in (("MODEL_DIR", "model"), ("CHECKPOINT_DIR", "checkpoints"), ("TENSORBOARD_LOG_DIR", "logs")):
        monkeypatch.setenv(f"AIP_{name}", f"gs://bucket/job/{folder}/")
    values = command_line.load([]).settings
    # What Vertex AI takes the model from is then the very folder that the job's SavedModel goes to.
    assert values.result_dir == root / "gcs/bucket/job"
    assert values.checkpoint_dir == root / "gcs/bucket/job/checkpoints"
    assert values.tensorboard_dir == root / "gcs/bucket/job/logs"


def test_vertex_s_addresses_are_taken_as_such_without_a_mount(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIP_MODEL_DIR", "gs://bucket/job/model/")
    assert str(command_line.load([]).settings.result_dir) == "gs://bucket/job"


def test_vertex_s_cluster_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    pools = {"workerpool0": ["a:2222"], "workerpool1": ["b:2222", "c:2222"]}
    spec = {"cluster": pools, "task": {"type": "workerpool1", "index": 1}, "environment": "cloud"}
    monkeypatch.setenv("CLUSTER_SPEC", json.dumps(spec))
    found = command_line.load([]).settings.tf_config
    assert found is not None
    assert (found.size, found.rank, found.is_chief) == (3, 2, False)


def test_azure_s_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AZUREML_RUN_ID", "run")
    values = command_line.load([]).settings
    assert (values.result_dir, values.tensorboard_dir) == (tmp_path / "outputs", tmp_path / "logs")


def test_environment_comes_before_what_the_service_tells(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sagemaker(root, seed="3")
    monkeypatch.setenv("RESULT_DIR", str(root / "elsewhere"))
    monkeypatch.setenv("SEED", "2")
    values = command_line.load([]).settings
    assert (values.result_dir, values.seed) == (root / "elsewhere", 2)


def test_tf_config_of_one_machine_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("{}", '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}', ""):
        monkeypatch.setenv("TF_CONFIG", text)
        assert command_line.load([]).settings.tf_config is None


def test_tf_config_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", json.dumps(CLUSTER))
    first = command_line.load([]).settings
    monkeypatch.setenv("TF_CONFIG", json.dumps({**CLUSTER, "task": {"type": "chief", "index": 0}}))
    second = command_line.load([]).settings
    assert first.tf_config is not None
    assert second.tf_config is not None
    assert (first.tf_config.is_chief, second.tf_config.is_chief) == (False, True)
    assert first.work_dir != second.work_dir


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"cluster": {"worker": ["a:1"', "TF_CONFIG"),
        (json.dumps({**CLUSTER, "task": {"type": "ps", "index": 0}}), "the type of a task is 'ps'"),
        (json.dumps({**CLUSTER, "task": {"type": "worker", "index": 1}}), "worker 1 is not a member of the cluster"),
        (json.dumps({"cluster": CLUSTER["cluster"]}), "TF_CONFIG"),
        ('{"cluster": {"worker": 5}}', "must hold a list of addresses"),
        ("[" * 100_000, "TF_CONFIG is nested too deeply"),
    ],
)
def test_tf_config_that_cannot_be_is_refused(text: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match=told):
        command_line.load([])


def test_failure_is_told_where_the_service_reads_it(root: Path) -> None:
    (root / "opt/ml/output").mkdir(parents=True)
    (root / "dev").mkdir()
    (root / "dev/termination-log").touch()
    services.tell_failure("ü" * 5000)
    assert len((root / "opt/ml/output/failure").read_text()) <= 1024
    assert len((root / "dev/termination-log").read_bytes()) == 4096


def test_failure_that_did_not_come_is_taken_back(root: Path) -> None:
    (root / "opt/ml/output").mkdir(parents=True)
    services.tell_failure("memory is about to run out")
    services.forget_failure()
    assert (root / "opt/ml/output/failure").read_text() == ""


def test_failure_is_told_to_nobody_where_nobody_reads_it(root: Path) -> None:
    services.tell_failure("message")
    assert list(root.iterdir()) == []


def test_metric_is_told_to_vertex_ai_s_tuning(tmp_path: Path) -> None:
    named = {"CLOUD_ML_HP_METRIC_FILE": str(tmp_path / "new" / "output.metrics"), "CLOUD_ML_TRIAL_ID": "7"}
    for step, value in ((10, 0.25), (20, 0.5)):
        services.tell_metric("mAP", value, step, named)
    rows = [json.loads(line) for line in (tmp_path / "new" / "output.metrics").read_text().splitlines()]
    assert [(row["trial"], row["mAP"], row["global_step"]) for row in rows] == [("7", "0.25", "10"), ("7", "0.5", "20")]


@pytest.mark.parametrize("named", [{}, {"CLOUD_ML_HP_METRIC_FILE": "/proc/none/file"}], ids=["no tuning", "no place"])
def test_metric_that_nobody_reads_is_no_error(named: dict[str, str]) -> None:
    services.tell_metric("mAP", 0.5, 1, named)

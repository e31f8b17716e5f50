"""Several devices and several machines that train one model."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import environment, is_at_step, read_until, run_job, start_job
from tests.stores import free_ports

# Two of these on two cores: small batches, and nothing exported but what is the quickest.
SMOKE: dict[str, Any] = {"MODEL": "smoke", "BATCH_SIZE": 4, "EXPORTS": "saved_model", "CHECKPOINT_SECONDS": 600}
MIRRORED = """
import sys
from pathlib import Path
from entrypoint.zoo import pipeline_config
from entrypoint.settings import environment
from entrypoint.settings.schema import Settings
environment.prepare(Settings())
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from entrypoint.engines.tf2 import trainer as trainers
config = pipeline_config.read(Path(sys.argv[1]))
trainer = trainers.Trainer(config, 1, tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
rows = [*trainer.train(1), *trainer.train(3)]
print("losses", *(row["Loss/total_loss"] for row in rows))
trainer.save(Path(sys.argv[2]))
alone = trainers.Trainer(config, 2, tf.distribute.get_strategy())
alone.restore(Path(sys.argv[2]))
print("step", alone.step)
records = sorted(map(str, Path(sys.argv[3]).glob("validation-*.tfrecord")))
found, expected = ([each.scores for each in one.detect(Path(sys.argv[2]), records)] for one in (trainer, alone))
print("photos", len(found), "difference", max(abs(a - b).max() for a, b in zip(found, expected, strict=True)))
trainer.train(1)
print("step", trainer.step)
"""


class Cluster:
    """Two machines, each with a WORK_DIR of its own; the second sees no results."""

    def __init__(self, folder: Path, bucket: Path) -> None:
        self.folder = folder
        self.bucket = bucket
        self.runs = 0

    def start(self, steps: str, **settings: Any) -> list[subprocess.Popen[str]]:
        """Starts both, on machines that have nothing of the runs before."""
        members = [f"127.0.0.1:{port}" for port in free_ports(2)]
        self.runs += 1
        return [self.start_member(index, members, steps, **settings) for index in range(2)]

    def start_member(self, index: int, members: list[str], steps: str, **settings: Any) -> subprocess.Popen[str]:
        """Starts one of the machines."""
        task = {"type": "worker", "index": index}
        return start_job(
            steps,
            **{**SMOKE, **settings},
            TF_CONFIG=json.dumps({"cluster": {"worker": members}, "task": task}),
            DATA_DIR=self.bucket,
            WORK_DIR=self.folder / f"work-{self.runs}-{index}",
            RESULT_DIR=self.folder / ("results" if index == 0 else "nothing"),
        )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, demo_bucket: Path) -> Cluster:
    """A cluster in a folder of its own."""
    return Cluster(tmp_path_factory.mktemp("cluster"), demo_bucket)


def losses(log: str) -> list[str]:
    """The lines of the log that tell the loss, without the time."""
    return re.findall(r"tensorflow:loss = [\d.]+, step = \d+", log)


def evaluated(log: str) -> list[int]:
    """The steps that were evaluated during the training."""
    return [int(step) for step in re.findall(r"evaluation: step = (\d+),", log)]


def test_stopped_cluster_resumes_where_it_was(cluster: Cluster) -> None:
    chief, worker = cluster.start("30", EVALUATE_EVERY=10)
    read_until(worker, lambda line: is_at_step(line, 8))
    # One of them is told to stop, and all do, at the same step.
    worker.send_signal(signal.SIGTERM)
    logs = [process.communicate(timeout=300)[0] for process in (chief, worker)]
    assert (chief.returncode, worker.returncode) == (143, 143), logs
    assert "another machine of the cluster was stopped" in logs[0]
    stopped = max(
        int(path.stem.partition("-")[2]) for path in (cluster.folder / "results/checkpoint").glob("ckpt-*.json")
    )
    assert f"checkpoint saved at step {stopped}" in logs[0]
    assert f"checkpoint saved at step {stopped}" in logs[1]

    first = logs[0]
    processes = cluster.start("30", EVALUATE_EVERY=10)
    logs = [process.communicate(timeout=600)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(logs)
    # The second machine has no checkpoint at hand: it gets everything from the chief.
    assert f"resumed at step {stopped}" in logs[0]
    assert f"step = {stopped + 1}\n" in logs[1]
    assert losses(logs[0]) == losses(logs[1]) != []
    assert (logs[0].count("CACLI-TRAINING-SUCCESS"), logs[1].count("CACLI-TRAINING-SUCCESS")) == (1, 0)
    assert json.loads((cluster.folder / "results/job.json").read_text())["settings"]["num_steps"] == 30
    assert not (cluster.folder / "nothing").exists()
    # The chief evaluates, each step once, while the other waits.
    assert evaluated(first + logs[0]) == [10, 20, 30]
    assert evaluated(logs[1]) == []

    # The chief's machine is lost after training: another one needs nobody to evaluate and publish once more.
    cluster.runs += 1
    chief = cluster.start_member(0, ["127.0.0.1:1", "127.0.0.1:2"], "30", EVALUATE_EVERY=10)
    log = chief.communicate(timeout=300)[0]
    assert chief.returncode == 0, log
    assert "nothing is left to train" in log
    assert "waiting for the others" not in log


def test_machine_that_is_lost_stops_the_others_ready_to_be_resumed(cluster: Cluster) -> None:
    chief, worker = cluster.start("80")
    read_until(chief, lambda line: is_at_step(line, 4))
    worker.kill()
    log = chief.communicate(timeout=300)[0]
    worker.communicate()
    assert chief.returncode == 143, log
    assert "another machine of the cluster has gone" in log
    assert "CACLI" not in log


def test_two_devices_of_one_machine_train_one_model(cluster: Cluster, tmp_path: Path) -> None:
    config = cluster.folder / "work-2-0/pipeline.config"
    command = [sys.executable, "-c", MIRRORED, str(config), str(tmp_path / "ckpt"), str(config.parent / "records")]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    found = re.search(r"losses (.*)\nstep (\d+)\nphotos (\d+) difference ([\d.e-]+)\nstep 5\n", result.stdout)
    assert found is not None
    assert all(0 < float(loss) < 10 for loss in found.group(1).split())
    assert len(found.group(1).split()) == int(found.group(2)) == 4
    # Both devices evaluate, one of them counts, and the training goes on. Each has averages of batch norm of its own.
    assert int(found.group(3)) > 0
    assert float(found.group(4)) < 0.05


def test_batch_that_cannot_be_dealt_out_is_a_named_error(cluster: Cluster) -> None:
    # The cluster has left a training that has not ended.
    processes = cluster.start("2", BATCH_SIZE=3, RESUME="never")
    logs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [2, 2]
    assert "BATCH_SIZE=3 cannot be divided among 2 devices: set BATCH_SIZE=4" in logs[0]


def test_cluster_of_foreign_tasks_is_refused(demo_bucket: Path, tmp_path: Path) -> None:
    members = {"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "ps", "index": 0}}
    result = run_job("1", DATA_DIR=demo_bucket, WORK_DIR=tmp_path / "work", TF_CONFIG=json.dumps(members))
    assert result.returncode == 2
    assert "the type of a task is 'ps'; it must be chief or worker" in result.stdout

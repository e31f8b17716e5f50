"""When a stop takes effect while training; that the job goes on from it is shown in tests/end_to_end/test_faults.py."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from entrypoint.data import records
from entrypoint.data.annotations import Dataset, LabelledImage
from entrypoint.data.boxes import Box
from entrypoint.data.quality import DataQuality
from entrypoint.engines.engine import LOSS, Detections
from entrypoint.system import documents, files, signals
from entrypoint.system.errors import Stopped, UserError
from entrypoint.training import checkpoints, evaluation, length, profiling, train
from entrypoint.training.plan import Plan
from entrypoint.workspace import Workspace
from tests.conftest import ROOT, make_settings
from tests.training.counting import CountingTrainer

pytestmark = pytest.mark.usefixtures("handled_signals")


class Told:
    """TensorBoard's scalars; the process gets SIGTERM while those of a given step are written."""

    def __init__(self, stopped_at: int = 0) -> None:
        self.steps: list[float] = []
        self.stopped_at = stopped_at
        self.pictures: dict[int, list[bytes]] = {}

    def write(self, points: list[dict[str, float]]) -> None:
        self.steps += [point["step"] for point in points]
        if self.stopped_at in self.steps:
            signal.raise_signal(signal.SIGTERM)

    def write_pictures(self, step: int, pictures: list[bytes]) -> None:
        self.pictures[step] = pictures


def to_end(
    trainer: Any, work: Workspace, state: checkpoints.Saved | None = None, told: Any = None
) -> checkpoints.Saved:
    """Trains from a checkpoint or from the beginning."""
    events: Any = told or Told()
    return train.Training(trainer, state or checkpoints.Saved(Path(), 0), "identity", events, work).to_end()


def train_to_end(model: CountingTrainer, told: Any, folder: Path) -> None:
    work = Workspace(make_settings(folder, num_steps=5))
    documents.write(work.plan, Plan("x.config", "tf2", 5, 4, 0.1, ()))
    to_end(model, work, told=told)


def saved_in(folder: Path) -> list[int]:
    """The steps of the whole checkpoints that were published."""
    paths = (folder / "results" / "checkpoint").glob("ckpt-*.json")
    return sorted(checkpoints.step_of(path) for path in paths)


def test_every_step_is_trained_and_the_last_saved(tmp_path: Path) -> None:
    told = Told()
    train_to_end(CountingTrainer(), told, tmp_path)
    assert told.steps == [1, 2, 3, 4, 5]
    assert saved_in(tmp_path) == [5]


def test_step_that_was_told_of_is_saved_the_first_too(tmp_path: Path) -> None:
    with pytest.raises(Stopped, match="the last checkpoint"):
        train_to_end(CountingTrainer(), Told(stopped_at=1), tmp_path)
    assert saved_in(tmp_path) == [1]


def test_stop_while_the_model_is_compiled_is_not_held_back(tmp_path: Path) -> None:
    told = Told()
    with pytest.raises(Stopped, match="goes on from here"):
        train_to_end(CountingTrainer(stopped_in=1), told, tmp_path)
    assert told.steps == saved_in(tmp_path) == []


def test_stop_in_a_later_step_ends_it_first(tmp_path: Path) -> None:
    told = Told()
    with pytest.raises(Stopped):
        train_to_end(CountingTrainer(stopped_in=2), told, tmp_path)
    assert told.steps == [1, 2]
    assert saved_in(tmp_path) == [2]


class GreedyTrainer(CountingTrainer):
    """A trainer whose second step does not fit into memory."""

    def train(self, steps: int) -> Any:
        if self.step:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor\nof a large shape")
        return super().train(steps)


def test_batch_that_does_not_fit_into_memory_is_named_with_half_of_it(tmp_path: Path) -> None:
    words = (
        r"out of memory at step 2 with batches of 4: OOM when allocating tensor\. Set BATCH_SIZE=auto, which tries "
        "what fits, or BATCH_SIZE=2,"
    )
    with pytest.raises(UserError, match=words):
        train_to_end(GreedyTrainer(), Told(), tmp_path)


def test_connection_error_is_a_stop_only_in_a_cluster() -> None:
    error = tf.errors.UnavailableError(None, None, "Connection reset\nby peer")
    words = r"another machine of the cluster has gone \(Connection reset\)"
    with pytest.raises(Stopped, match=words), train.lost_machine_stops(is_cluster=True):
        raise error
    with pytest.raises(tf.errors.UnavailableError), train.lost_machine_stops(is_cluster=False):
        raise error


def steps_of(work: Workspace) -> int:
    """The number of steps of a plan that the step `pipeline` would write."""
    steps = work.settings.num_steps
    return 1000 if steps == "auto" else steps


class EvaluatedTrainer(CountingTrainer):
    """A trainer that finds the only box of the only photo at a given step, and nothing at any other."""

    def __init__(self, found_at: int) -> None:
        super().__init__()
        self.found_at = found_at

    def detect(self, prefix: Path, records: list[str]) -> Iterator[Detections]:
        assert prefix.name == ("weights" if self.is_averaged else f"ckpt-{self.step}")
        assert prefix.with_name(f"{prefix.name}.index").exists()
        assert [Path(path).name for path in records] == ["validation-00000-of-00001.tfrecord"]
        score = 0.9 if self.step == self.found_at else 0.0
        yield Detections("a.png", 30, 40, np.array([[0.25, 0.25, 0.5, 0.75]]), np.array([1]), np.array([score]))


def write_record(path: Path) -> None:
    """Writes the only validation photo, a black one."""
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30)).save(buffer, "PNG")
    values = {"image/source_id": b"a.png", "image/encoded": buffer.getvalue()}
    features = {name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value])) for name, value in values.items()}
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())


def evaluated_work(folder: Path, **settings: Any) -> Workspace:
    """What the steps before leave: one photo with one box, kept for validation."""
    work = Workspace(make_settings(folder, **settings))
    work.root.mkdir(exist_ok=True)
    box = Box("cat", 0.25, 0.25, 0.75, 0.5)
    files.write_json(work.dataset, Dataset(["cat"], [LabelledImage("a.png", (box,))]))
    quality = DataQuality(None, None, None, (), False, {}, {}, None)
    part = records.Split(1, 0, 1, {"cat": 1}, {"cat": 1}, (records.Shard("validation-00000-of-00001.tfrecord"),))
    train_part = dataclasses.replace(part, shards=(records.Shard("train-00000-of-00001.tfrecord"),))
    splits = {"train": train_part, "validation": part}
    work.records.mkdir(exist_ok=True)
    write_record(work.records / part.names[0])
    manifest = records.RecordsManifest(("cat",), splits, {}, {}, quality, "None", 1)
    documents.write(records.manifest_in(work.records), manifest)
    documents.write(work.plan, Plan("x.config", "tf2", steps_of(work), 4, 0.1, ()))
    work.pipeline.write_bytes((ROOT / "pipelines" / "smoke.config").read_bytes())
    return work


def test_training_ends_early_and_keeps_the_best_checkpoint(tmp_path: Path) -> None:
    work = evaluated_work(tmp_path, num_steps=50, evaluate_every=5, early_stopping=2)
    trainer = EvaluatedTrainer(found_at=10)
    told = Told()
    state = to_end(trainer, work, told=told)
    assert [row.step for row in state.evaluations.rows] == [5, 10, 15, 20] == list(told.pictures)
    assert state.evaluations.best is not None
    assert (state.step, state.evaluations.best.step) == (20, 10)
    assert saved_in(tmp_path) == [15, 20]
    assert (tmp_path / "results" / "checkpoint" / "best-10.json").exists()
    known = evaluation.known(10, "identity", work)
    assert known is not None
    assert known.metrics.summary.map == pytest.approx(1)
    assert evaluation.known(10, "other", work) is None
    assert evaluation.known(5, "identity", work) is None
    # Whoever goes on from there has ended, too.
    again = to_end(trainer, work, state)
    assert (again.step, trainer.step) == (20, 20)


class AveragedTrainer(EvaluatedTrainer):
    """A trainer whose averaged weights find the box, except at one step, at which the present ones do."""

    @contextmanager
    def averaged(self) -> Iterator[None]:
        with super().averaged():
            self.value.assign_add(1000)
            yield
            self.value.assign_sub(1000)

    @property
    def step(self) -> int:
        return super().step % 1000

    def detect(self, prefix: Path, records: list[str]) -> Iterator[Detections]:  # noqa: ARG002
        score = 0.9 if self.is_averaged != (self.step == self.found_at) else 0.0
        yield Detections("a.png", 30, 40, np.array([[0.25, 0.25, 0.5, 0.75]]), np.array([1]), np.array([score]))


def value_in(prefix: Path) -> int:
    return int(tf.train.load_checkpoint(str(prefix)).get_tensor("value/.ATTRIBUTES/VARIABLE_VALUE"))


def test_averaged_weights_are_kept_where_they_are_better(tmp_path: Path) -> None:
    """They are evaluated in the second half of the training."""
    work = evaluated_work(tmp_path, num_steps=50, evaluate_every=10)
    state = to_end(AveragedTrainer(found_at=50), work)
    rows = [(row.step, row.map, row.raw, row.averaged) for row in state.evaluations.rows]
    one = pytest.approx(1)
    assert rows == [(10, 0, None, None), (20, 0, None, None), (30, one, 0, one), (40, one, 0, one), (50, one, one, 0)]
    best = state.evaluations.best
    assert best is not None
    assert (best.step, best.is_averaged) == (50, False)
    assert value_in(checkpoints.best_prefix(50, work)) == 50

    (tmp_path / "earlier").mkdir()
    earlier = evaluated_work(tmp_path / "earlier", num_steps=40, evaluate_every=10)
    state = to_end(AveragedTrainer(found_at=0), earlier)
    best = state.evaluations.best
    assert best is not None
    assert (best.step, best.is_averaged) == (40, True)
    assert value_in(checkpoints.best_prefix(40, earlier)) == 1040
    assert value_in(state.prefix) == 40
    # The last checkpoint is of the same step, and has other weights.
    documents.write(earlier.trained, train.Trained(40, 40, is_averaged=True))
    assert train.chosen_checkpoint(earlier) == checkpoints.best_prefix(40, earlier)
    assert evaluation.known(40, "identity", earlier) is None
    known = evaluation.known(40, "identity", earlier, is_averaged=True)
    assert known is not None
    assert known.metrics.summary.map == one
    table = (tmp_path / "earlier" / "results" / "metrics.csv").read_text().splitlines()
    assert table[0].endswith(",seconds,mAP raw weights,mAP averaged weights")
    assert [line.split(",")[-2:] for line in table[1:3]] == [["", ""], ["0.0", table[2].split(",")[1]]]


def test_averaged_weights_outlive_another_run_of_a_training_that_has_ended(tmp_path: Path) -> None:
    work = evaluated_work(tmp_path, num_steps=40, evaluate_every=10)
    identity = train.identify(work)
    events: Any = Told()
    train.Training(AveragedTrainer(0), checkpoints.Saved(Path(), 0), identity, events, work).to_end()
    published = tmp_path / "results" / "checkpoint"
    before = {path.name: path.read_bytes() for path in published.glob("*-40.*")}
    assert {"best-40.json", "ckpt-40.json"} < set(before)
    for lost in (False, True):
        if lost:
            # Another machine has the results alone.
            shutil.rmtree(work.checkpoints)
        train.run(work)
        assert train.load(work) == train.Trained(40, 40, is_averaged=True)
        assert value_in(train.chosen_checkpoint(work)) == 1040
        after = {path.name: path.read_bytes() for path in published.glob("*-40.*")}
        assert {name: content for name, content in after.items() if "json" not in name} == {
            name: content for name, content in before.items() if "json" not in name
        }
        assert json.loads(after["ckpt-40.json"])["has_ended"]


@pytest.mark.parametrize(
    "values",
    [
        {"ema": "off"},
        {"evaluate_every": 0},
        {"num_steps": 99, "evaluate_every": "auto"},
        {"tf_config": {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}},
    ],
)
def test_weights_are_averaged_only_if_they_can_be_compared(tmp_path: Path, values: dict[str, Any]) -> None:
    assert evaluation.averages(evaluated_work(tmp_path, num_steps=100), 100)
    work = evaluated_work(tmp_path, **{"num_steps": 100, **values})
    assert not evaluation.averages(work, length.most(work))


def test_evaluation_that_a_stop_cuts_off_is_made_by_the_next_run(tmp_path: Path) -> None:
    class Stopping(EvaluatedTrainer):
        def detect(self, prefix: Path, records: list[str]) -> Iterator[Detections]:
            signal.raise_signal(signal.SIGTERM)
            return super().detect(prefix, records)

    work = evaluated_work(tmp_path, num_steps=20, evaluate_every=10)
    with pytest.raises(Stopped):
        to_end(Stopping(10), work)
    # The next run is another process.
    signals.raise_on_sigterm()
    saved = checkpoints.newest("identity", work)
    assert saved is not None
    assert (saved.step, saved.evaluations.rows) == (10, ())
    trainer = EvaluatedTrainer(found_at=10)
    trainer.restore(saved.prefix)
    state = to_end(trainer, work, saved)
    assert [(row.step, row.map) for row in state.evaluations.rows] == [(10, pytest.approx(1)), (20, 0)]


def test_interval_is_fitted_to_the_time_of_the_first_evaluation(tmp_path: Path) -> None:
    """The evaluations of one photo take no time, so there are as many as allowed."""
    work = evaluated_work(tmp_path, num_steps=200)
    state = to_end(EvaluatedTrainer(40), work)
    assert state.evaluations.every == 20
    assert [row.step for row in state.evaluations.rows] == list(range(20, 201, 20))


def test_without_validation_photos_nothing_is_evaluated(tmp_path: Path) -> None:
    work = evaluated_work(tmp_path, num_steps=20, evaluate_every=5, early_stopping=1)
    manifest = records.load(work)
    empty = records.Split(0, 0, 0, {"cat": 0}, {"cat": 0})
    splits = {**manifest.splits, "validation": empty}
    documents.write(records.manifest_in(work.records), dataclasses.replace(manifest, splits=splits))
    state = to_end(EvaluatedTrainer(5), work)
    assert (state.step, state.evaluations.rows) == (20, ())


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        ([2.0, 1.0, 300.0], "the loss rose from 1 to 300 at step 3, learning rate 0.3: the training diverges"),
        ([2.0, 1.0, 90.0], None),
        ([300.0, 1.0, 0.5], None),
        ([1.0] * 100 + [1e6], None),
    ],
    ids=["explodes", "rises", "falls", "explodes later"],
)
def test_loss_that_explodes_at_the_start_is_told_with_its_learning_rate(losses: list[float], words: str | None) -> None:
    history = [{"step": step, LOSS: loss, "learning_rate": step / 10} for step, loss in enumerate(losses, 1)]
    found = train.describe_explosion(history, peak=0.4)
    assert (found or "").startswith(words or "")
    assert bool(found) == bool(words)
    assert words is None or "set LEARNING_RATE=0.04, a tenth of its peak" in str(found)


def test_loss_that_explodes_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Exploding(CountingTrainer):
        def train(self, steps: int) -> list[dict[str, float]]:
            first = self.step
            rows = super().train(steps)
            return [{**row, LOSS: 10.0 ** (3 * (first + index))} for index, row in enumerate(rows)]

    with caplog.at_level("WARNING", logger="job"):
        to_end(Exploding(), evaluated_work(tmp_path, num_steps=6))
    assert sum("the training diverges" in message for message in caplog.messages) == 1


def test_only_the_chief_of_a_cluster_writes_the_table_of_evaluations(tmp_path: Path) -> None:
    chief = evaluated_work(tmp_path, num_steps=10, evaluate_every=5)
    events: Any = Told()
    begun = checkpoints.Saved(Path(), 0)
    train.Training(EvaluatedTrainer(5), begun, train.identify(chief), events, chief).to_end()
    table = tmp_path / "results" / "metrics.csv"
    assert len(table.read_text().splitlines()) == 3
    table.unlink()
    members = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}
    other = evaluated_work(tmp_path, num_steps=10, evaluate_every=5, tf_config=members, work_dir=tmp_path / "other")
    # Both find the chief's checkpoint, with which the training has ended.
    train.run(other)
    assert not table.exists()
    train.run(chief)
    assert len(table.read_text().splitlines()) == 3


def test_profile_says_what_a_step_waits_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    work = evaluated_work(tmp_path, num_steps=60, evaluate_every=30, profile=True)
    trainer = EvaluatedTrainer(found_at=30)
    with caplog.at_level("INFO", logger="job"):
        state = to_end(trainer, work)
    assert state.step == 60
    assert [point["step"] for point in state.history] == list(range(1, 61))
    lines = [line for line in caplog.messages if "profile" in line]
    assert len(lines) == 1
    assert ", and its photos alone take 3000.000 s" in lines[0]
    assert "the training is input-bound" in lines[0]
    assert (work.events / "plugins/profile/job/job.xplane.pb").is_file()


class UnreadableTrainer(EvaluatedTrainer):
    """A trainer whose input pipeline cannot be built a second time."""

    def seconds_of_input(self, batches: int) -> float:
        raise tf.errors.ResourceExhaustedError(None, None, f"no memory for {batches} batches")


def test_profile_that_fails_does_not_end_a_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    work = evaluated_work(tmp_path, num_steps=60, evaluate_every=30, profile=True)
    assert to_end(UnreadableTrainer(found_at=30), work).step == 60
    assert any("the input pipeline could not be timed" in line for line in caplog.messages)


def test_profile_needs_steps_between_evaluations(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="job"):
        to_end(EvaluatedTrainer(found_at=2), evaluated_work(tmp_path, num_steps=12, evaluate_every=2, profile=True))
    assert any(line.startswith("--profile: there were too few steps") for line in caplog.messages)


def test_profile_of_a_slow_model_is_compute_bound() -> None:
    assert "(10%), so that the training is compute-bound" in str(profiling.Profile(8, 0.5, 0.05))

"""From which checkpoint a training goes on, and which changed settings are refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from entrypoint.system import documents
from entrypoint.system.errors import UserError
from entrypoint.training import checkpoints, resuming, train
from entrypoint.training.checkpoints import Saved
from entrypoint.training.plan import Plan
from entrypoint.workspace import Mark, Workspace, write_mark
from entrypoint.zoo import pipeline_config
from tests.conftest import ROOT
from tests.training.test_train import EvaluatedTrainer, Told, evaluated_work, steps_of


def prepared(folder: Path, *, photos: str = "photos", rate: float = 0.1, **settings: Any) -> Workspace:
    """What the steps before the training leave."""
    work = evaluated_work(folder, **{"model": "smoke", "evaluate_every": 10, **settings})
    steps = steps_of(work)
    config = pipeline_config.read(ROOT / "pipelines" / "smoke.config")
    config.train_config.num_steps = steps
    config.train_config.optimizer.adam_optimizer.learning_rate.cosine_decay_learning_rate.total_steps = steps
    work.pipeline.write_text(pipeline_config.write(config))
    documents.write(work.plan, Plan("smoke.config", "tf2", steps, 4, rate, ()))
    for name, output in (("tf_record", photos), ("checkpoint", "none"), ("pipeline", f"{steps} {rate}")):
        write_mark(name, Mark("", output, 0.0, 0.0), work)
    return work


def run(work: Workspace, until: int | None = None) -> Saved:
    """Trains from where the training goes on, to the end or until a kill after a step."""
    identity = train.identify(work)
    begun = resuming.find(identity, work) or Saved(Path(), 0)
    trainer = EvaluatedTrainer(found_at=10)
    if begun.step:
        trainer.restore(begun.prefix)
    events: Any = Told()
    training = train.Training(trainer, begun, identity, events, work, settings=resuming.decisive(work))
    if until is None:
        return training.to_end()
    train.advance(trainer, until - trainer.step, work)
    training.save()
    return training.state


@pytest.mark.usefixtures("handled_signals")
def test_training_goes_on_with_more_steps(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = run(prepared(tmp_path, num_steps=30))
    assert (first.step, first.has_ended) == (30, True)
    longer = prepared(tmp_path, num_steps=50)
    with caplog.at_level("INFO", logger="job"):
        state = run(longer)
    assert any(
        "step 30 of a training of 30 steps is in" in line and "goes on to 50" in line for line in caplog.messages
    )
    # The evaluations of before are kept, and the best checkpoint.
    assert [row.step for row in state.evaluations.rows] == [10, 20, 30, 40, 50]
    assert checkpoints.find_best(10, train.identify(longer), longer) is not None
    published = sorted(path.name for path in (tmp_path / "results" / "checkpoint").glob("*.json"))
    assert published == ["best-10.json", "ckpt-40.json", "ckpt-50.json"]
    # A training that has ended is replaced without a question, here by a shorter one.
    assert resuming.find(train.identify(shorter := prepared(tmp_path, num_steps=20)), shorter) is None


@pytest.mark.usefixtures("handled_signals")
@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"rate": 0.2}, r"LEARNING_RATE 0\.1 there, 0\.2 here\. Set RESUME=never"),
        ({"photos": "more photos"}, r"photos, boxes or their split photos there, more photos here\. Set"),
        ({"seed": 7, "augment": "light"}, r"SEED 42 there, 7 here; AUGMENT not set there, light here\. Set"),
        ({"seed": 7, "anchors": "auto"}, r"SEED 42 there, 7 here; ANCHORS not set there, auto here\. Set"),
        ({"num_steps": 10}, r"NUM_STEPS 30 there, 10 here\. Set"),
        ({"max_minutes": 5.0}, r"MAX_MINUTES not set there, 5\.0 here\. Set"),
    ],
)
def test_training_that_has_not_ended_is_not_replaced_by_one_with_other_settings(
    tmp_path: Path, changed: dict[str, Any], words: str
) -> None:
    assert not run(prepared(tmp_path, num_steps=30), until=20).has_ended
    work = prepared(tmp_path, **{"num_steps": 30, **changed})
    with pytest.raises(UserError, match="has step 20 of a training that has not ended .*: " + words):
        resuming.find(train.identify(work), work)
    over = prepared(tmp_path, **{"num_steps": 30, **changed}, resume="never")
    assert resuming.find(train.identify(over), over) is None
    # The settings of before go on.
    same = prepared(tmp_path, num_steps=30)
    found = resuming.find(train.identify(same), same)
    assert found is not None
    assert found.step == 20


@pytest.mark.usefixtures("handled_signals")
def test_other_slip_in_the_config_is_named_as_that(tmp_path: Path) -> None:
    run(prepared(tmp_path, num_steps=30), until=20)
    work = prepared(tmp_path, num_steps=30)
    text = work.pipeline.read_text()
    assert "random_horizontal_flip" in text
    work.pipeline.write_text(text.replace("random_horizontal_flip", "random_vertical_flip"))
    write_mark("pipeline", Mark("", "another", 0.0, 0.0), work)
    with pytest.raises(UserError, match=r": pipeline\.config \w{12} there, \w{12} here\. Set"):
        resuming.find(train.identify(work), work)


@pytest.mark.usefixtures("handled_signals")
def test_checkpoint_of_an_older_release_is_not_asked_about(tmp_path: Path) -> None:
    work = prepared(tmp_path, num_steps=30)
    state = run(work, until=20)
    checkpoints.write_manifest(state, "older")
    checkpoints.publish_checkpoint(state, "older", work)
    assert resuming.find(train.identify(work), work) is None


@pytest.mark.usefixtures("handled_signals")
def test_longer_training_goes_on_from_the_newest_checkpoint_that_is_whole(tmp_path: Path) -> None:
    run(prepared(tmp_path, num_steps=30))
    work = prepared(tmp_path, num_steps=50)
    for folder in checkpoints.folders(work):
        (folder / "ckpt-30.data-00000-of-00001").unlink()
    found = resuming.find(train.identify(work), work)
    assert found is not None
    assert found.step == 20


@pytest.mark.usefixtures("handled_signals")
def test_new_interval_is_fitted_to_a_longer_training(tmp_path: Path) -> None:
    first = run(prepared(tmp_path, num_steps=100, evaluate_every="auto"))
    assert first.evaluations.every == 10
    work = prepared(tmp_path, num_steps=1000, evaluate_every="auto")
    found = resuming.find(train.identify(work), work)
    assert found is not None
    assert (found.evaluations.every, found.has_ended) == (0, False)


@pytest.mark.usefixtures("handled_signals")
def test_training_elsewhere_is_not_asked_about(tmp_path: Path) -> None:
    """Of a CHECKPOINT_DIR that jobs share, and of a WORK_DIR that had another RESULT_DIR."""
    shared = tmp_path / "shared"
    run(prepared(tmp_path, num_steps=30, checkpoint_dir=shared), until=20)
    other = prepared(tmp_path, num_steps=30, seed=7, checkpoint_dir=shared, result_dir=tmp_path / "other")
    assert resuming.find(train.identify(other), other) is None


@pytest.mark.usefixtures("handled_signals")
def test_starting_over_changes_what_comes_after_the_training(tmp_path: Path) -> None:
    work = prepared(tmp_path, num_steps=30)
    run(work)
    before = train.run(work)
    assert train.run(work) == before
    assert list(work.evaluated.iterdir())
    saved = checkpoints.newest(train.identify(work), work)
    assert saved is not None
    trainer = EvaluatedTrainer(found_at=0)
    trainer.restore(saved.prefix)
    trainer.checkpoint.other = tf.Variable(1)
    again = checkpoints.write(trainer, saved.history, work)
    again = dataclasses.replace(again, evaluations=saved.evaluations, has_ended=True)
    checkpoints.adopt(again, train.identify(work), work)
    assert train.run(work) != before

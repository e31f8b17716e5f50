"""When evaluation runs, which evaluation is best, and when the training ends."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from entrypoint.engines.engine import Detections
from entrypoint.settings.schema import Settings
from entrypoint.training import evaluation
from entrypoint.training.metrics import Evaluated, Evaluations
from entrypoint.workspace import Workspace
from tests.conftest import make_settings


def evaluations(*values: float | None, every: int = 10) -> Evaluations:
    """Evaluations with these mAPs, ten steps apart."""
    rows = [Evaluated(10 * (index + 1), value, value, {"cat": value}, 1.0) for index, value in enumerate(values)]
    return Evaluations(every, tuple(rows))


def settings(folder: Path, **values: Any) -> Settings:
    return make_settings(folder, num_steps=1000, **values)


@pytest.mark.parametrize(
    ("values", "step"),
    [((0.1, 0.3, 0.2), 20), ((0.3, 0.1, 0.3), 30), ((0.0, 0.0), 20), ((None, 0.1, None), 20), ((), None)],
    ids=["the highest", "of equal ones the last", "nothing found", "nothing to find in some", "none"],
)
def test_best_evaluation(values: tuple[float | None, ...], step: int | None) -> None:
    best = evaluations(*values).best
    assert (best and best.step) == step


@pytest.mark.parametrize(
    ("patience", "values", "ends"),
    [
        (2, (0.3, 0.2, 0.1), True),
        (2, (0.3, 0.2), False),
        (2, (0.3, 0.2, 0.3), False),
        (1, (0.1, 0.2), False),
        ("off", (0.9, 0.1, 0.1, 0.1), False),
        (1, (None, None), False),
    ],
)
def test_training_ends_after_evaluations_that_were_no_better(
    tmp_path: Path, patience: Any, values: tuple[float | None, ...], ends: bool
) -> None:
    own = settings(tmp_path, early_stopping=patience)
    assert evaluation.ends_early(evaluations(*values), own) == ends
    last = 10 * len(values)
    assert (evaluation.steps_to_next(last, 1000, evaluations(*values), own) == 0) == ends


def test_evaluations_are_due_at_multiples_and_at_the_end(tmp_path: Path) -> None:
    own = make_settings(tmp_path, num_steps=95, evaluate_every=40)
    none = Evaluations()
    assert [step for step in range(96) if evaluation.is_due(step, 95, none, own)] == [40, 80, 95]
    assert [evaluation.steps_to_next(step, 95, none, own) for step in (0, 39, 40, 80, 95)] == [40, 1, 40, 15, 0]
    done = Evaluations(40, (Evaluated(40, 0.1, 0.2, {}, 1.0),))
    assert not evaluation.is_due(40, 95, done, own)


@pytest.mark.parametrize(("every", "steps"), [("auto", 99), (0, 1000)])
def test_short_trainings_are_evaluated_when_they_have_ended(tmp_path: Path, every: Any, steps: int) -> None:
    own = make_settings(tmp_path, num_steps=steps, evaluate_every=every)
    assert not any(evaluation.is_due(step, steps, Evaluations(), own) for step in range(steps + 1))
    assert evaluation.steps_to_next(7, steps, Evaluations(), own) == steps - 7


@pytest.mark.parametrize(
    ("seconds", "every"), [(0.001, 100), (20.0, 200), (30.0, 334), (1e9, 334)], ids=["fast", "slower", "least", "slow"]
)
def test_evaluations_take_a_tenth_of_the_time_of_the_training(seconds: float, every: int) -> None:
    """Of 1,000 steps of a second."""
    assert evaluation.fitted_interval(1000, 1.0, seconds) == every


def test_interval_that_was_fitted_once_stays(tmp_path: Path) -> None:
    own = settings(tmp_path)
    assert evaluation.interval(1000, Evaluations(), own) == 100
    assert evaluation.interval(1000, Evaluations(250), own) == 250
    assert [step for step in range(1, 1001) if evaluation.is_due(step, 1000, Evaluations(250), own)] == [
        250,
        500,
        750,
        1000,
    ]


@pytest.mark.parametrize(("every", "steps"), [(400, [400, 800, 1000]), (0, [])])
def test_interval_of_the_user_comes_before_one_that_was_fitted(tmp_path: Path, every: int, steps: list[int]) -> None:
    own = settings(tmp_path, evaluate_every=every)
    assert [step for step in range(1001) if evaluation.is_due(step, 1000, Evaluations(250), own)] == steps


def test_table_has_a_row_for_each_evaluation(tmp_path: Path) -> None:
    work = Workspace(make_settings(tmp_path))
    work.root.mkdir()
    evaluation.write_table(evaluations(0.25, None), work)
    lines = ["step,mAP,mAP@0.5,AP cat,seconds,mAP raw weights,mAP averaged weights"]
    lines += ["10,0.25,0.25,0.25,1.0,,", "20,,,,1.0,,", ""]
    assert (work.results / "metrics.csv").read_text() == "\n".join(lines)


def test_scalars_leave_out_what_is_undefined() -> None:
    row = Evaluated(30, 0.5, None, {"cat": 0.25, "dog": None}, 1.0)
    assert evaluation.scalars(row) == {"step": 30, "validation/mAP": 0.5, "validation/AP cat": 0.25}


def test_time_of_the_first_detection_is_that_of_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def found() -> Iterator[Detections]:
        nonlocal now
        for seconds in (60.0, 2.0, 2.0, 2.0):
            now += seconds
            yield Detections("a", 1, 1, [], [], [])

    monkeypatch.setattr("entrypoint.training.evaluation.time.monotonic", lambda: now)
    timer = evaluation.Timer(found())
    assert len(list(timer)) == 4
    assert timer.steady_seconds(4) == 8.0

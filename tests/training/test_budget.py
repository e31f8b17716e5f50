"""MAX_MINUTES: how many steps fit into a time, and a training that is fitted to it."""

from __future__ import annotations

import dataclasses
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from entrypoint.settings.schema import MOST_STEPS, Settings
from entrypoint.system import signals
from entrypoint.system.errors import Stopped, UserError
from entrypoint.training import budget, checkpoints
from entrypoint.training.budget import Budget, Costs, Fit
from tests.conftest import make_settings
from tests.training.counting import CountingTrainer
from tests.training.test_train import EvaluatedTrainer, evaluated_work, to_end

pytestmark = pytest.mark.usefixtures("handled_signals")


def settings(folder: Path, **values: Any) -> Settings:
    return make_settings(folder, **{"max_minutes": 10.0, "checkpoint_seconds": 100.0, **values})


@pytest.mark.parametrize(
    ("costs", "every", "steps"),
    [
        (Costs(1.0, 0.0, 0.0, 0.0), 0, 1000),
        (Costs(1.0, 50.0, 0.0, 100.0), 0, 900),
        (Costs(1.0, 10.0, 10.0, 0.0), 10, 243),  # 1.1 s a step, and 30 s every 10 steps
        (Costs(1.0, 5.0, 0.0, 0.0), "auto", 950),  # ten evaluations are less than a tenth
        (Costs(1.0, 20.0, 0.0, 0.0), "auto", 920),  # four are
        (Costs(1.0, 200.0, 0.0, 0.0), "auto", 400),  # there are at least three
    ],
)
def test_steps_that_fit_into_a_thousand_seconds(tmp_path: Path, costs: Costs, every: Any, steps: int) -> None:
    own = settings(tmp_path, evaluate_every=every)
    assert budget.affordable(1000.0, costs, own) == steps
    # All of it together takes no longer.
    assert budget.affordable(costs.after, costs, own) <= 0


def test_learning_rate_does_not_jump_when_the_training_is_shortened() -> None:
    fit = Fit(last=500)
    assert fit.pace(1000) == 2
    shorter = fit.shortened(100, 300, scheduled=1000)
    assert shorter == Fit(last=300, first=100, position=200)
    assert shorter.pace(1000) == 4
    assert shorter.position + (300 - 100) * shorter.pace(1000) == 1000


def test_num_steps_of_the_user_is_the_most(tmp_path: Path) -> None:
    costs = Costs(0.01, 0.0, 0.0, 0.0)
    free = Budget(settings(tmp_path), 0.0, 0.0, MOST_STEPS)
    free.began = time.monotonic()
    assert 55_000 < free.fit(20, costs).last <= 60_020
    bound = Budget(settings(tmp_path, num_steps=300), free.began, 0.0, 300)
    assert bound.fit(20, costs) == Fit(300)


def test_time_without_room_for_a_training_is_named(tmp_path: Path) -> None:
    spent = Budget(settings(tmp_path), time.monotonic(), used=590.0, most=MOST_STEPS)
    words = r"MAX_MINUTES=10 leaves time for 0 steps of 2 s: 590 s have passed, .* about 60 s\. Set MAX_MINUTES=15 or"
    with pytest.raises(UserError, match=words):
        spent.fit(5, Costs(2.0, 10.0, 1.0, 60.0))


def test_time_that_is_over_is_named_too(tmp_path: Path) -> None:
    """Also when enough steps for a training have passed."""
    late = Budget(settings(tmp_path), time.monotonic(), used=580.0, most=MOST_STEPS)
    with pytest.raises(UserError, match="leaves time for 0 steps"):
        late.fit(31, Costs(0.3, 1.0, 1.0, 60.0))


@pytest.mark.parametrize("every", ["auto", 1, 0])
def test_time_that_is_proposed_suffices(tmp_path: Path, every: Any) -> None:
    costs = Costs(0.3, 20.0, 60.0, 100.0)
    own = settings(tmp_path, evaluate_every=every)
    seconds = budget.seconds_for(100, costs, own)
    assert budget.affordable(seconds, costs, own) >= 100
    assert budget.affordable(0.9 * seconds, costs, own) < 100


def test_training_is_shortened_only_if_it_is_clearly_too_slow(tmp_path: Path, clock: list[float]) -> None:
    now = clock[0]
    fit = Fit(last=1000)
    costs = Costs(1.0, 0.0, 0.0, 0.0)
    own = settings(tmp_path, evaluate_every=0)
    assert Budget(own, now, used=90.0, most=MOST_STEPS).refit(500, fit, costs, 1000) is fit
    shorter = Budget(own, now, used=200.0, most=MOST_STEPS).refit(500, fit, costs, 1000)
    assert shorter == Fit(last=900, first=500, position=500)
    assert Budget(own, now, used=700.0, most=MOST_STEPS).refit(500, fit, costs, 1000).last == 500


class SlowTrainer(EvaluatedTrainer):
    """A trainer whose clock runs a second in every step."""

    def __init__(self, clock: list[float], **values: Any) -> None:
        super().__init__(found_at=0)
        self.clock = clock
        self.stopped_at = values.get("stopped_at", 0)

    def train(self, steps: int) -> list[dict[str, float]]:
        self.clock[0] += steps
        if self.step < self.stopped_at <= self.step + steps:
            signal.raise_signal(signal.SIGTERM)
        return super().train(steps)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock of the training, which only its steps move."""
    now = [100.0]
    monkeypatch.setattr("entrypoint.training.train.time.monotonic", lambda: now[0])
    return now


def test_training_is_fitted_and_keeps_its_end_through_a_stop(tmp_path: Path, clock: list[float]) -> None:
    """Twenty minutes, of which twenty-one seconds are for report and exports."""
    values = {"max_minutes": 20.0, "evaluate_every": 100, "exports": ("saved_model",)}
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    whole = evaluated_work(tmp_path / "whole", **values)
    trainer = SlowTrainer(clock)
    state = to_end(trainer, dataclasses.replace(whole, began=clock[0]))
    assert state.fit is not None
    assert 1150 < state.step == state.fit.last < 1200
    assert trainer.followed[:2] == (0, 0)
    assert trainer.followed[2] == pytest.approx(1000 / state.step)
    assert [row.step for row in state.evaluations.rows][-2:] == [1100, state.step]

    cut = evaluated_work(tmp_path / "cut", **values)
    with pytest.raises(Stopped):
        to_end(SlowTrainer(clock, stopped_at=500), dataclasses.replace(cut, began=clock[0]))
    signals.raise_on_sigterm()
    saved = checkpoints.newest("identity", cut)
    assert saved is not None
    assert saved.step < state.step
    clock[0] += 5000  # until the job is started again
    resumed = SlowTrainer(clock)
    resumed.restore(saved.prefix)
    again = to_end(resumed, dataclasses.replace(cut, began=clock[0]), saved)
    assert again.step == state.step
    assert [row.step for row in again.evaluations.rows] == [row.step for row in state.evaluations.rows]
    assert again.seconds == pytest.approx(state.seconds)


def test_first_checkpoint_keeps_what_was_decided(tmp_path: Path, clock: list[float]) -> None:
    """So a kill at any moment after it changes nothing."""
    work = evaluated_work(tmp_path, max_minutes=20.0, evaluate_every=0)
    with pytest.raises(Stopped):
        to_end(SlowTrainer(clock, stopped_at=16), dataclasses.replace(work, began=clock[0]))
    signals.raise_on_sigterm()
    saved = checkpoints.newest("identity", work)
    assert saved is not None
    assert saved.step < 40
    assert saved.fit is not None
    assert saved.fit.last > 1000


def test_time_that_suffices_for_nothing_leaves_no_checkpoint(tmp_path: Path, clock: list[float]) -> None:
    """One with the time that the message names would be refused as another training."""
    work = evaluated_work(tmp_path, max_minutes=0.2, evaluate_every=0)
    with pytest.raises(UserError, match=r"Set MAX_MINUTES=\d+ or more"):
        to_end(SlowTrainer(clock), dataclasses.replace(work, began=clock[0]))
    assert checkpoints.newest("identity", work) is None


def test_training_without_limit_is_not_fitted(tmp_path: Path) -> None:
    trainer = CountingTrainer()
    state = to_end(trainer, evaluated_work(tmp_path, num_steps=60, evaluate_every=0))
    assert (state.step, state.fit, state.seconds) == (60, None, 0.0)
    assert not hasattr(trainer, "followed")

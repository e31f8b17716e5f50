from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from entrypoint.settings.schema import MOST_STEPS
from entrypoint.system import documents
from entrypoint.system.errors import UserError
from entrypoint.training import length
from entrypoint.training.plan import Plan
from entrypoint.workspace import Workspace
from tests.conftest import make_settings


@pytest.mark.parametrize(
    ("photos", "batch", "has_start", "steps"),
    [
        (50, 8, True, 600),
        (300, 8, True, 600),  # 16 times each
        (301, 8, True, 700),
        (3000, 8, True, 6000),
        # Fewer steps of large batches do, but not few.
        (50, 16, True, 600),
        (50, 24, True, 400),
        (50, 32, True, 300),
        (50, 128, True, 300),
        (300, 32, True, 300),
        (601, 32, True, 400),
        (50, 128, False, 2000),
        (3000, 32, True, 1500),
        (118_000, 8, True, 25_000),
        (50, 8, False, 2000),
        (300, 8, False, 2300),
        (0, 8, True, 600),
    ],
)
def test_number_of_steps_follows_from_the_photos(
    photos: int, batch: int, has_start: bool, steps: int, tmp_path: Path
) -> None:
    assert length.decide(make_settings(tmp_path), photos, batch, has_start=has_start) == steps
    assert length.decide(make_settings(tmp_path, num_steps=77), photos, batch, has_start=has_start) == 77


@pytest.mark.parametrize(
    ("values", "scheduled", "most"),
    [
        ({}, 700, 700),
        ({"num_steps": 5}, 5, 5),
        ({"max_minutes": 9.0}, 700, MOST_STEPS),
        ({"max_minutes": 9.0, "num_steps": "auto"}, 700, MOST_STEPS),
        ({"max_minutes": 9.0, "num_steps": 5}, 5, 5),
    ],
)
def test_time_alone_does_not_limit_the_steps(values: dict[str, Any], scheduled: int, most: int, tmp_path: Path) -> None:
    work = Workspace(make_settings(tmp_path, **values))
    work.root.mkdir(exist_ok=True)
    documents.write(work.plan, Plan("x.config", "tf2", scheduled, 8, 0.1, ()))
    assert (length.scheduled(work), length.most(work)) == (scheduled, most)


def test_number_of_steps_is_not_known_before_the_step_that_decides_on_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="pipeline"):
        length.scheduled(Workspace(make_settings(tmp_path)))


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (1000, "1000 steps of 8 photos show each of the 400 training photos 20.0 times"),
        (
            100,
            "100 steps of 8 photos show each of the 400 training photos 2.0 times; NUM_STEPS=auto takes 800 steps, and "
            "the model may still gain until then",
        ),
    ],
)
def test_short_training_is_told_what_it_may_miss(steps: int, words: str) -> None:
    assert length.describe(steps, 8, 400, has_start=True) == words


OWN = """# batch_size: 1
train_input_reader { label_map_path: "a" } train_config: { batch_size: 5 num_steps: 3 }"""
NESTED = "train_config { optimizer { } batch_size: 5 } eval_config { batch_size: 1 }"


@pytest.mark.parametrize(
    ("values", "begin"),
    [
        ({}, "300 steps of 32 photos show"),
        ({"model": "smoke"}, "2000 steps of 16 photos show"),  # the zoo has no checkpoint of it
        ({"model": "smoke", "batch_size": 4, "num_steps": 2000}, "2000 steps of 4 photos show"),
        ({"model": "smoke", "checkpoint": "/some/where"}, "600 steps of 16 photos show"),
        ({"checkpoint": "none"}, "2000 steps of 8 photos show"),  # MODEL=scratch
        ({"model": "smoke", "batch_size": "auto"}, None),
        ({"model": "smoke", "max_minutes": 5.0}, None),
        ({"model": "ssd_inception_v2_coco"}, None),  # its config is in its archive
        ({"model": "ssd_inception_v2_coco", "batch_size": 8}, "600 steps of 8 photos show"),
        ({"pipeline_config": OWN}, "600 steps of 5 photos show"),
        ({"pipeline_config": NESTED}, None),
    ],
)
def test_length_of_a_training_is_foreseen(values: dict[str, Any], begin: str | None, tmp_path: Path) -> None:
    if "pipeline_config" in values:
        path = tmp_path / "own.config"
        path.write_text(values["pipeline_config"])
        values = {**values, "pipeline_config": path}
    found = length.foresee(make_settings(tmp_path, **values), 50)
    assert found is None if begin is None else found is not None and found.startswith(begin)

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

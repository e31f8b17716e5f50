from __future__ import annotations

from entrypoint.system import sampling


def test_photos_are_taken_evenly_out_of_all() -> None:
    assert sampling.evenly(list(range(10)), 4) == [0, 2, 5, 7]
    assert sampling.evenly([1, 2], 64) == [1, 2]

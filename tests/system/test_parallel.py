from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from entrypoint.system import parallel


def test_results_come_in_order_and_few_wait_to_be_taken() -> None:
    taken, ahead = 0, 0

    def work(item: int) -> int:
        nonlocal ahead
        ahead = max(ahead, item - taken)
        time.sleep(0.001 * (item % 3))
        return item

    for expected, item in enumerate(parallel.map_in_order(work, range(200), 4)):
        assert item == expected
        taken = item
    assert ahead <= 2 * 4 + 1


def test_more_items_are_in_work_if_they_wait_and_no_more_if_their_threads_compute_in_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parallel, "CORES", 2)
    waiting, computing = parallel.Pace(32), parallel.Pace(32)
    for _ in range(1000):
        waiting.add(seconds=0.05, computed=0.0005)
        computing.add(seconds=0.0005 * computing.ahead, computed=0.0005)
    assert (waiting.ahead, computing.ahead) == (64, 4)


def test_few_slow_items_do_not_make_the_pace_of_many_fast_ones() -> None:
    pace = parallel.Pace(32)
    first = pace.ahead
    for number in range(200):
        pace.add(seconds=0.01 if number % 50 == 0 else 0.001, computed=0.001)
    assert pace.ahead == first


def test_as_many_items_as_there_are_workers_are_in_work_at_last_if_they_wait() -> None:
    lock, active, most = threading.Lock(), 0, 0

    def work(_: int) -> None:
        nonlocal active, most
        with lock:
            active += 1
            most = max(most, active)
        time.sleep(0.02)
        with lock:
            active -= 1

    list(parallel.map_in_order(work, range(300), 16))
    assert most == 16


def test_pool_of_others_is_left_open() -> None:
    with ThreadPoolExecutor(2) as pool:
        assert list(parallel.map_in_order(abs, [-1, -2, -3], 1, pool)) == [1, 2, 3]
        assert pool.submit(abs, -4).result() == 4


def test_sources_run_at_the_same_time() -> None:
    together = threading.Barrier(3, timeout=10)

    def source(name: str) -> Iterator[str]:
        together.wait()
        yield from (name, name)

    assert sorted(parallel.merge([source(name) for name in "abc"], 3)) == list("aabbcc")


def test_error_in_one_source_ends_the_others() -> None:
    seen = []

    def endless() -> Iterator[int]:
        for number in range(1_000_000):
            seen.append(number)
            time.sleep(0.001)
            yield number

    def broken() -> Iterator[int]:
        yield 0
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        list(parallel.merge([endless(), broken(), endless()], 2))
    assert len(seen) < 10_000


def test_no_source_is_no_item() -> None:
    assert list(parallel.merge([], 2)) == []


def test_parts_of_a_budget_are_not_taken_twice() -> None:
    budget, taken, most = parallel.Budget(10), 0, 0

    def work(wanted: int) -> None:
        nonlocal taken, most
        with budget.part(wanted):
            taken += wanted
            most = max(most, taken)
            time.sleep(0.005)
            taken -= wanted

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [4, 5, 6, 3] * 10))
    assert 6 <= most <= 10
    assert budget.free == 10


def test_part_above_the_budget_runs_alone() -> None:
    budget = parallel.Budget(10)
    with budget.part(50):
        assert budget.free == 0
    assert budget.free == 10

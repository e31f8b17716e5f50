from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, is_running, wait_until

# A process of its own: the one of the tests has threads, and its parts are not to be divided.
PROGRAM = """
import multiprocessing, os, sys, threading, time
from entrypoint.system import parallel, processes

parallel.CORES = 2
processes.CHUNK = 4
shared = []

def share(number, alone):
    # Otherwise one process could have done everything before the other one has started.
    together.wait(60)
    shared.append(number)
    budget.divide(number, alone)

budget = parallel.Budget(2)
together = multiprocessing.get_context("fork").Barrier(2)

def work(item):
{work}

{before}
found = processes.map_in_order(work, list(range({items})), 8, share)
{rest}
"""


def command(work: str, rest: str, before: str = "", items: int = 40) -> list[str]:
    lines = "\n".join(f"    {line}" for line in work.splitlines())
    return [sys.executable, "-c", PROGRAM.format(work=lines, rest=rest, before=before, items=items)]


def run(*words: Any, **more: Any) -> str:
    result = subprocess.run(command(*words, **more), cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.strip()


def test_results_come_in_order_from_several_processes_which_know_how_many_they_are() -> None:
    rest = """
rows = list(found)
assert [item for item, _, _ in rows] == list(range(40)), rows
assert {parts for _, _, parts in rows} == {(2,)}, rows
print(len({number for _, number, _ in rows} - {os.getpid()}))
"""
    # Each chunk takes a while, so that one process cannot take all of them.
    assert run("time.sleep(0.02)\nreturn item, os.getpid(), tuple(shared)", rest) == "2"


@pytest.mark.parametrize(
    ("before", "items"), [("", 8), ("threading.Thread(target=time.sleep, args=(60,), daemon=True).start()", 40)]
)
def test_work_stays_in_this_process_for_few_items_or_beside_another_thread(before: str, items: int) -> None:
    rest = "assert set(found) == {os.getpid()}\nprint(shared)"
    assert run("return os.getpid()", rest, before=before, items=items) == "[]"


def test_what_is_above_the_part_of_a_process_runs_in_one_process_at_a_time(tmp_path: Path) -> None:
    work = f"""
with budget.part(5):
    os.close(os.open("{tmp_path}/busy", os.O_CREAT | os.O_EXCL))
    time.sleep(0.01)
    os.remove("{tmp_path}/busy")
return os.getpid()
"""
    assert run(work, "print(len(set(found)))") == "2"


def test_error_of_the_work_arrives_and_ends_the_other_work(tmp_path: Path) -> None:
    work = f"""
if item == 0:
    raise OSError(5, "gone", "a.jpg")
time.sleep(0.1)
open(f"{tmp_path}/{{item}}", "w").close()
"""
    rest = "try:\n    list(found)\nexcept OSError as error:\n    print(error.errno, error.filename)"
    assert run(work, rest) == "5 a.jpg"
    assert len(list(tmp_path.iterdir())) < 39


def test_process_that_is_killed_is_reported_as_memory_that_ran_out() -> None:
    work = "if item == 20:\n    os.kill(os.getpid(), 9)\nreturn item"
    assert run(work, "try:\n    list(found)\nexcept MemoryError as error:\n    print(error)") == "a process was killed"


def test_no_process_outlives_the_one_that_started_it() -> None:
    rest = "for number in found:\n    print(number, flush=True)\n    time.sleep(60)"
    with subprocess.Popen(command("return os.getpid()", rest), cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout
        copy = int(process.stdout.readline())
        assert copy != process.pid
        process.kill()
    wait_until(lambda: not is_running(copy), "the copy runs")

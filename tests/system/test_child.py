"""A child process may end in any way, and its parent reports how."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys

import pytest

from tests.conftest import ROOT, STARTED, environment, is_running, read_until, wait_until

PROGRAM = """
import os, signal, subprocess, sys, time
from entrypoint.system import child, signals
from entrypoint.system.errors import Stopped

def work():
    print("child", os.getpid(), flush=True)
    {work}

ended = child.run(work)
print("ended", ended.text, ended.status, flush=True)
"""


def start(work: str) -> subprocess.Popen[str]:
    """Starts a program that runs these lines in a child process."""
    program = PROGRAM.format(work="\n    ".join(work.splitlines()))
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env=environment(),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    STARTED.append(process)
    return process


def child_of(process: subprocess.Popen[str]) -> int:
    return int(read_until(process, lambda line: line.startswith("child")).split()[-1])


def output_of(work: str) -> str:
    process = start(work)
    child_of(process)
    return process.communicate(timeout=60)[0]


def test_text_of_the_function_is_returned() -> None:
    assert output_of("return '0 mark'") == "ended 0 mark 0\n"


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGABRT"])
def test_signal_that_ended_the_child_is_returned(name: str) -> None:
    assert output_of(f"os.kill(os.getpid(), signal.{name})") == f"ended None {-getattr(signal, name)}\n"


def test_library_that_ends_the_process_is_noticed() -> None:
    assert output_of("os._exit(0)") == "ended None 0\n"


def test_end_is_noticed_where_the_ends_of_children_are_ignored() -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        process = start("return 'done'")
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert process.communicate(timeout=30)[0].endswith("ended done 0\n")


def test_process_that_the_child_left_behind_is_not_waited_for() -> None:
    process = start("left = os.fork() or (os.close(1), time.sleep(60))\nreturn f'left {left}'")
    child_of(process)
    _, _, left, status = process.communicate(timeout=60)[0].split()
    assert status == "0"
    # It runs on, and holds the pipe of the text open.
    assert is_running(int(left))
    os.kill(int(left), signal.SIGKILL)


# A signal that arrives just before a sleep begins does not end the sleep: Python's handler runs after it.
WAIT = """
{}
try:
    signals.raise_on_sigterm()
    for _ in range(600):
        time.sleep(0.1)
except Stopped:
    return "stopped"
"""


def test_signal_is_passed_on() -> None:
    process = start(WAIT.format("pass"))
    child_of(process)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=30)[0] == "ended stopped 0\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_that_was_ignored_at_the_start_is_passed_on(number: signal.Signals) -> None:
    """As a shell ignores SIGINT for what it starts in the background."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        process = start(WAIT.format("pass"))
    finally:
        signal.signal(number, before)
    child_of(process)
    process.send_signal(number)
    assert process.communicate(timeout=30)[0] == "ended stopped 0\n"


def test_signal_that_comes_before_the_child_has_handlers_is_not_lost() -> None:
    process = start(WAIT.format("sys.stdin.read(1)"))
    child_of(process)
    process.send_signal(signal.SIGTERM)
    assert process.communicate("x", timeout=30)[0] == "ended stopped 0\n"


def test_child_does_not_outlive_its_parent() -> None:
    process = start("time.sleep(60)")
    child = child_of(process)
    process.kill()
    process.wait()
    wait_until(lambda: not is_running(child), "the child runs")


COUNT = """
seen = []
signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
print("ready", flush=True)
time.sleep(1)
time.sleep(1)
return f"interrupts: {len(seen)}"
"""


def test_ctrl_c_at_a_terminal_arrives_once() -> None:
    program = PROGRAM.format(work="\n    ".join(COUNT.splitlines()))
    number, terminal = pty.fork()
    if not number:
        os.execve(sys.executable, [sys.executable, "-c", program], environment())  # noqa: S606
    shown = ""
    while "ready" not in shown:
        shown += os.read(terminal, 1000).decode()
    os.write(terminal, b"\x03")
    # A terminal can hand over half of a line.
    while "\n" not in shown.partition("ended")[2]:
        shown += os.read(terminal, 1000).decode()
    os.waitpid(number, 0)
    os.close(terminal)
    assert "interrupts: 1" in shown

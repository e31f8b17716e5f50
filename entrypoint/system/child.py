"""A function or a module in a child process: whatever ends that process does not end this one.

A native library that aborts, and a kernel without memory, end a process before it can report anything.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

# What a user, a terminal or a batch system sends to end a job or to warn it.
PASSED_ON = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGXCPU")
MOST_BYTES = 512  # of the text: a pipe accepts as many at once (POSIX, _POSIX_PIPE_BUF)
PR_SET_PDEATHSIG = 1  # linux/prctl.h
SI_KERNEL = 0x80  # asm-generic/siginfo.h
# The current folder, in which Python looks for modules first, can be the bucket.
PROGRAM = (
    "import sys; sys.path[:] = filter(None, sys.path); "
    "from entrypoint.system import child; child.end_with(int(sys.argv.pop(1))); "
    "import runpy; runpy.run_module(sys.argv.pop(1), None, '__main__', True)"
)


@dataclass(frozen=True)
class Ended:
    """How a child process ended."""

    text: str | None  # what the function returned; None if the process ended before that
    status: int  # the exit status, or the negative number of the signal that ended the process


def run(function: Callable[[], str]) -> Ended:
    """Runs a function in a child process and waits for it; passes on every signal of PASSED_ON.

    The process must not have threads. The signals are blocked from here on, in the child too, so that none is lost
    before the child has handlers: `signals.raise_on_sigterm` accepts them. The child ends if its parent is killed.

    The function returns an ASCII text of at most 512 characters.
    """
    # A shell starts what runs in the background with SIGINT ignored. What to do with a signal is for the child to say.
    waited_for = {signal.Signals(getattr(signal, name)) for name in PASSED_ON}
    signal.pthread_sigmask(signal.SIG_BLOCK, {*waited_for, signal.SIGCHLD})
    # Whoever started this process may ignore the end of children, which is inherited and would hide how they end.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    reading, writing = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if not child:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        end_with(parent)
        os.close(reading)
        os.write(writing, function().encode("ascii"))
        raise SystemExit(0)
    os.close(writing)
    status = wait(child, waited_for)
    # A process that the child has started, and that still runs, can keep the pipe open.
    os.set_blocking(reading, False)
    try:
        text = os.read(reading, MOST_BYTES).decode("ascii")
    except BlockingIOError:
        text = ""
    os.close(reading)
    return Ended(text or None, status)


def end_with(parent: int) -> None:
    """Makes the kernel kill this process if its parent ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        # The parent ended before the call, and another process has become the parent.
        os.kill(os.getpid(), signal.SIGKILL)


def wait(child: int, passed_on: set[signal.Signals]) -> int:
    """Returns the exit status of the child when it has ended, or the negative number of the signal that ended it.

    The first process of a container also inherits processes whose parents have ended.
    """
    while True:
        info = signal.sigwaitinfo({*passed_on, signal.SIGCHLD})
        if info.si_signo != signal.SIGCHLD:
            # A terminal sends Ctrl-C to all its processes, so the child has it already.
            if info.si_code != SI_KERNEL:
                os.kill(child, info.si_signo)
            continue
        for ended, status in ended_children():
            if ended == child:
                return os.waitstatus_to_exitcode(status)


def ended_children() -> list[tuple[int, int]]:
    """Returns process number and wait status of every child that has ended since the last call."""
    found: list[tuple[int, int]] = []
    while True:
        try:
            number, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if not number:
            return found
        found.append((number, status))


def run_module(
    module: str, *arguments: str, given: str = "", seconds: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a module in a new Python, with this one's paths of modules, and returns its exit status and its output.

    `given` is its standard input. It ends if this process is killed.

    Raises:
        subprocess.TimeoutExpired: it takes more than `seconds`; it is ended then.
    """
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", PROGRAM, str(os.getpid()), module, *arguments]
    return subprocess.run(
        command, env=env, input=given, timeout=seconds, capture_output=True, text=True, errors="replace", check=False
    )

"""A Dask cluster on this machine, started by Dask's own commands."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests import stores
from tests.conftest import environment, wait_until

DASK = Path(sys.executable).with_name("dask")
PROFILER = {"DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "false"}


@contextmanager
def program(*words: Any, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a program of Dask in a process group of its own until the block ends."""
    command = [str(DASK), *map(str, words)]
    process = subprocess.Popen(command, env=environment() | PROFILER | variables, start_new_session=True)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def scheduler() -> Iterator[str]:
    """Runs a scheduler; yields its address."""
    (port,) = stores.free_ports(1)
    with program("scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"):
        wait_until(lambda: stores.answers(port), "the scheduler does not answer")
        yield f"tcp://127.0.0.1:{port}"


def worker(address: str, folder: Path, **variables: str) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    """Runs a worker with one thread, as one machine does."""
    words = ("--nworkers", 1, "--nthreads", 1, "--no-dashboard", "--local-directory", folder)
    return program("worker", address, *words, **variables)


def workers_of(address: str) -> int:
    from distributed import Client

    with Client(address, timeout=60, set_as_default=False) as client:
        return len(client.scheduler_info(n_workers=-1)["workers"])

"""Object stores for the tests: moto's S3 and an emulator of Google Cloud Storage. Each is a separate server."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import fsspec
from upath import UPath

S3_KEYS = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "secret-of-tests", "AWS_DEFAULT_REGION": "us-east-1"}


@contextmanager
def s3(log: Path = Path(os.devnull)) -> Iterator[dict[str, str]]:
    """Runs a server with the API of S3, which logs its requests; yields the variables by which clients find it."""
    (port,) = free_ports(1)
    program = str(Path(sys.executable).with_name("moto_server"))
    with running([program, "--host=127.0.0.1", f"--port={port}"], port, log):
        forget_clients()
        yield {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", **S3_KEYS}


@contextmanager
def gcs() -> Iterator[dict[str, str]]:
    """Runs a server with the API of Google Cloud Storage; yields the variables by which clients find it."""
    (port,) = free_ports(1)
    program = str(Path(sys.executable).with_name("gcp-storage-emulator"))
    with running([program, "start", "--in-memory", "--host=127.0.0.1", f"--port={port}"], port):
        forget_clients()
        yield {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}"}


@contextmanager
def running(command: list[str], port: int, log: Path = Path(os.devnull)) -> Iterator[None]:
    """Runs a server until the block ends."""
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        deadline = time.monotonic() + 60
        while not answers(port):
            assert process.poll() is None, f"{command[0]} ended"
            assert time.monotonic() < deadline, f"{command[0]} does not answer"
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(20)


def forget_clients() -> None:
    """Clears fsspec's cache of clients, which would connect to the servers of other tests."""
    for name in ("s3", "gs"):
        fsspec.get_filesystem_class(name).clear_instance_cache()


def free_ports(count: int) -> list[int]:
    """Returns different ports that are free."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def answers(port: int) -> bool:
    """Returns whether a server listens on the port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def upload(folder: Path, address: str) -> None:
    """Makes the bucket of an address and copies a folder there."""
    target = UPath(address)
    target.fs.mkdir(target.parts[0].rstrip("/"))
    target.fs.put(f"{os.fspath(folder)}/", f"{target.path}/", recursive=True)

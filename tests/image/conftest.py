"""A Docker engine, a base image that needs no registry, and the CPU image built on it."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import ROOT, environment, is_at_step, read_until

DOCKER = os.environ.get("DOCKER", "docker")
BASE = "detection-training-job-base"
IMAGE = "detection-training-job-cpu"
# What makes a job quick.
SMOKE = ("--env=MODEL=smoke", "--env=BATCH_SIZE=4", "--env=EXPORTS=saved_model")


def docker(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs the Docker client; what it and the container print is the result's stdout."""
    process = subprocess.run(
        [DOCKER, *arguments],
        env={**os.environ, "DOCKER_BUILDKIT": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if check and process.returncode:
        pytest.fail(f"docker {' '.join(arguments)} ended with {process.returncode}:\n{process.stdout[-10_000:]}")
    return process


def start(image: str, name: str, *arguments: str) -> subprocess.Popen[str]:
    """Starts a container in the foreground, whose log can be read; the last argument is the job's own word."""
    command = [DOCKER, "run", "--name", name, *arguments[:-1], image, arguments[-1]]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def stop_in_training(process: subprocess.Popen[str], name: str, checkpoints: Path, seconds: int) -> int:
    """Stops a container after some steps, as `docker stop` does, and returns the step that it saved."""
    read_until(process, lambda line: is_at_step(line, 10))
    docker("stop", f"--time={seconds}", name)
    log = process.communicate()[0]
    assert process.returncode == 143, log
    return max(int(path.stem.partition("-")[2]) for path in checkpoints.glob("ckpt-*.json"))


@pytest.fixture
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    """A container's name; whatever bears it is gone after the test."""
    name = re.sub(r"\W+", "-", request.node.name)[:60]
    yield name
    docker("rm", "--force", name, check=False)


@contextmanager
def locked(path: Path, kind: int) -> Iterator[None]:
    """Holds a lock on a file, fcntl.LOCK_SH or fcntl.LOCK_EX, against the other workers of the tests."""
    with path.open("a") as file:
        fcntl.flock(file, kind)
        yield


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of the tests have."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def engine(shared: Path) -> Iterator[str]:
    """The version of a running engine: the one that there is, or one of the tests' own, stopped in the end."""
    with locked(shared / "start.lock", fcntl.LOCK_EX):
        daemon = None if docker("info", check=False).returncode == 0 else start_engine()
    with locked(shared / "engine.lock", fcntl.LOCK_SH):
        yield docker("version", "--format={{.Server.Version}}").stdout
    if daemon:
        # The other workers may still use it.
        with locked(shared / "engine.lock", fcntl.LOCK_EX):
            daemon.terminate()
            daemon.wait(30)


def start_engine() -> subprocess.Popen[bytes]:
    """Starts an engine and waits until it answers."""
    daemon = subprocess.Popen(["dockerd"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while docker("info", check=False).returncode:
        assert daemon.poll() is None, "dockerd ended"
        assert time.monotonic() < deadline, "dockerd does not answer"
        time.sleep(1)
    return daemon


def make_base(folder: Path) -> str:
    """Returns what BASE_IMAGE names, else a small Debian, made once and kept by the engine: it needs no registry."""
    if os.environ.get("BASE_IMAGE"):
        return os.environ["BASE_IMAGE"]
    if docker("image", "inspect", BASE, check=False).returncode:
        root = folder / "root"
        packages = "--include=ca-certificates,python3,python3-venv,tini"
        subprocess.run(
            ["debootstrap", "--variant=minbase", packages, "bookworm", root], check=True, stdout=subprocess.DEVNULL
        )
        # The certificates of this machine, by which it reaches its package index.
        shutil.copy("/etc/ssl/certs/ca-certificates.crt", root / "etc" / "ssl" / "certs")
        archive = folder / "base.tar"
        subprocess.run(["tar", "--create", "--file", archive, "--directory", root, "."], check=True)
        docker("import", str(archive), BASE)
        shutil.rmtree(folder)
    return BASE


@pytest.fixture(scope="session")
def image(engine: str, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The CPU image of this tree with Dask, as `make image` builds it. The second worker finds everything built."""
    assert engine
    with locked(shared / "build.lock", fcntl.LOCK_EX):
        base = make_base(tmp_path_factory.mktemp("base"))
        arguments = f"BASE_IMAGE={base} REQUIREMENTS=requirements-cpu.txt EXTRAS=requirements-dask.txt".split()
        options = f"--network=host {' '.join(f'--build-arg={each}' for each in arguments)}"
        command = ["make", "image", f"IMAGE={IMAGE}", f"DOCKER={DOCKER}", f"IMAGE_OPTIONS={options}"]
        built = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr[-10_000:]
    return IMAGE


@pytest.fixture
def bucket(tmp_path: Path, demo_bucket: Path) -> Path:
    """A bucket of the demo's photos that any user may write into, as bucket mounts are."""
    folder = tmp_path / "bucket"
    shutil.copytree(demo_bucket, folder)
    for path in (tmp_path, folder):
        path.chmod(0o777)
    return folder

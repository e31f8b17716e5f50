from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import tensorflow as tf

from entrypoint.engines import machine, wheel
from entrypoint.engines.machine import Gpus
from entrypoint.settings import services
from entrypoint.system import memory
from entrypoint.system.errors import UserError
from tests.conftest import ROOT, environment, make_settings, run_job

# What the CUDA Driver API's calls return on a machine with DEVICES devices, or FAILURE where they fail.
DRIVER = """
#include <string.h>
int cuDriverGetVersion(int *version) { *version = VERSION; return 0; }
int cuInit(unsigned flags) { return STATUS; }
int cuDeviceGetCount(int *count) { *count = DEVICES; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, device ? "Tesla T4" : "H100", size); return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  *value = attribute == 75 ? (device ? 7 : 9) : (device ? 5 : 0);
  return 0;
}
"""


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the container's root."""
    monkeypatch.setattr(services, "ROOT", tmp_path / "root")
    monkeypatch.setattr(memory, "ROOT", tmp_path / "root")
    return tmp_path / "root"


def ask(folder: Path, version: int = 12040, status: int = 0, devices: int = 1) -> str:
    """What ask_driver finds where such a driver is installed."""
    if not shutil.which("gcc"):
        pytest.skip("needs a C compiler")
    (folder / "driver.c").write_text(DRIVER)
    values = [f"-DVERSION={version}", f"-DSTATUS={status}", f"-DDEVICES={devices}"]
    library = folder / "libcuda.so.1"
    subprocess.run(["gcc", "-shared", "-fPIC", *values, "-o", library, folder / "driver.c"], check=True)
    result = subprocess.run(
        [sys.executable, "-c", "from entrypoint.engines import machine; print(machine.ask_driver())"],
        env=environment() | {"LD_LIBRARY_PATH": str(folder), "PYTHONPATH": f"{ROOT}:{folder}"},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return result.stdout.strip()


def test_gpus_are_named_with_the_lowest_capability(tmp_path: Path) -> None:
    assert ask(tmp_path, devices=2) == repr(Gpus(("H100", "Tesla T4"), ((9, 0), (7, 5))))


# What the build of the GPU wheel of TensorFlow 2.21 wrote.
BUILD_INFO = """import collections
build_info = collections.OrderedDict([('cpu_compiler', 'clang'), ('cuda_compute_capabilities',
  ['sm_60', 'sm_70', 'sm_80', 'sm_89', 'compute_90']), ('cuda_version', '12.5.1'), ('is_cuda_build', True)])
"""


@pytest.mark.parametrize(
    ("capability", "outcome"),
    [
        ((7, 5), "runs"),
        ((8, 6), "runs"),
        ((9, 0), "runs"),
        ((10, 0), "compiles"),
        ((12, 0), "compiles"),
        ((5, 2), "refused"),
    ],
    ids=str,
)
def test_gpu_without_code_is_found_before_any_work(
    capability: tuple[int, int], outcome: str, caplog: pytest.LogCaptureFixture
) -> None:
    code, gpus = wheel.parse(BUILD_INFO), Gpus(("GPU",), (capability,))
    name = ".".join(map(str, capability))
    words = f"GPU has compute capability {name}, and this TensorFlow has code for 6.0, 7.0, 8.0, 8.9, 9.0"
    with caplog.at_level(logging.WARNING, logger="job"):
        if outcome == "refused":
            with pytest.raises(UserError, match=f"no GPU can be used: {words}; use one of these GPUs, or set DEVICE"):
                machine.refuse_without_code(gpus, code)
        else:
            machine.refuse_without_code(gpus, code)
    assert (words in caplog.text) == (outcome == "compiles")


def test_newer_wheel_needs_no_change() -> None:
    code = wheel.parse(BUILD_INFO.replace("'compute_90'", "'sm_90', 'sm_100a', 'compute_120'"))
    assert code is not None
    assert all(code.runs_on(each) for each in ((9, 0), (10, 0), (10, 3), (12, 0), (12, 1)))


@pytest.mark.parametrize("module", ["", "x = (", "a = ('cuda_compute_capabilities', 3)", "a = ('b', [1])"])
def test_build_that_does_not_say_is_not_judged(module: str) -> None:
    assert wheel.parse(module) is None
    machine.refuse_without_code(Gpus(("GPU",), ((12, 0),)), None)


def test_list_is_found_in_the_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the package that Python would import, which is not imported for it."""
    package = tmp_path / "tensorflow"
    (package / "python" / "platform").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError")
    (package / "python" / "platform" / "build_info.py").write_text(BUILD_INFO)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    assert wheel.read() == wheel.parse(BUILD_INFO)


def test_cpu_build_has_no_code_for_gpus() -> None:
    if not machine.is_cpu_build():
        pytest.skip("needs the CPU build")
    assert wheel.read() is None


def test_driver_too_old_for_the_libraries_is_told(tmp_path: Path) -> None:
    found = ask(tmp_path, version=11040)
    assert "supports CUDA 11.4, but CUDA 12 is needed: install driver 525 or newer" in found
    assert "is_driver_old=True" in found


def test_build_for_cuda_11_takes_a_driver_of_cuda_11(tmp_path: Path) -> None:
    (tmp_path / "tensorflow_gpu-2.11.0.dist-info").mkdir()
    (tmp_path / "tensorflow_gpu-2.11.0.dist-info" / "METADATA").write_text("Name: tensorflow-gpu\nVersion: 2.11.0\n")
    assert "is_driver_old=False" in ask(tmp_path, version=11040)
    assert "CUDA 11 is needed: install driver 450 or newer" in ask(tmp_path, version=10020)


@pytest.mark.parametrize(
    ("status", "devices", "reason"),
    [(100, 0, "shows no GPU to this container"), (0, 0, "shows no GPU to this container"), (803, 1, "CUDA error 803")],
)
def test_driver_without_a_gpu_is_told(tmp_path: Path, status: int, devices: int, reason: str) -> None:
    assert reason in ask(tmp_path, status=status, devices=devices)


@pytest.mark.skipif(Path("/proc/driver/nvidia/version").exists(), reason="this machine has a driver")
def test_missing_driver_is_told() -> None:
    assert "the NVIDIA driver (libcuda.so.1) was not found" in machine.ask_driver().reason


def test_gpu_asked_for_and_absent_is_one_clear_line_before_any_work(tmp_path: Path) -> None:
    if not machine.is_cpu_build():
        pytest.skip("needs the CPU build")
    (tmp_path / "bucket").mkdir()
    places = {"DATA_DIR": tmp_path / "bucket", "WORK_DIR": tmp_path / "work", "RESULT_DIR": tmp_path / "results"}
    result = run_job("1", DEVICE="gpu", **places)
    assert result.returncode == 2
    assert len(result.stdout.splitlines()) == 2
    assert "no GPU can be used: this is the CPU build of TensorFlow (requirements-cpu.txt);" in result.stdout
    assert not (tmp_path / "results").exists()


def test_old_driver_stops_a_job_that_would_train_on_the_cpu_instead() -> None:
    with pytest.raises(UserError, match="no GPU can be used: old; set DEVICE=cpu to train on the CPU"):
        machine.tell("auto", Gpus(reason="old", is_driver_old=True))


def test_precision_without_hardware_falls_back_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="job"):
        assert machine.policy(make_settings(tmp_path, precision="bfloat16", device="cpu")) == "float32"
    assert "PRECISION=bfloat16 gains nothing here (DEVICE=cpu): training in float32" in caplog.text


def write_memory(root: Path, version: int, limit: str, used: int, in_files: int = 0) -> None:
    """The files of a control group of that version."""
    limit_file, stat_file, (processes, files) = memory.CONTROL_GROUPS[0 if version == 2 else 1]
    lines = f"file 99999999999\n{processes} {used}\n{files} {in_files}\n"
    for path, text in ((limit_file, f"{limit}\n"), (stat_file, lines)):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


@pytest.mark.parametrize("version", [1, 2])
def test_memory_of_a_container_is_read(root: Path, version: int) -> None:
    write_memory(root, version, limit=str(3 << 30), used=5)
    assert (memory.limit(), memory.used()) == (3 << 30, 5)


@pytest.mark.parametrize("version", [1, 2])
def test_memory_that_is_left_is_that_of_the_container_without_files_in_memory(root: Path, version: int) -> None:
    (root / "proc").mkdir(parents=True, exist_ok=True)
    (root / "proc/meminfo").write_text("MemTotal: 9000000 kB\nMemAvailable:    8388608 kB\nBuffers: 5 kB\n")
    write_memory(root, version, limit="max" if version == 2 else "9223372036854771712", used=5)
    assert memory.free() == 8 << 30
    write_memory(root, version, limit=str(3 << 30), used=1 << 30, in_files=1 << 29)
    assert memory.free() == 3 << 29


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (tf.errors.ResourceExhaustedError(None, None, "Graph execution error"), True),
        (tf.errors.NotFoundError(None, None, "No algorithm worked! Error messages: Profiling failure"), True),
        (tf.errors.InternalError(None, None, "CUDNN_STATUS_ALLOC_FAILED in tensorflow/stream_executor"), True),
        (tf.errors.InternalError(None, None, "failed to create cublas handle: CUBLAS_STATUS_ALLOC_FAILED"), True),
        (tf.errors.InvalidArgumentError(None, None, "Cannot add tensor to the batch"), False),
        (ValueError("shapes do not match"), False),
    ],
)
def test_lack_of_memory_is_known_in_whatever_words_it_comes(error: Exception, is_memory: bool) -> None:
    assert machine.is_out_of_memory(error) == is_memory


@pytest.mark.parametrize(("version", "limit"), [(1, "9223372036854771712"), (2, "max")])
def test_memory_without_a_limit(root: Path, version: int, limit: str) -> None:
    write_memory(root, version, limit, used=5)
    assert memory.limit() is None


def test_memory_that_cannot_suffice_is_refused(root: Path, tmp_path: Path) -> None:
    write_memory(root, 2, limit=str(512 << 20), used=5)
    with pytest.raises(UserError, match="may use 512 MiB of memory, but the smallest job needs 768 MiB"):
        machine.check(make_settings(tmp_path))


def test_memory_that_fills_up_is_told_before_the_kernel_kills(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_memory(root, 2, limit=str(1 << 30), used=1 << 29)
    (root / "dev").mkdir()
    (root / "dev/termination-log").touch()
    stop = threading.Event()
    with caplog.at_level(logging.WARNING, logger="job"):
        watch = threading.Thread(target=machine.warn_when_full, args=(1 << 30, stop))
        watch.start()
        write_memory(root, 2, limit=str(1 << 30), used=1020 << 20)
        watch.join(10)
    stop.set()
    assert "memory: 1,020 of the 1,024 MiB that this container may use are in use" in caplog.text
    assert "set a smaller BATCH_SIZE" in (root / "dev/termination-log").read_text()
    assert os.path.getsize(root / "dev/termination-log") < 4096

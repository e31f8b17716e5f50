"""Checks the machine that a job runs on: its GPUs and its limit of memory.

The GPUs are read from NVIDIA's driver, without TensorFlow.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import logging
import re
import threading
from dataclasses import dataclass

from entrypoint.engines import wheel
from entrypoint.engines.wheel import Capability, Code
from entrypoint.settings import services
from entrypoint.settings.schema import Settings
from entrypoint.system import memory
from entrypoint.system.errors import UserError

logger = logging.getLogger("job")

# Codes and attributes of the CUDA Driver API, section "Data types used by CUDA driver".
NO_DEVICE = 100
CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76
# The CUDA version that a build of TensorFlow needs, and the first driver that runs all minor releases of that version
# (CUDA Compatibility, table 1). requirements.txt needs CUDA 12, requirements-tensorflow-gpu.txt needs CUDA 11.
CUDA, DRIVER = 12, 525
OLD_CUDA, OLD_DRIVER = 11, 450
# Tensor cores support bfloat16 from compute capability 8.0 on (CUDA C++ Programming Guide, table 24).
BFLOAT16_CAPABILITY = (8, 0)
# The smoke model with batches of four needs 0.7 GiB. TensorFlow takes most of it.
LEAST_MEMORY = 768 << 20
FULL = 0.9
# What TensorFlow, cuDNN and cuBLAS say if a GPU has no memory left.
OUT_OF_MEMORY = re.compile(
    "RESOURCE_EXHAUSTED|OOM when allocating|_STATUS_ALLOC_FAILED|OUT_OF_MEMORY|No algorithm worked|"
    "failed to allocate|out of memory",
    re.IGNORECASE,
)
SECONDS_BETWEEN_LOOKS = 0.1
MEND_GPU = "use one of these GPUs, or set DEVICE=cpu to train on the CPU"
MEND_MEMORY = "raise the limit (docker run --memory, resources.limits.memory), or set a smaller BATCH_SIZE or WORKERS"


@dataclass(frozen=True)
class Gpus:
    """The GPUs of this machine, or the reason why there are no GPUs."""

    names: tuple[str, ...] = ()
    capabilities: tuple[Capability, ...] = ()  # of each GPU
    reason: str = ""
    is_driver_old: bool = False

    @property
    def capability(self) -> Capability:
        """The lowest compute capability of all GPUs."""
        return min(self.capabilities, default=(0, 0))


def check(settings: Settings) -> None:
    """Logs the GPUs that the job can use, and refuses a machine that cannot run the job.

    Raises:
        UserError: DEVICE=gpu is set and there is no GPU, the driver is too old, or the limit of memory is too low.
    """
    refuse_little_memory()
    if settings.device != "cpu":
        gpus = find_gpus()
        tell(settings.device, gpus)
        if gpus.names:
            refuse_without_code(gpus, wheel.read())


def tell(device: str, gpus: Gpus) -> None:
    """Logs the GPUs. Raises UserError if the driver is too old, or if DEVICE=gpu is set and there is no GPU."""
    if gpus.is_driver_old or (not gpus.names and device == "gpu"):
        mend = "set DEVICE=cpu to train on the CPU" if gpus.is_driver_old else "start the container with --gpus all"
        raise UserError(f"no GPU can be used: {gpus.reason}; {mend}")
    if gpus.names:
        logger.info("GPU: %s", ", ".join(gpus.names))
    elif not is_cpu_build():
        logger.warning("no GPU: %s; training on the CPU, which takes many times as long", gpus.reason)


def refuse_without_code(gpus: Gpus, code: Code | None) -> None:
    """Refuses GPUs that TensorFlow has no code for, and warns of those for which the driver has to compile it.

    Without this, TensorFlow aborts below Python, or compiles for half an hour, after the photos were converted.

    Raises:
        UserError: there is a GPU for which TensorFlow has no code at all.
    """
    if code is None:
        return
    for name, capability in zip(gpus.names, gpus.capabilities, strict=True):
        if code.runs_on(capability):
            continue
        words = f"{name} has compute capability {dotted(capability)}, and this TensorFlow has code for "
        words += ", ".join(map(dotted, code.binary))
        if not code.can_be_compiled_for(capability):
            raise UserError(f"no GPU can be used: {words}; {MEND_GPU}")
        logger.warning(
            "%s: the driver compiles it for this GPU at the first start, which takes half an hour or fails; %s",
            words,
            MEND_GPU,
        )


def dotted(capability: Capability) -> str:
    """Returns a compute capability as it is written: 8.9."""
    return ".".join(map(str, capability))


def find_gpus() -> Gpus:
    """Returns the GPUs that NVIDIA's driver shows to this process."""
    if is_cpu_build():
        return Gpus(reason="this is the CPU build of TensorFlow (requirements-cpu.txt)")
    return ask_driver()


def ask_driver() -> Gpus:
    """Returns the GPUs that the CUDA Driver API reports.

    NVIDIA's container toolkit brings the library of this API into a container.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Gpus(reason="the NVIDIA driver (libcuda.so.1) was not found")
    version = ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    cuda, oldest = (OLD_CUDA, OLD_DRIVER) if is_installed("tensorflow-gpu") else (CUDA, DRIVER)
    if version.value < cuda * 1000:
        found = f"{version.value // 1000}.{version.value % 1000 // 10}"
        words = f"CUDA {found}, but CUDA {cuda} is needed: install driver {oldest} or newer"
        return Gpus(reason=f"the NVIDIA driver supports {words}", is_driver_old=True)
    status = driver.cuInit(0)
    if status == NO_DEVICE:
        return Gpus(reason="the NVIDIA driver shows no GPU to this container")
    if status:
        return Gpus(reason=f"the NVIDIA driver fails with CUDA error {status}")
    return read_gpus(driver)


def read_gpus(driver: ctypes.CDLL) -> Gpus:
    """Returns the names and the compute capabilities of all devices."""
    count, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    driver.cuDeviceGetCount(ctypes.byref(count))
    names, capabilities = [], []
    for device in range(count.value):
        name = ctypes.create_string_buffer(256)
        driver.cuDeviceGetName(name, len(name), device)
        driver.cuDeviceGetAttribute(ctypes.byref(major), CAPABILITY_MAJOR, device)
        driver.cuDeviceGetAttribute(ctypes.byref(minor), CAPABILITY_MINOR, device)
        names.append(name.value.decode(errors="replace"))
        capabilities.append((major.value, minor.value))
    if not names:
        return Gpus(reason="the NVIDIA driver shows no GPU to this container")
    return Gpus(tuple(names), tuple(capabilities))


def is_cpu_build() -> bool:
    """Returns whether the installed TensorFlow is the build without support for GPUs."""
    return is_installed("tensorflow-cpu")


def is_installed(package: str) -> bool:
    """Returns whether a package is installed under that name."""
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def policy(settings: Settings) -> str:
    """Returns Keras's policy for PRECISION.

    If the hardware does not support that precision, the function logs a warning and returns float32.
    """
    if settings.precision == "float32":
        return "float32"
    gpus = find_gpus() if settings.device != "cpu" else Gpus(reason="DEVICE=cpu")
    if gpus.capability >= BFLOAT16_CAPABILITY:
        return "mixed_bfloat16"
    why = gpus.reason or f"{gpus.names[0]} has compute capability {dotted(gpus.capability)}, below 8.0"
    logger.warning("PRECISION=%s gains nothing here (%s): training in float32", settings.precision, why)
    return "float32"


def is_out_of_memory(error: Exception) -> bool:
    """Returns whether an error of TensorFlow means that the memory does not suffice.

    NVIDIA's libraries report it in words of their own, and TensorFlow passes these on as errors of other classes.
    """
    return type(error).__name__ == "ResourceExhaustedError" or OUT_OF_MEMORY.search(str(error)) is not None


def refuse_little_memory() -> None:
    """Raises UserError if the limit of memory is below LEAST_MEMORY, which even the smallest job needs."""
    limit = memory.limit()
    if limit is not None and limit < LEAST_MEMORY:
        raise UserError(
            f"this container may use {limit / (1 << 20):,.0f} MiB of memory, but the smallest job needs "
            f"{LEAST_MEMORY >> 20} MiB: raise the limit (docker run --memory, resources.limits.memory)"
        )


def watch_memory() -> None:
    """Starts a thread that warns once before the kernel kills the job because of its memory.

    After the kill, the job can no longer report why it ended.
    """
    limit = memory.limit()
    if limit is not None:
        threading.Thread(target=warn_when_full, args=(limit,), daemon=True, name="memory").start()


def warn_when_full(limit: int, stop: threading.Event | None = None) -> None:
    """Waits until more than the fraction FULL of the limit is in use, and then warns.

    The warning goes to the log and to the file from which the service reads why a job failed.
    """
    stop = stop or threading.Event()
    while not stop.wait(SECONDS_BETWEEN_LOOKS):
        used = memory.used()
        if used > FULL * limit:
            message = (
                f"memory: {used / (1 << 20):,.0f} of the {limit / (1 << 20):,.0f} MiB that this container may use are "
                f"in use; above the limit the kernel kills the job: {MEND_MEMORY}"
            )
            logger.warning("%s", message)
            services.tell_failure(message)
            return

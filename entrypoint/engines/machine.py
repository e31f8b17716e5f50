"""The machine that a job runs on: its GPUs, asked of NVIDIA's driver without TensorFlow, and the memory it may use."""

from __future__ import annotations

import ctypes
import importlib.metadata
import logging
import threading
from dataclasses import dataclass

from entrypoint.settings import services
from entrypoint.settings.schema import Settings
from entrypoint.system.errors import UserError

logger = logging.getLogger("job")

# Codes and attributes of the CUDA Driver API, section "Data types used by CUDA driver".
NO_DEVICE = 100
CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76
# The CUDA that a build of TensorFlow needs, and the first driver that runs all of its minor releases (CUDA
# Compatibility, table 1). requirements.txt is for 12, requirements-tensorflow-gpu.txt for 11.
CUDA, DRIVER = 12, 525
OLD_CUDA, OLD_DRIVER = 11, 450
# Tensor cores compute in bfloat16 from compute capability 8.0 on (CUDA C++ Programming Guide, table 24).
BFLOAT16_CAPABILITY = (8, 0)
# The smoke model with batches of four needs 0.7 GiB, most of which TensorFlow takes.
LEAST_MEMORY = 768 << 20
# Control groups of version 2 and version 1: the limit, and the file and line that tell what cannot be given back.
MEMORY = (
    ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.stat", "anon"),
    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "sys/fs/cgroup/memory/memory.stat", "total_rss"),
)
FULL = 0.9
SECONDS_BETWEEN_LOOKS = 0.1
MEND_MEMORY = "raise the limit (docker run --memory, resources.limits.memory), or set a smaller BATCH_SIZE or WORKERS"


@dataclass(frozen=True)
class Gpus:
    """The GPUs of this machine; where there is none, why not."""

    names: tuple[str, ...] = ()
    capability: tuple[int, int] = (0, 0)  # the lowest of all
    reason: str = ""
    is_driver_old: bool = False


def check(settings: Settings) -> None:
    """Says what the job runs on.

    Raises:
        UserError: DEVICE asks for what is not there, the driver is too old, or memory cannot suffice.
    """
    refuse_little_memory()
    if settings.device != "cpu":
        tell(settings.device, find_gpus())


def tell(device: str, gpus: Gpus) -> None:
    """Logs the GPUs; UserError where they are not what the user means to train on."""
    if gpus.is_driver_old or (not gpus.names and device == "gpu"):
        mend = "set DEVICE=cpu to train without" if gpus.is_driver_old else "start the container with --gpus all"
        raise UserError(f"no GPU can be used: {gpus.reason}; {mend}")
    if gpus.names:
        logger.info("GPU: %s", ", ".join(gpus.names))
    elif not is_cpu_build():
        logger.warning("no GPU: %s; training on the CPU, which takes many times as long", gpus.reason)


def find_gpus() -> Gpus:
    """The GPUs that NVIDIA's driver shows to this process."""
    if is_cpu_build():
        return Gpus(reason="this is the CPU build of TensorFlow (requirements-cpu.txt)")
    return ask_driver()


def ask_driver() -> Gpus:
    """What the CUDA Driver API tells, in the library that NVIDIA's container toolkit brings into a container."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Gpus(reason="there is no NVIDIA driver (libcuda.so.1) in here")
    version = ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    cuda, oldest = (OLD_CUDA, OLD_DRIVER) if is_installed("tensorflow-gpu") else (CUDA, DRIVER)
    if version.value < cuda * 1000:
        found = f"{version.value // 1000}.{version.value % 1000 // 10}"
        words = f"CUDA {found}, and CUDA {cuda} is needed: install driver {oldest} or newer"
        return Gpus(reason=f"the NVIDIA driver runs {words}", is_driver_old=True)
    status = driver.cuInit(0)
    if status == NO_DEVICE:
        return Gpus(reason="the NVIDIA driver shows no GPU to this container")
    if status:
        return Gpus(reason=f"the NVIDIA driver fails with CUDA error {status}")
    return read_gpus(driver)


def read_gpus(driver: ctypes.CDLL) -> Gpus:
    """Names and the lowest compute capability of all devices."""
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
    return Gpus(tuple(names), min(capabilities))


def is_cpu_build() -> bool:
    """Whether the installed TensorFlow is the one without GPUs."""
    return is_installed("tensorflow-cpu")


def is_installed(package: str) -> bool:
    """Whether a package is installed under that name."""
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def policy(settings: Settings) -> str:
    """Keras's policy for PRECISION; float32, and a line that says so, where the hardware does not compute in it."""
    if settings.precision == "float32":
        return "float32"
    gpus = find_gpus() if settings.device != "cpu" else Gpus(reason="DEVICE=cpu")
    if gpus.capability >= BFLOAT16_CAPABILITY:
        return "mixed_bfloat16"
    why = gpus.reason or f"{gpus.names[0]} has compute capability {'.'.join(map(str, gpus.capability))}, below 8.0"
    logger.warning("PRECISION=%s gains nothing here (%s): training in float32", settings.precision, why)
    return "float32"


def memory_limit() -> int | None:
    """The bytes that this container may use; None without a limit."""
    for limit, _, _ in MEMORY:
        path = services.ROOT / limit
        if path.exists():
            text = path.read_text().strip()
            # Version 1 says `unlimited` as the largest multiple of a page in 63 bits.
            return int(text) if text.isdigit() and int(text) < 1 << 60 else None
    return None


def memory_used() -> int:
    """The bytes in use that the kernel cannot take back, unlike those of its file cache."""
    for _, path, name in MEMORY:
        if (services.ROOT / path).exists():
            lines = (line.split() for line in (services.ROOT / path).read_text().splitlines())
            return int(dict(lines).get(name, 0))
    return 0


def refuse_little_memory() -> None:
    """UserError where TensorFlow alone would be killed for want of memory."""
    limit = memory_limit()
    if limit is not None and limit < LEAST_MEMORY:
        raise UserError(
            f"this container may use {limit / (1 << 20):,.0f} MiB of memory, and the smallest job needs "
            f"{LEAST_MEMORY >> 20}: raise the limit (docker run --memory, resources.limits.memory)"
        )


def watch_memory() -> None:
    """Warns, once, before the kernel kills a job for its memory: nobody could say afterwards why it ended."""
    limit = memory_limit()
    if limit is not None:
        threading.Thread(target=warn_when_full, args=(limit,), daemon=True, name="memory").start()


def warn_when_full(limit: int, stop: threading.Event | None = None) -> None:
    """Waits until FULL of the limit is in use, and says so, also where the service reads why a job failed."""
    stop = stop or threading.Event()
    while not stop.wait(SECONDS_BETWEEN_LOOKS):
        used = memory_used()
        if used > FULL * limit:
            message = (
                f"memory: {used / (1 << 20):,.0f} of the {limit / (1 << 20):,.0f} MiB that this container may use are "
                f"in use; beyond them it is killed (exit code 137): {MEND_MEMORY}"
            )
            logger.warning("%s", message)
            services.tell_failure(message)
            return

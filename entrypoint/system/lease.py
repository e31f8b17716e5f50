"""One job at a time has a folder of results: a lock file, renewed while its owner lives.

A bucket has no locks of its own. A job that was killed leaves its lock file behind: a lock that is not renewed for
DEAD_SECONDS belongs to a dead job.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from entrypoint.system import bucket, copying
from entrypoint.system.bucket import Place
from entrypoint.system.errors import UserError

logger = logging.getLogger("job")

LOCK = ".training-job.lock"
MOST_BYTES = 1 << 16  # of a lock file
RENEWAL_SECONDS = 10.0
DEAD_SECONDS = 35.0
SETTLE_SECONDS = 1.0
# The job waits at its end for a renewal that is under way, retries included: it would create the lock file again.
RELEASE_SECONDS = 60.0


@contextlib.contextmanager
def hold(name: str, folder: Place) -> Iterator[None]:
    """Reserves the folder of a setting for this job.

    Raises:
        UserError: another job that is alive has the folder.
    """
    path = folder / LOCK
    mine = {**place_of_process(), "pid": os.getpid(), "token": uuid.uuid4().hex}
    stop = threading.Event()
    renewal = threading.Thread(target=renew, args=(path, mine, stop), daemon=True, name="lock")
    try:
        # A signal to stop can arrive when the lock has just been written.
        acquire(path, mine, f"{name}={folder}")
        renewal.start()
        yield
    finally:
        stop.set()
        if renewal.ident:
            renewal.join(timeout=RELEASE_SECONDS)
        with contextlib.suppress(OSError):
            if is_mine(read_claim(path), mine):
                bucket.remove(path)


def acquire(path: Place, mine: dict[str, Any], place: str) -> None:
    """Creates the lock file; raises UserError if another job that is alive has it."""
    while True:
        if not bucket.is_remote(path):
            copying.refuse_links([path])
        claim = read_claim(path)
        if claim is not None:
            wait_for_dead_owner(path, claim, place)
            bucket.remove(path)
        try:
            with bucket.named_errors(path), path.open("xb") as file:
                file.write(encode_claim(mine))
            break
        except FileExistsError:
            logger.info("%s: another job was faster", place)
        except OSError:
            # Some mounts report errors when a file is closed. This job created the file, and writes it again.
            copying.write_file(path, encode_claim(mine))
            break
    # Bucket mounts let two jobs create one file, and two jobs can remove a dead job's lock at once: the job that wrote
    # last has it.
    time.sleep(SETTLE_SECONDS)
    refuse_other_owner(read_claim(path), mine, place)


def make_writable(name: str, folder: Place) -> None:
    """Creates the folder of a setting; raises UserError if it cannot be created or written to."""
    if bucket.is_remote(folder):
        probe(name, folder)
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{name}={folder} cannot be made ({error.strerror}): {mend_for_user()}") from None
    if not os.access(folder, os.W_OK):
        raise UserError(f"{name}={folder} cannot be written to: {mend_for_user()}")


def probe(name: str, folder: Place) -> None:
    """Writes a file to a bucket and removes it; raises UserError if the bucket refuses it."""
    path = folder / f"{LOCK}.{uuid.uuid4().hex}"
    try:
        copying.write_file(path, b"written to see whether it can be")
        bucket.remove(path)
    except FileNotFoundError:
        raise UserError(f"{name}={folder}: there is no such bucket") from None
    except PermissionError as error:
        raise UserError(f"{name}={folder} cannot be written to ({error.strerror}): {bucket.MEND}") from None


def mend_for_user() -> str:
    """Returns what a user can do about a folder that cannot be written to."""
    return (
        f"name a folder that user {os.getuid()} may write to, mount the bucket for writing, or start the container as "
        'its owner with --user "$(id -u)"'
    )


def place_of_process() -> dict[str, Any]:
    """Returns what distinguishes two machines, or two containers on one machine.

    A process number identifies a process only within such a place.
    """
    return {
        "host": socket.gethostname(),
        "boot": Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip(),
        "namespace": Path("/proc/self/ns/pid").readlink().name,
    }


def encode_claim(claim: dict[str, Any]) -> bytes:
    """Returns the content of the lock file. The time in it makes every renewal a change."""
    return json.dumps({**claim, "renewed": time.time()}).encode()


def renew(path: Place, mine: dict[str, Any], stop: threading.Event) -> None:
    """Renews the lock until the job ends; sends SIGTERM to this process if another job has taken the lock."""
    while not stop.wait(RENEWAL_SECONDS):
        # The next renewal may succeed, whatever error the bucket's client raises now.
        with contextlib.suppress(Exception):
            claim = read_claim(path)
            if claim and not is_mine(claim, mine):
                copying.stop_writing(f"process {claim.get('pid')} on {claim.get('host')}")
                os.kill(os.getpid(), signal.SIGTERM)
                return
            if not stop.is_set():
                copying.write_file(path, encode_claim(mine))


def is_mine(claim: dict[str, Any] | None, mine: dict[str, Any]) -> bool:
    """Returns whether this job wrote the lock."""
    return claim is not None and claim.get("token") == mine["token"]


def wait_for_dead_owner(path: Place, first: dict[str, Any], place: str) -> None:
    """Returns when the owner of the lock is dead, has not renewed it for DEAD_SECONDS, or has released it."""
    if is_dead_here(first):
        return
    logger.info(
        "%s is locked by process %s on %s: waiting to see whether it lives",
        place,
        first.get("pid"),
        first.get("host"),
    )
    deadline = time.monotonic() + DEAD_SECONDS
    while time.monotonic() < deadline:
        time.sleep(1)
        claim = read_claim(path)
        if claim is None:
            return
        refuse_other_owner(claim, first, place)


def refuse_other_owner(claim: dict[str, Any] | None, known: dict[str, Any], place: str) -> None:
    """Raises UserError if the lock differs from the known one, or was renewed since."""
    if claim and {**known, "renewed": known.get("renewed", claim.get("renewed"))} != claim:
        raise UserError(
            f"{place} belongs to a running job, process {claim.get('pid')} on {claim.get('host')}: wait for it, stop "
            "it, or name another place"
        )


def read_claim(path: Place) -> dict[str, Any] | None:
    """Returns the content of the lock file: None if there is no file, empty if it cannot be read."""
    try:
        with bucket.named_errors(path):
            content = path.read_bytes() if bucket.is_remote(path) else bucket.read_regular(path, None, MOST_BYTES)
        claim = json.loads(content or b"{}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        return {}
    return claim if isinstance(claim, dict) else {}


def is_dead_here(claim: dict[str, Any]) -> bool:
    """Returns whether the owner was a process of this place that has ended, or had this process's own number."""
    if any(claim.get(name) != value for name, value in place_of_process().items()):
        return False
    pid = claim.get("pid")
    return isinstance(pid, int) and (pid == os.getpid() or not Path(f"/proc/{pid}").exists())

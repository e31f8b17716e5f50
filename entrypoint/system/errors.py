"""The classes of failure, each with its exit code in the job's contract."""

from __future__ import annotations

import errno
import logging

logger = logging.getLogger("job")

# How Python reports that the machine allows no more threads.
NO_THREAD = "can't start new thread"


class JobError(Exception):
    """The program or the machine failed; the user's data and settings may be correct."""

    exit_code = 1


class UserError(JobError):
    """The user's data or settings cannot be used; the message names the problem, the place and how to mend it."""

    exit_code = 2


class Stopped(BaseException):
    """SIGTERM arrived. This is not an Exception, so that a handler of errors does not catch it by mistake."""

    exit_code = 143


def explain(error: Exception) -> str:
    """Returns what went wrong on the machine, with the path, and how to mend it if that is known.

    Logs the traceback of an unexpected error.
    """
    # TensorFlow's writers raise TensorFlow's own errors.
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
        return f"{error}: free some space, or name another place in WORK_DIR or RESULT_DIR"
    if isinstance(error, MemoryError):
        return f"memory ran out ({error}): give the machine more memory, or set BATCH_SIZE or WORKERS lower"
    if isinstance(error, RuntimeError) and NO_THREAD in str(error):
        return f"{error}: raise the limit of processes and threads (ulimit -u, pids.max), or set WORKERS lower"
    if not isinstance(error, OSError):
        logger.error("unexpected error", exc_info=error)
    return f"{type(error).__name__}: {error}"

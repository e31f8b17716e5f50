"""The classes of failure, each with the exit code that the job's contract gives it."""

from __future__ import annotations

import errno
import logging

logger = logging.getLogger("job")


class JobError(Exception):
    """Something of ours or of the machine failed; the user's data and settings may well be right."""

    exit_code = 1


class UserError(JobError):
    """The user's data or settings cannot be worked with; the message says what, where and how to mend it."""

    exit_code = 2


class Stopped(BaseException):
    """SIGTERM arrived. Not an Exception, so that no handler of errors on the way takes it for one."""

    exit_code = 143


def explain(error: Exception) -> str:
    """What went wrong on the machine, with the path, and the mend where it is known; else with a traceback."""
    # TensorFlow's own writers raise errors of its own.
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
        return f"{error}: free some space, or name another place in WORK_DIR or RESULT_DIR"
    if not isinstance(error, OSError):
        logger.error("unexpected error", exc_info=error)
    return f"{type(error).__name__}: {error}"

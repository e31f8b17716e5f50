"""The classes of failure, each with the exit code that the job's contract gives it."""

from __future__ import annotations


class JobError(Exception):
    """Something of ours or of the machine failed; the user's data and settings may well be right."""

    exit_code = 1


class UserError(JobError):
    """The user's data or settings cannot be worked with; the message says what, where and how to mend it."""

    exit_code = 2


class Stopped(BaseException):
    """SIGTERM arrived. Not an Exception, so that no handler of errors on the way takes it for one."""

    exit_code = 143

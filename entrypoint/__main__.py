"""Parse, run, close: the one place where errors become messages, marks and exit codes."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Sequence

from entrypoint.settings import command_line, environment, services
from entrypoint.settings.command_line import Command
from entrypoint.system import logs, signals
from entrypoint.system.errors import JobError, Stopped, UserError, explain
from entrypoint.zoo import catalogue

logger = logging.getLogger("job")


def main(arguments: Sequence[str]) -> int:
    """Runs a command and returns its exit code: 0 done, 2 the user can mend it, 1 other errors, 143 stopped."""
    open_standard_streams()
    logs.configure()
    try:
        command = command_line.load(arguments)
        if command.name == "models":
            # A pager that ends before the list does is no failure.
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            print(catalogue.listing(as_json=command.as_json))
            return 0
        environment.prepare(command.settings)
        signals.raise_on_sigterm()
        if command.name == "check":
            from entrypoint import check

            if command.as_json:
                # Standard output is for the document alone.
                logs.configure(sys.stderr)
            return check.run(command.settings, as_json=command.as_json)
        return run(command)
    except Stopped as stop:
        logger.warning("stopped: %s", stop)
        return stop.exit_code
    except JobError as error:
        return fail(str(error), error.exit_code)
    except Exception as error:
        return fail(explain(error), JobError.exit_code)


def run(command: Command) -> int:
    """Runs the whole job, or a step by name."""
    # What `--help` and `models` do without would double the time that they take.
    from entrypoint import job
    from entrypoint.workspace import Workspace

    if command.name is None:
        job.run(command.settings)
        # A warning about memory may stand there, and the job has ended well.
        services.forget_failure()
        # A service that puts the logs of several machines into one reads the mark once.
        if Workspace(command.settings).is_chief:
            logs.put("CACLI-TRAINING-SUCCESS")
        else:
            logger.info("this machine's part is done; the chief evaluates, exports and publishes")
        return 0
    if command.name not in job.STEP_NAMES:
        raise UserError(
            f"{command.name!r} is not a step of the job; the steps are: {', '.join(job.STEP_NAMES)}; other commands "
            "are `check` and `models`"
        )
    if command.only:
        job.run_alone(command.name, command.settings)
    else:
        job.run(command.settings, command.name)
    return 0


def fail(message: str, exit_code: int) -> int:
    """Prints the failure and the mark that services look for, in this order, and returns the exit code."""
    # The mark must be printed whatever becomes of the message.
    with contextlib.suppress(Exception):
        logger.error("%s", message)
        services.tell_failure(message)
    logs.put("CACLI-TRAINING-FAILED")
    return exit_code


def open_standard_streams() -> None:
    """Opens /dev/null for each standard stream that is closed: the next file would get its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

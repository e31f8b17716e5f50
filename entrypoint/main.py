"""Parse, run, close: the one place where errors become messages, marks and exit codes."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from entrypoint.settings import command_line, environment, services
from entrypoint.settings.command_line import Command
from entrypoint.system import display, logs, signals, streams
from entrypoint.system.errors import JobError, Stopped, UserError, explain
from entrypoint.zoo import catalogue

logger = logging.getLogger("job")

SUCCESS = "CACLI-TRAINING-SUCCESS"
FAILED = "CACLI-TRAINING-FAILED"


@dataclass(frozen=True)
class Ending:
    """How a command ended: 0 done, 2 the user can mend it, 1 other errors, 143 stopped."""

    exit_code: int
    mark: str = ""  # the line that services look for; only the parent process prints it

    def __str__(self) -> str:
        """Returns exit code and mark with a space between them."""
        return f"{self.exit_code} {self.mark}"


def main(arguments: Sequence[str]) -> Ending:
    """Runs a command in this process and returns how it ended."""
    logs.configure()
    try:
        signals.raise_on_sigterm()
        return run(command_line.load(arguments))
    except SystemExit as end:
        # `--help` and `--version` have printed what they were asked for.
        return Ending(int(end.code or 0))
    except Stopped as stop:
        logger.warning("stopped: %s", stop)
        return Ending(stop.exit_code)
    except JobError as error:
        return fail(str(error), error.exit_code)
    except Exception as error:
        return fail(explain(error), JobError.exit_code)


def run(command: Command) -> Ending:
    """Runs `models`, `check`, the whole job, or a step by name."""
    if command.name == "models":
        streams.put(catalogue.listing(as_json=command.as_json))
        return Ending(0)
    environment.prepare(command.settings)
    if command.name == "check":
        from entrypoint import check

        if command.as_json:
            # Standard output is for the document alone.
            logs.configure(sys.stderr)
        return Ending(check.run(command))
    if command.name == "convert":
        from entrypoint import convert

        convert.run(command)
        return Ending(0)
    return run_steps(command)


def run_steps(command: Command) -> Ending:
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
            return Ending(0, SUCCESS)
        logger.info("this machine's part is done; the chief evaluates, exports and publishes")
        return Ending(0)
    if command.name not in job.STEP_NAMES:
        raise UserError(
            f"{command.name!r} is not a step of the job; the steps are: {', '.join(job.STEP_NAMES)}; other commands "
            f"are {', '.join(command_line.COMMANDS)}"
        )
    if command.only:
        job.run_alone(command.name, command.settings)
    else:
        job.run(command.settings, command.name)
    return Ending(0)


def fail(message: str, exit_code: int) -> Ending:
    """Logs the failure, tells it to the service, and returns how the command ended."""
    # The mark must be printed whatever becomes of the message.
    with contextlib.suppress(Exception):
        logger.error("%s", message)
        services.tell_failure(message)
    return Ending(exit_code, FAILED)


def report_death(status: int) -> Ending:
    """Reports that the process of the job ended before it could report anything; `status` is as in `child.Ended`."""
    logs.configure()
    display.restore_cursor()
    if status == -signal.SIGKILL:
        message = (
            "the process of the job was killed by SIGKILL. The kernel does this if memory runs out: give the machine "
            "or the container more memory, or set BATCH_SIZE or WORKERS lower"
        )
    else:
        cause = f"by {signal.Signals(-status).name}" if status < 0 else f"with exit code {status}"
        message = (
            f"the process of the job was ended {cause} inside a library: the lines above tell what it worked on. "
            "The next run with the same settings goes on from here"
        )
    return fail(message, JobError.exit_code)

"""Parse, run, close. The one place where errors become messages, marks and exit codes."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Sequence

from entrypoint import check, job
from entrypoint.settings import schema, services
from entrypoint.system import logs, signals
from entrypoint.system.errors import JobError, Stopped, UserError, explain
from entrypoint.workspace import Workspace
from entrypoint.zoo import catalogue

logger = logging.getLogger("job")


def main(arguments: Sequence[str]) -> int:
    """Runs a command and returns its exit code: 0 done, 2 the user's to mend, 1 ours, 143 stopped by SIGTERM."""
    logs.configure()
    try:
        command, values = schema.load(arguments)
        if command == "models":
            # A pager that ends before the list does is no failure.
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            print(catalogue.listing(as_json="--json" in arguments))
            return 0
        if command == "check":
            return check.run(values, as_json="--json" in arguments)
        schema.prepare_environment(values)
        signals.raise_on_sigterm()
        return run(command, values)
    except Stopped as stop:
        logger.warning("stopped: %s", stop)
        return stop.exit_code
    except JobError as error:
        return fail(str(error), error.exit_code)
    except Exception as error:
        return fail(explain(error), JobError.exit_code)


def run(command: str | None, values: schema.Settings) -> int:
    """Runs the whole job, or one step of it by name."""
    if command is None:
        job.run(values)
        # Memory may have been about to run out, and did not.
        services.forget_failure()
        # A service that puts the logs of several machines into one reads it once.
        if Workspace(values).is_chief:
            print("CACLI-TRAINING-SUCCESS", flush=True)
        else:
            logger.info("this machine's part is done; the chief evaluates, exports and publishes")
        return 0
    if command not in job.STEP_NAMES:
        raise UserError(
            f"{command!r} is no step of the job; there are: {', '.join(job.STEP_NAMES)}, `check` and `models`"
        )
    job.run_alone(command, values)
    return 0


def fail(message: str, exit_code: int) -> int:
    """Prints the failure and the mark that services look for, in this order, and returns the exit code."""
    logger.error("%s", message)
    services.tell_failure(message)
    print("CACLI-TRAINING-FAILED", flush=True)
    return exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

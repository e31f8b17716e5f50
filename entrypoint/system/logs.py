"""The job's log on standard output."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from typing import TYPE_CHECKING, Any, TextIO

from tenacity import RetryCallState

from entrypoint.system.printable import Lines, printable

# The class of Python 3.10 takes no type.
if TYPE_CHECKING:
    StreamHandler = logging.StreamHandler[Any]
else:
    StreamHandler = logging.StreamHandler


class Formatter(logging.Formatter):
    """Formats log records. Whatever comes from outside, the arguments of a record, is made printable first."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the record as a line; a list of Lines as several."""
        copy = logging.makeLogRecord(record.__dict__)
        if record.name != "job":
            copy.msg, copy.args = printable(record.getMessage()), None
        elif isinstance(record.args, tuple):
            copy.args = tuple(fit(each) for each in record.args)
        return super().format(copy)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the name is logging's
        """Returns a traceback, each of its lines made printable."""
        return str(Lines(super().formatException(ei).splitlines()))


class Handler(StreamHandler):
    """Writes to a stream. A live display takes the place of standard output and standard error for a while."""

    def __init__(self, stream: TextIO | None) -> None:
        logging.Handler.__init__(self)
        self.given = stream

    @property
    def stream(self) -> Any:
        """The stream to write to."""
        return sys.stderr if self.given is sys.__stderr__ else self.given or sys.stdout

    @stream.setter
    def stream(self, value: Any) -> None:
        self.given = value


def fit(argument: Any) -> Any:
    """Returns an argument of a log record made printable; numbers and Lines stay as they are."""
    return argument if isinstance(argument, (int, float, Lines)) else printable(argument)


def configure(stream: TextIO | None = None) -> None:
    """Sends every log record of the job, and the warnings and errors of libraries, to standard output or a stream."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names from a bucket can have characters that the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="backslashreplace")
    handler = Handler(stream)
    handler.setFormatter(Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    # Whoever reads the log may stop reading. That is not a failure of the job.
    logging.raiseExceptions = False
    logging.getLogger("job").setLevel(logging.INFO)
    # TensorFlow's warnings are about upstream's use of it, and a user of this job cannot change that.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    logging.captureWarnings(capture=True)
    for module in ("PIL", "tf_keras", "tensorflow"):
        # The job itself counts what is odd in a photo, if it matters, so Pillow's warnings are not needed. The warnings
        # of the other modules are like TensorFlow's above.
        warnings.filterwarnings("ignore", module=rf"{module}\b")


def log_retry(state: RetryCallState) -> None:
    """Logs what failed and when it is tried again. This is a `before_sleep` callback for tenacity."""
    error = state.outcome.exception() if state.outcome else None
    seconds = state.next_action.sleep if state.next_action else 0
    logging.getLogger("job").warning("%s; trying again in %.1f s", error, seconds)

"""The job's log on standard output, and progress: bars at a terminal, a line every few seconds in a log."""

from __future__ import annotations

import io
import logging
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, TextIO, TypeVar

from tenacity import RetryCallState
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from entrypoint.system.printable import Lines, printable

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 5.0


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


def fit(argument: Any) -> Any:
    """Returns an argument of a log record made printable; numbers and Lines stay as they are."""
    return argument if isinstance(argument, (int, float, Lines)) else printable(argument)


def configure(stream: TextIO | None = None) -> None:
    """Sends every log record of the job, and the warnings and errors of libraries, to standard output or a stream."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names from a bucket can have characters that the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler(stream or sys.stdout)
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


def progress(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yields the items and reports how many of the total are done."""
    if sys.stderr.isatty():
        with logging_redirect_tqdm():
            yield from tqdm(items, total=total, desc=what, leave=False)
        return
    began = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            left = time_in_words((total - done) * (now - began) / done)
            logging.getLogger("job").info("%s: %d of %d, about %s left", what, done, total, left)


def time_in_words(seconds: float) -> str:
    """Returns a time as a person says it: 40 s, 12 min, 3 h 20 min."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def log_retry(state: RetryCallState) -> None:
    """Logs what failed and when it is tried again. This is a `before_sleep` callback for tenacity."""
    error = state.outcome.exception() if state.outcome else None
    seconds = state.next_action.sleep if state.next_action else 0
    logging.getLogger("job").warning("%s; trying again in %.1f s", error, seconds)

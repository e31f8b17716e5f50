"""The job's log on standard output, and progress: bars at a terminal, a line every few seconds in a log."""

from __future__ import annotations

import io
import logging
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tenacity import RetryCallState
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 5.0


def configure() -> None:
    """Sends every log record of the job, and the warnings and errors of libraries, to standard output."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names from a bucket can have characters that the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="backslashreplace")
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stdout, format="%(asctime)s %(levelname)s %(message)s", force=True
    )
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
    logger, last = logging.getLogger("job"), time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            logger.info("%s: %d of %d", what, done, total)


def log_retry(state: RetryCallState) -> None:
    """Logs what failed and when it is tried again. This is a `before_sleep` callback for tenacity."""
    error = state.outcome.exception() if state.outcome else None
    seconds = state.next_action.sleep if state.next_action else 0
    logging.getLogger("job").warning("%s; trying again in %.1f s", error, seconds)

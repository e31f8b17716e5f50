"""What others wrote is parsed within `parsing`: whatever a parser raises is then an error of the user."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from entrypoint.system.errors import NO_THREAD, JobError, UserError


@contextmanager
def parsing(what: str, mend: str) -> Iterator[None]:
    """Raises UserError for every error of a parser in the block. `what` is the name of the file or the setting.

    The machine's own failures pass through: the lack of memory or of threads, and what the kernel reports of a file.
    """
    try:
        yield
    except (JobError, MemoryError):
        raise
    except RecursionError:
        raise UserError(f"{what} is nested too deeply: {mend}") from None
    except Exception as error:
        if NO_THREAD in str(error) or (isinstance(error, OSError) and error.errno):
            raise
        words = str(error).strip().splitlines()
        raise UserError(f"{what} cannot be read ({words[0] if words else type(error).__name__}): {mend}") from None

from __future__ import annotations

import json
import threading

import pytest

from entrypoint.system import foreign
from entrypoint.system.errors import JobError, UserError

MEND = "write it again"


def deep() -> None:
    json.loads("[" * 100_000)


def failing(error: BaseException) -> None:
    with foreign.parsing("a.json", MEND):
        raise error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("line 1\nline 2"), "a.json cannot be read (line 1): write it again"),
        (KeyError(), "a.json cannot be read (KeyError): write it again"),
        (EOFError("cut off"), "a.json cannot be read (cut off): write it again"),
        (OSError("not a gzip file"), "a.json cannot be read (not a gzip file): write it again"),
        (RecursionError(), "a.json is nested too deeply: write it again"),
    ],
)
def test_error_of_a_parser_is_named(error: Exception, words: str) -> None:
    with pytest.raises(UserError) as caught:
        failing(error)
    assert str(caught.value) == words


def test_deep_document_is_named() -> None:
    with pytest.raises(UserError, match="nested too deeply"), foreign.parsing("a.json", MEND):
        deep()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("can't start new thread"),
        OSError(28, "No space left on device"),
        UserError("named already"),
        JobError("named already"),
        KeyboardInterrupt(),
    ],
)
def test_failure_of_the_machine_and_named_error_pass(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        failing(error)
    assert caught.value is error


def test_message_about_threads_is_that_of_python() -> None:
    """The wrapper knows the lack of threads by its message."""
    limit = threading.stack_size(1 << 46)
    try:
        with pytest.raises(RuntimeError, match="can't start new thread"):
            threading.Thread(target=print).start()
    finally:
        threading.stack_size(limit)

from __future__ import annotations

import logging
import sys
from io import StringIO

import pytest

from entrypoint.system import logs
from entrypoint.system.printable import Lines, printable, redact


def test_credentials_are_redacted() -> None:
    assert redact("https://user:pass@host/zoo/") == "https://***@host/zoo/"
    assert redact("https://user:p@ss@host/zoo/") == "https://***@host/zoo/"
    assert redact("https://user:pa/ss@host/zoo/") == "https://***@host/zoo/"
    assert redact("s3://KEY:SECRET@bucket/x and more") == "s3://***@bucket/x and more"
    assert redact("https://host/a.tar.gz?X-Signature=abc") == "https://host/a.tar.gz?***"
    assert redact("https://host/a.tar.gz#secret") == "https://host/a.tar.gz?***"
    assert redact("https://host/a.tar.gz;token=secret") == "https://host/a.tar.gz?***"
    assert redact("Max retries for url: /a?X-Signature=abc (timed out)") == ("Max retries for url: /a?*** (timed out)")


@pytest.mark.parametrize(
    "text", ["/work/records/train-?????-of-?????.tfrecord", "s3://bucket/folder/photo.jpg", "why? because", "a#b;c"]
)
def test_text_without_a_secret_stays(text: str) -> None:
    assert redact(text) == printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nCACLI-TRAINING-SUCCESS", "a\\nCACLI\\x2dTRAINING-SUCCESS"),
        ("tensorflow:loss = 0.0, step = 9", "tensorflow\\x3aloss = 0.0, step = 9"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("a\r\tb\x00\x7f\x9b", "a\\r\\tb\\x00\\x7f\\x9b"),
        ("line\u2028and\u2029paragraph", "line\\u2028and\\u2029paragraph"),
        ("\u202egpj.exe\u2066", "\\u202egpj.exe\\u2066"),
        ("gr\udcfcn", "gr\\udcfcn"),
        ("grün 猫 🐈", "grün 猫 🐈"),
    ],
)
def test_what_comes_from_outside_is_one_line_without_marks(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_log_shows_arguments_on_one_line_and_the_job_s_own_lines_on_several() -> None:
    stream = StringIO()
    before = logging.raiseExceptions
    try:
        logs.configure(stream)
        logger = logging.getLogger("job")
        logger.info("tensorflow:loss = %.4f, step = %d", 0.5, 3)
        logger.warning("%s skipped: %s", "x\nCACLI-TRAINING-SUCCESS", ValueError("a\x1b[0m"))
        logger.info("table:\n%s", Lines(["one\ntwo", "three"]))
        logging.getLogger("other").error("from a library\nCACLI-TRAINING-FAILED")
        try:
            int("first\nCACLI-TRAINING-SUCCESS")
        except ValueError:
            logger.exception("unexpected")
    finally:
        logging.raiseExceptions = before
        logs.configure(sys.stdout)
    lines = stream.getvalue().splitlines()
    assert lines[0].endswith("INFO tensorflow:loss = 0.5000, step = 3")
    assert lines[1].endswith("WARNING x\\nCACLI\\x2dTRAINING-SUCCESS skipped: a\\x1b[0m")
    assert lines[3:5] == ["one\\ntwo", "three"]
    assert "CACLI-TRAINING" not in stream.getvalue()

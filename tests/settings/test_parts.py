"""Which part of a conversion a process does, by the command line and by each service's variables."""

from __future__ import annotations

import pytest

from entrypoint.settings import command_line, parts
from entrypoint.settings.parts import Part
from entrypoint.system.errors import UserError

SLURM = {"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "3"}


@pytest.mark.parametrize(
    ("text", "environment", "part"),
    [
        ("1/1", {}, Part(0, 1)),
        ("3/16", {"JOB_COMPLETION_INDEX": "9"}, Part(2, 16)),
        ("auto/16", {"JOB_COMPLETION_INDEX": "0"}, Part(0, 16)),
        ("auto", {"AWS_BATCH_JOB_ARRAY_INDEX": "3", "AWS_BATCH_JOB_ARRAY_SIZE": "4"}, Part(3, 4)),
        ("auto", {"CLOUD_RUN_TASK_INDEX": "0", "CLOUD_RUN_TASK_COUNT": "1"}, Part(0, 1)),
        ("auto", SLURM, Part(2, 4)),
    ],
)
def test_part_is_that_of_the_words_or_of_the_service(text: str, environment: dict[str, str], part: Part) -> None:
    assert parts.parse(text, environment) == part
    assert parts.parse(str(part), {}) == part


@pytest.mark.parametrize(
    ("text", "environment", "words"),
    [
        ("3", {}, "write it as 3/16"),
        ("0/4", {}, "the parts are 1 to 4"),
        ("5/4", {}, "part 5 of 4 does not exist"),
        ("1/0", {}, "does not exist"),
        ("auto/4", {}, r"none of these variables is set: JOB_COMPLETION_INDEX \(Kubernetes\)"),
        ("auto", {"JOB_COMPLETION_INDEX": "2"}, "Kubernetes does not tell the number of parts: write auto/16"),
        ("auto/2", {"JOB_COMPLETION_INDEX": "2"}, "part 3 of 2 does not exist"),
        ("auto/2", {"JOB_COMPLETION_INDEX": "-1"}, "a service's variable is '-1'"),
    ],
)
def test_part_that_is_none_is_refused(text: str, environment: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        parts.parse(text, environment)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("check --part 1/2", "belong to convert"),
        ("--scheduler tcp://x:1", "belong to convert"),
        ("convert --part 1/2 --scheduler tcp://x:1", "two ways to divide a conversion"),
        ("convert --only", "--only belongs to a step"),
        ("convert --json", "--json belongs to check and models"),
    ],
)
def test_flags_of_the_conversion_go_with_nothing_else(line: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        command_line.load(line.split())

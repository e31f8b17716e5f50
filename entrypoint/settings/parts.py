"""The part of a conversion that one process does: `3/16`, or `auto/16` where a service numbers the processes.

The sources are the documentation of Kubernetes's Indexed Jobs, of AWS Batch's array jobs, of Cloud Run's jobs, and of
Slurm's job arrays.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from entrypoint.system.errors import UserError


@dataclass(frozen=True)
class Part:
    """One of `total` parts, counted from 0."""

    index: int
    total: int

    def __str__(self) -> str:
        """Returns the part as on the command line."""
        return f"{self.index + 1}/{self.total}"


@dataclass(frozen=True)
class Numbering:
    """The variables by which a service tells a process its number."""

    service: str
    index: str
    total: str | None = None
    first: str | None = None  # the number of the first process; without it, that is 0


NUMBERINGS = (
    Numbering("Kubernetes", "JOB_COMPLETION_INDEX"),
    Numbering("AWS Batch", "AWS_BATCH_JOB_ARRAY_INDEX", "AWS_BATCH_JOB_ARRAY_SIZE"),
    Numbering("Cloud Run", "CLOUD_RUN_TASK_INDEX", "CLOUD_RUN_TASK_COUNT"),
    Numbering("Slurm", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN"),
)


def parse(text: str, environment: Mapping[str, str]) -> Part:
    """Returns the part of `3/16`, `auto/16` or `auto`, whose number or total come from the service's variables.

    Raises:
        UserError: it is no part, or the service does not tell what is left out.
    """
    found = re.fullmatch(r"(?:(\d{1,6})/(\d{1,6})|auto(?:/(\d{1,6}))?)", text)
    if found is None:
        raise UserError(f"--part {text}: write it as 3/16, or as auto/16 where a service numbers the processes")
    if found[1]:
        return checked(text, int(found[1]) - 1, int(found[2]))
    numbering = next((each for each in NUMBERINGS if environment.get(each.index)), None)
    if numbering is None:
        known = ", ".join(f"{each.index} ({each.service})" for each in NUMBERINGS)
        raise UserError(f"--part {text}: none of these variables is set: {known}; write the part as 3/16")
    total = found[3] or environment.get(numbering.total or "")
    if not total:
        raise UserError(f"--part {text}: {numbering.service} does not tell the number of parts: write auto/16")
    first = environment.get(numbering.first or "", "0")
    return checked(text, number_in(environment[numbering.index]) - number_in(first), number_in(total))


def number_in(value: str) -> int:
    """Returns the number in a variable; raises UserError if there is none."""
    if not re.fullmatch(r"\d{1,9}", value):
        raise UserError(f"--part: a service's variable is {value!r}, and a number is needed: write the part as 3/16")
    return int(value)


def checked(text: str, index: int, total: int) -> Part:
    """Returns the part; raises UserError if there is no such part."""
    if not 0 <= index < total:
        raise UserError(f"--part {text}: part {index + 1} of {total} does not exist: the parts are 1 to {total}")
    return Part(index, total)

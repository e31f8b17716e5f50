"""The plan of a training, which the step `pipeline` decides on and later steps read."""

from __future__ import annotations

from dataclasses import dataclass

from entrypoint import workspace
from entrypoint.system import documents
from entrypoint.workspace import Workspace


@dataclass(frozen=True)
class Plan:
    """What the pipeline.config says after this job's values were written into it."""

    source: str  # the pipeline.config that the job started from
    generation: str  # "tf1" or "tf2"
    num_steps: int
    batch_size: int
    learning_rate: float  # the highest of the schedule
    changes: tuple[tuple[str, str, str], ...]  # field, value before, value after


def load(work: Workspace) -> Plan:
    """Returns the plan that the step `pipeline` wrote."""
    return documents.read(Plan, workspace.existing(work.plan, "pipeline"))

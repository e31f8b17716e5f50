"""The document of metrics.json with the analysis in it. docs/metrics.schema.json is its JSON Schema."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from entrypoint import workspace
from entrypoint.results.analysis.document import Analysis, OperatingPoint
from entrypoint.system import documents
from entrypoint.training.metrics import Metrics
from entrypoint.workspace import Workspace

# Raised by one if a field is removed or means something else.
Version = Literal[1]


@dataclass(frozen=True)
class MetricsDocument(Metrics):
    """The metrics of the validation photos, and where the model fails."""

    analysis: Analysis | None = None
    schema_version: Version = 1

    @property
    def recommended(self) -> OperatingPoint | None:
        """The score of the best F1, all labels together. None if nothing was measured or no detection is right."""
        return self.analysis.recommended if self.analysis else None

    @classmethod
    def of(cls, metrics: Metrics, analysis: Analysis | None) -> MetricsDocument:
        """Returns the document of these metrics and this analysis."""
        return cls(**{field.name: getattr(metrics, field.name) for field in fields(Metrics)}, analysis=analysis)


def recommended_score(work: Workspace) -> float | None:
    """Returns the score from which on detections shall be shown; None if none is recommended."""
    point = load(work).recommended
    return point.threshold if point else None


def load(work: Workspace) -> MetricsDocument:
    """Returns what the step `evaluate` wrote."""
    return documents.read(MetricsDocument, workspace.existing(work.metrics, "evaluate"))

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from entrypoint import job, workspace
from entrypoint.results.analysis.document import OperatingPoint
from entrypoint.results.export import export
from entrypoint.results.export.export_format import ExportFormat, every_model
from entrypoint.workspace import Mark, Workspace

LABELS = ["cat", "dog"]
POINT = OperatingPoint(threshold=0.375, precision=0.9, recall=0.8, f1=0.85)


def write_model(_: Workspace, folder: Path) -> None:
    (folder / "model.txt").write_text("weights")


FORMAT = ExportFormat("text", "model_text", ("model.txt",), write_model, every_model)


def written(work: Workspace, point: OperatingPoint | None) -> dict[str, float | None]:
    """The content of threshold.json in the folder of a format."""
    assert export.write(FORMAT, LABELS, point, work) == ""
    folder = work.root / FORMAT.folder
    # Clients read labels.json as a plain list.
    assert json.loads((folder / "labels.json").read_text()) == LABELS
    content: dict[str, float | None] = json.loads((folder / "threshold.json").read_text())
    return content


def test_recommended_score_is_beside_the_labels_of_each_export(work: Workspace) -> None:
    assert written(work, POINT) == dataclasses.asdict(POINT)


def test_score_is_null_if_none_can_be_recommended(work: Workspace) -> None:
    assert written(work, None) == dict.fromkeys(("threshold", "precision", "recall", "f1"))


def test_another_evaluation_exports_again(work: Workspace) -> None:
    digests = set()
    for output in ("one", "another", "one"):
        workspace.write_mark("evaluate", Mark("input", output, 0, 0), work)
        digests.add(job.input_digest(job.find("export"), work))
    assert len(digests) == 2

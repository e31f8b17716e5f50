"""Evaluation: COCO's metrics of the trained model on the validation photos -> metrics.json and detections.json."""

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path

from entrypoint import workspace
from entrypoint.data import annotations, records
from entrypoint.engines import loading
from entrypoint.engines.engine import Detections
from entrypoint.system import documents, files, logs
from entrypoint.training import checkpoints, coco, train
from entrypoint.training.metrics import Metrics
from entrypoint.workspace import Workspace

logger = logging.getLogger("job")

# The report shows detections from this score on. COCO's metrics are of all detections.
SHOWN_SCORE = 0.3


@dataclass(frozen=True)
class ShownDetections:
    """The confident detections on a validation photo, for the report."""

    key: str
    boxes: tuple[tuple[float, float, float, float], ...]  # ymin, xmin, ymax, xmax as fractions of the photo
    classes: tuple[int, ...]  # ids of the label map
    scores: tuple[float, ...]


@dataclass(frozen=True)
class DetectionsDocument:
    """The content of detections.json."""

    photos: tuple[ShownDetections, ...]


def run(work: Workspace) -> str:
    """Writes metrics.json and detections.json; returns the SHA-256 of the metrics.

    Without validation photos there is nothing to measure, and the metrics are null.
    """
    dataset = annotations.load(work)
    validation = records.load(work).validation
    paths = [str(work.records / name) for name in validation.names]
    found: list[Detections] = []
    if paths:
        engine, config = loading.load(work)
        detections = engine.evaluate(config, train.chosen_checkpoint(work), paths)
        found = list(logs.progress(detections, validation.photos, "evaluation"))
    chosen = train.chosen_checkpoint(work)
    metrics = dataclasses.replace(
        coco.measure(dataset, found, checkpoints.load(chosen).step),
        kept="last" if chosen == train.last_checkpoint(work) else "best",
        evaluations=checkpoints.load(train.last_checkpoint(work)).evaluations,
    )
    documents.write(work.metrics, metrics)
    documents.write(work.detections, DetectionsDocument(tuple(map(shown, found))))
    log_metrics(metrics)
    return files.file_sha256(work.metrics)


def outputs(work: Workspace) -> list[Path]:
    """Returns the files that the step leaves in WORK_DIR."""
    return [work.metrics, work.detections]


def load_detections(work: Workspace) -> tuple[ShownDetections, ...]:
    """Returns the confident detections that the step wrote."""
    return documents.read(DetectionsDocument, workspace.existing(work.detections, "evaluate")).photos


def shown(found: Detections) -> ShownDetections:
    """Returns a photo's confident detections."""
    chosen = [index for index, score in enumerate(found.scores) if score >= SHOWN_SCORE]
    corners = ([round(float(value), 5) for value in found.boxes[index]] for index in chosen)
    return ShownDetections(
        key=found.key,
        boxes=tuple((ymin, xmin, ymax, xmax) for ymin, xmin, ymax, xmax in corners),
        classes=tuple(int(found.classes[index]) for index in chosen),
        scores=tuple(round(float(found.scores[index]), 4) for index in chosen),
    )


def log_metrics(metrics: Metrics) -> None:
    """Logs the summary and AP per label."""
    logger.info(
        "validation: mAP %s, mAP@0.5 %s on %d photos with %d boxes",
        rounded(metrics.summary.map),
        rounded(metrics.summary.map50),
        metrics.photos,
        metrics.boxes,
    )
    for label, values in metrics.per_label.items():
        logger.info("  %s: AP %s, AP@0.5 %s", label, rounded(values.ap), rounded(values.ap50))


def rounded(value: float | None) -> str:
    """Returns a metric for people: `0.853`, or `-` if it is undefined."""
    return "-" if value is None else f"{value:.3f}"

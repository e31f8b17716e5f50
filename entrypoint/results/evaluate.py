"""Evaluation: COCO's metrics of the trained model on the validation photos -> metrics.json and detections.json."""

import dataclasses
import logging
from pathlib import Path
from typing import Literal

from entrypoint import workspace
from entrypoint.data import annotations, records
from entrypoint.data.annotations import Dataset
from entrypoint.engines import loading
from entrypoint.engines.engine import Detections
from entrypoint.results.analysis import Analysis, analyse
from entrypoint.results.metrics_document import MetricsDocument
from entrypoint.system import display, documents, files
from entrypoint.training import checkpoints, coco, evaluation, train
from entrypoint.training.metrics import Metrics
from entrypoint.training.stored import DetectionsDocument, StoredDetections
from entrypoint.workspace import Workspace

logger = logging.getLogger("job")


def run(work: Workspace) -> str:
    """Writes metrics.json and detections.json; returns the SHA-256 of the metrics.

    Without validation photos there is nothing to measure, and the metrics are null.
    """
    chosen, last = train.chosen_checkpoint(work), train.last_checkpoint(work)
    step = checkpoints.load(chosen).step
    is_averaged = chosen != last and train.load(work).is_averaged
    known = evaluation.known(step, train.identify(work), work, is_averaged=is_averaged)
    if known:
        logger.info("step %d was evaluated during the training", step)
    dataset = annotations.load(work)
    metrics, detections = (known.metrics, known.detections) if known else measure(chosen, step, dataset, work)
    kept: Literal["best", "last"] = "last" if chosen == last else "best"
    metrics = dataclasses.replace(metrics, kept=kept, evaluations=checkpoints.load(last).evaluations)
    found = [each.to_detections() for each in detections.photos]
    analysis = analyse(dataset, found) if found else None
    documents.write(work.metrics, MetricsDocument.of(metrics, analysis))
    documents.write(work.detections, detections)
    write_predictions(found, dataset, work)
    log_metrics(metrics, analysis)
    return files.file_sha256(work.metrics)


def measure(checkpoint: Path, step: int, dataset: Dataset, work: Workspace) -> tuple[Metrics, DetectionsDocument]:
    """Returns the metrics and the detections of a checkpoint."""
    validation = records.load(work).validation
    found: list[Detections] = []
    if validation.names:
        engine, config = loading.load(work)
        detections = engine.evaluate(config, checkpoint, validation.paths(work.records))
        found = list(display.progress(detections, validation.photos, "evaluation"))
    return coco.measure(dataset, found, step), DetectionsDocument.of(found)


def write_predictions(found: list[Detections], dataset: Dataset, work: Workspace) -> None:
    """Writes the validation photos with their boxes, and the detections, in COCO's format, as other tools read them.

    The formats are "Object Detection" of cocodataset.org/#format-data and of cocodataset.org/#format-results.
    """
    results = [one for index, each in enumerate(found, start=1) for one in coco.to_coco(index, each)]
    with files.new_folder(work.predictions) as folder:
        files.write_large_json(folder / "photos.json", coco.ground_truth(dataset, found))
        files.write_large_json(folder / "detections.json", results)


def outputs(work: Workspace) -> list[Path]:
    """Returns the files that the step leaves in WORK_DIR."""
    predictions = (work.predictions / name for name in ("photos.json", "detections.json"))
    return [work.metrics, work.detections, *predictions]


def load_detections(work: Workspace) -> tuple[StoredDetections, ...]:
    """Returns the detections that the step wrote."""
    return documents.read(DetectionsDocument, workspace.existing(work.detections, "evaluate")).photos


def log_metrics(metrics: Metrics, analysis: Analysis | None) -> None:
    """Logs the summary with its interval, AP per label, and the recommended threshold."""
    logger.info(
        "validation: mAP %s, mAP@0.5 %s on %d photos with %d boxes",
        rounded(metrics.summary.map),
        rounded(metrics.summary.map50),
        metrics.photos,
        metrics.boxes,
    )
    for label, values in metrics.per_label.items():
        logger.info("  %s: AP %s, AP@0.5 %s", label, rounded(values.ap), rounded(values.ap50))
    if analysis and analysis.bootstrap:
        interval = analysis.bootstrap.map
        logger.info("  with 95 %% confidence mAP is between %.3f and %.3f", interval.low, interval.high)
    if analysis and (point := analysis.recommended):
        words = "  detections with a score of at least %.2f: precision %.2f, recall %.2f"
        logger.info(words, point.threshold, point.precision, point.recall)


def rounded(value: float | None) -> str:
    """Returns a metric for people: `0.853`, or `-` if it is undefined."""
    return "-" if value is None else f"{value:.3f}"

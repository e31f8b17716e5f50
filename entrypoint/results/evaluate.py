"""Evaluation: COCO's metrics of the trained model on the validation photos -> metrics.json and detections.json."""

import contextlib
import io
import logging
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from entrypoint import workspace
from entrypoint.data import annotations, records
from entrypoint.data.annotations import Dataset
from entrypoint.data.boxes import Box
from entrypoint.engines import loading
from entrypoint.engines.engine import Detections
from entrypoint.results.metrics import LabelMetrics, Metrics, Summary
from entrypoint.system import documents, files, logs
from entrypoint.training import plan, train
from entrypoint.workspace import Workspace

logger = logging.getLogger("job")

# COCO counts at most so many detections on a photo.
MAX_DETECTIONS = 100
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
        detections = engine.evaluate(config, train.last_checkpoint(work), paths)
        found = list(logs.progress(detections, validation.photos, "evaluation"))
    metrics = measure(dataset, found, plan.load(work).num_steps)
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


def measure(dataset: Dataset, found: list[Detections], step: int) -> Metrics:
    """Returns COCO's metrics (pycocotools): a summary, AP per label, and mAP per IoU threshold."""
    truth = ground_truth(dataset, found)
    results = [result for index, each in enumerate(found, start=1) for result in to_coco(index, each)]
    if not truth["annotations"]:
        return Metrics(Summary(), {}, (), photos=len(found), boxes=0, step=step)
    evaluation = evaluate_coco(truth, results)
    # precision: [IoU thresholds, recall thresholds, labels, areas, detections a photo], -1 if undefined.
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    per_label = {
        label: LabelMetrics(
            ap=average(precision[:, :, index]),
            ap50=average(precision[0, :, index]),
            boxes=sum(each["category_id"] == index + 1 for each in truth["annotations"]),
        )
        for index, label in enumerate(dataset.labels)
    }
    thresholds = enumerate(evaluation.params.iouThrs)
    return Metrics(
        summary=Summary(*(defined(value) for value in evaluation.stats[: len(fields(Summary))])),
        per_label=per_label,
        per_iou=tuple((round(float(each), 2), average(precision[index])) for index, each in thresholds),
        photos=len(found),
        boxes=len(truth["annotations"]),
        step=step,
    )


def ground_truth(dataset: Dataset, found: list[Detections]) -> dict[str, Any]:
    """Returns the validation photos' boxes in COCO's format, in pixels of the upright photo."""
    by_key = {image.key: image for image in dataset.images}
    ids = {label: index for index, label in enumerate(dataset.labels, start=1)}
    boxes: list[dict[str, Any]] = []
    for index, photo in enumerate(found, start=1):
        for box in by_key[photo.key].boxes:
            left, top, width, height = box.to_coco(photo.width, photo.height)
            boxes.append(
                {
                    "id": len(boxes) + 1,
                    "image_id": index,
                    "category_id": ids[box.label],
                    "bbox": [left, top, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                }
            )
    return {
        "images": [{"id": index, "file_name": each.key} for index, each in enumerate(found, start=1)],
        "categories": [{"id": number, "name": label} for label, number in ids.items()],
        "annotations": boxes,
    }


def to_coco(index: int, found: Detections) -> list[dict[str, Any]]:
    """Returns the detections on a photo in COCO's format, in pixels of the upright photo."""
    return [
        {
            "image_id": index,
            "category_id": int(label),
            "bbox": Box.from_detection("", corners).to_coco(found.width, found.height),
            "score": float(score),
        }
        for corners, label, score in zip(found.boxes, found.classes, found.scores, strict=True)
        if score > 0
    ]


def evaluate_coco(truth: dict[str, Any], results: list[dict[str, Any]]) -> Any:
    """Runs pycocotools' evaluation of boxes; returns it accumulated and summarised."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    # It prints its progress and its table; the log has the job's own.
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        found = coco.loadRes(results) if results else COCO()
        evaluation = COCOeval(coco, found, "bbox")
        evaluation.params.maxDets = [1, 10, MAX_DETECTIONS]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def average(precision: Any) -> float | None:
    """Returns the mean of the defined values, or None if there are none."""
    values = precision[precision > -1]
    return float(np.mean(values)) if values.size else None


def defined(value: float) -> float | None:
    """Returns a figure of COCO's, or None for -1, which says that there is nothing to measure."""
    return float(value) if value > -1 else None


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

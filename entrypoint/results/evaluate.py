"""Evaluation: COCO metrics of the trained model on the validation split -> metrics.json and detections.json."""

import contextlib
import io
import logging
from pathlib import Path
from typing import Any

import numpy as np

from entrypoint import workspace
from entrypoint.data import annotations, tf_record
from entrypoint.data.annotations import Dataset
from entrypoint.engines import engine
from entrypoint.engines.engine import Detections
from entrypoint.system import logs
from entrypoint.training import train
from entrypoint.workspace import Workspace

logger = logging.getLogger("job")

# COCO counts at most so many detections on a photo.
MAX_DETECTIONS = 100
# Of what is kept for the report; COCO's metrics are of all.
SHOWN_SCORE = 0.3
# The order of pycocotools.cocoeval.COCOeval.stats.
SUMMARY = (
    "mAP",
    "mAP@0.5",
    "mAP@0.75",
    "mAP small",
    "mAP medium",
    "mAP large",
    "recall@1",
    "recall@10",
    "recall@100",
)


def run(work: Workspace) -> str:
    """Writes metrics.json and detections.json; returns the SHA-256 of the metrics.

    Without photos for validation there is nothing to measure, and the metrics are null.
    """
    dataset = annotations.load(work)
    validation = tf_record.load_manifest(work)["splits"]["validation"]
    records = [str(work.records / shard["name"]) for shard in validation["shards"]]
    found: list[Detections] = []
    if records:
        runner, config = engine.load(work)
        detections = runner.evaluate(config, train.last_checkpoint(work), records)
        found = list(logs.progress(detections, validation["photos"], "evaluation"))
    metrics = measure(dataset, found)
    metrics["step"] = workspace.read_json(work.changes, "pipeline")["num_steps"]
    workspace.write_json(work.metrics, metrics)
    workspace.write_json(work.detections, [shown(each) for each in found])
    log_metrics(metrics)
    return workspace.file_sha256(work.metrics)


def outputs(work: Workspace) -> list[Path]:
    """The files that the step leaves in WORK_DIR."""
    return [work.metrics, work.detections]


def measure(dataset: Dataset, found: list[Detections]) -> dict[str, Any]:
    """COCO's metrics (pycocotools): a summary, AP per label, and AP per IoU threshold; None where undefined."""
    truth = ground_truth(dataset, found)
    results = [result for index, each in enumerate(found, start=1) for result in to_coco(index, each)]
    if not truth["annotations"]:
        empty = {"summary": dict.fromkeys(SUMMARY), "per_label": {}, "per_iou": []}
        return {**empty, "photos": len(found), "boxes": 0}
    evaluation = evaluate_coco(truth, results)
    # precision: [IoU thresholds, recall thresholds, labels, areas, detections a photo], -1 where undefined.
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    per_label = {}
    for index, label in enumerate(dataset.labels):
        count = sum(each["category_id"] == index + 1 for each in truth["annotations"])
        per_label[label] = {
            "AP": average(precision[:, :, index]),
            "AP@0.5": average(precision[0, :, index]),
            "boxes": count,
        }
    return {
        "summary": {name: defined(value) for name, value in zip(SUMMARY, evaluation.stats, strict=False)},
        "per_label": per_label,
        "per_iou": [
            [round(float(threshold), 2), average(precision[index])]
            for index, threshold in enumerate(evaluation.params.iouThrs)
        ],
        "photos": len(found),
        "boxes": len(truth["annotations"]),
    }


def ground_truth(dataset: Dataset, found: list[Detections]) -> dict[str, Any]:
    """The validation photos' boxes in COCO's format, in pixels of the upright photo."""
    by_key = {image.key: image for image in dataset.images}
    ids = {label: index for index, label in enumerate(dataset.labels, start=1)}
    boxes: list[dict[str, Any]] = []
    for index, photo in enumerate(found, start=1):
        for box in by_key[photo.key].boxes:
            left, top = box.xmin * photo.width, box.ymin * photo.height
            width, height = (box.xmax - box.xmin) * photo.width, (box.ymax - box.ymin) * photo.height
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
    """The detections on a photo in COCO's format, in pixels of the upright photo."""
    results = []
    for box, label, score in zip(found.boxes, found.classes, found.scores, strict=True):
        ymin, xmin, ymax, xmax = (float(value) for value in box)
        corner = [xmin * found.width, ymin * found.height]
        size = [(xmax - xmin) * found.width, (ymax - ymin) * found.height]
        if score > 0:
            results.append({"image_id": index, "category_id": int(label), "bbox": corner + size, "score": float(score)})
    return results


def evaluate_coco(truth: dict[str, Any], results: list[dict[str, Any]]) -> Any:
    """Pycocotools' evaluation of boxes, accumulated and summarised."""
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
    """The mean of the defined values, or None."""
    values = precision[precision > -1]
    return float(np.mean(values)) if values.size else None


def defined(value: float) -> float | None:
    """COCO says -1 where there is nothing to measure."""
    return float(value) if value > -1 else None


def shown(found: Detections) -> dict[str, Any]:
    """A photo's confident detections, for the report."""
    chosen = [index for index, score in enumerate(found.scores) if score >= SHOWN_SCORE]
    return {
        "key": found.key,
        "boxes": [[round(float(value), 5) for value in found.boxes[index]] for index in chosen],
        "classes": [int(found.classes[index]) for index in chosen],
        "scores": [round(float(found.scores[index]), 4) for index in chosen],
    }


def log_metrics(metrics: dict[str, Any]) -> None:
    """Logs the summary and AP per label."""
    summary = metrics["summary"]
    logger.info(
        "validation: mAP %s, mAP@0.5 %s on %d photos with %d boxes",
        percent(summary["mAP"]),
        percent(summary["mAP@0.5"]),
        metrics["photos"],
        metrics["boxes"],
    )
    for label, values in metrics["per_label"].items():
        logger.info("  %s: AP %s, AP@0.5 %s", label, percent(values["AP"]), percent(values["AP@0.5"]))


def percent(value: float | None) -> str:
    """A metric for people: `0.853`, or `-` where it is undefined."""
    return "-" if value is None else f"{value:.3f}"

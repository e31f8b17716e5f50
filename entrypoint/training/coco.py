"""COCO's metrics of detections, computed by hotcoco. Its numbers are those of pycocotools."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import hotcoco
import numpy as np

from entrypoint.data.annotations import Dataset
from entrypoint.data.boxes import Box
from entrypoint.engines.engine import Detections
from entrypoint.training.metrics import LabelMetrics, Metrics, Summary


def measure(dataset: Dataset, found: list[Detections], step: int) -> Metrics:
    """Returns COCO's metrics: a summary, AP per label, and mAP per IoU threshold."""
    truth = ground_truth(dataset, found)
    results = [result for index, each in enumerate(found, start=1) for result in to_coco(index, each)]
    if not truth["annotations"]:
        return Metrics(Summary(), {}, (), photos=len(found), boxes=0, step=step)
    evaluation = evaluate_coco(truth, results)
    # precision: [IoU thresholds, recall thresholds, labels, areas, detections a photo], -1 if undefined.
    precision = np.asarray(evaluation.eval["precision"])[:, :, :, 0, -1]
    per_label = {
        label: LabelMetrics(
            ap=average(precision[:, :, index]),
            ap50=average(precision[0, :, index]),
            boxes=sum(each["category_id"] == index + 1 for each in truth["annotations"]),
        )
        for index, label in enumerate(dataset.labels)
    }
    thresholds = enumerate(evaluation.params.iou_thrs)
    return Metrics(
        summary=Summary(*(defined(value) for value in evaluation.stats)),
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
        "images": [
            {"id": index, "file_name": each.key, "width": each.width, "height": each.height}
            for index, each in enumerate(found, start=1)
        ],
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
    """Runs COCO's evaluation of boxes; returns it accumulated and summarised."""
    coco = hotcoco.COCO(truth)
    evaluation = hotcoco.COCOeval(coco, coco.load_res(results), "bbox")
    # It prints a table, and the log has the job's own.
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.run()
    return evaluation


def average(precision: Any) -> float | None:
    """Returns the mean of the defined values, or None if there are none."""
    values = precision[precision > -1]
    return float(np.mean(values)) if values.size else None


def defined(value: float) -> float | None:
    """Returns a figure of COCO's, or None for -1, which says that there is nothing to measure."""
    return float(value) if value > -1 else None

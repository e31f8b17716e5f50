"""The files that a finished job leaves for the report, made by hand: a bucket, records, metrics and exports."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from entrypoint import workspace
from entrypoint.data import annotations, examples, label_map, records, tf_record
from entrypoint.engines.engine import LOSS, Detections
from entrypoint.results.analysis import analyse
from entrypoint.results.metrics_document import MetricsDocument
from entrypoint.results.parity import Difference, Parity, ParityDocument
from entrypoint.system import documents
from entrypoint.training import checkpoints, coco, train
from entrypoint.training.metrics import Evaluated, Evaluations
from entrypoint.training.plan import Plan
from entrypoint.training.stored import DetectionsDocument
from entrypoint.workspace import Mark, Workspace
from tests.conftest import make_settings, write_bucket

EVIL = '<script>alert("1")</script>'
TRAINED_AT = 1_790_000_000.0  # in September 2026
SECONDS = {"annotations": 0.4, "label_map": 0.1, "tf_record": 3.2, "checkpoint": 12.0, "train": 640.5, "evaluate": 9.1}
NOISE = np.random.default_rng(0)


def draw_photos(folder: Path, names: Sequence[str], side: int) -> None:
    """Writes photos of noise on a slope: they compress worse than photos of a camera."""
    for name in names:
        pixels = NOISE.normal(0, 24, (side * 3 // 4, side, 3)) + np.linspace(40, 210, side)[None, :, None]
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name, quality=85)


def job(
    folder: Path, names: Sequence[str], labels: Sequence[str], side: int = 320, detections: int = 12, **settings: Any
) -> Workspace:
    """A job on photos with true boxes of these labels, and detections near them and elsewhere."""
    (folder / "work").mkdir()
    work = Workspace(make_settings(folder, model="smoke", num_steps=300, **settings))
    random = np.random.default_rng(1)
    boxes = {}
    for name in names:
        corners = random.uniform(0, 0.6, (random.integers(1, 4), 2)).round(3)
        picked = random.integers(0, len(labels), len(corners))
        boxes[name] = [
            {"x": x, "y": y, "x2": x + 0.3, "y2": y + 0.25, "label": labels[number]}
            for (x, y), number in zip(corners.tolist(), picked, strict=True)
        ]
    write_bucket(work.settings.data_dir, boxes)
    draw_photos(work.settings.data_dir, names, side)
    annotations.run(work)
    label_map.run(work)
    tf_record.run(work)
    write_results(work, found_on(work, random, detections, (side, side * 3 // 4)))
    return work


def found_on(work: Workspace, random: np.random.Generator, most: int, size: tuple[int, int]) -> list[Detections]:
    """Detections on the photos for validation: of true boxes, moved, of a wrong label, twice, and elsewhere."""
    dataset = annotations.load(work)
    by_key = {image.key: image for image in dataset.images}
    keys = [key for key, _ in examples.stored_photos(records.load(work).validation.paths(work.records))]
    found = []
    for key in keys:
        true = by_key[key].boxes
        near = [true[index] for index in random.integers(0, len(true), most // 2)]
        corners = np.array([(box.ymin, box.xmin, box.ymax, box.xmax) for box in near]).reshape(-1, 4)
        corners = corners + random.normal(0, 0.04, corners.shape)
        elsewhere = random.uniform(0, 0.5, (most - len(near), 2))
        corners = np.vstack([corners, np.hstack([elsewhere, elsewhere + 0.2])])
        ids = [dataset.labels.index(box.label) + 1 for box in near]
        ids = [number if random.random() < 0.8 else int(random.integers(1, len(dataset.labels) + 1)) for number in ids]
        ids += random.integers(1, len(dataset.labels) + 1, len(elsewhere)).tolist()
        scores = np.concatenate([random.uniform(0.2, 1, len(near)), random.uniform(0.01, 0.8, len(elsewhere))])
        order = np.argsort(-scores)
        boxes = corners[order].astype(np.float32)
        found.append(Detections(key, size[1], size[0], boxes, np.array(ids)[order], scores[order].astype(np.float32)))
    return found


def write_results(work: Workspace, found: list[Detections]) -> None:
    """Writes what training, evaluation and exports leave behind."""
    for index, (name, seconds) in enumerate(SECONDS.items()):
        workspace.write_mark(name, Mark("", f"{index:064x}", TRAINED_AT - 1000 + 100 * index, seconds), work)
    dataset = annotations.load(work)
    documents.write(work.plan, Plan("x.config", "tf2", 300, 16, 0.003, (("a", "1", EVIL),)))
    history: list[dict[str, int | float]] = [
        {"step": step, LOSS: 2 / step**0.5, "learning_rate": 1e-3} for step in range(1, 301)
    ]
    rows = tuple(Evaluated(step, value, value + 0.1, {}, 1.0) for step, value in ((100, 0.1), (200, 0.3), (300, 0.25)))
    evaluations = Evaluations(100, rows) if found else Evaluations()
    documents.write(work.trained, train.Trained(300, None))
    names = {"ckpt-300.index": "0" * 64, "ckpt-300.data-00000-of-00001": "1" * 64}
    words = {"MODEL": "smoke", "NUM_STEPS": "300", "BATCH_SIZE": "16", "pipeline.config": "0123456789ab"}
    manifest = checkpoints.Manifest(300, "job", names, history, evaluations=evaluations, settings=words)
    documents.write(checkpoints.manifest_of(train.last_checkpoint(work)), manifest)
    stored = DetectionsDocument.of(found)
    exact = [each.to_detections() for each in stored.photos]
    metrics = MetricsDocument.of(coco.measure(dataset, exact, step=300), analyse(dataset, exact) if found else None)
    documents.write(work.metrics, dataclasses.replace(metrics, evaluations=evaluations))
    documents.write(work.detections, stored)
    difference = Difference(3, 0, 0.00012, 0.0, 0.0, 0.0, expected=3, returned=3)
    equal = Parity("equal", "", 4_300_000, 7, 0.5, 0.5, difference, 12.5)
    exports = {"saved_model": equal, "tflite": equal, "openvino": equal, "onnx": Parity("failed", EVIL)}
    documents.write(work.parity, ParityDocument(exports))

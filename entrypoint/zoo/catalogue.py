"""The catalogue: every model of the two detection model zoos, and the tuned pipelines of this project."""

from __future__ import annotations

import csv
import difflib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from entrypoint.system.errors import UserError

PIPELINES = Path(__file__).resolve().parents[2] / "pipelines"


@dataclass(frozen=True)
class Model:
    """A row of pipelines/zoo.csv."""

    generation: str  # "tf1" or "tf2"
    name: str
    archive: str  # relative to ZOO_URL; empty if the model has no checkpoint
    input_size: str  # height x width in pixels, or shortest-longest side if photos keep their shapes
    speed_ms: float | None  # for one image, as published by the zoo
    coco_map: float | None  # mAP on COCO in percent, as published by the zoo
    outputs: str  # "boxes", "masks", "boxes/masks" or "boxes/keypoints"
    speed_on: str  # the device of the speed: the authors' GPU, or a phone for models that are made for phones

    @property
    def pipeline(self) -> Path | None:
        """This project's tuned pipeline, or None."""
        path = PIPELINES / f"{self.name}.config"
        return path if path.exists() else None


def load() -> dict[str, Model]:
    """Returns every model by its name."""
    with (PIPELINES / "zoo.csv").open(newline="", encoding="utf-8") as file:
        return {row["model"]: read_row(row) for row in csv.DictReader(file)}


def read_row(row: dict[str, str]) -> Model:
    """Returns the model of a row of the catalogue."""
    speed, coco_map = (float(row[key]) if row[key] else None for key in ("speed_ms", "coco_map"))
    input_size = row.get("input", "")
    speed_on = row.get("speed_on", "")
    return Model(row["generation"], row["model"], row["archive"], input_size, speed, coco_map, row["outputs"], speed_on)


def find(name: str) -> Model:
    """Returns the model of that name; raises UserError with the nearest names if there is no such model."""
    models = load()
    if name not in models:
        close = difflib.get_close_matches(name.lower(), models, n=3, cutoff=0)
        raise UserError(
            f"MODEL={name} is not in the zoo. The nearest are {', '.join(close)}; `start.sh models` lists all models"
        )
    return models[name]


def refuse_beyond_boxes(model: Model) -> None:
    """Raises UserError for a model of masks or keypoints; the message names the nearest model of boxes."""
    if model.outputs != "boxes":
        boxes = [each.name for each in load().values() if each.outputs == "boxes" and each.archive]
        nearest = difflib.get_close_matches(model.name.replace("mask_rcnn", "faster_rcnn"), boxes, n=1, cutoff=0)
        raise UserError(
            f"MODEL={model.name} finds {model.outputs}, but this job trains only boxes, because the annotations hold "
            f"only boxes. The nearest model of boxes is {nearest[0]}"
        )


def listing(*, as_json: bool) -> str:
    """Returns the catalogue as a table, or as JSON for programs."""
    models = load().values()
    if as_json:
        return json.dumps([{**asdict(model), "tuned": model.pipeline is not None} for model in models], indent=1)
    rows = [("MODEL", "GENERATION", "INPUT", "MS", "ON", "COCO mAP", "OUTPUTS", "PIPELINE")]
    for model in models:
        speed, coco_map = ("-" if value is None else f"{value:g}" for value in (model.speed_ms, model.coco_map))
        tuned = "tuned" if model.pipeline else ""
        on = model.speed_on or "-"
        rows.append((model.name, model.generation, model.input_size, speed, on, coco_map, model.outputs, tuned))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)

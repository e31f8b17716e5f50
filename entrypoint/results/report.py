"""report.html: one self-contained page about what was trained on what, how well it went, and what it finds."""

import base64
import io
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from entrypoint import workspace
from entrypoint.data import annotations, examples, images, quality, tf_record
from entrypoint.data.annotations import Dataset, LabelledImage
from entrypoint.engines.engine import LOSS
from entrypoint.results import publish
from entrypoint.system import parallel
from entrypoint.training import checkpoints, train
from entrypoint.workspace import Workspace

PHOTOS = 12
WORST = 3  # photos of each kind of finding
THUMBNAIL = 480  # pixels, the longer side
# Okabe and Ito's colours (2008), which people with any colour vision tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def run(work: Workspace) -> str:
    """Writes report.html; returns its SHA-256."""
    dataset = annotations.load(work)
    records = tf_record.load_manifest(work)
    metrics = workspace.read_json(work.metrics, "evaluate")
    changes = workspace.read_json(work.changes, "pipeline")
    history = read_history(work)
    shown, worst = choose_validation(work), choose_worst(dataset, records)
    photos = fetch_photos({each["key"] for each in shown} | {key for key, _ in worst}, work)
    # Those of this step and of publishing would be an earlier run's.
    marks = {name: mark for name, mark in workspace.read_marks(work).items() if name not in ("report", "publish")}
    page = template().render(
        model=work.settings.model,
        metrics=metrics,
        records=records,
        labels=label_rows(dataset, records, metrics),
        loss_curve=draw_loss(history),
        map_curve=draw_map(metrics["per_iou"]),
        last_loss=history[-1][LOSS] if history else None,
        photos=validation_cards(shown, dataset, photos),
        findings=finding_rows(dataset, records),
        advice=quality.sizes(records["advice"]) + quality.sentences(records["advice"]),
        worst=worst_cards(worst, dataset, photos),
        changes=changes["rows"],
        pipeline=changes["source"],
        batch_size=changes["batch_size"],
        learning_rate=changes["learning_rate"],
        settings=publish.shown_settings(work),
        versions=publish.versions(),
        seconds={name: mark["seconds"] for name, mark in marks.items()},
        unlabelled=dataset.unlabelled,
    )
    workspace.write_text(work.report, page)
    return workspace.file_sha256(work.report)


def template() -> jinja2.Template:
    """The page's template; everything that is filled in is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["metric"] = lambda value: "-" if value is None else f"{value:.3f}"
    return environment.get_template("report.html.j2")


def read_history(work: Workspace) -> list[dict[str, float]]:
    """Loss and learning rate by step, from the last checkpoint."""
    manifest = checkpoints.manifest_of(train.last_checkpoint(work))
    return list(workspace.read_json(manifest, "train")["history"])


def label_rows(dataset: Dataset, records: dict[str, Any], metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """Each label with its colour, its boxes in both splits and its AP."""
    splits = records["splits"]
    return [
        {
            "name": label,
            "colour": COLOURS[index % len(COLOURS)],
            "train": splits["train"]["boxes_per_label"].get(label, 0),
            "validation": splits["validation"]["boxes_per_label"].get(label, 0),
            **metrics["per_label"].get(label, {"AP": None, "AP@0.5": None}),
        }
        for index, label in enumerate(dataset.labels)
    ]


def finding_rows(dataset: Dataset, records: dict[str, Any]) -> list[tuple[str, int, str]]:
    """What was repaired or skipped: kind, count, the first few places."""
    kinds = dataset.findings.kinds | quality.kinds_of(records["skipped"], records["changed"])
    return [(kind, len(where), quality.listed(where)) for kind, where in kinds.items()]


def draw_loss(history: list[dict[str, float]]) -> str:
    """The loss by step, with its running mean, as SVG."""
    if not history:
        return ""
    steps, losses = [point["step"] for point in history], [point[LOSS] for point in history]

    def plot(axes: Any) -> None:
        axes.plot(steps, losses, color="#56b4e9", linewidth=0.8, alpha=0.6, label="each step")
        axes.plot(steps, running_mean(losses), color="#0072b2", linewidth=1.8, label="running mean")
        axes.set(xlabel="step", ylabel="total loss", ylim=(0, None))
        axes.legend(frameon=False)

    return draw(plot)


def running_mean(values: list[float], weight: float = 0.1) -> list[float]:
    """The exponential running mean, starting at the first value."""
    means: list[float] = []
    for value in values:
        means.append(value if not means else means[-1] + weight * (value - means[-1]))
    return means


def draw_map(per_iou: list[list[float | None]]) -> str:
    """MAP at each IoU threshold of COCO, as SVG: how it falls tells how tightly the boxes sit."""
    points = [(threshold, value) for threshold, value in per_iou if value is not None]
    if not points:
        return ""

    def plot(axes: Any) -> None:
        axes.plot(*zip(*points, strict=True), color="#d55e00", marker="o", linewidth=1.8)
        axes.set(xlabel="IoU that counts as found", ylabel="mAP", ylim=(0, 1.02))

    return draw(plot)


def draw(plot: Callable[[Any], None]) -> str:
    """A small chart as an SVG element, without the XML header that HTML does not take."""
    import matplotlib

    matplotlib.use("Agg")
    # Names of elements and dates would otherwise change from run to run.
    matplotlib.rcParams.update({"svg.hashsalt": "report", "svg.fonttype": "none", "font.family": "sans-serif"})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5.6, 3.0), layout="constrained")
    plot(axes)
    axes.grid(visible=True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    pyplot.close(figure)
    return buffer.getvalue().partition("<svg")[1] + buffer.getvalue().partition("<svg")[2]


def choose_validation(work: Workspace) -> list[dict[str, Any]]:
    """Photos for validation with what was found on them, evenly out of all."""
    found: list[dict[str, Any]] = workspace.read_json(work.detections, "evaluate")
    return found[:: max(1, len(found) // PHOTOS)][:PHOTOS]


def choose_worst(dataset: Dataset, records: dict[str, Any]) -> list[tuple[str, str]]:
    """A few photos and what was found on them: copies across the split, boxes too small, what was repaired."""
    small = records["advice"]["small_boxes"]
    wanted = [(key, f"nearly the same as {other}") for key, other in records["advice"]["duplicates"][:WORST]]
    wanted += [
        (key, f"boxes too small for the model: {small[key]}")
        for key in sorted(small, key=lambda key: (-small[key], key))[:WORST]
    ]
    known = {image.key for image in dataset.images}
    for kind, where in sorted(dataset.findings.kinds.items()):
        wanted += [(key, kind) for key in dict.fromkeys(where) if key in known][:WORST]
    return wanted[:PHOTOS]


def fetch_photos(keys: set[str], work: Workspace) -> dict[str, bytes]:
    """The photos as they are trained on, by their keys; those that cannot be read any more are left out.

    What they would illustrate is done: no model is lost because a credential has run out since.
    """
    if work.settings.records_dir:
        return dict(out_of_records(keys, work))

    def read(key: str) -> tuple[str, bytes | None]:
        try:
            return key, examples.read_photo(work.settings.data_dir, key).encoded
        except (images.UnusablePhotoError, OSError):
            return key, None

    found = parallel.map_in_order(read, sorted(keys), work.settings.workers)
    return {key: encoded for key, encoded in found if encoded is not None}


def out_of_records(keys: set[str], work: Workspace) -> Iterator[tuple[str, bytes]]:
    """The same out of the records, for a job that was given them and no bucket."""
    import tensorflow as tf

    for path in sorted(work.records.glob("*.tfrecord")):
        # Unlike a dataset it needs no session, whatever mode the engine has put TensorFlow into.
        for serialized in tf.compat.v1.io.tf_record_iterator(str(path)):
            features = tf.train.Example.FromString(serialized).features.feature
            key = os.fsdecode(features["image/source_id"].bytes_list.value[0])
            if key in keys:
                yield key, features["image/encoded"].bytes_list.value[0]


def worst_cards(chosen: list[tuple[str, str]], dataset: Dataset, photos: dict[str, bytes]) -> list[dict[str, Any]]:
    """Photos to look at, with why."""
    by_key = {image.key: image for image in dataset.images}
    return [
        photo_card(by_key[key], dataset, photos[key]) | {"why": why, "found": []}
        for key, why in chosen
        if key in photos
    ]


def validation_cards(chosen: list[dict[str, Any]], dataset: Dataset, photos: dict[str, bytes]) -> list[dict[str, Any]]:
    """Photos for validation with true and found boxes."""
    by_key = {image.key: image for image in dataset.images}
    cards = []
    for each in chosen:
        if each["key"] in photos:
            card = photo_card(by_key[each["key"]], dataset, photos[each["key"]])
            card["found"] = [
                rectangle(corners, card, COLOURS[(number - 1) % len(COLOURS)])
                | {"label": dataset.labels[number - 1], "score": score}
                for corners, number, score in zip(each["boxes"], each["classes"], each["scores"], strict=True)
            ]
            cards.append(card)
    return cards


def photo_card(image: LabelledImage, dataset: Dataset, encoded: bytes) -> dict[str, Any]:
    """A photo with the boxes that were drawn, in its own pixels."""
    with Image.open(io.BytesIO(encoded)) as photo:
        size = {"width": photo.width, "height": photo.height}
        source = thumbnail(photo)
    true = [(box.label, (box.ymin, box.xmin, box.ymax, box.xmax)) for box in image.boxes]
    return {
        "key": image.key,
        "source": source,
        **size,
        "true": [rectangle(corners, size, colour_of(label, dataset)) for label, corners in true],
        "counts": Counter(label for label, _ in true),
        "why": "",
    }


def rectangle(corners: Any, size: dict[str, Any], colour: str) -> dict[str, Any]:
    """A box in pixels of the upright photo, whose `width` and `height` are given: left, top, width and height."""
    ymin, xmin, ymax, xmax = corners
    return {
        "x": round(xmin * size["width"], 1),
        "y": round(ymin * size["height"], 1),
        "width": round((xmax - xmin) * size["width"], 1),
        "height": round((ymax - ymin) * size["height"], 1),
        "colour": colour,
    }


def colour_of(label: str, dataset: Dataset) -> str:
    """The colour of a label, the same all over the page."""
    return COLOURS[dataset.labels.index(label) % len(COLOURS)]


def thumbnail(photo: Image.Image) -> str:
    """A small JPEG of a photo as a data address."""
    small = photo.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"

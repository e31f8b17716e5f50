"""report.html: one self-contained page about the data, the training, the metrics and the model's detections."""

import io
from collections.abc import Callable
from typing import Any

from entrypoint import workspace
from entrypoint.data import annotations, examples, quality, records
from entrypoint.data.annotations import Dataset
from entrypoint.data.boxes import Box
from entrypoint.data.quality import DataQuality
from entrypoint.data.records import RecordsManifest
from entrypoint.engines.engine import LOSS
from entrypoint.results import advice, evaluate, manifest, metrics_document, parity
from entrypoint.results.cards import colour_of, photo_card, read_photos, rectangle, template
from entrypoint.results.export import formats
from entrypoint.results.metrics_document import MetricsDocument
from entrypoint.system import documents, files, version
from entrypoint.training import checkpoints, plan, train
from entrypoint.training.metrics import LabelMetrics, Metrics
from entrypoint.training.stored import SHOWN_SCORE, StoredDetections
from entrypoint.workspace import Workspace

PHOTOS = 12
WORST = 3  # photos of each kind of finding


def run(work: Workspace) -> str:
    """Writes report.html; returns its SHA-256."""
    dataset, metrics, planned = annotations.load(work), metrics_document.load(work), plan.load(work)
    recorded = records.load(work)
    history = checkpoints.load(train.last_checkpoint(work)).history
    shown, worst = choose_validation(work), choose_worst(dataset, recorded.quality)
    photos = fetch_photos({each.key for each in shown} | {key for key, _ in worst}, work)
    # Marks of this step and of `publish` are those of an earlier run.
    marks = {name: mark for name, mark in workspace.read_marks(work).items() if name not in ("report", "publish")}
    page = template("report.html.j2").render(
        model=work.settings.model,
        metrics=metrics,
        summary=documents.to_plain(metrics.summary),
        records=recorded,
        labels=label_rows(dataset, recorded, metrics),
        loss_curve=draw_loss(history),
        map_curve=draw_map(metrics),
        kept=about_kept(metrics),
        evaluations_curve=draw_evaluations(metrics),
        last_loss=history[-1][LOSS] if history else None,
        photos=validation_cards(shown, dataset, photos),
        findings=finding_rows(dataset, recorded),
        quality=quality.describe_sizes(recorded.quality) + quality.describe_problems(recorded.quality),
        worst=worst_cards(worst, dataset, photos),
        plan=planned,
        settings=manifest.shown_settings(work),
        versions={"this job": version.describe(), **manifest.versions()},
        seconds={name: mark.seconds for name, mark in marks.items()},
        unlabelled=dataset.unlabelled,
        exports=export_rows(work),
        answer=answer(dataset, recorded, metrics),
    )
    files.write_text(work.report, page)
    return files.file_sha256(work.report)


def label_rows(dataset: Dataset, manifest: RecordsManifest, metrics: Metrics) -> list[dict[str, Any]]:
    """Returns each label with its colour, its boxes in both splits and its AP."""
    unknown = LabelMetrics(None, None, 0)
    return [
        {
            "name": label,
            "colour": colour_of(label, dataset),
            "train": manifest.train.boxes_per_label.get(label, 0),
            "validation": manifest.validation.boxes_per_label.get(label, 0),
            "ap": metrics.per_label.get(label, unknown).ap,
            "ap50": metrics.per_label.get(label, unknown).ap50,
        }
        for label in dataset.labels
    ]


def answer(dataset: Dataset, recorded: RecordsManifest, metrics: MetricsDocument) -> list[str]:
    """Returns sentences about how good the model is, and what to do next; none if nothing was measured."""
    return advice.sentences(metrics.analysis, dataset, recorded.train.boxes_per_label) if metrics.analysis else []


def export_rows(work: Workspace) -> list[dict[str, Any]]:
    """Returns each export with its folder, and what it finds compared with the model."""
    return [
        {"name": name, "folder": formats.format_of(name).folder, "parity": found}
        for name, found in parity.load(work).items()
    ]


def finding_rows(dataset: Dataset, manifest: RecordsManifest) -> list[tuple[str, int, str]]:
    """Returns what was repaired or skipped: kind, count, the first few places."""
    kinds = dataset.findings.kinds | manifest.kinds()
    return [(kind, len(where), quality.listed(where)) for kind, where in kinds.items()]


def draw_loss(history: list[dict[str, float]]) -> str:
    """Returns the loss by step, with its running mean, as SVG."""
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
    """Returns the exponential running mean, which starts at the first value."""
    means: list[float] = []
    for value in values:
        means.append(value if not means else means[-1] + weight * (value - means[-1]))
    return means


def draw_map(metrics: Metrics) -> str:
    """Returns mAP at each IoU threshold of COCO, as SVG. The later the curve falls, the tighter the boxes fit."""
    points = [(threshold, value) for threshold, value in metrics.per_iou if value is not None]
    if not points:
        return ""

    def plot(axes: Any) -> None:
        axes.plot(*zip(*points, strict=True), color="#d55e00", marker="o", linewidth=1.8)
        axes.set(xlabel="IoU threshold", ylabel="mAP", ylim=(0, 1.02))

    return draw(plot)


def about_kept(metrics: Metrics) -> str:
    """Returns a sentence about which checkpoint the model is, and how much better than the last it is."""
    rows, best = metrics.evaluations.rows, metrics.evaluations.best
    if not rows or best is None:
        return ""
    times = f"{len(rows)} evaluations during the training" if len(rows) > 1 else "one evaluation during the training"
    ended = rows[-1]
    if metrics.kept == "best" and best.is_averaged:
        end = f", and {ended.map or 0.0:.3f} at step {ended.step}, with which the training ended"
        return (
            f"The model has the averaged weights of step {best.step}, the best of {times}: their mAP was "
            f"{best.map:.3f}, that of the weights without averaging {best.raw or 0.0:.3f}"
            f"{end if ended.step != best.step else ''}."
        )
    if metrics.kept == "best":
        gain = (best.map or 0.0) - (ended.map or 0.0)
        return (
            f"The model is the checkpoint of step {best.step}, the best of {times}: its mAP was {gain:.3f} above that "
            f"of step {ended.step}, with which the training ended."
        )
    if best.step == metrics.step and not best.is_averaged:
        return f"The last checkpoint was also the best of {times}."
    return f"The model is the last checkpoint. The best of {times} was that of step {best.step}, mAP {best.map:.3f}."


def draw_evaluations(metrics: Metrics) -> str:
    """Returns mAP by step, with the best evaluation marked, as SVG."""
    points = [row for row in metrics.evaluations.rows if row.map is not None]
    best = metrics.evaluations.best
    if len(points) < 2 or best is None:
        return ""

    def plot(axes: Any) -> None:
        steps = [row.step for row in points]
        axes.plot(steps, [row.map for row in points], color="#d55e00", marker="o", linewidth=1.8, label="mAP")
        axes.plot(steps, [row.map50 for row in points], color="#e69f00", marker="o", linewidth=1.2, label="mAP@0.5")
        axes.axvline(best.step, color="#777777", linewidth=1, linestyle="--", label="best mAP")
        axes.set(xlabel="step", ylabel="mAP", ylim=(0, 1.02))
        axes.legend(frameon=False)

    return draw(plot)


def draw(plot: Callable[[Any], None]) -> str:
    """Returns a small chart as an SVG element, without the XML header, which HTML does not allow."""
    import matplotlib

    matplotlib.use("Agg")
    # Otherwise the ids of elements and the date change from run to run.
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


def choose_validation(work: Workspace) -> list[StoredDetections]:
    """Returns validation photos with their detections, evenly spaced among all of them."""
    found = evaluate.load_detections(work)
    count = min(PHOTOS, len(found))
    return [found[index * len(found) // count] for index in range(count)]


def choose_worst(dataset: Dataset, facts: DataQuality) -> list[tuple[str, str]]:
    """Returns a few photos, each with its problem: a copy across the split, boxes that are too small, or a repair."""
    small = facts.small_boxes
    wanted = [(key, f"nearly the same as {other}") for key, other in facts.duplicates[:WORST]]
    wanted += [
        (key, f"boxes too small for the model: {small[key]}")
        for key in sorted(small, key=lambda key: (-small[key], key))[:WORST]
    ]
    known = {image.key for image in dataset.images}
    for kind, where in sorted(dataset.findings.kinds.items()):
        wanted += [(key, kind) for key in dict.fromkeys(where) if key in known][:WORST]
    return wanted[:PHOTOS]


def fetch_photos(keys: set[str], work: Workspace) -> dict[str, bytes]:
    """Returns photos as they are trained on, by their keys. Photos that cannot be read any more are left out.

    The model is trained by then, and must not be lost because a credential has expired since.
    """
    if work.settings.records_dir:
        return dict(examples.photos_in(sorted(map(str, work.records.glob("*.tfrecord"))), keys))
    return read_photos(keys, work.settings)


def worst_cards(chosen: list[tuple[str, str]], dataset: Dataset, photos: dict[str, bytes]) -> list[dict[str, Any]]:
    """Returns the photos to look at, each with its problem."""
    by_key = {image.key: image for image in dataset.images}
    return [
        photo_card(by_key[key], dataset, photos[key]) | {"why": why, "found": []}
        for key, why in chosen
        if key in photos
    ]


def validation_cards(
    chosen: list[StoredDetections], dataset: Dataset, photos: dict[str, bytes]
) -> list[dict[str, Any]]:
    """Returns validation photos with the annotated boxes and the detections."""
    by_key = {image.key: image for image in dataset.images}
    cards = []
    for each in chosen:
        if each.key in photos:
            card = photo_card(by_key[each.key], dataset, photos[each.key])
            found = zip(each.boxes, each.classes, each.scores, strict=True)
            labelled = [
                (Box.from_detection(dataset.labels[number - 1], corners), score)
                for corners, number, score in found
                if score >= SHOWN_SCORE
            ]
            card["found"] = [
                rectangle(box, card, dataset) | {"label": box.label, "score": score} for box, score in labelled
            ]
            cards.append(card)
    return cards

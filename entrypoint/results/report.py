"""report.html: one page, without network, about how good the model is, where it fails, and how it was made."""

import base64
import hashlib
from pathlib import Path
from typing import Any

from entrypoint import workspace
from entrypoint.data import annotations, examples, quality, records
from entrypoint.data.annotations import Dataset
from entrypoint.data.boxes import Box
from entrypoint.data.quality import DataQuality
from entrypoint.data.records import RecordsManifest
from entrypoint.engines.engine import LOSS, Detections
from entrypoint.results import (
    advice,
    charts,
    evaluate,
    gallery,
    history,
    manifest,
    metrics_document,
    model_card,
    report_runs,
)
from entrypoint.results import report_tables as tables
from entrypoint.results.analysis import Analysis, matching
from entrypoint.results.analysis.analysis import WITHOUT_RECOMMENDATION
from entrypoint.results.cards import is_readable, photo_card, read_photos, rectangle, template
from entrypoint.results.history import History
from entrypoint.results.metrics_document import MetricsDocument
from entrypoint.system import documents, files, version
from entrypoint.training import checkpoints, plan, train
from entrypoint.workspace import Workspace

DRAWN = 12  # photos with boxes in the page itself, for browsers without its script
WORST = 3  # photos of each kind of finding
SCRIPT = Path(__file__).with_suffix(".js")


def run(work: Workspace) -> str:
    """Writes report.html, model_card.md and the history of the runs; returns a digest of them."""
    dataset, metrics, recorded = annotations.load(work), metrics_document.load(work), records.load(work)
    runs = history.write(work, dataset, recorded, metrics)
    script = SCRIPT.read_text(encoding="utf-8")
    page = template("report.html.j2").render(
        model=work.settings.model,
        metrics=metrics,
        analysis=metrics.analysis,
        summary=documents.to_plain(metrics.summary),
        records=recorded,
        answer=tables.answer(dataset, recorded, metrics, runs, work),
        **render_runs(runs),
        labels=tables.label_rows(dataset, recorded, metrics),
        errors=tables.error_rows(metrics.analysis) if metrics.analysis else [],
        kept=tables.about_kept(metrics),
        findings=tables.finding_rows(dataset, recorded),
        quality=quality.describe_sizes(recorded.quality) + quality.describe_problems(recorded.quality),
        exports=tables.export_rows(work, metrics.analysis),
        unlabelled=dataset.unlabelled,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        **render_curves(work, dataset, metrics),
        **render_photos(work, dataset, recorded, metrics.analysis),
        **describe_making(work),
    )
    files.write_text(work.report, page)
    model_card.write(work, dataset, recorded, metrics)
    return files.digest([files.file_sha256(path) for path in outputs(work)])


def outputs(work: Workspace) -> list[Path]:
    """Returns the files that the step leaves in WORK_DIR."""
    return [work.report, work.model_card, work.history]


def render_runs(runs: History) -> dict[str, Any]:
    """Returns the runs in RESULT_DIR: their table, their chart, and a sentence about the best one."""
    rows = report_runs.rows(runs)
    return {
        "runs": rows,
        "most_runs": history.MOST_RUNS,
        "best_run": report_runs.about_best(runs),
        "runs_curve": charts.draw_runs(rows),
    }


def render_curves(work: Workspace, dataset: Dataset, metrics: MetricsDocument) -> dict[str, Any]:
    """Returns the charts, and the labels in the one of precision and recall."""
    points = checkpoints.load(train.last_checkpoint(work)).history
    best, analysis = metrics.evaluations.best, metrics.analysis
    step = best.step if best else None
    shown = tables.curve_labels(dataset, analysis) if analysis else {}
    curves = {number: analysis.per_label[label].curve for label, number in shown.items()} if analysis else {}
    return {
        "last_loss": points[-1][LOSS] if points else None,
        "curves": {
            "Loss": charts.draw_loss(points, step),
            "mAP during the training": charts.draw_evaluations(metrics),
            "Learning rate": charts.draw_learning_rate(points, step),
            "mAP by IoU threshold": charts.draw_map(metrics),
            "Calibration": charts.draw_calibration(analysis.calibration) if analysis else "",
        },
        "precision_curve": charts.draw_precision(curves),
        "curve_labels": shown,
        "colours": charts.SERIES,
    }


def describe_making(work: Workspace) -> dict[str, Any]:
    """Returns how the model was made: plan, settings, versions, digests, times."""
    # Marks of this step and of `publish` are those of an earlier run.
    marks = {name: mark for name, mark in workspace.read_marks(work).items() if name not in ("report", "publish")}
    return {
        "plan": plan.load(work),
        "settings": manifest.shown_settings(work),
        "versions": {"this job": version.describe(), **manifest.versions()},
        "digests": {name: mark.output for name, mark in marks.items()},
        "seconds": {name: mark.seconds for name, mark in marks.items()},
    }


def render_photos(
    work: Workspace, dataset: Dataset, recorded: RecordsManifest, analysis: Analysis | None
) -> dict[str, Any]:
    """Returns the validation photos for the script, the first of them drawn, suspected places, and findings."""
    found = [each.to_detections() for each in evaluate.load_detections(work)]
    threshold = analysis.threshold if analysis else WITHOUT_RECOMMENDATION
    chosen = gallery.entries(matching.match(dataset, found), found, threshold) if found else []
    worst, suspects = choose_worst(dataset, recorded.quality), analysis.suspects if analysis else ()
    drawn = [each.key for each in chosen[:DRAWN]]
    shards, every = recorded.validation.paths(work.records), [each.key for each in chosen]
    step = max(1, len(every) // gallery.SAMPLE)
    wanted = {*drawn, *(key for key, _ in worst), *(each.key for each in suspects), *every[::step]}
    photos = dict(examples.photos_in(shards, wanted))
    room = gallery.room_for_thumbnails(chosen)
    shape = gallery.choose_shape([photos[key] for key in every[::step] if key in photos], len(every), room)
    sources = gallery.thumbnails(examples.photos_in(shards, set(every)), shape, room, work.settings.workers)
    photos |= fetch_photos({key for key, _ in worst} - photos.keys(), work)
    # The model is trained by then, and must not be lost because of a photo in records from elsewhere.
    photos = {key: encoded for key, encoded in photos.items() if is_readable(encoded)}
    by_key = {each.key: each for each in found}
    return {
        "data": gallery.to_json(dataset, chosen, sources, threshold) if chosen else "",
        "photos": validation_cards([by_key[key] for key in drawn], dataset, photos, threshold),
        "lowest": advice.shown(gallery.lowest_score(threshold)),
        "photos_left": len(found) - len(chosen),
        "suspects": list(gallery.places(suspects, photos)),
        "worst": worst_cards(worst, dataset, photos),
    }


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
    return wanted[:DRAWN]


def fetch_photos(keys: set[str], work: Workspace) -> dict[str, bytes]:
    """Returns training photos as they are trained on, by their keys. Photos that cannot be read are left out.

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
    chosen: list[Detections], dataset: Dataset, photos: dict[str, bytes], threshold: float
) -> list[dict[str, Any]]:
    """Returns validation photos with the annotated boxes and the detections from a score on."""
    by_key = {image.key: image for image in dataset.images}
    cards = []
    for each in chosen:
        if each.key in photos:
            card = photo_card(by_key[each.key], dataset, photos[each.key])
            found = zip(each.boxes, each.classes, each.scores, strict=True)
            labelled = [
                (Box.from_detection(dataset.labels[number - 1], corners), float(score))
                for corners, number, score in found
                if score >= threshold
            ]
            card["found"] = [
                rectangle(box, card, dataset) | {"label": box.label, "score": score} for box, score in labelled
            ]
            cards.append(card)
    return cards

"""The tables of the report, row by row, and the sentences that compare the model with earlier ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from entrypoint import workspace
from entrypoint.data import quality
from entrypoint.data.annotations import Dataset
from entrypoint.data.records import RecordsManifest
from entrypoint.results import advice, parity
from entrypoint.results.analysis import Analysis
from entrypoint.results.analysis.document import OperatingPoint
from entrypoint.results.cards import series_of
from entrypoint.results.export import formats
from entrypoint.results.export.export_format import ExportFormat
from entrypoint.results.history import History
from entrypoint.results.metrics_document import MetricsDocument
from entrypoint.results.parity import Parity
from entrypoint.training import last_job, plan
from entrypoint.training.metrics import LabelMetrics, Metrics
from entrypoint.workspace import Workspace

MOST_CURVES = 14  # labels in the chart of precision and recall: seven colours, plain and dashed
DIFFERENT = 0.005  # of mAP; less is called equal
# A training may be too short if mAP rises by so much in the last part of its steps.
LATE, GAIN = 0.75, 0.01
LONGEST_NAME = 80  # of a model in an earlier job's manifest


@dataclass(frozen=True)
class LabelRow:
    """A label with its colour, its boxes in both splits, and how well it is found. None is not defined."""

    name: str
    colour: str
    train: int
    validation: int
    ap: float | None
    ap50: float | None
    best: OperatingPoint | None


@dataclass(frozen=True)
class ErrorRow:
    """A kind of error: its number at the threshold, and what mAP@0.5 would gain without it."""

    name: str
    count: int
    gain: float | None


@dataclass(frozen=True)
class ExportRow:
    """An export with its folder, what it finds compared with the model, and a program that runs it."""

    name: str
    folder: str
    parity: Parity
    snippet: str | None


def label_rows(dataset: Dataset, manifest: RecordsManifest, metrics: MetricsDocument) -> list[LabelRow]:
    """Returns the rows of the labels."""
    unknown, analysed = LabelMetrics(None, None, 0), metrics.analysis.per_label if metrics.analysis else {}
    return [
        LabelRow(
            name=label,
            colour=series_of(label, dataset),
            train=manifest.train.boxes_per_label.get(label, 0),
            validation=manifest.validation.boxes_per_label.get(label, 0),
            ap=metrics.per_label.get(label, unknown).ap,
            ap50=metrics.per_label.get(label, unknown).ap50,
            best=analysed[label].best if label in analysed else None,
        )
        for label in dataset.labels
    ]


def curve_labels(dataset: Dataset, analysis: Analysis) -> dict[str, int]:
    """Returns the labels with a precision-recall curve, at most 14, those with the lowest AP first.

    The number of each decides the look of its line: its own colour, unless there are more labels than lines.
    """
    known = [label for label in dataset.labels if analysis.per_label[label].curve]
    chosen = sorted(known, key=lambda label: analysis.per_label[label].ap or 0.0)[:MOST_CURVES]
    order = dataset.labels if len(dataset.labels) <= MOST_CURVES else chosen
    return {label: order.index(label) for label in chosen}


def error_rows(analysis: Analysis) -> list[ErrorRow]:
    """Returns the kinds of errors, those with the greatest gain first."""
    gains = analysis.errors.gains
    rows = [
        ErrorRow(words, getattr(analysis.errors.counts, kind), getattr(gains, kind) if gains else None)
        for kind, (words, _) in advice.NAMES.items()
    ]
    return sorted(rows, key=lambda row: -(row.gain or 0.0))


def export_rows(work: Workspace, analysis: Analysis | None) -> list[ExportRow]:
    """Returns the exports. Their programs show objects from the recommended score on."""
    rows = []
    for name, found in parity.load(work).items():
        each = formats.format_of(name)
        place = each.place(work.settings)
        rows.append(ExportRow(name, place, found, for_model(each, place, analysis)))
    return rows


def for_model(each: ExportFormat, place: str, analysis: Analysis | None) -> str | None:
    """Returns a format's program for its folder in RESULT_DIR, with the recommended score."""
    if each.snippet is None:
        return None
    snippet = each.snippet.replace(f'FOLDER = "{each.folder}"\n', f'FOLDER = "{place}"\n')
    if analysis is None or analysis.recommended is None:
        return snippet
    return snippet.replace("THRESHOLD = 0.5\n", f"THRESHOLD = {analysis.recommended.threshold:.2g}\n")


def finding_rows(dataset: Dataset, manifest: RecordsManifest) -> list[tuple[str, int, str]]:
    """Returns what was repaired or skipped: kind, count, the first few places."""
    kinds = dataset.findings.kinds | manifest.kinds()
    return [(kind, len(where), quality.listed(where)) for kind, where in kinds.items()]


def answer(
    dataset: Dataset, recorded: RecordsManifest, metrics: MetricsDocument, history: History, work: Workspace
) -> list[str]:
    """Returns sentences about how good the model is, compared with what, and what to do next.

    There are none if nothing was measured.
    """
    if not metrics.analysis:
        return []
    quality_of_model, *rest = advice.sentences(metrics.analysis, dataset, recorded.train.boxes_per_label)
    compared = [
        compare_with_first(metrics),
        compare_with_earlier(metrics, history, work),
        about_length(metrics, recorded.train.photos, plan.load(work).batch_size),
    ]
    return [quality_of_model, *filter(None, compared), *rest]


def compare_with_first(metrics: Metrics) -> str:
    """Returns a sentence about the first evaluation of the training, or nothing if the model is of that step."""
    rows, now = metrics.evaluations.rows, metrics.summary.map
    if not rows or rows[0].map is None or now is None or rows[0].step >= metrics.step:
        return ""
    first = rows[0]
    difference = difference_in_words(now, first.map or 0.0)
    return f"At the first evaluation of the training, at step {first.step:,}, mAP was {first.map:.2f}: {difference}."


def about_length(metrics: Metrics, photos: int, batch: int) -> str:
    """Returns a sentence about how often the training has shown each photo, and whether mAP still rose at its end.

    There is none without evaluations before and after the last quarter of the steps.
    """
    rows = [(row.step, row.map) for row in metrics.evaluations.rows if row.map is not None]
    last = max((step for step, _ in rows), default=0)
    before = [value for step, value in rows if step <= LATE * last]
    if not before or not photos:
        return ""
    shown = f"The {last:,} steps of {batch} photos showed each of the {photos:,} training photos"
    gain = max(value for _, value in rows) - max(before)
    words = (
        f"mAP still rose by {gain:.2f} in the last quarter of the steps, so a larger NUM_STEPS may give more"
        if gain >= GAIN
        else "In the last quarter of the steps mAP hardly rose, so a larger NUM_STEPS will hardly give more"
    )
    return f"{shown} {last * batch / photos:.1f} times. {words}."


def compare_with_earlier(metrics: Metrics, history: History, work: Workspace) -> str:
    """Returns a sentence about the job whose results were in RESULT_DIR before, or nothing if there was none."""
    now = metrics.summary.map
    measured = [run for run in history.earlier if run.map is not None]
    if now is None or not history.earlier:
        return "" if now is None else compare_with_manifest(now, work)
    if not measured:
        return ""
    last = measured[-1]
    had = f"The earlier job in RESULT_DIR, of MODEL={last.model}, had mAP {last.map or 0.0:.2f} on"
    if last.validation != history.now.validation:
        return f"{had} other validation photos or boxes, so it cannot be compared with this model."
    return f"{had} the same validation photos: {difference_in_words(now, last.map or 0.0)}."


def compare_with_manifest(now: float, work: Workspace) -> str:
    """Returns a sentence about the job of the manifest in RESULT_DIR. Releases up to 1.0 left no history."""
    for document in (last_job.load(work), last_job.load_replaced(work)):
        before = of_manifest(document, "metrics", "mAP")
        if is_ours(document, work) or not is_metric(before):
            continue
        photos = "the same data" if is_same_data(document, work) else "other data, so the figures compare only roughly"
        name = str(of_manifest(document, "settings", "model"))[:LONGEST_NAME]
        return (
            f"The earlier job in RESULT_DIR, of MODEL={name} on {photos}, had mAP {before:.2f}: "
            f"{difference_in_words(now, before)}."
        )
    return ""


def difference_in_words(now: float, before: float) -> str:
    """Returns how two values of mAP differ."""
    if abs(now - before) < DIFFERENT:
        return "this model has the same"
    return f"this model is {abs(now - before):.2f} {'better' if now > before else 'worse'}"


def of_manifest(document: Mapping[str, Any], *names: str) -> Any:
    """Returns a value of an earlier job's manifest, which can be anything, or None."""
    value: Any = document
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def is_metric(value: Any) -> bool:
    """Returns whether a value is a number from 0 to 1."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def is_ours(document: Mapping[str, Any], work: Workspace) -> bool:
    """Returns whether a manifest is of this job: an earlier run of it ended with the same training."""
    mark = workspace.read_mark("train", work)
    return mark is not None and of_manifest(document, "steps", "train", "began") == mark.began


def is_same_data(document: Mapping[str, Any], work: Workspace) -> bool:
    """Returns whether the job of a manifest had the same records."""
    records = workspace.output_of("tf_record", work)
    return records is not None and of_manifest(document, "data", "sha256") == records


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

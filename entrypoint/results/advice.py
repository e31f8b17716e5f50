"""What the analysis of a model means, in sentences: how good it is, where it fails, what to try next."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping

from entrypoint.data.annotations import Dataset
from entrypoint.results.analysis import Analysis
from entrypoint.results.analysis.document import ErrorCounts, SizeClass

MOST = 6
WORTH = 0.01  # of mAP@0.5: what repairs gain less than this is not worth a sentence
FEW_PHOTOS = 100
WIDE = 0.05  # an interval of mAP
FEW_BOXES = 100  # of a label to train on
FEW = 10  # boxes, below which a share says little
LOW_SCORE = 0.01
GAP = 0.1  # of recall or AP: a difference that is worth a sentence

PLURALS = {"missing box": "missing boxes", "wrong label": "wrong labels", "box without object": "boxes without object"}
# A kind of error: its name for people, and what to do about it.
NAMES = {
    "missed": ("missed boxes", "label more photos that show such objects"),
    "ghost": (
        "detections without an object",
        "look whether some of them are objects that nobody labelled; if not, add photos that show what is mistaken for "
        "an object, without boxes",
    ),
    "wrong_label": ("wrong labels", "look whether these labels are drawn in the same way on all photos"),
    "poor_box": ("boxes that fit poorly", "look whether the boxes are drawn in the same way on all photos"),
    "both": ("boxes that fit poorly and have a wrong label", "look at the photos with these errors"),
    "duplicate": ("duplicates", "lower the IoU threshold of non-maximum suppression in pipeline.config"),
}


def sentences(analysis: Analysis, dataset: Dataset, train_boxes: Mapping[str, int]) -> list[str]:
    """Returns at most six sentences about a model, the most important first.

    Args:
        analysis: of the validation photos.
        dataset: the labels.
        train_boxes: how many boxes of each label the model was trained on.
    """
    if not analysis.photos:
        return ["There are no validation photos, so the model was not measured."]
    if not analysis.boxes:
        return ["No labelled object is on the validation photos, so the model was not measured."]
    every = [
        about_quality(analysis),
        about_worst_label(analysis, dataset, train_boxes),
        about_errors(analysis),
        about_sizes(analysis),
        about_threshold(analysis),
        about_suspects(analysis),
    ]
    return [sentence for sentence in every if sentence][:MOST]


def about_quality(analysis: Analysis) -> str:
    """Returns a sentence about mAP and its interval."""
    value = f"mAP is {analysis.map or 0.0:.2f}, mAP@0.5 is {analysis.map50 or 0.0:.2f}, measured on "
    value += f"{photos(analysis.photos)} with {counted(analysis.boxes, 'box', 'boxes')}"
    if analysis.bootstrap is None:
        return f"{value}; fewer than two of the photos have boxes, so no interval can be given."
    interval = analysis.bootstrap.map
    few = f", since there are only {photos(analysis.photos)}" if is_wide(analysis) else ""
    return f"{value}; with 95 % confidence mAP is between {interval.low:.2f} and {interval.high:.2f}{few}."


def is_wide(analysis: Analysis) -> bool:
    """Returns whether the interval is wide, and there are few photos."""
    interval = analysis.bootstrap.map if analysis.bootstrap else None
    return interval is not None and interval.high - interval.low >= WIDE and analysis.photos < FEW_PHOTOS


def about_worst_label(analysis: Analysis, dataset: Dataset, train_boxes: Mapping[str, int]) -> str:
    """Returns a sentence about the label with the lowest AP, if another one is better by a tenth; else nothing."""
    known = {label: analysis.per_label[label] for label in dataset.labels if analysis.per_label[label].ap is not None}
    worst = min(known, key=lambda label: known[label].ap or 0.0)
    best = max(known, key=lambda label: known[label].ap or 0.0)
    if (known[best].ap or 0.0) - (known[worst].ap or 0.0) < GAP:
        return ""
    trained = train_boxes.get(worst, 0)
    trained_on = counted(trained, "box", "boxes")
    facts = f"{worst} is the worst label: {trained_on} to train on, AP {known[worst].ap or 0.0:.2f}"
    reason, is_small = why(analysis, worst)
    remedies = []
    if trained < FEW_BOXES:
        remedies.append(f"label more of {worst}")
    if is_small:
        remedies.append("try a model with a larger input")
    return f"{facts}{reason}{': ' if remedies else ''}{', or '.join(remedies)}."


def why(analysis: Analysis, label: str) -> tuple[str, bool]:
    """Returns which errors the label has, and whether its missed boxes are smaller than its other boxes."""
    counts, values = analysis.errors.per_label[label], analysis.per_label[label]
    if not counts.errors:
        return "", False
    name, number = most_frequent(counts)
    reason = f"; {NAMES[name][0]} are {number:,} of its {counted(counts.errors, 'error', 'errors')}"
    side, missed = values.median_side, values.median_side_missed
    if name != "missed" or side is None or missed is None or missed > side * (1 - GAP):
        return reason, False
    return f"{reason}, whose median side is {missed:.0f} pixels, while that of all its boxes is {side:.0f}", True


def most_frequent(counts: ErrorCounts) -> tuple[str, int]:
    """Returns the kind of error that is most frequent, and how often it occurs."""
    numbers = {name: number for name, number in dataclasses.asdict(counts).items() if name in NAMES}
    return max(numbers.items(), key=lambda item: item[1])


def about_errors(analysis: Analysis) -> str:
    """Returns a sentence about the kind of error that costs most, and what to do; nothing if no kind costs much."""
    if analysis.errors.gains is None:
        return ""
    gains = dataclasses.asdict(analysis.errors.gains)
    kind = max(gains, key=lambda name: gains[name])
    if gains[kind] < WORTH:
        return ""
    name, remedy = NAMES[kind]
    pair = about_pair(analysis) if kind == "wrong_label" else ""
    number = getattr(analysis.errors.counts, kind)
    return (
        f"Of all kinds of errors, {name} cost most: if they were repaired, mAP@0.5 would be {gains[kind]:.2f} higher. "
        f"At a threshold of {shown(analysis.threshold)} their number is {number:,}{pair}: {remedy}."
    )


def about_pair(analysis: Analysis) -> str:
    """Returns which label is most often taken for which other one, or nothing."""
    names = analysis.confusion.labels
    pairs = {
        (true, found): analysis.confusion.counts[row][column]
        for row, true in enumerate(names)
        for column, found in enumerate(names)
        if row != column
    }
    if not any(pairs.values()):
        return ""
    (true, found), number = max(pairs.items(), key=lambda item: item[1])
    return f", most often {found} in the place of {true} ({number:,})"


def about_sizes(analysis: Analysis) -> str:
    """Returns a sentence about the size of which the fewest boxes are found; nothing if sizes hardly differ."""
    if analysis.recommended is None:
        return ""
    classes = analysis.sizes.quarters or analysis.sizes.coco
    shares = [(each.recall, each) for each in classes if each.recall is not None and each.boxes >= FEW]
    if not shares:
        return ""
    (least, worst), (most, best) = (pick(shares, key=lambda item: item[0]) for pick in (min, max))
    if most - least < GAP:
        return ""
    facts = (
        f"{percent(least)} of the boxes with {area(worst)} are found, and {percent(most)} of those with {area(best)}"
    )
    return f"{facts}: try a model with a larger input." if worst.area_from < best.area_from else f"{facts}."


def area(size_class: SizeClass) -> str:
    """Returns the limits of a size class in words, as sides of squares."""
    low, limit = size_class.area_from**0.5, size_class.area_below
    if limit is None:
        return f"an area of at least {low:.0f} x {low:.0f} pixels"
    high = limit**0.5
    if not low:
        return f"an area below {high:.0f} x {high:.0f} pixels"
    return f"an area from {low:.0f} x {low:.0f} to below {high:.0f} x {high:.0f} pixels"


def about_threshold(analysis: Analysis) -> str:
    """Returns a sentence about the recommended threshold."""
    point = analysis.recommended
    if point is None:
        return "No detection is right at IoU 0.5, so no threshold can be recommended."
    return (
        f"The best F1 over all labels together is {point.f1:.2f}, at a score of about {shown(point.threshold)}: "
        f"{percent(point.precision)} of the detections with at least this score are right, and "
        f"{percent(point.recall)} of the boxes are found."
    )


def about_suspects(analysis: Analysis) -> str:
    """Returns a sentence about labels that look wrong, or nothing."""
    # If the model misses many boxes of a label, it is no sign of a wrong box that it misses one more.
    strong = [each for each in analysis.suspects if each.kind != "box without object" or each.evidence >= 1 - GAP]
    kinds = Counter(each.kind for each in strong)
    if not strong:
        return ""
    named = [counted(number, kind, PLURALS[kind]) for kind, number in kinds.items()]
    *others, last = named
    listed = f"{', '.join(others)} and {last}" if others else last
    return f"The model contradicts the labels of validation photos: look at {listed} that are suspected."


def photos(number: int) -> str:
    """Returns a number of validation photos in words."""
    return counted(number, "validation photo", "validation photos")


def counted(number: int, one: str, many: str) -> str:
    """Returns a number with its noun."""
    return f"{number:,} {one if number == 1 else many}"


def percent(share: float) -> str:
    """Returns a share as a whole percentage."""
    return f"{100 * share:.0f} %"


def shown(score: float) -> str:
    """Returns a score with two decimals, or with one digit if it is very low."""
    return f"{score:.2f}" if score >= LOW_SCORE else f"{score:.1g}"

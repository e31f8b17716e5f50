"""check.html: what `check` found, with photos and their boxes as the job understood them. One file, without network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from entrypoint.data import losses, quality
from entrypoint.data.annotations import Dataset, LabelledImage
from entrypoint.data.quality import Seen
from entrypoint.results.cards import photo_card, read_photos, rectangle, series_of, template
from entrypoint.results.check_report import CheckReport
from entrypoint.settings.schema import Settings
from entrypoint.system import sampling

PHOTOS = 60  # on the sheet
DOUBTFUL = 30  # of these, the photos with a finding come first
OF_A_KIND = 3  # photos shown for each finding
SHOWN = 3  # places named for each finding; `check --json` has all of them
SEVERITIES = ("doubt", "repaired", "note")
# Words in the findings about what was decided.
DECISIONS = ("read as", "turned with it", "not turned", "boxes scaled", "in pixels of the photo")
# Words in the findings about what was changed.
REPAIRS = ("put in order", "cut to it", "taken", "turned", "converted", "stored smaller")


@dataclass(frozen=True)
class Checked:
    """What `check` found out about a bucket."""

    settings: Settings
    dataset: Dataset
    seen: Seen
    report: CheckReport


def render(checked: Checked) -> str:
    """Returns the page."""
    chosen = choose(checked)
    photos = read_photos({image.key for image, _ in chosen}, checked.settings)
    cards = [card(image, why, checked.dataset, photos[image.key]) for image, why in chosen if image.key in photos]
    report = checked.report
    return template("check.html.j2").render(
        place=str(checked.settings.data_dir),
        report=report,
        colours={label: series_of(label, checked.dataset) for label in report.labels},
        findings=finding_rows(report.found),
        quality=sentences(report),
        photos=cards,
    )


def sentences(report: CheckReport) -> list[str]:
    """Returns what is worth knowing about photos, boxes and the length of the training."""
    about_data = quality.describe_sizes(report.quality) + quality.describe_problems(report.quality)
    return about_data + ([report.length] if report.length else [])


def finding_rows(kinds: dict[str, list[str]]) -> list[dict[str, Any]]:
    """Returns each finding with its severity, its count, and its first places; the most severe come first."""
    rows = [
        {"severity": severity_of(kind), "kind": kind, "count": len(where), "where": quality.listed(where, SHOWN)}
        for kind, where in kinds.items()
    ]
    return sorted(rows, key=lambda row: SEVERITIES.index(str(row["severity"])))


def severity_of(kind: str) -> str:
    """Returns how much a finding matters.

    It is a doubt if photos are left out, or if something was read in one of several ways; otherwise something was
    repaired, or it is only noted.
    """
    is_lost = kind in losses.MENDS or kind.startswith("photo skipped")
    if is_lost or any(words in kind for words in DECISIONS):
        return "doubt"
    return "repaired" if any(words in kind for words in REPAIRS) else "note"


def choose(checked: Checked) -> list[tuple[LabelledImage, str]]:
    """Returns the photos of the sheet, each with its finding: doubtful ones, then every label, then any photos."""
    usable = {image.key: image for image in checked.dataset.images if image.key not in checked.seen.skipped}
    chosen = {key: why for key, why in doubtful(checked) if key in usable}
    chosen = dict(list(chosen.items())[:DOUBTFUL])
    shown = {box.label for key in chosen for box in usable[key].boxes}
    for image in usable.values():
        if not shown.issuperset(box.label for box in image.boxes) and len(chosen) < PHOTOS:
            chosen.setdefault(image.key, "")
            shown.update(box.label for box in image.boxes)
    rest = [key for key in usable if key not in chosen]
    chosen |= dict.fromkeys(sampling.evenly(rest, PHOTOS - len(chosen)), "")
    return [(usable[key], why) for key, why in chosen.items()]


def doubtful(checked: Checked) -> Iterator[tuple[str, str]]:
    """Yields the photos with a finding, a few of each kind."""
    for key, other in checked.report.quality.duplicates[:OF_A_KIND]:
        yield key, f"nearly the same as {other}, which is trained on"
    for kind, where in sorted(checked.dataset.findings.kinds.items()):
        for key in list(dict.fromkeys(where))[:OF_A_KIND]:
            yield key, kind
    small = checked.report.quality.small_boxes
    for key in sorted(small, key=lambda key: (-small[key], key))[:OF_A_KIND]:
        yield key, f"boxes too small for the model: {small[key]}"


def card(image: LabelledImage, why: str, dataset: Dataset, encoded: bytes) -> dict[str, Any]:
    """Returns a photo with its boxes and their labels."""
    found = photo_card(image, dataset, encoded)
    boxes = [rectangle(box, found, dataset) | {"label": box.label, "score": None} for box in image.boxes]
    return found | {"why": why, "true": [], "found": boxes}

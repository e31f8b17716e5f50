"""report.html and check.html in a browser: what the controls do, and whether everybody can use the pages."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

from entrypoint import check
from entrypoint.data import annotations as annotations_step
from entrypoint.results import metrics_document, report
from entrypoint.results.analysis import matching
from entrypoint.results.analysis.matching import Matches
from entrypoint.results.history import History
from entrypoint.settings.command_line import Command
from entrypoint.system import documents
from entrypoint.training.stored import DetectionsDocument
from entrypoint.workspace import Workspace
from tests.clients import run_node
from tests.results import reported

SCORES = (0.05, 0.3, 0.5, 0.75)
KINDS = ("missed", "ghost", "wrong_label", "poor_box", "both", "duplicate")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A job whose page was written, without a training, and after another run in the same place."""
    folder = tmp_path_factory.mktemp("job")
    names = [f"{index} a&b.jpg" for index in range(60)]
    work = reported.job(folder, names, [reported.EVIL, "dog", "cat"], validation_fraction=0.6)
    report.run(work)
    now = documents.read(History, work.history).now
    model = "faster_rcnn_inception_resnet_v2_atrous_lowproposals_oid_v4"
    words = now.settings | {"LEARNING_RATE": "0.000123456", "AUGMENT": "strong"}
    earlier = dataclasses.replace(now, weights="9" * 64, model=model, steps=250_000, kept=1, settings=words)
    elsewhere = dataclasses.replace(earlier, weights="8" * 64, validation="0" * 64)
    Path(work.results).mkdir(exist_ok=True)
    documents.write(Path(work.results / work.history.name), History((elsewhere, earlier)))
    report.run(work)
    return work


@pytest.fixture(scope="module")
def seen(job: Workspace) -> dict[str, Any]:
    """What the page does in Chromium."""
    return open_page(job.report, ",".join(map(str, SCORES)))


@pytest.fixture(scope="module")
def unsure(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A job whose model gives low scores to what it finds."""
    work = reported.job(tmp_path_factory.mktemp("unsure"), [f"{index}.jpg" for index in range(8)], ["cat"])
    found = [each.to_detections() for each in documents.read(DetectionsDocument, work.detections).photos]
    reported.write_results(work, [dataclasses.replace(each, scores=each.scores / 100) for each in found])
    report.run(work)
    return work


@pytest.fixture(scope="module")
def checked(job: Workspace) -> dict[str, Any]:
    """The page of `check` in Chromium."""
    check.find(Command("check", job.settings))
    return open_page(Path(str(job.results)) / "check.html", "")


def open_page(page: Path, scores: str) -> dict[str, Any]:
    """What a page does in Chromium."""
    chromium = shutil.which("chromium")
    assert chromium, "install Debian's chromium"
    found: dict[str, Any]
    (found,) = run_node("report_page.js", chromium, page, scores)
    return found


@pytest.fixture(scope="module")
def matches(job: Workspace) -> tuple[list[str], Matches]:
    """The keys of the photos, and the matches that the analysis makes."""
    found = [each.to_detections() for each in documents.read(DetectionsDocument, job.detections).photos]
    return [each.key for each in found], matching.match(annotations_step.load(job), found)


@pytest.mark.parametrize("page", ["seen", "checked"])
def test_page_has_no_fault_that_axe_knows_at_any_width_in_light_and_dark(
    request: pytest.FixtureRequest, page: str
) -> None:
    looks = request.getfixturevalue(page)["looks"]
    assert [(each["width"], each["colorScheme"]) for each in looks] == [
        (width, scheme) for width in (390, 820, 1280) for scheme in ("light", "dark")
    ]
    assert not [problem for each in looks for problem in each["violations"]]


@pytest.mark.parametrize("page", ["seen", "checked"])
def test_page_reports_no_error_asks_for_nothing_and_is_as_wide_as_the_window(
    request: pytest.FixtureRequest, page: str
) -> None:
    for each in request.getfixturevalue(page)["looks"]:
        assert (each["complaints"], each["requests"], each["tooWide"]) == ([], [], False)


@pytest.mark.parametrize("score", SCORES)
def test_counts_at_a_threshold_are_those_of_the_analysis(
    seen: dict[str, Any], matches: tuple[list[str], Matches], score: float
) -> None:
    assert seen["used"]["scores"][str(score)]["counts"] == counts(matches[1], score)


def test_page_begins_with_the_counts_of_the_analysis(seen: dict[str, Any], job: Workspace) -> None:
    analysis = metrics_document.load(job).analysis
    assert analysis
    expected = {name: getattr(analysis.errors.counts, name) for name in ("right", *KINDS)}
    assert seen["used"]["first"]["counts"] == expected
    for name in ("counts", "words", "shown"):
        assert seen["used"]["reset"][name] == seen["used"]["first"][name]


@pytest.mark.parametrize("page", ["seen", "checked"])
def test_page_fits_on_paper(request: pytest.FixtureRequest, page: str) -> None:
    assert request.getfixturevalue(page)["tooWideForPaper"] == []


def test_slider_reaches_the_lowest_score_that_the_page_has(seen: dict[str, Any]) -> None:
    assert seen["used"]["lowest"] == SCORES[0]


def test_slider_reaches_a_recommended_score_that_is_very_low(unsure: Workspace) -> None:
    analysis = metrics_document.load(unsure).analysis
    assert analysis
    assert analysis.threshold < 0.01
    used = open_page(unsure.report, "0.005")["used"]
    assert used["lowest"] == pytest.approx(analysis.threshold, abs=1e-6)
    assert used["first"]["counts"]["right"] == analysis.errors.counts.right > 0
    assert used["reset"]["counts"] == used["first"]["counts"]
    assert f"Detections with a score below {analysis.threshold:.1g} are not on this page" in unsure.report.read_text()


def test_a_higher_threshold_draws_fewer_boxes(seen: dict[str, Any]) -> None:
    boxes = [seen["used"]["scores"][str(score)]["boxes"] for score in SCORES]
    assert boxes == sorted(boxes, reverse=True)
    assert len(set(boxes)) == len(SCORES)
    assert boxes[-1] > 0


def test_filter_by_kind_shows_the_photos_with_that_error(
    seen: dict[str, Any], matches: tuple[list[str], Matches]
) -> None:
    keys, found = matches
    at = SCORES[-1]
    photos: dict[str, set[str]] = {kind: set() for kind in KINDS}
    for index in range(len(found.found)):
        name = matching.KINDS[found.kind[index]]
        if found.found.score[index] >= at and name != "right":
            photos[name].add(keys[found.found.photo[index]])
    photos["missed"] = {keys[index] for index in found.true.photo[found.is_missed(at)]}
    with_errors = set.union(*photos.values())
    expected = {**photos, "any": set(keys), "error": with_errors, "none": set(keys) - with_errors}
    shown = {kind: {text.partition(": ")[0] for text in each["shown"]} for kind, each in seen["used"]["kinds"].items()}
    assert shown == expected
    assert len({len(each) for each in shown.values()}) > 3


def test_filter_by_label_counts_this_label_alone(
    seen: dict[str, Any], matches: tuple[list[str], Matches], job: Workspace
) -> None:
    labels = annotations_step.load(job).labels
    assert list(seen["used"]["labels"]) == ["all", *labels]
    for number, label in enumerate(labels):
        assert seen["used"]["labels"][label]["counts"] == counts(matches[1], SCORES[-1], number)


def test_slider_moves_by_a_key(seen: dict[str, Any]) -> None:
    assert float(seen["used"]["byKey"]) < SCORES[-1]


def test_table_of_labels_is_sorted_by_enter_and_space(seen: dict[str, Any]) -> None:
    tables = seen["used"]["sorted"]
    assert list(tables) == ["AP descending", "AP ascending", "Label ascending", "Label descending"]
    values = [float(row[3]) for row in tables["AP ascending"]]
    assert values == sorted(values)
    assert tables["AP descending"] == tables["AP ascending"][::-1]
    names = [row[0] for row in tables["Label ascending"]]
    assert names == [reported.EVIL, "cat", "dog"]
    assert [row[0] for row in tables["Label descending"]] == names[::-1]


def counts(matches: Matches, score: float, label: int | None = None) -> dict[str, int]:
    """The counts of the analysis at a threshold; of one label if it is given."""
    found = matches.found.score >= score
    missed = matches.is_missed(score)
    if label is not None:
        found, missed = found & (matches.found.label == label), missed & (matches.true.label == label)
    each = matching.count_kinds(matches.kind[found], int(missed.sum()))
    return {name: getattr(each, name) for name in ("right", *KINDS)}

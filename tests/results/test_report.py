"""report.html: one page, without network, in which nothing from outside is markup."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from entrypoint import workspace
from entrypoint.data import annotations as annotations_step
from entrypoint.data import label_map, tf_record
from entrypoint.results import gallery, metrics_document, report, report_tables
from entrypoint.results.analysis import analyse, matching
from entrypoint.results.analysis.document import ErrorCounts
from entrypoint.results.export import formats
from entrypoint.results.gallery import Entry
from entrypoint.results.history import History
from entrypoint.system import documents
from entrypoint.training.metrics import Evaluated, Evaluations, Metrics, Summary
from entrypoint.workspace import Mark, Workspace
from tests.conftest import BOX, make_settings, write_bucket
from tests.results import analysed, reported
from tests.results.reported import EVIL

NAMES = [f"{index} &lt;b&gt;.jpg" for index in range(24)]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A job whose labels and photos carry markup."""
    folder = tmp_path_factory.mktemp("job")
    settings: dict[str, Any] = {"validation_fraction": 0.5, "zoo_url": "https://user:secret@host/"}
    work = reported.job(folder, NAMES, [EVIL, "dog", "$x^{$"], **settings)
    report.run(work)
    return work


@pytest.fixture(scope="module")
def page(job: Workspace) -> str:
    return job.report.read_text()


@pytest.fixture(scope="module")
def unmeasured(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of a job without validation photos, which had something to repair."""
    folder = tmp_path_factory.mktemp("unmeasured")
    (folder / "work").mkdir()
    work = Workspace(make_settings(folder, model="smoke", validation_fraction=0))
    boxes = [{**BOX, "label": EVIL}]
    write_bucket(work.settings.data_dir, {}, ("a.png", "b.png"))
    Image.new("CMYK", (64, 48)).save(work.settings.data_dir / "cmyk.jpg")
    document = {"a.png": boxes, "b.png": boxes, "cmyk.jpg": [{**BOX, "x": -1, "label": EVIL}]}
    write_bucket(work.settings.data_dir, document)
    annotations_step.run(work)
    label_map.run(work)
    tf_record.run(work)
    reported.write_results(work, [])
    report.run(work)
    return work.report.read_text() + work.model_card.read_text()


def data_of(page: str) -> Any:
    """The data of the page's script."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page)
    assert found
    return json.loads(found[1])


def test_page_is_self_contained(page: str) -> None:
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert "url(http" not in page


def test_page_allows_its_own_script_alone_and_no_network(page: str) -> None:
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in page


def test_labels_and_names_from_outside_are_escaped(page: str, job: Workspace) -> None:
    assert EVIL not in page
    assert "&lt;script&gt;" in page
    assert "\\u003cscript\\u003ealert" in page
    assert EVIL in data_of(page)["labels"]
    card = job.model_card.read_text()
    assert EVIL not in card
    assert "\\<script\\>alert" in card


def test_page_answers_with_the_first_evaluation_as_comparison(page: str) -> None:
    first = page.index("At the first evaluation of the training, at step 100, mAP was 0.10: this model is")
    assert page.index("with 95 % confidence mAP is between") < first < page.index('class="tiles"')


def test_page_compares_with_the_earlier_job_of_a_release_that_left_no_history(job: Workspace) -> None:
    metrics, runs = metrics_document.load(job), documents.read(History, job.history)
    workspace.write_mark("train", Mark("", "", 5.0, 1.0), job)
    earlier = {"settings": {"model": EVIL}, "metrics": {"mAP": 0.9}, "steps": {"train": {"began": 4.0}}}
    job.results.mkdir(exist_ok=True)
    for document, words in ((earlier, f"MODEL={EVIL} on other data"), ({"metrics": {"mAP": EVIL}}, ""), ([], "")):
        job.manifest.write_text(json.dumps(document))
        sentence = report_tables.compare_with_earlier(metrics, runs, job)
        assert (words in sentence) if words else not sentence
    # An earlier run of this very job is no other job.
    job.manifest.write_text(json.dumps(earlier | {"steps": {"train": {"began": 5.0}}}))
    assert not report_tables.compare_with_earlier(metrics, runs, job)
    job.manifest.unlink()


def test_page_compares_with_the_earlier_runs_in_the_results(job: Workspace, page: str) -> None:
    assert 'id="runs"' not in page
    now = documents.read(History, job.history).now
    one = dataclasses.replace(now, weights="1" * 64, model=EVIL, version=EVIL, settings={"MODEL": EVIL}, map=0.9)
    other = dataclasses.replace(now, weights="2" * 64, validation="0" * 64, map=0.95)
    runs = History((other, one))
    documents.write(Path(job.results / "history.json"), runs)
    report.run(job)
    found = job.report.read_text()
    assert EVIL not in found
    assert f"of MODEL={html.escape(EVIL, quote=False)}, had mAP 0.90 on the same validation photos" in html_quotes(
        found
    )
    assert "that of 2026-09-21" in found
    assert found.count("other validation photos or boxes: mAP cannot be compared") == 1
    assert f'<td class="path">{html.escape(EVIL, quote=False)}</td>' in html_quotes(found)
    assert 'aria-label="mAP by run"' in found
    documents.write(Path(job.results / "history.json"), History((one, other)))
    report.run(job)
    assert "had mAP 0.95 on other validation photos or boxes, so it cannot be compared" in job.report.read_text()
    (job.results / "history.json").unlink()
    report.run(job)


def html_quotes(page: str) -> str:
    """A page in which quotes are not escaped."""
    return page.replace("&#34;", '"')


def test_page_shows_boxes_and_curves(page: str) -> None:
    assert page.count("<rect") >= 2
    for words in ("total loss", "learning rate", "best mAP", "share of right detections", "precision", "x.config"):
        assert words in page
    # Curves have no colours of their own but those of the page's style, which has light and dark ones.
    for chart in re.findall(r'<svg role="img" aria-label="(?:Loss|Precision).*?</svg>', page, re.DOTALL):
        assert set(re.findall(r"stroke: ([^;\"]+)", chart)) <= {
            "none",
            "currentColor",
            *(f"var(--series-{index})" for index in range(7)),
        }


def test_label_has_one_colour_in_table_and_chart(page: str) -> None:
    found = re.findall(r'style="background: (var\(--series-\d\))"></span>dog<', page)
    assert len(found) == 2
    assert len(set(found)) == 1


def test_many_labels_have_lines_of_different_looks() -> None:
    labels = [f"label {index}" for index in range(20)]
    true, seen = (
        [(label, analysed.square(0)) for label in labels],
        [(label, 0.5, analysed.square(0)) for label in labels],
    )
    dataset, found = analysed.validation((true, seen), labels=labels)
    shown = report_tables.curve_labels(dataset, analyse(dataset, found))
    assert sorted(shown.values()) == list(range(14))


def test_ids_are_unique(page: str) -> None:
    found = re.findall(r'<[^>]* id="([^"]*)"', page)
    assert sorted(found) == sorted(set(found))


def test_repairs_are_shown(unmeasured: str) -> None:
    assert "box reaching out of the photo, cut to it" in unmeasured
    assert "photo colours converted from CMYK" in unmeasured


def test_exports_are_shown_with_what_they_find(page: str) -> None:
    assert "equals the model on 7 photos" in page
    assert "4.3 MB" in page
    assert "0.00012" in page
    assert "failed: &lt;script&gt;" in page


def test_every_format_with_a_runtime_has_a_program_in_page_and_card(page: str, job: Workspace) -> None:
    analysis = metrics_document.load(job).analysis
    assert analysis
    assert analysis.recommended
    threshold = f"THRESHOLD = {analysis.recommended.threshold:.2g}\n"
    for name in ("saved_model", "tflite", "openvino"):
        snippet = formats.format_of(name).snippet
        assert snippet
        shown = snippet.replace("THRESHOLD = 0.5\n", threshold)
        assert shown != snippet
        assert shown in html.unescape(page)
        assert shown in job.model_card.read_text()
    # An export that failed is not published, and the card does not speak of it.
    assert "model_onnx" not in job.model_card.read_text()


def test_credentials_are_not_on_the_page(page: str) -> None:
    assert "secret" not in page


def test_undefined_metrics_are_told_rather_than_shown_as_zero(unmeasured: str) -> None:
    assert "nothing could be measured" in unmeasured
    assert "Nothing was measured" in unmeasured
    assert "model-index" not in unmeasured


def test_suspected_places_are_cut_out_with_their_boxes(job: Workspace, page: str) -> None:
    analysis = metrics_document.load(job).analysis
    assert analysis
    assert analysis.suspects
    assert page.count("<b>missing box</b>") == sum(each.kind == "missing box" for each in analysis.suspects) > 0
    suspect = analysis.suspects[0]
    place = gallery.crop(suspect, Image.new("RGB", (800, 600)))
    assert max(place.width, place.height) == gallery.CROP
    left, top, width, height = place.box
    ymin, xmin, ymax, xmax = suspect.corners
    assert width / height == pytest.approx((xmax - xmin) * 800 / ((ymax - ymin) * 600), rel=0.02)
    assert left >= 0
    assert top >= 0
    assert left + width <= place.width + 1
    assert top + height <= place.height + 1


def test_photos_with_the_most_errors_come_first_and_then_by_key(job: Workspace, page: str) -> None:
    analysis = metrics_document.load(job).analysis
    assert analysis
    expected = sorted(analysis.per_photo, key=lambda photo: (-photo.counts.errors, photo.key))
    assert [photo[0] for photo in data_of(page)["photos"]] == [photo.key for photo in expected]
    assert len({photo.counts.errors for photo in expected}) > 2


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(4))
def test_kinds_and_places_in_the_page_suffice_to_count_at_any_threshold(seed: int, threshold: float) -> None:
    """The script counts like this; tests/end_to_end/test_report_page.py runs it."""
    dataset, found = analysed.random_set(seed)
    matches = matching.match(dataset, found)
    for photo in gallery.entries(matches, found, 0.5):
        index = [each.key for each in found].index(photo.key)
        ours = matches.found.photo == index
        shown = matches.kind[ours & (matches.found.score >= threshold)]
        missed = matches.is_missed(threshold)[matches.true.photo == index].sum()
        assert counts_of(photo, threshold) == matching.count_kinds(shown, int(missed))


@pytest.mark.parametrize(("threshold", "lowest"), [(0.5, 0.05), (0.05, 0.05), (0.02, 0.02)])
def test_page_has_the_detections_down_to_its_first_threshold(threshold: float, lowest: float) -> None:
    dataset, found = analysed.random_set(0)
    photos = gallery.entries(matching.match(dataset, found), found, threshold)
    shown = [row[1] for photo in photos for row in photo.found]
    every = [round(float(score), 6) for each in found for score in each.scores]
    assert sorted(shown) == sorted(score for score in every if score >= lowest)
    assert json.loads(gallery.to_json(dataset, photos, {}, threshold))["lowest"] == lowest


def counts_of(photo: Entry, threshold: float) -> ErrorCounts:
    """The counts at a threshold, of what the page has of a photo."""
    rows = [row for row in photo.found if row[1] >= threshold]
    covered = {int(row[3]) for row in rows} - {-1}
    counts = dict.fromkeys(matching.KINDS, 0)
    for row in rows:
        counts[matching.KINDS[int(row[2])]] += 1
    return ErrorCounts(missed=len(photo.true) - len(covered), **counts)


def test_page_of_two_thousand_photos_is_under_twenty_megabytes(tmp_path: Path) -> None:
    names = [f"{index}.jpg" for index in range(2260)]
    work = reported.job(tmp_path, names, ["cat", "dog"], side=256, detections=40, validation_fraction=0.9)
    report.run(work)
    found = data_of(work.report.read_text())["photos"]
    assert len(found) == 2000
    assert all(photo[5].startswith("data:image/webp") for photo in found)
    size = work.report.stat().st_size
    print(f"the page of 2,000 photos has {size / 1e6:.1f} MB")
    assert 8e6 < size < 20e6


def test_photos_beyond_the_room_of_the_page_are_left_out_and_counted(
    job: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = job.report.read_text()
    left = len(data_of(before)["photos"]) - 4
    assert left > 0
    monkeypatch.setattr(gallery, "MOST_PHOTOS", 4)
    report.run(job)
    page = job.report.read_text()
    assert len(data_of(page)["photos"]) == 4
    assert f"{left} more photos with fewer errors have no" in page
    job.report.write_text(before)


def test_photo_that_cannot_be_decoded_has_no_picture_and_is_no_error(tmp_path: Path) -> None:
    reported.draw_photos(tmp_path, ["a.jpg"], 320)
    whole = (tmp_path / "a.jpg").read_bytes()
    photos = [("whole", whole), ("cut off", whole[: len(whole) // 2]), ("none", b"text")]
    made = gallery.thumbnails(photos, (96, 50), 10**6, workers=2)
    assert {key: bool(source) for key, source in made.items()} == {"whole": True, "cut off": False, "none": False}


def test_thumbnails_become_smaller_the_more_there_are(tmp_path: Path) -> None:
    reported.draw_photos(tmp_path, ["a.jpg"], 640)
    photo = (tmp_path / "a.jpg").read_bytes()
    shapes = [gallery.choose_shape([photo], count, gallery.ROOM) for count in (10, 500, 2000, 10**6)]
    assert shapes[0] == gallery.SHAPES[0]
    assert shapes[-1] == gallery.SHAPES[-1]
    assert shapes == sorted(shapes, reverse=True)
    assert len(set(shapes)) == 4


def test_front_matter_of_the_card_is_what_the_hub_reads(job: Workspace) -> None:
    import yaml

    _, text, _ = job.model_card.read_text().split("---\n", 2)
    fields = yaml.safe_load(text)
    assert (fields["library_name"], fields["pipeline_tag"]) == ("tensorflow", "object-detection")
    value = fields["model-index"][0]["results"][0]["metrics"][0]["value"]
    assert value == pytest.approx(metrics_document.load(job).summary.map, abs=1e-4)
    assert "license" not in fields


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            (0.1, 0.3, 0.4, 0.45),
            "The 400 steps of 8 photos showed each of the 200 training photos 16.0 times. mAP still "
            "rose by 0.05 in the last quarter of the steps, so a larger NUM_STEPS may give more.",
        ),
        ((0.1, 0.3, 0.4, 0.402), "16.0 times. In the last quarter of the steps mAP hardly rose, so"),
        ((0.1, 0.3, 0.4, 0.2), "16.0 times. In the last quarter of the steps mAP hardly rose, so"),
        ((None, None, None, 0.4), ""),
        ((), ""),
    ],
)
def test_report_says_whether_a_longer_training_may_help(values: tuple[float | None, ...], words: str) -> None:
    rows = tuple(Evaluated(100 * step, value, value, {}, 1.0) for step, value in enumerate(values, start=1))
    metrics = Metrics(Summary(), {}, (), photos=5, boxes=5, step=100, evaluations=Evaluations(100, rows))
    sentence = report_tables.about_length(metrics, 200, 8)
    assert words in sentence
    assert bool(words) == bool(sentence)

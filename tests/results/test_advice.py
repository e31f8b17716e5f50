from __future__ import annotations

import pytest

from entrypoint.data.annotations import Dataset
from entrypoint.engines.engine import Detections
from entrypoint.results import advice
from entrypoint.results.analysis import analyse
from tests.results.analysed import Found, Labelled, every_kind, part, random_set, square, validation

CAT: tuple[list[Labelled], list[Found]] = ([("cat", square(0))], [("cat", 0.9, square(0))])
MANY = {"cat": 1000, "dog": 1000}


def of(known: tuple[Dataset, list[Detections]], **train_boxes: int) -> list[str]:
    return advice.sentences(analyse(*known), known[0], MANY | train_boxes)


def test_without_validation_photos_or_boxes_there_is_one_sentence() -> None:
    assert of(validation()) == ["There are no validation photos, so the model was not measured."]
    assert of(validation(([], [("cat", 0.9, square(0))]))) == [
        "No labelled object is on the validation photos, so the model was not measured."
    ]


def test_model_without_errors_gets_praise_alone() -> None:
    assert of(validation(*[CAT] * 3)) == [
        "mAP is 1.00, mAP@0.5 is 1.00, measured on 3 validation photos with 3 boxes; with 95 % confidence mAP is "
        "between 1.00 and 1.00.",
        "The best F1 over all labels together is 1.00, at a score of about 0.90: 100 % of the detections with at "
        "least this score are right, and 100 % of the boxes are found.",
    ]


def test_few_photos_are_named_as_the_reason_of_a_wide_interval() -> None:
    """One of two boxes is found: see `test_interval_is_that_of_drawn_photos`."""
    first = of(validation(CAT, (CAT[0], [])))[0]
    assert first == (
        "mAP is 0.50, mAP@0.5 is 0.50, measured on 2 validation photos with 2 boxes; with 95 % confidence mAP is "
        "between 0.00 and 1.00, since there are only 2 validation photos."
    )


def test_one_photo_with_boxes_gives_no_interval() -> None:
    assert of(validation(CAT))[0].endswith("fewer than two of the photos have boxes, so no interval can be given.")


def test_errors_of_every_kind_give_six_sentences_at_most() -> None:
    """The numbers are those of the tests of the analysis.

    With a.jpg drawn twice, 1/3 of the cats reaches 34 of the 101 recalls: mAP is 34 / 101 / 2. With b.jpg drawn twice,
    there are only cats, and all are found. The third cat is a suspect since 21 of 23 cats are found.
    """
    found = of(every_kind(), dog=12)
    assert found == [
        "mAP is 0.39, mAP@0.5 is 0.39, measured on 2 validation photos with 25 boxes; with 95 % confidence mAP is "
        "between 0.17 and 1.00, since there are only 2 validation photos.",
        "dog is the worst label: 12 boxes to train on, AP 0.00; missed boxes are 1 of its 2 errors: label more of dog.",
        "Of all kinds of errors, wrong labels cost most: if they were repaired, mAP@0.5 would be 0.27 higher. At "
        "a threshold of 0.50 their number is 1, most often cat in the place of dog (1): look whether these labels are "
        "drawn in the same way on all photos.",
        "The best F1 over all labels together is 0.82, at a score of about 0.50: 81 % of the detections with at least "
        "this score are right, and 84 % of the boxes are found.",
        "The model contradicts the labels of validation photos: look at 1 box without object, 1 wrong label and 1 "
        "missing box that are suspected.",
    ]


def test_worst_label_misses_small_boxes() -> None:
    """Of four dogs the two with sides of 20 pixels are missed; the median side of all is 60."""
    dogs = [square(1), square(2), square(3, 0, 20), square(4, 0, 20)]
    true: list[Labelled] = [*CAT[0], *(("dog", each) for each in dogs)]
    second = of(validation((true, [*CAT[1], *(("dog", 0.9, each) for each in dogs[:2])])))[1]
    assert second == (
        "dog is the worst label: 1,000 boxes to train on, AP 0.50; missed boxes are 2 of its 2 errors, whose median "
        "side is 20 pixels, while that of all its boxes is 60: try a model with a larger input."
    )


def test_labels_that_are_equally_good_have_no_worst_one() -> None:
    assert not any("worst label" in each for each in of(validation((CAT[0], []), (CAT[0], []))))
    both: list[Labelled] = [("cat", square(0)), ("dog", square(1))]
    assert not any("worst label" in each for each in of(validation((both, [])), dog=3))


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([("cat", 0.95, square(0, 3)), ("cat", 0.94, square(1, 3))], "detections without an object cost most"),
        (
            [("cat", 0.95, part(square(0), 0.4)), ("cat", 0.94, part(square(0), 0.45))],
            "boxes that fit poorly cost most",
        ),
        ([], ""),
    ],
)
def test_kind_of_error_that_costs_most_is_named(found: list[Found], words: str) -> None:
    sentences = of(validation((CAT[0], [*CAT[1], *found]), CAT))
    assert any(words in each for each in sentences) if words else not any("cost most" in each for each in sentences)


def test_duplicates_are_named_with_the_setting_of_the_model() -> None:
    """Of ten cats each is found twice."""
    boxes = [square(column, row) for column in range(5) for row in range(2)]
    found: list[Found] = []
    for index, box in enumerate(boxes):
        found += [("cat", 0.9 - index / 50, box), ("cat", 0.895 - index / 50, part(box, 0.9))]
    (sentence,) = (each for each in of(validation(([("cat", box) for box in boxes], found))) if "cost most" in each)
    assert "duplicates cost most" in sentence
    assert sentence.endswith("lower the IoU threshold of non-maximum suppression in pipeline.config.")


def test_sizes_with_few_boxes_are_not_compared() -> None:
    """Twelve small boxes of which none is found, and twelve large ones; then only five small ones."""
    large = [square(column, row) for column in range(4) for row in range(3)]
    small = [square(column, row, 20) for column in range(4) for row in range(3)]

    def sized(number: int) -> list[str]:
        true: list[Labelled] = [("cat", box) for box in large]
        others: list[Labelled] = [("cat", box) for box in small[:number]]
        return of(validation((true, [("cat", 0.9, box) for box in large]), (others, [])))

    expected = (
        "0 % of the boxes with an area below 32 x 32 pixels are found, and 100 % of those with an area of at least "
        "96 x 96 pixels: try a model with a larger input."
    )
    assert expected in sized(12)
    assert not any("of the boxes with an area" in each for each in sized(5))


def test_without_a_right_detection_no_threshold_is_recommended() -> None:
    found = of(validation((CAT[0], [("dog", 0.3, square(3, 3))])))
    assert "No detection is right at IoU 0.5, so no threshold can be recommended." in found
    assert not any("F1" in each for each in found)


def test_box_that_is_missed_like_many_others_is_no_suspect() -> None:
    """Nothing comes near half of the boxes, so that says nothing of their labels."""
    true: list[Labelled] = [("cat", square(0)), ("cat", square(4))]
    assert not any("contradicts" in each for each in of(validation((true, CAT[1]))))


@pytest.mark.parametrize("seed", range(5))
def test_sentences_are_whole_and_six_at_most(seed: int) -> None:
    dataset, found = random_set(seed)
    sentences = advice.sentences(analyse(dataset, found), dataset, {})
    assert 2 <= len(sentences) <= 6
    assert all(each.endswith(".") and "None" not in each and "nan" not in each for each in sentences)

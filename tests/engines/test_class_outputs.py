"""The outputs for labels that a training keeps of its start checkpoint, compared as upstream reads them."""

import numpy as np
import pytest

from entrypoint.engines.shared.class_outputs import Known, Outputs

CLASSES = "model/_box_predictor/_prediction_heads/class_predictions_with_background/_class_predictor_layers/0/kernel"
BOXES = "SecondStageBoxPredictor/BoxEncodingPredictor/weights"
# The checkpoint has five labels; the second and the third of this training are its fifth and its first.
KNOWN = Known(5, {1: 4, 2: 0}, ("dog", "cat"))


def numbers(*shape: int, begin: int = 0) -> np.ndarray:
    return np.arange(begin, begin + int(np.prod(shape)), dtype=np.float32).reshape(shape)


@pytest.mark.parametrize(("has_background", "slots", "start_slots"), [(True, 4, 6), (False, 3, 5)])
def test_scores_of_known_labels_are_those_of_the_checkpoint(has_background: bool, slots: int, start_slots: int) -> None:
    """Upstream reshapes the outputs of a place to [anchors, slots]: box_predictor and its heads."""
    anchors = 2
    fresh, start = numbers(1, 1, 3, anchors * slots, begin=1000), numbers(1, 1, 3, anchors * start_slots)
    blended = Outputs(3, has_background).blend(CLASSES, fresh, start, KNOWN)
    assert blended is not None
    first = int(has_background)
    for channel in range(3):
        new, before, old = (values[0, 0, channel].reshape(anchors, -1) for values in (blended, fresh, start))
        np.testing.assert_array_equal(new[:, first], before[:, first])
        np.testing.assert_array_equal(new[:, first + 1], old[:, first + 4])
        np.testing.assert_array_equal(new[:, first + 2], old[:, first])
        if has_background:
            np.testing.assert_array_equal(new[:, 0], old[:, 0])
    # The values of the model are not changed.
    np.testing.assert_array_equal(fresh, numbers(1, 1, 3, anchors * slots, begin=1000))


def test_biases_are_blended_too() -> None:
    blended = Outputs(3, has_background=True).blend(CLASSES, numbers(4, begin=100), numbers(6), KNOWN)
    assert blended is not None
    assert blended.tolist() == [0, 101, 5, 1]


def test_boxes_of_a_label_have_four_sides_and_no_background() -> None:
    """Upstream reshapes the second stage's boxes to [labels, 4]: predictors/heads/box_head.py."""
    blended = Outputs(3, has_background=True).blend(BOXES, numbers(2, 12, begin=1000), numbers(2, 20), KNOWN)
    assert blended is not None
    new, old = blended[1].reshape(3, 4), numbers(2, 20)[1].reshape(5, 4)
    assert new[0].tolist() == [1012, 1013, 1014, 1015]
    np.testing.assert_array_equal(new[1:], old[[4, 0]])


def test_each_part_of_a_box_has_its_outputs_for_labels() -> None:
    """Upstream splits R-FCN's outputs into the parts of a box first: utils/ops.py, position_sensitive_crop_regions."""
    parts = 9
    scores, boxes = (
        "SecondStageBoxPredictor/class_predictions/biases",
        "SecondStageBoxPredictor/refined_locations/biases",
    )
    outputs = Outputs(3, has_background=True)
    blended = outputs.blend(scores, numbers(parts * 4, begin=1000), numbers(parts * 6), KNOWN)
    assert blended is not None
    new, before, old = blended.reshape(parts, 4), numbers(parts, 4, begin=1000), numbers(parts, 6)
    np.testing.assert_array_equal(new, np.stack([old[:, 0], before[:, 1], old[:, 5], old[:, 1]], axis=1))
    blended = outputs.blend(boxes, numbers(parts * 3 * 4, begin=1000), numbers(parts * 5 * 4), KNOWN)
    assert blended is not None
    sides, before, old = blended.reshape(parts, 3, 4), numbers(parts, 3, 4, begin=1000), numbers(parts, 5, 4)
    np.testing.assert_array_equal(sides, np.stack([before[:, 0], old[:, 4], old[:, 0]], axis=1))


def test_labels_in_another_order_follow_their_names() -> None:
    known = Known(3, {0: 2, 1: 0, 2: 1}, ("c", "a", "b"))
    blended = Outputs(3, has_background=False).blend(
        "model/_prediction_head_dict/object_center/0/layer_with_weights-1/kernel/.A",
        numbers(3, begin=100),
        numbers(3),
        known,
    )
    assert blended is not None
    assert blended.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("name", "shape", "start_shape"),
    [
        ("model/_feature_extractor/layer/kernel", (1, 1, 3, 8), (1, 1, 3, 12)),
        (CLASSES, (1, 1, 3, 8), (1, 1, 4, 12)),
        (CLASSES, (1, 1, 3, 8), (1, 1, 3, 13)),
        (CLASSES.replace("kernel", "depthwise_kernel"), (3, 3, 3, 1), (3, 3, 3, 1)),
        # Boxes that all labels share.
        (BOXES, (2, 4), (2, 4)),
    ],
    ids=["other layer", "other width", "other number of labels", "no outputs", "shared boxes"],
)
def test_other_variables_have_no_outputs_for_labels(
    name: str, shape: tuple[int, ...], start_shape: tuple[int, ...]
) -> None:
    assert Outputs(3, has_background=True).blend(name, numbers(*shape), numbers(*start_shape), KNOWN) is None


@pytest.mark.parametrize(
    ("name", "labels", "shape"),
    [
        # The proposals of two-stage models: twelve anchors, each object or background.
        ("FirstStageBoxPredictor/ClassPredictor/weights", 2, (1, 1, 512, 24)),
        (
            "model/_first_stage_box_predictor/_prediction_heads/0/_class_predictor_layers/0/kernel/.A",
            2,
            (1, 1, 512, 24),
        ),
        # The layer before CenterNet's last one.
        ("model/_prediction_head_dict/object_center/0/layer_with_weights-0/kernel/.A", 2, (3, 3, 256, 256)),
        ("model/_prediction_head_dict/object_center/0/layer_with_weights-0/bias/.A", 2, (256,)),
        # Batch norm within a head.
        (CLASSES.replace("kernel", "gamma"), 2, (576,)),
    ],
)
def test_layers_without_labels_stay_as_they_are_if_labels_change_places(
    name: str, labels: int, shape: tuple[int, ...]
) -> None:
    known = Known(labels, {0: 1, 1: 0}, ("b", "a"))
    for has_background in (True, False):
        assert Outputs(labels, has_background).blend(name, numbers(*shape), numbers(*shape), known) is None

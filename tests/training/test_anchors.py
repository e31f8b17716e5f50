"""ANCHORS=auto: anchors fitted to boxes for each of upstream's generators, and the shapes that upstream makes."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from numpy.typing import NDArray
from object_detection.builders import anchor_generator_builder

from entrypoint.data import annotations, label_map, records, tf_record
from entrypoint.system import documents
from entrypoint.system.errors import UserError
from entrypoint.training import anchor_generators, anchors, pipeline, plan
from entrypoint.training.anchor_generators import Generator, Parameters
from entrypoint.training.anchors import Boxes
from entrypoint.training.changes import Changes
from entrypoint.training.start_checkpoint import Start, StartDocument
from entrypoint.workspace import Workspace
from entrypoint.zoo import catalogue, pipeline_config
from entrypoint.zoo.input_size import InputSize
from tests.conftest import make_settings, write_bucket
from tests.training.test_pipeline import COSINE, TRAIN, make_start
from tests.zoo import published

# Published configs of each generator. They differ in levels, octaves, scales, strides, and the lowest feature map.
PUBLISHED = (
    "ssd_mobilenet_v2_320x320",
    "ssdlite_mobilenet_v2_coco",
    "ssd_mobilenet_v1_ppn_coco",
    "ssd_mobilenet_v2_fpnlite_320x320",
    "ssd_mobilenet_v2_mnasfpn_coco",
    "ssd_resnet50_v1_fpn_1024x1024",
    "efficientdet_d0",
    "faster_rcnn_resnet50_coco",
    "faster_rcnn_inception_resnet_v2_atrous_coco",
    "faster_rcnn_resnet101_v1_800x1333",
)
# What no published config has: an input that is no square, listed scales, other base sizes, no anchor in between.
OWN = {
    "ssd": """ssd_anchor_generator { num_layers: 3 scales: [0.1, 0.3, 0.8] aspect_ratios: [1, 2]
      base_anchor_height: 0.8 base_anchor_width: 1.1 interpolated_scale_aspect_ratio: 0.0 }""",
    "ssd between": """ssd_anchor_generator { num_layers: 2 min_scale: 0.3 max_scale: 0.7 aspect_ratios: [0.5, 1, 2]
      interpolated_scale_aspect_ratio: 1.5 reduce_boxes_in_lowest_layer: false }""",
    "multiscale": """multiscale_anchor_generator { min_level: 2 max_level: 4 anchor_scale: 3.0 scales_per_octave: 3
      aspect_ratios: [0.4, 1.0] normalize_coordinates: false }""",
    "grid": "grid_anchor_generator { height: 128 width: 64 scales: [0.5, 1, 3] aspect_ratios: [0.5, 1.0] }",
}
# For each kind a published model, and parameters whose boxes its anchors fit badly.
KNOWN = {
    "ssdlite_mobilenet_v2_coco": Parameters((0.09, 0.15, 0.25, 0.4, 0.6, 0.95), (0.7, 0.9, 0.45, 1.4, 0.2)),
    "ssd_mobilenet_v2_fpnlite_320x320": Parameters((2.3,), (0.6, 1.5, 0.25)),
    "faster_rcnn_resnet50_coco": Parameters((0.15, 0.33, 0.7, 1.4), (0.25, 0.6, 1.5)),
}


def own(generator: str) -> Any:
    """A config of an SSD with this generator, on photos of 320 x 192 pixels."""
    config = published.config("ssd_mobilenet_v2_320x320")
    config.model.ssd.ClearField("anchor_generator")
    text_format.Parse(generator, config.model.ssd.anchor_generator)
    config.model.ssd.image_resizer.fixed_shape_resizer.width = 320
    config.model.ssd.image_resizer.fixed_shape_resizer.height = 192
    return config


def config_of(name: str) -> Any:
    return own(OWN[name]) if name in OWN else published.config(name)


def anchor_message(config: Any) -> Any:
    """The part of a config that describes its anchors."""
    field = anchor_generators.FIELDS[config.model.WhichOneof("model")]
    return getattr(pipeline_config.architecture_of(config), field)


def in_pixels(message: Any) -> bool:
    """Whether upstream's anchors are in pixels, and not in fractions of the input."""
    is_grid = message.WhichOneof("anchor_generator_oneof") == "grid_anchor_generator"
    return is_grid or message.multiscale_anchor_generator.normalize_coordinates is False


def upstream(config: Any, size: InputSize) -> tuple[list[int], NDArray[np.float64]]:
    """The number of anchors at a location of each feature map, and width and height of each, by upstream's own code."""
    message = anchor_message(config)
    generator = anchor_generator_builder.build(message)
    counts = generator.num_anchors_per_location()
    kind = message.WhichOneof("anchor_generator_oneof")
    sides = {} if kind == "grid_anchor_generator" else {"im_height": size.height, "im_width": size.width}
    grids = generator.generate([(1, 1)] * len(counts), **sides)
    corners = np.concatenate([grid.get().numpy() for grid in grids]).astype(np.float64)
    scale = (1, 1) if in_pixels(message) else (size.width, size.height)
    widths, heights = (corners[:, 3] - corners[:, 1]) * scale[0], (corners[:, 2] - corners[:, 0]) * scale[1]
    return counts, np.stack([widths, heights], axis=1)


def distances(config: Any, generator: Generator, counts: list[int]) -> list[float | None]:
    """The pixels between neighbouring anchors of each map along the shorter side; None if a map has one cell."""
    size, message = generator.size, anchor_message(config)
    side, axis = min((size.height, 0), (size.width, 1))
    strides = [each[0] for each in np.split(generator.strides, np.cumsum(counts)[:-1])]
    shapes = [(math.ceil(size.height / stride), math.ceil(size.width / stride)) for stride in strides]
    is_grid = message.WhichOneof("anchor_generator_oneof") == "grid_anchor_generator"
    sides = {} if is_grid else {"im_height": size.height, "im_width": size.width}
    grids = anchor_generator_builder.build(message).generate(shapes, **sides)
    scale = 1 if in_pixels(message) else side
    found: list[float | None] = []
    for grid, count, shape in zip(grids, counts, shapes, strict=True):
        corners = grid.get().numpy().astype(np.float64).reshape(*shape, count, 4)
        centres = (corners[..., axis] + corners[..., axis + 2]) / 2 * scale
        found.append(float(np.diff(centres, axis=axis).mean()) if shape[axis] > 1 else None)
    return found


def of_one_label(sizes: NDArray[np.float64]) -> Boxes:
    return anchors.alike(sizes, np.ones(len(sizes), np.int64))


def boxes_like(shapes: NDArray[np.float64], count: int = 600, noise: float = 0.03, seed: int = 0) -> Boxes:
    """Random boxes of one label, each nearly as large as one of the shapes, which are widths and heights in pixels."""
    rng = np.random.default_rng(seed)
    sizes = shapes[rng.integers(len(shapes), size=count)] * rng.uniform(1 - noise, 1 + noise, [count, 2])
    return of_one_label(sizes)


@pytest.fixture
def dense(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells without a distance: only shapes count, and the best anchors are those of which boxes were made."""
    for kind in anchor_generators.KINDS.values():
        monkeypatch.setattr(kind, "strides", 0.0)


@pytest.mark.usefixtures("dense")
@pytest.mark.parametrize("name", [*PUBLISHED, *OWN])
def test_shapes_are_those_that_upstream_makes_before_and_after_a_fit(name: str) -> None:
    config = config_of(name)
    generator = anchor_generators.read(config, name)
    counts, expected = upstream(config, generator.size)
    shapes = generator.shapes(generator.present)
    assert len(shapes) == sum(counts)
    np.testing.assert_allclose(shapes, expected, rtol=1e-5)
    boxes = boxes_like(np.array([[40.0, 70.0], [90.0, 35.0], [20.0, 31.0]]), noise=0.2)
    fit = anchors.fit(boxes, generator, seed=1)
    assert fit.after > fit.before + 0.02
    generator.write(fit.parameters, Changes())
    fitted_counts, fitted = upstream(config, generator.size)
    # The heads of a checkpoint keep their shapes.
    assert fitted_counts == counts
    np.testing.assert_allclose(generator.shapes(fit.parameters), fitted, rtol=1e-5)
    assert anchors.iou(boxes.sizes, fitted).max(axis=1).mean() == pytest.approx(fit.after, abs=1e-5)


@pytest.mark.parametrize("name", [*PUBLISHED, *OWN])
def test_strides_are_the_distances_of_anchors_that_upstream_places(name: str) -> None:
    config = config_of(name)
    generator = anchor_generators.read(config, name)
    found = generator.strides
    counts, _ = upstream(config, generator.size)
    assert len(found) == sum(counts)
    # Two cells or more along the shorter side, whose anchors lie beside each other.
    side = min(generator.size.width, generator.size.height)
    for stride, placed in zip(
        np.split(found, np.cumsum(counts)[:-1]), distances(config, generator, counts), strict=True
    ):
        assert placed is None or stride == pytest.approx(placed, rel=1e-5)
        assert placed is not None or stride[0] > side / 2


@pytest.mark.usefixtures("dense")
@pytest.mark.parametrize("name", KNOWN)
def test_known_shapes_are_recovered(name: str) -> None:
    generator = anchor_generators.read(published.config(name), name)
    boxes = boxes_like(generator.shapes(KNOWN[name]))
    fit = anchors.fit(boxes, generator, seed=1)
    known = anchors.mean_iou(boxes, generator, KNOWN[name])
    assert known > 0.95
    assert fit.after > known - 0.05
    assert fit.after > fit.before + 0.05
    if len(fit.parameters.scales) == 1:
        # With few parameters, no others have as good anchors.
        assert fit.parameters.values == pytest.approx((2.3, 0.6, 1.5, 0.25), rel=0.03)


@pytest.mark.parametrize("name", KNOWN)
def test_fit_is_as_good_as_the_anchors_of_which_the_boxes_were_made(name: str) -> None:
    generator = anchor_generators.read(published.config(name), name)
    boxes = boxes_like(generator.shapes(KNOWN[name]))
    assert anchors.fit(boxes, generator, seed=1).after > anchors.mean_iou(boxes, generator, KNOWN[name]) - 0.01


@pytest.mark.usefixtures("dense")
def test_boxes_that_are_a_little_wider_than_the_anchors_are_fitted_too() -> None:
    # Another scale or another ratio alone is no improvement, and the scale that fits is above its limit.
    generator = anchor_generators.read(published.config("ssd_mobilenet_v2_fpnlite_320x320"), "a")
    fit = anchors.fit(of_one_label(np.full([20, 2], [33.0, 32.0])), generator, seed=1)
    assert fit.before == pytest.approx(32 / 33)
    assert fit.after > 0.99
    assert fit.parameters.scales[0] < 4


@pytest.mark.parametrize("name", KNOWN)
def test_places_of_values_stay_so_that_restored_heads_keep_similar_anchors(name: str) -> None:
    generator = anchor_generators.read(published.config(name), name)
    fit = anchors.fit(boxes_like(generator.shapes(KNOWN[name])), generator, seed=1)
    for fitted, present in (
        (fit.parameters.scales, generator.present.scales),
        (fit.parameters.ratios, generator.present.ratios),
    ):
        assert np.array_equal(np.argsort(fitted), np.argsort(present))


@pytest.mark.parametrize("name", [*KNOWN, *OWN])
def test_fit_is_never_worse_and_keeps_to_the_bounds(name: str) -> None:
    generator = anchor_generators.read(config_of(name), name)
    rng = np.random.default_rng(3)
    for seed in range(8):
        centre = np.exp(rng.uniform(1, 6, 2))
        boxes = np.exp(rng.normal(np.log(centre), rng.uniform(0.01, 1.5), [int(rng.integers(1, 300)), 2]))
        labelled = anchors.alike(boxes, rng.integers(1, 4, len(boxes)))
        fit = anchors.fit(labelled, generator, seed)
        assert fit.after >= fit.before
        assert fit.before == anchors.mean_iou(labelled, generator, generator.present)
        assert fit.after == anchors.mean_iou(labelled, generator, fit.parameters)
        assert generator.allows(fit.parameters)
        if isinstance(generator, anchor_generators.SsdGenerator):
            assert list(fit.parameters.scales) == sorted(fit.parameters.scales)


@pytest.mark.parametrize("name", KNOWN)
def test_same_boxes_and_seed_have_the_same_fit(name: str) -> None:
    generator = anchor_generators.read(published.config(name), name)
    boxes = boxes_like(generator.shapes(KNOWN[name]), count=5000)
    copy = Boxes(boxes.sizes.copy(), boxes.labels.copy(), boxes.weights.copy())
    assert anchors.fit(boxes, generator, 7) == anchors.fit(copy, generator, 7)


def test_scales_rise_for_boxes_of_one_size() -> None:
    generator = anchor_generators.read(published.config("ssdlite_mobilenet_v2_coco"), "a")
    for side in (5.0, 100.0, 299.0, 1000.0):
        scales = generator.scales_for([side] * 9)
        assert anchor_generators.rises(scales)
        assert generator.allows(Parameters(scales, generator.present.ratios))


def test_clusters_are_those_of_the_boxes() -> None:
    shapes = np.array([[20.0, 20.0], [100.0, 50.0], [60.0, 200.0]])
    centres = anchors.cluster(boxes_like(shapes, noise=0.1).sizes, 3, seed=1)
    assert centres[np.argsort(centres[:, 1])] == pytest.approx(shapes[[0, 1, 2]], rel=0.05)
    # Boxes that are all the same have one cluster.
    assert anchors.cluster(np.full([50, 2], 30.0), 9, seed=1).tolist() == [[30.0, 30.0]]


def test_iou_is_that_of_boxes_with_one_centre() -> None:
    assert anchors.iou(np.array([[2.0, 4.0]]), np.array([[2.0, 4.0], [4.0, 2.0], [2.0, 2.0]])).tolist() == [
        [1.0, 4 / 12, 0.5]
    ]


def test_placed_iou_is_near_the_mean_over_all_places_of_a_box() -> None:
    rng = np.random.default_rng(5)
    for _ in range(50):
        stride = float(rng.choice([8, 16, 32]))
        box, anchor = rng.uniform(1, 8, 2) * stride, rng.uniform(1, 8, 2) * stride
        shifts = np.abs(rng.uniform(-stride / 2, stride / 2, [4000, 2]))
        sides = np.clip(np.minimum(np.minimum(box, anchor), (box + anchor) / 2 - shifts), 0, None)
        both = sides.prod(axis=1)
        mean = (both / (box.prod() + anchor.prod() - both)).mean()
        found = anchors.iou(box[None], anchor[None], np.array([stride]))
        assert found[0, 0] == pytest.approx(mean, abs=0.03)


def test_large_objects_are_not_left_to_a_map_whose_cells_are_as_large_as_they_are() -> None:
    """Blood cells of three sizes, as in a bucket of blood smears at 160 pixels: the largest were hardly found."""
    config = published.config("ssd_mobilenet_v2_fpnlite_320x320")
    resizer = config.model.ssd.image_resizer.fixed_shape_resizer
    resizer.height = resizer.width = 160
    generator = anchor_generators.read(config, "a")
    sizes = np.array([[10.0, 13.0]] * 300 + [[26.0, 35.0]] * 4000 + [[55.0, 68.0]] * 300)
    boxes = anchors.alike(sizes, np.repeat([1, 2, 3], [300, 4000, 300]))
    fit = anchors.fit(boxes, generator, seed=0)

    def by_label(parameters: Parameters) -> Any:
        best = anchors.iou(sizes, generator.shapes(parameters), generator.strides).max(axis=1)
        return [part.mean() for part in np.split(best, [300, 4300])]

    small, middle, large = by_label(fit.parameters)
    assert small > by_label(generator.present)[0] + 0.1
    assert min(middle, large) > 0.6


def test_labels_count_alike_however_many_boxes_they_have() -> None:
    generator = anchor_generators.read(published.config("ssd_mobilenet_v2_fpnlite_320x320"), "a")
    few, many = np.full([10, 2], 40.0), np.full([1000, 2], 80.0)
    apart = [anchors.mean_iou(of_one_label(each), generator, generator.present) for each in (few, many)]
    both = anchors.alike(np.concatenate([few, many]), np.repeat([1, 2], [10, 1000]))
    assert anchors.mean_iou(both, generator, generator.present) == pytest.approx(np.mean(apart))


def test_label_whose_boxes_are_missed_is_not_hidden_by_the_others() -> None:
    generator = anchor_generators.read(published.config("ssd_mobilenet_v2_fpnlite_320x320"), "a")
    # Anchors are 32 pixels wide or more: a box of 45 has one that overlaps by half, one of 12 has none.
    sizes = np.array([[45.0, 45.0]] * 1000 + [[45.0, 45.0]] * 30 + [[12.0, 12.0]] * 10)
    labels = np.repeat([1, 2], [1000, 40])
    shares = [
        anchors.matched(anchors.alike(each, kinds), generator, generator.present)
        for each, kinds in ((sizes[:1030], labels[:1030]), (sizes, labels), (sizes, np.repeat([1, 2], [1036, 4])))
    ]
    # Of the second label, a quarter of the boxes has no anchor. Four boxes are too few to count.
    assert shares == [1, 0.75, pytest.approx(1030 / 1036)]
    assert anchors.matched(of_one_label(sizes[-4:]), generator, generator.present) == 0


@pytest.mark.parametrize(
    ("model", "given", "own", "are_fitted"),
    [
        ("ssd_mobilenet_v2_fpnlite_320x320", None, False, True),
        ("ssd_mobilenet_v2_fpnlite_320x320", "pipeline", False, False),
        ("ssd_mobilenet_v2_fpnlite_320x320", None, True, False),
        ("ssd_mobilenet_v2_fpnlite_320x320", "auto", True, True),
        ("efficientdet_d0", None, False, True),
        ("scratch", None, False, True),
        ("ssdlite_mobilenet_v2_coco", None, False, False),
        ("ssdlite_mobilenet_v2_coco", "auto", False, True),
        ("faster_rcnn_resnet50_v1_640x640", None, False, False),
        ("centernet_mobilenetv2_fpn_512x512", None, False, False),
    ],
)
def test_default_fits_anchors_where_one_head_serves_all_maps(
    tmp_path: Path, model: str, given: str | None, own: bool, are_fitted: bool
) -> None:
    path = catalogue.PIPELINES / f"{model}.config"
    values: dict[str, Any] = {"model": model, **({"anchors": given} if given else {})}
    values |= {"pipeline_config": path, "checkpoint": "none"} if own else {}
    found = anchors.generator_to_fit(pipeline_config.read(path), make_settings(tmp_path, **values))
    assert (found is not None) == are_fitted


def test_default_keeps_anchors_that_cannot_be_fitted(tmp_path: Path) -> None:
    config = variable()
    config.model.ssd.box_predictor.weight_shared_convolutional_box_predictor.SetInParent()
    assert anchors.generator_to_fit(config, make_settings(tmp_path)) is None


def flexible() -> Any:
    return own("flexible_grid_anchor_generator { anchor_grid { base_sizes: [1.0] aspect_ratios: [1.0] } }")


def variable() -> Any:
    config = own(OWN["ssd"])
    config.model.ssd.image_resizer.ClearField("fixed_shape_resizer")
    text_format.Parse("min_dimension: 300 max_dimension: 500", config.model.ssd.image_resizer.keep_aspect_ratio_resizer)
    return config


def unsized() -> Any:
    config = published.config("faster_rcnn_resnet50_coco")
    config.model.faster_rcnn.image_resizer.identity_resizer.SetInParent()
    return config


REFUSED: dict[str, Callable[[], Any]] = {
    "no anchors": lambda: published.config("centernet_resnet50_v1_fpn_512x512"),
    "flexible_grid_anchor_generator, which cannot be fitted to boxes": flexible,
    "no anchor generator, which cannot be fitted": lambda: own(""),
    "anchors whose pixels differ from photo to photo": variable,
    "anchors whose pixels differ from photo": unsized,
    "an empty grid_anchor_generator": lambda: own("grid_anchor_generator {}"),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_has_no_anchors_to_fit_is_refused_by_name(words: str) -> None:
    with pytest.raises(UserError, match=f"ANCHORS=auto: a_model has {words}.*unset ANCHORS"):
        anchor_generators.read(REFUSED[words](), "a_model")


def test_model_without_anchors_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    for model in ("centernet_resnet50_v1_fpn_512x512", "centernet_hg104_512x512"):
        with pytest.raises(UserError, match=f"ANCHORS=auto: {model} has no anchors; unset ANCHORS"):
            pipeline.refuse_early(make_settings(tmp_path, anchors="auto", model=model))
        pipeline.refuse_early(make_settings(tmp_path, model=model))
    path = tmp_path / "user.config"
    path.write_text(pipeline_config.write(variable()))
    with pytest.raises(UserError, match=rf"ANCHORS=auto: {path} has anchors whose pixels differ"):
        pipeline.refuse_early(make_settings(tmp_path, anchors="auto", pipeline_config=path, checkpoint="none"))


MULTISCALE = """model { ssd { num_classes: 90 feature_extractor { type: "ssd_mobilenet_v2_fpn_keras" }
  image_resizer { fixed_shape_resizer { height: 320 width: 320 } }
  anchor_generator { multiscale_anchor_generator { anchor_scale: 4.0 aspect_ratios: [1.0, 2.0, 0.5] } } } }"""


def run_step(folder: Path, boxes: list[tuple[float, float]], start: Start | None = None, **values: Any) -> Workspace:
    """Converts a bucket of photos of 40 x 30 pixels, two boxes of that size on each, and runs the step `pipeline`."""

    def drawn(width: float, height: float, x: float) -> dict[str, Any]:
        return {"x": x, "y": 0.0, "x2": x + width, "y2": height, "label": "cat"}

    photos = {f"{n}.png": [drawn(*size, 0.0), drawn(*size, 1 - size[0])] for n, size in enumerate(boxes)}
    write_bucket(folder / "bucket", photos, tuple(photos))
    (folder / "user.config").write_text(MULTISCALE + TRAIN % COSINE)
    given = {"pipeline_config": folder / "user.config", "validation_fraction": 0.25, **values}
    work = Workspace(make_settings(folder, **given))
    work.root.mkdir(exist_ok=True)
    for step in (annotations, label_map, tf_record):
        step.run(work)
    documents.write(work.start, StartDocument(start))
    pipeline.run(work)
    return work


def generator_in(work: Workspace) -> Any:
    return pipeline_config.read(work.pipeline).model.ssd.anchor_generator.multiscale_anchor_generator


def rows(work: Workspace) -> dict[str, tuple[str, str]]:
    """The changes of the plan that concern anchors, by the name of the field."""
    return {name.rpartition(".")[2]: each for name, *each in plan.load(work).changes if "anchor" in name}  # type: ignore[misc]


# At 320 x 320 pixels: 128 x 24, 32 x 112 and 20 x 76.
NARROW = [(0.4, 0.075), (0.1, 0.35), (0.0625, 0.2375)]


@pytest.mark.usefixtures("dense")
def test_fitted_anchors_are_in_the_config_and_in_the_plan(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="job"):
        work = run_step(tmp_path, NARROW * 8, anchors="auto")
    found = generator_in(work)
    changed = rows(work)
    assert changed["aspect_ratios"][0] == "1, 2, 0.5"
    assert changed["aspect_ratios"][1] == ", ".join(f"{ratio:.6g}" for ratio in found.aspect_ratios)
    assert max(found.aspect_ratios) == pytest.approx(128 / 24, rel=0.2)
    assert len(found.aspect_ratios) == 3
    (line,) = [line for line in caplog.messages if line.startswith("anchors: ")]
    boxes = next(line for line in caplog.messages if line.startswith("train: "))
    assert f"fitted: of {boxes.split(', ')[1].split()[0]} training boxes, at least " in line
    assert re.search(r"IoU of 0\.5, and 100% with .*; mean IoU with the best anchor 0\.\d\d, before 0\.\d\d;", line)
    assert not [line for line in caplog.messages if "heads for boxes" in line]
    assert not rows(run_step(tmp_path, NARROW * 8))


def test_restored_heads_for_boxes_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for root, warned in (("model", True), ("feature_extractor", False)):
        caplog.clear()
        run_step(tmp_path, NARROW * 8, make_start(tmp_path, root), anchors="auto")
        found = [line for line in caplog.messages if "heads for boxes were trained for other anchors" in line]
        assert len(found) == warned


@pytest.mark.usefixtures("dense")
@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        (NARROW, "training boxes are too few to fit anchors to"),
        ([(0.1015, 0.1)] * 24, "at least 100% of each label have an anchor with an IoU of 0.5"),
        # Too small for the distance of any anchors.
        ([(0.005, 0.005)] * 24, "at least 0% of each label have an anchor with an IoU of 0.5, and 0% with fitted"),
    ],
    ids=["few", "fitting already", "too small"],
)
def test_config_stays_without_boxes_or_without_gain(
    tmp_path: Path, boxes: list[tuple[float, float]], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="job"):
        work = run_step(tmp_path, boxes, anchors="auto")
    assert not rows(work)
    assert (generator_in(work).anchor_scale, list(generator_in(work).aspect_ratios)) == (4.0, [1.0, 2.0, 0.5])
    (line,) = [line for line in caplog.messages if line.startswith("anchors: as in the pipeline.config")]
    assert words in line


def test_boxes_are_those_of_the_training_photos_in_pixels_of_the_input(tmp_path: Path) -> None:
    work = run_step(tmp_path, [(0.5, 0.25)] * 12)
    photos = records.load(work).train.photos
    assert 0 < photos < 12
    found = anchors.training_boxes(work, InputSize(320, 320)).sizes
    np.testing.assert_allclose(found, [[160, 80]] * 2 * photos, rtol=1e-6)
    # The shorter side of 30 pixels becomes 600.
    found = anchors.training_boxes(work, InputSize(600, 1024, keeps_shape=True)).sizes
    np.testing.assert_allclose(found, [[400, 150]] * 2 * photos, rtol=1e-6)


def test_generators_are_all_of_upstream_but_the_flexible_one() -> None:
    from object_detection.protos import anchor_generator_pb2

    kinds = {field.name for field in anchor_generator_pb2.AnchorGenerator.DESCRIPTOR.fields}
    assert kinds - set(anchor_generators.KINDS) == {"flexible_grid_anchor_generator"}
    assert all(issubclass(kind, Generator) for kind in anchor_generators.KINDS.values())

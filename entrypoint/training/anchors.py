"""ANCHORS: the anchors of the pipeline.config, or such that fit the boxes of the training photos.

Anchors are fitted so that the mean IoU of a training box with its best anchor is greatest. The centre of a box lies
anywhere between the cells of a feature map, and those of the anchors in the cells: on a coarse map, also a box of an
anchor's shape overlaps it little. All labels count alike, as in mAP. Augmentation, which changes the sizes of boxes, is
not taken into account.

A better fit alone does not make a better model (docs/recipes.md): anchors are fitted if those of the pipeline.config
miss boxes of a label.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from entrypoint.data import examples, records
from entrypoint.settings.schema import Settings
from entrypoint.system.errors import UserError
from entrypoint.training import anchor_generators
from entrypoint.training.anchor_generators import Generator, Parameters
from entrypoint.training.changes import Changes, shown
from entrypoint.workspace import Workspace
from entrypoint.zoo.input_size import InputSize

logger = logging.getLogger("job")

FEWEST = 10  # boxes
# So many boxes are read. Their photos are a random sample: the order of the records is that of hashes.
MOST = 20_000
SEARCHED = 2_000  # so many of them are compared with each try of the search
# An anchor learns the boxes with which it has at least this IoU: the thresholds of the matchers of the zoo's SSDs, and
# of upstream's proposals (core/target_assigner.py). A box without such an anchor is learned by its best one alone.
MATCHED, MATCHED_BY_PROPOSALS = 0.5, 0.7
LEAST_GAIN = 0.1  # of the share of matched boxes
CLUSTERS = 9  # as many as YOLOv3 has (arXiv:1804.02767, section 2.3)
ROUNDS = 100  # of k-means at most
# The search multiplies and divides values by these factors, one after the other.
FACTORS = (1.5, 1.2, 1.1, 1.05, 1.02, 1.01)
LEAST_STEP = 1e-5  # of the mean IoU: a smaller improvement is not worth a further pass
LEAST_RATIO, LARGEST_RATIO = 0.1, 10.0


@dataclass(frozen=True)
class Boxes:
    """Boxes of the training photos."""

    sizes: NDArray[np.float64]  # width and height in pixels of the model's input, [boxes, 2]
    labels: NDArray[np.int64]  # [boxes]
    weights: NDArray[np.float64]  # what each counts, so that all labels count alike: [boxes]

    def sample(self) -> Boxes:
        """Returns about SEARCHED boxes, at even distances."""
        step = math.ceil(len(self.sizes) / SEARCHED)
        return Boxes(self.sizes[::step], self.labels[::step], self.weights[::step])


@dataclass(frozen=True)
class Fit:
    """Fitted parameters, and the mean IoU of a box with its best anchor."""

    parameters: Parameters
    before: float  # with the anchors of the config
    after: float  # with the fitted anchors


def refuse_early(settings: Settings, config: Any | None) -> None:
    """Raises UserError if ANCHORS=auto cannot be done with the model, as far as it is known before photos are read.

    `config` is the user's own pipeline.config, if there is one. For other models the name decides: every model of the
    zoo but CenterNet has anchors that can be fitted.
    """
    if settings.anchors != "auto":
        return
    if config is not None:
        anchor_generators.read(config, str(settings.pipeline_config))
    elif settings.model.startswith("centernet_"):
        raise UserError(f"ANCHORS=auto: {settings.model} has no anchors; unset ANCHORS")


def inject(config: Any, work: Workspace, changes: Changes) -> None:
    """Writes the anchors of ANCHORS into a config that names its checkpoint already.

    The config stays as it is if fewer than FEWEST boxes are there, or if its anchors match the boxes of each label.

    Raises:
        UserError: ANCHORS=auto, and the model has no anchors, or such that cannot be fitted.
    """
    settings = work.settings
    generator = generator_to_fit(config, settings)
    if generator is None:
        return
    boxes = training_boxes(work, generator.size)
    count = len(boxes.sizes)
    if count < FEWEST:
        logger.info(
            "anchors: as in the pipeline.config, because %d training boxes are too few to fit anchors to", count
        )
        return
    threshold = MATCHED if config.model.HasField("ssd") else MATCHED_BY_PROPOSALS
    before = matched(boxes, generator, generator.present, threshold)
    found = fit(boxes, generator, settings.seed) if before <= 1 - LEAST_GAIN else None
    after = matched(boxes, generator, found.parameters, threshold) if found else before
    words = f"of {count:,} training boxes, at least {100 * before:.0f}% of each label have an anchor with an IoU of "
    words += f"{threshold:g}"
    if found is None or after < before + LEAST_GAIN:
        fitted = f", and {100 * after:.0f}% with fitted anchors" if found else ""
        logger.info("anchors: as in the pipeline.config: %s%s", words, fitted)
        return
    generator.write(found.parameters, changes)
    log_fit(found, f"{words}, and {100 * after:.0f}% with fitted anchors")
    train = config.train_config
    if train.fine_tune_checkpoint and train.fine_tune_checkpoint_type == "detection" and not shares_heads(config):
        logger.warning(
            "ANCHORS=auto: the checkpoint's heads for boxes were trained for other anchors, and need more steps for "
            "the fitted ones; compare the mAP with that of ANCHORS=pipeline"
        )


def generator_to_fit(config: Any, settings: Settings) -> Generator | None:
    """Returns the generator of the anchors that are to be fitted; None if the anchors stay as they are.

    Without ANCHORS, those of a user's own pipeline.config stay.

    Raises:
        UserError: ANCHORS=auto, and the model has no anchors, or such that cannot be fitted.
    """
    name = str(settings.pipeline_config or settings.model)
    if settings.anchors == "auto":
        return anchor_generators.read(config, name)
    if settings.anchors is not None or settings.pipeline_config is not None or not shares_heads(config):
        return None
    try:
        return anchor_generators.read(config, name)
    except UserError:
        return None


def shares_heads(config: Any) -> bool:
    """Returns whether one head serves all maps of a feature pyramid, so that it was trained for boxes of all sizes."""
    predictor = config.model.ssd.box_predictor
    return bool(predictor.HasField("weight_shared_convolutional_box_predictor"))


def log_fit(found: Fit, words: str) -> None:
    """Logs the fitted anchors and how well they fit."""
    scales, ratios = (sorted(values) for values in (found.parameters.scales, found.parameters.ratios))
    logger.info(
        "anchors: fitted: %s; mean IoU with the best anchor %.2f, before %.2f; aspect ratios %s; %s %s",
        words,
        found.after,
        found.before,
        shown(ratios),
        "scale" if len(scales) == 1 else "scales",
        shown(scales),
    )


def training_boxes(work: Workspace, size: InputSize) -> Boxes:
    """Returns training boxes, about MOST at most."""
    found: list[tuple[float, float]] = []
    labels: list[int] = []
    for photo in examples.box_sizes_in(records.load(work).train.paths(work.records)):
        across, down = size.scale(photo.width, photo.height)
        found += [(width * photo.width * across, height * photo.height * down) for width, height in photo.boxes]
        labels += photo.labels
        if len(found) >= MOST:
            break
    return alike(np.array(found, np.float64).reshape(-1, 2), np.array(labels, np.int64))


def alike(sizes: NDArray[np.float64], labels: NDArray[np.int64]) -> Boxes:
    """Returns the boxes that have a size, with weights for which all labels count alike."""
    has_size = np.all(sizes > 0, axis=1)
    _, places, counts = np.unique(labels[has_size], return_inverse=True, return_counts=True)
    return Boxes(sizes[has_size], labels[has_size], 1 / counts[places])


def matched(boxes: Boxes, generator: Generator, parameters: Parameters, threshold: float = MATCHED) -> float:
    """Returns the share of boxes that have an anchor with the IoU of a threshold, of the label with the smallest share.

    Labels with fewer than FEWEST boxes count only if all have so few.
    """
    best = iou(boxes.sizes, generator.shapes(parameters), generator.strides).max(axis=1)
    by_label = [best[boxes.labels == label] >= threshold for label in np.unique(boxes.labels)]
    return min(float(each.mean()) for each in [each for each in by_label if len(each) >= FEWEST] or by_label)


def fit(boxes: Boxes, generator: Generator, seed: int) -> Fit:
    """Returns the parameters of a generator that fit boxes best, or those of the config if none is better.

    The search begins at the values of the config, at the shapes that k-means finds, and at the sizes of the one with
    the ratios of the other. Only operations that IEEE 754 rounds correctly decide, so that each machine of a cluster
    finds the same.
    """
    sample = boxes.sample()
    present = generator.present
    before = mean_iou(boxes, generator, present)
    found = Fit(present, before, before)
    for start in starts(cluster(sample.sizes, CLUSTERS, seed), generator):
        parameters = rounded(ranked(search(sample, generator, start), present), present)
        after = mean_iou(boxes, generator, parameters)
        if after > found.after and generator.allows(parameters):
            found = Fit(parameters, before, after)
    return found


def starts(centres: NDArray[np.float64], generator: Generator) -> list[Parameters]:
    """Returns the parameters at which the search begins; `centres` are widths and heights in pixels, [centres, 2]."""
    present = generator.present
    scales = generator.scales_for(np.sort(np.sqrt(centres[:, 0] * centres[:, 1])).tolist())
    ratios = generator.ratios_for(np.sort(centres[:, 0] / centres[:, 1]).tolist())
    wanted = (present, Parameters(scales, ratios), Parameters(present.scales, ratios))
    return [each for each in wanted if generator.allows(each)]


def search(boxes: Boxes, generator: Generator, start: Parameters) -> Parameters:
    """Returns the parameters that a search reaches which changes a few values at a time; see `moves`.

    The steps become smaller if no step of a size is an improvement (pattern search: Hooke and Jeeves 1961).
    """
    best, reached = start, mean_iou(boxes, generator, start)
    for step in FACTORS:
        has_moved = True
        while has_moved:
            has_moved = False
            for move, factor in ((move, factor) for move in moves(start) for factor in (step, 1 / step)):
                tried = moved(best, move, factor)
                if not (generator.allows(tried) and are_moderate(tried.ratios, generator.present.ratios)):
                    continue
                value = mean_iou(boxes, generator, tried)
                if value > reached + LEAST_STEP:
                    best, reached, has_moved = tried, value, True
    return best


def moves(parameters: Parameters) -> list[dict[int, float]]:
    """Returns the moves of the search, each as exponents of a factor by the index of a value.

    They are each value by itself, all scales together, and each ratio with all scales so that only the widths, or only
    the heights, of the ratio's anchors change.
    """
    scales, values = range(len(parameters.scales)), range(len(parameters.values))
    ratios = values[len(scales) :]
    sides = [{**dict.fromkeys(scales, share), ratio: 1.0} for ratio in ratios for share in (0.5, -0.5)]
    return [dict.fromkeys(scales, 1.0), *({index: 1.0} for index in values), *sides]


def moved(parameters: Parameters, move: dict[int, float], factor: float) -> Parameters:
    """Returns parameters with some values multiplied by powers of a factor: 1, 1/2 or -1/2."""
    # The square root is the same on every machine, unlike other powers.
    powers = {1.0: factor, 0.5: math.sqrt(factor), -0.5: 1 / math.sqrt(factor)}
    values = list(parameters.values)
    for index, exponent in move.items():
        values[index] *= powers[exponent]
    return parameters.replaced(values)


def are_moderate(ratios: Sequence[float], present: Sequence[float]) -> bool:
    """Returns whether aspect ratios are within LEAST_RATIO and LARGEST_RATIO, or within those of the config."""
    low, high = min((LEAST_RATIO, *present)), max((LARGEST_RATIO, *present))
    return all(low <= ratio <= high for ratio in ratios)


def ranked(parameters: Parameters, present: Parameters) -> Parameters:
    """Returns the values in the order of those of the config: the smallest stands where the smallest stood.

    So an output of a restored head gets the anchor that is most like the one for which it was trained.
    """

    def like(values: Sequence[float], model: Sequence[float]) -> tuple[float, ...]:
        places = sorted(range(len(model)), key=lambda index: model[index])
        at = dict(zip(places, sorted(values), strict=True))
        return tuple(at[index] for index in range(len(model)))

    return Parameters(like(parameters.scales, present.scales), like(parameters.ratios, present.ratios))


def rounded(parameters: Parameters, present: Parameters) -> Parameters:
    """Returns the values with three digits; values that the config has stay as they are."""
    pairs = zip(parameters.values, present.values, strict=True)
    return parameters.replaced([value if value == old else float(f"{value:.3g}") for value, old in pairs])


def mean_iou(boxes: Boxes, generator: Generator, parameters: Parameters) -> float:
    """Returns the mean IoU of a box with its best anchor, over labels that count alike."""
    best = iou(boxes.sizes, generator.shapes(parameters), generator.strides).max(axis=1)
    # The order in which numpy adds numbers depends on the processor; the exact sum does not.
    return math.fsum((best * boxes.weights).tolist()) / math.fsum(boxes.weights.tolist())


def iou(
    boxes: NDArray[np.float64], anchors: NDArray[np.float64], strides: NDArray[np.float64] | float = 0.0
) -> NDArray[np.float64]:
    """Returns the IoU of each box with each anchor, [boxes, anchors], at the mean distance of their centres.

    The centre of a box lies up to half a stride from the next cell in each direction, a quarter of a stride on average.
    Boxes and anchors are widths and heights, [n, 2]; `strides` are those of the anchors, [anchors]. Without them, box
    and anchor have one centre.
    """
    sides = [
        np.minimum(
            np.minimum(boxes[:, None, axis], anchors[:, axis]),
            np.maximum((boxes[:, None, axis] + anchors[:, axis]) / 2 - strides / 4, 0),
        )
        for axis in (0, 1)
    ]
    both = sides[0] * sides[1]
    found: NDArray[np.float64] = both / (boxes.prod(axis=1)[:, None] + anchors.prod(axis=1) - both)
    return found


def cluster(boxes: NDArray[np.float64], count: int, seed: int) -> NDArray[np.float64]:
    """Returns the centres of clusters of boxes, [clusters, 2]: k-means with the distance 1 - IoU.

    The distance is that of YOLO9000 (arXiv:1612.08242, section 2). A centre has the medians of widths and heights. The
    first centres are chosen by k-means++ (Arthur and Vassilvitskii 2007).
    """
    centres = first_centres(boxes, count, np.random.default_rng(seed))
    nearest = np.full(len(boxes), -1)
    for _ in range(ROUNDS):
        found = iou(boxes, centres).argmax(axis=1)
        if (found == nearest).all():
            break
        nearest = found
        for index in np.unique(nearest):
            centres[index] = np.median(boxes[nearest == index], axis=0)
    return centres


def first_centres(boxes: NDArray[np.float64], count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Returns at most `count` different boxes: each is likelier, the farther it is from those chosen before."""
    chosen = [int(rng.integers(len(boxes)))]
    while len(chosen) < count:
        # The squares of the distances are the weights; rounding can leave a little at a box that is chosen already.
        weights = np.maximum(0, 1 - iou(boxes, boxes[chosen]).max(axis=1)) ** 2
        weights[weights < np.finfo(np.float64).eps] = 0
        total = np.cumsum(weights)
        if not total[-1]:
            break
        found = int(np.searchsorted(total, rng.random() * total[-1], side="right"))
        chosen.append(min(found, len(boxes) - 1))
    return np.take(boxes, chosen, axis=0)

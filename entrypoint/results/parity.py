"""Do the exports find what the model finds? Each one runs in its own runtime on validation photos -> parity.json.

The detections of the checkpoint are those of the evaluation. A detection of an export belongs to the one of the model
that has the same label and overlaps it most; the order decides nothing.

If two overlapping boxes have almost the same score, the last digit decides which of them is kept when duplicates are
removed, and which of two detections comes first. On a few photos this changes mAP by more than any bound that would be
of use, above all if the model has hardly been trained. So mAP is compared over the detections that both have, with the
same score where the scores are nearly equal. The number of detections that only one of them has is bounded by itself.
"""

import dataclasses
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from entrypoint import workspace
from entrypoint.data import annotations, examples, records
from entrypoint.data.annotations import Dataset
from entrypoint.engines import loading
from entrypoint.engines.engine import Detections
from entrypoint.results import evaluate
from entrypoint.results.export import export, formats, running
from entrypoint.results.export.export_format import ExportFormat
from entrypoint.settings.choices import Quantize
from entrypoint.system import documents, files, sampling
from entrypoint.system.errors import JobError
from entrypoint.training import coco, plan
from entrypoint.workspace import Workspace

logger = logging.getLogger("job")

PHOTOS = 64
COMPARED_SCORE = 0.1  # detections with less need no partner, and their scores are not compared
# So many detections on a photo can be a list that was cut off, of which scores within CUT of the lowest say nothing.
SHORTEST_CUT, CUT = 10, 0.01
# IoU from which on two detections are the same box. Those that overlap less are others, which were kept when duplicates
# were removed, and whose scores say nothing.
SAME_BOX = 0.9
# A box with a smaller side, in fractions of the photo, has no area that could be compared. CenterNet finds boxes in the
# padding beside a photo, and they are cut to the photo's edge.
SMALLEST_SIDE = 1e-4


@dataclass(frozen=True)
class Bounds:
    """What an export may differ by from the model; None is no bound."""

    map: float  # over the detections that both have; over all detections if scores are not bounded
    score: float | None
    unmatched: float | None  # share of detections without a partner
    tie: float = 1e-4  # scores that differ by less count as equal when mAP is compared


FLOAT32 = Bounds(map=0.002, score=0.01, unmatched=0.02)
FLOAT16 = Bounds(map=0.005, score=0.01, unmatched=0.05, tie=2e-3)
# TFLite's operation removes duplicates before boxes are cut to the photo, and the model after that. So it can keep
# other boxes at the edges of photos, although all scores are equal.
TFLITE = Bounds(map=0.002, score=0.01, unmatched=0.05)
# By this share an export may return more or fewer detections than the model, those with low scores among them.
LOST = 0.1
# Integers move every score. Whether the loss of mAP is too much is for the user to say, unless the model is useless.
INTEGERS = Bounds(map=0.1, score=None, unmatched=None)
HALVED = ("onnx", "openvino")


@dataclass(frozen=True)
class Difference:
    """How an export's detections differ from those of the model."""

    matched: int  # detections of both with a partner
    unmatched: int  # detections of either without one
    greatest_score: float  # differences of scores, and of corners as fractions of the photo, between partners
    mean_score: float
    greatest_corner: float
    mean_corner: float
    expected: int  # detections of the model, with any score
    returned: int  # detections of the export, with any score


@dataclass(frozen=True)
class Parity:
    """What was found about one export."""

    state: Literal["equal", "differs", "failed", "not run here", "no photos"]
    words: str = ""  # why, if it differs or failed
    bytes: int = 0  # of all files in its folder
    photos: int = 0  # that it was run on
    model_map: float | None = None  # mAP of the model on these photos, with as many detections as the export returns
    export_map: float | None = None
    difference: Difference | None = None
    milliseconds: float | None = None  # for a photo, the median, on this machine's CPU

    @property
    def is_failure(self) -> bool:
        """Returns whether the job has to report it as an error."""
        return self.state in ("differs", "failed")


@dataclass(frozen=True)
class ParityDocument:
    """The content of parity.json, by the names of the formats."""

    exports: dict[str, Parity]


def run(work: Workspace) -> str:
    """Runs every export and compares it; returns a digest of what was found."""
    exported = export.load(work)
    found = {name: Parity("failed", words) for name, words in exported.failed.items()}
    reference = sampling.evenly(evaluate.load_detections(work), PHOTOS)
    written = [formats.format_of(name) for name in exported.written]
    with tempfile.TemporaryDirectory(dir=work.root) as scratch:
        photos = Path(scratch) / "photos"
        photos.mkdir()
        if reference and any(each.open for each in written):
            write_photos([each.key for each in reference], photos, work)
        detections = [each.to_detections() for each in reference]
        dataset = annotations.load(work)
        for each in written:
            found[each.name] = compare(each, detections, dataset, photos, work)
            log(each.name, found[each.name])
    documents.write(work.parity, ParityDocument(found))
    return files.file_sha256(work.parity)


def outputs(work: Workspace) -> list[Path]:
    """Returns the files that the step leaves in WORK_DIR."""
    return [work.parity]


def load(work: Workspace) -> dict[str, Parity]:
    """Returns what the step found, by the names of the formats."""
    return documents.read(ParityDocument, workspace.existing(work.parity, "parity")).exports


def refuse_failed(work: Workspace) -> None:
    """Raises JobError if an export failed or differs from the model."""
    failed = {name: each for name, each in load(work).items() if each.is_failure}
    if failed:
        # The next start of the job makes and compares them once more.
        for step in ("export", "parity"):
            workspace.remove_mark(step, work)
        reasons = "; ".join(f"{name}: {each.words}" for name, each in failed.items())
        raise JobError(
            f"EXPORTS={','.join(failed)}: not published: {reasons}. The trained model, the other exports and the "
            "report are in RESULT_DIR. Start the job again to try these formats once more, or leave them out of EXPORTS"
        )


def write_photos(keys: Sequence[str], folder: Path, work: Workspace) -> None:
    """Writes photos in the order of the keys, as the runtimes read them."""
    engine, config = loading.load(work)
    paths = records.load(work).validation.paths(work.records)
    encoded = dict(examples.photos_in(paths, set(keys)))
    for index, photo in enumerate(engine.prepare_photos(config, (encoded[key] for key in keys))):
        running.write_photo(photo, folder / f"{index:04d}.npz")


def compare(
    each: ExportFormat, reference: Sequence[Detections], dataset: Dataset, photos: Path, work: Workspace
) -> Parity:
    """Returns what an export finds on photos, compared with what the model found on them."""
    folder = work.root / each.folder
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if each.open is None:
        return Parity("not run here", bytes=size)
    if not reference:
        return Parity("no photos", bytes=size)
    try:
        outputs = running.run(each, folder, photos, plan.load(work).generation)
    except JobError as error:
        return Parity("failed", str(error), bytes=size)
    found = [Detections(one.key, one.height, one.width, *out) for one, (out, _) in zip(reference, outputs, strict=True)]
    difference = differ(reference, found)
    bounds = bounds_of(each.name, work.settings.quantize)
    judged = shared(reference, found, bounds.tie) if bounds.score is not None else (reference, found)
    words = judge(map_of(dataset, judged[0]), map_of(dataset, judged[1]), difference, bounds)
    return Parity(
        "differs" if words else "equal",
        words,
        size,
        len(found),
        map_of(dataset, reference),
        map_of(dataset, found),
        difference,
        round(1000 * float(np.median([seconds for _, seconds in outputs])), 2),
    )


def pick(found: Detections, places: NDArray[np.int64]) -> Detections:
    """Returns the detections at some places of the list."""
    boxes, classes, scores = (np.asarray(each)[places] for each in (found.boxes, found.classes, found.scores))
    return dataclasses.replace(found, boxes=boxes, classes=classes, scores=scores)


def shared(
    expected: Sequence[Detections], found: Sequence[Detections], tie: float
) -> tuple[list[Detections], list[Detections]]:
    """Returns the detections that both have, each side with its own boxes and scores.

    A score that differs by at most `tie` from its partner's is replaced by it.
    """
    sides: tuple[list[Detections], list[Detections]] = ([], [])
    for one, other in zip(expected, found, strict=True):
        pairs, _ = match(one, other)
        places = np.array(pairs, np.int64).reshape(-1, 2)
        ours, theirs = pick(one, places[:, 0]), pick(other, places[:, 1])
        scores = np.where(np.abs(ours.scores - theirs.scores) <= tie, ours.scores, theirs.scores)
        sides[0].append(ours)
        sides[1].append(dataclasses.replace(theirs, scores=scores))
    return sides


def map_of(dataset: Dataset, found: Sequence[Detections]) -> float | None:
    """Returns COCO's mAP of detections."""
    return coco.measure(dataset, list(found), step=0).summary.map


def differ(expected: Sequence[Detections], found: Sequence[Detections]) -> Difference:
    """Returns how detections differ."""
    ends = [max((len(each.scores) for each in side), default=0) for side in (expected, found)]
    scores: list[float] = []
    corners: list[float] = []
    unmatched = 0
    for one, other in zip(expected, found, strict=True):
        pairs, alone = match(one, other, (lowest(one, ends[0]), lowest(other, ends[1])))
        pairs = [(a, b) for a, b in pairs if max(one.scores[a], other.scores[b]) >= COMPARED_SCORE]
        scores += [abs(float(one.scores[a]) - float(other.scores[b])) for a, b in pairs]
        corners += [float(np.abs(one.boxes[a] - other.boxes[b]).max()) for a, b in pairs]
        unmatched += alone
    return Difference(
        matched=len(scores),
        unmatched=unmatched,
        greatest_score=max(scores, default=0.0),
        mean_score=float(np.mean(scores)) if scores else 0.0,
        greatest_corner=max(corners, default=0.0),
        mean_corner=float(np.mean(corners)) if corners else 0.0,
        expected=sum(len(each.scores) for each in expected),
        returned=sum(len(each.scores) for each in found),
    )


def lowest(found: Detections, end: int) -> float:
    """Returns the score below which a photo's detections were cut off, because `end` is the most; else COMPARED_SCORE.

    Scores that are nearly equal, as those of a model with hardly any training are, can lie on either side of the cut.
    """
    is_cut = len(found.scores) == end >= SHORTEST_CUT
    return max(COMPARED_SCORE, float(min(found.scores)) + CUT) if is_cut else COMPARED_SCORE


def match(
    one: Detections, other: Detections, cuts: tuple[float, float] = (COMPARED_SCORE, COMPARED_SCORE)
) -> tuple[list[tuple[int, int]], int]:
    """Returns pairs of detections that are the same box, and how many detections have no partner.

    Pairs are taken in the order of their IoU, whatever the scores. `cuts` are the scores from which on a detection of
    the other side is there, and one with less than COMPARED_SCORE needs no partner. Nor does a box without area.
    """
    overlap = ious(np.asarray(one.boxes), np.asarray(other.boxes))
    overlap[np.asarray(one.classes)[:, None] != np.asarray(other.classes)[None, :]] = 0
    pairs: list[tuple[int, int]] = []
    taken_one, taken_other = set[int](), set[int]()
    for place in np.argsort(-overlap, axis=None, kind="stable"):
        a, b = map(int, np.unravel_index(place, overlap.shape))
        if overlap[a, b] < SAME_BOX:
            break
        if a not in taken_one and b not in taken_other:
            taken_one.add(a)
            taken_other.add(b)
            pairs.append((a, b))
    return pairs, count_alone(one, taken_one, cuts[1]) + count_alone(other, taken_other, cuts[0])


def count_alone(found: Detections, taken: set[int], cut: float) -> int:
    """Returns how many of a photo's detections with an area and at least this score are not taken."""
    boxes = np.asarray(found.boxes, np.float64).reshape(-1, 4)
    sides = np.min(boxes[:, 2:] - boxes[:, :2], axis=1)
    rows = enumerate(zip(found.scores, sides, strict=True))
    return sum(score >= cut and side >= SMALLEST_SIDE and index not in taken for index, (score, side) in rows)


def ious(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """Returns the IoU of boxes [n, 4] with boxes [m, 4], ymin, xmin, ymax, xmax each, as [n, m]."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    inside = np.prod(np.clip(high - low, 0, None), axis=2, dtype=np.float64)
    areas = [np.prod(np.clip(each[:, 2:] - each[:, :2], 0, None), axis=1, dtype=np.float64) for each in (one, other)]
    shares: NDArray[np.float64] = inside / np.maximum(areas[0][:, None] + areas[1][None, :] - inside, 1e-12)
    return shares


def bounds_of(name: str, quantize: Quantize) -> Bounds:
    """Returns the bounds of a format. QUANTIZE changes some of the formats alone."""
    if name == "tflite":
        return INTEGERS if quantize in ("dynamic", "int8") else TFLITE
    return FLOAT16 if quantize == "float16" and name in HALVED else FLOAT32


def judge(before: float | None, after: float | None, difference: Difference, bounds: Bounds = FLOAT32) -> str:
    """Returns why an export is not the model, or an empty text if it is within its bounds."""
    reasons = []
    if before is not None and after is not None and abs(before - after) > bounds.map:
        where = " over the detections that both have" if bounds.score is not None else ""
        reasons.append(f"its mAP{where} is {after:.4f}, that of the model {before:.4f}")
    if bounds.score is not None and difference.greatest_score > bounds.score:
        reasons.append(f"scores differ by up to {difference.greatest_score:.4f}")
    if bounds.unmatched is not None and difference.unmatched > max(1, bounds.unmatched * 2 * difference.matched):
        reasons.append(f"{difference.unmatched} detections have no partner, {difference.matched} have one")
    too_many = difference.returned - difference.expected
    if bounds.unmatched is not None and abs(too_many) > max(1, LOST * difference.expected):
        reasons.append(f"it returns {difference.returned} detections, the model {difference.expected}")
    return "it does not find what the model finds: " + ", ".join(reasons) if reasons else ""


def log(name: str, found: Parity) -> None:
    """Logs one line about an export."""
    if found.difference is None:
        logger.info("parity: %s: %s%s", name, found.state, f": {found.words}" if found.words else "")
        return
    logger.info(
        "parity: %s %s: mAP %s on %d photos, the model %s; scores differ by at most %.5f; %.1f ms a photo, %.1f MB%s",
        name,
        "equals the model" if found.state == "equal" else "differs from the model",
        evaluate.rounded(found.export_map),
        found.photos,
        evaluate.rounded(found.model_map),
        found.difference.greatest_score,
        found.milliseconds,
        found.bytes / 1e6,
        f": {found.words}" if found.words else "",
    )

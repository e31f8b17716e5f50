"""The interface of an engine. An engine makes one generation of the zoo available to this job."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from entrypoint.engines.shared.class_outputs import Known
from entrypoint.settings.schema import Settings
from entrypoint.system.errors import UserError

LOSS = "Loss/total_loss"
# The outputs of a TFLite detector, in the order of TFLite_Detection_PostProcess.
TFLITE_OUTPUTS = ("detection_boxes", "detection_classes", "detection_scores", "num_detections")
# Clients divide encoded centres and sides by these numbers. Most published configs use the same numbers. The box coder
# is that of Faster R-CNN (arXiv:1506.01497, section 3.1.2).
SCALES = (10.0, 10.0, 5.0, 5.0)


@dataclass(frozen=True)
class Detections:
    """The objects that were found on one photo, with the highest score first."""

    key: str
    height: int  # of the photo in the bucket, upright, in pixels
    width: int
    boxes: Any  # float32 [n, 4]: ymin, xmin, ymax, xmax as fractions of the photo, see Box.from_detection
    classes: Any  # int [n]: ids of the label map
    scores: Any  # float32 [n]


class Trainer(Protocol):
    """A model in training."""

    @property
    def step(self) -> int:
        """Returns the number of finished steps."""

    @property
    def is_exact(self) -> bool:
        """Returns whether `detect` finds exactly what the checkpoint of the same weights finds on its own."""

    def start_from(self, prefix: str, known: Known | None = None) -> Any:
        """Fills the weights that fit with a checkpoint of the zoo, and logs the names of the other weights.

        `known` are the labels that the checkpoint was trained for too; their outputs are filled.
        """

    def restore(self, prefix: Path) -> None:
        """Restores a checkpoint that `save` wrote; raises JobError if a value is missing."""

    def share(self, identity: str) -> None:
        """Gives all machines the chief's weights; raises JobError if `identity` differs between machines."""

    def agree(self, is_stopped: bool, numbers: list[int]) -> tuple[bool, list[int]]:
        """Returns whether any machine must stop, and the chief's numbers, by which all machines decide what to do."""

    def follow(self, first: int, position: int, pace: float) -> None:
        """Stretches the schedule of the learning rate: step `first` + n takes its rate at `position` + n * `pace`."""

    def train(self, steps: int) -> list[dict[str, float]]:
        """Trains exactly `steps` steps; returns for each step its losses, including LOSS, and its `learning_rate`."""

    def seconds_of_input(self, batches: int) -> float:
        """Returns the seconds that the photos of a batch take without the model, as an average of some batches."""

    def detect(self, prefix: Path, records: list[str]) -> Iterator[Detections]:
        """Yields the detections of the present weights, which `save` wrote to `prefix`, on every photo of the records.

        In a cluster, one machine can call it without the others.
        """

    def averaged(self) -> AbstractContextManager[None]:
        """Puts the averaged weights in the place of the present ones while the block runs, for `save` and `detect`."""

    def save(self, prefix: Path) -> None:
        """Writes PREFIX.index and PREFIX.data-*, which `restore` and upstream's own exporters read."""


@dataclass(frozen=True)
class Normalization:
    """A model takes (value - mean) / std of each channel, for values from 0 to 255.

    Each tuple has a number for each channel, or one number if all channels have the same.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class TFLiteSource:
    """What belongs to a SavedModel for TFLite's converter."""

    # [ycenter, xcenter, height, width] each, as fractions of the photo; None for a model without the signature `raw`
    anchors: list[list[float]] | None
    normalization: Normalization


@dataclass(frozen=True)
class ClientPhoto:
    """A photo in the two forms that clients of an exported model give it in."""

    pixels: Any  # uint8 [height, width, 3]
    resized: Any  # float32 [input height, input width, 3], from 0 to 255, with the padding of the model's own resizer
    share: tuple[float, float]  # how much of the height and the width of `resized` is the photo


class Engine(Protocol):
    """The functions of an engine. `config` is upstream's TrainEvalPipelineConfig with this job's values in it."""

    def extractors(self) -> set[str]:
        """Returns the types of feature extractors that upstream has for this engine."""

    def rehearse(self, config: Any) -> None:
        """Builds model, augmentation and optimizer, and forgets them; raises UserError if upstream refuses them."""

    def build(
        self, config: Any, settings: Settings, step: int, repeats: list[float] | None, *, averages: bool = False
    ) -> Trainer:
        """Returns a trainer with random weights. The seed and the step decide the order of its photos.

        `repeats` lists for each label how often photos with this label are shown in an epoch; None shows each photo
        once. `step` is the step at which the training begins: a job that resumes must not repeat the order of photos
        that it had at its start. `averages` is whether the trainer averages its weights.
        """

    def evaluate(self, config: Any, checkpoint: Path, records: list[str]) -> Iterator[Detections]:
        """Yields the detections of a trained model on every photo of the records, in their order."""

    def export(self, config: Any, checkpoint: Path, folder: Path) -> None:
        """Writes a trained model as a SavedModel."""

    def prepare_photos(self, config: Any, encoded: Iterable[bytes]) -> Iterator[ClientPhoto]:
        """Yields photos of the records as clients of an exported model give them to it."""

    def export_tflite_source(self, config: Any, checkpoint: Path, folder: Path) -> TFLiteSource:
        """Writes the SavedModel that TFLite's converter reads, and returns what its clients need beside it."""

    def export_web_source(self, config: Any, checkpoint: Path, folder: Path) -> None:
        """Writes the SavedModel of an SSD that is converted to TensorFlow.js: signature `detect`, without NMS."""


def refuse_cluster(generation: str, settings: Settings) -> None:
    """Raises UserError if TF_CONFIG is set for a TF1 model, because TF1 models train on one machine."""
    if generation == "tf1" and settings.tf_config:
        raise UserError("TF_CONFIG: models of the TF1 zoo train on one machine; choose a TF2 model, or unset TF_CONFIG")

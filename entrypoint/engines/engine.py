"""What the steps ask of an engine. An engine brings one generation of the zoo to this job."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from entrypoint.settings.schema import Settings
from entrypoint.system.errors import UserError

LOSS = "Loss/total_loss"
MAX_DETECTIONS = 10  # on a phone, as in upstream's own converter


@dataclass(frozen=True)
class Detections:
    """The objects that were found on one photo, those of the highest score first."""

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
        """The number of steps done."""

    def start_from(self, prefix: str) -> Any:
        """Fills the weights with a checkpoint of the zoo, as far as they fit, and logs which did not."""

    def restore(self, prefix: Path) -> None:
        """Restores what `save` wrote; raises JobError if a value is missing."""

    def share(self, identity: str) -> None:
        """Gives all machines the chief's weights; raises JobError if one trains on something else than `identity`."""

    def agree(self, is_stopped: bool, steps: int, is_due: bool) -> tuple[bool, int, bool]:
        """Returns what all machines do next: whether they stop, the chief's number of steps, and whether it saves."""

    def train(self, steps: int) -> list[dict[str, float]]:
        """Trains exactly so many steps; returns the losses of each, LOSS among them, and its `learning_rate`."""

    def save(self, prefix: Path) -> None:
        """Writes PREFIX.index and PREFIX.data-*, which `restore` and upstream's own exporters read."""


class Engine(Protocol):
    """The calls of an engine; `config` is upstream's TrainEvalPipelineConfig with this job's values in it."""

    def extractors(self) -> set[str]:
        """Returns the types of feature extractors that upstream has for this engine."""

    def build(self, config: Any, settings: Settings, step: int, repeats: list[float] | None) -> Trainer:
        """Returns a model to train, with random weights, and photos in an order that seed and step decide.

        `repeats` says by label how often photos with it are shown in an epoch; None shows each photo once. The step is
        the one that the training begins at: a job that resumes must not see the photos once more in the order of its
        start.
        """

    def evaluate(self, config: Any, checkpoint: Path, records: list[str]) -> Iterator[Detections]:
        """Yields the detections of a trained model on every photo of the records, in their order."""

    def export(self, config: Any, checkpoint: Path, folder: Path) -> None:
        """Writes a trained model as a SavedModel."""

    def export_tflite_source(self, config: Any, checkpoint: Path, folder: Path) -> list[list[float]]:
        """Writes the SavedModel that TFLite's converter reads, and returns the anchors."""


def refuse_cluster(generation: str, settings: Settings) -> None:
    """Raises UserError if several machines are to train a model whose engine trains on one machine."""
    if generation == "tf1" and settings.tf_config:
        raise UserError("TF_CONFIG: models of the TF1 zoo train on one machine; name a TF2 model, or unset it")

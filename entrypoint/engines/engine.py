"""What the steps ask of an engine. An engine brings one generation of the zoo to this job."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from entrypoint import workspace
from entrypoint.settings.schema import Settings
from entrypoint.system.errors import UserError
from entrypoint.training import pipeline
from entrypoint.workspace import Workspace

LOSS = "Loss/total_loss"
MAX_DETECTIONS = 10  # on a phone; as upstream's own converter has it


@dataclass(frozen=True)
class Detections:
    """What was found on one photo, the best first."""

    key: str
    height: int
    width: int
    boxes: Any  # float32 [n, 4]: ymin, xmin, ymax, xmax as fractions of the photo
    classes: Any  # int [n]: ids of the label map
    scores: Any  # float32 [n]


class Trainer(Protocol):
    """A model in training."""

    @property
    def step(self) -> int:
        """The number of steps done."""

    def start_from(self, prefix: str) -> Any:
        """Fills the weights with a checkpoint of the zoo, as far as they fit, and logs what did not."""

    def restore(self, prefix: Path) -> None:
        """Goes back to where `save` was called; JobError where a value is missing."""

    def share(self, identity: str) -> None:
        """Gives all machines what the chief has; JobError where one trains on something else than `identity`."""

    def agree(self, is_stopped: bool, steps: int, is_due: bool) -> tuple[bool, int, bool]:
        """What the machines do next: stop if one is to, else so many steps as the chief, after saving if it saves."""

    def save(self, prefix: Path) -> None:
        """Writes PREFIX.index and PREFIX.data-*, from which `restore` and upstream's own exporters read."""


class Engine(Protocol):
    """The calls of an engine; `config` is upstream's TrainEvalPipelineConfig with this job's values in it."""

    def extractors(self) -> set[str]:
        """The types of feature extractors that upstream has for this engine."""

    def build(self, config: Any, settings: Settings, step: int, repeats: list[float] | None) -> Trainer:
        """A model to train, with random weights, and photos in an order that follows from the seed and the step.

        `repeats` says by label how often photos with it are shown in an epoch, None that each is shown once. A job that
        resumes at that step must not see the photos once more in the order that it saw from its start.
        """

    def train(self, trainer: Trainer, steps: int) -> list[dict[str, float]]:
        """Trains exactly so many steps; for each its losses, LOSS among them, and its `learning_rate`."""

    def evaluate(self, config: Any, checkpoint: Path, records: list[str]) -> Iterator[Detections]:
        """The detections of a trained model on every photo of the records."""

    def export(self, config: Any, checkpoint: Path, folder: Path) -> None:
        """Writes a trained model as a SavedModel."""

    def export_tflite_source(self, config: Any, checkpoint: Path, folder: Path) -> list[list[float]]:
        """Writes the SavedModel that TFLite's converter takes, and returns the anchors."""


def load(work: Workspace) -> tuple[Engine, Any]:
    """The engine of this job's pipeline.config, and the config."""
    generation = workspace.read_json(work.changes, "pipeline")["generation"]
    return of(generation), pipeline.read(work.pipeline)


def of(generation: str) -> Engine:
    """The engine of a generation, `tf1` or `tf2`; a process uses one, since they differ in TensorFlow's mode."""
    return cast(Engine, importlib.import_module(f"entrypoint.engines.{generation}"))


def refuse_cluster(generation: str, settings: Settings) -> None:
    """UserError where several machines are to train a model of an engine that trains on one."""
    if generation == "tf1" and settings.tf_config:
        raise UserError("TF_CONFIG: models of the TF1 zoo train on one machine; name a TF2 model, or unset it")

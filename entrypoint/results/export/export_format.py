"""What an export format declares."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entrypoint.engines.engine import ClientPhoto
from entrypoint.settings.choices import Quantize
from entrypoint.settings.schema import Settings
from entrypoint.workspace import Workspace
from entrypoint.zoo import pipeline_config

# Boxes float32 [n, 4] (ymin, xmin, ymax, xmax as fractions of the photo), classes (ids of the label map) and scores.
Found = tuple[Any, Any, Any]


# Why a model of this config cannot be exported with this QUANTIZE, or None.
Refusal = Callable[[Any, Quantize], str | None]


def every_model(config: Any, quantize: Quantize) -> None:
    """Refuses no model. Neither argument is looked at."""


SSD = {"ssd": "SSD"}


def fixed_inputs_alone(name: str, architectures: Mapping[str, str] = SSD) -> Refusal:
    """Returns what refuses models whose inputs have several sizes, and models of other architectures.

    `architectures` are those that the format can hold: the name in a pipeline.config, and the usual name.
    """

    def refusal(config: Any, quantize: Quantize) -> str | None:
        del quantize
        if config.model.WhichOneof("model") in architectures and pipeline_config.input_size(config):
            return None
        names = " and ".join(architectures.values())
        return f"{names} models alone, of an input that is one size, are exported to {name}"

    return refusal


@dataclass(frozen=True)
class ExportFormat:
    """A format in which the trained model is exported; its module has it as FORMAT."""

    name: str  # in EXPORTS
    folder: str  # in WORK_DIR and in RESULT_DIR
    files: tuple[str, ...]  # in the folder, of every model, beside labels.json and threshold.json
    write: Callable[[Workspace, Path], None]  # writes the files into an empty folder
    refusal: Refusal
    # Opens the exported model in the runtime that its users have; None if that runtime does not run here.
    open: Callable[[Path], Callable[[ClientPhoto], Found]] | None = None
    files_of_ssd: tuple[str, ...] = ()  # in the folder, of an SSD alone
    is_of_tensorflow: bool = False  # its runtime is the TensorFlow of the job
    # A program that prints what the exported model finds on photo.jpg, for RESULT_DIR as the current folder. The report
    # puts the recommended score in the place of its THRESHOLD, and the folder in the place of a FOLDER.
    snippet: str | None = None
    is_versioned: bool = False  # RESULT_DIR has a folder for each SERVING_VERSION in its folder
    packages: tuple[str, ...] = ()  # what it imports that is not in the job's own list of packages

    def place(self, settings: Settings) -> str:
        """Returns the folder in RESULT_DIR into which a job with these settings publishes the files."""
        if self.is_versioned and settings.serving_version is not None:
            return f"{self.folder}/{settings.serving_version}"
        return self.folder

    def files_for(self, config: Any) -> tuple[str, ...]:
        """Returns the files of a model of this config."""
        return self.files + (self.files_of_ssd if config.model.HasField("ssd") else ())

    @property
    def missing(self) -> list[str]:
        """The packages that are not installed."""
        return [name for name in self.packages if importlib.util.find_spec(name) is None]

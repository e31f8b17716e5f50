"""Which formats the trained model is exported to: decided before the training, since not every model fits each."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from entrypoint import workspace
from entrypoint.results.export.export_format import ExportFormat
from entrypoint.settings.choices import Export
from entrypoint.settings.schema import Settings
from entrypoint.system import documents, files
from entrypoint.system.errors import UserError
from entrypoint.training import pipeline
from entrypoint.workspace import Workspace
from entrypoint.zoo import pipeline_config

logger = logging.getLogger("job")

NAMES: tuple[str, ...] = get_args(Export)


@dataclass(frozen=True)
class ExportsDocument:
    """The content of exports.json."""

    exports: tuple[str, ...]


def run(work: Workspace) -> str:
    """Writes exports.json; returns a digest of it.

    Raises:
        UserError: EXPORTS names a format to which the model cannot be exported.
    """
    chosen = choose(pipeline_config.read(work.pipeline), work.settings)
    documents.write(work.exports, ExportsDocument(chosen))
    return files.digest(chosen)


def outputs(work: Workspace) -> list[Path]:
    """Returns the files that the step leaves in WORK_DIR."""
    return [work.exports]


def load(work: Workspace) -> list[ExportFormat]:
    """Returns the formats that the step chose."""
    names = documents.read(ExportsDocument, workspace.existing(work.exports, "exports")).exports
    return [format_of(name) for name in names]


def format_of(name: str) -> ExportFormat:
    """Returns the format of that name; its module may import TensorFlow only when it writes."""
    found: ExportFormat = importlib.import_module(f"entrypoint.results.export.{name}").FORMAT
    return found


def folders(names: Iterable[str] = NAMES) -> list[str]:
    """Returns the folders of formats in RESULT_DIR."""
    return [format_of(name).folder for name in names]


def refuse_early(settings: Settings) -> None:
    """Fails fast if EXPORTS names a format that does not fit the model, as far as its config is known by now."""
    path = pipeline.find(settings)
    if path and "exports" in settings.model_fields_set:
        choose(pipeline_config.read(path), settings)


def choose(config: Any, settings: Settings) -> tuple[str, ...]:
    """Returns the formats to export to. A format of the default that does not fit the model is left out.

    The order is that of the formats, whatever their order in EXPORTS.

    Raises:
        UserError: EXPORTS names a format that does not fit, or whose packages are not installed.
    """
    found = {name: format_of(name).refusal(config, settings.quantize) for name in settings.exports}
    refused = {name: words for name, words in found.items() if words}
    rest = tuple(name for name in NAMES if name in settings.exports and name not in refused)
    if missing := {str(name): each for name in rest if (each := format_of(name).missing)}:
        raise UserError(lacking(missing))
    for name, words in refused.items():
        if "exports" in settings.model_fields_set:
            raise UserError(f"EXPORTS={name}: {words}; set EXPORTS={','.join(rest) or 'saved_model'}")
        logger.info("exports: %s is left out: %s", name, words)
    return rest


def lacking(missing: dict[str, list[str]]) -> str:
    """Returns the message about formats and the packages that they lack."""
    packages = ", ".join(each for names in missing.values() for each in names)
    lists = [f"requirements-{name}.txt" for name in missing]
    return (
        f"EXPORTS={','.join(missing)}: these packages are not installed: {packages}; "
        f"`pip install --no-deps --require-hashes {' '.join(f'-r {each}' for each in lists)}` adds them, and so does "
        f"`--build-arg EXTRAS='{' '.join(lists)}'` to an image"
    )

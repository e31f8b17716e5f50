"""Imports the engine of a model only when it is needed: an engine imports TensorFlow and sets TensorFlow's mode."""

from __future__ import annotations

from typing import Any

from entrypoint.engines.engine import Engine
from entrypoint.workspace import Workspace
from entrypoint.zoo import pipeline_config


def load(work: Workspace) -> tuple[Engine, Any]:
    """Returns the engine for this job's pipeline.config, and the config."""
    config = pipeline_config.read(work.pipeline)
    return engine_of(pipeline_config.generation_of(config, work.pipeline)), config


def engine_of(generation: str) -> Engine:
    """Returns the engine of a generation, `tf1` or `tf2`.

    A process can use only one of the two engines, because they need different modes of TensorFlow.
    """
    if generation == "tf1":
        from entrypoint.engines.tf1 import Tf1Engine

        return Tf1Engine()
    from entrypoint.engines.tf2 import Tf2Engine

    return Tf2Engine()

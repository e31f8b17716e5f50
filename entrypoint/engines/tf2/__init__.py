"""The engine of the zoo's second generation: Keras models of the Object Detection API."""

from entrypoint.engines.tf2.tf2_engine import Tf2Engine

__all__ = ["Tf2Engine"]

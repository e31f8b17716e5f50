"""The engine of the zoo's second generation: Keras models of the Object Detection API. See engine.Engine."""

from entrypoint.engines.tf2.detector import evaluate
from entrypoint.engines.tf2.exporter import export, export_tflite_source
from entrypoint.engines.tf2.model import extractors
from entrypoint.engines.tf2.trainer import build, train

__all__ = ["build", "evaluate", "export", "export_tflite_source", "extractors", "train"]

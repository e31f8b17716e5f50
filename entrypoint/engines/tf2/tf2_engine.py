"""The engine of TF2 models, with the interface that the steps use."""

from __future__ import annotations

from entrypoint.engines.shared import photos
from entrypoint.engines.tf2 import detector, exporter, model, trainer


class Tf2Engine:
    """Trains Keras models, on all devices of all machines. The methods are those of Engine."""

    extractors = staticmethod(model.extractors)
    rehearse = staticmethod(trainer.rehearse)
    build = staticmethod(trainer.build)
    evaluate = staticmethod(detector.evaluate)
    export = staticmethod(exporter.export)
    prepare_photos = staticmethod(photos.prepare)
    export_tflite_source = staticmethod(exporter.export_tflite_source)
    export_web_source = staticmethod(exporter.export_web_source)

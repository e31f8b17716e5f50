"""model_web/: a graph model of TensorFlow.js, for browsers and Node, which finds boxes without NMS."""

import tempfile
from pathlib import Path

from entrypoint.engines import loading
from entrypoint.results.export import tfjs_converter
from entrypoint.results.export.export_format import ExportFormat, fixed_inputs_alone
from entrypoint.training import train
from entrypoint.workspace import Workspace


def write(work: Workspace, folder: Path) -> None:
    """Writes model.json and its weights: int32 photos [1, height, width, 3] of any size in, scores and boxes out.

    `scores` is float32 [1, anchors, labels], without the background. `boxes` is float32 [1, anchors, 1, 4]: ymin, xmin,
    ymax, xmax as fractions of the photo. Clients remove duplicates themselves.

    Raises:
        JobError: the conversion failed, or the model has an operation that TensorFlow.js does not know.
    """
    engine, config = loading.load(work)
    with tempfile.TemporaryDirectory(dir=work.root) as scratch:
        source = Path(scratch) / "source"
        engine.export_web_source(config, train.chosen_checkpoint(work), source)
        tfjs_converter.run(source, folder, work.settings.quantize)


FORMAT = ExportFormat("tfjs", "model_web", ("model.json",), write, fixed_inputs_alone("TensorFlow.js"))

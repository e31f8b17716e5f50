"""Photos as the job gives them to TFLite's models are those that the model itself makes of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from entrypoint.zoo import pipeline_config
from tests.conftest import ROOT, environment

PADDED = "keep_aspect_ratio_resizer { min_dimension: 160 max_dimension: 160 pad_to_max_dimension: true }"
FIXED = "fixed_shape_resizer { height: 160 width: 160 }"
# The greatest difference between the model's own preprocessing and that of the client.
PROGRAM = """
import io, sys
from pathlib import Path
import numpy as np
from PIL import Image
from entrypoint.settings import environment
from entrypoint.settings.schema import Settings
from entrypoint.zoo import pipeline_config
environment.prepare(Settings())
import tensorflow as tf
from entrypoint.engines.shared import normalization, photos
from entrypoint.engines.tf2 import model as models
from entrypoint.results.export import tflite
config = pipeline_config.read(Path(sys.argv[1]))
model = models.build(config, is_training=False)
pixels = np.random.default_rng(3).integers(0, 256, [90, 140, 3], np.uint8)
file = io.BytesIO()
Image.fromarray(pixels).save(file, "PNG")
(photo,) = photos.prepare(config, [file.getvalue()])
scaling = normalization.measure(lambda value: model.preprocess(tf.fill([1, 160, 160, 3], value))[0][0, 0, 0].numpy())
wanted = model.preprocess(tf.cast(pixels, tf.float32)[tf.newaxis])[0].numpy()
found = tflite.normalised(photo, scaling)
print(found.shape == wanted.shape, float(np.abs(found - wanted).max()))
"""


@pytest.mark.parametrize("resizer", [PADDED, FIXED])
def test_photo_of_a_client_is_that_of_the_model_also_in_its_padding(tmp_path: Path, resizer: str) -> None:
    config = pipeline_config.read(ROOT / "pipelines" / "smoke.config")
    changed = pipeline_config.parse(f"model {{ ssd {{ image_resizer {{ {resizer} }} }} }}")
    config.model.ssd.image_resizer.CopyFrom(changed.model.ssd.image_resizer)
    (tmp_path / "pipeline.config").write_text(pipeline_config.write(config))
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "pipeline.config")]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    has_shape, difference = result.stdout.split()
    assert has_shape == "True"
    assert float(difference) < 1e-4

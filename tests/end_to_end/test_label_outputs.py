"""The outputs for labels in real models of each architecture, found by their names in the checkpoints."""

import json
import subprocess
import sys

import pytest

from tests.conftest import environment

# A model of each kind of head.
MODELS = {
    "tf1": [
        "ssd_mobilenet_v1_coco",
        "ssd_mobilenet_v1_ppn_coco",
        "faster_rcnn_inception_v2_coco",
        "rfcn_resnet101_coco",
    ],
    "tf2": [
        "ssd_mobilenet_v2_320x320",
        "efficientdet_d0",
        "faster_rcnn_resnet50_v1_640x640",
        "centernet_mobilenetv2_fpn_512x512",
    ],
}


@pytest.mark.parametrize("generation", MODELS)
def test_all_variables_that_depend_on_the_number_of_labels_keep_their_outputs(generation: str) -> None:
    command = [sys.executable, "-m", "tests.zoo.label_outputs", generation, *MODELS[generation]]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [each["name"] for each in found] == MODELS[generation]
    for each in found:
        assert each["differ"]
        assert each["kept"] == each["differ"], each["name"]

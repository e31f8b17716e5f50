"""Models of each generation of the zoo and each kind, as `make test-zoo` tries every one of them."""

from __future__ import annotations

import math

import pytest

from entrypoint.zoo import catalogue
from tests.zoo import sweep

MODELS = (
    "centernet_resnet50_v2_512x512",
    "faster_rcnn_resnet50_v1_640x640",
    "ssd_mobilenet_v1_0.75_depth_quantized_coco",
)


@pytest.mark.parametrize("name", MODELS)
def test_model_trains_from_its_archive_by_its_name_alone(name: str) -> None:
    row = sweep.try_model(catalogue.find(name))
    restored, total = (int(count) for count in row.restored.split(" of "))
    # All but the weights and biases for 90 classes, of which an SSD has two for each of six maps.
    assert total - 12 <= restored < total
    assert all(math.isfinite(loss) for loss in row.losses)
    assert ("model_android" in row.exports) == name.startswith(("ssd", "efficientdet", "centernet"))
    assert row.config == ("archive's" if catalogue.find(name).pipeline is None else "ours")

"""The registries of formats: the values of EXPORTS and DATA_FORMAT. Each value is the name of a module."""

from typing import Literal

# entrypoint/results/export/NAME.py
Export = Literal["saved_model", "tflite", "onnx", "openvino", "tfjs", "coreml"]
# What exported weights, and for `int8` the layers between them, are stored and computed as.
Quantize = Literal["none", "float16", "dynamic", "int8"]
# entrypoint/data/formats/NAME.py; `auto` finds out.
DataFormat = Literal[
    "auto",
    "cloud_annotations",
    "coco",
    "pascal_voc",
    "yolo",
    "create_ml",
    "csv_rows",
    "labelme",
    "via",
    "label_studio",
    "dota",
    "open_images",
    "vertex_ai",
]

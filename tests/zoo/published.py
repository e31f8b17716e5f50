"""The pipeline.config in each archive of the zoo, with all fields that variables and their shapes depend on.

The zoo itself cannot be part of a test run. But a config determines a model: an archive that is made from a config has
the names and shapes of the published archive. tests/zoo/archives.py compares them with the indexes in ../shared. The
figures are those of the configs that are published with the models, in research/object_detection of
github.com/tensorflow/models.
"""

from __future__ import annotations

import math
from typing import Any

from entrypoint.zoo import catalogue, pipeline_config

# The training in every config of the zoo, for as many replicas as the model was trained on.
TRAINING = """
train_config {
  batch_size: 64 replicas_to_aggregate: 8 sync_replicas: true startup_delay_steps: 0 num_steps: 25000
  fine_tune_checkpoint: "PATH_TO_BE_CONFIGURED/classifier.ckpt-1" fine_tune_checkpoint_type: "classification"
  use_bfloat16: true max_number_of_boxes: 100 unpad_groundtruth_tensors: false
}
train_input_reader {
  label_map_path: "PATH_TO_BE_CONFIGURED/label_map.txt"
  tf_record_input_reader { input_path: "PATH_TO_BE_CONFIGURED/train2017-?????-of-00256.tfrecord" }
}
"""
QUANTIZED = "quantization { delay: 48000 activation_bits: 8 weight_bits: 8 }"
COARSEST = 128  # pixels per cell at the seventh level of a pyramid
# By number: EfficientNet, side of the input, filters and iterations of the pyramid, layers of the heads
# (Tan et al. 2020, arXiv:1911.09070, table 1; the sizes of D6 and D7 and their backbone are the zoo's own).
EFFICIENTDETS = {
    2: (2, 768, 112, 5, 3),
    3: (3, 896, 160, 6, 4),
    4: (4, 1024, 224, 7, 4),
    5: (5, 1280, 288, 7, 4),
    6: (6, 1408, 384, 8, 5),
    7: (6, 1536, 384, 8, 5),
}


def config(name: str, shrink: int = 1) -> Any:
    """Returns the TrainEvalPipelineConfig of a model's archive, with 90 classes; sides are divided by `shrink`."""
    from google.protobuf import text_format

    base, fields = (name, "") if catalogue.find(name).pipeline else variants()[name]
    path = catalogue.find(base).pipeline
    assert path is not None, f"{base} has no pipeline of ours"
    result = pipeline_config.read(path)
    text_format.Merge(f"model {{ {fields} }}" if fields else "", result)
    text_format.Merge(TRAINING, result)
    if "_quantized_" in name:
        text_format.Merge(f"graph_rewriter {{ {QUANTIZED} }}", result)
    architecture = result.model.WhichOneof("model")
    divide(getattr(result.model, architecture).image_resizer, shrink)
    return result


def divide(resizer: Any, shrink: int) -> None:
    """Divides the sides of an image_resizer, and rounds them up to multiples of COARSEST.

    A pyramid of seven levels can halve these sides seven times without a remainder.
    """
    if shrink == 1:
        return
    chosen = getattr(resizer, resizer.WhichOneof("image_resizer_oneof"))
    for field in ("height", "width", "min_dimension", "max_dimension"):
        if field in chosen.DESCRIPTOR.fields_by_name and getattr(chosen, field):
            setattr(chosen, field, math.ceil(getattr(chosen, field) / shrink / COARSEST) * COARSEST)


def variants() -> dict[str, tuple[str, str]]:
    """Returns by name a model with a pipeline of ours, and the fields of `model` in which the variant differs from it.

    `config` uses an entry only if the model itself has no pipeline of ours.
    """
    return {**efficientdets(), **retinanets(), **center_nets(), **two_stages(), **first_ssds(), **first_two_stages()}


def model(architecture: str, extractor: str, *fields: str) -> str:
    """Returns the text of `model` with this extractor and these fields of the architecture."""
    return f'{architecture} {{ feature_extractor {{ type: "{extractor}" }} {" ".join(fields)} }}'


def fixed(side: int) -> str:
    """Returns a resizer that stretches photos to a square."""
    return f"image_resizer {{ fixed_shape_resizer {{ height: {side} width: {side} }} }}"


def padded(shorter: int, longer: int) -> str:
    """Returns a resizer that keeps the shapes of photos and pads them to one size."""
    sides = f"min_dimension: {shorter} max_dimension: {longer} pad_to_max_dimension: true"
    return f"image_resizer {{ keep_aspect_ratio_resizer {{ {sides} }} }}"


def efficientdets() -> dict[str, tuple[str, str]]:
    """Returns EfficientDet from D2 to D7."""
    result = {}
    for number, (backbone, side, filters, iterations, layers) in EFFICIENTDETS.items():
        combine = "combine_method: 'sum'" if number > 5 else ""
        pyramid = f"bifpn {{ num_iterations: {iterations} num_filters: {filters} {combine} }}"
        head = f"depth: {filters} num_layers_before_predictor: {layers}"
        fields = (
            f"feature_extractor {{ {pyramid} }}",
            f"box_predictor {{ weight_shared_convolutional_box_predictor {{ {head} }} }}",
            padded(side, side),
        )
        extractor = f"ssd_efficientnet-b{backbone}_bifpn_keras"
        result[f"efficientdet_d{number}"] = ("efficientdet_d0", model("ssd", extractor, *fields))
    return result


def retinanets() -> dict[str, tuple[str, str]]:
    """Returns the SSDs on feature pyramids, of the second generation."""
    base = "ssd_resnet50_v1_fpn_640x640"
    result = {"ssd_mobilenet_v1_fpn_640x640": (base, model("ssd", "ssd_mobilenet_v1_fpn_keras"))}
    for depth in (50, 101, 152):
        for side in (640, 1024):
            fields = model("ssd", f"ssd_resnet{depth}_v1_fpn_keras", fixed(side))
            result[f"ssd_resnet{depth}_v1_fpn_{side}x{side}"] = (base, fields)
    return result


def center_nets() -> dict[str, tuple[str, str]]:
    """Returns the CenterNets. The hourglass expects the colours in the order in which OpenCV reads them."""
    base = "centernet_resnet50_v1_fpn_512x512"
    means = "channel_means: [104.01362025, 114.03422265, 119.9165958]"
    deviations = "channel_stds: [73.6027665, 69.89082075, 70.9150767]"
    colours = f"feature_extractor {{ bgr_ordering: true {means} {deviations} }}"
    return {
        "centernet_hg104_512x512": (base, model("center_net", "hourglass_104", colours)),
        "centernet_hg104_1024x1024": (base, model("center_net", "hourglass_104", colours, padded(1024, 1024))),
        "centernet_resnet101_v1_fpn_512x512": (base, model("center_net", "resnet_v1_101_fpn")),
        "centernet_resnet50_v2_512x512": (base, model("center_net", "resnet_v2_50")),
    }


def two_stages() -> dict[str, tuple[str, str]]:
    """Returns the Faster R-CNNs of the second generation."""
    base = "faster_rcnn_resnet50_v1_640x640"
    own_boxes = "second_stage_box_predictor { mask_rcnn_box_predictor { share_box_across_classes: false } }"
    result = {}
    for depth in (50, 101, 152):
        extractor = f"faster_rcnn_resnet{depth}_keras"
        name = f"faster_rcnn_resnet{depth}_v1_"
        result[f"{name}640x640"] = (base, model("faster_rcnn", extractor))
        result[f"{name}1024x1024"] = (base, model("faster_rcnn", extractor, fixed(1024)))
        result[f"{name}800x1333"] = (base, model("faster_rcnn", extractor, padded(800, 1333), own_boxes))
    uncropped = "initial_crop_size: 17 maxpool_kernel_size: 1 maxpool_stride: 1"
    for side in (640, 1024):
        fields = model("faster_rcnn", "faster_rcnn_inception_resnet_v2_keras", fixed(side), uncropped, own_boxes)
        result[f"faster_rcnn_inception_resnet_v2_{side}x{side}"] = (base, fields)
    return result


def first_ssds() -> dict[str, tuple[str, str]]:
    """Returns the SSDs of the first generation."""
    synchronous, lite = "ssd_mobilenet_v2_320x320", "ssdlite_mobilenet_v2_coco"
    thin = "feature_extractor { depth_multiplier: 0.75 }"
    size = fixed(300)
    result = {
        "ssd_mobilenet_v1_0.75_depth_coco": (synchronous, model("ssd", "ssd_mobilenet_v1", thin, size)),
        "ssd_mobilenet_v1_quantized_coco": (synchronous, model("ssd", "ssd_mobilenet_v1", size)),
        "ssd_mobilenet_v1_0.75_depth_quantized_coco": (synchronous, model("ssd", "ssd_mobilenet_v1", thin, size)),
        "ssd_mobilenet_v1_ppn_coco": (synchronous, model("ssd", "ssd_mobilenet_v1_ppn", size, PPN)),
        "ssd_mobilenet_v1_fpn_coco": ("ssd_resnet50_v1_fpn_640x640", model("ssd", "ssd_mobilenet_v1_fpn")),
        "ssd_resnet_50_fpn_coco": ("ssd_resnet50_v1_fpn_640x640", model("ssd", "ssd_resnet50_v1_fpn")),
        "ssd_mobilenet_v2_quantized_coco": ("ssd_mobilenet_v2_coco", model("ssd", "ssd_mobilenet_v2", PLAIN_HEAD)),
        "ssd_inception_v2_coco": ("ssd_mobilenet_v1_coco", model("ssd", "ssd_inception_v2", OVERRIDDEN, WIDE_HEAD)),
        "ssd_mobilenet_v2_mnasfpn_coco": (
            "ssd_mobilenet_v2_fpnlite_320x320",
            model("ssd", "ssd_mobilenet_v2_mnasfpn", MNASFPN),
        ),
    }
    for kind in ("mobiledet_cpu", "mobiledet_dsp", "mobiledet_edgetpu"):
        result[f"ssd_{kind}_coco"] = (lite, model("ssd", f"ssd_{kind}", fixed(320)))
    for kind in ("mobilenet_v3_large", "mobilenet_v3_small"):
        result[f"ssd_{kind}_coco"] = (lite, model("ssd", f"ssd_{kind}", fixed(320), OVERRIDDEN))
    return result


PPN = """
box_predictor { weight_shared_convolutional_box_predictor {
  depth: 512 num_layers_before_predictor: 1 kernel_size: 1 share_prediction_tower: true class_prediction_bias_init: -4.6
  conv_hyperparams {
    activation: RELU_6
    regularizer { l2_regularizer { weight: 4e-5 } }
    initializer { random_normal_initializer { stddev: 0.01 } }
    batch_norm { scale: true center: true train: true decay: 0.97 epsilon: 0.001 }
  }
} }
anchor_generator { ssd_anchor_generator { min_scale: 0.15 reduce_boxes_in_lowest_layer: false } }
"""
PLAIN_HEAD = "box_predictor { convolutional_box_predictor { kernel_size: 1 use_depthwise: false } }"
WIDE_HEAD = "box_predictor { convolutional_box_predictor { kernel_size: 3 } }"
MNASFPN = """
feature_extractor { fpn { max_level: 6 additional_layer_depth: 48 } }
box_predictor { weight_shared_convolutional_box_predictor { depth: 64 } }
anchor_generator { multiscale_anchor_generator { max_level: 6 anchor_scale: 3.0 scales_per_octave: 3 } }
"""
OVERRIDDEN = "feature_extractor { override_base_feature_extractor_hyperparams: true }"


def first_two_stages() -> dict[str, tuple[str, str]]:
    """Returns the two-stage models of the first generation."""
    resnet50, resnet101 = "faster_rcnn_resnet50_coco", "faster_rcnn_resnet101_coco"
    few = "first_stage_max_proposals: 20 second_stage_batch_size: 20"
    uncropped = "initial_crop_size: 17 maxpool_kernel_size: 1 maxpool_stride: 1"
    atrous = f"""first_stage_atrous_rate: 2 feature_extractor {{ first_stage_features_stride: 8 }} {uncropped}
      first_stage_anchor_generator {{ grid_anchor_generator {{ height_stride: 8 width_stride: 8 }} }}"""
    nas = f"first_stage_max_proposals: 50 second_stage_batch_size: 49 {uncropped} {fixed(1200)}"
    inception = "faster_rcnn_inception_resnet_v2"
    return {
        "faster_rcnn_resnet50_lowproposals_coco": (resnet50, model("faster_rcnn", "faster_rcnn_resnet50", few)),
        "faster_rcnn_resnet101_lowproposals_coco": (resnet101, model("faster_rcnn", "faster_rcnn_resnet101", few)),
        "rfcn_resnet101_coco": (resnet101, model("faster_rcnn", "faster_rcnn_resnet101", RFCN)),
        f"{inception}_atrous_coco": (resnet101, model("faster_rcnn", inception, atrous)),
        f"{inception}_atrous_lowproposals_coco": (resnet101, model("faster_rcnn", inception, atrous, few)),
        "faster_rcnn_nas": (resnet101, model("faster_rcnn", "faster_rcnn_nas", nas)),
        "faster_rcnn_nas_lowproposals_coco": (resnet101, model("faster_rcnn", "faster_rcnn_nas", nas, few)),
    }


RFCN = """second_stage_box_predictor { rfcn_box_predictor {
  crop_height: 18 crop_width: 18 num_spatial_bins_height: 3 num_spatial_bins_width: 3
  conv_hyperparams {
    op: CONV
    regularizer { l2_regularizer { weight: 0.0 } }
    initializer { truncated_normal_initializer { stddev: 0.01 } }
  }
} }"""

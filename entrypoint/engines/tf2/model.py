"""Builds a detection model with its variables, and restores checkpoints into it."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from object_detection.builders import model_builder
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

from entrypoint.engines.shared import patches
from entrypoint.engines.shared.class_outputs import Known, Outputs, has_label_outputs
from entrypoint.engines.shared.restore_report import Restored, report
from entrypoint.system.errors import JobError, UserError

# The entry of an object-based checkpoint that maps its values to objects.
OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"


def extractors() -> set[str]:
    """Returns the types of feature extractors that upstream has for this engine."""
    return set().union(*model_builder.FEATURE_EXTRACTOR_MAPS)


def build(config: Any, *, is_training: bool, policy: str = "float32") -> Any:
    """Returns the DetectionModel of a config with all of its variables.

    The variables are float32 under each of Keras's policies.

    Raises:
        UserError: the model cannot be built.
    """
    tf.keras.mixed_precision.set_global_policy(policy)
    try:
        with patches.no_download():
            model = model_builder.build(config.model, is_training=is_training)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"the model in the pipeline.config cannot be built: {error}") from None
    patches.skip_autograph(model)
    patches.predict_in_float32(model)
    run_once(model)
    return model


def run_once(model: Any) -> None:
    """Runs the model on a grey photo, because Keras creates a layer's variables when the layer is first called."""
    patches.set_training(model, is_training=False)
    image, shapes = model.preprocess(tf.fill([1, 320, 320, 3], 128.0))
    model.postprocess(model.predict(image, shapes), shapes)


def restore_start(
    model: Any, prefix: str, checkpoint_type: str, outputs: Outputs | None = None, known: Known | None = None
) -> Restored:
    """Fills the model with a zoo checkpoint, which usually has another number of classes.

    Variables that do not fit stay random. Upstream restores only the feature extractor of a detector. This function
    restores every variable that has the same place and shape in both models: boxes do not depend on labels, so the
    heads for boxes, their layers and the proposals are restored too, and the outputs for labels that both know.

    Raises:
        UserError: the checkpoint is not readable, or belongs to another model.
    """
    variables = named_variables(model)
    whole = {"model": model} if checkpoint_type == "detection" else model.restore_from_objects(checkpoint_type)
    try:
        filled, blended = fill(tf.train.Checkpoint(**whole), prefix, outputs, known)
    except (tf.errors.OpError, ValueError) as error:
        raise UserError(f"the checkpoint {prefix} does not fit the model: {error}") from None
    result = Restored(
        [name for name, variable in variables if id(variable) in filled],
        [name for name, variable in variables if id(variable) not in filled],
        known if blended else None,
    )
    report(result, backbone_of(model), prefix)
    return result


def backbone_of(model: Any) -> set[str]:
    """Returns the names of the variables of a model's feature extractor.

    Upstream keeps the feature extractor in attributes of several names.
    """
    parts = [part for name, part in vars(model).items() if name.startswith("_feature_extractor")]
    return {name for part in parts if isinstance(part, tf.Module) for name, _ in named_variables(part)}


def freeze_backbone(model: Any) -> set[int]:
    """Makes weights and batch norm of a model's backbone constant; returns the `id` of each of its variables.

    Raises:
        UserError: it is not known which part of the model is its backbone.
    """
    # The second stage of a two-stage model has layers of the same backbone, and is part of the heads.
    extractor = getattr(model, "_feature_extractor_for_proposal_features", None) or model._feature_extractor
    try:
        backbone = extractor.classification_backbone
        # CenterNet on MobileNetV2 has one name for the backbone and its own layers behind it.
        nested = [layer for layer in getattr(backbone, "layers", []) if isinstance(layer, tf.keras.Model)]
        backbone = nested[0] if nested else backbone
    except NotImplementedError:
        # CenterNet's hourglass is a backbone with nothing behind it.
        backbone = extractor
    except AttributeError:
        if not isinstance(extractor, tf.keras.Model):
            kind = type(extractor).__name__
            raise UserError(f"FREEZE=backbone: the backbone of {kind} is not known: set FREEZE=none") from None
        # Of a two-stage model without a feature pyramid, all that leads to the proposals is the backbone.
        backbone = extractor
    backbone.trainable = False
    return {id(variable) for variable in backbone.variables}


def fill(target: Any, prefix: str, outputs: Outputs | None, known: Known | None) -> tuple[set[int], set[int]]:
    """Fills each variable with the value at its place in a checkpoint, if the shapes are equal.

    Of the outputs for labels, those of known labels are filled. Returns the `id` of every variable that was filled, and
    of those that have such outputs.
    """
    reader = tf.train.load_checkpoint(prefix)
    graph = TrackableObjectGraph.FromString(reader.get_tensor(OBJECT_GRAPH))
    filled, blended = set(), set()
    for number, variable in tf.train.CheckpointView(prefix).match(target).items():
        keys = [each.checkpoint_key for each in graph.nodes[number].attributes]
        if not isinstance(variable, tf.Variable) or not keys:
            continue
        value = reader.get_tensor(keys[0])
        # Reading a variable of a cluster can take all machines.
        if outputs and known and has_label_outputs(keys[0]):
            kept = outputs.blend(keys[0], variable.numpy(), value, known)
        else:
            kept = None
        if kept is not None:
            blended.add(id(variable))
        elif variable.shape != value.shape:
            continue
        variable.assign(value if kept is None else kept)
        filled.add(id(variable))
    return filled, blended


def named_variables(model: Any) -> list[tuple[str, Any]]:
    """Returns the names and the variables of the layers of a model, or of a part of it, sorted by name."""
    # Keras's own `variables` misses the variables of layers that upstream keeps in plain containers. The property of
    # tf.Module finds them.
    variables = tf.Module.variables.fget(model)
    return sorted(((each.name, each) for each in variables), key=lambda pair: pair[0])


def load_trained(config: Any, prefix: str) -> Any:
    """Returns the model with the weights of a checkpoint of this job, ready to detect."""
    model = build(config, is_training=False)
    restore_trained(model, prefix)
    patches.set_training(model, is_training=False)
    return model


def restore_trained(model: Any, prefix: str) -> None:
    """Fills the model with a checkpoint of this job; raises JobError if a variable is missing in the checkpoint."""
    try:
        status = tf.train.Checkpoint(model=model).read(prefix)
        status.expect_partial()
        status.assert_existing_objects_matched()
    except (AssertionError, tf.errors.OpError) as error:
        raise JobError(f"the checkpoint {prefix} is incomplete or damaged: {error}") from None

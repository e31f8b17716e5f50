"""A detection model with its variables, and what is restored into it."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from object_detection.builders import model_builder
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

from entrypoint.engines.shared import patches
from entrypoint.engines.shared.restore_report import Restored, report
from entrypoint.system.errors import JobError, UserError

# Where a checkpoint of objects keeps which of its values belongs where.
OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"


def extractors() -> set[str]:
    """The types of feature extractors that upstream has for this engine."""
    return set().union(*model_builder.FEATURE_EXTRACTOR_MAPS)


def build(config: Any, *, is_training: bool, policy: str = "float32") -> Any:
    """The DetectionModel of a config, with all of its variables, which are float32 under any of Keras's policies.

    Raises:
        UserError: it cannot be built.
    """
    tf.keras.mixed_precision.set_global_policy(policy)
    try:
        with patches.no_download():
            model = model_builder.build(config.model, is_training=is_training)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"the pipeline.config describes no model that can be built: {error}") from None
    patches.skip_autograph(model)
    patches.predict_in_float32(model)
    run_once(model)
    return model


def run_once(model: Any) -> None:
    """Runs the model on a grey photo: Keras makes a layer's variables when it is first called."""
    patches.set_training(model, is_training=False)
    image, shapes = model.preprocess(tf.fill([1, 320, 320, 3], 128.0))
    model.postprocess(model.predict(image, shapes), shapes)


def restore_start(model: Any, prefix: str, checkpoint_type: str) -> Restored:
    """Fills the model with a zoo checkpoint, of another number of classes as a rule; what does not fit stays random.

    Of a detector upstream takes the feature extractor alone. Here every variable is taken that has the same place and
    shape in both: a box is a box whatever its label, so the heads for boxes, their layers and the proposals stay.

    Raises:
        UserError: the checkpoint is not readable, or is one of another model.
    """
    variables = named_variables(model)
    whole = {"model": model} if checkpoint_type == "detection" else model.restore_from_objects(checkpoint_type)
    try:
        filled = fill(tf.train.Checkpoint(**whole), prefix)
    except (tf.errors.OpError, ValueError) as error:
        raise UserError(f"the checkpoint {prefix} does not fit the model: {error}") from None
    result = Restored(
        [name for name, variable in variables if id(variable) in filled],
        [name for name, variable in variables if id(variable) not in filled],
    )
    report(result, backbone_of(model), prefix)
    return result


def backbone_of(model: Any) -> set[str]:
    """The names of the variables of a model's feature extractor, which upstream keeps under several names."""
    parts = [part for name, part in vars(model).items() if name.startswith("_feature_extractor")]
    return {name for part in parts if isinstance(part, tf.Module) for name, _ in named_variables(part)}


def fill(target: Any, prefix: str) -> set[int]:
    """Gives variables the values that a checkpoint has at their places, where shapes are equal; their ids."""
    reader = tf.train.load_checkpoint(prefix)
    shapes = reader.get_variable_to_shape_map()
    graph = TrackableObjectGraph.FromString(reader.get_tensor(OBJECT_GRAPH))
    filled = set()
    for number, variable in tf.train.CheckpointView(prefix).match(target).items():
        keys = [each.checkpoint_key for each in graph.nodes[number].attributes]
        if isinstance(variable, tf.Variable) and keys and list(variable.shape) == shapes[keys[0]]:
            variable.assign(reader.get_tensor(keys[0]))
            filled.add(id(variable))
    return filled


def named_variables(model: Any) -> list[tuple[str, Any]]:
    """Every variable of the layers of a model, or of a part of it, with its name, in the order of the names."""
    # Keras's own `variables` misses those of layers that upstream keeps in plain containers; tf.Module's does not.
    variables = tf.Module.variables.fget(model)
    return sorted(((each.name, each) for each in variables), key=lambda pair: pair[0])


def load_trained(config: Any, prefix: str) -> Any:
    """The model with the weights of a checkpoint of this job, ready to detect."""
    model = build(config, is_training=False)
    restore_trained(model, prefix)
    patches.set_training(model, is_training=False)
    return model


def restore_trained(model: Any, prefix: str) -> None:
    """Fills the model with a checkpoint of this job; JobError where one of its variables is not in it."""
    try:
        status = tf.train.Checkpoint(model=model).read(prefix)
        status.expect_partial()
        status.assert_existing_objects_matched()
    except (AssertionError, tf.errors.OpError) as error:
        raise JobError(f"the checkpoint {prefix} is not whole: {error}") from None

"""The graph of a SavedModel in the operations of TensorFlow.js. Import it only in the process that converts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.framework import graph_pb2, types_pb2
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
from tensorflow.python.grappler import tf_optimizer

from entrypoint.results.export.tfjs_files import DTYPES, TensorSpec, WebGraph
from entrypoint.system.errors import JobError

# The operations that the versions 1.0.0 and 4.22.0 of @tensorflow/tfjs-converter both know. The source is `tfOpName` in
# dist/src/operations/op_list and dist/operations/op_list. Those for randomness, spectra, debugging and tensor arrays
# are left out.
OPERATIONS = """
Abs Acos Acosh Add AddN All Any ArgMax ArgMin Asin Asinh Atan Atan2 Atanh AvgPool BatchMatMul BatchToSpaceND BiasAdd
Cast Ceil ClipByValue Concat ConcatV2 Const Conv1D Conv2D Conv2DBackpropInput Cos Cosh CropAndResize DepthToSpace
DepthwiseConv2d DepthwiseConv2dNative Div Elu Enter Equal Erf Exit Exp ExpandDims Expm1 Fill Floor FloorDiv FloorMod
FusedBatchNorm FusedBatchNormV2 Gather GatherNd GatherV2 Greater GreaterEqual Identity LRN LeakyRelu Less LessEqual
LinSpace Log Log1p LogSoftmax LogicalAnd LogicalNot LogicalOr LoopCond MatMul Max MaxPool Maximum Mean Merge Min
Minimum Mod Mul Neg NextIteration NonMaxSuppressionV2 NonMaxSuppressionV3 NotEqual OneHot OnesLike Pack Pad PadV2
Placeholder PlaceholderWithDefault Pow Prod Range Rank RealDiv Reciprocal Relu Relu6 Reshape ResizeBilinear
ResizeNearestNeighbor Reverse ReverseV2 Round Rsqrt ScatterNd Select Selu Shape Sigmoid Sign Sin Sinh Size Slice
Softmax Softplus SpaceToBatchND SparseToDense Split SplitV Sqrt Square SquaredDifference Squeeze StridedSlice Sub
Sum Switch Tan Tanh Tile TopKV2 Transpose Unpack Where ZerosLike
"""
KNOWN = frozenset(OPERATIONS.split())
# Operations that are another one of KNOWN at inference, with its attributes: 1.0.0 knows only the older names.
RENAMED = {"AddV2": "Add", "FusedBatchNormV3": "FusedBatchNormV2"}
CONTROL_FLOW = frozenset({"Switch", "Merge", "Enter", "Exit", "NextIteration"})
# Folds what is constant and drops what is not needed. `arithmetic` and `remapping` would bring in operations that
# TensorFlow.js does not know, or of ranks that it does not have.
PASSES = ("function", "constfold", "dependency", "pruning", "constfold", "dependency", "pruning")
SIGNATURE, INPUT = "detect", "image"
OUTPUTS = ("scores", "boxes")  # in the order that @cloud-annotations/object-detection reads


def load(source: Path) -> WebGraph:
    """Returns the graph of the signature `detect` of a SavedModel, with the outputs `scores` and `boxes`.

    Raises:
        JobError: the graph has an operation or a constant that TensorFlow.js does not know.
    """
    graph = optimized(frozen(source))
    without_control_inputs(graph)
    graph = with_constants(graph)
    for change in (with_matrices, renamed, with_control_flow):
        change(graph)
    refuse_unknown(graph)
    return split(graph)


def frozen(source: Path) -> Any:
    """Returns a GraphDef with constants in the place of variables, the input INPUT, and OUTPUTS as its last nodes."""
    model = tf.saved_model.load(str(source))
    function = model.signatures[SIGNATURE]
    constants = convert_variables_to_constants_v2(function, lower_control_flow=True)
    with tf.Graph().as_default() as graph:
        photo = tf.compat.v1.placeholder(tf.int32, [1, None, None, 3], name=INPUT)
        (name,) = [tensor.name for tensor in constants.inputs]
        # Three dimensions are scores, four are boxes.
        places = [tensor.name for tensor in sorted(constants.outputs, key=lambda tensor: tensor.shape.rank)]
        body = constants.graph.as_graph_def()
        found = tf.graph_util.import_graph_def(body, {name: photo}, places, name="model")
        for key, tensor in zip(OUTPUTS, found, strict=True):
            tf.identity(tensor, name=key)
    # The signature's own placeholder is still there, and 1.0.0 would ask for a value.
    return tf.compat.v1.graph_util.extract_sub_graph(graph.as_graph_def(), OUTPUTS)


def optimized(graph: Any) -> Any:
    """Returns a GraphDef that computes the same with fewer nodes."""
    meta = meta_graph_pb2.MetaGraphDef(graph_def=graph)
    # Grappler keeps the nodes that a collection of this name has.
    meta.collection_def["train_op"].node_list.value.extend([INPUT, *OUTPUTS])
    config = config_pb2.ConfigProto()
    rewriting = config.graph_options.rewrite_options
    rewriting.min_graph_nodes = -1  # small graphs too
    rewriting.optimizers.extend(PASSES)
    result = tf_optimizer.OptimizeGraph(config, meta)
    result.ClearField("library")
    return result


def without_control_inputs(graph: Any) -> None:
    """Drops inputs that carry no value: no operation has a side effect, and clients count them as values."""
    for node in graph.node:
        kept = [name for name in node.input if not name.startswith("^")]
        del node.input[:]
        node.input.extend(kept)


def with_constants(graph: Any) -> Any:
    """Returns a GraphDef with the value of everything that does not depend on the photo.

    Grappler does not fold what becomes larger than 100 KiB, such as the anchors.
    """
    varying = depending_on(graph, INPUT)
    operations = {node.name: node.op for node in graph.node}
    named = {name for node in graph.node if node.name in varying for name in node.input}
    computed = sorted(name for name in named if node_of(name) not in varying and operations[node_of(name)] != "Const")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.graph_util.import_graph_def(graph, name="")
        values = session.run([name if ":" in name else f"{name}:0" for name in computed])
    names = {name: f"constant_{number}" for number, name in enumerate(computed)}
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    for name, value in zip(computed, values, strict=True):
        constant(graph, names[name], value)
    return tf.compat.v1.graph_util.extract_sub_graph(graph, OUTPUTS)


def depending_on(graph: Any, name: str) -> set[str]:
    """Returns the names of the nodes that depend on a node, and its own."""
    readers: dict[str, list[str]] = {}
    for node in graph.node:
        for source in node.input:
            readers.setdefault(node_of(source), []).append(node.name)
    found, waiting = {name}, [name]
    while waiting:
        new = set(readers.get(waiting.pop(), ())) - found
        found |= new
        waiting += new
    return found


def node_of(name: str) -> str:
    """Returns the name of the node of an input, such as `photo/unstack` of `photo/unstack:2`."""
    return name.partition(":")[0]


def with_matrices(graph: Any) -> None:
    """Writes each product of a stack of matrices and one matrix as a product of two matrices.

    EfficientDet adds its feature maps like this. 1.0.0 multiplies only stacks of the same shape.
    """
    shapes = shapes_of(graph)
    for node in [each for each in graph.node if each.op == "BatchMatMulV2"]:
        values, matrix = (shapes[name] for name in node.input)
        if len(matrix) != 2 or None in values or node.attr["adj_x"].b or node.attr["adj_y"].b:
            raise JobError(f"TensorFlow.js cannot multiply as {node.name} does, {values} by {matrix}")
        rows = reshape(graph, f"{node.name}/rows", node.input[0], (-1, values[-1]))
        product = graph.node.add(op="MatMul", name=f"{node.name}/product", input=[rows, node.input[1]])
        product.attr["T"].type = types_pb2.DT_FLOAT
        back = reshape(graph, f"{node.name}/back", product.name, (*values[:-1], matrix[-1]))
        node.op = "Identity"
        node.ClearField("attr")
        node.attr["T"].type = types_pb2.DT_FLOAT
        node.input[:] = [back]


def shapes_of(graph: Any) -> dict[str, tuple[int | None, ...]]:
    """Returns the shape of the first output of each node that has a known rank."""
    with tf.Graph().as_default() as imported:
        tf.graph_util.import_graph_def(graph, name="")
        found = {each.name: each.outputs[0].shape for each in imported.get_operations() if each.outputs}
    return {name: tuple(shape.as_list()) for name, shape in found.items() if shape.rank is not None}


def reshape(graph: Any, name: str, source: str, shape: Iterable[int | None]) -> str:
    """Adds a node that reshapes another one; returns its name."""
    size = constant(graph, f"{name}/shape", np.array(list(shape), np.int32))
    node = graph.node.add(op="Reshape", name=name, input=[source, size])
    node.attr["T"].type, node.attr["Tshape"].type = types_pb2.DT_FLOAT, types_pb2.DT_INT32
    return name


def constant(graph: Any, name: str, value: Any) -> str:
    """Adds a constant; returns its name."""
    tensor = tf.make_tensor_proto(value)
    node = graph.node.add(op="Const", name=name)
    node.attr["dtype"].type = tensor.dtype
    node.attr["value"].tensor.CopyFrom(tensor)
    return name


def renamed(graph: Any) -> None:
    """Gives operations the names that 1.0.0 knows, and drops attributes that say nothing to TensorFlow.js."""
    for node in graph.node:
        node.op = RENAMED.get(node.op, node.op)
        # 1.0.0 cannot read an empty list; it is the default of its attribute.
        for name in [name for name, value in node.attr.items() if name.startswith("_") or is_empty_list(value)]:
            del node.attr[name]


def is_empty_list(value: Any) -> bool:
    """Returns whether an attribute is a list without entries."""
    return value.WhichOneof("value") == "list" and not value.list.ByteSize()


def with_control_flow(graph: Any) -> None:
    """Puts a branch that is always taken behind the photo, unless the graph branches already.

    TensorFlow.js 1.0.0 refuses `executeAsync`, which @cloud-annotations/object-detection calls, for a graph without
    control flow. A branch costs nothing; a loop would do the same.
    """
    if any(node.op in CONTROL_FLOW for node in graph.node):
        return
    branch, merged = f"{INPUT}/branch", f"{INPUT}/merged"
    for node in graph.node:
        node.input[:] = [merged if name == INPUT else name for name in node.input]
    always = constant(graph, f"{INPUT}/always", np.array(True))
    graph.node.add(op="Switch", name=branch, input=[INPUT, always]).attr["T"].type = types_pb2.DT_INT32
    join = graph.node.add(op="Merge", name=merged, input=[branch, f"{branch}:1"])
    join.attr["T"].type, join.attr["N"].i = types_pb2.DT_INT32, 2


def refuse_unknown(graph: Any) -> None:
    """Raises JobError if the graph has an operation that is not in KNOWN."""
    unknown = sorted({node.op for node in graph.node} - KNOWN)
    if unknown:
        names = [next(node.name for node in graph.node if node.op == op) for op in unknown]
        raise JobError(f"TensorFlow.js does not know {', '.join(unknown)}, used by {', '.join(names)}")


def split(graph: Any) -> WebGraph:
    """Returns the graph with the constants' values beside it.

    Raises:
        JobError: a constant has a type that TensorFlow.js does not know.
    """
    shapes = shapes_of(graph)
    weights = {}
    for node in graph.node:
        if node.op == "Const":
            tensor = node.attr["value"].tensor
            weights[node.name] = tf.make_ndarray(tensor)
            if str(weights[node.name].dtype) not in DTYPES:
                raise JobError(f"TensorFlow.js has no {weights[node.name].dtype}, the type of the constant {node.name}")
            tensor.CopyFrom(type(tensor)(dtype=tensor.dtype, tensor_shape=tensor.tensor_shape))
    # 1.0.0 returns the outputs in the order of their nodes.
    nodes = sorted(graph.node, key=lambda node: OUTPUTS.index(node.name) if node.name in OUTPUTS else -1)
    topology = json_format.MessageToDict(graph_pb2.GraphDef(node=nodes, versions=graph.versions))
    inputs = {INPUT: TensorSpec(INPUT, "DT_INT32", (1, -1, -1, 3))}
    outputs = {name: TensorSpec(name, "DT_FLOAT", tuple(side or -1 for side in shapes[name])) for name in OUTPUTS}
    return WebGraph(topology, inputs, outputs, weights)

"""What a train_config says of gradients, by both engines: TF1's mode of TensorFlow in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from entrypoint.engines.shared import gradients
from entrypoint.system.errors import UserError
from entrypoint.zoo import pipeline_config
from tests.conftest import environment

NAMES = ("MobilenetV2/Conv1/kernel:0", "MobilenetV2/Conv2/kernel:0", "WeightSharedBoxPredictor/Head/bias:0")
# A step on a weight w and a bias b of 1 each, where the loss is 3 w + 4 b, with SGD at a rate of 1.
TF1 = """
import json, sys
import tensorflow.compat.v1 as tf
tf.disable_v2_behavior()
from entrypoint.zoo import pipeline_config
from entrypoint.engines.tf1 import trainer
from entrypoint.engines.shared import gradients
train = pipeline_config.parse(sys.argv[1]).train_config
w, b = tf.get_variable("Head/weights", initializer=1.0), tf.get_variable("Head/biases", initializer=1.0)
unused = tf.get_variable("unused", initializer=1.0)
step = tf.train.get_or_create_global_step()
trained = gradients.to_train(tf.trainable_variables(), train)
descent = trainer.descend(tf.train.GradientDescentOptimizer(1.0), 3 * w + 4 * b, trained, train, step)
with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    session.run(descent)
    print(json.dumps([float(value) for value in session.run([w, b])]))
"""
# Steps on a weight of 1 by a gradient of 2, with the optimizer of a config.
RMS_PROP = """rms_prop_optimizer { decay: 0.5 epsilon: 1e-12 momentum_optimizer_value: 0.9
  learning_rate { constant_learning_rate { learning_rate: 0.01 } } }"""
TF2_STEPS = """
import sys
import tensorflow as tf
from entrypoint.zoo import pipeline_config
from entrypoint.engines.tf2 import trainer
config = pipeline_config.parse(sys.argv[1]).train_config.optimizer
optimizer, _ = trainer.build_optimizer(config, tf.Variable(0, dtype=tf.int64))
weight = tf.Variable(1.0)
for _ in range(int(sys.argv[2])):
    optimizer.apply_gradients([(tf.constant(2.0), weight)])
print(float(weight.numpy()))
"""


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ("", NAMES),
        ('freeze_variables: "Conv"', NAMES[2:]),
        ('freeze_variables: "BoxPredictor/"', NAMES[:2]),
        ('freeze_variables: "^Conv"', NAMES),
        ('update_trainable_variables: "kernel" freeze_variables: "Conv1/"', NAMES[1:2]),
    ],
)
def test_variables_that_a_config_freezes_are_not_trained(fields: str, names: tuple[str, ...]) -> None:
    train = pipeline_config.parse(f"train_config {{ {fields} }}").train_config
    variables = [SimpleNamespace(name=name) for name in NAMES]
    assert tuple(each.name for each in gradients.to_train(variables, train)) == names


def test_nothing_left_to_train_is_a_named_error() -> None:
    train = pipeline_config.parse('train_config { freeze_variables: ".*" }').train_config
    with pytest.raises(UserError, match="leave no variable to train"):
        gradients.to_train([SimpleNamespace(name=NAMES[0])], train)


@pytest.mark.parametrize(
    ("fields", "weight", "bias"),
    [
        ("", -2.0, -3.0),
        ("bias_grad_multiplier: 2", -2.0, -7.0),
        ("gradient_clipping_by_norm: 1", 0.4, 0.2),
        # The norm is of what was multiplied: 3 and 2.
        ("gradient_clipping_by_norm: 1 bias_grad_multiplier: 0.5", 1 - 3 / 13**0.5, 1 - 2 / 13**0.5),
        ('freeze_variables: "bias"', -2.0, 1.0),
    ],
)
def test_step_is_the_same_in_both_engines(fields: str, weight: float, bias: float) -> None:
    import tensorflow as tf

    text = f"train_config {{ {fields} }}"
    train = pipeline_config.parse(text).train_config
    variables = [tf.Variable(1.0, name=f"Head/{name}") for name in ("kernel", "bias", "unused")]
    with tf.GradientTape() as tape:
        loss = 3 * variables[0] + 4 * variables[1]
    trained = gradients.to_train(variables, train)
    for gradient, variable in gradients.adjust(tape.gradient(loss, trained), trained, train):
        variable.assign_sub(gradient)
    assert [float(variable.numpy()) for variable in variables[:2]] == pytest.approx([weight, bias])
    command = [sys.executable, "-c", TF1, text]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert json.loads(result.stdout.splitlines()[-1]) == pytest.approx([weight, bias])


def test_rms_prop_discounts_squared_gradients_and_keeps_its_learning_rate() -> None:
    steps = 40
    mean = momentum = 0.0
    expected = 1.0
    for _ in range(steps):
        mean = 0.5 * mean + 0.5 * 2.0**2
        momentum = 0.9 * momentum + 0.01 * 2.0 / mean**0.5
        expected -= momentum
    text = f"train_config {{ optimizer {{ use_moving_average: false {RMS_PROP} }} }}"
    command = [sys.executable, "-c", TF2_STEPS, text, str(steps)]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert float(result.stdout.splitlines()[-1]) == pytest.approx(expected, rel=1e-4)

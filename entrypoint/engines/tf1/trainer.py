"""The training step of a slim model: one graph of input, losses and gradient descent, run once a step."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf
from object_detection import inputs, model_lib
from object_detection.builders import optimizer_builder
from object_detection.utils import variables_helper

from entrypoint.engines import machine
from entrypoint.engines.engine import LOSS, refuse_cluster
from entrypoint.engines.shared import gradients, patches
from entrypoint.engines.shared.losses import compute
from entrypoint.engines.shared.restore_report import Restored, report
from entrypoint.engines.tf1 import model as models
from entrypoint.settings.schema import Settings
from entrypoint.system.errors import UserError

logger = logging.getLogger("job")


class Trainer:
    """A model in training: the graph, and the session that holds its weights, its optimizer and the step it is at."""

    def __init__(self, config: Any, seed: int) -> None:
        self.config = config
        self.graph = tf.Graph()
        with self.graph.as_default():
            tf.set_random_seed(seed)
            self._build()
            self.saver = tf.train.Saver(max_to_keep=None)
            self.session = tf.Session()
            self.session.run([tf.global_variables_initializer(), tf.tables_initializer(), self.batches.initializer])
        self.run_step = self.session.make_callable(self.row)

    def _build(self) -> None:
        """Input, losses and gradient descent; `row` gives the losses and the learning rate of the step it runs."""
        train = self.config.train_config
        self.global_step = tf.train.get_or_create_global_step()
        self.model = models.build(self.config, is_training=True)
        dataset = inputs.train_input(train, self.config.train_input_reader, self.config.model, model=self.model)
        self.batches = tf.data.make_initializable_iterator(dataset)
        features, labels = self.batches.get_next()
        labels = model_lib.unstack_batch(labels, unpad_groundtruth_tensors=train.unpad_groundtruth_tensors)
        losses = compute(self.model, features, labels, self.global_step, train.add_regularization_loss)
        # What a checkpoint of the zoo can fill: neither the step nor what the optimizer adds.
        self.variables = {each.op.name: each for each in tf.global_variables() if each is not self.global_step}
        optimizer, (rate, *_) = optimizer_builder.build(train.optimizer, global_step=self.global_step)
        self.names = (*losses, "learning_rate")
        row = tf.stack([*losses.values(), tf.cast(rate, tf.float32)])
        # They are read before the step changes what they are made of.
        with tf.control_dependencies([row]):
            descent = descend(optimizer, losses[LOSS], train, self.global_step)
        with tf.control_dependencies([descent, *tf.get_collection(tf.GraphKeys.UPDATE_OPS)]):
            self.row = tf.identity(row)

    @property
    def step(self) -> int:
        """The number of steps done."""
        return int(self.session.run(self.global_step))

    def start_from(self, prefix: str) -> Restored:
        """Fills the weights with a checkpoint of the zoo, of another number of classes as a rule, as far as they fit.

        Raises:
            UserError: the checkpoint is not readable, or is one of another model.
        """
        kind = self.config.train_config.fine_tune_checkpoint_type
        with self.graph.as_default():
            wanted = self.model.restore_map(fine_tune_checkpoint_type=kind, load_all_detection_checkpoint_vars=True)
            wanted = {name: each for name, each in wanted.items() if each.op.name in self.variables}
            try:
                found = variables_helper.get_variables_available_in_checkpoint(
                    wanted, prefix, include_global_step=False
                )
                if found:
                    tf.train.Saver(found).restore(self.session, prefix)
            except (ValueError, tf.errors.OpError) as error:
                words = str(error).splitlines()[0]
                raise UserError(f"the checkpoint {prefix} does not fit the model: {words}") from None
        filled = {each.op.name for each in found.values()}
        missing = [name for name in self.variables if name not in filled]
        result = Restored(sorted(filled), sorted(missing))
        report(result, {name for name in self.variables if "FeatureExtractor/" in name}, prefix)
        return result

    def restore(self, prefix: Path) -> None:
        """Goes back to where `save` was called; JobError where a value is missing."""
        models.restore(self.session, self.saver, prefix)

    def share(self, identity: str) -> None:
        """Nothing: slim models train on one machine, which `build` sees to."""

    def agree(self, is_stopped: bool, steps: int, is_due: bool) -> tuple[bool, int, bool]:
        """What this machine wants: there is no other."""
        return is_stopped, steps, is_due

    def train(self, steps: int) -> list[dict[str, float]]:
        """Trains exactly so many steps; returns the losses and the learning rate of each."""
        values = np.stack([self.run_step() for _ in range(steps)])
        return [dict(zip(self.names, map(float, row), strict=True)) for row in values]

    def save(self, prefix: Path) -> None:
        """Writes weights, optimizer and step as PREFIX.index and PREFIX.data-*."""
        self.saver.save(self.session, str(prefix), write_meta_graph=False, write_state=False)


def build(config: Any, settings: Settings, step: int, repeats: list[float] | None) -> Trainer:
    """A model to train, with random weights, and photos in an order that follows from the seed and the step.

    `repeats` says by label how often photos with it are shown in an epoch, None that each is shown once.

    Raises:
        UserError: it cannot be built, or several machines are to train it.
    """
    refuse_cluster("tf1", settings)
    if len(gpus := machine.find_gpus().names) > 1:
        logger.warning("models of the TF1 zoo train on one GPU, %s: TF2 models train on all %d", gpus[0], len(gpus))
    if settings.precision != "float32":
        logger.warning("PRECISION=%s is for TF2 models: training in float32", settings.precision)
    with patches.repeated_reading(repeats):
        return Trainer(config, settings.seed + step)


def descend(optimizer: Any, loss: Any, train: Any, step: Any) -> Any:
    """One step of gradient descent on what the config lets train; adds one to the step."""
    variables = gradients.to_train(tf.trainable_variables(), train)
    found = [gradient for gradient, _ in optimizer.compute_gradients(loss, variables)]
    return optimizer.apply_gradients(gradients.adjust(found, variables, train), global_step=step)

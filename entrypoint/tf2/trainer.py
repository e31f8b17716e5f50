"""The training step, and as many of them in a row as are asked for without a word between host and device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf
from object_detection import inputs, model_lib
from object_detection.builders import optimizer_builder

from entrypoint.engine import LOSS
from entrypoint.errors import JobError
from entrypoint.tf2 import model as models


class Trainer:
    """A model in training: its weights, its optimizer and the step it is at."""

    def __init__(self, config: Any, seed: int) -> None:
        tf.keras.utils.set_random_seed(seed)
        self.config = config
        self.seed = seed
        self.model = models.build(config, is_training=True)
        self.global_step = tf.Variable(0, trainable=False, dtype=tf.int64, name="global_step")
        self.optimizer, (rate,) = optimizer_builder.build(config.train_config.optimizer, global_step=self.global_step)
        self.learning_rate = rate if callable(rate) else lambda: rate
        # Slots that are not made yet would not be restored.
        self.optimizer._create_all_weights(self.model.trainable_variables)
        self.checkpoint = tf.train.Checkpoint(step=self.global_step, model=self.model, optimizer=self.optimizer)
        # Upstream's exporters restore a save_counter, and TensorFlow makes it only when it is asked for.
        self.checkpoint.save_counter.assign(0)
        self.names: tuple[str, ...] = ()
        self.batches: Iterator[Any] | None = None

    @property
    def step(self) -> int:
        """The number of steps done."""
        return int(self.global_step.numpy())

    def start_from(self, prefix: str) -> models.Restored:
        """Fills the weights with a checkpoint of the zoo."""
        return models.restore_start(self.model, prefix, self.config.train_config.fine_tune_checkpoint_type)

    def restore(self, prefix: Path) -> None:
        """Goes back to where `save` was called; JobError where a value is missing."""
        try:
            self.checkpoint.restore(str(prefix)).assert_consumed()
        except (AssertionError, ValueError, tf.errors.OpError) as error:
            raise JobError(f"the checkpoint {prefix} does not belong to this job: {error}") from None

    def save(self, prefix: Path) -> None:
        """Writes weights, optimizer and step as PREFIX.index and PREFIX.data-*."""
        self.checkpoint.write(str(prefix))

    @tf.function
    def run(self, batches: Iterator[Any], steps: Any) -> Any:
        """Losses and learning rate of each step, in the order of `names`: float32, [steps, len(names)]."""
        rows = tf.TensorArray(tf.float32, size=steps)
        for index in tf.range(steps):
            features, labels = next(batches)
            rows = rows.write(index, self._descend(features, labels))
            self.global_step.assign_add(1)
        return rows.stack()

    @tf.autograph.experimental.do_not_convert
    def _descend(self, features: dict[str, Any], labels: dict[str, Any]) -> Any:
        """One step of gradient descent on a batch; its losses and learning rate, float32."""
        train = self.config.train_config
        models.set_training(self.model, is_training=True)
        labels = model_lib.unstack_batch(labels, unpad_groundtruth_tensors=train.unpad_groundtruth_tensors)
        with tf.GradientTape() as tape:
            losses = compute_losses(self.model, features, labels, self.global_step, train.add_regularization_loss)
        variables = self.model.trainable_variables
        gradients = tape.gradient(losses[LOSS], variables)
        if train.gradient_clipping_by_norm > 0:
            gradients, _ = tf.clip_by_global_norm(gradients, train.gradient_clipping_by_norm)
        rate = tf.cast(self.learning_rate(), tf.float32)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        self.names = (*losses, "learning_rate")
        return tf.stack([*losses.values(), rate])


def build(config: Any, seed: int) -> Trainer:
    """A model to train, with random weights."""
    return Trainer(config, seed)


def train(trainer: Trainer, steps: int) -> list[dict[str, float]]:
    """Trains exactly so many steps; for each of them its losses and the learning rate it used."""
    if trainer.batches is None:
        # A resumed job must not see the photos once more in the order that it saw from its start.
        tf.random.set_seed(trainer.seed + trainer.step)
        trainer.batches = iter(make_dataset(trainer.config, trainer.model))
    values = trainer.run(trainer.batches, tf.constant(steps)).numpy()
    return [dict(zip(trainer.names, map(float, row), strict=True)) for row in values]


def make_dataset(config: Any, model: Any) -> Any:
    """Upstream's input pipeline: augmented, resized, padded batches of (features, labels), without end."""
    return inputs.train_input(config.train_config, config.train_input_reader, config.model, model=model)


def compute_losses(model: Any, features: dict[str, Any], labels: Any, step: Any, regularize: bool) -> dict[str, Any]:
    """Upstream's losses of a batch, their sum as Loss/total_loss."""
    model_lib.provide_groundtruth(model, labels, training_step=step)
    shapes = features["true_image_shape"]
    predictions = model.predict(features["image"], shapes, **model.get_side_inputs(features))
    losses = dict(model.loss(predictions, shapes))
    penalties = model.regularization_losses() if regularize else []
    if penalties:
        losses["Loss/regularization_loss"] = tf.add_n(penalties)
    losses[LOSS] = tf.add_n(list(losses.values()))
    return losses

"""Trains a slim model: one graph of input, losses and gradient descent, which runs once per step."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf
from object_detection import model_lib
from object_detection.builders import optimizer_builder
from object_detection.core import standard_fields as fields
from object_detection.utils import variables_helper

from entrypoint.engines import machine
from entrypoint.engines.engine import LOSS, Detections, refuse_cluster
from entrypoint.engines.shared import (
    averaging,
    backbone,
    batch_norm,
    class_outputs,
    gradients,
    patches,
    refusals,
    schedules,
    training_input,
)
from entrypoint.engines.shared.class_outputs import Known, Outputs
from entrypoint.engines.shared.losses import compute
from entrypoint.engines.shared.restore_report import Restored, report
from entrypoint.engines.tf1 import model as models
from entrypoint.engines.tf1.detector import Detector
from entrypoint.settings.schema import Settings
from entrypoint.system.errors import UserError

logger = logging.getLogger("job")


class Trainer:
    """A model in training: its graph, and the session that holds its weights, its optimizer and its step."""

    def __init__(
        self,
        config: Any,
        seed: int,
        repeats: list[float] | None = None,
        *,
        averages: bool = False,
        freeze: str = "none",
        decay: float = 1.0,
    ) -> None:
        self.config = config
        self.decay = decay
        self.repeats = repeats
        self.is_frozen = backbone.frozen_by(freeze)
        self.graph = tf.Graph()
        with self.graph.as_default():
            tf.set_random_seed(seed)
            with patches.repeated_reading(repeats):
                self._build(averages=averages)
            self.saver = tf.train.Saver(max_to_keep=None)
            self.session = tf.Session()
            self.session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
            self.session.run([tf.tables_initializer(), self.batches.initializer])
        self.detector: Detector | None = None
        self.run_step = self.session.make_callable(self.row)

    def _build(self, *, averages: bool) -> None:
        """Builds input, losses and gradient descent. `row` runs a step and returns its losses and its learning rate."""
        train = self.config.train_config
        self.global_step = tf.train.get_or_create_global_step()
        self.model = models.build(self.config, is_training=True)
        dataset = training_input.batches(self.config, self.model)
        self.batches = tf.data.make_initializable_iterator(dataset)
        features, labels = self.batches.get_next()
        labels = model_lib.unstack_batch(labels, unpad_groundtruth_tensors=train.unpad_groundtruth_tensors)
        with patches.batch_norm(self.is_frozen, self.decay) as lowered:
            losses = compute(self.model, features, labels, self.global_step, train.add_regularization_loss)
        batch_norm.log(lowered, self.decay)
        # The variables that a zoo checkpoint can fill: the step and the optimizer's variables are not among them.
        self.variables = {each.op.name: each for each in tf.global_variables() if each is not self.global_step}
        # A local variable, so that it is not part of a checkpoint: the job keeps how it fitted the schedule.
        self.stretch = tf.Variable(
            [0, 0, 1], trainable=False, dtype=tf.float64, collections=[tf.GraphKeys.LOCAL_VARIABLES]
        )
        scheduled = schedules.position(self.global_step, self.stretch)
        optimizer, (rate, *_) = optimizer_builder.build(train.optimizer, global_step=scheduled)
        self.names = (*losses, "learning_rate")
        row = tf.stack([*losses.values(), tf.cast(rate, tf.float32)])
        # The losses and the rate are read before the step changes the variables that they depend on.
        with tf.control_dependencies([row]):
            self.trained = gradients.to_train(
                tf.trainable_variables(), train, lambda each: self.is_frozen(each.op.name)
            )
            descent = descend(optimizer, losses[LOSS], self.trained, train, self.global_step)
        ends = [descent, *tf.get_collection(tf.GraphKeys.UPDATE_OPS)]
        self.averages: list[Any] = []
        if averages:
            with tf.control_dependencies([descent]):
                ends.append(self._average())
        with tf.control_dependencies(ends):
            self.row = tf.identity(row)

    def _average(self) -> Any:
        """Returns an operation that moves the averages towards the present weights."""
        average = tf.train.ExponentialMovingAverage(averaging.DECAY, num_updates=self.global_step)
        moved = average.apply(self.trained)
        self.averages = [average.average(each) for each in self.trained]
        # Operations on all weights at once: each that is run for the first time costs TensorFlow a third of a second.
        self.values = [tf.placeholder(each.dtype.base_dtype, each.shape) for each in self.trained]
        self.assign_weights, self.assign_averages = (
            tf.group(*(each.assign(value) for each, value in zip(variables, self.values, strict=True)))
            for variables in (self.trained, self.averages)
        )
        return moved

    @property
    def step(self) -> int:
        """Returns the number of finished steps."""
        return int(self.session.run(self.global_step))

    @property
    def is_exact(self) -> bool:
        """Returns True: `detect` reads the checkpoint itself."""
        return True

    def start_from(self, prefix: str, known: Known | None = None) -> Restored:
        """Fills the weights that fit with a checkpoint of the zoo, which usually has another number of classes.

        Raises:
            UserError: the checkpoint is not readable, or belongs to another model.
        """
        kind = self.config.train_config.fine_tune_checkpoint_type
        with self.graph.as_default():
            wanted = self.model.restore_map(fine_tune_checkpoint_type=kind, load_all_detection_checkpoint_vars=True)
            wanted = {name: each for name, each in wanted.items() if each.op.name in self.variables}
            try:
                found = variables_helper.get_variables_available_in_checkpoint(
                    wanted, prefix, include_global_step=False
                )
                blended = self._blend(wanted, prefix, known) if known else []
                if found:
                    tf.train.Saver(found).restore(self.session, prefix)
            except (ValueError, tf.errors.OpError) as error:
                words = str(error).splitlines()[0]
                raise UserError(f"the checkpoint {prefix} does not fit the model: {words}") from None
        for variable, value in blended:
            variable.load(value, self.session)
        filled = {each.op.name for each in (*found.values(), *(variable for variable, _ in blended))}
        missing = [name for name in self.variables if name not in filled]
        result = Restored(sorted(filled), sorted(missing), known if blended else None)
        report(result, {name for name in self.variables if "FeatureExtractor/" in name}, prefix)
        self._begin_averages()
        return result

    def _blend(self, wanted: dict[str, Any], prefix: str, known: Known) -> list[tuple[Any, Any]]:
        """Returns the variables that have outputs for known labels, with values that have these of the checkpoint."""
        reader, outputs = tf.train.load_checkpoint(prefix), Outputs.of(self.config)
        found = []
        for name, variable in wanted.items():
            if class_outputs.has_label_outputs(name) and reader.has_tensor(name):
                fresh = self.session.run(variable)
                value = outputs.blend(name, fresh, reader.get_tensor(name), known)
                if value is not None:
                    found.append((variable, value))
        return found

    def restore(self, prefix: Path) -> None:
        """Restores a checkpoint that `save` wrote; raises JobError if a value is missing.

        If the checkpoint has no averages, they begin with its weights.
        """
        names = {name for name, _ in tf.train.list_variables(str(prefix))}
        has_averages = all(each.op.name in names for each in self.averages)
        if has_averages:
            models.restore(self.session, self.saver, prefix)
            return
        with self.graph.as_default():
            averages = {each.ref() for each in self.averages}
            others = tf.train.Saver([each for each in tf.global_variables() if each.ref() not in averages])
        models.restore(self.session, others, prefix)
        self._begin_averages()

    def _begin_averages(self) -> None:
        """Makes the present weights the average."""
        if self.averages:
            self._fill(self.assign_averages, self.session.run(self.trained))

    def _fill(self, assign: Any, values: list[Any]) -> None:
        """Runs an operation that assigns a value to each weight, or to each average."""
        self.session.run(assign, dict(zip(self.values, values, strict=True)))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Puts the averaged weights in the place of the present ones while the block runs.

        The averages of batch norm stay: they follow the present weights.
        """
        present, averages = self.session.run([self.trained, self.averages])
        self._fill(self.assign_weights, averages)
        try:
            yield
        finally:
            self._fill(self.assign_weights, present)

    def share(self, identity: str) -> None:
        """Does nothing: slim models train on one machine, and `build` refuses a cluster."""

    def agree(self, is_stopped: bool, numbers: list[int]) -> tuple[bool, list[int]]:
        """Returns the arguments: there is only one machine."""
        return is_stopped, numbers

    def follow(self, first: int, position: int, pace: float) -> None:
        """Stretches the schedule of the learning rate: step `first` + n takes its rate at `position` + n * `pace`."""
        self.stretch.load([first, position, pace], self.session)

    def train(self, steps: int) -> list[dict[str, float]]:
        """Trains exactly `steps` steps; returns the losses and the learning rate of each step."""
        values = np.stack([self.run_step() for _ in range(steps)])
        return [dict(zip(self.names, map(float, row), strict=True)) for row in values]

    def seconds_of_input(self, batches: int) -> float:
        """Returns the seconds that the photos of a batch take without the model, as an average of some batches."""
        with self.graph.as_default(), patches.repeated_reading(self.repeats):
            iterator = tf.data.make_initializable_iterator(training_input.batches(self.config, self.model))
            features, _ = iterator.get_next()
            # The buffers of the input pipeline go with the session.
            with tf.Session() as session:
                session.run([tf.tables_initializer(), iterator.initializer])
                # One value of a batch brings the whole batch.
                read = session.make_callable(features[fields.InputDataFields.true_image_shape])
                return training_input.seconds_of(read, batches)

    def detect(self, prefix: Path, records: list[str]) -> Iterator[Detections]:
        """Yields the detections of the checkpoint on every photo of the records, always the same ones."""
        if self.detector is None:
            self.detector = Detector(self.config, records)
        yield from self.detector.run(prefix)

    def save(self, prefix: Path) -> None:
        """Writes weights, optimizer and step as PREFIX.index and PREFIX.data-*."""
        self.saver.save(self.session, str(prefix), write_meta_graph=False, write_state=False)


def rehearse(config: Any) -> None:
    """Builds model, augmentation and optimizer, and forgets them; raises UserError if upstream refuses them."""
    with tf.Graph().as_default(), refusals.named():
        model = models.build(config, is_training=False)
        image, shapes = model.preprocess(tf.fill([1, 320, 320, 3], 128.0))
        model.postprocess(model.predict(image, shapes), shapes)
        gradients.refuse_without_effect(tf.trainable_variables(), config.train_config)
        gradients.to_train(tf.trainable_variables(), config.train_config)
        refusals.build_augmentation(config.train_config)
        optimizer_builder.build(config.train_config.optimizer, global_step=tf.train.get_or_create_global_step())


def build(
    config: Any, settings: Settings, step: int, repeats: list[float] | None, *, averages: bool = False
) -> Trainer:
    """Returns a trainer with random weights. The seed and the step decide the order of its photos.

    `repeats` lists for each label how often photos with this label are shown in an epoch; None shows each photo once.
    `averages` is whether the trainer averages its weights. Averages of batch norm follow the length of the training.

    Raises:
        UserError: the model cannot be built, or TF_CONFIG is set.
    """
    refuse_cluster("tf1", settings)
    if len(gpus := machine.find_gpus().names) > 1:
        logger.warning("models of the TF1 zoo train on one GPU, %s: TF2 models train on all %d", gpus[0], len(gpus))
    if settings.precision != "float32":
        logger.warning("PRECISION=%s is for TF2 models: training in float32", settings.precision)
    decay = batch_norm.greatest_decay(config, settings)
    return Trainer(config, settings.seed + step, repeats, averages=averages, freeze=settings.freeze, decay=decay)


def descend(optimizer: Any, loss: Any, variables: list[Any], train: Any, step: Any) -> Any:
    """Returns an operation that runs one step of gradient descent on the variables and adds one to the step."""
    found = [gradient for gradient, _ in optimizer.compute_gradients(loss, variables)]
    return optimizer.apply_gradients(gradients.adjust(found, variables, train), global_step=step)

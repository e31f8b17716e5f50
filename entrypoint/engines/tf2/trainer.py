"""Trains a Keras model. Steps run in a row without communication between host and device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tensorflow as tf
from object_detection import model_lib
from object_detection.builders import optimizer_builder

from entrypoint.engines import machine
from entrypoint.engines.engine import LOSS, Detections
from entrypoint.engines.shared import (
    averaging,
    batch_norm,
    distribution,
    gradients,
    patches,
    refusals,
    schedules,
    training_input,
)
from entrypoint.engines.shared.class_outputs import Known, Outputs
from entrypoint.engines.shared.losses import compute
from entrypoint.engines.shared.restore_report import Restored
from entrypoint.engines.tf2 import model as models
from entrypoint.engines.tf2.detector import Detector
from entrypoint.settings.schema import Settings
from entrypoint.system.errors import JobError, UserError


class Trainer:
    """A model in training: its weights, its optimizer and its step, on every replica of the strategy."""

    def __init__(
        self,
        config: Any,
        seed: int,
        strategy: Any,
        policy: str = "float32",
        repeats: list[float] | None = None,
        *,
        averages: bool = False,
        freeze: str = "none",
        decay: float = 1.0,
    ) -> None:
        refuse_uneven_batch(config.train_config.batch_size, strategy.num_replicas_in_sync)
        tf.keras.utils.set_random_seed(seed)
        self.config = config
        self.seed = seed
        self.strategy = strategy
        self.repeats = repeats
        self.policy = policy
        with strategy.scope():
            self._make_variables(averages=averages, freeze=freeze, decay=decay)
        self.parts = {"step": self.global_step, "model": self.model, "optimizer": self.optimizer}
        self.checkpoint = tf.train.Checkpoint(**self.parts, **({"averages": self.averages} if averages else {}))
        # Upstream's exporters restore a save_counter, and TensorFlow creates it only when it is accessed.
        self.checkpoint.save_counter.assign(0)
        self.names: tuple[str, ...] = ()
        self.batches: Iterator[Any] | None = None
        self.detector: Detector | None = None

    def _make_variables(self, *, averages: bool, freeze: str, decay: float) -> None:
        """Creates weights, optimizer and step, with the same values on all replicas."""
        self.model = models.build(self.config, is_training=True, policy=self.policy)
        variables = self.model.trainable_variables
        frozen = models.freeze_backbone(self.model) if freeze == "backbone" else set()
        batch_norm.fit(self.model, decay)
        self.trained = gradients.to_train(variables, self.config.train_config, lambda each: id(each) in frozen)
        first = tf.VariableAggregation.ONLY_FIRST_REPLICA
        self.global_step = tf.Variable(0, trainable=False, dtype=tf.int64, name="global_step", aggregation=first)
        # Not part of a checkpoint: the job keeps how it fitted the schedule.
        self.stretch = tf.Variable([0, 0, 1], trainable=False, dtype=tf.float64, aggregation=first)
        self.scheduled_step = tf.Variable(0, trainable=False, dtype=tf.int64, aggregation=first)
        self.optimizer, rate = build_optimizer(self.config.train_config.optimizer, self.scheduled_step)
        self.learning_rate = rate if callable(rate) else lambda: rate
        # `restore` would not fill optimizer slots that do not exist yet.
        self.optimizer._create_all_weights(self.model.trainable_variables)
        self.to_average = self.trained if averages else []
        self.averages = [
            tf.Variable(tf.convert_to_tensor(each), trainable=False, name="average") for each in self.to_average
        ]

    @property
    def step(self) -> int:
        """Returns the number of finished steps."""
        return int(self.global_step.numpy())

    @property
    def is_exact(self) -> bool:
        """Returns whether one device trains in float32: each device has averages of batch norm of its own."""
        return self.policy == "float32" and self.strategy.num_replicas_in_sync == 1

    def start_from(self, prefix: str, known: Known | None = None) -> Restored:
        """Fills the weights with a checkpoint of the zoo."""
        kind = self.config.train_config.fine_tune_checkpoint_type
        restored = models.restore_start(self.model, prefix, kind, Outputs.of(self.config), known)
        self._begin_averages()
        return restored

    def _begin_averages(self) -> None:
        """Makes the present weights the average."""
        for average, weight in zip(self.averages, self.to_average, strict=True):
            average.assign(weight)

    def restore(self, prefix: Path) -> None:
        """Restores a checkpoint that `save` wrote; raises JobError if a value is missing.

        If the checkpoint has no averages, they begin with its weights.
        """
        try:
            has_averages = any(name.startswith("averages/") for name, _ in tf.train.list_variables(str(prefix)))
            if has_averages == bool(self.averages):
                self.checkpoint.restore(str(prefix)).assert_consumed()
                return
            # EMA was changed: the averages of the checkpoint are not needed, or there are none.
            status = tf.train.Checkpoint(**self.parts).restore(str(prefix)).expect_partial()
            status.assert_existing_objects_matched()
            self._begin_averages()
        except (AssertionError, ValueError, tf.errors.OpError) as error:
            raise JobError(f"the checkpoint {prefix} does not belong to this job: {error}") from None

    def save(self, prefix: Path) -> None:
        """Writes weights, optimizer and step as PREFIX.index and PREFIX.data-*."""
        self.checkpoint.write(str(prefix))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Puts the averaged weights in the place of the present ones while the block runs.

        The averages of batch norm stay: they follow the present weights.
        """
        present = [each.numpy() for each in self.to_average]
        for weight, average in zip(self.to_average, self.averages, strict=True):
            weight.assign(average)
        try:
            yield
        finally:
            for weight, value in zip(self.to_average, present, strict=True):
                weight.assign(value)

    def detect(self, prefix: Path, records: list[str]) -> Iterator[Detections]:  # noqa: ARG002
        """Yields the detections of the present weights on every photo of the records, always the same ones."""
        if self.detector is None:
            self.detector = Detector(self.model, records, self.config.train_config.batch_size, self.strategy)
        yield from self.detector.run()

    def share(self, identity: str) -> None:
        """Gives all machines the chief's weights, optimizer and step.

        Raises:
            JobError: `identity` differs between machines.
        """
        if not distribution.is_cluster(self.strategy):
            return
        number = int(identity[:12], 16)
        if distribution.total(self.strategy, number) != number * self.strategy.num_replicas_in_sync:
            raise JobError("the machines of the cluster have different photos or settings: give all of them the same")
        weights = [variable for _, variable in models.named_variables(self.model)]
        variables = [self.global_step, *weights, *self.optimizer.variables(), *self.averages]
        for variable, value in zip(variables, distribution.from_chief(self.strategy, variables), strict=True):
            variable.assign(value)

    def agree(self, is_stopped: bool, numbers: list[int]) -> tuple[bool, list[int]]:
        """Returns whether any machine must stop, and the chief's numbers, by which all machines decide what to do."""
        if not distribution.is_cluster(self.strategy):
            return is_stopped, numbers
        stopped = distribution.total(self.strategy, is_stopped) > 0
        chosen = distribution.from_chief(self.strategy, [tf.constant(numbers, tf.int64)])[0].numpy()
        return stopped, [int(number) for number in chosen]

    def follow(self, first: int, position: int, pace: float) -> None:
        """Stretches the schedule of the learning rate: step `first` + n takes its rate at `position` + n * `pace`."""
        self.stretch.assign([first, position, pace])

    def train(self, steps: int) -> list[dict[str, float]]:
        """Trains exactly `steps` steps; returns the losses and the learning rate of each step."""
        if self.batches is None:
            tf.random.set_seed(self.seed)
            with patches.repeated_reading(self.repeats):
                self.batches = iter(make_dataset(self.config, self.model, self.strategy))
        values = self.run(self.batches, tf.constant(steps)).numpy()
        return [dict(zip(self.names, map(float, row), strict=True)) for row in values]

    def seconds_of_input(self, batches: int) -> float:
        """Returns the seconds that the photos of a batch take without the model, as an average of some batches."""
        # Not distributed: the memory of the GPUs can be full.
        with patches.repeated_reading(self.repeats), tf.device("CPU"):
            reader = iter(training_input.batches(self.config, self.model))
            return training_input.seconds_of(lambda: next(reader), batches)

    @tf.function
    def run(self, batches: Iterator[Any], steps: Any) -> Any:
        """Trains the steps; returns the values of `names` for each step, float32 [steps, len(names)]."""
        rows = tf.TensorArray(tf.float32, size=steps)
        for index in tf.range(steps):
            self.scheduled_step.assign(schedules.position(self.global_step, self.stretch))
            row = self.strategy.run(self._descend, args=next(batches))
            rows = rows.write(index, self.strategy.reduce("mean", row, axis=None))
            self.global_step.assign_add(1)
            self._average()
        return rows.stack()

    @tf.autograph.experimental.do_not_convert
    def _average(self) -> None:
        """Moves the averages towards the present weights, on each device."""
        share = averaging.rate(self.global_step)
        for average, weight in zip(self.averages, self.to_average, strict=True):
            self.strategy.extended.update(average, averaging.move, args=(weight, share))

    @tf.autograph.experimental.do_not_convert
    def _descend(self, features: dict[str, Any], labels: dict[str, Any]) -> Any:
        """Runs one step of gradient descent on a replica's part of a batch.

        Returns the losses and the learning rate of the step as float32.
        """
        train = self.config.train_config
        patches.set_training(self.model, is_training=True)
        labels = model_lib.unstack_batch(labels, unpad_groundtruth_tensors=train.unpad_groundtruth_tensors)
        with tf.GradientTape() as tape:
            losses = compute(self.model, features, labels, self.global_step, train.add_regularization_loss)
            # The optimizer adds up the gradients of all replicas.
            part = losses[LOSS] / self.strategy.num_replicas_in_sync
        pairs = gradients.adjust(tape.gradient(part, self.trained), self.trained, train)
        rate = tf.cast(self.learning_rate(), tf.float32)
        self.optimizer.apply_gradients(pairs)
        self.names = (*losses, "learning_rate")
        return tf.stack([*losses.values(), rate])


def build_optimizer(config: Any, step: Any) -> tuple[Any, Any]:
    """Returns upstream's optimizer of a config and the learning rate. RMSProp follows optimizer.proto."""
    optimizer, (rate,) = optimizer_builder.build(config, global_step=step)
    if config.HasField("rms_prop_optimizer"):
        patches.correct_rmsprop(optimizer, config.rms_prop_optimizer)
    return optimizer, rate


def rehearse(config: Any) -> None:
    """Builds model, augmentation and optimizer, and forgets them; raises UserError if upstream refuses them."""
    with refusals.named():
        model = models.build(config, is_training=True)
        gradients.refuse_without_effect(model.trainable_variables, config.train_config)
        gradients.to_train(model.trainable_variables, config.train_config)
        refusals.build_augmentation(config.train_config)
        _, rate = build_optimizer(config.train_config.optimizer, tf.Variable(0, dtype=tf.int64))
        if callable(rate):
            rate()
    # Keras counts the layers of a name, and the model of the training counts from the start again.
    tf.keras.backend.clear_session()


def build(
    config: Any, settings: Settings, step: int, repeats: list[float] | None, *, averages: bool = False
) -> Trainer:
    """Returns a trainer with random weights. The seed and the step decide the order of its photos.

    `repeats` lists for each label how often photos with this label are shown in an epoch; None shows each photo once.
    `averages` is whether the trainer averages its weights. Averages of batch norm follow the length of the training.
    """
    refuse_few_files(config, settings.tf_config.size if settings.tf_config else 1)
    strategy = distribution.strategy_for(settings.tf_config)
    policy, seed = machine.policy(settings), settings.seed + step
    decay = batch_norm.greatest_decay(config, settings)
    return Trainer(config, seed, strategy, policy, repeats, averages=averages, freeze=settings.freeze, decay=decay)


def refuse_few_files(config: Any, machines: int) -> None:
    """Raises UserError if a machine would get no photos: upstream distributes whole record files to the machines."""
    patterns = config.train_input_reader.tf_record_input_reader.input_path
    files = [file for pattern in patterns for file in tf.io.gfile.glob(pattern)]
    if len(files) < machines:
        raise UserError(
            f"TF_CONFIG names {machines} machines, but the photos for training are in {len(files)} record files: "
            "use at most one machine for each file"
        )


def refuse_uneven_batch(size: int, replicas: int) -> None:
    """Raises UserError if the photos of a batch cannot be divided evenly among the replicas."""
    if size % replicas:
        fitting = max(1, round(size / replicas)) * replicas
        raise UserError(f"BATCH_SIZE={size} cannot be divided among {replicas} devices: set BATCH_SIZE={fitting}")


def make_dataset(config: Any, model: Any, strategy: Any) -> Any:
    """Returns upstream's input pipeline: endless batches of (features, labels), augmented, resized and padded."""

    def make(context: Any) -> Any:
        dataset = training_input.batches(config, model, context)
        # An endless dataset has no smaller last batch, so replicas need not ask each other whether it has come.
        return dataset.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))

    return strategy.distribute_datasets_from_function(make)

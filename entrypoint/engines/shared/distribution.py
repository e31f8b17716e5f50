"""Distributes training over GPUs and machines with TensorFlow's own strategies, and exchanges values between them."""

from __future__ import annotations

import functools
import logging
from typing import Any

import tensorflow as tf

from entrypoint.settings.cluster import Cluster
from entrypoint.system import signals
from entrypoint.system.errors import JobError

logger = logging.getLogger("job")


@functools.lru_cache(maxsize=1)
def strategy_for(cluster: Cluster | None) -> Any:
    """Returns a tf.distribute.Strategy for one device, all GPUs of this machine, or all machines of a cluster.

    For a cluster, the call waits until all machines are connected. A process can create only one strategy of a
    cluster, and only before its first eager computation.
    """
    if cluster:
        return join(cluster)
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def join(cluster: Cluster) -> Any:
    """Waits for all machines of a cluster and returns its strategy; raises JobError if they cannot connect."""
    logger.info("machine %d of %d: waiting for the others", cluster.rank + 1, cluster.size)
    try:
        # TensorFlow replaces the handler of SIGTERM and holds Python's lock, so that the job cannot react to SIGTERM
        # while it waits for the other machines. SIGKILL is safe then: nothing is lost.
        strategy = make(cluster)
    except tf.errors.OpError as error:
        members = ", ".join(address for each in cluster.cluster.values() for address in each)
        raise JobError(f"the machines of TF_CONFIG ({members}) did not find each other: {error.message}") from None
    signals.take_back()
    logger.info("all %d machines are there, %d devices in all", cluster.size, strategy.num_replicas_in_sync)
    return strategy


def make(cluster: Cluster) -> Any:
    """Returns TensorFlow's strategy for a cluster."""
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(cluster.cluster),
        task_type=cluster.task.type,
        task_id=cluster.task.index,
        rpc_layer="grpc",
    )
    return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)


def is_cluster(strategy: Any) -> bool:
    """Returns whether the strategy spans several machines."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def from_chief(strategy: Any, values: list[Any]) -> list[Any]:
    """Returns the chief's values of tensors or variables that all replicas have. The chief is the first replica."""

    def exchange() -> list[Any]:
        return list(local(strategy, strategy.run(gather)))

    def gather() -> list[Any]:
        context = tf.distribute.get_replica_context()
        is_chief = tf.equal(context.replica_id_in_sync_group, 0)
        # Variables are read inside the replica, because there each replica reads its own values.
        mine = [tf.convert_to_tensor(value) for value in values]
        # The values are reduced one by one, because they have several types.
        return [context.all_reduce("sum", tf.where(is_chief, each, tf.zeros_like(each))) for each in mine]

    return list(tf.function(exchange, autograph=False)())


def total(strategy: Any, value: int) -> int:
    """Returns the sum of a number over all replicas of all machines."""
    return int(strategy.reduce("sum", strategy.run(lambda: tf.constant(value, tf.int64)), axis=None))


def local(strategy: Any, values: Any) -> Any:
    """Returns one replica's part of values that are the same on all replicas."""
    return tf.nest.map_structure(lambda each: strategy.experimental_local_results(each)[0], values)

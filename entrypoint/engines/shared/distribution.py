"""How training is spread over GPUs and machines: TensorFlow's own strategies, and what their members must agree on."""

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
    """The tf.distribute.Strategy: one device, all GPUs of this machine, or those of all machines of a cluster.

    A cluster is complete when this returns: the call waits for the other machines. TensorFlow makes one a process, and
    none where anything was computed eagerly before.
    """
    if cluster:
        return join(cluster)
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def join(cluster: Cluster) -> Any:
    """The strategy of a cluster, when all of its machines are there; JobError where that fails."""
    logger.info("machine %d of %d: waiting for the others", cluster.rank + 1, cluster.size)
    try:
        # It hears no SIGTERM, having taken the signal and Python's lock: SIGKILL ends it, and nothing is lost by that.
        strategy = make(cluster)
    except tf.errors.OpError as error:
        members = ", ".join(address for each in cluster.cluster.values() for address in each)
        raise JobError(f"the machines of TF_CONFIG ({members}) did not find each other: {error.message}") from None
    signals.take_back()
    logger.info("all %d machines are there, %d devices in all", cluster.size, strategy.num_replicas_in_sync)
    return strategy


def make(cluster: Cluster) -> Any:
    """TensorFlow's strategy of a cluster."""
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(cluster.cluster),
        task_type=cluster.task.type,
        task_id=cluster.task.index,
        rpc_layer="grpc",
    )
    return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)


def is_cluster(strategy: Any) -> bool:
    """Whether the strategy is one of several machines."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def from_chief(strategy: Any, values: list[Any]) -> list[Any]:
    """The chief's values of tensors or variables that every member has; the chief is the first replica."""

    def exchange() -> list[Any]:
        return list(local(strategy, strategy.run(gather)))

    def gather() -> list[Any]:
        context = tf.distribute.get_replica_context()
        is_chief = tf.equal(context.replica_id_in_sync_group, 0)
        # Variables are read here, where each replica sees its own.
        mine = [tf.convert_to_tensor(value) for value in values]
        # One by one, since they are of several types.
        return [context.all_reduce("sum", tf.where(is_chief, each, tf.zeros_like(each))) for each in mine]

    return list(tf.function(exchange, autograph=False)())


def total(strategy: Any, value: int) -> int:
    """The sum of a number over all machines, each counted once for each of its replicas."""
    return int(strategy.reduce("sum", strategy.run(lambda: tf.constant(value, tf.int64)), axis=None))


def local(strategy: Any, values: Any) -> Any:
    """One replica's part of what is the same on all."""
    return tf.nest.map_structure(lambda each: strategy.experimental_local_results(each)[0], values)

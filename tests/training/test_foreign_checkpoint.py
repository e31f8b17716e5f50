"""Checkpoints that were made up or damaged are named errors, although TensorFlow aborts on some of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorflow.core.protobuf.tensor_bundle_pb2 import BundleEntryProto

from entrypoint.system.errors import UserError
from entrypoint.training import foreign_checkpoint
from tests.tables import index_of

FLOAT = 1


def entry(dtype: int = FLOAT, dimension: int = 1, size: int = 4) -> BundleEntryProto:
    """An entry of an index. `dtype` is a number of TensorFlow's types.proto."""
    made = BundleEntryProto(dtype=dtype, size=size)
    made.shape.dim.add(size=dimension)
    return made


@pytest.mark.parametrize(
    "made",
    [entry(dimension=-5), entry(dtype=99), entry(dimension=1 << 40, size=1 << 42), entry(size=1 << 62)],
    ids=["negative dimension", "unknown type", "terabytes", "size without end"],
)
def test_index_that_was_made_up_is_a_named_error(tmp_path: Path, made: BundleEntryProto) -> None:
    (tmp_path / "ckpt-0.index").write_bytes(index_of({"weights": made}))
    (tmp_path / "ckpt-0.data-00000-of-00001").write_bytes(bytes(4))
    with pytest.raises(UserError, match=r"zoo\.tar\.gz: the checkpoint ckpt-0 in it is damaged"):
        foreign_checkpoint.refuse_unreadable(str(tmp_path / "ckpt-0"), "zoo.tar.gz")


def test_whole_checkpoint_is_accepted(tmp_path: Path) -> None:
    import tensorflow as tf

    prefix = tf.train.Checkpoint(weights=tf.Variable([1.0])).write(str(tmp_path / "ckpt-0"))
    foreign_checkpoint.refuse_unreadable(prefix, "zoo.tar.gz")
    data = Path(f"{prefix}.data-00000-of-00001")
    data.write_bytes(data.read_bytes()[:-1] + b"\xff")
    with pytest.raises(UserError, match="is damaged"):
        foreign_checkpoint.refuse_unreadable(prefix, "zoo.tar.gz")

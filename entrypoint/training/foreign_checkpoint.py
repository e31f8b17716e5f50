"""A checkpoint from outside is read in a process of its own first: TensorFlow aborts if an index was made up."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from entrypoint.system import child
from entrypoint.system.errors import JobError, UserError


def refuse_unreadable(prefix: str, source: str) -> None:
    """Reads every value of a checkpoint once. `prefix` is its path without .index; messages name the source.

    Raises:
        UserError: the checkpoint is damaged, or was made up.
        JobError: the memory of the machine does not suffice.
    """
    result = child.run_module("entrypoint.training.foreign_checkpoint", prefix)
    if result.returncode == -signal.SIGKILL:
        raise JobError(f"{source}: reading the checkpoint was ended by SIGKILL: give the machine more memory")
    if result.returncode:
        reason = result.stdout.strip() or "TensorFlow fails on its index"
        raise UserError(
            f"{source}: the checkpoint {Path(prefix).name} in it is damaged ({reason}): fetch it again, or set "
            "CHECKPOINT to another one"
        )


def read(prefix: str) -> int:
    """Reads every value; returns the exit code, and prints the reason if there is one."""
    import tensorflow as tf

    try:
        reader = tf.train.load_checkpoint(prefix)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except (tf.errors.OpError, ValueError, TypeError) as error:
        print(str(error).replace(prefix, Path(prefix).name))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(read(sys.argv[1]))

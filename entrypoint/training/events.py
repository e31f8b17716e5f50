"""TensorBoard's scalars and pictures: written to local files, and published with every checkpoint."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from entrypoint.system import copying
from entrypoint.workspace import Workspace

# A fixed name, so that in TENSORBOARD_DIR too the file replaces that of the run before.
NAME = "events.out.tfevents.0.job"


class Events:
    """A file of TensorBoard's events.

    It begins with the steps up to the checkpoint that a job resumes from: the file of the run before would have some
    steps twice, or be gone with its machine.
    """

    def __init__(self, folder: Path, history: list[dict[str, float]]) -> None:
        import tensorflow as tf

        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        # TensorFlow has one writer for graph mode and one for eager mode. The format of both is the same (event.proto).
        self.writer: Any = tf.io.TFRecordWriter(str(folder / NAME))
        self.writer.write(tf.compat.v1.Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
        self.write(history)

    def close(self) -> None:
        """Closes the file."""
        self.writer.close()

    def write(self, points: list[dict[str, float]]) -> None:
        """Writes the losses and the learning rate of some steps."""
        import tensorflow as tf

        for point in points:
            values = [
                tf.compat.v1.Summary.Value(tag=name, simple_value=value)
                for name, value in point.items()
                if name != "step"
            ]
            event = tf.compat.v1.Event(wall_time=time.time(), step=int(point["step"]))
            event.summary.value.extend(values)
            self.writer.write(event.SerializeToString())
        self.writer.flush()

    def write_pictures(self, step: int, pictures: Sequence[bytes]) -> None:
        """Writes validation photos with their boxes, as JPEGs."""
        import tensorflow as tf

        event = tf.compat.v1.Event(wall_time=time.time(), step=step)
        for index, encoded in enumerate(pictures):
            # The size is that in the JPEG. TensorBoard shows an image of another form than PNG, too.
            image = tf.compat.v1.Summary.Image(encoded_image_string=encoded, colorspace=3)
            event.summary.value.add(tag=f"validation/photo {index + 1}", image=image)
        self.writer.write(event.SerializeToString())
        self.writer.flush()


def publish(work: Workspace) -> None:
    """Copies the events to TENSORBOARD_DIR, if that is set."""
    if work.settings.tensorboard_dir and work.events.is_dir():
        copying.copy_tree(work.events, work.settings.tensorboard_dir)

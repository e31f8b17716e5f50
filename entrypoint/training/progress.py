"""What a person is told about a training: a live display at a terminal, a line every ten seconds in a log."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from entrypoint.engines.engine import LOSS
from entrypoint.system import display, memory
from entrypoint.system.display import Task
from entrypoint.training.metrics import Evaluations

logger = logging.getLogger("job")

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """The progress of a training from the step at which this run began."""

    def __init__(self, step: int, batch: int) -> None:
        self.began_at = step
        self.batch = batch
        self.began = self.line_at = time.monotonic()
        self.task: Task | None = None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Shows the training at a terminal while the block runs."""
        if not display.is_live():
            yield
            return
        with display.DISPLAY.task("training", total=None) as self.task:
            yield
        self.task = None

    def tell(
        self, point: dict[str, float], last: int | None, seconds_per_step: float, evaluations: Evaluations
    ) -> None:
        """Tells where the training is. `last` is the last step, None as long as it is not decided."""
        step = int(point["step"])
        if self.task:
            self.task.update(step, last, describe(point[LOSS], seconds_per_step, self.batch, evaluations))
            return
        # cacli reads `tensorflow:loss = ([\d.]*), step = (\d*)`.
        logger.info("tensorflow:loss = %.4f, step = %d", point[LOSS], step)
        now = time.monotonic()
        if last and now - self.line_at >= SECONDS_BETWEEN_LINES:
            self.line_at = now
            facts = describe(point[LOSS], seconds_per_step, self.batch, evaluations)
            left = (last - step) * (now - self.began) / max(1, step - self.began_at)
            logger.info("training: step %d of %d, %s, about %s left", step, last, facts, display.time_in_words(left))


def describe(loss: float, seconds_per_step: float, batch: int, evaluations: Evaluations) -> str:
    """Returns pace, loss, metrics and memory in words."""
    pace = 1 / max(seconds_per_step, 1e-6)
    words = [f"{pace:.2g} steps/s", f"{batch * pace:.3g} photos/s", f"loss {loss:.3f}"] if seconds_per_step else []
    best = evaluations.best
    if best and evaluations.rows[-1].map is not None:
        words.append(f"mAP {evaluations.rows[-1].map:.3f} (best {best.map:.3f} at step {best.step})")
    return ", ".join([*words, f"{memory.of_process() / 1e9:.1f} GB of memory"])

"""Trains a few steps with a batch to see whether it fits into memory, in a process of its own: see batch_size.py."""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from pathlib import Path

from entrypoint.data import records
from entrypoint.engines import loading, machine
from entrypoint.settings import environment
from entrypoint.settings.schema import MOST_STEPS, Settings
from entrypoint.system import documents, memory
from entrypoint.system.errors import JobError, explain
from entrypoint.training import evaluation, length
from entrypoint.training.batch_size import TOO_LARGE, Trial
from entrypoint.workspace import Workspace
from entrypoint.zoo import pipeline_config

# The first step compiles the model. The last one is timed.
STEPS = 3
# The share of the free memory that the process may take. The job itself needs the rest.
SHARE = 0.85
SECONDS_BETWEEN_LOOKS = 0.02


def run(config: Path, settings: Settings) -> Trial:
    """Trains STEPS steps, and detects on one batch, as an evaluation during the training does."""
    environment.prepare(settings)
    read = pipeline_config.read(config)
    engine = loading.engine_of(pipeline_config.generation_of(read, config))
    work = Workspace(settings)
    most = MOST_STEPS if length.is_open(settings) else read.train_config.num_steps
    trainer = engine.build(read, settings, 0, None, averages=evaluation.averages(work, most))
    for _ in range(STEPS):
        began = time.monotonic()
        trainer.train(1)
        seconds = time.monotonic() - began
    if evaluation.has_photos(work):
        # The engine of TF1 detects with the weights of a checkpoint.
        prefix = config.with_name("ckpt-0")
        trainer.save(prefix)
        next(iter(trainer.detect(prefix, records.load(work).validation.paths(work.records))))
    return Trial(memory_used(), seconds)


def memory_used() -> int:
    """Returns the most bytes in use so far: of the fullest GPU, or of this process if there is no GPU."""
    import tensorflow as tf

    gpus = [f"GPU:{index}" for index in range(len(tf.config.list_physical_devices("GPU")))]
    if gpus:
        return max(int(tf.config.experimental.get_memory_info(gpu)["peak"]) for gpu in gpus)
    # In kibibytes (getrusage(2)).
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def end_when_full(allowed: int) -> None:
    """Ends this process when it takes more memory than that, before the kernel ends it or another process."""
    while memory.of_process() < allowed:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    tell(Trial(error=f"it takes more than {allowed / (1 << 30):.1f} GiB of memory"))
    os._exit(TOO_LARGE)


def tell(trial: Trial) -> None:
    """Prints what the trial has shown, as a line of JSON."""
    print(json.dumps(documents.to_plain(trial)), flush=True)


def main(config: str) -> int:
    """Tries the config with the settings in standard input, prints what it has shown, and returns the exit code."""
    allowed = int(SHARE * memory.free())
    threading.Thread(target=end_when_full, args=(allowed,), daemon=True, name="memory").start()
    try:
        trial = run(Path(config), Settings(**json.load(sys.stdin)))
    except JobError as error:
        trial, code = Trial(error=str(error)), error.exit_code
    except Exception as error:
        trial, code = Trial(error=explain(error)), TOO_LARGE if machine.is_out_of_memory(error) else JobError.exit_code
    else:
        code = 0
    tell(trial)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

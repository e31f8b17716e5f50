"""Trains every box model of the zoo for two steps, from an archive made for it: `python -m tests.zoo.sweep [NAME...]`.

Each model is a job like a user's: `MODEL=name`, an archive from a server, training, evaluation, export. The result of a
model stays in zoo-sweep/NAME.json, so that a sweep that was stopped can continue. docs/zoo.md is the table of all
models. Names can be patterns: 'ssd_*'.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import math
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from entrypoint.zoo import catalogue
from tests import demo
from tests.conftest import environment, run_measured
from tests.server import serve

ROOT = Path(__file__).resolve().parents[2]
ROWS = ROOT / "zoo-sweep"
TABLE = ROOT / "docs" / "zoo.md"
STEPS = 2
PHOTOS = 8
SHRINKS = (1, 2, 4)  # divisors of the sides of the input, tried in order until the model fits into memory
OUT_OF_MEMORY = "was killed by SIGKILL. The kernel does this if memory runs out"  # as the job's parent process says it
HEAD = """# The zoo on current TensorFlow

Each row is one job on one box model of the two generations. An HTTP server has an archive with the model's names and
shapes and with random weights. `MODEL=name` downloads the archive, restores it, trains {steps} steps on a bucket of
{photos} drawings with three labels, one photo per step, evaluates and exports. `make test-zoo` made the table on two
CPU cores with 24 GB, without a GPU and beside other work, which influences the seconds. "published" means that the
names and shapes of the archive were compared with the index of the real archive and are equal; for the other models
they follow only from upstream's configs. All variables are restored except those of heads whose shapes depend on the
number of labels. The input is smaller than the model's own if the machine's memory was too small.

| model | config | input | archive's variables | restored | losses | exported | peak memory | seconds |
|---|---|---|---|---|---|---|---|---|
"""


@dataclasses.dataclass(frozen=True)
class Row:
    """The result of a job on one model."""

    name: str
    generation: str
    config: str  # "ours" or "archive's"
    input: str
    variables: int
    published: int | None  # number of variables in the published index, or None if there is no index to compare
    restored: str  # "N of M"
    losses: list[float]
    exports: list[str]
    peak_gigabytes: float
    seconds: int


class SweepError(Exception):
    """A job has failed. The message is its log."""


def main(patterns: list[str]) -> None:
    """Runs a job on every model that has no result yet, and writes the table."""
    ROWS.mkdir(exist_ok=True)
    failed = []
    for model in box_models(patterns):
        if not (ROWS / f"{model.name}.json").exists():
            print(model.name, end=": ", flush=True)
            try:
                row = try_model(model)
            except SweepError as error:
                failed.append(model.name)
                (ROWS / f"{model.name}.log").write_text(str(error))
                print("failed, see", ROWS / f"{model.name}.log", flush=True)
            else:
                (ROWS / f"{model.name}.json").write_text(json.dumps(dataclasses.asdict(row)))
                (ROWS / f"{model.name}.log").unlink(missing_ok=True)
                print(row.restored, f"restored, {row.seconds} s", flush=True)
    TABLE.write_text(table())
    if failed:
        sys.exit(f"{len(failed)} models failed: {', '.join(failed)}")


def box_models(patterns: list[str]) -> list[catalogue.Model]:
    """Returns the models of the zoo that find only boxes, and whose names match a pattern."""
    models = [model for model in catalogue.load().values() if model.outputs == "boxes" and model.archive]
    return [model for model in models if any(fnmatch.fnmatch(model.name, each) for each in patterns or ["*"])]


def try_model(model: catalogue.Model, **settings: Any) -> Row:
    """Makes the archive, serves it and runs the job. The input becomes smaller until the model fits into memory."""
    for shrink in SHRINKS:
        with tempfile.TemporaryDirectory() as scratch:
            row = run_once(model, Path(scratch), shrink, settings)
        if row:
            return row
    raise SweepError(f"{model.name} does not fit into this machine's memory")


def run_once(model: catalogue.Model, folder: Path, shrink: int, settings: dict[str, Any]) -> Row | None:
    """Returns the result of the job, or None if it ran out of memory; raises SweepError if it failed."""
    made = make_archive(model.name, folder, shrink)
    demo.draw_bucket(folder / "bucket", photos=PHOTOS)
    places = {"DATA_DIR": folder / "bucket", "WORK_DIR": folder / "work", "RESULT_DIR": folder / "results"}
    if model.pipeline and shrink > 1:
        settings = {**settings, "PIPELINE_CONFIG": folder / "pipeline.config"}
    began = time.monotonic()
    with serve((folder / made["archive"]).read_bytes()) as server:
        (folder / made["archive"]).unlink()
        settings = {"MODEL": model.name, "ZOO_URL": server.address, "BATCH_SIZE": 1, **places, **settings}
        status, log, peak = run_measured([sys.executable, "-m", "entrypoint", str(STEPS)], environment(**settings))
    if OUT_OF_MEMORY in log:
        return None
    if status:
        raise SweepError(log)
    return read_row(model, folder, log, made, peak, time.monotonic() - began)


def make_archive(name: str, folder: Path, shrink: int) -> dict[str, Any]:
    """Runs tests/zoo/archives.py; returns the facts that it prints about the archive."""
    command = [sys.executable, "-m", "tests.zoo.archives", name, str(folder), str(shrink)]
    result = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    if result.returncode:
        raise SweepError(result.stderr)
    made: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return made


def read_row(model: catalogue.Model, folder: Path, log: str, made: dict[str, Any], peak: float, seconds: float) -> Row:
    """Returns the result from the log and the files of a job; raises SweepError if something is missing."""
    restored = re.search(r"checkpoint: (\d+ of \d+) variables restored", log)
    losses = [float(loss) for loss in re.findall(r"tensorflow:loss = (\S+), step", log)]
    exports = [name for name in ("model", "model_android") if any((folder / "results" / name).glob("*model*"))]
    config = "archive's" if re.search(r"/extracted/(\S+/)?pipeline\.config, with these values", log) else "ours"
    _, _, resizer = (folder / "results" / "pipeline.config").read_text().partition("image_resizer")
    sides = re.findall(r"(?:height|width|min_dimension|max_dimension): (\d+)", resizer)[:2]
    if restored is None or len(losses) != STEPS or not all(map(math.isfinite, losses)) or not exports:
        raise SweepError(log)
    return Row(
        name=model.name,
        generation=model.generation,
        config=config,
        input="x".join(sides),
        variables=made["variables"],
        published=made["published"],
        restored=restored.group(1),
        losses=losses,
        exports=exports,
        peak_gigabytes=round(peak, 1),
        seconds=round(seconds),
    )


def table() -> str:
    """Returns the text of docs/zoo.md. A model without a result in this checkout keeps its old row."""
    lines = {name: line for line in old_lines() if (name := line.split("|")[1].strip())}
    for path in ROWS.glob("*.json"):
        lines[path.stem] = show(Row(**json.loads(path.read_text())))
    tried = [lines[model.name] for model in box_models([]) if model.name in lines]
    missing = [model.name for model in box_models([]) if model.name not in lines]
    end = f"\nNot tried yet: {', '.join(missing)}.\n" if missing else ""
    return HEAD.format(steps=STEPS, photos=PHOTOS) + "\n".join(tried) + "\n" + end


def old_lines() -> list[str]:
    """Returns the rows of the present table."""
    text = TABLE.read_text() if TABLE.exists() else ""
    return [line for line in text.splitlines() if line.startswith("| ")]


def show(row: Row) -> str:
    """Returns a row of the table."""
    model = catalogue.find(row.name)
    is_whole = set(re.findall(r"\d+", row.input)) == set(re.findall(r"\d+", model.input_size))
    size = row.input if is_whole else f"{row.input}, of {model.input_size.replace('-', 'x')}"
    variables = f"{row.variables}{', published' if row.published else ''}"
    losses = ", ".join(f"{loss:.3g}" for loss in row.losses)
    ends = (losses, ", ".join(row.exports), f"{row.peak_gigabytes} GB", str(row.seconds))
    return f"| {' | '.join((row.name, row.config, size, variables, row.restored, *ends))} |"


if __name__ == "__main__":
    main(sys.argv[1:])

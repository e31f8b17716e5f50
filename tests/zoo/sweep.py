"""Trains every box model of the zoo for two steps, from an archive made for it: `python -m tests.zoo.sweep [NAME...]`.

Each model is a job like a user's: `MODEL=name`, an archive from a server, training, evaluation, export. What is done
stays in zoo-sweep/NAME.json, so that a sweep that was stopped goes on where it was; docs/zoo.md is the table of all.
Names may be patterns: 'ssd_*'.
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
SHRINKS = (1, 2, 4)  # what the sides of the input are divided by, until the model fits into memory
OUT_OF_MEMORY = (-9, 137)
HEAD = """# The zoo on current TensorFlow

Every box model of both generations, each as a job of its own: an archive with the model's names and shapes and random
weights is served by HTTP, `MODEL=name` fetches it, restores it, trains {steps} steps on a bucket of {photos} drawings
with three labels, one photo a step, evaluates and exports. Made by `make test-zoo` on two CPU cores with 24 GB, without
a GPU and beside other work, which the seconds show. "published" says that names and shapes of the archive were held
against the index of the real one and are equal; the others follow from upstream's configs alone. Restored are all
variables but those of heads whose shapes depend on the number of labels. An input is smaller than the model's own where
the machine's memory did not hold it.

| model | config | input | archive's variables | restored | losses | exported | peak memory | seconds |
|---|---|---|---|---|---|---|---|---|
"""


@dataclasses.dataclass(frozen=True)
class Row:
    """What a job on a model came to."""

    name: str
    generation: str
    config: str  # "ours" or "archive's"
    input: str
    variables: int
    published: int | None  # as many variables as the published index names, where there is one to compare
    restored: str  # "N of M"
    losses: list[float]
    exports: list[str]
    peak_gigabytes: float
    seconds: int


class SweepError(Exception):
    """A job that did not come to its end; holds its log."""


def main(patterns: list[str]) -> None:
    """Tries every model that was not tried yet, and writes the table."""
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
    """The models of the zoo that find boxes and nothing else, as far as their names match."""
    models = [model for model in catalogue.load().values() if model.outputs == "boxes" and model.archive]
    return [model for model in models if any(fnmatch.fnmatch(model.name, each) for each in patterns or ["*"])]


def try_model(model: catalogue.Model, **settings: Any) -> Row:
    """Makes the archive, serves it and runs the job; at a smaller input where memory does not hold the model's own."""
    for shrink in SHRINKS:
        with tempfile.TemporaryDirectory() as scratch:
            row = run_once(model, Path(scratch), shrink, settings)
        if row:
            return row
    raise SweepError(f"{model.name} does not fit into this machine's memory")


def run_once(model: catalogue.Model, folder: Path, shrink: int, settings: dict[str, Any]) -> Row | None:
    """What the job came to; None where it was killed for its memory, SweepError where it failed."""
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
    if status in OUT_OF_MEMORY:
        return None
    if status:
        raise SweepError(log)
    return read_row(model, folder, log, made, peak, time.monotonic() - began)


def make_archive(name: str, folder: Path, shrink: int) -> dict[str, Any]:
    """What tests/zoo/archives.py says of the archive it made."""
    command = [sys.executable, "-m", "tests.zoo.archives", name, str(folder), str(shrink)]
    result = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    if result.returncode:
        raise SweepError(result.stderr)
    made: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return made


def read_row(model: catalogue.Model, folder: Path, log: str, made: dict[str, Any], peak: float, seconds: float) -> Row:
    """What the log and the results say; SweepError where something is missing."""
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
    """docs/zoo.md: what was found of every model, now or, where this checkout has not tried it, before."""
    lines = {name: line for line in old_lines() if (name := line.split("|")[1].strip())}
    for path in ROWS.glob("*.json"):
        lines[path.stem] = show(Row(**json.loads(path.read_text())))
    tried = [lines[model.name] for model in box_models([]) if model.name in lines]
    missing = [model.name for model in box_models([]) if model.name not in lines]
    end = f"\nNot tried yet: {', '.join(missing)}.\n" if missing else ""
    return HEAD.format(steps=STEPS, photos=PHOTOS) + "\n".join(tried) + "\n" + end


def old_lines() -> list[str]:
    """The rows of the table as it is."""
    text = TABLE.read_text() if TABLE.exists() else ""
    return [line for line in text.splitlines() if line.startswith("| ")]


def show(row: Row) -> str:
    """A row of the table."""
    model = catalogue.find(row.name)
    is_whole = set(re.findall(r"\d+", row.input)) == set(re.findall(r"\d+", model.input_size))
    size = row.input if is_whole else f"{row.input}, of {model.input_size.replace('-', 'x')}"
    variables = f"{row.variables}{', published' if row.published else ''}"
    losses = ", ".join(f"{loss:.3g}" for loss in row.losses)
    ends = (losses, ", ".join(row.exports), f"{row.peak_gigabytes} GB", str(row.seconds))
    return f"| {' | '.join((row.name, row.config, size, variables, row.restored, *ends))} |"


if __name__ == "__main__":
    main(sys.argv[1:])

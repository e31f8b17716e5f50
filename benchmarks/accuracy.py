"""How good a model is for its steps or its minutes: `python -m benchmarks.accuracy --help`.

Each run is a training of the job itself, in processes of its own: one recipe, one bucket, one seed. A recipe is a named
change to a pipeline, in benchmarks/recipes.yaml. All runs of a bucket train and are evaluated on the same photos. What
a run found is kept in the folder of `--out`, and is not measured again; `--table` prints what is there. `--curves` adds
the evaluations during the training: mAP over steps and over minutes.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks import hand_weights, real_weights
from tests.conftest import environment

RECIPES = Path(__file__).with_name("recipes.yaml")
# The models that most recipes are for, one of each generation. Others take those that do not name another architecture.
MODELS = ["ssdlite_mobilenet_v2_coco", "ssd_mobilenet_v2_fpnlite_320x320"]
HEAD = "| recipe | bucket | mAP | mAP@0.5 | runs |\n|---|---|---|---|---|"
CURVES_HEAD = "| recipe | bucket | step | minutes | mAP | runs |\n|---|---|---|---|---|---|"


@dataclass(frozen=True)
class Run:
    """One training: what is trained from which start, on which photos, and for how long."""

    model: str
    recipe: str
    bucket: str
    seed: int
    start: str  # "real", "hands", "none", or a checkpoint
    steps: int
    batch: int
    size: int | None  # of the model's input in pixels; None is that of the pipeline
    minutes: float | None  # for the whole job; None is no limit

    @property
    def name(self) -> str:
        """The name of the run, which is also that of its file."""
        start = Path(self.start).name
        length = f"{self.minutes:g}min" if self.minutes else f"{self.steps}x{self.batch}"
        size = f"-{self.size}" if self.size else ""
        return f"{self.model}{size}-{start}-{length}-{Path(self.bucket).name}-{self.recipe}-{self.seed}"


@dataclass(frozen=True)
class Result:
    """What a run reached: the metrics of the exported model, and those of each evaluation during the training."""

    run: Run
    pipeline: str  # SHA-256 of the pipeline.config of the recipe
    metrics: dict[str, float | None]  # mAP, mAP@0.5, and so on
    per_label: dict[str, float | None]  # AP
    curve: list[dict[str, str]]  # the rows of metrics.csv, with the minutes since the job began


def main(arguments: Sequence[str]) -> int:
    """Makes the runs that are missing and prints the table."""
    options = parse(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    runs = [
        Run(options.model, recipe, bucket, seed, options.start, options.steps, options.batch, options.size, minutes)
        for seed, recipe, bucket, minutes in itertools.product(
            range(options.seeds), options.recipes, options.buckets, options.minutes or [None]
        )
    ]
    if not options.table:
        # Runs side by side share these.
        for run in runs:
            start_of(run, options.out)
            records_of(run, options.out)
        with ThreadPoolExecutor(options.at_a_time) as pool:
            list(pool.map(lambda run: obtain(run, options.out, options.at_a_time), runs))
    results = [result for run in runs if (result := load(run, options.out))]
    print(table(results))
    if options.curves:
        print(f"\n{curves(results)}")
    return 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Returns the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("buckets", nargs="+", help="folders with photos and annotations")
    parser.add_argument("--model", default=MODELS[0], help="a model with a pipeline of ours")
    parser.add_argument("--start", default="real", help="real, hands, none, or a checkpoint; default: real")
    parser.add_argument("--recipes", nargs="+", default=["as-it-is"], help=f"names in {RECIPES.name}, also joined by +")
    parser.add_argument("--seeds", type=int, default=3, help="number of runs of each kind")
    parser.add_argument("--steps", type=int, default=600, help="steps of a training, the most with --minutes")
    parser.add_argument("--batch", type=int, default=8, help="photos of a step")
    parser.add_argument("--size", type=int, help="pixels of the model's input; default: the pipeline's")
    parser.add_argument("--minutes", type=float, nargs="+", help="compare at equal time instead of equal steps")
    parser.add_argument("--at-a-time", type=int, default=1, help="runs side by side, which share the cores")
    parser.add_argument("--out", type=Path, default=Path("accuracy"), help="folder of what the runs found")
    parser.add_argument("--table", action="store_true", help="only print the table of what is there")
    parser.add_argument("--curves", action="store_true", help="also print mAP over steps and minutes")
    return parser.parse_args(arguments)


def records_of(run: Run, out: Path) -> Path:
    """Returns the folder of the records for a run, which all runs of its bucket, model and input size share."""
    # Resizers differ, and photos are stored for the size of the input.
    work = out / "records" / f"{Path(run.bucket).name}-{run.model}{f'-{run.size}' if run.size else ''}"
    if not (work / "records" / "manifest.json").exists():
        pipeline = out / "records" / "pipeline.config"
        pipeline.parent.mkdir(exist_ok=True)
        pipeline.write_text(pipeline_of(run))
        places = {"DATA_DIR": run.bucket, "WORK_DIR": work, "RESULT_DIR": out / "records" / "results"}
        job("tf_record", {"PIPELINE_CONFIG": pipeline, "CHECKPOINT": "none", **places})
        # The job takes records from a folder that also holds the annotations.
        shutil.copy(work / "dataset.json", work / "records")
    return work / "records"


def obtain(run: Run, out: Path, at_a_time: int = 1) -> Result:
    """Returns the result of a run, and makes the run if its result is not there or is of another pipeline."""
    found = load(run, out)
    if found:
        return found
    print(run.name, file=sys.stderr, flush=True)
    folder = out / "runs" / run.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "pipeline.config").write_text(pipeline_of(run))
    began = time.time()
    job("evaluate", settings_of(run, out, folder), at_a_time)
    document = json.loads((folder / "work" / "metrics.json").read_text())
    per_label = {label: each["AP"] for label, each in document["per_label"].items()}
    result = Result(run, digest(run), document["summary"], per_label, curve_of(folder, began))
    (out / f"{run.name}.json").write_text(json.dumps(asdict(result), indent=1))
    shutil.rmtree(folder)
    return result


def curve_of(folder: Path, began: float) -> list[dict[str, str]]:
    """Returns the rows of metrics.csv, each with the minutes since `began`, as TensorBoard's events have them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    table_of_all = folder / "results" / "metrics.csv"
    # A short training has no evaluation but the last.
    if not table_of_all.exists():
        return []
    events = EventAccumulator(str(folder / "work" / "checkpoint" / "events"), size_guidance={"scalars": 0})
    events.Reload()
    minutes = {str(event.step): (event.wall_time - began) / 60 for event in events.Scalars("validation/mAP")}
    rows = csv.DictReader(table_of_all.read_text().splitlines())
    return [{**row, "minutes": f"{minutes[row['step']]:.2f}"} for row in rows]


def load(run: Run, out: Path) -> Result | None:
    """Returns the result of a run that was made with the same pipeline, or None."""
    path = out / f"{run.name}.json"
    if not path.exists():
        return None
    values = json.loads(path.read_text())
    result = Result(**{**values, "run": Run(**values["run"])})
    return result if result.run == run and result.pipeline == digest(run) else None


def start_of(run: Run, out: Path) -> str:
    """Returns the value of CHECKPOINT for a run, and writes the checkpoint if it is missing."""
    if run.start == "real":
        return str(real_weights.make(out / "weights", run.model))
    if run.start == "hands":
        bucket = Path(run.bucket)
        return str(hand_weights.make(out / "weights" / f"hands-{bucket.name}", run.model, bucket))
    return run.start


def settings_of(run: Run, out: Path, folder: Path) -> dict[str, Any]:
    """Returns the settings of the job of a run."""
    return {
        "DATA_DIR": run.bucket,
        "RECORDS_DIR": records_of(run, out),
        "WORK_DIR": folder / "work",
        "RESULT_DIR": folder / "results",
        "PIPELINE_CONFIG": folder / "pipeline.config",
        "CHECKPOINT": start_of(run, out),
        "NUM_STEPS": run.steps,
        "BATCH_SIZE": run.batch,
        "SEED": run.seed,
        **({"MAX_MINUTES": run.minutes} if run.minutes else {}),
        **settings_in(run.recipe),
    }


def job(step: str, settings: dict[str, Any], at_a_time: int = 1) -> None:
    """Runs the job up to a step, on its part of the cores; raises CalledProcessError if it fails."""
    cores = max(1, len(os.sched_getaffinity(0)) // at_a_time)
    variables = environment(**settings) | {"TF_NUM_INTRAOP_THREADS": str(cores), "TF_NUM_INTEROP_THREADS": str(cores)}
    command = [sys.executable, "-m", "entrypoint", step]
    result = subprocess.run(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if result.returncode:
        sys.stderr.write(result.stdout.decode(errors="replace"))
        raise subprocess.CalledProcessError(result.returncode, command)


def all_recipes() -> dict[str, Any]:
    """Returns the recipes of recipes.yaml by their names."""
    found: dict[str, Any] = yaml.safe_load(RECIPES.read_text())
    return found


def models_for(name: str) -> list[str]:
    """Returns the models whose pipelines a recipe changes."""
    named = [each["models"] for each in lineage(name) if "models" in each]
    return list(named[-1]) if named else MODELS


def recipe_of(name: str) -> dict[str, Any]:
    """Returns a recipe of recipes.yaml."""
    recipes = all_recipes()
    if name not in recipes:
        raise SystemExit(f"{name} is no recipe of {RECIPES.name}: {', '.join(recipes)}")
    found: dict[str, Any] = recipes[name] or {}
    return found


def pipeline_of(run: Run) -> str:
    """Returns the pipeline.config of a run: that of the model, changed by the recipe and by those it is built on."""
    from google.protobuf import text_format

    from entrypoint.zoo import catalogue, pipeline_config

    config = pipeline_config.read(catalogue.PIPELINES / f"{run.model}.config")
    architecture = config.model.WhichOneof("model")
    for recipe in lineage(run.recipe):
        for path in recipe.get("clear", []):
            parent, _, name = path.rpartition(".")
            message = config
            for part in filter(None, parent.split(".")):
                message = getattr(message, part)
            message.ClearField(name)
        text_format.Merge(recipe.get("config", ""), config)
    if config.model.WhichOneof("model") != architecture:
        raise SystemExit(f"{run.recipe} of {RECIPES.name} is not for {run.model}, whose architecture is {architecture}")
    if run.size:
        resize(config, run.size)
    return str(pipeline_config.write(config))


def resize(config: Any, size: int) -> None:
    """Gives a model an input of `size` x `size` pixels; photos that keep their aspect ratios fit into it."""
    from entrypoint.zoo import pipeline_config

    resizer = pipeline_config.architecture_of(config).image_resizer
    kind = resizer.WhichOneof("image_resizer_oneof")
    for side in ("height", "width") if kind == "fixed_shape_resizer" else ("min_dimension", "max_dimension"):
        setattr(getattr(resizer, kind), side, size)


def lineage(name: str) -> list[dict[str, Any]]:
    """Returns a recipe with all that it is built on, the first one first. Several recipes are joined by `+`."""
    found = []
    for part in name.split("+"):
        recipe = recipe_of(part)
        found += [*(each for base in recipe.get("base", []) for each in lineage(base)), recipe]
    return found


def digest(run: Run) -> str:
    """Returns the SHA-256 of the pipeline.config of a run and of its recipe's settings."""
    return hashlib.sha256((pipeline_of(run) + repr(settings_in(run.recipe))).encode()).hexdigest()


def settings_in(recipe: str) -> dict[str, Any]:
    """Returns the settings of a recipe and of those it is built on."""
    return {name: value for each in lineage(recipe) for name, value in each.get("settings", {}).items()}


def table(results: list[Result]) -> str:
    """Returns a Markdown table: mean and standard deviation over the seeds, a row for each recipe and bucket."""
    rows = []
    for names, group in grouped(results).items():
        values = [spread([each.metrics[name] or 0.0 for each in group]) for name in ("mAP", "mAP@0.5")]
        rows.append(f"| {names} | {' | '.join(values)} | {len(group)} |")
    return "\n".join([HEAD, *rows])


def curves(results: list[Result]) -> str:
    """Returns a Markdown table of the evaluations during the training, with the means over the seeds."""
    rows = []
    for names, group in grouped(results).items():
        # With equal time, seeds differ in their steps, and can differ in the number of evaluations.
        for number in range(max(len(each.curve) for each in group)):
            found = [each.curve[number] for each in group if number < len(each.curve)]
            steps = statistics.mean(float(row["step"]) for row in found)
            # Results of an older checkout have no minutes.
            known = [float(row["minutes"]) for row in found if "minutes" in row]
            minutes = f"{statistics.mean(known):.1f}" if known else ""
            values = spread([float(row["mAP"] or 0.0) for row in found])
            rows.append(f"| {names} | {steps:.0f} | {minutes} | {values} | {len(found)} |")
    return "\n".join([CURVES_HEAD, *rows])


def grouped(results: list[Result]) -> dict[str, list[Result]]:
    """Returns the results by what they are the seeds of: the first two columns of a table's row."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        length = f", {result.run.minutes:g} minutes" if result.run.minutes else ""
        names = f"{result.run.recipe}{length} | {Path(result.run.bucket).name}"
        groups.setdefault(names, []).append(result)
    return groups


def spread(values: list[float]) -> str:
    """Returns mean and standard deviation as text."""
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{deviation}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

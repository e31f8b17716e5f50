"""Do the exports of five architectures find what the models find? `python -m benchmarks.exports --help`.

Each model is trained by the job itself, in a process of its own, on the demo's bucket of drawn photos, and exported to
every format. The job compares each export with the model and writes parity.json, from which the table is made. What was
found about a model is kept in the folder of `--out`, and is not measured again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import accuracy, real_weights
from entrypoint.results.export import formats
from entrypoint.results.parity import Parity, ParityDocument
from entrypoint.system import documents
from entrypoint.zoo import catalogue, pipeline_config
from tests import demo
from tests.conftest import environment

PHOTOS = 200
VALIDATION = 0.1  # share of the photos: the slowest model takes seconds for a photo, once for each format
# Adam learns from random weights in some hundred steps; the optimizers for fine-tuning do not.
ADAM = """train_config { optimizer { adam_optimizer { learning_rate { cosine_decay_learning_rate {
  learning_rate_base: 0.002 warmup_learning_rate: 0.0002 warmup_steps: 20 total_steps: 1000 } } } } }"""
# Averages of batch norm that follow the weights within these steps.
FAST_AVERAGES = """model { ssd {
  feature_extractor { conv_hyperparams { batch_norm { decay: 0.95 } } }
  box_predictor { weight_shared_convolutional_box_predictor { conv_hyperparams { batch_norm { decay: 0.95 } } } } } }"""
# The second stage is most of the work of a two-stage model, and drawn photos have few objects.
FEW_PROPOSALS = "model { faster_rcnn { first_stage_max_proposals: 64 second_stage_batch_size: 16 } }"
HEAD = (
    "| model | format | state | mAP of the model | mAP of the export | score | corner | detections with, without a "
    "partner | ms a photo | MB |\n|---|---|---|---|---|---|---|---|---|---|"
)
TRAINED_HEAD = "| model | input | start | steps x photos | mAP | mAP@0.5 |\n|---|---|---|---|---|---|"


@dataclass(frozen=True)
class Case:
    """How a model is trained before it is exported: just long enough to find the drawn shapes."""

    model: str
    size: int  # of the model's input, height and width in pixels
    start: str  # "real": the weights of benchmarks/real_weights.py; "none": random weights
    steps: int
    batch: int
    changes: str = ""  # merged into the pipeline.config, in text format
    settings: dict[str, Any] = field(default_factory=dict)  # of the job


@dataclass(frozen=True)
class Result:
    """What was found about a model; the content of FOLDER/MODEL.json."""

    digest: str  # SHA-256 of the pipeline.config and the settings
    exports: dict[str, Parity]
    refused: dict[str, str]  # why the job refuses a format for the model
    map: float
    map_50: float


CASES = (
    Case("ssd_mobilenet_v2_fpnlite_320x320", 320, "real", steps=300, batch=4, settings={"LEARNING_RATE": 0.002}),
    Case("ssdlite_mobilenet_v2_coco", 300, "real", steps=150, batch=8),
    Case(
        "efficientdet_d0", 256, "none", steps=400, batch=4, changes=ADAM + FAST_AVERAGES, settings={"AUGMENT": "light"}
    ),
    Case(
        "centernet_mobilenetv2_fpn_512x512",
        256,
        "real",
        steps=150,
        batch=8,
        settings={"AUGMENT": "light", "LEARNING_RATE": 0.001},
    ),
    Case(
        "faster_rcnn_resnet50_v1_640x640",
        160,
        "none",
        steps=150,
        batch=2,
        changes=ADAM + FEW_PROPOSALS,
        settings={"ANCHORS": "auto", "LEARNING_RATE": 0.0005},
    ),
)


def main(arguments: Sequence[str]) -> int:
    """Measures the models that are missing and prints the tables; returns 1 if a job failed."""
    options = parse(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    if not (options.out / "bucket" / "_annotations.json").exists():
        demo.draw_bucket(options.out / "bucket", options.photos)
    failed = [case.model for case in options.models if not obtain(case, options.out)]
    found = [(case, result) for case in options.models if (result := load(case, options.out))]
    print(trained_table(found), table(found), sep="\n\n")
    if failed:
        print(f"failed: {', '.join(failed)}: see FOLDER/MODEL/log in {options.out}", file=sys.stderr)
    return int(bool(failed))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Returns the options of the command line; `models` are cases."""
    cases = {case.model: case for case in CASES}
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exports", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("exports"), help="folder of what was found")
    parser.add_argument("--models", nargs="+", choices=cases, default=list(cases), help="default: all")
    parser.add_argument("--photos", type=int, default=PHOTOS, help="photos of the bucket that is drawn")
    options = parser.parse_args(arguments)
    options.models = [cases[name] for name in options.models]
    return options


def obtain(case: Case, out: Path) -> bool:
    """Trains and exports a model whose result is not there, or is of other settings; returns whether a result is."""
    if load(case, out):
        return True
    print(case.model, file=sys.stderr, flush=True)
    folder = out / case.model
    folder.mkdir(exist_ok=True)
    # The job itself goes on where it was stopped.
    (folder / "pipeline.config").write_text(pipeline_of(case))
    refused = refusals(pipeline_of(case))
    wanted = ",".join(name for name in formats.NAMES if name not in refused)
    code, log = job(settings_of(case, out) | {"EXPORTS": wanted}, folder / "log")
    if code and "not published: " not in log:
        return False
    exports = documents.read(ParityDocument, folder / "work" / "parity.json").exports
    summary = json.loads((folder / "work" / "metrics.json").read_text())["summary"]
    result = Result(digest(case, out), exports, refused, summary["mAP"], summary["mAP@0.5"])
    documents.write(out / f"{case.model}.json", result)
    # What is left of an export that is not the model shows why.
    if not any(each.is_failure for each in exports.values()):
        shutil.rmtree(folder)
    return True


def load(case: Case, out: Path) -> Result | None:
    """Returns what was found about a model with the same settings, or None."""
    path = out / f"{case.model}.json"
    if not path.exists():
        return None
    result = documents.read(Result, path)
    return result if result.digest == digest(case, out) else None


def refusals(pipeline: str) -> dict[str, str]:
    """Returns the formats that the job refuses for a pipeline.config before any work, and why."""
    config = pipeline_config.parse(pipeline)
    found = {name: formats.format_of(name).refusal(config, "none") for name in formats.NAMES}
    return {name: words for name, words in found.items() if words}


def job(settings: dict[str, Any], log: Path) -> tuple[int, str]:
    """Runs the job to its end; returns its exit code and its log."""
    command = [sys.executable, "-m", "entrypoint"]
    with log.open("wb") as file:
        code = subprocess.run(
            command, env=environment(**settings), stdout=file, stderr=subprocess.STDOUT, check=False
        ).returncode
    return code, log.read_text(errors="replace")


def settings_of(case: Case, out: Path) -> dict[str, Any]:
    """Returns the settings of a model's job, all but EXPORTS."""
    start = real_weights.make(out / "weights", case.model) if case.start == "real" else case.start
    return {
        "DATA_DIR": out / "bucket",
        "WORK_DIR": out / case.model / "work",
        "RESULT_DIR": out / case.model / "results",
        "PIPELINE_CONFIG": out / case.model / "pipeline.config",
        "CHECKPOINT": start,
        "NUM_STEPS": case.steps,
        "BATCH_SIZE": case.batch,
        "VALIDATION_FRACTION": VALIDATION,
        "EVALUATE_EVERY": 0,
        "DEVICE": "cpu",
        **case.settings,
    }


def pipeline_of(case: Case) -> str:
    """Returns the pipeline.config of a model with the input size and the changes of its case."""
    from google.protobuf import text_format

    config = pipeline_config.read(catalogue.PIPELINES / f"{case.model}.config")
    accuracy.resize(config, case.size)
    text_format.Merge(case.changes, config)
    return str(pipeline_config.write(config))


def digest(case: Case, out: Path) -> str:
    """Returns the SHA-256 of the pipeline.config and the settings of a model."""
    bucket = (out / "bucket" / "_annotations.json").read_bytes()
    # The places of the files decide nothing.
    values = [pipeline_of(case), case.start, case.steps, case.batch, case.settings, VALIDATION]
    return hashlib.sha256(bucket + repr(values).encode()).hexdigest()


def trained_table(found: Iterable[tuple[Case, Result]]) -> str:
    """Returns a Markdown table: how each model was trained, and what it reached on the validation photos."""
    rows = [
        f"| {case.model} | {case.size} x {case.size} | {case.start} | {case.steps} x {case.batch} | {result.map:.3f} | "
        f"{result.map_50:.3f} |"
        for case, result in found
    ]
    return "\n".join([TRAINED_HEAD, *rows])


def table(found: Iterable[tuple[Case, Result]]) -> str:
    """Returns a Markdown table: a row for each model and format."""
    rows = []
    for case, result in found:
        for name in formats.NAMES:
            words = f"refused: {result.refused[name]}" if name in result.refused else ""
            cells = [words, *["-"] * 7] if words else cells_of(result.exports[name])
            rows.append(f"| {case.model} | {name} | {' | '.join(cells)} |")
    return "\n".join([HEAD, *rows])


def cells_of(each: Parity) -> list[str]:
    """Returns the cells of an export, from its state on."""
    # The reason can be the output of a converter, of which the last line is the error.
    words = each.words.strip().splitlines()[-1].replace("|", "/") if each.words else ""
    state = f"{each.state}: {words}" if words else each.state
    size = f"{each.bytes / 1e6:.1f}" if each.bytes else "-"
    if each.difference is None:
        return [state, *["-"] * 6, size]
    return [
        state,
        *("-" if value is None else f"{value:.4f}" for value in (each.model_map, each.export_map)),
        *(f"{value:.1e}" for value in (each.difference.greatest_score, each.difference.greatest_corner)),
        f"{each.difference.matched}, {each.difference.unmatched}",
        f"{each.milliseconds:.1f}",
        size,
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

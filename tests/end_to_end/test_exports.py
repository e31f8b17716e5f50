"""`make benchmark-exports` on a small case: what it keeps, and its tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import exports
from benchmarks.exports import Case, Result
from entrypoint.results.export import formats
from entrypoint.results.parity import Difference, Parity

# Photos that keep their shapes are more than some formats can hold.
SHAPES = "model { ssd { image_resizer { keep_aspect_ratio_resizer { min_dimension: 96 max_dimension: 128 } } } }"
CASE = Case("smoke", 128, "none", steps=2, batch=2, changes=SHAPES)
COMPARED = Parity("equal", "", 1_500_000, 20, 0.5, 0.5001, Difference(40, 1, 0.00012, 0.0, 0.00003, 0.0, 50, 51), 12.34)


def test_exports_are_compared_once_and_refused_formats_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "CASES", (CASE,))
    words = ["--out", str(tmp_path / "out"), "--photos", "20"]
    assert exports.main(words) == 0
    output = capsys.readouterr()
    assert output.err == "smoke\n"
    rows = [line.strip("| ").split(" | ") for line in output.out.split("\n\n")[1].splitlines()[2:]]
    states = {row[1]: row[2] for row in rows}
    assert states.keys() == set(formats.NAMES)
    assert {name for name, state in states.items() if state == "equal"} == {"saved_model", "onnx", "openvino"}
    assert all(states[name].startswith("refused: SSD models alone") for name in ("tfjs", "coreml"))
    assert states["tflite"].startswith("refused: SSD and CenterNet models alone")
    # The folder of the job is gone, and what is there is not measured again.
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["bucket", "smoke.json"]
    assert exports.main(words) == 0
    assert capsys.readouterr() == (output.out, "")
    # A case that was changed is another case.
    assert exports.load(CASE, tmp_path / "out")
    assert exports.load(replace(CASE, steps=3), tmp_path / "out") is None


def test_job_that_fails_is_named_and_the_other_models_are_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "CASES", (replace(CASE, settings={"LEARNING_RATE": "fast"}),))
    assert exports.main(["--out", str(tmp_path / "out"), "--photos", "20"]) == 1
    output = capsys.readouterr()
    assert output.out == f"{exports.TRAINED_HEAD}\n\n{exports.HEAD}\n"
    assert "failed: smoke" in output.err
    assert "LEARNING_RATE='fast'" in (tmp_path / "out" / "smoke" / "log").read_text()


def test_table_has_the_figures_of_an_export_or_the_reason_in_a_line() -> None:
    found = dict.fromkeys(("saved_model", "tflite", "onnx", "openvino"), COMPARED)
    found["onnx"] = Parity("failed", "tf2onnx ended with 1: Traceback\nValueError: a | b\n")
    found["tfjs"] = Parity("not run here", bytes=2_000_000)
    result = Result("", found, {"coreml": "SSD models alone"}, 0.5, 0.9)
    rows = {line.split(" | ")[1]: line for line in exports.table([(CASE, result)]).splitlines()[2:]}
    assert rows["tflite"] == "| smoke | tflite | equal | 0.5000 | 0.5001 | 1.2e-04 | 3.0e-05 | 40, 1 | 12.3 | 1.5 |"
    assert rows["onnx"] == "| smoke | onnx | failed: ValueError: a / b | - | - | - | - | - | - | - |"
    assert rows["tfjs"] == "| smoke | tfjs | not run here | - | - | - | - | - | - | 2.0 |"
    assert rows["coreml"] == "| smoke | coreml | refused: SSD models alone | - | - | - | - | - | - | - |"


def test_pipeline_has_the_input_size_and_the_changes_of_its_case() -> None:
    for case in exports.CASES:
        pipeline = exports.pipeline_of(case)
        assert pipeline.count(str(case.size)) >= 2, case.model
        assert ("adam_optimizer" in pipeline) or case.changes == "", case.model

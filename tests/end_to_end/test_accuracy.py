"""`make benchmark-accuracy` on a small case: its runs, what it keeps of them, and its table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import accuracy
from benchmarks.accuracy import Result, Run
from tests import demo

RUN = Run("smoke", "as-it-is", "/buckets/bccd", 0, "none", 600, 8, None, None)


def result(run: Run, value: float | None) -> Result:
    return Result(run, "", {"mAP": value, "mAP@0.5": 0.5}, {}, [])


def test_runs_are_made_once_and_again_when_their_pipeline_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    demo.draw_bucket(tmp_path / "bucket", photos=20)
    words = [str(tmp_path / "bucket"), "--model", "smoke", "--start", "none", "--steps", "2", "--batch", "2"]
    words += ["--seeds", "1", "--recipes", "flips", "--out", str(tmp_path / "out")]
    assert accuracy.main(words) == 0
    output = capsys.readouterr()
    rows = [line.split(" | ") for line in output.out.splitlines()[2:]]
    assert [(row[0], row[1], row[-1]) for row in rows] == [("| flips", "bucket", "1 |")]
    assert len(output.err.splitlines()) == 1
    assert list((tmp_path / "out" / "runs").iterdir()) == []
    (kept,) = (tmp_path / "out").glob("*.json")
    assert kept.name == "smoke-none-2x2-bucket-flips-0.json"
    document = json.loads(kept.read_text())
    assert {"mAP", "mAP@0.5"} <= document["metrics"].keys()
    # What is there is not measured again.
    assert accuracy.main(words) == 0
    assert capsys.readouterr() == (output.out, "")
    # A recipe that was changed is another recipe.
    changed = accuracy.RECIPES.read_text().replace("random_horizontal_flip", "random_vertical_flip")
    (tmp_path / "recipes.yaml").write_text(changed)
    monkeypatch.setattr(accuracy, "RECIPES", tmp_path / "recipes.yaml")
    assert accuracy.main([*words, "--table"]) == 0
    assert [line.split(" | ")[0] for line in capsys.readouterr().out.splitlines()[2:]] == []


def test_table_has_mean_and_standard_deviation_over_the_seeds() -> None:
    from dataclasses import replace

    results = [result(replace(RUN, seed=seed), value) for seed, value in enumerate((0.1, 0.2, 0.3))]
    results.append(result(replace(RUN, recipe="flips", minutes=5.0), None))
    assert accuracy.table(results).splitlines()[2:] == [
        "| as-it-is | bccd | 0.200 ± 0.100 | 0.500 ± 0.000 | 3 |",
        "| flips, 5 minutes | bccd | 0.000 | 0.500 | 1 |",
    ]


def test_recipe_has_all_that_it_is_built_on() -> None:
    pipeline = accuracy.pipeline_of(Run("ssdlite_mobilenet_v2_coco", "adam2-flips", "/b", 0, "none", 600, 8, 160, None))
    assert "learning_rate_base: 0.002" in pipeline
    assert "adam_optimizer" in pipeline
    assert "random_horizontal_flip" in pipeline
    assert "ssd_random_crop" not in pipeline
    assert pipeline.count("160") == 2


def test_every_recipe_can_be_merged_into_the_pipelines_that_it_is_for() -> None:
    for name in accuracy.all_recipes():
        models = accuracy.models_for(name)
        assert models, name
        for model in models:
            assert accuracy.pipeline_of(Run(model, name, "/b", 0, "none", 600, 8, 160, None)), (name, model)


def test_unknown_recipe_is_named() -> None:
    with pytest.raises(SystemExit, match=r"nonsense is no recipe of recipes\.yaml: as-it-is"):
        accuracy.recipe_of("nonsense")

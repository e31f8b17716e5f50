"""`make benchmark-accuracy` on a small case: its runs, what it keeps of them, and its table."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import accuracy, subset
from benchmarks.accuracy import Result, Run
from entrypoint.data import annotations
from entrypoint.data.split import split
from tests import demo
from tests.conftest import make_settings

RUN = Run("smoke", "as-it-is", "/buckets/bccd", 0, "none", 600, 8, None, None)


def result(run: Run, value: float | None) -> Result:
    return Result(run, "", {"mAP": value, "mAP@0.5": 0.5}, {}, [])


def test_runs_are_made_once_and_again_when_their_pipeline_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    demo.draw_bucket(tmp_path / "bucket", photos=20)
    # Left alone, the job decides by its own clock how often it evaluates.
    recipes = accuracy.RECIPES.read_text() + "\nevaluated:\n  settings: {EVALUATE_EVERY: 25}\n"
    monkeypatch.setattr(accuracy, "RECIPES", tmp_path / "recipes.yaml")
    accuracy.RECIPES.write_text(recipes)
    words = [str(tmp_path / "bucket"), "--model", "smoke", "--start", "none", "--steps", "100", "--batch", "1"]
    words += ["--seeds", "1", "--size", "64", "--recipes", "flips+evaluated", "--curves"]
    words += ["--out", str(tmp_path / "out")]
    assert accuracy.main(words) == 0
    output = capsys.readouterr()
    results, evaluations = ([line.split(" | ") for line in part.splitlines()[2:]] for part in output.out.split("\n\n"))
    assert [(row[0], row[1], row[-1]) for row in results] == [("| flips+evaluated", "bucket", "1 |")]
    assert [int(row[2]) for row in evaluations] == [25, 50, 75, 100]
    minutes = [float(row[3]) for row in evaluations]
    assert minutes == sorted(minutes)
    assert minutes[-1] > 0
    assert len(output.err.splitlines()) == 1
    assert list((tmp_path / "out" / "runs").iterdir()) == []
    (kept,) = (tmp_path / "out").glob("*.json")
    assert kept.name == "smoke-64-none-100x1-bucket-flips+evaluated-0.json"
    document = json.loads(kept.read_text())
    assert {"mAP", "mAP@0.5"} <= document["metrics"].keys()
    # What is there is not measured again.
    assert accuracy.main(words) == 0
    assert capsys.readouterr() == (output.out, "")
    # A recipe that was changed is another recipe.
    accuracy.RECIPES.write_text(recipes.replace("random_horizontal_flip", "random_vertical_flip"))
    assert accuracy.main([*words, "--table"]) == 0
    assert capsys.readouterr().out.split() == f"{accuracy.HEAD}\n\n{accuracy.CURVES_HEAD}".split()


def test_table_has_mean_and_standard_deviation_over_the_seeds() -> None:
    results = [result(replace(RUN, seed=seed), value) for seed, value in enumerate((0.1, 0.2, 0.3))]
    results.append(result(replace(RUN, recipe="flips", minutes=5.0), None))
    assert accuracy.table(results).splitlines()[2:] == [
        "| as-it-is | bccd | 0.200 ± 0.100 | 0.500 ± 0.000 | 3 |",
        "| flips, 5 minutes | bccd | 0.000 | 0.500 | 1 |",
    ]


def test_curves_have_means_of_each_evaluation_over_the_seeds() -> None:
    def with_curve(seed: int, *rows: tuple[str, str, str]) -> Result:
        curve = [dict(zip(("step", "minutes", "mAP"), row, strict=True)) for row in rows]
        return replace(result(replace(RUN, seed=seed), 0.1), curve=curve)

    results = [
        with_curve(0, ("60", "1.00", "0.1"), ("120", "2.00", "0.3")),
        with_curve(1, ("80", "2.00", "")),
        result(replace(RUN, recipe="flips"), 0.1),
    ]
    assert accuracy.curves(results).splitlines()[2:] == [
        "| as-it-is | bccd | 70 | 1.5 | 0.050 ± 0.071 | 2 |",
        "| as-it-is | bccd | 120 | 2.0 | 0.300 | 1 |",
    ]


def test_recipe_has_all_that_it_is_built_on() -> None:
    pipeline = accuracy.pipeline_of(Run("ssdlite_mobilenet_v2_coco", "adam2-flips", "/b", 0, "none", 600, 8, 160, None))
    assert "learning_rate_base: 0.002" in pipeline
    assert "adam_optimizer" in pipeline
    assert "random_horizontal_flip" in pipeline
    assert "ssd_random_crop" not in pipeline
    assert pipeline.count("160") == 2


def test_models_whose_photos_keep_their_aspect_ratios_are_resized_too() -> None:
    run = Run("centernet_mobilenetv2_fpn_512x512", "flips", "/b", 0, "none", 600, 8, 160, None)
    pipeline = accuracy.pipeline_of(run)
    assert "min_dimension: 160" in pipeline
    assert "max_dimension: 160" in pipeline
    assert "center_net" in pipeline
    with pytest.raises(SystemExit, match=r"box-weight-2 of recipes\.yaml is not for centernet_mobilenetv2_fpn_512x512"):
        accuracy.pipeline_of(replace(run, recipe="box-weight-2"))


def test_recipes_are_joined() -> None:
    joined = Run(
        "ssdlite_mobilenet_v2_coco", "anchors+augment-strong+box-weight-2", "/b", 0, "none", 600, 8, None, None
    )
    assert accuracy.settings_in(joined.recipe) == {"ANCHORS": "auto", "AUGMENT": "strong"}
    assert accuracy.pipeline_of(joined) == accuracy.pipeline_of(replace(joined, recipe="box-weight-2"))
    assert accuracy.pipeline_of(joined) != accuracy.pipeline_of(replace(joined, recipe="anchors"))
    with pytest.raises(SystemExit, match=r"nonsense is no recipe of recipes\.yaml"):
        accuracy.pipeline_of(replace(joined, recipe="anchors+nonsense"))


def test_every_recipe_can_be_merged_into_the_pipelines_that_it_is_for() -> None:
    for name in accuracy.all_recipes():
        models = accuracy.models_for(name)
        assert models, name
        for model in models:
            assert accuracy.pipeline_of(Run(model, name, "/b", 0, "none", 600, 8, 160, None)), (name, model)


def test_unknown_recipe_is_named() -> None:
    with pytest.raises(SystemExit, match=r"nonsense is no recipe of recipes\.yaml: as-it-is"):
        accuracy.recipe_of("nonsense")


def test_subset_has_fewer_photos_to_train_on_and_the_same_for_validation(tmp_path: Path) -> None:
    demo.draw_bucket(tmp_path / "bucket", photos=40)
    whole = make_settings(tmp_path, data_dir=tmp_path / "bucket")
    dataset, _ = annotations.read_with_origin(whole, whole.result_dir)
    parts = split(dataset.images, whole.validation_fraction, whole.seed)
    assert subset.make(tmp_path / "bucket", 10, tmp_path / "out") == {
        "train": 10,
        "validation": len(parts["validation"]),
    }
    # The job keeps the split, and finds the boxes where they were.
    few = make_settings(tmp_path, data_dir=tmp_path / "out")
    read, _ = annotations.read_with_origin(few, few.result_dir)
    found = {
        name: {Path(each.key).name: each.boxes for each in part}
        for name, part in split(read.images, few.validation_fraction, few.seed).items()
    }
    assert len(found["train"]) == 10
    assert found["train"].keys() <= {each.key for each in parts["train"]}
    assert found["validation"].keys() == {each.key for each in parts["validation"]}
    for image in parts["validation"]:
        boxes = found["validation"][image.key]
        assert [box.label for box in boxes] == [box.label for box in image.boxes]
        for box, other in zip(boxes, image.boxes, strict=True):
            assert box.to_coco(1, 1) == pytest.approx(other.to_coco(1, 1), abs=1e-6)
    with pytest.raises(ValueError, match="fewer than 99"):
        subset.make(tmp_path / "bucket", 99, tmp_path / "more")

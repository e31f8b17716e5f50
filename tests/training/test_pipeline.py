from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from entrypoint.data.quality import DataQuality
from entrypoint.data.records import RecordsManifest, Split
from entrypoint.system import documents
from entrypoint.system.errors import UserError
from entrypoint.training import identity, pipeline, plan, schedule, start_checkpoint
from entrypoint.training.start_checkpoint import Start, StartDocument
from entrypoint.workspace import Workspace
from entrypoint.zoo import pipeline_config
from tests.conftest import ROOT, SHARED, environment, make_settings, run_job
from tests.zoo import published as zoo_published

QUALITY = DataQuality(None, None, None, (), False, {}, {}, None)
SPLIT = Split(0, 0, 0, {}, {})
MANIFEST = RecordsManifest(("a", "b", "c"), {"train": SPLIT, "validation": SPLIT}, {}, {}, QUALITY, "", 7)
START = Start("/zoo/checkpoint/ckpt-0", "tf2", "0")
TRAIN = """
train_config {
  batch_size: 64 num_steps: 25000
  optimizer { momentum_optimizer { momentum_optimizer_value: 0.9 learning_rate { %s } } use_moving_average: true }
}
"""
COSINE = """cosine_decay_learning_rate {
  learning_rate_base: 0.04 total_steps: 25000 warmup_learning_rate: 0.01 warmup_steps: 2500 hold_base_rate_steps: 250
}"""
MODELS = {
    "ssd": """ssd { num_classes: 90 feature_extractor { type: "ssd_mobilenet_v2_fpn_keras" }
      image_resizer { fixed_shape_resizer { height: 320 width: 320 } } }""",
    "faster_rcnn": 'faster_rcnn { num_classes: 90 feature_extractor { type: "faster_rcnn_resnet50_keras" } }',
    "center_net": 'center_net { num_classes: 90 feature_extractor { type: "resnet_v1_50_fpn" } }',
}


def run(tmp_path: Path, text: str, start: Any = None, **settings: Any) -> Any:
    """The config that the step writes for a user's own."""
    (tmp_path / "work").mkdir(exist_ok=True)
    path = tmp_path / "user.config"
    path.write_text(text)
    work = Workspace(make_settings(tmp_path, pipeline_config=path, **{"exports": "saved_model", **settings}))
    return run_in(work, start)


def make_start(folder: Path, root: str = "model") -> Start:
    """A checkpoint of TF2, below whose `root` all variables are, as `checkpoint` describes it."""
    import tensorflow as tf

    prefix = tf.train.Checkpoint(**{root: tf.train.Checkpoint(x=tf.Variable(1.0))}).write(str(folder / "ckpt-0"))
    return dataclasses.replace(START, prefix=prefix)


def run_in(work: Workspace, start: Any = None) -> Any:
    documents.write(work.records / "manifest.json", MANIFEST)
    documents.write(work.start, StartDocument(start))
    pipeline.run(work)
    return pipeline_config.read(work.pipeline)


def user_config(model: str = "ssd", rate: str = COSINE) -> str:
    return f"model {{ {MODELS[model]} }}\n{TRAIN % rate}"


@pytest.mark.parametrize("model", MODELS)
def test_data_is_injected_into_every_meta_architecture(tmp_path: Path, model: str) -> None:
    start = make_start(tmp_path)
    config = run(tmp_path, user_config(model), start)
    work = tmp_path / "work"
    assert getattr(config.model, model).num_classes == 3
    for reader, split in ((config.train_input_reader, "train"), (config.eval_input_reader[0], "validation")):
        assert reader.label_map_path == str(work / "label_map.pbtxt")
        assert list(reader.tf_record_input_reader.input_path) == [
            str(work / f"records/{split}-?????-of-?????.tfrecord")
        ]
        assert reader.max_number_of_boxes == 7
    assert not config.eval_input_reader[0].shuffle
    assert config.train_config.fine_tune_checkpoint == start.prefix
    assert config.train_config.fine_tune_checkpoint_type == "detection"
    assert config.train_config.fine_tune_checkpoint_version == 2
    assert not config.train_config.optimizer.use_moving_average


def test_checkpoint_of_the_config_is_dropped_when_training_from_scratch(tmp_path: Path) -> None:
    text = user_config().replace("batch_size: 64", 'batch_size: 64 fine_tune_checkpoint: "/home/someone/ckpt-0"')
    assert run(tmp_path, text).train_config.fine_tune_checkpoint == ""


@pytest.mark.parametrize("said", ["classification", "detection", ""])
@pytest.mark.parametrize(("root", "kind"), [("model", "detection"), ("feature_extractor", "classification")])
def test_start_is_what_lies_in_the_checkpoint_and_not_what_its_config_was_trained_from(
    tmp_path: Path, root: str, kind: str, said: str
) -> None:
    text = user_config()
    if said:
        text = text.replace("batch_size: 64", f'batch_size: 64 fine_tune_checkpoint_type: "{said}"')
    config = run(tmp_path, text, make_start(tmp_path, root))
    assert config.train_config.fine_tune_checkpoint_type == kind


def test_tf1_checkpoint_is_refused_for_a_tf2_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a TF1 checkpoint"):
        run(tmp_path, user_config(), dataclasses.replace(START, layout="tf1"))


def rate_of(config: Any) -> Any:
    optimizer = config.train_config.optimizer
    rate = getattr(optimizer, optimizer.WhichOneof("optimizer")).learning_rate
    return getattr(rate, rate.WhichOneof("learning_rate"))


def test_cosine_schedule_is_fitted_to_the_steps(tmp_path: Path) -> None:
    config = run(tmp_path, user_config(), num_steps=1000)
    rate = rate_of(config)
    assert config.train_config.num_steps == 1000
    assert (rate.total_steps, rate.warmup_steps, rate.hold_base_rate_steps) == (1000, 100, 10)
    assert (rate.learning_rate_base, rate.warmup_learning_rate) == pytest.approx((0.04, 0.01))


def test_exponential_schedule_is_fitted_to_the_steps(tmp_path: Path) -> None:
    rate = "exponential_decay_learning_rate { initial_learning_rate: 0.04 decay_steps: 2500 burnin_steps: 50 }"
    found = rate_of(run(tmp_path, user_config(rate=rate), num_steps=1000))
    assert (found.decay_steps, found.burnin_steps) == (100, 2)


def test_manual_schedule_is_fitted_to_the_steps_and_the_batch(tmp_path: Path) -> None:
    rate = """manual_step_learning_rate { initial_learning_rate: 0.04
      schedule { step: 12500 learning_rate: 0.004 } schedule { step: 20000 learning_rate: 0.0004 } }"""
    found = rate_of(run(tmp_path, user_config(rate=rate), num_steps=100, batch_size=32))
    assert [entry.step for entry in found.schedule] == [50, 80]
    assert [found.initial_learning_rate, *(entry.learning_rate for entry in found.schedule)] == pytest.approx(
        [0.02, 0.002, 0.0002]
    )


def test_peak_of_a_manual_schedule_that_climbs_is_what_learning_rate_sets(tmp_path: Path) -> None:
    rate = """manual_step_learning_rate { initial_learning_rate: 0.0 warmup: true
      schedule { step: 2500 learning_rate: 0.04 } schedule { step: 20000 learning_rate: 0.004 } }"""
    found = rate_of(run(tmp_path, user_config(rate=rate), learning_rate=0.02))
    assert [found.initial_learning_rate, *(entry.learning_rate for entry in found.schedule)] == pytest.approx(
        [0, 0.02, 0.002]
    )
    used = plan.load(Workspace(make_settings(tmp_path)))
    assert used.learning_rate == pytest.approx(0.02)


def test_what_a_config_says_of_other_records_is_left_out(tmp_path: Path) -> None:
    reader = """{ sample_1_of_n_examples: 10 input_type: TF_SEQUENCE_EXAMPLE num_additional_channels: 2
      load_multiclass_scores: true sample_from_datasets_weights: [1, 2] shuffle_buffer_size: 77
      external_input_reader {} }"""
    text = f"{user_config()} train_input_reader {reader} eval_input_reader {reader}"
    config = run(tmp_path, text)
    for found in (config.train_input_reader, config.eval_input_reader[0]):
        assert {each.name for each, _ in found.ListFields()} <= pipeline.READING | pipeline.INJECTED
        assert found.shuffle_buffer_size == 77
    rows = plan.load(Workspace(make_settings(tmp_path))).changes
    assert ("train_input_reader.sample_1_of_n_examples", "10", "") in rows


def test_upstream_accepts_every_fitted_schedule_at_any_number_of_steps(tmp_path: Path) -> None:
    import tensorflow as tf
    from object_detection.builders import optimizer_builder

    for steps in (1, 2, 7, 30, 100_000):
        config = run(tmp_path, user_config(), num_steps=steps)
        step = tf.Variable(0, dtype=tf.int64)
        _, (rate,) = optimizer_builder.build(config.train_config.optimizer, global_step=step)
        step.assign(steps)
        assert 0 <= float(rate()) < 1e-6


@pytest.mark.parametrize(
    "rate",
    [
        "constant_learning_rate { learning_rate: 0.04 }",
        "exponential_decay_learning_rate { initial_learning_rate: 0.04 decay_steps: 2500 burnin_steps: 50 }",
        """manual_step_learning_rate { initial_learning_rate: 0.04
          schedule { step: 12000 learning_rate: 0.004 } schedule { step: 12001 learning_rate: 0.0004 } }""",
    ],
)
def test_upstream_builds_every_other_schedule_at_any_number_of_steps(tmp_path: Path, rate: str) -> None:
    import tensorflow as tf
    from object_detection.builders import optimizer_builder

    for steps in (1, 2, 7, 30, 100_000):
        config = run(tmp_path, user_config(rate=rate), num_steps=steps)
        step = tf.Variable(0, dtype=tf.int64)
        _, (built,) = optimizer_builder.build(config.train_config.optimizer, global_step=step)
        assert 0 < float(built() if callable(built) else built) <= 0.0401


def test_table_in_the_log_shows_the_patterns_of_the_records(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        run(tmp_path, user_config())
    assert "train-?????-of-?????.tfrecord" in caplog.text


def test_batch_size_scales_the_rate_of_momentum_linearly(tmp_path: Path) -> None:
    config = run(tmp_path, user_config(), batch_size=16)
    assert config.train_config.batch_size == 16
    assert rate_of(config).learning_rate_base == pytest.approx(0.01)
    assert rate_of(config).warmup_learning_rate == pytest.approx(0.0025)


def test_batch_size_scales_the_rate_of_adam_by_the_root(tmp_path: Path) -> None:
    text = user_config().replace("momentum_optimizer { momentum_optimizer_value: 0.9", "adam_optimizer {")
    assert rate_of(run(tmp_path, text, batch_size=16)).learning_rate_base == pytest.approx(0.02)


def test_learning_rate_is_taken_as_it_is_and_the_warm_up_follows(tmp_path: Path) -> None:
    config = run(tmp_path, user_config(), batch_size=16, learning_rate=0.1)
    assert config.train_config.batch_size == 16
    assert (rate_of(config).learning_rate_base, rate_of(config).warmup_learning_rate) == pytest.approx((0.1, 0.025))
    assert run(tmp_path, user_config(), learning_rate=0.1).train_config.batch_size == 64


def test_every_change_is_logged_and_kept_for_the_report(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        run(tmp_path, user_config(), batch_size=16, num_steps=1000)
    for row in (
        "model.ssd.num_classes 90 -> 3",
        "train_config.batch_size 64 -> 16",
        "learning_rate.cosine_decay_learning_rate.learning_rate_base 0.04 -> 0.01",
    ):
        assert row in " ".join(caplog.text.split())
    rows = plan.load(Workspace(make_settings(tmp_path))).changes
    assert ("train_config.num_steps", "25000", "1000") in rows


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"num_steps": 1000}, "1000 steps of 8 photos show each of the 300 training photos 26.7 times"),
        ({}, "NUM_STEPS=auto: 1000 steps of 8 photos show each of the 300 training photos 26.7 times"),
        ({"max_minutes": 5.0}, "as many steps of 8 photos as MAX_MINUTES=5 allows"),
        ({"max_minutes": 5.0, "num_steps": 1000}, "1000 steps of 8 photos show each of the 300 training photos 26.7"),
    ],
)
def test_log_says_how_often_a_photo_is_shown(
    values: dict[str, Any], words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    planned = plan.Plan("x.config", "tf2", 1000, 8, 0.001, ())
    with caplog.at_level("INFO"):
        pipeline.log_epochs(planned, 300, make_settings(tmp_path, **values), has_start=True)
    assert words in caplog.text
    assert ("NUM_STEPS=auto" in caplog.text) == (not values)


@pytest.mark.parametrize("model", ["smoke", "ssd_mobilenet_v2_fpnlite_320x320"])
def test_tuned_pipelines_take_the_job_s_values(tmp_path: Path, model: str) -> None:
    config = run_in(Workspace(make_settings(tmp_path, model=model)))
    assert config.model.ssd.num_classes == 3
    assert pipeline_config.generation_of(config, Path(tmp_path / "work" / "pipeline.config")) == "tf2"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model {\n  ssd {\n    no_such_field: 1\n  }\n}", r"user.config:3:.*no_such_field"),
        ("model {\n  ssd {", r"user.config:2:"),
        ("train_config {}", "the model is missing"),
        ("model {\n experimental_model { name: 'x' } }", "user.config:2: the model is experimental_model"),
        (
            user_config().replace("ssd_mobilenet_v2_fpn_keras", "ssd_mobilenet_v9_fpn_keras"),
            "'ssd_mobilenet_v9_fpn_keras' is not in the Object Detection API; the nearest are ssd_mobilenet_v",
        ),
        (
            user_config() + "train_input_reader {\n load_instance_masks: true\n}",
            "load_instance_masks: this job trains boxes",
        ),
        (user_config() + "train_input_reader { num_keypoints: 17 }", "num_keypoints: this job trains boxes"),
        (user_config("center_net").replace("num_classes", "keypoint_estimation_task {}\nnum_classes"), "boxes only"),
        (user_config("center_net").replace("num_classes", "keypoint_estimation_task <\n>\nnum_classes"), "boxes only"),
        (user_config("center_net").replace("num_classes", "keypoint_estimation_task # x\n{}\nnum_classes"), "boxes"),
        (user_config("faster_rcnn").replace("num_classes", "context_config {}\nnum_classes"), "context_config: this"),
        (
            user_config("faster_rcnn").replace("num_classes", "\nnumber_of_stages: 1\nnum_classes"),
            "user.config:2: a model of one stage finds boxes without labels",
        ),
        ("model { " + MODELS["ssd"] + " }", "no optimizer in train_config"),
        (user_config().replace("batch_size: 64", "batch_size: 0"), "has batch_size 0 "),
        (user_config(rate="constant_learning_rate { learning_rate: 0 }"), "learning rate 0: both must be above 0"),
        (
            user_config(rate="constant_learning_rate {\n learning_rate: nan }"),
            "user.config:6: learning_rate is nan: give",
        ),
        (user_config(rate="constant_learning_rate { learning_rate: inf }"), "learning_rate is inf: give a finite"),
        (user_config().replace("batch_size: 64", "batch_size: 2000000000"), "the most is 65536"),
        ("model { ssd { " + "x { " * 5000, 'has no field named "x"'),
    ],
)
def test_config_that_cannot_be_trained_is_a_named_error_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        run(tmp_path, text)


def test_byte_order_mark_of_a_config_is_no_error(tmp_path: Path) -> None:
    assert run(tmp_path, "\ufeff" + user_config(), num_steps=77).train_config.num_steps == 77


def test_missing_config_is_a_named_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"PIPELINE_CONFIG=.*nowhere.config is not a file"):
        pipeline.find(make_settings(tmp_path, pipeline_config=tmp_path / "nowhere.config"))


def test_model_without_a_pipeline_of_ours_brings_its_own(tmp_path: Path) -> None:
    assert pipeline.find(make_settings(tmp_path, model="centernet_hg104_512x512")) is None
    with pytest.raises(
        UserError, match=r"in its archive, which CHECKPOINT=none leaves out: choose a model .*\(smoke, scratch, "
    ):
        pipeline.find(make_settings(tmp_path, model="centernet_hg104_512x512", checkpoint="none"))


def test_model_without_a_checkpoint_is_one_that_learns_from_random_weights(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    default = make_settings(tmp_path).model
    assert make_settings(tmp_path, checkpoint="none").model == "scratch"
    assert make_settings(tmp_path, checkpoint="none", model=default).model == default
    # A config of the user's own decides the model.
    assert make_settings(tmp_path, checkpoint="none", pipeline_config=tmp_path / "x").model == default
    pipeline.refuse_early(make_settings(tmp_path, checkpoint="none"))
    assert "hardly learns" not in caplog.text
    pipeline.refuse_early(make_settings(tmp_path, checkpoint="none", model=default))
    assert f"the pipeline of {default} is for fine-tuning" in caplog.text
    assert "MODEL=scratch" in caplog.text


@pytest.mark.parametrize(
    ("model", "nearest"),
    [
        ("mask_rcnn_inception_resnet_v2_1024x1024", "faster_rcnn_inception_resnet_v2_1024x1024"),
        ("centernet_hg104_512x512_keypoints", "centernet_hg104_512x512"),
        ("mask_rcnn_resnet50_atrous_coco", "faster_rcnn_resnet50_coco"),
    ],
)
def test_model_of_masks_or_keypoints_is_refused_with_the_nearest_of_boxes(
    tmp_path: Path, model: str, nearest: str
) -> None:
    with pytest.raises(UserError, match=f"MODEL={model} finds .* The nearest model of boxes is {nearest}$"):
        pipeline.find(make_settings(tmp_path, model=model))


def test_identity_of_a_config_does_not_depend_on_where_it_lies(tmp_path: Path) -> None:
    found = set()
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        config = run(tmp_path / name, user_config(), make_start(tmp_path / name))
        found.add(identity.of_config(config))
    assert len(found) == 1


RUN = """
import sys, pathlib
from tests.training import test_pipeline
folder, config = map(pathlib.Path, sys.argv[1:])
test_pipeline.run(folder, config.read_text(), num_steps=300, batch_size=1)
"""
PUBLISHED = ("efficientdet_d0", "faster_rcnn_inception_v2_coco", "ssd_mobilenet_v1_coco", "ssd_mobilenet_v2_coco")
# Files out of published archives, on machines that have some.
FOUND = sorted((SHARED / "zoo").glob("tf*/*/pipeline.config"))


@pytest.mark.parametrize("source", [*PUBLISHED, *FOUND], ids=str)
def test_published_config_of_the_zoo_is_read_and_fitted(source: str | Path, tmp_path: Path) -> None:
    path = tmp_path / "published.config"
    text = pipeline_config.write(zoo_published.config(source)) if isinstance(source, str) else source.read_text()
    path.write_text(text)
    published = pipeline_config.read_published(path)
    architecture = published.model.WhichOneof("model")
    # In a process of its own, since the two generations want TensorFlow in different modes.
    subprocess.run([sys.executable, "-c", RUN, tmp_path, path], env=environment(), check=True)
    config = pipeline_config.read(tmp_path / "work" / "pipeline.config")
    assert getattr(config.model, architecture).num_classes == 3
    assert (config.train_config.num_steps, config.train_config.batch_size) == (300, 1)
    assert not config.train_config.use_bfloat16
    # But for what the job puts in, the model is the published one.
    getattr(config.model, architecture).num_classes = getattr(published.model, architecture).num_classes
    for each in (config, published):
        model = getattr(each.model, architecture)
        processing = model.post_processing if architecture == "ssd" else model.second_stage_post_processing
        processing.batch_non_max_suppression.ClearField("score_threshold")
    assert config.model == published.model


@pytest.mark.parametrize(
    ("batch", "replicas", "archive", "part"),
    [
        (64, 8, "ssd_x_coco17_tpu-8.tar.gz", 8),
        (128, 0, "centernet_hg104_512x512_coco17_tpu-8.tar.gz", 16),
        (128, 8, "efficientdet_d4_coco17_tpu-32.tar.gz", 4),
        (16, 0, "faster_rcnn_resnet152_v1_800x1333_coco17_gpu-8.tar.gz", 2),
        (24, 0, "ssd_mobilenet_v1_coco_2018_01_28.tar.gz", 24),
        (1, 0, "x_gpu-8.tar.gz", 1),
        (2048, 8, "ssd_mobilenet_v1_0.75_depth_300x300_coco14_sync_2018_07_03.tar.gz", 32),
    ],
)
def test_one_device_s_part_of_a_published_batch_is_taken(batch: int, replicas: int, archive: str, part: int) -> None:
    config = pipeline_config.parse(f"train_config {{ batch_size: {batch} replicas_to_aggregate: {replicas} }}")
    assert schedule.published_batch(config.train_config, archive) == part


def test_config_without_a_start_is_refused_before_a_checkpoint_of_another_model_is_fetched(tmp_path: Path) -> None:
    path = tmp_path / "user.config"
    path.write_text((ROOT / "pipelines" / "smoke.config").read_text())
    with pytest.raises(UserError, match="does not determine the checkpoint to start from"):
        pipeline.refuse_early(make_settings(tmp_path, pipeline_config=path))
    named = {"model": "of_my_own", "checkpoint": "none"}
    for start in ({"checkpoint": "none"}, {"model": "ssd_mobilenet_v2_320x320"}, {"checkpoint": "/a/folder"}, named):
        pipeline.refuse_early(make_settings(tmp_path, pipeline_config=path, **start))
    path.write_text(path.read_text().replace("num_classes", "no_such_field: 1 num_classes"))
    with pytest.raises(UserError, match="no_such_field"):
        pipeline.refuse_early(make_settings(tmp_path, pipeline_config=path, checkpoint="none"))


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (
            "num_steps:",
            'freeze_variables: "*" num_steps:',
            r"freeze_variables has '\*', which is not a regular expression",
        ),
        ("num_steps:", 'freeze_variables: ".*" num_steps:', "leave no variable to train"),
        (
            "num_steps:",
            'freeze_variables: "FeatureExtractor" num_steps:',
            "'FeatureExtractor' in the .* fits no variable",
        ),
        ("height: 160", "height: 0", "height is 0: the model's input must have a size"),
        ("warmup_steps: 50", "warmup_steps: 700", "cannot build what the pipeline.config describes: .*total_steps"),
        ("kernel_size: 3", "kernel_size: 0", "the model in the pipeline.config cannot be built: .*kernel_size"),
    ],
)
def test_slip_that_only_the_model_shows_is_found_before_any_photo_is_read(
    tmp_path: Path, before: str, after: str, words: str
) -> None:
    path = tmp_path / "user.config"
    text = (ROOT / "pipelines" / "smoke.config").read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(UserError, match=words):
        pipeline.refuse_early(make_settings(tmp_path, pipeline_config=path, checkpoint="none"))


@pytest.mark.parametrize("model", ["user.config", "ssd_mobilenet_v1_coco", "faster_rcnn_resnet50_lowproposals_coco"])
def test_cluster_is_refused_for_a_model_of_tf1_before_any_work(model: str, tmp_path: Path) -> None:
    cluster = {"cluster": {"chief": ["a:1"], "worker": ["b:1"]}, "task": {"type": "chief", "index": 0}}
    values: dict[str, Any] = {"TF_CONFIG": json.dumps(cluster), "MODEL": model}
    if model == "user.config":
        path = tmp_path / model
        path.write_text(user_config().replace("ssd_mobilenet_v2_fpn_keras", "ssd_mobilenet_v2"))
        values |= {"MODEL": "ssd_mobilenet_v2_320x320", "PIPELINE_CONFIG": path}
    (tmp_path / "bucket").mkdir()
    places = {"DATA_DIR": tmp_path / "bucket", "WORK_DIR": tmp_path / "work", "RESULT_DIR": tmp_path / "results"}
    result = run_job(**values, **places)
    assert result.returncode == 2
    assert "TF_CONFIG: models of the TF1 zoo train on one machine" in result.stdout
    assert "annotations ..." not in result.stdout


def test_field_that_upstream_has_removed_from_published_configs_may_stand_in_a_user_s(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = user_config().replace("feature_extractor {", "feature_extractor { batch_norm_trainable: true\n", 1)
    (tmp_path / "user.config").write_text(text)
    (tmp_path / "plain.config").write_text(user_config())
    assert pipeline_config.read(tmp_path / "user.config") == pipeline_config.read(tmp_path / "plain.config")
    assert "upstream has removed batch_norm_trainable (line" in caplog.text
    (tmp_path / "user.config").write_text(text.replace("num_classes", "no_such_field: 1 num_classes"))
    with pytest.raises(UserError, match=r"user.config:\d+:.*no field named"):
        pipeline_config.read(tmp_path / "user.config")


def test_start_that_was_written_is_read_back(tmp_path: Path) -> None:
    work = Workspace(make_settings(tmp_path))
    documents.write(work.start, StartDocument(START))
    assert start_checkpoint.load(work) == START


@pytest.mark.parametrize(
    "gone",
    [
        "gone: 3",
        "gone { a { b: 1 }\n}",
        "gone: [1, 2]",
        "gone < a: 1 >",
        'gone: "a" "b }"',
        'gone { text: "}" } # }',
        "classes: 5",
    ],
)
def test_removed_field_of_any_form_is_left_out(gone: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "pipeline.config").write_text(user_config().replace("num_classes: 90", f"num_classes: 90 {gone}\n", 1))
    (tmp_path / "plain.config").write_text(user_config())
    assert pipeline_config.read_published(tmp_path / "pipeline.config") == pipeline_config.read(
        tmp_path / "plain.config"
    )
    name = gone.split(":", maxsplit=1)[0].split(" ", maxsplit=1)[0]
    assert f"upstream has removed {name}" in caplog.text


def test_fields_that_upstream_has_removed_are_left_out_of_a_published_config_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = user_config().replace("num_classes", "gone_value: 3 gone_message {\n a { b: 1 }\n}\n num_classes", 1)
    (tmp_path / "pipeline.config").write_text(text + "\nlast_gone: true")
    config = pipeline_config.read_published(tmp_path / "pipeline.config")
    (tmp_path / "plain.config").write_text(user_config())
    assert config == pipeline_config.read(tmp_path / "plain.config")
    lines = {name: next(n for n, line in enumerate(text.split("\n"), 1) if name in line) for name in ("gone_value",)}
    assert f"upstream has removed gone_value (line {lines['gone_value']}), gone_message (line" in caplog.text
    assert "last_gone" in caplog.text


def test_extension_that_is_not_here_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reader = "train_input_reader { external_input_reader { [some.package.gone] { a: 1 } } }"
    (tmp_path / "pipeline.config").write_text(f"{user_config()}\n{reader}")
    config = pipeline_config.read_published(tmp_path / "pipeline.config")
    assert config.train_input_reader.HasField("external_input_reader")
    assert "upstream has removed [some.package.gone] (line" in caplog.text


def test_published_config_that_is_none_is_a_named_error(tmp_path: Path) -> None:
    (tmp_path / "pipeline.config").write_text("model {\n ssd {\n num_classes: many\n")
    with pytest.raises(UserError, match=r"pipeline.config:3:"):
        pipeline_config.read_published(tmp_path / "pipeline.config")
    # What is wrong is named, and not what is tolerated before.
    (tmp_path / "pipeline.config").write_text("model {\n ssd {\n gone: 1\n num_classes: many\n")
    with pytest.raises(UserError, match=r"pipeline.config:4:.*many"):
        pipeline_config.read_published(tmp_path / "pipeline.config")

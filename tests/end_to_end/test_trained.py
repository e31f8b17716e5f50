"""The demo, trained to its end once, and what every user relies on afterwards."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from entrypoint.data import images
from entrypoint.results.export import formats
from entrypoint.results.metrics_document import MetricsDocument
from entrypoint.results.report_tables import for_model
from entrypoint.system import documents
from tests.clients import CLIENTS, run_node
from tests.conftest import ROOT, environment, run_job
from tests.server import serve_folder

STEPS = 300
COMPARED = ["openvino", "onnx", "tflite", "saved_model"]
EVERY_FORMAT = ",".join(["coreml", "tfjs", *COMPARED])


@dataclass(frozen=True)
class Demo:
    """A finished job."""

    folder: Path
    log: str
    code: int

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def settings(self) -> dict[str, Any]:
        places = {"DATA_DIR": "bucket", "WORK_DIR": "work", "RESULT_DIR": "results"}
        return {"MODEL": "smoke", **{name: self.folder / place for name, place in places.items()}}

    def json(self, name: str) -> Any:
        return json.loads((self.results / name).read_text())


@pytest.fixture(scope="module")
def trained() -> Demo:
    """The README's demo, as `make demo` runs it and leaves it."""
    output: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    result = subprocess.run(["make", "demo"], cwd=ROOT, env=environment(), check=False, **output)
    return Demo(ROOT / "demo", result.stdout, result.returncode)


def test_job_ends_well_and_says_so_once(trained: Demo) -> None:
    assert trained.code == 0, trained.log
    assert trained.log.count("CACLI-TRAINING-SUCCESS") == 1
    *_, mark, report = trained.log.splitlines()
    assert (mark, report) == ("CACLI-TRAINING-SUCCESS", f"Report: {trained.results}/report.html")
    assert "CACLI-TRAINING-FAILED" not in trained.log


def test_progress_is_in_the_words_that_services_read(trained: Demo) -> None:
    found = [int(step) for step in re.findall(r"tensorflow:loss = [\d.]*, step = (\d*)", trained.log)]
    assert found == sorted(set(found))
    assert found[-1] == STEPS


def test_smoke_model_learns(trained: Demo) -> None:
    assert trained.json("metrics.json")["summary"]["mAP@0.5"] >= 0.85


def test_every_file_of_the_contract_is_there(trained: Demo) -> None:
    files = {path.relative_to(trained.results).as_posix() for path in trained.results.rglob("*") if path.is_file()}
    expected = {
        "label_map.pbtxt",
        "pipeline.config",
        "metrics.json",
        "report.html",
        "model_card.md",
        "job.json",
        "model/saved_model.pb",
        "model/labels.json",
        "model/threshold.json",
        "model_android/model.tflite",
        "model_android/model_raw.tflite",
        "model_android/labels.json",
        "model_android/threshold.json",
        "model_android/anchors.json",
        f"checkpoint/ckpt-{STEPS}.index",
        "checkpoint/checkpoint",
    }
    assert expected <= files
    assert any(name.startswith("checkpoint/events/events.out.tfevents") for name in files)
    assert not any(Path(name).name.startswith(".") for name in files)


def test_checkpoint_is_of_the_last_step(trained: Demo) -> None:
    import tensorflow as tf

    newest = tf.train.latest_checkpoint(str(trained.results / "checkpoint"))
    assert tf.train.load_variable(newest, "step/.ATTRIBUTES/VARIABLE_VALUE") == STEPS


def test_tensorboard_has_every_step(trained: Demo) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained.results / "checkpoint" / "events"), size_guidance={"scalars": 0})
    events.Reload()
    for name in ("Loss/total_loss", "learning_rate"):
        assert [event.step for event in events.Scalars(name)] == list(range(1, STEPS + 1))


def test_averaged_weights_are_evaluated_in_the_second_half_and_the_better_ones_are_kept(trained: Demo) -> None:
    import tensorflow as tf

    rows = list(csv.DictReader((trained.results / "metrics.csv").open()))
    halves = [[row for row in rows if (2 * int(row["step"]) >= STEPS) == is_second] for is_second in (False, True)]
    assert halves[0]
    assert not any(row["mAP averaged weights"] for row in halves[0])
    for row in halves[1]:
        assert float(row["mAP"]) == max(float(row["mAP raw weights"]), float(row["mAP averaged weights"]))
        assert 0 < abs(float(row["mAP raw weights"]) - float(row["mAP averaged weights"])) < 0.2
    best = max(rows, key=lambda row: (float(row["mAP"]), int(row["step"])))
    assert int(best["step"]) == trained.json("metrics.json")["step"]
    reader = tf.train.load_checkpoint(str(trained.results / "checkpoint" / f"best-{best['step']}"))
    weights = {tuple(reader.get_tensor(f"averages/{index}/.ATTRIBUTES/VARIABLE_VALUE").ravel()[:9]) for index in (0, 9)}
    names = [name for name in reader.get_variable_to_shape_map() if name.startswith("model/") and "OPT" not in name]
    same = weights & {tuple(reader.get_tensor(name).ravel()[:9]) for name in names}
    is_averaged = best["mAP averaged weights"] and float(best["mAP averaged weights"]) > float(best["mAP raw weights"])
    assert same == (weights if is_averaged else set())


def test_what_was_repaired_is_told(trained: Demo) -> None:
    page = (trained.results / "report.html").read_text()
    for words in ("corners swapped", "without area", "reaching out of the photo", "turned upright (orientation 6)"):
        assert words in page


def test_job_json_is_the_last_file_and_holds_the_facts(trained: Demo) -> None:
    facts = trained.json("job.json")
    assert facts["settings"]["num_steps"] == STEPS
    assert facts["versions"]["object_detection"] == "0.1"
    assert re.fullmatch("[0-9a-f]{64}", facts["data"]["sha256"])
    assert set(facts["steps"]) >= {"annotations", "tf_record", "train", "evaluate", "export", "report"}
    newest = max(
        (path for path in trained.results.rglob("*") if path.is_file()), key=lambda path: path.stat().st_mtime_ns
    )
    assert newest.name == "job.json"


def test_second_run_finds_everything_done(trained: Demo) -> None:
    result = run_job(str(STEPS), **trained.settings)
    assert result.returncode == 0
    for step in ("label_map", "tf_record", "checkpoint", "pipeline", "train", "evaluate", "export"):
        assert f"{step}: done already" in result.stdout


def validation_photos(trained: Demo) -> list[tuple[np.ndarray[Any, Any], list[dict[str, float]]]]:
    """Upright pixels and true boxes of some validation photos with objects."""
    document = json.loads((trained.folder / "bucket" / "_annotations.json").read_text())
    found = json.loads((trained.folder / "work" / "detections.json").read_text())["photos"]
    photos = []
    for each in found:
        boxes = [
            box
            for box in document["annotations"][each["key"]]
            if "x" in box and box["x"] < box["x2"] and box["y2"] <= 1
        ]
        if len(boxes) == len(document["annotations"][each["key"]]):
            photo = images.load((trained.folder / "bucket" / each["key"]).read_bytes())
            with Image.open(__import__("io").BytesIO(photo.encoded)) as image:
                photos.append((np.asarray(image.convert("RGB")), boxes))
    return photos[:10]


def iou(first: Any, box: dict[str, float]) -> float:
    """Intersection over union of ymin, xmin, ymax, xmax and an annotated box."""
    ymin, xmin, ymax, xmax = first
    height = max(0, min(ymax, box["y2"]) - max(ymin, box["y"]))
    width = max(0, min(xmax, box["x2"]) - max(xmin, box["x"]))
    union = (ymax - ymin) * (xmax - xmin) + (box["x2"] - box["x"]) * (box["y2"] - box["y"]) - height * width
    return float(height * width / union)


def share_found(photos: Any, detect: Any, labels: list[str]) -> float:
    """The share of true boxes that a detection of the right label covers with an IoU of at least 0.5."""
    hits = []
    for pixels, boxes in photos:
        found = [(box, labels[int(label)]) for box, label, score in zip(*detect(pixels), strict=True) if score > 0.3]
        hits += [any(label == box["label"] and iou(corners, box) > 0.5 for corners, label in found) for box in boxes]
    return sum(hits) / len(hits)


def test_saved_model_finds_the_shapes_in_photos_of_the_bucket(trained: Demo) -> None:
    import tensorflow as tf

    model = tf.saved_model.load(str(trained.results / "model"))
    assert sorted(model.signatures) == ["encoded", "serving_default"]

    def detect(pixels: Any) -> Any:
        found = model(tf.constant(pixels[np.newaxis]))
        return (
            found["detection_boxes"][0].numpy(),
            found["detection_classes"][0].numpy() - 1,
            found["detection_scores"][0].numpy(),
        )

    assert share_found(validation_photos(trained), detect, trained.json("model/labels.json")) > 0.9


def test_saved_model_takes_batches_of_photos_and_of_files(trained: Demo) -> None:
    """Files as TensorFlow Serving's REST interface gives them: {"instances": [{"b64": ...}]}, decoded from base64."""
    import tensorflow as tf

    model = tf.saved_model.load(str(trained.results / "model"))
    photos = [pixels for pixels, _ in validation_photos(trained)[:3]]
    one_by_one = [model(tf.constant(pixels[np.newaxis])) for pixels in photos]
    body = json.dumps({"instances": [{"b64": base64.b64encode(png(pixels)).decode()} for pixels in photos]})
    files = [base64.b64decode(each["b64"]) for each in json.loads(body)["instances"]]
    together = model.signatures["encoded"](image_bytes=tf.constant(files))
    batch = model(tf.constant(np.stack([photos[0], photos[0][:, ::-1]])))
    assert {len(value) for value in together.values()} == {3}
    for name in ("detection_boxes", "detection_scores", "detection_classes", "num_detections"):
        alone = [found[name][0].numpy() for found in one_by_one]
        np.testing.assert_allclose(together[name].numpy(), np.stack(alone), atol=1e-5, err_msg=name)
        np.testing.assert_allclose(batch[name][0].numpy(), alone[0], atol=1e-5, err_msg=name)


def png(pixels: Any) -> bytes:
    """A photo as a PNG file, which loses nothing."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def prepare(pixels: Any, details: Any) -> Any:
    """A photo as the TFLite model takes it: its size, -1 to 1, as MobileNet is trained."""
    _, height, width, _ = details["shape"]
    resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized, np.float32)[np.newaxis] / 127.5 - 1


def test_tflite_model_finds_the_shapes_in_photos_of_the_bucket(trained: Demo) -> None:
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(str(trained.results / "model_android" / "model.tflite"))
    run = interpreter.get_signature_runner("detect")
    details = interpreter.get_input_details()[0]

    def detect(pixels: Any) -> Any:
        found = run(input=prepare(pixels, details))
        return [found[f"detection_{name}"][0] for name in ("boxes", "classes", "scores")]

    assert share_found(validation_photos(trained), detect, trained.json("model_android/labels.json")) > 0.9


def test_phone_s_client_loads_the_model_and_finds_the_same(trained: Demo, tmp_path: Path) -> None:
    """MediaPipe takes size, normalisation, outputs and labels from the file itself."""
    photos = validation_photos(trained)
    paths = [tmp_path / f"{index}.png" for index in range(len(photos))]
    for path, (pixels, _) in zip(paths, photos, strict=True):
        Image.fromarray(pixels).save(path)
    program = ROOT / "tests" / "clients" / "mediapipe_detect.py"
    command = [ROOT / ".clients-venv" / "bin" / "python", program, trained.results / "model_android" / "model.tflite"]
    result = subprocess.run([*command, *paths], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    labels = trained.json("model_android/labels.json")
    found = {
        pixels.tobytes(): json.loads(line) for (pixels, _), line in zip(photos, result.stdout.splitlines(), strict=True)
    }

    def detect(pixels: Any) -> Any:
        height, width, _ = pixels.shape
        rows = [(labels.index(label), score, *corners) for label, score, *corners in found[pixels.tobytes()]]
        numbers, scores, left, top, wide, high = np.array(rows).T
        boxes = np.stack([top / height, left / width, (top + high) / height, (left + wide) / width], axis=1)
        return boxes, numbers, scores

    assert share_found(photos, detect, labels) > 0.9


def test_raw_outputs_of_the_tflite_model_decode_with_the_anchors(trained: Demo) -> None:
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(str(trained.results / "model_android" / "model_raw.tflite"))
    run = interpreter.get_signature_runner("raw")
    details = interpreter.get_input_details()[0]
    anchors = np.array(trained.json("model_android/anchors.json"))

    def detect(pixels: Any) -> Any:
        found = run(input=prepare(pixels, details))
        scores = found["class_predictions"][0][:, 1:]
        best = np.argsort(-scores.max(axis=1))[:50]
        # The box coder of Faster R-CNN (arXiv:1506.01497, section 3.1.2) with upstream's scales of 10 and 5.
        y, x, h, w = (found["box_encodings"][0][best] / [10, 10, 5, 5]).T
        centre_y, centre_x, height, width = anchors[best].T
        middle_y, middle_x = y * height + centre_y, x * width + centre_x
        half_h, half_w = np.exp(h) * height / 2, np.exp(w) * width / 2
        boxes = np.stack([middle_y - half_h, middle_x - half_w, middle_y + half_h, middle_x + half_w], axis=1)
        return boxes, scores[best].argmax(axis=1), scores[best].max(axis=1)

    assert share_found(validation_photos(trained), detect, trained.json("model_android/labels.json")) > 0.9


def upstream(module: str, *arguments: str) -> None:
    """Runs a program of upstream's from a folder where the job's code cannot be imported."""
    env = environment()
    env.pop("PYTHONPATH")
    result = subprocess.run(
        [sys.executable, "-m", f"object_detection.{module}", *arguments],
        cwd="/",
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]


def test_upstream_trains_on_the_job_s_config_and_exports_its_own_and_the_job_s_checkpoint(
    trained: Demo, tmp_path: Path
) -> None:
    import tensorflow as tf

    # Upstream trains at least a hundred steps.
    text = (trained.results / "pipeline.config").read_text()
    (tmp_path / "pipeline.config").write_text(text.replace("batch_size: 16", "batch_size: 2", 1))
    config = str(tmp_path / "pipeline.config")
    model_dir = str(tmp_path / "upstream")
    steps = ("--num_train_steps=100", "--checkpoint_every_n=100")
    upstream("model_main_tf2", f"--pipeline_config_path={config}", f"--model_dir={model_dir}", *steps)
    newest = tf.train.latest_checkpoint(model_dir)
    assert tf.train.load_variable(newest, "step/.ATTRIBUTES/VARIABLE_VALUE") == 100
    common = (f"--pipeline_config_path={config}", f"--output_directory={tmp_path / 'exported'}")
    upstream("exporter_main_v2", "--input_type=image_tensor", f"--trained_checkpoint_dir={model_dir}", *common)
    assert (tmp_path / "exported" / "saved_model" / "saved_model.pb").exists()
    common = (f"--pipeline_config_path={config}", f"--output_directory={tmp_path / 'tflite'}")
    upstream("export_tflite_graph_tf2", f"--trained_checkpoint_dir={trained.results / 'checkpoint'}", *common)
    assert (tmp_path / "tflite" / "saved_model" / "saved_model.pb").exists()


def test_exports_of_the_demo_find_what_the_model_finds(trained: Demo) -> None:
    found = json.loads((trained.folder / "work" / "parity.json").read_text())["exports"]
    assert {name: each["state"] for name, each in found.items()} == {"saved_model": "equal", "tflite": "equal"}
    assert "parity: tflite equals the model: mAP" in trained.log
    photos = trained.json("predictions/photos.json")["images"]
    assert {each["photos"] for each in found.values()} == {len(photos)}
    assert all(each["model_map"] > 0.5 and each["milliseconds"] > 0 for each in found.values())


def test_predictions_have_the_metrics_of_the_report_in_pycocotools(trained: Demo) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO(str(trained.results / "predictions" / "photos.json"))
    evaluation = COCOeval(truth, truth.loadRes(str(trained.results / "predictions" / "detections.json")), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(trained.json("metrics.json")["summary"]["mAP"], abs=1e-4)


def test_every_format_finds_what_the_model_finds(trained: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    # coremltools imports Keras by way of TensorFlow.
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "1")
    result = run_job(str(STEPS), f"--exports={EVERY_FORMAT}", **trained.settings)
    assert result.returncode == 0, result.stdout
    assert "train: done already" in result.stdout
    found = json.loads((trained.folder / "work" / "parity.json").read_text())["exports"]
    wanted = dict.fromkeys(COMPARED, "equal") | dict.fromkeys(["coreml", "tfjs"], "not run here")
    assert {name: each["state"] for name, each in found.items()} == wanted
    for name in ("model_onnx/model.onnx", "model_openvino/model.xml", "model_openvino/model.bin"):
        assert (trained.results / name).stat().st_size > 1000
    assert trained.json("model_onnx/labels.json") == trained.json("model/labels.json")
    recommended = trained.json("metrics.json")["analysis"]["recommended"]
    for folder in formats.folders():
        assert trained.json(f"{folder}/threshold.json") == recommended
    check_thresholds(trained, recommended["threshold"])
    labels = trained.json("model_ios/labels.json")
    check_core_ml(trained.results / "model_ios" / "model.mlmodel", labels, recommended["threshold"])


def check_thresholds(trained: Demo, threshold: float) -> None:
    """Asserts that each format that has a place for it names the recommended score."""
    import onnxruntime
    import openvino

    session = onnxruntime.InferenceSession(
        str(trained.results / "model_onnx" / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    assert float(session.get_modelmeta().custom_metadata_map["threshold"]) == threshold
    model = openvino.Core().read_model(trained.results / "model_openvino" / "model.xml")
    assert float(model.get_rt_info(["model_info", "confidence_threshold"]).value) == threshold
    assert np.float32(threshold).tobytes() in (trained.results / "model_android" / "model.tflite").read_bytes()


def check_core_ml(path: Path, labels: list[str], threshold: float) -> None:
    """Asserts what Vision needs of a detector. Its predictions run on Apple's systems alone."""
    import coremltools

    model = coremltools.utils.load_spec(str(path))
    image, *thresholds = model.description.input
    assert (image.type.imageType.width, image.type.imageType.height) == (160, 160)
    assert [each.name for each in thresholds] == ["iouThreshold", "confidenceThreshold"]
    assert [each.name for each in model.description.output] == ["confidence", "coordinates"]
    detector, suppression = model.pipeline.models
    made = {each.name: list(each.type.multiArrayType.shape) for each in detector.description.output}
    assert made == {"raw_confidence": [3204, len(labels)], "raw_coordinates": [3204, 4]}
    assert list(suppression.nonMaximumSuppression.stringClassLabels.vector) == labels
    assert suppression.nonMaximumSuppression.confidenceThreshold == pytest.approx(threshold)


PROGRAMS = [name for name in formats.NAMES if formats.format_of(name).snippet]


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_of_a_format_runs_as_it_stands_and_finds_the_shapes(trained: Demo, tmp_path: Path, name: str) -> None:
    """The report and the model card show it like this. RESULT_DIR has the formats of the test before."""
    each = formats.format_of(name)
    analysis = documents.read(MetricsDocument, trained.folder / "work" / "metrics.json").analysis
    for path in trained.results.iterdir():
        (tmp_path / path.name).symlink_to(path)
    pixels, boxes = max(validation_photos(trained), key=lambda photo: len(photo[1]))
    Image.fromarray(pixels).save(tmp_path / "photo.jpg", quality=95)
    (tmp_path / "program.py").write_text(for_model(each, each.folder, analysis) or "")
    command = [sys.executable, "-I", "program.py"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    height, width, _ = pixels.shape
    found = []
    for line in result.stdout.splitlines():
        label, _, left, top, right, bottom = line.split()
        corners = np.array([float(top), float(left), float(bottom), float(right)])
        found.append((label, corners / [height, width, height, width]))
    hits = [any(label == str(box["label"]) and iou(corners, box) > 0.5 for label, corners in found) for box in boxes]
    assert 2 * sum(hits) >= len(boxes)


def test_export_that_is_not_the_model_is_not_published_and_the_rest_is(trained: Demo) -> None:
    """The exported ONNX model is replaced by one with other weights, as a converter with a fault would write it."""
    import onnx
    from onnx import numpy_helper

    work = trained.folder / "work"
    path = work / "model_onnx" / "model.onnx"
    model = onnx.load(path)
    large = [
        each for each in model.graph.initializer if each.data_type == onnx.TensorProto.FLOAT and len(each.dims) > 1
    ]
    assert large
    for each in large:
        each.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(each) * np.float32(1.1), each.name))
    onnx.save(model, path)
    (work / "steps" / "parity.json").unlink()
    result = run_job(str(STEPS), f"--exports={EVERY_FORMAT}", **trained.settings)
    assert result.returncode == 1, result.stdout
    assert "EXPORTS=onnx: not published: onnx: it does not find what the model finds" in result.stdout
    assert not list((trained.results / "model_onnx").iterdir())
    assert (trained.results / "model" / "saved_model.pb").exists()
    assert "it does not find what the model finds" in (trained.results / "report.html").read_text()


def test_export_that_is_not_asked_for_any_more_is_gone_from_the_results(trained: Demo) -> None:
    (trained.results / "model_android" / "notes.txt").write_text("the user's own")
    result = run_job(str(STEPS), "--exports=saved_model", **trained.settings)
    assert result.returncode == 0, result.stdout
    assert "train: done already" in result.stdout
    assert [path.name for path in (trained.results / "model_android").iterdir()] == ["notes.txt"]
    assert trained.json("job.json")["settings"]["exports"] == ["saved_model"]


def test_version_for_tensorflow_serving_stands_beside_the_earlier_ones(trained: Demo) -> None:
    """TensorFlow Serving loads the folders of `model/` that are named by a number, and nothing else there."""
    import tensorflow as tf

    model = trained.results / "model"
    earlier: dict[str, bytes] = {}
    for version in ("1", "2"):
        result = run_job(str(STEPS), "--exports=saved_model", f"--serving-version={version}", **trained.settings)
        assert result.returncode == 0, result.stdout
        assert "train: done already" in result.stdout
        files = [path for path in model.rglob("*") if path.is_file()]
        assert sorted({path.relative_to(model).parts[0] for path in files}) == ["1", "2"][: int(version)]
        assert sorted(tf.saved_model.load(str(model / version)).signatures) == ["encoded", "serving_default"]
        assert trained.json(f"model/{version}/labels.json")
        for page in ("model_card.md", "report.html"):
            text = html.unescape((trained.results / page).read_text())
            assert f'FOLDER = "model/{version}"' in text
        assert {name: (trained.results / name).read_bytes() for name in earlier} == earlier
        listed = [name for name in trained.json("job.json")["files"] if name.startswith("model/")]
        assert f"model/{version}/variables/variables.index" in listed
        assert all(name.startswith(f"model/{version}/") for name in listed)
        earlier = {name: (trained.results / name).read_bytes() for name in listed}


@pytest.fixture(scope="module")
def site(trained: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with model_web/, the clients and validation photos."""
    result = run_job(str(STEPS), "--exports=saved_model,tfjs", **trained.settings)
    assert result.returncode == 0, result.stdout
    assert "train: done already" in result.stdout
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(CLIENTS, folder, dirs_exist_ok=True)
    (folder / "model_web").symlink_to(trained.results / "model_web")
    (folder / "node_modules").symlink_to(ROOT / ".clients-node" / "node_modules")
    photos = validation_photos(trained)
    for index, (pixels, _) in enumerate(photos):
        Image.fromarray(pixels).save(folder / f"{index}.png")
    with serve_folder(folder) as address:
        yield Site(folder, address, photos)


@dataclass(frozen=True)
class Site:
    """Photos, clients and model_web/ on a server."""

    folder: Path
    address: str
    photos: list[tuple[np.ndarray[Any, Any], list[dict[str, float]]]]

    def share_found(self, program: str, *arguments: Any) -> float:
        """The share of true boxes that a client finds: a program of tests/clients prints a line for each photo."""
        lines = run_node(program, *arguments)
        found = {pixels.tobytes(): line for (pixels, _), line in zip(self.photos, lines, strict=True)}
        labels = json.loads((self.folder / "model_web" / "labels.json").read_text())

        def detect(pixels: Any) -> Any:
            rows = [(corners, labels.index(label), score) for label, score, *corners in found[pixels.tobytes()]]
            return zip(*rows, strict=True) if rows else ([], [], [])

        return share_found(self.photos, detect, labels)


def test_tensorflow_js_in_node_finds_the_shapes_in_photos_of_the_bucket(site: Site, tmp_path: Path) -> None:
    paths = []
    for index, (pixels, _) in enumerate(site.photos):
        height, width, _ = pixels.shape
        paths.append(tmp_path / f"{index}-{width}x{height}.rgb")
        paths[-1].write_bytes(pixels.tobytes())
    assert site.share_found("tfjs_node.js", f"{site.address}/model_web", *paths) > 0.9


# The package shows only boxes with a score of at least 0.5.
@pytest.mark.parametrize(("page", "share"), [("tfjs.html", 0.9), ("object_detection.html", 0.8)])
def test_client_in_a_browser_finds_the_shapes_on_canvases(site: Site, page: str, share: float) -> None:
    photos = [f"{site.address}/{index}.png" for index in range(len(site.photos))]
    assert site.share_found("browser.js", shutil.which("chromium"), f"{site.address}/{page}", *photos) > share


def test_float16_weights_find_in_node_what_the_saved_model_finds(site: Site, trained: Demo, tmp_path: Path) -> None:
    """Each box that the SavedModel keeps is one of the boxes before NMS, with its score.

    It comes after the clients that cannot read such weights.
    """
    import tensorflow as tf

    whole = (trained.results / "model_web" / "group1-shard1of1.bin").stat().st_size
    pixels, _ = site.photos[0]
    result = run_job(str(STEPS), "--exports=saved_model,tfjs", "--quantize=float16", **trained.settings)
    assert result.returncode == 0, result.stdout
    assert (trained.results / "model_web" / "group1-shard1of1.bin").stat().st_size < 0.6 * whole
    (tmp_path / "photo.rgb").write_bytes(pixels.tobytes())
    lines = run_node("tfjs_outputs.js", f"{site.address}/model_web", tmp_path / "photo.rgb", *pixels.shape[:2])
    scores, boxes = map(np.array, lines)
    scores, boxes = scores.reshape(-1, len(trained.json("model_web/labels.json"))), boxes.reshape(-1, 4)
    found = tf.saved_model.load(str(trained.results / "model"))(tf.constant(pixels[np.newaxis]))
    kept = np.flatnonzero(found["detection_scores"][0].numpy() > 0.3)
    assert kept.size
    for index in kept:
        names = ("detection_boxes", "detection_classes", "detection_scores")
        corners, number, score = (found[name][0][index].numpy() for name in names)
        far = np.abs(np.clip(boxes, 0, 1) - corners).max(axis=1)
        near = scores[far < 0.01, int(number) - 1]
        assert np.abs(near - score).min() < 0.01


MIXED = """
import sys
from pathlib import Path
from entrypoint.zoo import pipeline_config
from entrypoint.settings import environment
from entrypoint.settings.schema import Settings
environment.prepare(Settings())
import tensorflow as tf
from entrypoint.engines.tf2 import trainer as trainers
config = pipeline_config.read(Path(sys.argv[1]))
config.train_config.batch_size = 4
for policy in ("float32", "mixed_bfloat16"):
    trainer = trainers.Trainer(config, 1, tf.distribute.get_strategy(), policy)
    rows = trainer.train(2)
    types = {each.dtype.name for each in trainer.model.trainable_variables}
    print(policy, *(row["Loss/total_loss"] for row in rows), *types)
"""


def test_mixed_precision_computes_other_digits_and_keeps_float32_weights(trained: Demo) -> None:
    command = [sys.executable, "-c", MIXED, str(trained.folder / "work/pipeline.config")]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    found = [line.split() for line in result.stdout.splitlines() if "float" in line]
    (_, *exact, types), (_, *mixed, mixed_types) = found
    assert types == mixed_types == "float32"
    assert mixed != exact
    # Batches and weights are random; both start from a loss of the same size.
    assert abs(float(mixed[0]) - float(exact[0])) < 0.5

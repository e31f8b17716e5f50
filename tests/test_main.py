from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import entrypoint
from entrypoint import main
from entrypoint.settings import services
from tests import demo
from tests.conftest import BOX, ROOT, STARTED, environment, read_until, run_job, start_job, write_bucket


def test_failure_prints_its_mark_once_and_no_success() -> None:
    result = run_job(DATA_DIR="/nowhere", RESULT_DIR="/tmp/none", MODEL="nonsense")
    assert result.returncode == 2
    assert result.stdout.count("CACLI-TRAINING-FAILED") == 1
    assert "SUCCESS" not in result.stdout


def test_wrong_model_is_refused_with_the_nearest_before_any_work() -> None:
    result = run_job(MODEL="ssd_mobilenet_v2_fpnlite_320")
    assert result.returncode == 2
    assert "ssd_mobilenet_v2_fpnlite_320x320" in result.stdout
    assert "annotations ..." not in result.stdout


def test_unknown_step_is_refused_with_those_that_there_are() -> None:
    result = run_job("evaluation")
    assert result.returncode == 2
    assert "the steps are: annotations, label_map, tf_record" in result.stdout


@pytest.mark.parametrize("arguments", [["models"], ["--help"], ["models", "--json"]])
def test_what_needs_no_tensorflow_does_not_import_it(arguments: list[str]) -> None:
    program = (
        "import sys; from entrypoint.main import main; print('CODE', main({!r}).exit_code, 'tensorflow' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program.format(arguments)], env=environment(), capture_output=True, text=True, check=True
    )
    assert result.stdout.endswith("CODE 0 False\n")


def test_models_lists_every_model_of_the_zoo() -> None:
    models = json.loads(run_job("models", "--json").stdout)
    assert len(models) == 74
    tuned = {path.stem for path in (ROOT / "pipelines").glob("*.config")}
    assert {model["name"] for model in models if model["tuned"]} == tuned >= {"smoke", "faster_rcnn_resnet101_coco"}


def test_start_script_passes_its_words_and_the_exit_code_on() -> None:
    result = subprocess.run(
        [ROOT / "start.sh", "30", "--batch-sise", "4"], env=environment(), capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert "The nearest is BATCH_SIZE" in result.stdout


def test_failure_behind_a_pipe_is_no_success() -> None:
    words = f"set -o pipefail; {ROOT}/start.sh nonsense | cat"
    result = subprocess.run(["bash", "-c", words], env=environment(), capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stdout.count("CACLI-TRAINING-FAILED") == 1
    assert "SUCCESS" not in result.stdout


def run_in(folder: Path, *command: str | Path, **settings: object) -> subprocess.CompletedProcess[str]:
    """Runs a program in a folder to its end."""
    return subprocess.run(command, env=environment(**settings), cwd=folder, capture_output=True, text=True, check=False)


def test_modules_that_lie_in_the_bucket_are_not_run(tmp_path: Path) -> None:
    """Python looks for modules in the current folder first, and users start the job where their photos are."""
    for name in ("yaml", "random", "runpy", "sys", "pydantic", "entrypoint/__init__", "entrypoint/__main__"):
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text("print('CODE OF THE BUCKET'); raise SystemExit(0)")
    result = run_in(tmp_path, ROOT / "start.sh", "check", DATA_DIR=tmp_path)
    assert result.returncode == 2, result.stdout
    assert "CODE OF THE BUCKET" not in result.stdout
    assert "_annotations.json is missing" in result.stdout


def test_training_zip_installs_without_modules_of_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "zip").mkdir()
    (tmp_path / "bucket").mkdir()
    (tmp_path / "zip" / "install.sh").write_text((ROOT / "jobs" / "install.sh").read_text())
    (tmp_path / "zip" / "requirements.txt").write_text("")
    for name in ("venv", "pip"):
        (tmp_path / "bucket" / f"{name}.py").write_text("print('CODE OF THE BUCKET'); raise SystemExit(0)")
    result = run_in(tmp_path / "bucket", "bash", tmp_path / "zip" / "install.sh")
    assert "CODE OF THE BUCKET" not in result.stdout
    assert (tmp_path / "zip" / ".venv" / "bin" / "python").exists()


def test_failure_with_a_name_that_is_not_utf_8_prints_its_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = os.fsdecode(bytes(tmp_path / "gr") + b"\xfcn")
    result = run_job(DATA_DIR=place, MODEL="smoke")
    assert result.returncode == 2
    assert "gr\\udcfcn is not a folder" in result.stdout
    assert result.stdout.endswith("CACLI-TRAINING-FAILED\n")
    # The same where a service reads the failure.
    monkeypatch.setattr(services, "ROOT", tmp_path)
    (tmp_path / "opt/ml/output").mkdir(parents=True)
    assert main.fail(f"{place} is not a folder", 2) == main.Ending(2, main.FAILED)
    assert b"is not a folder" in (tmp_path / "opt/ml/output/failure").read_bytes()


@pytest.fixture
def slow_bucket(tmp_path: Path) -> Path:
    """A bucket whose photos take some seconds to decode, so that a signal arrives in time."""
    noise = Image.effect_noise((1000, 1000), 90).convert("RGB")
    buffer = io.BytesIO()
    noise.save(buffer, "PNG", compress_level=1)
    names = tuple(f"{number}.png" for number in range(60))
    write_bucket(tmp_path / "bucket", {name: [BOX] for name in names})
    for name in names:
        (tmp_path / "bucket" / name).write_bytes(buffer.getvalue())
    return tmp_path / "bucket"


def test_ctrl_c_in_check_is_no_traceback(slow_bucket: Path) -> None:
    process = start_job("check", DATA_DIR=slow_bucket, WORKERS=1)
    read_until(process, lambda line: "reading annotations and photos" in line)
    process.send_signal(signal.SIGINT)
    log = process.communicate(timeout=60)[0]
    assert process.returncode == 143, log
    assert "Traceback" not in log


def children_of(process: subprocess.Popen[str]) -> list[int]:
    """Returns the process numbers of a program's children."""
    return [int(each) for each in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (signal.SIGKILL, "was killed by SIGKILL. The kernel does this if memory runs out"),
        (signal.SIGABRT, "was ended by SIGABRT inside a library"),
        (signal.SIGSEGV, "was ended by SIGSEGV inside a library"),
    ],
)
def test_death_of_the_process_is_a_failure_with_its_mark(
    slow_bucket: Path, number: signal.Signals, message: str
) -> None:
    process = start_job("check", DATA_DIR=slow_bucket, WORKERS=1)
    read_until(process, lambda line: "reading annotations and photos" in line)
    [child] = children_of(process)
    os.kill(child, number)
    log = process.communicate(timeout=60)[0]
    assert process.returncode == 1
    assert message in log
    assert log.count("CACLI") == 1
    assert log.endswith("CACLI-TRAINING-FAILED\n")


def test_sigterm_before_anything_is_imported_ends_in_order(slow_bucket: Path) -> None:
    # On a busy machine the signal can come late, but not after the end of this check.
    process = start_job("check", DATA_DIR=slow_bucket, WORKERS=1, PYTHONUNBUFFERED=1)
    status = Path(f"/proc/{process.pid}/status")
    blocked = 0
    # While a process waits for signals, the kernel shows them as not blocked: it has a child then.
    while not blocked & 1 << signal.SIGTERM - 1 and not children_of(process):
        blocked = int(re.search(r"SigBlk:\s*(\w+)", status.read_text())[1], 16)  # type: ignore[index]
    process.send_signal(signal.SIGTERM)
    log = process.communicate(timeout=60)[0]
    assert (process.returncode, log.count("stopped: ")) == (143, 1), log


@pytest.mark.parametrize("pause", ["", "sleep 1\n"])
def test_start_script_ends_at_sigterm_while_packages_are_installed(tmp_path: Path, pause: str) -> None:
    """The installation ends too, also if the signal comes before the script has got to wait for it."""
    begin = 'bash "$here/install.sh" &\n'
    text = (ROOT / "start.sh").read_text()
    assert begin in text
    (tmp_path / "start.sh").write_text(text.replace(begin, begin + pause))
    (tmp_path / "install.sh").write_text("echo installing; exec sleep 60")
    process = subprocess.Popen(["bash", tmp_path / "start.sh"], stdout=subprocess.PIPE, text=True)
    STARTED.append(process)
    read_until(process, lambda line: "installing" in line)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143


def test_version_names_release_and_revision() -> None:
    result = run_job("--version")
    assert result.returncode == 0
    assert re.fullmatch(rf"{re.escape(entrypoint.__version__)} \(([0-9a-f]{{40}}(-dirty)?|unknown)\)\n", result.stdout)
    project = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{entrypoint.__version__}"' in project


def test_reader_that_ends_early_does_not_fail_a_program(tmp_path: Path) -> None:
    demo.draw_bucket(tmp_path / "bucket", photos=12)
    words = f"set -o pipefail; {ROOT}/start.sh check | head -n 1"
    result = run_in(tmp_path, "bash", "-c", words, DATA_DIR=tmp_path / "bucket")
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_do_not_become_other_files(tmp_path: Path, closed: str) -> None:
    demo.draw_bucket(tmp_path / "bucket", photos=12)
    words = f"{ROOT}/start.sh label_map {closed}"
    places = {"DATA_DIR": tmp_path / "bucket", "WORK_DIR": tmp_path / "work", "RESULT_DIR": tmp_path / "results"}
    result = run_in(tmp_path, "bash", "-c", words, **places)
    assert result.returncode == 0
    assert (tmp_path / "work" / "label_map.pbtxt").is_file()
    assert (tmp_path / "work" / ".training-job").read_bytes() == b""


def test_json_of_check_is_alone_on_standard_output(tmp_path: Path) -> None:
    demo.draw_bucket(tmp_path / "bucket", photos=12)
    (tmp_path / "bucket" / "gr\u00fcn \u732b.txt").write_text("")
    result = run_in(
        tmp_path, ROOT / "start.sh", "check", "--json", DATA_DIR=tmp_path / "bucket", PYTHONIOENCODING="ascii"
    )
    assert json.loads(result.stdout)["photos"]["labelled"] == 12

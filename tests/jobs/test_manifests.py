"""The manifests for training services: filled in, held against their services' schemas, handed to their clients."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PYTHON = ROOT / ".jobs-venv" / "bin" / "python"
VALUES = {
    "IMAGE": "registry.example/detection-training-job:1",
    "BUCKET": "photos",
    "RESULTS": "results",
    "ROLE": "arn:aws:iam::123456789012:role/training",
    "REGION": "europe-west4",
    "COMPUTE": "gpu",
    "SPACE": "space",
    "DEFINITION": "definition",
    "ENDPOINT": "https://s3.example",
    "ACCESS_KEY": "key",
    "SECRET_KEY": "secret",
    "WML_URL": "https://wml.example",
    "IBM_TOKEN": "token",
    "GOOGLE_TOKEN": "token",
    "PROJECT": "project",
    "QUEUE": "queue",
}
OWN = {
    "azure-ml.yaml": {
        "BUCKET": "azureml://datastores/photos/paths/demo/",
        "RESULTS": "azureml://datastores/photos/paths/results/",
    },
    "slurm.sh": {"BUCKET": "/scratch/photos"},
    "convert-slurm.sh": {"BUCKET": "/scratch/photos"},
    "convert-dask-compose.yaml": {"BUCKET": "/scratch/photos"},
}
MANIFESTS = sorted(
    path.name for path in (ROOT / "jobs").iterdir() if "${IMAGE}" in path.read_text() or "${SPACE}" in path.read_text()
)
# What the client of each service is called with; CLIENT stands for the filled manifest.
CLIENTS = {
    "sagemaker": ("aws", "sagemaker create-training-job --cli-input-json file://MANIFEST"),
    "vertex-ai": ("gcloud", "ai custom-jobs create --region=europe-west4 --display-name=detector --config=MANIFEST"),
    "azure-ml": ("az", "ml job create --file MANIFEST"),
    "kubernetes": ("kubectl", "create --filename MANIFEST"),
    "kubeflow": ("kubectl", "create --filename MANIFEST"),
    "slurm": ("sbatch", "MANIFEST"),
    "watson-machine-learning": (
        "curl",
        "--fail-with-body --json @MANIFEST --header @/dev/fd/N https://wml.example/ml/v4/trainings?version=2024-10-10",
    ),
    "convert-kubernetes": ("kubectl", "create --filename MANIFEST"),
    "convert-dask-kubernetes": ("kubectl", "create --filename MANIFEST"),
    "convert-slurm": ("sbatch", "MANIFEST"),
    "convert-dask-compose": ("docker", "compose --file MANIFEST up --exit-code-from convert"),
    "convert-aws-batch": (
        "aws",
        "batch register-job-definition --cli-input-json file://MANIFEST\n"
        "batch submit-job --job-name convert-photos --job-definition convert-photos --job-queue queue "
        "--array-properties size=16",
    ),
    "convert-cloud-run": (
        "curl",
        "--fail-with-body --header @/dev/fd/N --json @MANIFEST "
        "https://run.googleapis.com/v2/projects/project/locations/europe-west4/jobs?jobId=convert-photos\n"
        "--fail-with-body --header @/dev/fd/N --request POST "
        "https://run.googleapis.com/v2/projects/project/locations/europe-west4/jobs/convert-photos:run",
    ),
}
RECORDER = """#!/bin/sh
echo "$@" >> "$RECORD"
"""


def environment(name: str, **changes: str) -> dict[str, str]:
    """The environment of a person who submits that manifest."""
    return {**os.environ, **VALUES, **OWN.get(name, {}), **changes}


def fill(name: str, folder: Path, **changes: str) -> Path:
    """The filled manifest, below the folder."""
    command = fill_command(ROOT / "jobs" / name)
    result = subprocess.run(
        command, cwd=folder, env=environment(name, **changes), capture_output=True, text=True, check=True
    )
    return folder / str(result.stdout).strip()


def fill_command(manifest: Path) -> list[str]:
    """The command line that fills in a manifest."""
    return [sys.executable, str(ROOT / "jobs" / "fill.py"), str(manifest)]


def validate(path: Path) -> subprocess.CompletedProcess[str]:
    """Runs the checker of a filled manifest."""
    return subprocess.run(
        [PYTHON, ROOT / "jobs" / "validate.py", path], capture_output=True, text=True, check=False, env=os.environ
    )


@pytest.mark.parametrize("name", MANIFESTS)
def test_filled_manifest_is_what_its_service_takes(name: str, tmp_path: Path) -> None:
    result = validate(fill(name, tmp_path))
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().endswith("valid")


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        ("sagemaker.json", '"VolumeSizeInGB": 50', '"VolumeSizeInGB": "large"', "VolumeSizeInGB"),
        ("vertex-ai.yaml", "imageUri", "image", "image"),
        ("azure-ml.yaml", "uri_folder", "bucket", "bucket"),
        ("kubernetes.yaml", "backoffLimit", "backofLimit", "backofLimit"),
        ("kubeflow.yaml", "tfReplicaSpecs", "replicaSpecs", "replicaSpecs is not a field of KubeflowOrgV1TFJobSpec"),
        ("kubeflow.yaml", "containerPort: 2222", "containerPort: port", "'port' is not of type"),
        ("kubeflow.yaml", "name: tensorflow", "name: job", "no container is called tensorflow"),
        ("github-actions.yml", "runs-on", "run-on", "runs-on"),
        ("slurm.sh", '"${NUM_STEPS}"', "$$UNQUOTED", "SC2086"),
        ("convert-kubernetes.yaml", "completionMode", "completionsMode", "completionsMode"),
        ("convert-aws-batch.json", '"command"', '"args"', "args"),
        ("convert-cloud-run.json", "taskCount", "tasks", "tasks"),
        ("convert-slurm.sh", '"auto/${PARTS}"', "$$UNQUOTED", "SC2086"),
        ("convert-dask-compose.yaml", "depends_on", "depend_on", "depend_on"),
        ("convert-dask-kubernetes.yaml", "replicas: ${PARTS}", "replicas: many", "'many' is not of type 'integer'"),
        ("convert-dask-kubernetes.yaml", "workingDir", "workDir", "workDir"),
        ("watson-machine-learning.json", "./start.sh ", "./run.sh ", "does not run start.sh"),
    ],
)
def test_manifest_that_its_service_would_refuse_is_found(
    name: str, old: str, new: str, told: str, tmp_path: Path
) -> None:
    text = (ROOT / "jobs" / name).read_text()
    assert old in text
    (tmp_path / name).write_text(text.replace(old, new))
    command = fill_command(tmp_path / name)
    subprocess.run(command, cwd=tmp_path, env=environment(name), capture_output=True, check=True)
    result = validate(tmp_path / ".submitted" / name)
    assert result.returncode == 1
    assert told in result.stderr


def test_what_is_missing_is_told_at_once(tmp_path: Path) -> None:
    given = {name: value for name, value in os.environ.items() if name not in VALUES}
    command = fill_command(ROOT / "jobs" / "sagemaker.json")
    result = subprocess.run(command, cwd=tmp_path, env=given, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "ROLE, IMAGE, BUCKET, RESULTS not given: make submit-... ROLE=... IMAGE=..." in result.stderr
    assert not (tmp_path / ".submitted").exists()


@pytest.mark.parametrize("value", ['a"b', "a\nb", "a$b", "a\\b", "a'b", "a`b"])
def test_value_that_would_break_out_of_its_place_is_refused(value: str, tmp_path: Path) -> None:
    command = fill_command(ROOT / "jobs" / "kubernetes.yaml")
    result = subprocess.run(
        command, cwd=tmp_path, env=environment("", BUCKET=value), capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert "BUCKET=" in result.stderr


@pytest.mark.parametrize("service", CLIENTS)
def test_submitting_hands_the_filled_manifest_to_the_service_s_client(service: str, tmp_path: Path) -> None:
    client, arguments = CLIENTS[service]
    (tmp_path / client).write_text(RECORDER)
    (tmp_path / client).chmod(0o755)
    manifest = next(name for name in MANIFESTS if name.partition(".")[0] == service)
    settings = environment(manifest, PATH=f"{tmp_path}:{os.environ['PATH']}", RECORD=str(tmp_path / "record"))
    command = ["make", "--silent", f"submit-{service}", f"REGION={VALUES['REGION']}", f"WML_URL={VALUES['WML_URL']}"]
    command += [f"{name}={VALUES[name]}" for name in ("PROJECT", "QUEUE")] + [f"DOCKER={tmp_path / 'docker'}"]
    result = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    called = re.sub(r"/dev/fd/\d+", "/dev/fd/N", (tmp_path / "record").read_text().strip())
    assert called == arguments.replace("MANIFEST", f".submitted/{manifest}")
    assert validate(ROOT / ".submitted" / manifest).returncode == 0
    assert (ROOT / ".submitted" / manifest).stat().st_mode & 0o077 == 0


def test_every_service_has_a_manifest_and_a_target() -> None:
    targets = (ROOT / "Makefile").read_text()
    for name in MANIFESTS:
        if name != "github-actions.yml":
            assert re.search(rf"^submit-.*\b{name.partition('.')[0]}\b", targets, re.MULTILINE), name
    services = {name.partition(".")[0] for name in MANIFESTS if name != "github-actions.yml"}
    assert services == set(CLIENTS)

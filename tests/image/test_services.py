"""What each training service does with the image: its mounts, its command, its signals, its files."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import entrypoint
from entrypoint.system import version
from tests.conftest import ROOT
from tests.image.conftest import DOCKER, SMOKE, docker, start, stop_in_training
from tests.jobs.test_manifests import fill

# What makes a job quick where the service names the model.
QUICK = SMOKE[1:]


@pytest.fixture
def opened(tmp_path: Path) -> Path:
    """A folder that any user may write into."""
    tmp_path.chmod(0o777)
    return tmp_path


def open_folders(*folders: Path) -> None:
    """Makes folders that any user may write into, as mounts of buckets and volumes are."""
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o777)


def run(*arguments: str, code: int = 0) -> str:
    """Runs a container to its end and returns its log."""
    result = docker("run", "--rm", *arguments, check=False)
    assert result.returncode == code, result.stdout
    return result.stdout


class SageMaker:
    """The folder /opt/ml of a training job: root's, as the image is that was built with JOB_USER=0:0."""

    def __init__(self, root: Path, bucket: Path, **hyperparameters: str) -> None:
        self.root = root
        self.options = [f"--volume={root}:/opt/ml", f"--volume={bucket}:/opt/ml/input/data/training:ro", *QUICK]
        self.options.append("--user=0:0")
        for name in ("input/data/training", "model", "output/data", "checkpoints"):
            (root / name).mkdir(parents=True)
        config = root / "input" / "config"
        config.mkdir(parents=True)
        for name, content in (
            ("hyperparameters", {"model": "smoke", **hyperparameters}),
            ("inputdataconfig", {"training": {"TrainingInputMode": "File"}}),
            ("resourceconfig", {"current_host": "algo-1", "hosts": ["algo-1"]}),
        ):
            (config / f"{name}.json").write_text(json.dumps(content))


def test_sagemaker_s_contract(image: str, name: str, opened: Path, bucket: Path) -> None:
    service = SageMaker(opened / "ml", bucket, num_steps="99")
    process = start(image, name, *service.options, "train")
    # It stops a job, also a spot instance's, with SIGTERM and waits for two minutes.
    stopped = stop_in_training(process, name, service.root / "checkpoints", seconds=120)
    # The instance and its model folder are gone; the checkpoints were synchronised and are there again.
    again = run(*service.options, "--tmpfs=/opt/ml/model", image, "train")
    assert f"resumed at step {stopped} from /opt/ml/checkpoints" in again
    # Nothing was written into the folder of the data.
    assert not (bucket / "results").exists()


def test_sagemaker_s_failure_file_tells_why(image: str, opened: Path, bucket: Path) -> None:
    service = SageMaker(opened / "ml", bucket, num_step="2")
    log = run(*service.options, image, "train", code=2)
    failure = (service.root / "output" / "failure").read_text()
    assert "num_step in /opt/ml/input/config/hyperparameters.json is not a setting" in failure
    assert failure in log


def test_vertex_ai_s_contract(image: str, opened: Path, bucket: Path) -> None:
    manifest = yaml.safe_load(fill("vertex-ai.yaml", opened, MODEL="smoke", NUM_STEPS="3").read_text())
    base = manifest["baseOutputDirectory"]["outputUriPrefix"]
    container = manifest["workerPoolSpecs"][0]["containerSpec"]
    open_folders(opened / "results")
    log = run(
        *QUICK,
        f"--volume={bucket}:/gcs/photos:ro",
        f"--volume={opened / 'results'}:/gcs/results",
        f"--env=AIP_MODEL_DIR={base}/model/",
        f"--env=AIP_CHECKPOINT_DIR={base}/checkpoints/",
        f"--env=AIP_TENSORBOARD_LOG_DIR={base}/logs/",
        image,
        *container["args"],
    )
    assert log.rstrip().endswith("CACLI-TRAINING-SUCCESS")
    place = opened / base.removeprefix("gs://")
    assert (place / "model" / "saved_model.pb").exists()
    assert list((place / "checkpoints").glob("ckpt-3.index"))
    assert list((place / "logs").glob("events.out.tfevents.*"))
    assert (place / "job.json").exists()


def test_azure_ml_s_contract(image: str, opened: Path, bucket: Path) -> None:
    manifest = yaml.safe_load(fill("azure-ml.yaml", opened, MODEL="smoke", NUM_STEPS="3").read_text())
    mounts = {"${{inputs.bucket}}": "/mnt/inputs/bucket", "${{outputs.results}}": "/mnt/outputs/results"}
    command = manifest["command"]
    for name, place in mounts.items():
        command = command.replace(name, place)
    open_folders(opened / "results", opened / "code")
    run(
        *QUICK,
        f"--volume={bucket}:/mnt/inputs/bucket:ro",
        f"--volume={opened / 'results'}:/mnt/outputs/results",
        f"--volume={opened / 'code'}:/mnt/code",
        "--workdir=/mnt/code",
        "--env=AZUREML_RUN_ID=run",
        # The service runs the command in place of the image's own.
        "--entrypoint=bash",
        image,
        "-c",
        command,
    )
    assert (opened / "results" / "job.json").exists()
    assert list((opened / "code" / "logs").glob("events.out.tfevents.*"))


def pod_options(manifest: Any, folder: Path, bucket: Path) -> list[str]:
    """What the kubelet does with the only container of a pod, in Docker's words."""
    spec = manifest["spec"]["template"]["spec"]
    container, security = spec["containers"][0], spec["securityContext"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
    assert not container["securityContext"]["allowPrivilegeEscalation"]
    options = [f"--user={security['runAsUser']}:{security['runAsGroup']}", "--read-only", "--cap-drop=ALL"]
    options += ["--security-opt=no-new-privileges", f"--volume={folder / 'termination-log'}:/dev/termination-log"]
    options += [f"--env={each['name']}={each['value']}" for each in container["env"]]
    places = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    for volume in spec["volumes"]:
        place = places[volume["name"]]
        is_bucket = "persistentVolumeClaim" in volume
        options.append(f"--volume={bucket}:{place}" if is_bucket else f"--tmpfs={place}:mode=777,exec")
    return options


@pytest.fixture
def termination_log(opened: Path) -> Path:
    """The file that the kubelet mounts into a container."""
    path = opened / "termination-log"
    path.touch()
    path.chmod(0o666)
    return path


def test_kubernetes_s_contract(image: str, opened: Path, bucket: Path, termination_log: Path) -> None:
    manifest = yaml.safe_load(fill("kubernetes.yaml", opened, MODEL="smoke", NUM_STEPS="3").read_text())
    arguments = manifest["spec"]["template"]["spec"]["containers"][0]["args"]
    options = pod_options(manifest, opened, bucket)
    run(*QUICK, *options, image, *arguments)
    assert (bucket / "results" / "job.json").exists()
    assert termination_log.read_text() == ""
    # The same pod may start twice: what was done is done.
    assert "step 3 is in /data/results/checkpoint: nothing is left to train" in run(*QUICK, *options, image, *arguments)


def test_kubernetes_s_termination_log_tells_why(image: str, opened: Path, bucket: Path, termination_log: Path) -> None:
    manifest = yaml.safe_load(fill("kubernetes.yaml", opened, MODEL="smoke", NUM_STEPS="3").read_text())
    (bucket / "_annotations.json").unlink()
    run(*QUICK, *pod_options(manifest, opened, bucket), image, "3", code=2)
    assert "/data/_annotations.json is missing: DATA_DIR must name the bucket's root" in termination_log.read_text()


@pytest.fixture
def network() -> Iterator[str]:
    """A network of its own, in which containers find each other by name."""
    name = "detection-training-job-cluster"
    docker("network", "rm", name, check=False)
    docker("network", "create", name)
    yield name
    docker("network", "rm", name, check=False)


def test_kubeflow_s_cluster_of_two_containers(image: str, opened: Path, bucket: Path, network: str) -> None:
    manifest = yaml.safe_load(fill("kubeflow.yaml", opened, MODEL="smoke", NUM_STEPS="6").read_text())
    replicas = manifest["spec"]["tfReplicaSpecs"]
    port = replicas["Chief"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"]
    members = {"chief": [f"job-chief-0:{port}"], "worker": [f"job-worker-0:{port}"]}
    processes = []
    for kind in ("chief", "worker"):
        container = replicas[kind.capitalize()]["template"]["spec"]["containers"][0]
        name = f"job-{kind}-0"
        docker("rm", "--force", name, check=False)
        config = {"cluster": members, "task": {"type": kind, "index": 0}, "environment": "cloud"}
        options = [
            f"--name={name}",
            f"--hostname={name}",
            f"--network={network}",
            f"--env=TF_CONFIG={json.dumps(config)}",
        ]
        command = [DOCKER, "run", "--rm", *options, *SMOKE, f"--volume={bucket}:/data", image, *container["args"]]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    logs = [process.communicate(timeout=600)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(logs)
    losses = [re.findall(r"tensorflow:loss = .*", log) for log in logs]
    assert losses[0] == losses[1] != []
    assert (logs[0].count("CACLI-TRAINING-SUCCESS"), logs[1].count("CACLI-TRAINING-SUCCESS")) == (1, 0)
    assert json.loads((bucket / "results" / "job.json").read_text())["settings"]["tf_config"]["task"]["type"] == "chief"


def test_indexed_job_of_kubernetes_converts_in_parts(
    image: str, opened: Path, bucket: Path, termination_log: Path
) -> None:
    manifest = yaml.safe_load(fill("convert-kubernetes.yaml", opened, MODEL="smoke", PARTS="2").read_text())
    arguments = manifest["spec"]["template"]["spec"]["containers"][0]["args"]
    options = pod_options(manifest, opened, bucket)
    for index in range(manifest["spec"]["completions"]):
        assert not (bucket / "records" / "manifest.json").exists()
        run(*options, f"--env=JOB_COMPLETION_INDEX={index}", image, *arguments)
    assert termination_log.read_text() == ""
    volume = f"--volume={bucket}:/data"
    log = run(*QUICK, volume, "--env=MODEL=smoke", "--env=RECORDS_DIR=/data/records", image, "2")
    assert log.rstrip().endswith("CACLI-TRAINING-SUCCESS")


def test_dask_cluster_of_the_compose_file_converts(image: str, opened: Path, bucket: Path, network: str) -> None:
    path = fill("convert-dask-compose.yaml", opened, IMAGE=image, BUCKET=str(bucket), MODEL="smoke")
    services = yaml.safe_load(path.read_text())["services"]
    # What `docker compose up` does with these services.
    try:
        for name, service in services.items():
            docker("rm", "--force", name, check=False)
            options = [f"--name={name}", f"--network={network}"]
            options += [f"--env={variable}={value}" for variable, value in service.get("environment", {}).items()]
            options += [f"--volume={volume}" for volume in service.get("volumes", [])]
            options += [f"--workdir={service['working_dir']}"] if "working_dir" in service else []
            program: list[str] = service.get("entrypoint", [])
            options += ["--detach", f"--entrypoint={program[0]}"] if program else []
            docker("run", *options, service["image"], *program[1:], *service.get("command", []))
    finally:
        for name in services:
            docker("rm", "--force", name, check=False)
    assert (bucket / "records" / "manifest.json").exists()


def test_slurm_s_words_with_apptainer(image: str, opened: Path, bucket: Path) -> None:
    # Apptainer runs the image's command as the user's own id on a read-only root, and not as the first process.
    script = fill("slurm.sh", opened, BUCKET=str(bucket), MODEL="smoke", NUM_STEPS="3").read_text()
    words = shlex.split(script[script.index("srun apptainer") : script.index(" ||")])
    volume = words[words.index("--bind") + 1]
    settings = words[words.index("--env") + 1]
    options = ["--init", "--user=12345:12345", "--read-only", "--tmpfs=/tmp:exec,mode=1777"]
    log = run(*QUICK, *options, f"--env={settings}", f"--volume={volume}", image, words[-1])
    assert log.rstrip().endswith("CACLI-TRAINING-SUCCESS")
    assert "tini" not in log.lower()


def test_workflow_of_a_repository_of_one_s_own(image: str, opened: Path, bucket: Path) -> None:
    workflow = yaml.safe_load(fill("github-actions.yml", opened, IMAGE=image).read_text())
    steps = [step["run"] for step in workflow["jobs"]["smoke"]["steps"] if "run" in step]
    bucket.rename(opened / "dataset")
    began = time.monotonic()
    for step in steps:
        command = step.replace("docker run", f"{DOCKER} run", 1) if step.startswith("docker") else step
        subprocess.run(["bash", "-euo", "pipefail", "-c", command], cwd=opened, check=True)
    print(f"the workflow's steps: {time.monotonic() - began:.0f} s")
    assert (opened / "results" / "report.html").exists()


def test_little_memory_is_a_clear_message(image: str, bucket: Path) -> None:
    limits = ("--memory=512m", "--memory-swap=512m")
    log = run(*SMOKE, *limits, f"--volume={bucket}:/data", image, "3", code=2)
    assert "may use 512 MiB of memory, but the smallest job needs 768 MiB: raise the limit" in log


def test_memory_that_runs_out_is_told_before_the_kernel_kills(image: str) -> None:
    # As a job whose memory grows does, and no faster than a look at it takes: 800 MiB in eight seconds.
    grow = (
        "import sys, time; from entrypoint import __main__ as parent, main\n"
        "from entrypoint.engines import machine; from entrypoint.system import logs\n"
        "def grow(_):\n"
        "    logs.configure(); machine.watch_memory(); held = []\n"
        "    while True: held.append(bytearray(b'1' * (1 << 20))); time.sleep(0.01)\n"
        "main.main = grow; sys.exit(parent.watch([]))"
    )
    limits = ("--memory=800m", "--memory-swap=800m", "--workdir=/opt/job", "--entrypoint=python")
    log = run(*limits, image, "-c", grow, code=1)
    assert "800 MiB that this container may use are in use; above the limit" in log
    assert "was killed by SIGKILL. The kernel does this if memory runs out" in log
    assert log.endswith("CACLI-TRAINING-FAILED\n")


def test_image_tells_what_is_in_it(image: str) -> None:
    bill = json.loads(run("--entrypoint=cat", image, "/opt/job/sbom.cdx.json"))
    found = {component["name"]: component["version"] for component in bill["components"]}
    locked = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / "requirements-cpu.txt").read_text(), re.MULTILINE))
    normal = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found.items()}
    assert {"object-detection", "slim"} <= set(normal)
    missing = [name for name in locked if name not in normal]
    # Of these there is one per version of Python.
    assert set(missing) <= {"async-timeout", "exceptiongroup", "tomli"}, missing


def test_image_names_its_release_and_revision(image: str) -> None:
    labels = json.loads(docker("image", "inspect", "--format={{json .Config.Labels}}", image).stdout)
    prefix = "org.opencontainers.image"
    assert labels[f"{prefix}.version"] == entrypoint.__version__
    assert labels[f"{prefix}.revision"] == version.revision()
    assert run(image, "--version") == f"{version.describe()}\n"


def test_no_secret_is_in_the_log_or_the_results(image: str, bucket: Path) -> None:
    secrets = ("--env=AWS_SECRET_ACCESS_KEY=topsecret", "--env=ZOO_URL=https://user:topsecret@mirror.example/zoo")
    log = run(*SMOKE, *secrets, f"--volume={bucket}:/data", image, "2")
    assert "topsecret" not in log
    for path in (bucket / "results").rglob("*"):
        assert path.is_dir() or b"topsecret" not in path.read_bytes()

"""The files, folders and variables that training services promise a container, translated to this job's settings.

The sources are each service's own documentation of custom containers: SageMaker's "How Amazon SageMaker AI Provides
Training Information", Vertex AI's "Code requirements" of custom training, Azure ML's command jobs, Kubernetes's
"Determine the Reason for Pod Failure". The variables of Watson Machine Learning and Kubeflow's TF_CONFIG have the names
of this job's settings.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entrypoint.system import foreign
from entrypoint.system.errors import UserError
from entrypoint.system.printable import printable

# The root of the services' fixed paths.
ROOT = Path("/")
HYPERPARAMETERS = "opt/ml/input/config/hyperparameters.json"
CHANNELS = "opt/ml/input/config/inputdataconfig.json"
RESOURCES = "opt/ml/input/config/resourceconfig.json"
# The channels that are preferred if there are several, in this order.
DATA_CHANNELS = ("training", "train", "data")
PORT = 2222  # any free port works: the containers of a training job reach each other on all ports


@dataclass(frozen=True)
class Container:
    """The environment and the files that a service gives the job."""

    environment: Mapping[str, str]
    root: Path

    def document(self, path: str) -> dict[str, Any]:
        """Returns the JSON object in a file, or an empty object without a file; raises UserError if it is not JSON."""
        place = self.root / path
        if not place.is_file():
            return {}
        with foreign.parsing(str(place), "the service writes JSON there"):
            content = json.loads(place.read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}

    def address(self, name: str) -> str | None:
        """Returns the address in a variable, as a path below Vertex AI's mount /gcs if the bucket is there, or None."""
        value = self.environment.get(name, "").rstrip("/")
        bucket, _, key = value.removeprefix("gs://").partition("/")
        if value.startswith("gs://") and (self.root / "gcs" / bucket).is_dir():
            return str(self.root / "gcs" / bucket / key)
        return value or None


@dataclass(frozen=True)
class Promise:
    """A file, folder or variable of a service, and the setting that it becomes."""

    service: str
    theirs: str
    ours: str
    read: Callable[[Container], Any]  # returns None if the service does not keep the promise


def channel(container: Container) -> str | None:
    """Returns the folder of SageMaker's only channel, or of the first of DATA_CHANNELS; None if there is neither."""
    names = list(container.document(CHANNELS))
    chosen = names[0] if len(names) == 1 else next((name for name in DATA_CHANNELS if name in names), None)
    return str(container.root / "opt/ml/input/data" / chosen) if chosen else None


def refuse_unclear_channels(given: set[str]) -> None:
    """Raises UserError if neither the names of SageMaker's channels nor DATA_DIR show which channel has the photos."""
    names = list(Container({}, ROOT).document(CHANNELS))
    if names and "data_dir" not in given:
        raise UserError(
            f"SageMaker's channels are {', '.join(names)}, and no channel is called {' or '.join(DATA_CHANNELS)}: "
            "set the hyperparameter data_dir to /opt/ml/input/data/CHANNEL for the channel with the photos"
        )


def folder(path: str) -> Callable[[Container], str | None]:
    """Returns a reader of a folder that the service makes before it starts the container."""
    return lambda container: str(container.root / path) if (container.root / path).is_dir() else None


def variable(name: str) -> Callable[[Container], str | None]:
    """Returns a reader of the address in a variable."""
    return lambda container: container.address(name)


def base_directory(container: Container) -> str | None:
    """Returns Vertex AI's base output directory. AIP_MODEL_DIR is its folder `model`, as in RESULT_DIR."""
    place = container.address("AIP_MODEL_DIR")
    return place.removesuffix("/model") if place else None


def working_folder(name: str) -> Callable[[Container], str | None]:
    """Returns a reader of a folder in the working directory that Azure ML uploads."""
    return lambda container: str(Path(name).absolute()) if "AZUREML_RUN_ID" in container.environment else None


def hosts(container: Container) -> dict[str, Any] | None:
    """Returns SageMaker's hosts as TensorFlow's TF_CONFIG, or None if there is only one host."""
    resources = container.document(RESOURCES)
    names = sorted(resources.get("hosts", []))
    if len(names) < 2:
        return None
    task = {"type": "worker", "index": names.index(resources["current_host"])}
    return {"cluster": {"worker": [f"{name}:{PORT}" for name in names]}, "task": task}


def worker_pools(container: Container) -> dict[str, Any] | None:
    """Returns Vertex AI's CLUSTER_SPEC as TF_CONFIG: its first pool is the chief, its second pool holds the workers.

    Returns None if TF_CONFIG is set, if CLUSTER_SPEC is not set, or if there is only one machine.
    """
    if "TF_CONFIG" in container.environment or "CLUSTER_SPEC" not in container.environment:
        return None
    spec = json.loads(container.environment["CLUSTER_SPEC"])
    types = {"workerpool0": "chief", "workerpool1": "worker"}
    pools = {types.get(name, name): members for name, members in spec["cluster"].items()}
    task = {**spec["task"], "type": types.get(spec["task"]["type"], spec["task"]["type"])}
    return {"cluster": pools, "task": task} if sum(map(len, pools.values())) > 1 else None


PROMISES = (
    Promise("SageMaker", "/opt/ml/input/data/CHANNEL", "data_dir", channel),
    Promise("SageMaker", "/opt/ml/model", "result_dir", folder("opt/ml/model")),
    Promise("SageMaker", "/opt/ml/checkpoints", "checkpoint_dir", folder("opt/ml/checkpoints")),
    Promise("SageMaker", "/opt/ml/output/data", "tensorboard_dir", folder("opt/ml/output/data")),
    Promise("SageMaker", "resourceconfig.json", "tf_config", hosts),
    Promise("Vertex AI", "AIP_MODEL_DIR", "result_dir", base_directory),
    Promise("Vertex AI", "AIP_CHECKPOINT_DIR", "checkpoint_dir", variable("AIP_CHECKPOINT_DIR")),
    Promise("Vertex AI", "AIP_TENSORBOARD_LOG_DIR", "tensorboard_dir", variable("AIP_TENSORBOARD_LOG_DIR")),
    Promise("Vertex AI", "CLUSTER_SPEC", "tf_config", worker_pools),
    Promise("Azure ML", "./outputs", "result_dir", working_folder("outputs")),
    Promise("Azure ML", "./logs", "tensorboard_dir", working_folder("logs")),
)
# The files from which a service reads why a job failed, and how much it reads: characters for SageMaker, bytes for
# Kubernetes.
FAILURES = (("opt/ml/output", "failure", 1024), ("dev/termination-log", "", 4096))


def offered(environment: Mapping[str, str]) -> dict[str, Any]:
    """Returns the settings that the service of this container decides. SageMaker's hyperparameters come first."""
    container = Container(environment, ROOT)
    given = settings_in(container.document(HYPERPARAMETERS))
    found = {promise.ours: value for promise in PROMISES if (value := keep(promise, container)) is not None}
    return found | given


def keep(promise: Promise, container: Container) -> Any:
    """Returns the value of a promise; raises UserError if it is not in the form that the service documents."""
    try:
        return promise.read(container)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{promise.theirs} is not what {promise.service} documents: {error!r}") from None


def settings_in(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Returns SageMaker's hyperparameters in this job's spelling, without those of SageMaker's own tools."""
    own = ("sagemaker_", "_tuning_objective_metric")
    ours = {name: value for name, value in hyperparameters.items() if not name.startswith(own)}
    return {name.replace("-", "_").lower(): value for name, value in ours.items()}


def tell_failure(message: str) -> None:
    """Writes why the job failed into the files that a service shows to the user."""
    for path, limit in failure_files():
        # The message is in the log too, so the job does not need this copy of it.
        with contextlib.suppress(OSError):
            path.write_bytes(printable(message).encode()[:limit].decode(errors="ignore").encode())


def tell_metric(name: str, value: float, step: int, environment: Mapping[str, str] = os.environ) -> None:
    """Adds a metric to the file from which Vertex AI's hyperparameter tuning reads it, if the service names one.

    The form is that of the package cloudml-hypertune: a JSON object on each line, whose numbers are strings.
    """
    place = environment.get("CLOUD_ML_HP_METRIC_FILE")
    if not place:
        return
    entry = {
        "timestamp": time.time(),
        "trial": environment.get("CLOUD_ML_TRIAL_ID", "0"),
        name: str(float(value)),
        "global_step": str(int(step)),
        "checkpoint_path": "",
    }
    # The metric is in the log too, so the job does not need this copy of it.
    with contextlib.suppress(OSError):
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        with Path(place).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, sort_keys=True) + "\n")


def forget_failure() -> None:
    """Empties the files of `tell_failure`: a warning about a failure is in them, and the failure did not happen."""
    for path, _ in failure_files():
        with contextlib.suppress(OSError):
            if path.stat().st_size:
                path.write_bytes(b"")


def failure_files() -> Iterator[tuple[Path, int]]:
    """Yields the files in which the service of this container looks for a failure, and how much of each it reads."""
    for place, name, limit in FAILURES:
        if (ROOT / place).exists():
            # If the name is empty, the place itself is the file.
            yield ROOT / place / name, limit

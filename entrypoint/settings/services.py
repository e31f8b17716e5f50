"""What training services promise a container, read as this job's settings: one table from theirs to ours.

The sources are each service's own documentation of custom containers: SageMaker's "How Amazon SageMaker AI Provides
Training Information", Vertex AI's "Code requirements" of custom training, Azure ML's command jobs, Kubernetes's
"Determine the Reason for Pod Failure". Watson Machine Learning's variables and Kubeflow's TF_CONFIG are ours by name.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entrypoint.system.errors import UserError

# Where the services' fixed paths begin.
ROOT = Path("/")
HYPERPARAMETERS = "opt/ml/input/config/hyperparameters.json"
CHANNELS = "opt/ml/input/config/inputdataconfig.json"
RESOURCES = "opt/ml/input/config/resourceconfig.json"
# Preferred, in this order, where there are several channels.
DATA_CHANNELS = ("training", "train", "data")
PORT = 2222  # any free one would do: containers of a training job reach each other on all


@dataclass(frozen=True)
class Container:
    """What a service put around the job."""

    environment: Mapping[str, str]
    root: Path

    def document(self, path: str) -> dict[str, Any]:
        """A JSON object in a file; an empty one where there is no file."""
        try:
            content = json.loads((self.root / path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise UserError(f"{self.root / path} is not JSON ({error})") from None
        return content if isinstance(content, dict) else {}

    def address(self, name: str) -> str | None:
        """The address in a variable, as a path of Vertex AI's mount below /gcs where that is there."""
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
    read: Callable[[Container], Any]  # None where the service does not keep it


def channel(container: Container) -> str | None:
    """SageMaker's only channel, or the one that is named like data."""
    names = list(container.document(CHANNELS))
    chosen = names[0] if len(names) == 1 else next((name for name in DATA_CHANNELS if name in names), None)
    return str(container.root / "opt/ml/input/data" / chosen) if chosen else None


def refuse_unclear_channels(given: set[str]) -> None:
    """UserError where SageMaker has several channels, and neither a name nor DATA_DIR tells where the photos are."""
    names = list(Container({}, ROOT).document(CHANNELS))
    if names and "data_dir" not in given:
        raise UserError(
            f"the channels {', '.join(names)}: none is called {' or '.join(DATA_CHANNELS)}; name the one with the "
            "photos in the hyperparameter data_dir, as /opt/ml/input/data/CHANNEL"
        )


def folder(path: str) -> Callable[[Container], str | None]:
    """Reads a folder that the service makes before it starts the container."""
    return lambda container: str(container.root / path) if (container.root / path).is_dir() else None


def variable(name: str) -> Callable[[Container], str | None]:
    """Reads an address out of a variable."""
    return lambda container: container.address(name)


def base_directory(container: Container) -> str | None:
    """Vertex AI's base output directory: its AIP_MODEL_DIR is the folder `model` there, as ours is in RESULT_DIR."""
    place = container.address("AIP_MODEL_DIR")
    return place.removesuffix("/model") if place else None


def working_folder(name: str) -> Callable[[Container], str | None]:
    """Reads a folder of Azure ML's that is uploaded out of the working directory."""
    return lambda container: str(Path(name).absolute()) if "AZUREML_RUN_ID" in container.environment else None


def hosts(container: Container) -> dict[str, Any] | None:
    """SageMaker's hosts as TensorFlow's TF_CONFIG; None where there is only one."""
    resources = container.document(RESOURCES)
    names = sorted(resources.get("hosts", []))
    if len(names) < 2:
        return None
    task = {"type": "worker", "index": names.index(resources["current_host"])}
    return {"cluster": {"worker": [f"{name}:{PORT}" for name in names]}, "task": task}


def worker_pools(container: Container) -> dict[str, Any] | None:
    """Vertex AI's CLUSTER_SPEC as TF_CONFIG: its first pool is the chief, the second holds the workers."""
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
# Where a service reads why a job failed, and how much of it: characters for SageMaker, bytes for Kubernetes.
FAILURES = (("opt/ml/output", "failure", 1024), ("dev/termination-log", "", 4096))


def offered(environment: Mapping[str, str]) -> dict[str, Any]:
    """The settings that the service of this container decides, if any; its own file of settings comes first."""
    container = Container(environment, ROOT)
    given = settings_in(container.document(HYPERPARAMETERS))
    found = {promise.ours: value for promise in PROMISES if (value := keep(promise, container)) is not None}
    return found | given


def keep(promise: Promise, container: Container) -> Any:
    """What the service gives for a promise; UserError where it is not what the service documents."""
    try:
        return promise.read(container)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{promise.theirs} is not what {promise.service} documents: {error!r}") from None


def settings_in(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """SageMaker's hyperparameters without those of its own tools, in our spelling."""
    own = ("sagemaker_", "_tuning_objective_metric")
    ours = {name: value for name, value in hyperparameters.items() if not name.startswith(own)}
    return {name.replace("-", "_").lower(): value for name, value in ours.items()}


def tell_failure(message: str) -> None:
    """Writes why the job failed to where a service shows it to the user."""
    for path, limit in failure_files():
        # The message itself is in the log, whatever becomes of its copy.
        with contextlib.suppress(OSError):
            path.write_bytes(message.encode(errors="backslashreplace")[:limit].decode(errors="ignore").encode())


def forget_failure() -> None:
    """Takes back what was told of a failure that did not come."""
    for path, _ in failure_files():
        with contextlib.suppress(OSError):
            if path.stat().st_size:
                path.write_bytes(b"")


def failure_files() -> Iterator[tuple[Path, int]]:
    """The files in which the service of this container looks for a failure, and how much of them it reads."""
    for place, name, limit in FAILURES:
        if (ROOT / place).exists():
            # Without a name the place is the file itself.
            yield ROOT / place / name, limit

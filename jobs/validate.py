"""Checks filled manifests against the schemas of their services, offline: `python jobs/validate.py FILE ...`.

The schemas are in the services' own packages, which jobs/requirements.txt lists. Watson Machine Learning and Slurm
publish no schema, so that only the syntax of their manifests and Watson's command are checked.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

# The oldest release of Kubernetes whose Jobs have all fields of the manifest.
KUBERNETES = "1.31"


class InvalidManifestError(Exception):
    """The service would refuse the manifest. The message is the reason."""


def main(arguments: list[str]) -> int:
    """Prints a line for each manifest; returns 1 if a manifest is not valid."""
    failed = 0
    for name in arguments:
        path = Path(name)
        try:
            CHECKS[path.name](path)
        except InvalidManifestError as error:
            failed = 1
            print(f"{path}: {error}", file=sys.stderr)
        else:
            print(f"{path}: valid")
    return failed


def check_sagemaker(path: Path) -> None:
    """Raises InvalidManifestError unless botocore's model of SageMaker accepts the input of CreateTrainingJob."""
    validate_aws("sagemaker", "CreateTrainingJob", path)


def check_aws_batch(path: Path) -> None:
    """Raises InvalidManifestError unless botocore's model of AWS Batch accepts the input of RegisterJobDefinition."""
    validate_aws("batch", "RegisterJobDefinition", path)


def validate_aws(service: str, operation: str, path: Path) -> None:
    """Raises InvalidManifestError unless botocore's model of a service accepts the input of an operation."""
    import botocore.session
    from botocore.validate import ParamValidator

    model = botocore.session.get_session().get_service_model(service)
    shape = model.operation_model(operation).input_shape
    report = ParamValidator().validate(json.loads(path.read_text()), shape)
    if report.has_errors():
        raise InvalidManifestError(report.generate_report())


def check_cloud_run(path: Path) -> None:
    """Raises InvalidManifestError unless the protocol buffers of google-cloud-run accept the Job."""
    from google.cloud.run_v2.types import Job

    parse_message(json.loads(path.read_text()), Job)


def parse_message(document: Any, kind: Any) -> None:
    """Raises InvalidManifestError unless a document is a message of one of Google's services."""
    from google.protobuf import json_format

    try:
        json_format.ParseDict(document, kind.pb(kind()))
    except json_format.ParseError as error:
        raise InvalidManifestError(str(error)) from None


def check_vertex_ai(path: Path) -> None:
    """Raises InvalidManifestError unless the protocol buffers of google-cloud-aiplatform accept the CustomJobSpec."""
    from google.cloud.aiplatform_v1.types import CustomJobSpec

    parse_message(yaml.safe_load(path.read_text()), CustomJobSpec)


def check_azure_ml(path: Path) -> None:
    """Raises InvalidManifestError unless azure-ai-ml can load the command job."""
    from azure.ai.ml import load_job
    from azure.ai.ml.exceptions import ValidationException
    from marshmallow import ValidationError

    try:
        load_job(path)
    except (ValidationException, ValidationError) as error:
        raise InvalidManifestError(str(error)) from None


def check_kubernetes(path: Path) -> None:
    """Raises InvalidManifestError unless the Job fits the schemas of kubernetes-validate."""
    validate_object(yaml.safe_load(path.read_text()))


def validate_object(document: Any) -> None:
    """Raises InvalidManifestError unless an object of Kubernetes itself is valid and has no unknown fields."""
    import kubernetes_validate

    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        raise InvalidManifestError(f"{'.'.join(map(str, error.path))}: {error.message}") from None


def check_dask_kubernetes(path: Path) -> None:
    """Raises InvalidManifestError unless the DaskJob fits the operator's own schema and has valid pods."""
    from importlib import metadata

    from jsonschema import Draft7Validator
    from jsonschema.exceptions import best_match

    place = "dask_kubernetes/operator/deployment/helm/dask-kubernetes-operator/crds/daskjob.yaml"
    definition = yaml.safe_load(Path(str(metadata.distribution("dask-kubernetes").locate_file(place))).read_text())
    document = yaml.safe_load(path.read_text())
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    if error := best_match(Draft7Validator(schema).iter_errors(document)):
        raise InvalidManifestError(f"{'.'.join(map(str, error.absolute_path))}: {error.message}")
    cluster = document["spec"]["cluster"]["spec"]
    for spec in (document["spec"]["job"]["spec"], cluster["worker"]["spec"], cluster["scheduler"]["spec"]):
        validate_object({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec})


def check_compose(path: Path) -> None:
    """Raises InvalidManifestError unless the file fits the schema of Docker Compose in check-jsonschema."""
    run(["check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)])


def check_kubeflow(path: Path) -> None:
    """Raises InvalidManifestError unless the TFJob fits the model of kubeflow-training and has valid pods."""
    from kubeflow.training import models

    document = yaml.safe_load(path.read_text())
    refuse_unknown(document, models.KubeflowOrgV1TFJob, models, path.stem)
    for replica in document["spec"]["tfReplicaSpecs"].values():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, **replica["template"]}
        validate_object(pod)
        if "tensorflow" not in [container["name"] for container in pod["spec"]["containers"]]:
            raise InvalidManifestError(
                "no container is called tensorflow: the operator sets TF_CONFIG only in the container of that name"
            )


def refuse_unknown(value: Any, model: Any, models: Any, where: str) -> None:
    """Raises InvalidManifestError for a field that a Kubeflow model lacks. Other models are not checked."""
    names = {json_name: name for name, json_name in model.attribute_map.items()}
    for key, child in value.items():
        if key not in names:
            raise InvalidManifestError(f"{where}.{key} is not a field of {model.__name__}")
        kind = model.openapi_types[names[key]]
        is_map = kind.startswith("dict(str, ")
        nested = getattr(models, kind.removeprefix("dict(str, ").removesuffix(")"), None)
        if nested is not None and nested.__name__.startswith("KubeflowOrg"):
            children = child if is_map else {"": child}
            for name, each in children.items():
                refuse_unknown(each, nested, models, f"{where}.{key}.{name}".rstrip("."))


def check_github_actions(path: Path) -> None:
    """Raises InvalidManifestError unless the workflow fits the schema in check-jsonschema."""
    run(["check-jsonschema", "--builtin-schema", "vendor.github-workflows", str(path)])


def check_slurm(path: Path) -> None:
    """Raises InvalidManifestError if ShellCheck finds an error in the batch script."""
    run(["shellcheck", str(path)])


def check_watson(path: Path) -> None:
    """Raises InvalidManifestError if the command of a training (v4 interface) does not run start.sh.

    No schema is published, so that only the syntax and the command are checked.
    """
    document = json.loads(path.read_text())
    if "./start.sh" not in document["model_definition"]["command"]:
        raise InvalidManifestError("model_definition.command does not run start.sh")


def run(command: list[str]) -> None:
    """Runs a checker from this Python's folder; raises InvalidManifestError with its output if it fails."""
    program = Path(sys.executable).with_name(command[0])
    result = subprocess.run([program, *command[1:]], stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode:
        raise InvalidManifestError(result.stdout.strip())


CHECKS: dict[str, Callable[[Path], None]] = {
    "sagemaker.json": check_sagemaker,
    "vertex-ai.yaml": check_vertex_ai,
    "azure-ml.yaml": check_azure_ml,
    "kubernetes.yaml": check_kubernetes,
    "kubeflow.yaml": check_kubeflow,
    "github-actions.yml": check_github_actions,
    "slurm.sh": check_slurm,
    "watson-machine-learning.json": check_watson,
    "convert-kubernetes.yaml": check_kubernetes,
    "convert-aws-batch.json": check_aws_batch,
    "convert-cloud-run.json": check_cloud_run,
    "convert-slurm.sh": check_slurm,
    "convert-dask-compose.yaml": check_compose,
    "convert-dask-kubernetes.yaml": check_dask_kubernetes,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

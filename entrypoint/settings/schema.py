"""Every setting of the job: name, type, default and meaning. The table in the documentation is made from this module.

A value comes from the command line, else from the environment, else from the training service, else it is the default.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, PlainSerializer, PlainValidator, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from entrypoint.settings import services
from entrypoint.settings.choices import DataFormat, Export, Quantize
from entrypoint.settings.cluster import Cluster
from entrypoint.system import bucket, foreign

MOST_STEPS = 10_000_000
# A folder, or the address of a bucket.
Place = Annotated[Path, PlainValidator(bucket.parse), PlainSerializer(str)]


def listed(choices: Any) -> str:
    """Returns the values of a Literal for a description, without `auto`."""
    return ", ".join(f"`{name}`" for name in get_args(choices) if name != "auto")


def default_work_dir(values: Mapping[str, Any]) -> Path:
    """Returns a folder on local disk for this user only, the same for the same DATA_DIR and RESULT_DIR."""
    # The members of a cluster can be processes on one machine, and each of them needs its own folder.
    member = values["tf_config"].rank if values.get("tf_config") else ""
    place = f"{os.getuid()} {values.get('data_dir')} {values.get('result_dir')} {member}"
    return Path(tempfile.gettempdir()) / f"training-job-{hashlib.sha256(os.fsencode(place)).hexdigest()[:12]}"


def default_model(values: Mapping[str, Any]) -> str:
    """Returns the model that is trained if none is named: one that can learn from where the training starts."""
    is_scratch = values.get("checkpoint") == "none" and values.get("pipeline_config") is None
    return "scratch" if is_scratch else "ssd_mobilenet_v2_fpnlite_320x320"


class Settings(BaseSettings):
    """The settings of one job. They are checked when they are read, and never change afterwards."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_ignore_empty=True)

    data_dir: Place = Field(
        Path("/data"),
        description="bucket with the photos and annotations: the folder where it is mounted, or its address "
        "(`s3://bucket/folder`, `gs://...`, `cos://...`); it may be read-only",
    )
    data_format: DataFormat = Field(
        "auto",
        description=f"format of the annotations: {listed(DataFormat)}; `auto` detects the format",
    )
    empty_photos: Literal["keep", "drop"] = Field(
        "keep", description="use of photos that show no object: `keep` trains on them too, `drop` leaves them out"
    )
    train_image_size: Literal["auto", "original"] | Annotated[int, Field(ge=16, le=16_384)] = Field(
        "auto",
        description="size at which photos are stored for training: `auto` is twice the size of the model's input, a "
        "number is the shorter side in pixels, `original` keeps the size of every photo. Photos are never enlarged, "
        "and a photo is made smaller only if that removes at least half of its pixels",
    )
    records_dir: Place | None = Field(
        None,
        description="folder or address of records: `./start.sh convert` writes them there, and a job trains on these "
        "records and converts no photos",
    )
    result_dir: Place = Field(
        default_factory=lambda values: values["data_dir"] / "results",
        description="place of the results (model, checkpoint, metrics and report): a folder, a mount or an address. "
        "Default: `DATA_DIR/results`",
    )
    checkpoint_dir: Place | None = Field(
        None,
        description="folder or address in which checkpoints are kept during the training. Default: "
        "`RESULT_DIR/checkpoint`, which gets the last two checkpoints in any case",
    )
    tensorboard_dir: Place | None = Field(
        None,
        description="additional folder or address to which TensorBoard's events are copied with every checkpoint",
    )
    tf_config: Annotated[Cluster | None, NoDecode] = Field(
        None, description="machines that train together, in the format of TensorFlow's `TF_CONFIG`; services set it"
    )
    work_dir: Path = Field(
        default_factory=default_work_dir,
        description="local folder for records, the downloaded checkpoint, and checkpoints while they are written. "
        "Default: a folder in the temporary directory, the same for the same `DATA_DIR` and `RESULT_DIR`",
    )
    checkpoint: str = Field(
        "zoo",
        description="checkpoint that training starts from: `zoo`, `none` (training from scratch), a folder, an "
        "archive, or the address of an archive",
    )
    pipeline_config: Path | None = Field(
        None, description="path of your own pipeline.config, to use instead of the model's"
    )
    model: str = Field(
        default_factory=default_model,
        description="name of a model that `./start.sh models` lists; `smoke` is a tiny model that is trained from "
        "scratch, for CI and the demo. Default: `ssd_mobilenet_v2_fpnlite_320x320`, or with `CHECKPOINT=none` and no "
        "`PIPELINE_CONFIG` `scratch`, which learns from random weights",
    )
    num_steps: Literal["auto"] | Annotated[int, Field(ge=1, le=MOST_STEPS)] = Field(
        "auto",
        description="exact number of training steps; it can also be the first word after `start.sh`. `auto` takes as "
        "many as the training photos need. With `MAX_MINUTES`, a number is the most, and `auto` is no limit",
    )
    max_minutes: float | None = Field(
        None,
        gt=0,
        le=100_000,
        description="minutes for the whole job, with evaluation and exports: the first steps are timed, and number of "
        "steps and learning rate are fitted to the time that is left. Default: no limit",
    )
    batch_size: Literal["auto"] | Annotated[int, Field(ge=1, le=65_536)] | None = Field(
        None,
        description="photos per step; `auto` takes the largest batch that fits into memory, tried in processes of "
        "their own. Default: the batch size of the pipeline.config. Another batch size scales the learning rate",
    )
    learning_rate: float | None = Field(
        None,
        gt=0,
        le=100,
        description="peak learning rate. Default: the peak of the pipeline.config, scaled to `BATCH_SIZE`",
    )
    validation_fraction: float = Field(
        0.2,
        ge=0,
        le=0.9,
        description="share of the photos that is kept for validation. A photo stays in its part if photos are added, "
        "except for the few photos that a rare label needs",
    )
    # TensorFlow takes seeds below 2**32. The order of the photos depends on the sum of the seed and a run's first step.
    seed: int = Field(
        42, ge=0, lt=2**31, description="seed of the split, of the order of the records, and of the training"
    )
    oversample: Literal["off", "sqrt"] = Field(
        "off",
        description="`sqrt` shows photos of rare labels more often in training: if a label is on a hundredth as many "
        "photos as the most common label, its photos are shown ten times as often",
    )
    checkpoint_sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="SHA-256 that the archive of the checkpoint must have"
    )
    zoo_url: str = Field(
        "http://download.tensorflow.org/models/object_detection/",
        description="place of the zoo's archives: an address (`http://`, `https://`, `file://`, or of a bucket), or a "
        "folder for sites without network",
    )
    retry_seconds: float = Field(
        600, gt=0, le=86_400, description="seconds for which a download is tried again before the job fails"
    )
    device: Literal["auto", "gpu", "cpu"] = Field(
        "auto",
        description="`gpu` stops the job if there is no GPU, `cpu` uses no GPU, `auto` uses the GPUs that the machine "
        "has",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="number format in which training computes; `bfloat16` is mixed precision, for TF2 models on GPUs "
        "of compute capability 8.0 and above; elsewhere `float32` is used instead",
    )
    evaluate_every: Literal["auto"] | Annotated[int, Field(ge=0, le=MOST_STEPS)] = Field(
        "auto",
        description="steps between two evaluations during the training; `auto` makes three to ten of them, which take "
        "at most a tenth of the training's time, from 100 steps on; `0` evaluates only when the training has ended",
    )
    early_stopping: Literal["off"] | Annotated[int, Field(ge=1, le=10_000)] = Field(
        "off", description="number of evaluations in a row without a better mAP after which the training ends"
    )
    keep: Literal["best", "last"] = Field(
        "best",
        description="checkpoint that is exported: the `best` of the evaluations by mAP, or the `last`",
    )
    augment: Literal["none", "light", "default", "strong"] | None = Field(
        None,
        description="augmentation of the photos: `none`, `light`, `default`, `strong`, which are lists of operations. "
        "Default: that of the pipeline.config. In any case no photo is mirrored if a label tells left from right",
    )
    anchors: Literal["pipeline", "auto"] | None = Field(
        None,
        description="anchors of the model: `pipeline` keeps those of the pipeline.config, `auto` fits scales and "
        "aspect ratios to the boxes of the training photos if those anchors miss boxes of a label. CenterNet has no "
        "anchors and refuses `auto`. Default: `auto` for SSDs that have one head for all maps of a feature pyramid, "
        "such as the default model and EfficientDet; otherwise, and with `PIPELINE_CONFIG`, `pipeline`",
    )
    freeze: Literal["none", "backbone"] = Field(
        "none",
        description="`backbone` leaves the weights and the batch norm of the backbone as the checkpoint has them, and "
        "trains the rest: a step takes less time and memory",
    )
    resume: Literal["auto", "never"] = Field(
        "auto",
        description="`auto` goes on from the newest checkpoint of this training, also with more `NUM_STEPS`, and "
        "stops if it would replace one of a training with other settings that has not ended; `never` starts over, at "
        "every start until the training is done",
    )
    ema: Literal["auto", "off"] = Field(
        "auto",
        description="`auto` averages the weights over the steps, evaluates the averaged weights too in the second half "
        "of the training, and exports them if they are better; `off` does not. On one machine only",
    )
    profile: bool = Field(
        False,
        description="`true`, or `--profile` on the command line: the log says once whether the training waits for its "
        "photos, and TensorBoard's events get a trace of some steps",
    )
    exports: Annotated[tuple[Export, ...], NoDecode] = Field(
        ("saved_model", "tflite"),
        min_length=1,
        description="formats to export the trained model to, separated by commas",
    )
    # TensorFlow Serving reads the name of the folder as an int64.
    serving_version: int | None = Field(
        None,
        ge=1,
        lt=2**63,
        description="version of the model for TensorFlow Serving: the SavedModel is written into "
        "`RESULT_DIR/model/SERVING_VERSION`, and `RESULT_DIR/model` is the base path that TensorFlow Serving loads; "
        "the versions of earlier jobs stay. Default: the SavedModel is in `RESULT_DIR/model` itself",
    )
    quantize: Quantize = Field(
        "none",
        description="smaller exports: `float16` stores the weights of tflite, onnx, openvino and tfjs in half the "
        "bytes; `dynamic` and `int8` are for tflite, in a quarter of the bytes: `dynamic` quantizes the weights, and "
        "`int8` computes in integers too, with ranges measured on training photos. The report has what each export "
        "loses",
    )
    max_skipped: float = Field(
        0.1,
        ge=0,
        le=1,
        description="largest share of missing or unreadable photos that the job skips; it stops if there are more",
    )
    max_repaired: float = Field(
        0.1,
        ge=0,
        le=1,
        description="largest share of boxes that reach out of their photos, or have no area, that the job cuts or "
        "skips; it stops if there are more, because boxes in other units look like this",
    )
    checkpoint_seconds: float = Field(300, ge=0, le=86_400, description="seconds of training between two checkpoints")
    workers: int = Field(
        32,
        ge=1,
        le=1024,
        description="largest number of photos that are read at a time; it is large because reading from a bucket is "
        "mostly waiting. Photos are decoded one per core",
    )

    @field_validator("exports", mode="before")
    @classmethod
    def split_commas(cls, value: Any) -> Any:
        """Splits the text `a,b` into ("a", "b")."""
        return tuple(filter(None, value.replace(" ", "").split(","))) if isinstance(value, str) else value

    @field_validator("tf_config", mode="before")
    @classmethod
    def read_json(cls, value: Any) -> Any:
        """Parses TF_CONFIG. Returns None if it names no cluster or only one machine."""
        with foreign.parsing("TF_CONFIG", "it must be the JSON object that TensorFlow describes"):
            document = json.loads(value) if isinstance(value, str) else value
        members = document.get("cluster") if isinstance(document, dict) else document
        if not isinstance(members, dict):
            return members
        if not all(isinstance(each, list) for each in members.values()):
            raise ValueError("`cluster` must hold a list of addresses for each type of task")
        return document if sum(map(len, members.values())) > 1 else None

    @field_validator("work_dir", "pipeline_config", mode="before")
    @classmethod
    def refuse_addresses(cls, value: Any) -> Any:
        """Refuses addresses: these files must be on local disk."""
        if isinstance(value, str) and "://" in value:
            raise ValueError("it must be a local path, not an address")
        return value

    @field_validator("work_dir", "pipeline_config")
    @classmethod
    def make_absolute(cls, value: Path | None) -> Path | None:
        """Makes a path absolute, because TensorFlow resolves relative paths against the current working directory."""
        return value.absolute() if value else value

    @model_validator(mode="after")
    def refuse_nested_places(self) -> Settings:
        """Raises ValueError if WORK_DIR and a place that files of it are copied to contain one another."""
        work = self.work_dir.resolve()
        for name in ("result_dir", "checkpoint_dir", "tensorboard_dir"):
            place = getattr(self, name)
            other = place.resolve() if place and not bucket.is_remote(place) else None
            if other and (work.is_relative_to(other) or other.is_relative_to(work)):
                raise ValueError(f"WORK_DIR={self.work_dir} and {name.upper()}={place} lie in one another")
        return self

    @model_validator(mode="after")
    def refuse_version_of_nothing(self) -> Settings:
        """Raises ValueError if SERVING_VERSION is set and no SavedModel is written."""
        if self.serving_version is not None and "saved_model" not in self.exports:
            exports = ",".join(self.exports)
            raise ValueError(
                f"SERVING_VERSION={self.serving_version} is the version of a SavedModel, and EXPORTS={exports} writes "
                f"none: set EXPORTS=saved_model,{exports}, or leave SERVING_VERSION out"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the names are pydantic-settings'
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Returns the sources by priority: flags, which come as arguments, the environment, the training service."""
        return init_settings, env_settings, InitSettingsSource(settings_cls, services.offered(os.environ))


NAMES = tuple(Settings.model_fields)

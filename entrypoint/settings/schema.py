"""Every setting of the job: name, type, default, meaning. The README's table is made from here.

Values come from the command line, then the environment, then what the training service tells, then the default.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PlainSerializer, PlainValidator, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from entrypoint.settings import services
from entrypoint.settings.choices import DataFormat, Export
from entrypoint.settings.cluster import Cluster
from entrypoint.system import bucket

# A folder, or the address of a bucket.
Place = Annotated[Path, PlainValidator(bucket.parse), PlainSerializer(str)]


def default_work_dir(values: Mapping[str, Any]) -> Path:
    """A folder on local disk of this user's own, the same whenever the same bucket and results are named."""
    # Members of a cluster can be processes of one machine.
    member = values["tf_config"].rank if values.get("tf_config") else ""
    place = f"{os.getuid()} {values.get('data_dir')} {values.get('result_dir')} {member}"
    return Path(tempfile.gettempdir()) / f"training-job-{hashlib.sha256(os.fsencode(place)).hexdigest()[:12]}"


class Settings(BaseSettings):
    """The settings of one job, checked and never changed afterwards."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_ignore_empty=True)

    data_dir: Place = Field(
        Path("/data"),
        description="the mounted bucket, or its address: `s3://bucket/folder`, `gs://`, `cos://`; may be read-only",
    )
    data_format: DataFormat = Field(
        "auto",
        description="format of the annotations: `cloud_annotations`, `coco`, `pascal_voc`, `yolo`, `create_ml`; `auto` "
        "finds out",
    )
    empty_photos: Literal["keep", "drop"] = Field(
        "keep", description="photos that show no object: `keep` trains on them too, `drop` leaves them out"
    )
    train_image_size: Literal["auto", "original"] | Annotated[int, Field(ge=16, le=16_384)] = Field(
        "auto",
        description="the size at which photos are stored for training, never larger than they are: `auto` is twice the "
        "model's input, a number the shorter side in pixels, `original` keeps every photo's own, as the others do "
        "where less than half of its pixels would go",
    )
    records_dir: Place | None = Field(
        None,
        description="records that `python -m entrypoint.beam` made, a folder or an address; they are trained on, and "
        "nothing is converted",
    )
    result_dir: Place = Field(
        default_factory=lambda values: values["data_dir"] / "results",
        description="what the user keeps: model, checkpoint, metrics and report; a folder, a mount or an address. "
        "Default: `DATA_DIR/results`",
    )
    checkpoint_dir: Place | None = Field(
        None,
        description="where checkpoints are kept while training. Default: `RESULT_DIR/checkpoint`, which gets the last "
        "two in any case",
    )
    tensorboard_dir: Place | None = Field(
        None, description="where TensorBoard's events are copied to as well, with every checkpoint"
    )
    tf_config: Annotated[Cluster | None, NoDecode] = Field(
        None, description="the machines that train together, in TensorFlow's own form; services set it"
    )
    work_dir: Path = Field(
        default_factory=default_work_dir,
        description="records, the downloaded checkpoint, checkpoints while they are written. "
        "Default: a folder of the temporary directory, the same for the same DATA_DIR and RESULT_DIR",
    )
    model: str = Field(
        "ssd_mobilenet_v2_fpnlite_320x320",
        description="a name that `./start.sh models` lists; `smoke` is a tiny model trained from scratch, "
        "for CI and the demo",
    )
    pipeline_config: Path | None = Field(None, description="the user's own pipeline.config instead of ours")
    num_steps: int = Field(
        1000, ge=1, le=10_000_000, description="training steps, exactly that many; also `start.sh`'s first word"
    )
    batch_size: int | None = Field(
        None,
        ge=1,
        le=65_536,
        description="photos per step. Default: the pipeline's. Another one scales the learning rate",
    )
    learning_rate: float | None = Field(
        None, gt=0, le=100, description="peak learning rate. Default: the pipeline's, scaled to BATCH_SIZE"
    )
    validation_fraction: float = Field(
        0.2,
        ge=0,
        le=0.9,
        description="share of the photos kept for validation; a photo stays on its side when others are added, "
        "but for the few that a rare label needs",
    )
    # TensorFlow takes seeds below 2**32. The order of the photos depends on the seed plus the first step of a run.
    seed: int = Field(42, ge=0, lt=2**31, description="seed of the split, the order of the records and the training")
    oversample: Literal["off", "sqrt"] = Field(
        "off",
        description="`sqrt` shows photos of rare labels more often in training: a label on a hundredth as many photos "
        "as the most common one ten times as often",
    )
    checkpoint: str = Field(
        "zoo",
        description="what training starts from: `zoo`, `none` (from scratch), a folder, an archive or its address",
    )
    checkpoint_sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="SHA-256 that the downloaded archive must have"
    )
    zoo_url: str = Field(
        "http://download.tensorflow.org/models/object_detection/",
        description="where the zoo's archives lie: an http(s) or file address, or a folder (for sites without network)",
    )
    retry_seconds: float = Field(600, gt=0, le=86_400, description="how long a download is tried again before it fails")
    device: Literal["auto", "gpu", "cpu"] = Field(
        "auto", description="`gpu` refuses to start without one, `cpu` leaves them alone, `auto` takes what there is"
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="what training computes in; `bfloat16` is mixed precision, for TF2 models on GPUs of compute "
        "capability 8.0 and above, and falls back to `float32` elsewhere",
    )
    exports: Annotated[tuple[Export, ...], NoDecode] = Field(
        ("saved_model", "tflite"), description="formats of the trained model, separated by commas"
    )
    max_skipped: float = Field(
        0.1, ge=0, le=1, description="share of the photos that may be skipped as unreadable before the job stops"
    )
    checkpoint_seconds: float = Field(300, ge=0, le=86_400, description="seconds of training between two checkpoints")
    workers: int = Field(
        32,
        ge=1,
        le=1024,
        description="photos read at a time, since reading a bucket is waiting; they are decoded one per core",
    )

    @field_validator("exports", mode="before")
    @classmethod
    def split_commas(cls, value: Any) -> Any:
        """Takes `a,b` for ("a", "b")."""
        return tuple(filter(None, value.replace(" ", "").split(","))) if isinstance(value, str) else value

    @field_validator("tf_config", mode="before")
    @classmethod
    def read_json(cls, value: Any) -> Any:
        """The document in a text; None for one without a cluster, or of a single machine, which is none."""
        document = json.loads(value) if isinstance(value, str) else value
        members = document.get("cluster") if isinstance(document, dict) else document
        if not isinstance(members, dict):
            return members
        if not all(isinstance(each, list) for each in members.values()):
            raise ValueError("`cluster` must hold a list of addresses for each type of task")
        return document if sum(map(len, members.values())) > 1 else None

    @field_validator("work_dir", "pipeline_config")
    @classmethod
    def make_absolute(cls, value: Path | None) -> Path | None:
        """TensorFlow's own readers resolve relative paths against the working directory of the moment."""
        return value.absolute() if value else value

    @model_validator(mode="after")
    def refuse_nested_places(self) -> Settings:
        """Publishing copies out of WORK_DIR, so that neither it nor where that goes may lie in the other."""
        work = self.work_dir.resolve()
        for name in ("result_dir", "checkpoint_dir", "tensorboard_dir"):
            place = getattr(self, name)
            other = place.resolve() if place and not bucket.is_remote(place) else None
            if other and (work.is_relative_to(other) or other.is_relative_to(work)):
                raise ValueError(f"WORK_DIR={self.work_dir} and {name.upper()}={place} lie in one another")
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
        """Flags, which come as arguments, before the environment, before what the service tells."""
        return init_settings, env_settings, InitSettingsSource(settings_cls, services.offered(os.environ))


NAMES = tuple(Settings.model_fields)

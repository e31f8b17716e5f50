"""Every setting of the job: name, type, default, meaning. The README's table is made from here.

Values come from the command line, then the environment, then what the training service tells, then the default.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, PlainSerializer, PlainValidator, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from entrypoint.data import formats
from entrypoint.settings import services
from entrypoint.settings.cluster import Cluster
from entrypoint.system import bucket
from entrypoint.system.errors import UserError

Export = Literal["saved_model", "tflite"]
# A folder, or the address of a bucket.
Place = Annotated[Path, PlainValidator(bucket.parse), PlainSerializer(str)]


def default_work_dir(values: Mapping[str, Any]) -> Path:
    """A folder on local disk of this user's own, the same whenever the same bucket and results are named."""
    # Members of a cluster can be processes of one machine.
    member = values["tf_config"].rank if values.get("tf_config") else ""
    place = f"{os.getuid()} {values.get('data_dir')} {values.get('result_dir')} {member}"
    return Path(tempfile.gettempdir()) / f"training-job-{hashlib.sha256(place.encode()).hexdigest()[:12]}"


class Settings(BaseSettings):
    """The settings of one job, checked and never changed afterwards."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_ignore_empty=True)

    data_dir: Place = Field(
        Path("/data"),
        description="the mounted bucket, or its address: `s3://bucket/folder`, `gs://`, `cos://`; may be read-only",
    )
    data_format: formats.Name = Field(
        "auto",
        description="format of the annotations: `cloud_annotations`, `coco`, `pascal_voc`, `yolo`, `create_ml`; `auto` "
        "finds out",
    )
    empty_photos: Literal["keep", "drop"] = Field(
        "keep", description="photos that show no object: `keep` trains on them too, `drop` leaves them out"
    )
    train_image_size: Literal["auto", "original"] | Annotated[int, Field(ge=1)] = Field(
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
    num_steps: int = Field(1000, ge=1, description="training steps, exactly that many; also `start.sh`'s first word")
    batch_size: int | None = Field(
        None, ge=1, description="photos per step. Default: the pipeline's. Another one scales the learning rate"
    )
    learning_rate: float | None = Field(
        None, gt=0, description="peak learning rate. Default: the pipeline's, scaled to BATCH_SIZE"
    )
    validation_fraction: float = Field(
        0.2,
        ge=0,
        le=0.9,
        description="share of the photos kept for validation; a photo stays on its side when others are added, "
        "but for the few that a rare label needs",
    )
    seed: int = Field(42, ge=0, description="seed of the split, the order of the records and the training")
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
    retry_seconds: float = Field(600, gt=0, description="how long a download is tried again before it fails")
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
    checkpoint_seconds: float = Field(300, ge=0, description="seconds of training between two checkpoints")
    workers: int = Field(
        32, ge=1, description="photos read at a time, since reading a bucket is waiting; they are decoded one per core"
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


def load(arguments: Sequence[str]) -> tuple[str | None, Settings]:
    """The command (or None for the whole job) and the settings; UserError names what is wrong with them."""
    command, flags = parse_arguments(arguments)
    return command, checked(flags)


def load_with_others(arguments: Sequence[str]) -> tuple[Settings, list[str]]:
    """The settings, and the words of the command line that are none of them, for another program."""
    known, others = build_parser().parse_known_args([normalise_flag(word) for word in arguments])
    if known.command is not None:
        raise UserError(f"{known.command!r} is one word too many: python -m entrypoint.beam [--setting value ...]")
    return checked(given(known)), others


def given(known: argparse.Namespace) -> dict[str, Any]:
    """The settings that the command line gives."""
    return {name: value for name in NAMES if (value := getattr(known, name)) is not None}


def checked(flags: dict[str, Any]) -> Settings:
    """The settings, from flags before the environment; UserError names what is wrong with them."""
    refuse_misspelt_environment(os.environ)
    try:
        values = Settings(**flags)
    except ValidationError as error:
        # What is made out of a value that is refused is no error of its own.
        found = [item for item in error.errors() if item["type"] != "default_factory_not_called"]
        raise UserError("\n".join(explain(item) for item in found)) from None
    services.refuse_unclear_channels(values.model_fields_set)
    return values


def prepare_environment(values: Settings) -> None:
    """What libraries read from the environment when they are imported; what the user set stays."""
    # Keras 2, for which the Object Detection API is written.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    # Errors alone: the rest is about how TensorFlow was built.
    # Of a cluster, it calls every machine that has ended its part a crashed one; what did fail is raised as an error.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if values.tf_config else "2")
    if values.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    # Matplotlib keeps its fonts' list below HOME, which a container may lack.
    os.environ.setdefault("MPLCONFIGDIR", str(values.work_dir / "matplotlib"))


def parse_arguments(arguments: Sequence[str]) -> tuple[str | None, dict[str, Any]]:
    """Reads `[COMMAND | NUM_STEPS] [--setting value ...]`; --batch-size, --batch_size and --BATCH_SIZE are one."""
    parser = build_parser()
    words = [normalise_flag(word) for word in arguments]
    known, unknown = parser.parse_known_args(words)
    for word in unknown:
        name = word.partition("=")[0]
        if not name.startswith("--"):
            raise UserError(f"{name!r} is one word too many: start.sh [NUM_STEPS | STEP] [--setting value ...]")
        raise UserError(f"{name} is no setting of this job.{suggestion(name.lstrip('-'))}")
    flags = given(known)
    first: str | None = known.command
    if first is not None and first.lstrip("-").isdigit():
        if "num_steps" in flags:
            raise UserError(f"NUM_STEPS is given twice: {first} and --num_steps {flags['num_steps']}")
        return None, {**flags, "num_steps": first}
    return first, flags


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line; it gives strings, which Settings converts and checks."""
    parser = Parser(
        prog="start.sh",
        description=__doc__.splitlines()[0],
        epilog="Every setting can also come from an environment variable of its name in capitals.",
        allow_abbrev=False,
        argument_default=None,
    )
    parser.add_argument("command", nargs="?", help="number of steps, a single step of the job, `check` or `models`")
    for name, field in Settings.model_fields.items():
        parser.add_argument(f"--{name}", metavar="VALUE", help=f"{field.description}".replace("%", "%%"))
    parser.add_argument("--json", action="store_true", help="with `check` and `models`: for programs")
    return parser


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises UserError where argparse would print and exit."""

    def error(self, message: str) -> Any:
        """Raises what argparse found wrong."""
        raise UserError(f"command line: {message}; `--help` lists the settings")


def normalise_flag(word: str) -> str:
    """`--Batch-Size=4` as `--batch_size=4`; other words as they are."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return "--" + name[2:].replace("-", "_").lower() + equals + value


def refuse_misspelt_environment(environment: Mapping[str, str]) -> None:
    """UserError where a variable is all but the name of a setting: what it was meant to set would keep its default.

    An environment is full of names that are none of ours, so only long names are compared, and strictly.
    """
    for variable in environment:
        name = variable.lower()
        close = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.9)
        if name not in NAMES and close and len(name) >= 8:
            raise UserError(f"the environment variable {variable} is no setting of this job. {nearest(close[0])}")


def suggestion(name: str) -> str:
    """A sentence with the nearest setting, or one that says where the settings are listed."""
    close = difflib.get_close_matches(name.lower().replace("-", "_"), NAMES, n=1, cutoff=0.5)
    return f" {nearest(close[0])}" if close else " `--help` lists the settings."


def nearest(name: str) -> str:
    """The sentence that proposes a setting."""
    return f"The nearest is {name.upper()}."


def explain(error: Any) -> str:
    """One line for one of pydantic's errors: setting, value, what is expected."""
    if not error["loc"]:
        return str(error["msg"].removeprefix("Value error, "))
    name = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        return f"{name} in /{services.HYPERPARAMETERS} is no setting of this job.{suggestion(name)}"
    allowed = f" (of {', '.join(get_args(Export))})" if name == "exports" else ""
    return f"{name.upper()}={error['input']!r}: {error['msg'].removeprefix('Value error, ')}{allowed}"


def markdown_table() -> str:
    """The settings as a Markdown table, for the README."""
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = field.default if field.default_factory is None else None
        text = ",".join(default) if isinstance(default, tuple) else default
        rows.append(f"| `{name.upper()}` | {'' if text is None else f'`{text}`'} | {field.description} |")
    return "\n".join(rows)

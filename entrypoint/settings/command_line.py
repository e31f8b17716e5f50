"""The command line: a command or a number of steps, and settings. Errors name the setting and its value."""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from entrypoint.settings import parts, services
from entrypoint.settings.choices import Export
from entrypoint.settings.parts import Part
from entrypoint.settings.schema import NAMES, Settings
from entrypoint.system import version
from entrypoint.system.errors import UserError

# The commands that can print JSON for programs.
JSON_COMMANDS = ("check", "models")
# The commands that are no steps of the job.
COMMANDS = ("check", "convert", "models")
# The flags that need no value.
SWITCHES = {f"--{name}" for name, field in Settings.model_fields.items() if field.annotation is bool}


@dataclass(frozen=True)
class Command:
    """A command line after parsing. No name means the whole job."""

    name: str | None
    settings: Settings
    as_json: bool = False
    only: bool = False  # runs the step without the steps that it needs
    page: Path | None = None  # where `check` writes its page; None is RESULT_DIR
    part: Part | None = None  # of the shards that `convert` writes; None is all, and the manifest
    scheduler: str | None = None  # the address of the Dask scheduler by which `convert` has its work done


def load(arguments: Sequence[str]) -> Command:
    """Parses `[COMMAND | NUM_STEPS] [--setting value ...]`. --batch-size, --batch_size and --BATCH_SIZE are one flag.

    Raises:
        UserError: a setting or a word is wrong; the message names it, and the nearest setting.
    """
    known, unknown = build_parser().parse_known_args(normalise_flags(arguments))
    if known.version:
        print(version.describe())
        raise SystemExit(0)
    for word in unknown:
        flag = word.partition("=")[0]
        if not flag.startswith("--"):
            raise UserError(f"{flag!r} is one word too many: start.sh [NUM_STEPS | STEP] [--setting value ...]")
        raise UserError(f"{flag} is not a setting of this job.{suggestion(flag.lstrip('-'))}")
    flags = given(known)
    name: str | None = known.command
    if name == "auto" or (name is not None and name.lstrip("-").isdigit()):
        if "num_steps" in flags:
            raise UserError(f"NUM_STEPS is given twice: {name} and --num_steps {flags['num_steps']}")
        name, flags = None, {**flags, "num_steps": name}
    refuse_foreign_flags(known, name)
    page = Path(known.page).absolute() if known.page else None
    part = parts.parse(known.part, os.environ) if known.part else None
    return Command(name, checked(flags), known.json, known.only, page, part, known.scheduler)


def refuse_foreign_flags(known: argparse.Namespace, name: str | None) -> None:
    """Raises UserError if a flag does not belong to the command of that name."""
    if known.json and name not in JSON_COMMANDS:
        raise UserError(f"--json belongs to {' and '.join(JSON_COMMANDS)}: remove it, or name one of them")
    if known.only and (name is None or name in COMMANDS):
        raise UserError("--only belongs to a step, which it runs without the steps that it needs: name a step")
    if known.page and name != "check":
        raise UserError("--page belongs to check: remove it, or name check")
    if (known.part or known.scheduler) and name != "convert":
        raise UserError("--part and --scheduler belong to convert: remove them, or name convert")
    if known.part and known.scheduler:
        raise UserError("--part and --scheduler are two ways to divide a conversion: give one of them")


def given(known: argparse.Namespace) -> dict[str, Any]:
    """Returns the settings that the command line gives."""
    return {name: value for name in NAMES if (value := getattr(known, name)) is not None}


def checked(flags: dict[str, Any]) -> Settings:
    """Returns the settings. Flags come before the environment. Raises UserError if a setting is wrong."""
    refuse_misspelt_environment(os.environ)
    try:
        values = Settings(**flags)
    except ValidationError as error:
        # A default that depends on a refused value is not a separate error.
        found = [item for item in error.errors() if item["type"] != "default_factory_not_called"]
        raise UserError("; ".join(explain(item) for item in found)) from None
    services.refuse_unclear_channels(values.model_fields_set)
    return values


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line. Its values are strings, which Settings converts and checks."""
    parser = Parser(
        prog="start.sh",
        description="Trains an object detector on the photos in DATA_DIR.",
        epilog="Every setting can also be given by an environment variable with its name in capitals.",
        allow_abbrev=False,
        argument_default=None,
    )
    parser.add_argument(
        "command", nargs="?", help=f"number of training steps or auto, name of a step, or {', '.join(COMMANDS)}"
    )
    for name, field in Settings.model_fields.items():
        words = f"{field.description}".replace("%", "%%")
        parser.add_argument(f"--{name}", metavar="VALUE", help=words)
    parser.add_argument("--json", action="store_true", help="with `check` and `models`: print JSON for programs")
    parser.add_argument("--page", metavar="FILE", help="with `check`: write its page there, and not into RESULT_DIR")
    parser.add_argument("--part", metavar="3/16", help="with `convert`: convert one of so many parts; also auto/16")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="with `convert`: a Dask scheduler, as tcp://host:8786")
    parser.add_argument("--only", action="store_true", help="with a step: run it without the steps that it needs")
    parser.add_argument("--version", action="store_true", help="print release and revision of this program")
    return parser


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises UserError. argparse itself would print the error and exit."""

    def error(self, message: str) -> Any:
        """Raises UserError with argparse's message."""
        raise UserError(f"command line: {message}; `--help` lists the settings")


def normalise_flags(words: Sequence[str]) -> list[str]:
    """Returns the words with their flags as the parser knows them; `--profile` alone becomes `--profile=true`."""
    found = [normalise_flag(word) for word in words]
    for index, word in enumerate(found):
        is_followed = found[index + 1 : index + 2] in (["true"], ["false"])
        if word in SWITCHES and not is_followed:
            found[index] = f"{word}=true"
    return found


def normalise_flag(word: str) -> str:
    """Returns `--Batch-Size=4` as `--batch_size=4`, and a word that is not a flag unchanged."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return "--" + name[2:].replace("-", "_").lower() + equals + value


def refuse_misspelt_environment(environment: Mapping[str, str]) -> None:
    """Raises UserError if the name of a variable is almost that of a setting, which would keep its default.

    An environment is full of names of other programs, so only long names are compared, and strictly.
    """
    for variable in environment:
        name = variable.lower()
        close = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.9)
        if name not in NAMES and close and len(name) >= 8:
            raise UserError(f"the environment variable {variable} is not a setting of this job. {nearest(close[0])}")


def suggestion(name: str) -> str:
    """Returns a sentence with the nearest setting, or a sentence that names `--help` if no setting is near."""
    close = difflib.get_close_matches(name.lower().replace("-", "_"), NAMES, n=1, cutoff=0.5)
    return f" {nearest(close[0])}" if close else " `--help` lists the settings."


def nearest(name: str) -> str:
    """Returns the sentence that proposes a setting."""
    return f"The nearest is {name.upper()}."


def explain(error: Any) -> str:
    """Returns one line for one of pydantic's errors: the setting, its value, and the expected values."""
    if not error["loc"]:
        return str(error["msg"].removeprefix("Value error, "))
    name = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        return f"{name} in /{services.HYPERPARAMETERS} is not a setting of this job.{suggestion(name)}"
    allowed = f" (choose from {', '.join(get_args(Export))})" if name == "exports" else ""
    return f"{name.upper()}={error['input']!r}: {error['msg'].removeprefix('Value error, ')}{allowed}"

"""The command line: a command, or a number of steps, and settings; and every fault of the settings by name."""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import ValidationError

from entrypoint.settings import services
from entrypoint.settings.choices import Export
from entrypoint.settings.schema import NAMES, Settings
from entrypoint.system import version
from entrypoint.system.errors import UserError

# The commands that can print JSON for programs.
JSON_COMMANDS = ("check", "models")


@dataclass(frozen=True)
class Command:
    """What a command line asks for; no name means the whole job."""

    name: str | None
    settings: Settings
    as_json: bool = False
    only: bool = False  # a step without the steps that it needs


def load(arguments: Sequence[str]) -> Command:
    """Reads `[COMMAND | NUM_STEPS] [--setting value ...]`; --batch-size, --batch_size and --BATCH_SIZE are one.

    Raises:
        UserError: a setting or a word is wrong; the message names it, and the nearest right one.
    """
    known, unknown = build_parser().parse_known_args([normalise_flag(word) for word in arguments])
    if known.version:
        print(version.describe())
        raise SystemExit(0)
    for word in unknown:
        flag = word.partition("=")[0]
        if not flag.startswith("--"):
            raise UserError(f"{flag!r} is one word too many: start.sh [NUM_STEPS | STEP] [--setting value ...]")
        raise UserError(f"{flag} is no setting of this job.{suggestion(flag.lstrip('-'))}")
    flags = given(known)
    name: str | None = known.command
    if name is not None and name.lstrip("-").isdigit():
        if "num_steps" in flags:
            raise UserError(f"NUM_STEPS is given twice: {name} and --num_steps {flags['num_steps']}")
        name, flags = None, {**flags, "num_steps": name}
    if known.json and name not in JSON_COMMANDS:
        raise UserError(f"--json belongs to {' and '.join(JSON_COMMANDS)}: remove it, or name one of them")
    if known.only and (name is None or name in JSON_COMMANDS):
        raise UserError("--only belongs to a step, which it runs without the steps that it needs: name one")
    return Command(name, checked(flags), as_json=known.json, only=known.only)


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


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line; it gives strings, which Settings converts and checks."""
    parser = Parser(
        prog="start.sh",
        description="Trains an object detector on the photos in DATA_DIR.",
        epilog="Every setting can also come from an environment variable of its name in capitals.",
        allow_abbrev=False,
        argument_default=None,
    )
    parser.add_argument("command", nargs="?", help="number of steps, a single step of the job, `check` or `models`")
    for name, field in Settings.model_fields.items():
        parser.add_argument(f"--{name}", metavar="VALUE", help=f"{field.description}".replace("%", "%%"))
    parser.add_argument("--json", action="store_true", help="with `check` and `models`: for programs")
    parser.add_argument("--only", action="store_true", help="with a step: without the steps that it needs")
    parser.add_argument("--version", action="store_true", help="print release and revision of this program")
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

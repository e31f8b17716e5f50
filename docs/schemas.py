"""The JSON Schemas of the documents that other programs read: each field is described by the comment beside it."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter

from entrypoint.results.check_report import CheckFailure, CheckReport
from entrypoint.results.metrics_document import MetricsDocument


def schemas() -> dict[str, str]:
    """Returns the text of each schema by the name of its file."""
    kinds = {
        "check.schema.json": ("The document of `check --json`", CheckReport | CheckFailure),
        "metrics.schema.json": ("The document of metrics.json", MetricsDocument),
    }
    return {name: schema(title, kind) for name, (title, kind) in kinds.items()}


def schema(title: str, kind: Any) -> str:
    """Returns the JSON Schema of a document as its file has it."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title}
    body = TypeAdapter(kind).json_schema(mode="serialization")
    for each in dataclasses_in(kind):
        # The document itself has its properties at the top.
        described = body.get("$defs", {}).get(each.__name__, body)
        comments = comments_in(each)
        names = [field.name for field in dataclasses.fields(each)]
        for name, values in zip(names, described["properties"].values(), strict=True):
            if name in comments:
                values["description"] = comments[name]
    return json.dumps(head | body | head, indent=2) + "\n"


def dataclasses_in(kind: Any) -> Iterator[Any]:
    """Yields the dataclasses that a type names, and those that their fields name."""
    if not dataclasses.is_dataclass(kind):
        for each in get_args(kind):
            yield from dataclasses_in(each)
        return
    yield kind
    for hint in get_type_hints(kind).values():
        yield from dataclasses_in(hint)


def comments_in(kind: Any) -> dict[str, str]:
    """Returns the comment above or behind each field that has one, by the field's name; also of inherited fields."""
    found: dict[str, str] = {}
    bases: list[Any] = [base for base in kind.__mro__ if dataclasses.is_dataclass(base)]
    for each in reversed(bases):
        source = inspect.getsource(each)
        lines = source.encode().splitlines()
        (definition,) = ast.parse(source).body
        for node in ast.walk(definition):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                words = [*comment_above(lines, node.lineno), *comment_behind(lines, node)]
                if words:
                    found[node.target.id] = " ".join(words)
    return found


def comment_above(lines: list[bytes], number: int) -> list[str]:
    """Returns the lines of the comment right above a line. Lines are counted from 1."""
    start = number - 1
    while lines[start - 1].lstrip().startswith(b"#"):
        start -= 1
    return [line.decode().strip("# ") for line in lines[start : number - 1]]


def comment_behind(lines: list[bytes], node: ast.AnnAssign) -> list[str]:
    """Returns the comment on the last line of a field, if there is one."""
    rest = lines[(node.end_lineno or node.lineno) - 1][node.end_col_offset :].decode()
    return [rest.partition("#")[2].strip()] if "#" in rest else []

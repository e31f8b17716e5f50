"""Imports between the rooms of `entrypoint/` go one way, and no two modules import each other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT

# Each may import from itself and from those before it.
ORDER = ("system", "settings", "workspace", "zoo", "data", "engines", "training", "results", "top")
SOURCE = ROOT / "entrypoint"


@dataclass(frozen=True)
class Import:
    """A module of the project that another one imports."""

    importer: str
    imported: str
    line: int

    def __str__(self) -> str:
        return f"{self.importer} line {self.line} imports {self.imported}"


def module_of(path: Path, source: Path) -> str:
    parts = path.relative_to(source.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_in(source: Path) -> Iterator[Import]:
    """Every import of a module of the project, those inside functions too."""
    modules = {module_of(path, source) for path in source.rglob("*.py")}
    for path in sorted(source.rglob("*.py")):
        importer = module_of(path, source)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            of = ""
            if isinstance(node, ast.ImportFrom):
                assert not node.level, f"{importer} line {node.lineno}: a relative import"
                of = f"{node.module}."
            for name in (of + alias.name for alias in node.names):
                imported = name if name in modules else name.rpartition(".")[0]
                # A package's module imports its own package, which Python runs first anyway.
                if imported in modules and imported != "entrypoint" and not importer.startswith(f"{imported}."):
                    yield Import(importer, imported, node.lineno)


def room_of(module: str) -> str:
    name = module.split(".")[1]
    return name if name in ORDER else "top"


def upward(found: list[Import]) -> list[str]:
    return [str(each) for each in found if ORDER.index(room_of(each.imported)) > ORDER.index(room_of(each.importer))]


def circles(found: list[Import]) -> list[str]:
    """Chains of imports that lead back to where they began."""
    graph: dict[str, list[Import]] = {}
    for each in found:
        graph.setdefault(each.importer, []).append(each)
    done: set[str] = set()
    result: list[str] = []

    def visit(module: str, chain: list[Import]) -> None:
        for each in graph.get(module, ()):
            if each.imported in [link.importer for link in [*chain, each]]:
                result.append("; ".join(map(str, [*chain, each])))
            elif each.imported not in done:
                visit(each.imported, [*chain, each])
        done.add(module)

    for module in list(graph):
        if module not in done:
            visit(module, [])
    return result


def test_imports_go_one_way_and_in_no_circle() -> None:
    found = list(imports_in(SOURCE))
    assert len(found) > 150
    assert upward(found) == []
    assert circles(found) == []


def test_every_room_says_what_belongs_in_it_and_what_does_not() -> None:
    for room in ORDER:
        if (SOURCE / room).is_dir():
            text = ast.get_docstring(ast.parse((SOURCE / room / "__init__.py").read_text())) or ""
            assert any(word in text for word in ("belongs in", "Nothing in here", "No other room")), room


@pytest.mark.parametrize(
    ("name", "text", "broken"),
    [
        ("system/low.py", "def f():\n    from entrypoint.results import high\n", "system.low line 2 imports"),
        ("settings/low.py", "import entrypoint.workspace\n", "settings.low line 1 imports entrypoint.workspace"),
    ],
)
def test_line_that_breaks_the_rule_is_named(tmp_path: Path, name: str, text: str, broken: str) -> None:
    source = tmp_path / "entrypoint"
    for each in (
        "system/__init__.py",
        "results/__init__.py",
        "settings/__init__.py",
        "results/high.py",
        "workspace.py",
    ):
        (source / each).parent.mkdir(parents=True, exist_ok=True)
        (source / each).write_text("")
    (source / name).write_text(text)
    (line,) = upward(list(imports_in(source)))
    assert broken in line


def test_circle_is_found(tmp_path: Path) -> None:
    source = tmp_path / "entrypoint"
    (source / "data").mkdir(parents=True)
    for name, other in (("a", "b"), ("b", "c"), ("c", "a")):
        (source / "data" / f"{name}.py").write_text(f"from entrypoint.data import {other}\n")
    (circle,) = circles(list(imports_in(source)))
    assert "entrypoint.data.a line 1 imports entrypoint.data.b" in circle

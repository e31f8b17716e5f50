"""What the README, CONTRIBUTING.md and docs/ say of files, commands and settings is so."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from docs import generate
from docs.schemas import schemas
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_readme_is_a_page_and_a_half() -> None:
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize(("page", "name"), generate.parts())
def test_generated_parts_are_those_of_the_code(page: str, name: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert generate.filled(text, name, generate.parts()[page, name]) == text, "run `make docs-generate`"


@pytest.mark.parametrize("name", schemas())
def test_schemas_are_those_of_the_code(name: str) -> None:
    found = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert found == schemas()[name], "run `make docs-generate`"


def test_schema_of_metrics_describes_its_fields() -> None:
    properties = json.loads(schemas()["metrics.schema.json"])["properties"]
    assert properties["step"]["description"] == "of the checkpoint that was evaluated"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pictures_and_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!http|#)([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).is_file(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_of_the_project_are_there(page: Path) -> None:
    folders = "entrypoint|tests|jobs|sdists|docs|pipelines|benchmarks"
    names = re.findall(
        rf"`((?:{folders})/[\w./-]+|[A-Z]+\.md|start\.sh|mkdocs\.yml)`", page.read_text(encoding="utf-8")
    )
    for name in names:
        assert (ROOT / name.rstrip("/")).exists(), f"{page.name}: {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_make_are_targets(page: Path) -> None:
    rules = re.findall(r"^([a-z][a-z -]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    targets = {target for rule in rules for target in rule.split()}
    used = set(re.findall(r"(?:`|^)make ([a-z][a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE))
    assert {name for name in used if not name.startswith("submit-")} <= targets
    assert page.name != "README.md" or {"demo", "test", "install"} <= used


def test_every_manifest_is_in_the_table_of_services() -> None:
    services = (ROOT / "docs" / "services.md").read_text(encoding="utf-8")
    for path in (ROOT / "jobs").iterdir():
        is_manifest = path.is_file() and path.suffix in (".json", ".yaml", ".yml")
        assert not is_manifest or f"`{path.name}`" in services, path


def test_every_fault_names_tests_that_there_are() -> None:
    rows = re.findall(r"^\| \d+ \|.*", (ROOT / "docs" / "faults.md").read_text(), re.MULTILINE)
    assert [int(row.split("|")[1]) for row in rows] == list(range(1, len(rows) + 1))
    assert len(rows) >= 27
    for row in rows:
        tests = re.findall(r"`(tests/\S+\.py)::(\w+)`", row)
        assert tests, row
        for path, name in tests:
            assert f"def {name}(" in (ROOT / path).read_text(), (path, name)

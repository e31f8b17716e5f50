from __future__ import annotations

import re

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_file_of_the_tree_is_there() -> None:
    tree = re.search(r"```\n(start\.sh .*?)```", README, re.DOTALL)
    assert tree is not None
    found = 0
    folder = ROOT
    for line in tree.group(1).splitlines():
        folder = folder if line.startswith(" ") else ROOT
        # Names stand before the first gap of two spaces, several of them with commas between.
        for name in re.split(r", ", re.split(r"\s{2,}", line.strip())[0]):
            assert list(folder.glob(name.split(" ")[0].rstrip("/"))), line
            found += 1
        if line.startswith("entrypoint/"):
            folder = ROOT / "entrypoint"
    assert found > 25


def test_pictures_and_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / target).is_file(), target


def test_commands_of_make_are_targets() -> None:
    rules = re.findall(r"^([a-z][a-z -]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    targets = {target for rule in rules for target in rule.split()}
    used = set(re.findall(r"\bmake ([a-z][a-z-]+)", README))
    assert {"demo", "test", "install"} <= used <= targets


def test_every_manifest_is_in_the_table_of_services() -> None:
    for path in (ROOT / "jobs").iterdir():
        is_manifest = path.is_file() and path.suffix in (".json", ".yaml", ".yml")
        assert not is_manifest or f"`{path.name}`" in README, path


def test_every_fault_names_tests_that_there_are() -> None:
    rows = re.findall(r"^\| \d+ \|.*", (ROOT / "docs" / "faults.md").read_text(), re.MULTILINE)
    assert [int(row.split("|")[1]) for row in rows] == list(range(1, len(rows) + 1))
    assert len(rows) >= 27
    for row in rows:
        tests = re.findall(r"`(tests/\S+\.py)::(\w+)`", row)
        assert tests, row
        for path, name in tests:
            assert f"def {name}(" in (ROOT / path).read_text(), (path, name)

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
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    used = set(re.findall(r"\bmake ([a-z][a-z-]+)", README))
    assert {"demo", "test", "install"} <= used <= targets

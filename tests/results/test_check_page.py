"""The page of `check`: what was found, and photos with their boxes as the job understood them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from entrypoint import check
from entrypoint.data import sizes, units
from entrypoint.data.units import Unit
from entrypoint.results import check_page
from entrypoint.settings.command_line import Command
from tests.conftest import BOX, make_settings, write_bucket

EVIL = '<script>alert("1")</script>'


def page_of(tmp_path: Path, annotations: dict[str, Any], photos: tuple[str, ...]) -> str:
    """The page about a bucket."""
    settings = make_settings(tmp_path, model="smoke")
    write_bucket(settings.data_dir, annotations, photos)
    check.find(Command("check", settings))
    return (tmp_path / "results" / "check.html").read_text()


def shown(page: str) -> list[str]:
    """The keys of the photos on the page, in their order."""
    return re.findall(r'aria-label="([^"]*)"', page)


def test_page_is_self_contained_and_runs_nothing(tmp_path: Path) -> None:
    names = tuple(f"{index} &lt;b&gt;.png" for index in range(10))
    page = page_of(tmp_path, {name: [{**BOX, "label": EVIL}] for name in names}, names)
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") > 10


def test_doubtful_photos_come_first_and_every_label_is_shown(tmp_path: Path) -> None:
    names = tuple(f"{index:03d}.png" for index in range(100))
    annotations = {name: [BOX] for name in names}
    annotations["077.png"] = [{**BOX, "x": -1}]
    annotations["088.png"] = [{**BOX, "label": "rare"}]
    page = page_of(tmp_path, annotations, names)
    found = shown(page)
    assert len(found) == check_page.PHOTOS
    assert "077.png" in found[:6]
    assert "088.png" in found
    assert "box reaching out of the photo, cut to it" in page


def test_page_says_why_the_job_would_stop(tmp_path: Path) -> None:
    names = tuple(f"{index}.png" for index in range(4))
    page = page_of(tmp_path, {name: [BOX] for name in (*names, "gone.png")}, names)
    assert "<h1>The job would stop</h1>" in page
    assert "1 of 5 photos cannot be used" in page


@pytest.mark.parametrize(
    ("kind", "severity"),
    [
        ("photo missing in the bucket, skipped", "doubt"),
        ("photo skipped: damaged or cut off", "doubt"),
        (units.told(Unit.PERCENT), "doubt"),
        (sizes.TURNED, "doubt"),
        (sizes.UPRIGHT, "doubt"),
        (sizes.SCALED, "doubt"),
        (sizes.CROPPED, "doubt"),
        ("box with corners swapped, put in order", "repaired"),
        ("label without a box, left out", "note"),
    ],
)
def test_severity_of_a_finding(kind: str, severity: str) -> None:
    assert check_page.severity_of(kind) == severity

from __future__ import annotations

from pathlib import Path

import pytest

from entrypoint.system import copying
from entrypoint.system.errors import UserError, explain


def test_copy_replaces_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"new")
    (tmp_path / "b").write_bytes(b"older and longer")
    copying.copy_file(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"new"


def test_tree_is_copied_beside_what_the_user_has_there(tmp_path: Path) -> None:
    for name in ("source/a", "source/deep/b", "target/photo.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    written = copying.copy_tree(tmp_path / "source", tmp_path / "target")
    # A server that waits for a file of the outer folder finds the inner ones.
    assert written == [tmp_path / "target" / name for name in ("deep/b", "a")]
    found = {
        path.relative_to(tmp_path / "target").as_posix() for path in (tmp_path / "target").rglob("*") if path.is_file()
    }
    assert found == {"a", "deep/b", "photo.jpg"}


def test_no_space_left_is_not_tried_again_and_names_the_path(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        copying.write_file(Path("/dev/full"), b"x")
    assert "trying again" not in caplog.text
    assert "writing 1 bytes: '/dev/full': free some space" in explain(caught.value)


def test_file_that_is_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").write_text("mine")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "report.html").symlink_to(tmp_path / "thesis.doc")
    with pytest.raises(UserError, match=r"report.html is a link, or lies behind one"):
        copying.write_file(tmp_path / "results" / "report.html", b"x")
    with pytest.raises(UserError, match="remove the link"):
        copying.refuse_links([tmp_path / "results" / "report.html"])
    assert (tmp_path / "thesis.doc").read_text() == "mine"


def test_folder_below_the_results_that_is_a_link_is_not_written_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying._Places, "roots", ())
    (tmp_path / "photos").mkdir()
    (tmp_path / "real").mkdir()
    # Above the results a link is the user's own way to name them.
    (tmp_path / "results").symlink_to(tmp_path / "real")
    (tmp_path / "results" / "model").symlink_to(tmp_path / "photos")
    copying.write_below([tmp_path / "results"])
    with pytest.raises(UserError, match="is a link, or lies behind one"):
        copying.write_file(tmp_path / "results" / "model" / "deep" / "a.jpg", b"x")
    copying.write_file(tmp_path / "results" / "other" / "deep" / "a.jpg", b"x")
    assert list((tmp_path / "photos").iterdir()) == []
    assert (tmp_path / "real" / "other" / "deep" / "a.jpg").read_bytes() == b"x"

"""What processes that share a conversion find in RECORDS_DIR: what is done, what differs, what is damaged."""

import json
from pathlib import Path
from typing import Any

import pytest

from entrypoint import convert
from entrypoint.data import annotations, conversion, label_map, tf_record
from entrypoint.settings.command_line import Command
from entrypoint.settings.parts import Part
from entrypoint.settings.schema import Settings
from entrypoint.system import version
from entrypoint.system.errors import UserError
from entrypoint.workspace import Workspace
from tests.conftest import BOX, make_settings, write_bucket

NAMES = tuple(f"{index}.png" for index in range(20))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A bucket of twenty photos, and an empty RECORDS_DIR in it."""
    write_bucket(tmp_path / "bucket", {name: [BOX] for name in NAMES}, NAMES)
    return make_settings(tmp_path, records_dir=tmp_path / "bucket" / "records", workers=2)


def run(settings: Settings, part: Part | None = None) -> None:
    convert.run(Command("convert", settings, part=part))


def state(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def changed(settings: Settings, **values: Any) -> Settings:
    return Settings(**{**settings.model_dump(), **values})


def test_records_and_manifest_are_those_of_the_step(settings: Settings, tmp_path: Path) -> None:
    run(settings)
    (tmp_path / "work").mkdir()
    work = Workspace(changed(settings, records_dir=None))
    # The step of the job does not take its own records for annotations either.
    (tmp_path / "bucket" / "records").rename(tmp_path / "records")
    for step in (annotations, label_map, tf_record):
        step.run(work)
    found = state(tmp_path / "records")
    assert {name: found[name] for name in state(work.records)} == state(work.records)
    assert found["dataset.json"] == work.dataset.read_bytes()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_parts_make_what_one_process_makes(settings: Settings, tmp_path: Path, order: tuple[int, ...]) -> None:
    run(settings)
    whole = state(tmp_path / "bucket" / "records")
    parts = changed(settings, records_dir=tmp_path / "parts")
    for index in order:
        assert not (tmp_path / "parts" / "manifest.json").exists()
        run(parts, Part(index, 3))
    assert state(tmp_path / "parts") == whole


def test_more_parts_than_shards_are_no_error(settings: Settings, tmp_path: Path) -> None:
    for index in range(30):
        run(settings, Part(index, 30))
    assert (tmp_path / "bucket" / "records" / "manifest.json").exists()


def test_what_is_done_is_not_done_again(settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(settings)
    folder = tmp_path / "bucket" / "records"
    before = state(folder)
    shards = sorted(path.name for path in folder.glob("*.tfrecord"))
    # One shard was not written to its end, the facts of another are half there, those of a third are of other photos.
    (folder / "facts" / f"{shards[0]}.json").unlink()
    (folder / shards[0]).write_bytes(b"half")
    (folder / "facts" / f"{shards[1]}.json").write_text('{"photos": "')
    facts = json.loads((folder / "facts" / f"{shards[2]}.json").read_text())
    (folder / "facts" / f"{shards[2]}.json").write_text(json.dumps({**facts, "photos": "0" * 64}))
    (folder / "manifest.json").unlink()
    caplog.set_level("INFO")
    run(settings)
    assert f"{len(shards) - 3} of {len(shards)} shards are done" in caplog.text
    assert state(folder) == before


def test_other_settings_are_refused_with_the_difference(settings: Settings) -> None:
    run(settings, Part(0, 2))
    for part in (None, Part(1, 2)):
        with pytest.raises(UserError, match="SEED was 42 and is 7: give the settings of before"):
            run(changed(settings, seed=7), part)
        with pytest.raises(UserError, match=r"photos were stored for Storage.* and are now for Storage.*\(MODEL\)"):
            run(changed(settings, model="smoke"), part)


def test_another_release_is_refused_by_the_name_of_the_machine(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(settings, Part(0, 2))
    monkeypatch.setattr(version, "describe", lambda: "2.0.0 (other)")
    with pytest.raises(UserError, match=r"this machine \(.+\) has 2\.0\.0 \(other\): run the same image everywhere"):
        run(settings, Part(1, 2))


def test_photos_that_changed_are_refused_with_the_first_of_them(settings: Settings, tmp_path: Path) -> None:
    run(settings, Part(0, 2))
    bucket = tmp_path / "bucket"
    (bucket / "3.png").write_bytes((bucket / "4.png").read_bytes() + b" ")
    (bucket / "5.png").unlink()
    boxes = {name: [BOX] for name in (*NAMES, "new.png") if name != "5.png"}
    boxes["7.png"] = [{**BOX, "x": 0.3}]
    write_bucket(bucket, boxes, ("new.png",))
    with pytest.raises(UserError, match=r"has changed .*: 1 new \(new\.png\), 1 gone \(5\.png\), 2 changed \(3\.png\)"):
        run(settings)


def test_records_of_another_program_are_not_written_over(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "bucket" / "records"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="holds records that were not begun here"):
        run(settings)
    assert state(folder) == {"manifest.json": b"{}"}


def test_list_that_another_machine_is_writing_is_read_again(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = conversion.begin(settings).conversion
    name, wanted = next(iter(found.shards.items()))
    path = tmp_path / "bucket" / "records" / "photos" / f"{name}.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:10])
    monkeypatch.setattr(conversion.photos_of.retry, "sleep", lambda _: path.write_bytes(whole))  # type: ignore[attr-defined]
    assert len(conversion.photos_of(path.parent.parent, name, wanted)) == wanted.photos
    path.write_bytes(whole[:10])
    monkeypatch.setattr(conversion.photos_of.retry, "sleep", lambda _: None)  # type: ignore[attr-defined]
    with pytest.raises(conversion.StaleListError, match=r"is not the list of conversion\.json"):
        conversion.photos_of(path.parent.parent, name, wanted)


@pytest.mark.parametrize("part", [None, Part(0, 1)])
def test_too_many_broken_photos_stop_the_conversion_without_a_manifest(
    settings: Settings, tmp_path: Path, part: Part | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES[:9]:
        (tmp_path / "bucket" / name).write_bytes(b"no photo")
    with pytest.raises(UserError, match=r"9 of 20 photos cannot be used, more than MAX_SKIPPED=0\.1 allows"):
        run(settings, part)
    assert not (tmp_path / "bucket" / "records" / "manifest.json").exists()
    # Of a large bucket the rest need not be read.
    monkeypatch.setattr(tf_record, "MANY_LOST", 1)
    with pytest.raises(UserError, match=r"[2-9] of 20 photos cannot be used, more than MAX_SKIPPED=0\.1 allows"):
        run(changed(settings, records_dir=tmp_path / "again"), part)


def test_missing_records_dir_is_a_named_error(settings: Settings) -> None:
    with pytest.raises(UserError, match="RECORDS_DIR is missing"):
        run(changed(settings, records_dir=None))

from __future__ import annotations

import errno
import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from aiohttp import ClientConnectorError
from gcsfs.retry import HttpError
from upath import UPath

from entrypoint.data.examples import read_photo
from entrypoint.system import bucket, copying, lease
from entrypoint.system.errors import UserError
from entrypoint.workspace import Workspace
from tests import stores
from tests.conftest import hold_results, make_settings, run_job
from tests.server import Answer, serve


@pytest.fixture(scope="module", params=["s3", "gs"])
def address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A bucket with a few files, by its address."""
    folder = tmp_path_factory.mktemp("files")
    for key in (
        "a.jpg",
        "deep/b c.jpg",
        "deep/ü.jpg",
        ".hidden/x",
        "results/y",
        "results2/z",
        "._a.jpg",
        "__MACOSX/b.jpg",
    ):
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(key.encode())
    start = {"s3": stores.s3, "gs": stores.gcs}[request.param]
    with start() as variables, mock.patch.dict(os.environ, variables):
        stores.upload(folder, f"{request.param}://bucket-of-tests/root")
        yield f"{request.param}://bucket-of-tests/root"


def test_listing_of_a_bucket_equals_that_of_a_folder(address: str, tmp_path: Path) -> None:
    root = bucket.parse(address)
    UPath(address).fs.get(f"{UPath(address).path}/", f"{tmp_path}/", recursive=True)
    there, here = bucket.listing(root, [root / "results"]), bucket.listing(tmp_path, [tmp_path / "results"])
    assert {key: entry.size for key, entry in there.items()} == {key: entry.size for key, entry in here.items()}
    assert set(there) == {"a.jpg", "deep/b c.jpg", "deep/ü.jpg", "results2/z"}
    # Results that go to the bucket itself, or above it, are no reason to see no photo.
    for results, listing in ((root, bucket.listing(root, [root])), (root.parent, bucket.listing(root, [root.parent]))):
        assert {*there, "results/y"} == set(listing), results
    assert bucket.read_head(root / "deep" / "b c.jpg", 4) == b"deep"
    assert bucket.read_head(root / "a.jpg", 1 << 16) == b"a.jpg"


def test_folder_of_others_is_passed_over_and_a_broken_mount_is_not(caplog: pytest.LogCaptureFixture) -> None:
    bucket.pass_over(PermissionError(errno.EACCES, "Permission denied", "/data/lost+found"))
    assert "/data/lost+found may not be read" in caplog.text
    with pytest.raises(OSError, match="Input/output error"):
        bucket.pass_over(OSError(errno.EIO, "Input/output error", "/data/valid"))


def test_link_in_a_circle_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to(tmp_path / "a.jpg")
    assert bucket.listing(tmp_path) == {}


def test_changed_file_has_another_version(address: str) -> None:
    root = bucket.parse(address)
    copying.write_file(root / "changing", b"one")
    first = bucket.listing(root)["changing"].version
    copying.write_file(root / "changing", b"two")
    assert bucket.listing(root)["changing"].version != first
    bucket.remove(root / "changing")
    bucket.remove(root / "changing")
    assert "changing" not in bucket.listing(root)


def test_files_are_read_and_fetched(address: str, tmp_path: Path) -> None:
    root = bucket.parse(address)
    assert bucket.read(root / "deep" / "ü.jpg") == "deep/ü.jpg".encode()
    bucket.fetch(root / "a.jpg", tmp_path / "a.jpg")
    assert (tmp_path / "a.jpg").read_bytes() == b"a.jpg"
    with pytest.raises(FileNotFoundError, match=f"{address}/none"):
        bucket.read(root / "none")


def test_large_file_is_published_whole(address: str, tmp_path: Path) -> None:
    content = os.urandom(1 << 20) * 70  # more than one part of a multipart upload
    (tmp_path / "large").write_bytes(content)
    copying.copy_file(tmp_path / "large", bucket.parse(address) / "large" / "file")
    assert bucket.read(bucket.parse(address) / "large" / "file") == content


def test_lock_keeps_a_second_job_out_of_an_address(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEWAL_SECONDS", 0.3)
    first = Workspace(make_settings(tmp_path, result_dir=f"{address}/locked"))
    (tmp_path / "bucket").mkdir()
    with hold_results(first.results):
        places = {"DATA_DIR": tmp_path / "bucket", "WORK_DIR": tmp_path / "other", "RESULT_DIR": first.results}
        second = run_job("1", MODEL="smoke", **places)
        assert second.returncode == 2
        assert f"RESULT_DIR={first.results} belongs to a running job" in second.stdout
    assert lease.read_claim(first.results / lease.LOCK) is None
    assert list(bucket.listing(first.results)) == []


def test_address_that_looks_like_a_pattern_is_none(address: str) -> None:
    odd, other = bucket.parse(f"{address}/exp[1]"), bucket.parse(f"{address}/exp1")
    for folder in (odd, other):
        copying.write_file(folder / "ckpt-1.json", b"x")
    assert [path.name for path in bucket.matching(odd, "ckpt-*.json")] == ["ckpt-1.json"]
    bucket.remove(odd / "ckpt-1.json")
    assert bucket.matching(odd, "*") == []
    assert bucket.read(other / "ckpt-1.json") == b"x"


def test_missing_bucket_is_named(address: str, tmp_path: Path) -> None:
    scheme = address.partition("://")[0]
    assert not bucket.is_folder(bucket.parse(f"{scheme}://no-such-bucket/x"))
    with (
        pytest.raises(UserError, match=f"{scheme}://no-such-bucket/x: there is no such bucket"),
        hold_results(make_settings(tmp_path, result_dir=f"{scheme}://no-such-bucket/x").result_dir),
    ):
        pass


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (HttpError({"code": 403, "message": "no"}), PermissionError),
        (HttpError({"code": 401, "message": "no"}), PermissionError),
        (OSError("Forbidden: x"), PermissionError),
        (FileNotFoundError("x"), FileNotFoundError),
        (ClientConnectorError(mock.Mock(), OSError(111, "refused")), OSError),
        (RuntimeError("x"), OSError),
    ],
)
def test_whatever_a_client_raises_becomes_an_error_with_the_address(error: Exception, kind: type[OSError]) -> None:
    with pytest.raises(kind, match="s3://bucket/key"), bucket.named_errors(bucket.parse("s3://bucket/key")):
        raise error


def test_outage_is_not_taken_for_a_missing_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    # A server that is not there any more.
    with stores.gcs() as variables:
        pass
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", variables["STORAGE_EMULATOR_HOST"])
    monkeypatch.setattr(bucket, "ATTEMPTS", 1)
    stores.forget_clients()
    with pytest.raises(OSError, match="gs://bucket/x") as caught:
        bucket.is_folder(bucket.parse("gs://bucket/x"))
    assert bucket.is_transient(caught.value)


def test_file_of_s3_is_read_by_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(b"content") as server:
        for name, value in {"AWS_ENDPOINT_URL": server.address, **stores.S3_KEYS}.items():
            monkeypatch.setenv(name, value)
        stores.forget_clients()
        assert bucket.read(bucket.parse("s3://bucket/a.jpg")) == b"content"
        assert [path for path, _ in server.requests] == ["/bucket/a.jpg"]


def test_photo_that_may_not_be_read_any_more_is_not_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    # A server that refuses everything: credentials that ran out are no fault of the photo's.
    with serve(b"", *(Answer(status=403) for _ in range(20))) as server:
        for name, value in {"AWS_ENDPOINT_URL": server.address, **stores.S3_KEYS}.items():
            monkeypatch.setenv(name, value)
        stores.forget_clients()
        with pytest.raises(PermissionError, match=r"s3://bucket/a\.jpg"):
            read_photo(bucket.parse("s3://bucket"), "a.jpg")
        assert server.requests


def test_cloud_object_storage_is_s3_at_an_endpoint() -> None:
    assert str(bucket.parse("cos://bucket/folder/")) == "s3://bucket/folder"


@pytest.mark.parametrize("text", ["ftp://host/x", "s3://", "gs:///x"])
def test_address_of_another_kind_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"neither a folder nor one of s3://, cos://, gs://|name of a bucket"):
        make_settings(tmp_path, data_dir=text)


def test_folder_stays_a_path(tmp_path: Path) -> None:
    assert bucket.parse(str(tmp_path)) == tmp_path
    assert bucket.parse("relative").is_absolute()


def test_missing_credentials_are_named_with_the_mend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    result = run_job("1", DATA_DIR="s3://bucket", WORK_DIR=str(tmp_path / "work"))
    assert result.returncode == 2
    assert "DATA_DIR=s3://bucket/ may not be read (Unable to locate credentials): give the job the" in result.stdout


def test_file_that_becomes_a_link_out_of_the_bucket_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "bucket" / "photos").mkdir(parents=True)
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (tmp_path / "bucket" / "inner.jpg").write_bytes(b"mine")
    (tmp_path / "bucket" / "photos" / "out.jpg").symlink_to(tmp_path / "secret.jpg")
    (tmp_path / "bucket" / "photos" / "in.jpg").symlink_to("../inner.jpg")
    (tmp_path / "bucket" / "elsewhere").symlink_to(tmp_path)
    root = tmp_path / "bucket"
    assert bucket.read(root / "photos" / "in.jpg", root) == b"mine"
    for key in ("photos/out.jpg", "elsewhere/secret.jpg", "../secret.jpg"):
        with pytest.raises(PermissionError, match="is a link out of the bucket"):
            bucket.read(root / key, root)
        with pytest.raises(PermissionError, match="is a link out of the bucket"):
            bucket.read_head(root / key, 9, root)


def test_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "a.jpg").write_bytes(b"x")
    for read in (bucket.read, lambda place: bucket.read_head(place, 9), lambda place: list(bucket.blocks(place))):
        with pytest.raises(PermissionError, match="is not a regular file"):
            read(tmp_path / "pipe.jpg")
    assert list(bucket.listing(tmp_path)) == ["a.jpg"]


def test_file_of_any_size_is_not_read_into_memory(tmp_path: Path) -> None:
    with (tmp_path / "sparse.jpg").open("wb") as file:
        file.truncate(6 << 30)
    with pytest.raises(OSError, match="has 6,442,450,944 bytes") as caught:
        bucket.read(tmp_path / "sparse.jpg")
    assert not bucket.is_transient(caught.value)


def test_small_file_takes_little_memory(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"1" * 1000)
    tracemalloc.start()
    try:
        assert bucket.read(tmp_path / "a.jpg") == b"1" * 1000
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()


def test_file_whose_filesystem_does_not_know_the_size_is_read_up_to_the_limit() -> None:
    place = Path("/proc/version")
    assert place.stat().st_size == 0
    assert bucket.read(place) == place.read_bytes()
    assert bucket.read(place, limit=10) == place.read_bytes()[:10]

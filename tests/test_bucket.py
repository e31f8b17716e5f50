from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from upath import UPath

from entrypoint import bucket, publish
from entrypoint.errors import UserError
from entrypoint.workspace import Workspace
from tests import stores
from tests.conftest import make_settings, run_job


@pytest.fixture(scope="module", params=["s3", "gs"])
def address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A bucket with a few files, by its address."""
    folder = tmp_path_factory.mktemp("files")
    for key in ("a.jpg", "deep/b c.jpg", "deep/ü.jpg", ".hidden/x", "results/y", "results2/z"):
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(key.encode())
    start = {"s3": stores.s3, "gs": stores.gcs}[request.param]
    with start() as variables, mock.patch.dict(os.environ, variables):
        stores.upload(folder, f"{request.param}://bucket-of-tests/root")
        yield f"{request.param}://bucket-of-tests/root"


def test_listing_of_a_bucket_equals_that_of_a_folder(address: str, tmp_path: Path) -> None:
    root = bucket.parse(address)
    UPath(address).fs.get(f"{UPath(address).path}/", f"{tmp_path}/", recursive=True)
    there, here = bucket.listing(root, root / "results"), bucket.listing(tmp_path, tmp_path / "results")
    assert {key: entry.size for key, entry in there.items()} == {key: entry.size for key, entry in here.items()}
    assert set(there) == {"a.jpg", "deep/b c.jpg", "deep/ü.jpg", "results2/z"}


def test_changed_file_has_another_version(address: str) -> None:
    root = bucket.parse(address)
    publish.write_file(root / "changing", b"one")
    first = bucket.listing(root)["changing"].version
    publish.write_file(root / "changing", b"two")
    assert bucket.listing(root)["changing"].version != first
    publish.remove(root / "changing")
    publish.remove(root / "changing")
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
    publish.copy_file(tmp_path / "large", bucket.parse(address) / "large" / "file")
    assert bucket.read(bucket.parse(address) / "large" / "file") == content


def test_lock_keeps_a_second_job_out_of_an_address(address: str, tmp_path: Path) -> None:
    first = Workspace(make_settings(tmp_path, result_dir=f"{address}/locked"))
    with publish.lock(first):
        claim = json.loads(bucket.read(first.results / publish.LOCK))
        other = {**claim, "pid": 1, "token": "another", "namespace": "another"}
        with pytest.raises(UserError, match="belongs to a running job"):
            publish.refuse_other_owner(publish.read_claim(first.results / publish.LOCK), other, first.results)
    assert publish.read_claim(first.results / publish.LOCK) is None
    assert list(bucket.listing(first.results)) == []


def test_missing_bucket_is_named(address: str, tmp_path: Path) -> None:
    scheme = address.partition("://")[0]
    assert not bucket.is_folder(bucket.parse(f"{scheme}://no-such-bucket/x"))
    with (
        pytest.raises(UserError, match=f"{scheme}://no-such-bucket/x: there is no such bucket"),
        publish.lock(Workspace(make_settings(tmp_path, result_dir=f"{scheme}://no-such-bucket/x"))),
    ):
        pass


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

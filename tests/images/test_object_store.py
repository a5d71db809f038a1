"""Addresses of object stores, and what needs no server; `tests/s3` has what does."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from featurestore.errors import DatasetError, MissingDependency
from featurestore.images import image_at, is_container, located_images, open_source, source_at
from tests.small import invoke


@pytest.mark.parametrize("given", ["s3://bucket/a/b", "s3://bucket/a/b/", "s3://bucket//a/b//"])
def test_an_address_is_no_path(given: str, tmp_path: Path) -> None:
    assert located_images(given, tmp_path) == "s3://bucket/a/b"
    assert not is_container("s3://bucket/images.zip")
    assert os.fspath(image_at("s3://bucket/a", "c/d.jpg")) == "s3://bucket/a/c/d.jpg"


@pytest.mark.parametrize("where", ["s3://bucket/a", "gs://bucket", "az://container/a"])
def test_one_class_for_every_service(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    first = source_at(where)
    assert source_at(where) is first, "a process opens it once"
    assert first.where == where


def test_a_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("obstore", "obstore.store", "obstore.exceptions"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependency, match=r"^s3://b/p needs a package .* pip install 'featurestore\[s3\]'$"):
        open_source("s3://b/p")
    result = invoke("init", tmp_path / "store", "--images", "s3://b/p")
    assert isinstance(result.exception, MissingDependency)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("s3:///prefix", "names no bucket; write it like s3://bucket/prefix"),
        ("s3://bucket/wikiart.zip", "is a file of images in an object store, .* copy it to this machine"),
        ("s3://bucket/wikiart.tar.gz", "is a file of images in an object store"),
        ("az://container/a", "can't be used with the settings of the environment: .*[Aa]ccount must be"),
    ],
)
def test_what_is_refused(where: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(DatasetError, match=reason):
        open_source(located_images(where))


def test_a_service_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("featurestore.system.object_store.RETRIES", 1)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    result = invoke("init", tmp_path / "store", "--images", "s3://bucket/p")
    assert isinstance(result.exception, DatasetError)
    said = str(result.exception)
    assert said.startswith("s3://bucket/p can't be listed (no connection to http://127.0.0.1:9: Connection refused)")
    assert said.endswith("see docs/sources.md, or give another address to --images")
    assert "secret" not in said
    assert "\n" not in said

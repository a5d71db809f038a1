"""Partitions in the store's folder."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from featurestore.storage import Root
from featurestore.storage.partitions import FolderPartitions, Partitions, RemotePath
from tests.storage.partitions_suite import NAME, PartitionsSuite, put


class TestFolder(PartitionsSuite):
    """The suite, of a folder."""

    @pytest.fixture
    def partitions(self, tmp_path: Path) -> Partitions:
        """A keeper without files."""
        return FolderPartitions(tmp_path)


def test_a_listing_leaves_out_temporary_files(tmp_path: Path) -> None:
    partitions = FolderPartitions(tmp_path)
    put(partitions, tmp_path, NAME, b"1")
    (tmp_path / NAME).with_name(".tmp-0123456789ab-x.parquet").touch()
    assert partitions.names("partitions", "") == ([NAME], [])


class Elsewhere(FolderPartitions):
    """Partitions that are in another folder, and have no paths there."""

    is_local = False

    def at(self, name: str) -> RemotePath:  # type: ignore[override]
        """Return the place of a file."""
        return RemotePath(self, name)


def test_a_root_asks_the_keeper_for_partitions_alone(tmp_path: Path) -> None:
    there = Elsewhere(tmp_path / "there")
    root = Root(tmp_path / "here", there)
    for name in (NAME, "models/fit_pca/0123456789abcdef/x.npz"):
        put(there, tmp_path / "there", name, b"1")
    assert root.files("partitions", "") == [NAME]
    assert root.files("models", "") == []
    assert root.at(NAME) == RemotePath(there, NAME)
    assert root.at("partitions.npz") == tmp_path / "here/partitions.npz"
    assert root.state(NAME) == there.state(NAME) is not None
    assert root.name_of(str(root.at(NAME))) == NAME
    assert pickle.loads(pickle.dumps(root)).partitions == root.absolute().partitions == there

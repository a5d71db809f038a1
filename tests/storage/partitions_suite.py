"""What every keeper of partitions promises. A subclass has a fixture ``partitions``, a keeper without files."""

from __future__ import annotations

import hashlib
import pickle
import time
from pathlib import Path

import numpy as np
import pytest

from featurestore.storage import PartitionFile, Places, is_there, open_hashed
from featurestore.storage.partitions import Partitions
from tests.storage.test_partition import PLAIN, RICH, assert_same, rows_of, write

NAME = "partitions/extract/0123456789abcdef/chunk-000000-0123456789abcdef.parquet"
DATA = bytes(range(256)) * 1000


class PartitionsSuite:
    """The suite."""

    @pytest.fixture
    def kept(self, partitions: Partitions, tmp_path: Path) -> Partitions:
        """A keeper with one file."""
        put(partitions, tmp_path, NAME, DATA)
        return partitions

    def test_a_file_that_was_put_is_there_and_the_draft_is_gone(self, kept: Partitions, tmp_path: Path) -> None:
        state = kept.state(NAME)
        assert state is not None
        assert state.size == len(DATA)
        assert abs(state.modified_ns / 1e9 - time.time()) < 600
        assert is_there(kept.at(NAME))
        assert [path for path in tmp_path.rglob(".tmp-*") if path.is_file()] == []

    def test_a_file_is_read_at_random(self, kept: Partitions) -> None:
        with kept.open(NAME) as file:
            assert file.size() == len(DATA)
            assert file.read() == DATA
            assert file.read_at(300, 1000) == DATA[1000:1300]

    def test_the_digest_is_that_of_the_bytes(self, kept: Partitions) -> None:
        assert kept.digest(NAME) == kept.checksum(NAME) == hashlib.sha256(DATA).hexdigest()

    def test_a_file_that_is_read_in_order_is_hashed(self, kept: Partitions) -> None:
        with open_hashed(kept.at(NAME)) as file:
            assert file.read(1000) == DATA[:1000]
            file.seek(2000)
            assert file.read(1000) == DATA[2000:3000]
            file.seek(-8, 2)
            assert file.read() == DATA[-8:]
            assert file.hexdigest() == hashlib.sha256(DATA).hexdigest()

    def test_the_listing_has_the_files_of_a_folder_and_their_states(self, kept: Partitions, tmp_path: Path) -> None:
        other = "partitions/quantize/0123456789abcdef/index-000000.parquet"
        put(kept, tmp_path, other, b"1234")
        found, failed = kept.list("partitions", ".parquet")
        assert failed == []
        assert {name: state.size for name, state in found.items()} == {NAME: len(DATA), other: 4}
        assert found[NAME] == kept.state(NAME)
        assert kept.names("partitions/quantize", "") == ([other], [])
        assert kept.names("partitions", ".npz") == ([], [])
        assert kept.names("partitions/quant", "") == ([], [])  # a folder, and no prefix of one

    def test_a_file_that_is_not_there(self, partitions: Partitions) -> None:
        assert partitions.state(NAME) is None
        assert not is_there(partitions.at(NAME))
        assert partitions.list("partitions", "") == ({}, [])
        for read in (partitions.open, partitions.digest):
            with pytest.raises(FileNotFoundError):
                read(NAME)
        partitions.remove(NAME)

    def test_a_removed_file_is_gone(self, kept: Partitions) -> None:
        kept.remove(NAME)
        assert kept.state(NAME) is None

    def test_a_partition_is_read_as_it_was_written(self, partitions: Partitions, tmp_path: Path) -> None:
        rows, draft = rows_of(RICH), tmp_path / ".tmp-000000000000-draft"
        writer = write(draft, rows, RICH)
        (tmp_path / NAME).parent.mkdir(parents=True)
        partitions.put(draft, NAME)
        for hashed in (False, True):
            with PartitionFile(partitions.at(NAME), hashed=hashed) as file:
                for one, other in zip(rows, file.rows(), strict=True):
                    assert_same(one, other, RICH)
                assert not hashed or file.checksum() == writer.checksum == partitions.digest(NAME)

    def test_single_rows_of_a_partition_are_those_that_were_written(
        self, partitions: Partitions, tmp_path: Path
    ) -> None:
        rows, draft = rows_of(PLAIN), tmp_path / ".tmp-000000000000-draft"
        write(draft, rows, PLAIN)
        (tmp_path / NAME).parent.mkdir(parents=True)
        partitions.put(draft, NAME)
        places = Places(np.array([row.n_descriptors for row in rows]))
        target = np.empty(rows[1].descriptors.size, np.uint8)  # type: ignore[union-attr]
        with PartitionFile(partitions.at(NAME)) as file:
            assert np.array_equal(file.descriptors(0, 2), rows[2].descriptors)  # type: ignore[arg-type]
            assert file.descriptors(0, 6) is None
            found = file.keypoints(0, 2, places)
            assert found is None or np.array_equal(found, rows[2].keypoints)  # type: ignore[arg-type]
            copied = file.copy_descriptors(0, [1], [target])
            assert not copied or np.array_equal(target, rows[1].descriptors.reshape(-1))  # type: ignore[union-attr]

    def test_it_can_be_pickled_and_is_the_same_afterwards(self, kept: Partitions) -> None:
        again = pickle.loads(pickle.dumps(kept))
        assert again == kept
        assert hash(again.at(NAME)) == hash(kept.at(NAME))
        assert str(again.at(NAME)) == f"{kept.where}/{NAME}"
        assert again.at(NAME).name == NAME.rpartition("/")[2]
        assert again.state(NAME) == kept.state(NAME)


def put(partitions: Partitions, folder: Path, name: str, data: bytes) -> None:
    """Publish bytes; the draft is where a store would have it."""
    draft = folder / name
    draft.parent.mkdir(parents=True, exist_ok=True)
    draft = draft.with_name(".tmp-000000000000-draft")
    draft.write_bytes(data)
    partitions.put(draft, name)

"""What can't be read is not damaged, whichever library says so; what is damaged is."""

from __future__ import annotations

import errno
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.errors import CorruptFile, FeatureStoreError, NotEnoughSpace, UnreadableFile
from featurestore.storage import PartitionFile, read_arrays, write_arrays
from featurestore.system import (
    file_digest,
    file_size,
    files_below,
    is_file,
    is_folder,
    readable,
    reason_unreadable,
    status_of,
)
from tests.faults import EIO, forbidden, no_open_files
from tests.small import Unlocked

Read = Callable[[Path], Any]
READERS: dict[str, Read] = {
    "python": Path.read_bytes,
    "zipfile": zipfile.ZipFile,
    "parquet": pq.ParquetFile,
    "duckdb": lambda path: duckdb.connect(path, read_only=True),
    "numpy": np.load,
}


def files(folder: Path) -> dict[str, Path]:
    """A whole file for each reader."""
    paths = {name: folder / f"{name}.file" for name in READERS}
    paths["python"].write_bytes(b"bytes")
    paths["zipfile"].write_bytes(b"PK\5\6" + bytes(18))
    pq.write_table(pa.table({"a": [1]}), paths["parquet"])
    duckdb.connect(paths["duckdb"]).close()
    with paths["numpy"].open("wb") as file:
        np.save(file, np.arange(3))
    return paths


@pytest.mark.parametrize("reader", READERS)
def test_a_file_of_another_user_is_unreadable(tmp_path: Path, reader: str) -> None:
    path = files(tmp_path)[reader]
    with (
        forbidden(path),
        pytest.raises(UnreadableFile, match=r"\.file can't be read: Permission denied"),
        readable(path),
    ):
        READERS[reader](path)
    READERS[reader](path)


@pytest.mark.parametrize("reader", READERS)
def test_a_limit_of_open_files_is_not_damage(tmp_path: Path, reader: str) -> None:
    path = files(tmp_path)[reader]
    READERS[reader](path)  # so that nothing is imported where nothing can be opened
    with no_open_files(), pytest.raises(UnreadableFile, match=r"Too many open files.*ulimit -n"), readable(path):
        READERS[reader](path)


def test_a_failing_disk_is_not_damage(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.symlink_to(EIO)
    with pytest.raises(UnreadableFile, match="Input/output error"):
        file_digest(path)


def test_what_zipfile_keeps_to_itself_is_found() -> None:
    """It calls a file that can't be read "not a zip file"."""

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(UnreadableFile, match="Input/output error"), readable(Path("x")):
        zipfile.ZipFile(Failing(bytes(100)))


def out_of_memory() -> dict[str, Callable[[], Any]]:
    with_limit: dict[str, Any] = {"memory_limit": "1MB", "threads": 1}
    return {
        "numpy": lambda: np.empty(1 << 60, np.uint8),
        "arrow": lambda: pa.allocate_buffer(1 << 60),
        "duckdb": lambda: duckdb.connect(config=with_limit).sql("SELECT list(range) FROM range(1000000)").fetchall(),
    }


@pytest.mark.parametrize("library", ["numpy", "arrow", "duckdb"])
def test_too_little_memory_is_not_damage(library: str) -> None:
    with pytest.raises(UnreadableFile, match="Cannot allocate memory"), readable(Path("x")):
        out_of_memory()[library]()


def test_a_thread_that_can_not_be_started_is_not_damage() -> None:
    with pytest.raises(UnreadableFile, match=r"thread.*ulimit -u"), readable(Path("x")):
        raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("reader", sorted(READERS.keys() - {"python"}))
def test_what_is_damaged_is_left_to_the_reader(tmp_path: Path, reader: str) -> None:
    path = files(tmp_path)[reader]
    path.write_bytes(bytes(1000))
    with pytest.raises((OSError, ValueError, duckdb.Error, zipfile.BadZipFile)) as caught, readable(path):
        READERS[reader](path)
    assert reason_unreadable(caught.value) is None


def test_what_is_not_there_is_not_unreadable(tmp_path: Path) -> None:
    for reader in (pq.ParquetFile, zipfile.ZipFile, np.load, Path.read_bytes):
        with pytest.raises(FileNotFoundError), readable(tmp_path / "nothing"):
            reader(tmp_path / "nothing")
    assert status_of(tmp_path / "nothing") is None
    assert not is_file(tmp_path / "nothing" / "below")
    assert not is_folder(tmp_path / "nothing")
    assert files_below(tmp_path / "nothing") == ([], [])


def test_our_own_errors_pass() -> None:
    for error in (CorruptFile("x"), NotEnoughSpace("x"), UnreadableFile("x")):
        with pytest.raises(FeatureStoreError) as caught, readable(Path("x")):
            raise error
        assert caught.value is error


def test_whether_a_file_is_there_is_not_guessed(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").touch()
    assert is_file(folder / "file")
    assert is_folder(folder)
    assert not is_folder(folder / "file")
    with forbidden(folder):
        for ask in (is_file, is_folder, status_of, file_size):
            with pytest.raises(UnreadableFile, match="Permission denied"):
                ask(folder / "file")


def test_a_folder_that_can_not_be_listed_is_not_an_empty_one(tmp_path: Path) -> None:
    for name in ("a/1.parquet", "b/2.parquet", "b/.tmp-0123456789ab-3.parquet"):
        (tmp_path / "models" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "models" / name).touch()
    root = Unlocked(tmp_path)
    assert root.files("models", ".parquet") == ["models/a/1.parquet", "models/b/2.parquet"]
    with forbidden(tmp_path / "models" / "a"):
        names, failed = root.listing("models", ".parquet")
        assert names == ["models/b/2.parquet"]
        assert [str(error).split(";")[0] for error in failed] == [
            f"{tmp_path / 'models' / 'a'} can't be read: Permission denied"
        ]
        with pytest.raises(UnreadableFile):
            root.files("models", ".parquet")
        root.remove_empty_folders()
        assert root.sweep() == ["models/b/.tmp-0123456789ab-3.parquet"]
    assert (tmp_path / "models" / "a" / "1.parquet").exists()


def test_a_model_and_a_partition_that_can_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_arrays(path, {"a": np.arange(3)}, {})
    for read in (read_arrays, PartitionFile):
        with forbidden(path), pytest.raises(UnreadableFile, match="Permission denied"):
            read(path)
        with no_open_files(), pytest.raises(UnreadableFile, match="Too many open files"):
            read(path)


def test_a_header_that_exhausts_the_parser_is_damage(tmp_path: Path) -> None:
    """Python says that memory is out where an expression is nested too deeply."""
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {'-' * 9000}1}}\n".encode()
    with zipfile.ZipFile(tmp_path / "file", "w") as file:
        file.writestr("a.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(CorruptFile):
        read_arrays(tmp_path / "file")

"""The notebook's chunk files, ``sift_chunk_*.npz``: descriptors and filenames as pickled object arrays.

They are read image by image, and no code in them is run: see `featurestore.exchange.importers.pickle_reader`.
"""

from __future__ import annotations

import lzma
import struct
import tokenize
import zipfile
import zlib
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from featurestore.errors import CorruptFile, DatasetError
from featurestore.exchange.importers.pickle_reader import LARGEST, Bounded, Empty, read_objects
from featurestore.system import readable
from featurestore.wording import first_line

DESCRIPTORS = "descriptors_list"
FILENAMES = "filenames"
DIM = 128
LONGEST_REASON = 500  # characters of an error that may quote a header of 10,000
MOST_NAME_BYTES = 256 << 20  # bytes of all filenames of a file: a million of them, at NumPy's four bytes a character

# Damage as NumPy and zipfile report it, and what unpacks its members.
_BAD = (
    *(OSError, EOFError, ValueError, RuntimeError, SyntaxError, tokenize.TokenError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
)


class NotebookFile:
    """One of the notebook's files. Opening it reads only the table of its members."""

    def __init__(self, path: Path) -> None:
        """Take the file at ``path``.

        Raises:
            CorruptFile: it is missing or not an npz file.
            UnreadableFile: it can't be opened or read.
            DatasetError: it is an npz file of something else.
        """
        self.path = path
        with self._refusing(), zipfile.ZipFile(path) as file:
            held = [name.removesuffix(".npy") for name in file.namelist()]
        if not {DESCRIPTORS, FILENAMES} <= set(held):
            raise DatasetError(
                f"{path.name} holds {', '.join(held[:5]) or 'nothing'}, and a chunk file of the notebook holds "
                f"{DESCRIPTORS} and {FILENAMES}; move it to another folder, and run the same command again"
            )

    def filenames(self) -> list[str]:
        """Return the filenames, in the order of the images. The descriptors are not touched.

        Raises:
            CorruptFile: the file is damaged, or holds more than text.
        """
        with self._member(FILENAMES, MOST_NAME_BYTES) as (file, shape, dtype):
            if len(shape) != 1:
                raise ValueError(f"{FILENAMES} has the shape {shape}, and should be a list")
            if dtype.kind == "O":
                names = list(read_objects(file, shape))
            elif dtype.kind in "US" or shape == (0,):  # NumPy gives an empty list a numeric dtype
                names = _plain(file, shape, dtype).tolist()
            else:
                raise ValueError(f"{FILENAMES} is of {dtype}, and should be text")
            return [_text(name) for name in names]

    def descriptors(self, filenames: Sequence[str]) -> Iterator[NDArray[Any] | None]:
        """Yield the descriptors of each image, ``(n, 128)`` of whichever numbers were saved, or None; one at a time.

        NumPy makes two or three dimensions out of arrays of one shape; that is undone. For an image without
        keypoints notebooks keep an empty array of any shape, or an empty list: here it has 0 rows.

        Args:
            filenames: of the images, in their order.

        Raises:
            CorruptFile: the file is damaged, holds more than arrays, or not as many as there are filenames.
            DatasetError: the arrays are not SIFT descriptors.
        """
        with self._member(DESCRIPTORS, None) as (file, shape, dtype):
            empties = len(shape) == 2 and not shape[1]
            if (len(shape) not in (1, 3) and not empties) or shape[0] != len(filenames):
                raise ValueError(f"{DESCRIPTORS} has the shape {shape}, and there are {len(filenames):,} filenames")
            if len(shape) == 1 and dtype.kind != "O" and shape[0]:
                raise ValueError(f"{DESCRIPTORS} is of {dtype}, and should be arrays")
            found = _images(file, shape, dtype)
            for name in filenames:
                with _naming(name):
                    image = next(found)
                yield self._checked(image, name)
            with _naming(filenames[-1] if filenames else ""):
                goes_on = next(found, found) is not found  # the end of the pickle has to make sense too
            if goes_on:
                raise ValueError(f"{DESCRIPTORS} goes on after the last image")

    def _checked(self, descriptors: Any, name: str) -> NDArray[Any] | None:
        if descriptors is None:
            return None
        if isinstance(descriptors, Empty):
            return np.empty((0, DIM), np.uint8)
        if not isinstance(descriptors, np.ndarray) or descriptors.dtype.kind not in "fiu":
            raise ValueError(f"{DESCRIPTORS} holds something that is not numbers, at the image {name!r}")
        if not descriptors.size:
            return np.empty((0, DIM), np.uint8)
        if descriptors.ndim != 2:
            raise ValueError(f"{DESCRIPTORS} holds something that is not a matrix of numbers, at the image {name!r}")
        if descriptors.shape[1] != DIM:
            raise DatasetError(
                f"{self.path.name} holds descriptors of {descriptors.shape[1]} values, at the image {name!r}, and those"
                f" of SIFT are of {DIM}; import-npz reads the files that the notebook wrote first, sift_chunk_*.npz, "
                "from before the PCA"
            )
        return descriptors

    @contextmanager
    def _member(self, name: str, most: int | None) -> Iterator[tuple[Bounded, tuple[int, ...], np.dtype[Any]]]:
        with self._refusing(), zipfile.ZipFile(self.path) as archive:
            info = archive.getinfo(f"{name}.npy")
            if most is not None and info.file_size > most:
                raise ValueError(f"{name} claims {info.file_size:,} bytes")
            with archive.open(info) as member:
                file = Bounded(member, info.file_size)
                shape, fortran, dtype = _header(file)
                if fortran and len(shape) > 1:
                    raise ValueError(f"{name} is in Fortran's order")
                yield file, shape, dtype

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            with readable(self.path):
                yield
        except _BAD as error:
            raise CorruptFile(
                f"{self.path.name} can't be read as a chunk file of the notebook: {first_line(error, LONGEST_REASON)}. "
                "Nothing in it was run; put back a copy of it, or move it to another folder and let run extract its "
                "images"
            ) from error


@contextmanager
def _naming(image: str) -> Iterator[None]:
    """Name the image in errors of the block."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{error}, at the image {image!r}") from error


def _text(name: Any) -> str:
    if isinstance(name, bytes):
        try:
            return name.decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"{FILENAMES} holds the bytes {name!r}, which are not UTF-8") from error
    if not isinstance(name, str):
        raise ValueError(f"{FILENAMES} holds something that is not text")
    return name


def _header(file: Bounded) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(file)  # type: ignore[arg-type]
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"its format is {version[0]}.{version[1]}, which the notebook did not write")
    try:
        return readers[version](file)  # type: ignore[arg-type]
    except TypeError as error:  # raised by NumPy for a header with keys that it can't sort
        raise ValueError("its header makes no sense") from error


def _images(file: Bounded, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Iterator[Any]:
    if dtype.kind != "O":
        for _ in range(shape[0]):
            yield _plain(file, shape[1:], dtype)
    elif len(shape) == 1:
        yield from read_objects(file, shape)
    elif not shape[-1] and len(shape) == 2:
        yield from (Empty() for _ in range(shape[0]))
        yield from read_objects(file, shape)  # none, and the end of the pickle
    else:
        yield from _stacked(read_objects(file, shape), shape)


def _stacked(values: Iterator[Any], shape: tuple[int, ...]) -> Iterator[NDArray[np.float64]]:
    """Put together the images of a three-dimensional array of Python's numbers."""
    n = shape[1] * shape[2]
    if n * 8 > LARGEST:
        raise ValueError(f"its header claims images of {n:,} values")
    held = array("d")
    for value in values:
        if not isinstance(value, (float, int)):
            raise ValueError(f"{DESCRIPTORS} holds something that is not a number")
        held.append(value)
        if len(held) == n:
            yield np.frombuffer(held).reshape(shape[1:])
            held = array("d")
    if not n:
        yield from (np.empty(shape[1:]) for _ in range(shape[0]))


def _plain(file: Bounded, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Read an array that is not pickled."""
    if dtype.hasobject or not dtype.itemsize:
        raise ValueError(f"it is of {dtype}")
    size = dtype.itemsize
    for n in shape:
        size *= n
    data = file.read(size)
    if len(data) != size:
        raise ValueError(f"it ends early: {len(data):,} of {size:,} bytes are there")
    return np.frombuffer(data, dtype).reshape(shape)

"""A COLMAP database, read as untrusted data: every size is checked before it is believed.

SQLite may hold views, generated columns and values of any type. Only plain tables are read, by the names of their
columns, which differ between versions of COLMAP.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import CorruptFile, DatasetError
from featurestore.system import is_file, readable, shown
from featurestore.wording import first_line

MAGIC = b"SQLite format 3\0"
DIM = 128
SIFT = 0  # in the column `type` of new versions; COLMAP itself takes an older table for SIFT
COLUMNS = (2, 4, 6)  # of keypoints: x and y; with scale and orientation; or with an affine shape
MOST_FEATURES = 1_000_000  # of an image
MOST_IMAGES = 20_000_000
LONGEST_NAME = 4096  # bytes
LONGEST_VALUE = 2 * DIM * MOST_FEATURES  # bytes of a value that SQLite may read
MOST_SIDE = 1_000_000  # pixels
FARTHEST = 1e7  # pixels

TABLES = {
    "cameras": ("camera_id", "width", "height"),
    "images": ("image_id", "name", "camera_id"),
    "keypoints": ("image_id", "rows", "cols", "data"),
    "descriptors": ("image_id", "rows", "cols", "data"),
}


@dataclass(frozen=True)
class NamedImage:
    """A row of the table of images."""

    image_id: int
    name: str
    camera_id: int


@dataclass(frozen=True)
class Features:
    """The features of an image.

    Attributes:
        points: ``(n, 2)`` float32, x and y; 0, 0 is the corner of the first pixel of the file.
        scale: ``(n,)`` float32, pixels; 0 where the database has none.
        angle: ``(n,)`` float32, radians from x to y.
        descriptors: ``(n, 128)`` uint8.
    """

    points: NDArray[np.float32]
    scale: NDArray[np.float32]
    angle: NDArray[np.float32]
    descriptors: NDArray[np.uint8]


class ColmapDatabase:
    """An open database."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        """Check the tables that are read.

        Raises:
            DatasetError: it is no COLMAP database.
        """
        self.path = path
        self._connection = connection
        columns = {table: self._columns(table) for table in TABLES}
        for table, needed in TABLES.items():
            if lacking := [name for name in needed if name not in columns[table]]:
                raise DatasetError(
                    f"{path} is not a database of COLMAP: its table {table} has no column {lacking[0]}; name the file "
                    "that feature_extractor wrote"
                )
        self._typed = "type" in columns["descriptors"]

    def images(self) -> list[NamedImage]:
        """Return the images by their ids.

        Raises:
            CorruptFile: the table is damaged.
        """
        with self._reading("its table of images can't be read"):
            # One by one, since a damaged table may seem to have no end.
            return self._named(
                self._connection.execute("SELECT image_id, name, camera_id FROM images ORDER BY image_id")
            )

    def _named(self, rows: Iterable[tuple[Any, Any, Any]]) -> list[NamedImage]:
        found: list[NamedImage] = []
        for image_id, name, camera_id in rows:
            if not _whole(image_id) or (found and image_id <= found[-1].image_id) or len(found) == MOST_IMAGES:
                raise self._damaged(f"its images are not numbered, by {image_id!r} after {len(found):,} of them")
            if not isinstance(name, str) or len(name) > LONGEST_NAME or not _whole(camera_id):
                raise self._damaged(f"image {image_id} has no name of at most {LONGEST_NAME:,} letters, or no camera")
            found.append(NamedImage(image_id, name, camera_id))
        return found

    def size(self, image: NamedImage) -> tuple[int, int]:
        """Return width and height of the image's file, in pixels.

        Raises:
            CorruptFile: its camera is absent or has no size.
        """
        found = self._row("SELECT width, height FROM cameras WHERE camera_id = ?", image.camera_id, image)
        if found is None or not all(_whole(side) and 0 < side <= MOST_SIDE for side in found):
            raise self._damaged(f"the camera {image.camera_id} of {shown(image.name)} has no size in pixels")
        return found[0], found[1]

    def features(self, image: NamedImage) -> Features:
        """Return the features of an image, none where it has no entry.

        Raises:
            CorruptFile: a size does not fit its data, or a keypoint is not a number.
            DatasetError: the descriptors are not SIFT.
        """
        points = self._keypoints(image)
        descriptors = self._descriptors(image)
        if len(points) != len(descriptors):
            raise self._damaged(
                f"{shown(image.name)} has {len(points):,} keypoints and {len(descriptors):,} descriptors"
            )
        if points.shape[1] == 6:  # the columns of an affine matrix: a11, a12, a21, a22
            a11, a12, a21, a22 = points[:, 2:].T.astype(np.float64)
            scale, angle = (np.hypot(a11, a21) + np.hypot(a12, a22)) / 2, np.arctan2(a21, a11)
        elif points.shape[1] == 4:
            scale, angle = points[:, 2:].T
        else:
            scale = angle = np.zeros(len(points))
        return Features(points[:, :2], scale.astype(np.float32), angle.astype(np.float32), descriptors)

    def _keypoints(self, image: NamedImage) -> NDArray[np.float32]:
        found = self._row("SELECT rows, cols, data FROM keypoints WHERE image_id = ?", image.image_id, image)
        if found is None:
            return np.empty((0, 2), np.float32)
        values = self._matrix(f"keypoints of {shown(image.name)}", found, np.dtype("<f4"), COLUMNS)
        no_size = values.shape[1] == 4 and bool((values[:, 2] < 0).any())
        if no_size or not np.isfinite(values).all() or np.abs(values).max(initial=0) > FARTHEST:
            raise self._damaged(f"a keypoint of {shown(image.name)} is not a place, a size and an angle")
        return values

    def _descriptors(self, image: NamedImage) -> NDArray[np.uint8]:
        kind = "type" if self._typed else str(SIFT)
        query = f"SELECT {kind}, rows, cols, data FROM descriptors WHERE image_id = ?"
        found = self._row(query, image.image_id, image)
        if found is None:
            return np.empty((0, DIM), np.uint8)
        kind, *matrix = found
        if kind != SIFT and matrix[0]:
            raise DatasetError(
                f"{self.path}: the descriptors of {shown(image.name)} are of type {kind!r}, and SIFT is {SIFT}; "
                "extract SIFT in COLMAP, or leave the image out of the dataset"
            )
        return self._matrix(f"descriptors of {shown(image.name)}", matrix, np.dtype(np.uint8), (DIM,))

    def _matrix(self, what: str, found: Sequence[Any], dtype: np.dtype[Any], allowed: tuple[int, ...]) -> NDArray[Any]:
        """Return a matrix of ``rows, cols, data`` after a check: ``rows * cols`` values, and so many bytes."""
        rows, cols, data = found
        if rows == 0 and not data:
            return np.empty((0, allowed[0]), dtype)
        if not _whole(rows) or not 0 <= rows <= MOST_FEATURES or not _whole(cols) or cols not in allowed:
            shapes = " or ".join(map(str, allowed))
            raise self._damaged(f"the {what} are {rows!r} x {cols!r}, and can be {shapes} wide and {MOST_FEATURES:,}")
        if not isinstance(data, bytes) or len(data) != rows * cols * dtype.itemsize:
            n_bytes = f"{len(data):,} bytes" if isinstance(data, bytes) else type(data).__name__
            raise self._damaged(
                f"the {what} are {rows:,} x {cols}, which is {rows * cols * dtype.itemsize:,} bytes, "
                f"and the data are {n_bytes}"
            )
        return np.frombuffer(data, dtype).reshape(rows, cols)

    def _columns(self, table: str) -> set[str]:
        """Return the columns of a plain table with an integer key; none of anything else."""
        plain = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND rootpage > 0 AND name = ?"
        with self._reading("its list of tables can't be read"):
            found = self._connection.execute(plain, (table,)).fetchone()
            columns = self._connection.execute(f"PRAGMA table_xinfo({table})").fetchall()
        key = [(str(name), str(kind).upper()) for _, name, kind, _, _, position, _ in columns if position]
        if found != (1,) or key != [(TABLES[table][0], "INTEGER")]:
            return set()
        return {str(name) for _, name, _, _, _, _, hidden in columns if not hidden}

    def _row(self, query: str, key: int, image: NamedImage) -> tuple[Any, ...] | None:
        with self._reading(f"what it has of {shown(image.name)} can't be read"):
            found: tuple[Any, ...] | None = self._connection.execute(query, (key,)).fetchone()
        return found

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OverflowError, UnicodeDecodeError) as error:  # the last: of the name of a column
            raise self._damaged(f"{what} ({first_line(error)})") from error

    def _damaged(self, what: str) -> CorruptFile:
        return CorruptFile(f"{self.path} is damaged: {what}; put back a copy of it, or extract again in COLMAP")


@contextmanager
def open_database(path: Path) -> Iterator[ColmapDatabase]:
    """Open a COLMAP database for reading.

    Raises:
        DatasetError: it is not there, is none, or COLMAP has not finished writing it.
        CorruptFile: it is damaged.
        UnreadableFile: it can't be read.
    """
    if not is_file(path):
        raise DatasetError(f"{path} is not a file; name the database that COLMAP's feature_extractor wrote")
    with readable(path), path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise DatasetError(f"{path} is not a database of SQLite; name the one that feature_extractor wrote")
    log = path.with_name(path.name + "-wal")
    if is_file(log) and log.stat().st_size:
        raise DatasetError(
            f"{path} has changes that are in {log.name} only, since COLMAP has it open or was killed; close COLMAP, or "
            "open the database in it once more"
        )
    # Nothing is locked and no file is made beside it, so that it may lie in a folder that can't be written.
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None)
    try:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_VALUE)
        connection.text_factory = lambda data: data.decode("utf-8", "replace")
        try:
            connection.execute("PRAGMA trusted_schema = OFF")  # no functions in its views and columns
            connection.execute("PRAGMA cell_size_check = ON")
        except sqlite3.Error as error:
            raise CorruptFile(f"{path} is damaged: {first_line(error)}; put back a copy of it") from error
        yield ColmapDatabase(path, connection)
    finally:
        connection.close()


def _whole(value: Any) -> bool:
    return isinstance(value, int)

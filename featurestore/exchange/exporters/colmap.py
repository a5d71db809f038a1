"""colmap: a COLMAP database with keypoints and descriptors, to be matched and mapped by COLMAP.

COLMAP adds the tables that are missing when it opens the file. There is no column ``type`` in ``descriptors``: COLMAP
adds it with its default, which means SIFT, and older versions know no other.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import OutputError, QueryError
from featurestore.exchange.exporters.base import ImageExporter, Job
from featurestore.exchange.file_grid import FileGrid, file_grid, say_left_out
from featurestore.exchange.root_sift import is_root, is_sift, unit_root
from featurestore.rows import Row
from featurestore.stages import Extract, Extractor
from featurestore.system import NO_ROOM

DIM = 128
NORM = 512  # of a descriptor in COLMAP, before its values are rounded to bytes
SIMPLE_RADIAL = 2  # COLMAP's camera model: focal length, centre, one coefficient of radial distortion
FOCAL = 1.2  # times the longer side: what COLMAP takes where it knows no better
MOST_ID = 2**31 - 2  # of an image in COLMAP
PAGE = 4096  # bytes that SQLite writes together

TABLES = """
CREATE TABLE cameras (camera_id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, model INTEGER NOT NULL,
    width INTEGER NOT NULL, height INTEGER NOT NULL, params BLOB, prior_focal_length INTEGER NOT NULL);
CREATE TABLE images (image_id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, name TEXT NOT NULL UNIQUE,
    camera_id INTEGER NOT NULL, CONSTRAINT image_id_check CHECK(image_id >= 0 and image_id < 2147483647),
    FOREIGN KEY(camera_id) REFERENCES cameras(camera_id));
CREATE TABLE keypoints (image_id INTEGER PRIMARY KEY NOT NULL, rows INTEGER NOT NULL, cols INTEGER NOT NULL,
    data BLOB, FOREIGN KEY(image_id) REFERENCES images(image_id) ON DELETE CASCADE);
CREATE TABLE descriptors (image_id INTEGER PRIMARY KEY NOT NULL, rows INTEGER NOT NULL, cols INTEGER NOT NULL,
    data BLOB, FOREIGN KEY(image_id) REFERENCES images(image_id) ON DELETE CASCADE);
CREATE UNIQUE INDEX index_name ON images(name);
"""


@dataclass(frozen=True)
class Colmap(ImageExporter):
    """Cameras, images, keypoints and descriptors; image 0 of the store is image 1 of COLMAP.

    Attributes:
        plain: SIFT as it is; RootSIFT otherwise, which matches better and goes with COLMAP's own descriptors.
        single_camera: all images are of one camera; otherwise each has its own.
    """

    name: ClassVar[str] = "colmap"
    about: ClassVar[str] = "a COLMAP database of keypoints and RootSIFT descriptors, of the stage extract"
    stage: ClassVar[str | None] = Extract.name

    plain: bool = False
    single_camera: bool = False

    def check(self, job: Job, *, force: bool) -> None:
        """Refuse descriptors that are not SIFT."""
        extractor = job.extractor()
        if not is_sift(extractor) or job.dim != DIM:
            raise QueryError(
                f"COLMAP matches SIFT, {DIM} values each, and these descriptors are {extractor.name}; export those of "
                "a variant of sift or rootsift, with variant (--variant)"
            )
        if job.selection.image_ids[-1] >= MOST_ID:
            raise QueryError(f"COLMAP numbers images up to {MOST_ID:,}; choose earlier ones with where (--where)")

    def write(self, job: Job, path: Path) -> None:
        """Write the database, an image at a time."""
        extractor, left_out = job.extractor(), Counter[str]()
        with _database(path) as database:
            first: FileGrid | None = None
            for row in job.rows():
                grid = file_grid(row, job.context, extractor)
                if grid is None:
                    left_out[row.status] += 1
                    continue
                if first is None or not self.single_camera:
                    camera_id = 1 if self.single_camera else row.image_id + 1
                    _add_camera(database, camera_id, grid)
                elif (grid.width, grid.height) != (first.width, first.height):
                    raise QueryError(
                        f"{row.filename} has {grid.width} x {grid.height} pixels and an image before it "
                        f"{first.width} x {first.height}, so that they are not of one camera; leave out "
                        "single_camera (--single-camera), or images of another size with where (--where)"
                    )
                first = first or grid
                _add_image(database, row, camera_id, grid, self._values(row, extractor))
        say_left_out(job.context.reporter, left_out)

    def _values(self, row: Row, extractor: Extractor) -> NDArray[np.uint8]:
        """Return the descriptors of an image as COLMAP has them, ``(n, 128)`` uint8."""
        found = row.descriptors
        if found is None:
            return np.empty((0, DIM), np.uint8)
        if found.dtype == np.uint8 and (self.plain or is_root(extractor)):
            return found
        return np.minimum(255, np.rint(NORM * unit_root(found, extractor))).astype(np.uint8)


@contextmanager
def _database(path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a new database, in one transaction and without a journal, since it is read only when it is whole.

    Raises:
        OSError: the disk is full.
        OutputError: it can't be written for another reason.
    """
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            database.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {TABLES} BEGIN;")
            yield database
            database.execute("COMMIT")
    except sqlite3.Error as error:
        _refuse_if_full(path, error)
        raise OutputError(f"the database can't be written: {error}; choose another place") from error


def _refuse_if_full(path: Path, error: sqlite3.Error) -> None:
    """Raise the system's error if the disk is full. SQLite calls a quota or a limit of sizes a "disk I/O error"."""
    if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
    if error.sqlite_errorcode == sqlite3.SQLITE_IOERR_WRITE:
        try:
            with path.open("ab") as file:
                file.write(bytes(PAGE))
        except OSError as reason:
            if reason.errno in NO_ROOM:
                raise


def _add_camera(database: sqlite3.Connection, camera_id: int, grid: FileGrid) -> None:
    width, height = grid.width, grid.height
    parameters = np.array([FOCAL * max(width, height), width / 2, height / 2, 0], "<f8")
    values = (camera_id, SIMPLE_RADIAL, width, height, parameters.tobytes(), 0)
    database.execute("INSERT INTO cameras VALUES (?, ?, ?, ?, ?, ?)", values)


def _add_image(
    database: sqlite3.Connection, row: Row, camera_id: int, grid: FileGrid, descriptors: NDArray[np.uint8]
) -> None:
    image_id, size = row.image_id + 1, row.keypoints["size"] if row.keypoints is not None else np.empty(0)
    # The size is a diameter of the blob, twice its sigma. COLMAP takes a scale of 1 where there is none.
    scale = np.where(size > 0, size / 2, 1)
    points: NDArray[Any] = np.stack([grid.x, grid.y, scale, np.radians(grid.angle)], axis=1).astype("<f4")
    database.execute("INSERT INTO images VALUES (?, ?, ?)", (image_id, row.filename, camera_id))
    for table, values in (("keypoints", points), ("descriptors", descriptors)):
        shape = (image_id, *values.shape, values.tobytes())
        database.execute(f"INSERT INTO {table} VALUES (?, ?, ?, ?)", shape)

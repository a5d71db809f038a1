"""hloc: an HDF5 file of features, as the Hierarchical-Localization toolbox writes and reads them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import MissingDependency, OutputError, QueryError
from featurestore.exchange.exporters.base import ImageExporter, Job
from featurestore.exchange.file_grid import FileGrid, file_grid, say_left_out
from featurestore.exchange.root_sift import is_sift, unit_root
from featurestore.formatting import counted
from featurestore.rows import KEYPOINT, Row
from featurestore.stages import Extract, Extractor
from featurestore.system import NO_ROOM, shown
from featurestore.wording import first_line

MOST = 2**15 - 1  # keypoints of an image: hloc numbers them in its matches by int16
UNCERTAINTY = 1.0  # pixels, of a keypoint; hloc's default
TURNED_ALWAYS = (".tif", ".tiff")  # OpenCV turns these even where hloc asks it not to


@dataclass(frozen=True)
class Hloc(ImageExporter):
    """A group for each image, of keypoints, descriptors, scores, scales, angles and the size of its file."""

    name: ClassVar[str] = "hloc"
    about: ClassVar[str] = "an HDF5 file of keypoints and descriptors for hloc, of the stage extract"
    stage: ClassVar[str | None] = Extract.name

    def check(self, job: Job, *, force: bool) -> None:
        """Check that HDF5 files can be written.

        Raises:
            MissingDependency: h5py is not installed.
        """
        try:
            import h5py  # noqa: F401
        except ImportError as error:
            raise MissingDependency(
                f"hloc's files are written by h5py, which can't be loaded ({first_line(error)}); "
                "pip install 'featurestore[hloc]'"
            ) from error

    def write(self, job: Job, path: Path) -> None:
        """Write the file, an image at a time."""
        extractor, left_out, shortened = job.extractor(), Counter[str](), list[str]()
        with _file(path) as file:
            for row in job.rows():
                upright = row.filename.lower().endswith(TURNED_ALWAYS)
                grid = file_grid(row, job.context, extractor, upright=upright)
                if grid is None:
                    left_out[row.status] += 1
                    continue
                if row.n_descriptors > MOST:
                    shortened.append(row.filename)
                _add_image(file, row, grid, extractor)
        say_left_out(job.context.reporter, left_out)
        if shortened:
            job.context.reporter.say(
                f"hloc takes {MOST:,} keypoints of an image: of {counted(len(shortened), 'image')} only the strongest "
                f"are written, for example of {shown(shortened[0])}"
            )


@contextmanager
def _file(path: Path) -> Iterator[Any]:
    """Yield a new file.

    Raises:
        OSError: the disk is full.
        OutputError: it can't be written for another reason.
    """
    try:
        with _create(path) as file:
            yield file
    except (OSError, RuntimeError) as error:  # of HDF5, which may tell the system's message and not its number
        full = next((number for number in NO_ROOM if os.strerror(number) in str(error)), None)
        if full is not None:
            raise OSError(full, os.strerror(full)) from error
        raise OutputError(f"the file can't be written: {first_line(error)}; choose another place") from error


def _create(path: Path) -> Any:
    """Create a file as ``h5py.File(path, "w", libver="latest")`` does, but without a buffer for small arrays.

    HDF5 would write that buffer when it closes a dataset. h5py then prints an error and raises none, and after such an
    error HDF5 can crash the process.
    """
    import h5py

    creation, access = h5py.h5p.create(h5py.h5p.FILE_CREATE), h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    creation.set_obj_track_times(False)
    access.set_libver_bounds(h5py.h5f.LIBVER_LATEST, h5py.h5f.LIBVER_LATEST)
    access.set_sieve_buf_size(0)
    return h5py.File(h5py.h5f.create(os.fsencode(path), h5py.h5f.ACC_TRUNC, fcpl=creation, fapl=access))


def _add_image(file: Any, row: Row, grid: FileGrid, extractor: Extractor) -> None:
    keypoints = np.empty(0, KEYPOINT) if row.keypoints is None else row.keypoints
    kept = _strongest(keypoints)
    centre = np.stack([grid.x, grid.y], axis=1)[kept] - 0.5  # hloc has 0, 0 at the centre of the first pixel
    try:
        group = file.create_group(row.filename)
    except ValueError as error:
        raise QueryError(
            f"HDF5 can't hold {shown(row.filename)} beside the other images ({first_line(error)}): a name can't be "
            "that of a folder too; leave it out with where (--where)"
        ) from error
    found: dict[str, NDArray[Any]] = {
        # float16, which hloc takes by default, is off by half a pixel from 1,024 pixels on.
        "keypoints": centre.astype(np.float32),
        "descriptors": _unit(row, extractor)[kept].T.astype(np.float16),
        "scores": keypoints["response"][kept],
        "scales": keypoints["size"][kept] / 2,
        "oris": grid.angle[kept].astype(np.float32),
        "image_size": np.array([grid.width, grid.height], np.int64),
    }
    for name, values in found.items():
        group.create_dataset(name, data=values)
    group["keypoints"].attrs["uncertainty"] = UNCERTAINTY


def _strongest(keypoints: NDArray[Any]) -> NDArray[np.intp]:
    """Return the positions of the `MOST` keypoints of the largest response, else size, in their order."""
    order = np.lexsort((-keypoints["size"], -keypoints["response"]))
    return np.sort(order[:MOST])


def _unit(row: Row, extractor: Extractor) -> NDArray[np.float32]:
    """Return the descriptors of unit L2 norm, ``(n, dim)``: hloc compares them by their dot product."""
    if row.descriptors is None:
        return np.empty((0, extractor.dim), np.float32)
    if is_sift(extractor):
        return unit_root(row.descriptors, extractor)
    values = row.descriptors.astype(np.float32)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.divide(values, np.where(length == 0, 1, length), dtype=np.float32)

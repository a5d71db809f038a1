"""Keypoints of extract on the grid of pixels of the image files, as COLMAP and hloc have them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import QueryError
from featurestore.exchange.orientation import angle_to_file, orientation_of, sides_swapped, to_file
from featurestore.rows import USABLE, Row
from featurestore.stages import Extractor


@dataclass(frozen=True)
class FileGrid:
    """The keypoints of one image on the grid of its file.

    Attributes:
        width: of the picture in the file, in pixels.
        height: as ``width``.
        x: ``(n,)`` float64; 0 is the left side of the first pixel, whose centre is 0.5.
        y: as ``x``, from the top.
        angle: ``(n,)`` float64, degrees from x to y.
    """

    width: int
    height: int
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    angle: NDArray[np.float64]


def file_grid(row: Row, images: Path, extractor: Extractor) -> FileGrid | None:
    """Return the keypoints of a row of extract on the grid of its file; None for an image without a picture.

    Args:
        row: with its keypoints and its own columns.
        images: the folder of images.
        extractor: that made the keypoints.

    Raises:
        QueryError: the image has no keypoints of known place, or its orientation is not known any more.
    """
    if row.status not in USABLE:
        return None
    keypoints, width, height = row.keypoints, row.extra.get("width"), row.extra.get("height")
    if width is None or height is None or (row.n_descriptors and keypoints is None):
        raise QueryError(
            f"the keypoints of {row.filename} are not known: its descriptors were imported without them; extract it "
            "in a store of its own, or leave it out with where (--where)"
        )
    orientation = _orientation(row, images)
    found = np.empty(0, [("x", float), ("y", float), ("angle", float)]) if keypoints is None else keypoints
    corner = 0.5 - extractor.first_pixel
    points = np.stack([found["x"], found["y"]], axis=1).astype(np.float64) + corner
    x, y = to_file(points, (width, height), orientation).T
    sides = (height, width) if sides_swapped(orientation) else (width, height)
    return FileGrid(*sides, x, y, angle_to_file(found["angle"].astype(np.float64), orientation))


def _orientation(row: Row, images: Path) -> int:
    """Return the EXIF orientation by which extract turned an image, from the header of its file.

    Raises:
        QueryError: the file is gone, or has changed.
    """
    path, what = images / row.filename, "its keypoints are exported on the grid of its file, whose EXIF orientation"
    try:
        n_bytes, orientation = path.stat().st_size, orientation_of(path)
    except (OSError, ValueError) as error:
        raise QueryError(
            f"{row.filename} can't be read in {images} any more ({getattr(error, 'strerror', None) or error}), and "
            f"{what} is recorded nowhere else; put the file back, or leave it out with where (--where)"
        ) from error
    if row.extra.get("source_bytes") not in (None, n_bytes):
        raise QueryError(
            f"{row.filename} is not the file that was extracted: it had {row.extra['source_bytes']:,} bytes and has "
            f"{n_bytes:,} now, and {what} may have changed; put the old file back, or extract the new one with: "
            "featurestore run STORE --check-images"
        )
    return orientation

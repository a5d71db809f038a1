"""Keypoints of extract on the grid of pixels of the image files, as COLMAP and hloc have them."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurestore.catalog import Context
from featurestore.errors import FeatureStoreError, QueryError
from featurestore.exchange.orientation import angle_to_file, sides_swapped, to_file
from featurestore.images import UPRIGHT, Damaged, Missing, ReadFailed, TooLarge, orientation_of
from featurestore.progress import Reporter
from featurestore.rows import EXIF_ORIENTATION, USABLE, Row
from featurestore.stages import Extractor

LARGEST = 1 << 30  # bytes of an image in a container


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


class NotRead(Exception):
    """An image file can't be read; the message says why."""


def size_and_orientation(context: Context, filename: str) -> tuple[int, int]:
    """Return the bytes of an image file and the EXIF orientation in its header; of a container, the image is read.

    Raises:
        NotRead: it is gone, or can't be read.
    """
    image = context.image(filename)
    try:
        if isinstance(image, str):
            with Path(image).open("rb") as stream:
                return os.fstat(stream.fileno()).st_size, orientation_of(stream)
        data = image.read(LARGEST)
        return len(data), orientation_of(io.BytesIO(data))
    except TooLarge as error:
        return error.n_bytes, orientation_of(io.BytesIO(error.head))
    except OSError as error:
        raise NotRead(error.strerror or str(error)) from error
    except (ValueError, Missing, Damaged, ReadFailed, FeatureStoreError) as error:
        raise NotRead(str(error)) from error


def file_grid(row: Row, context: Context, extractor: Extractor, *, upright: bool = False) -> FileGrid | None:
    """Return the keypoints of a row of extract on the grid of its file; None for an image without a picture.

    Args:
        row: with its keypoints and its own columns.
        context: of the store.
        extractor: that made the keypoints.
        upright: the other program sees the picture as extract did, whatever its EXIF orientation.

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
    orientation = UPRIGHT if upright else _orientation(row, context)
    found = np.empty(0, [("x", float), ("y", float), ("angle", float)]) if keypoints is None else keypoints
    corner = 0.5 - extractor.first_pixel
    points = np.stack([found["x"], found["y"]], axis=1).astype(np.float64) + corner
    x, y = to_file(points, (width, height), orientation).T
    sides = (height, width) if sides_swapped(orientation) else (width, height)
    return FileGrid(*sides, x, y, angle_to_file(found["angle"].astype(np.float64), orientation))


def say_left_out(reporter: Reporter, statuses: Mapping[str, int]) -> None:
    """Report how many images had no picture, by status."""
    if statuses:
        listed = ", ".join(f"{n:,} {status}" for status, n in sorted(statuses.items()))
        reporter.say(f"left out, since there is no picture: {listed}")


def _orientation(row: Row, context: Context) -> int:
    """Return the EXIF orientation by which extract turned an image: recorded, or from the header of its file.

    Raises:
        QueryError: the file is gone, or has changed.
    """
    if (known := row.extra.get(EXIF_ORIENTATION)) is not None:
        return int(known)
    what = "its keypoints are exported on the grid of its file, whose EXIF orientation"
    try:
        n_bytes, orientation = size_and_orientation(context, row.filename)
    except NotRead as error:
        raise QueryError(
            f"{row.filename} can't be read in {context.images} any more ({error}), and {what} is recorded nowhere "
            "else; put the file back, or leave it out with where (--where)"
        ) from error
    if row.extra.get("source_bytes") not in (None, n_bytes):
        raise QueryError(
            f"{row.filename} is not the file that was extracted: it had {row.extra['source_bytes']:,} bytes and has "
            f"{n_bytes:,} now, and {what} may have changed; put the old file back, or extract the new one with: "
            "featurestore run STORE --check-images"
        )
    return orientation

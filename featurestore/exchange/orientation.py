"""Points and angles on the grid of an image file, and in the picture that its EXIF orientation turns.

OpenCV turns a picture as its EXIF orientation says. Extract computes keypoints on the turned picture, and other
programs give them on the grid of pixels as they are in the file.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# By orientation, the matrix from the turned picture to that of the file, without its shift.
_TO_FILE = {
    1: ((1, 0), (0, 1)),
    2: ((-1, 0), (0, 1)),
    3: ((-1, 0), (0, -1)),
    4: ((1, 0), (0, -1)),
    5: ((0, 1), (1, 0)),
    6: ((0, 1), (-1, 0)),
    7: ((0, -1), (-1, 0)),
    8: ((0, -1), (1, 0)),
}


def to_file(points: NDArray[np.float64], size: tuple[int, int], orientation: int) -> NDArray[np.float64]:
    """Return points of the turned picture on the grid of its file.

    Args:
        points: ``(n, 2)``, x and y, where 0, 0 is the corner of the first pixel.
        size: width and height of the turned picture.
        orientation: EXIF's, 1 to 8.
    """
    return points @ _matrix(orientation).T + _shift(size, orientation)


def from_file(points: NDArray[np.float64], size: tuple[int, int], orientation: int) -> NDArray[np.float64]:
    """Return points on the grid of the file in its turned picture: the inverse of `to_file`, with its arguments."""
    return (points - _shift(size, orientation)) @ _matrix(orientation)


def angle_to_file(degrees: NDArray[np.float64], orientation: int) -> NDArray[np.float64]:
    """Return angles in the turned picture, in degrees from x to y, as they are in the file; 0 to 360."""
    return _turned(degrees, _matrix(orientation))


def angle_from_file(degrees: NDArray[np.float64], orientation: int) -> NDArray[np.float64]:
    """Return angles in the file as they are in the turned picture: the inverse of `angle_to_file`."""
    return _turned(degrees, _matrix(orientation).T)


def sides_swapped(orientation: int) -> bool:
    """Return whether the width of the turned picture is the height of the file's."""
    return orientation >= 5


def _matrix(orientation: int) -> NDArray[np.float64]:
    return np.array(_TO_FILE[orientation], np.float64)


def _shift(size: tuple[int, int], orientation: int) -> NDArray[np.float64]:
    """Return what brings the picture back where a side runs the other way: its length."""
    return np.minimum(_matrix(orientation), 0) @ np.array(size, np.float64) * -1


def _turned(degrees: NDArray[np.float64], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    # Exact for the common case: whole turns are added to the angle, and a mirrored one runs the other way.
    mirrored = matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0] < 0
    zero = np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))
    turned: NDArray[np.float64] = np.mod(zero - degrees if mirrored else zero + degrees, 360.0)
    return turned

"""SIFT as OpenCV computes it, stored as uint8 without loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from featurestore.config import option
from featurestore.errors import LossyDescriptors, MissingDependency
from featurestore.rows import KEYPOINT
from featurestore.stages.extractors.base import Extractor

if TYPE_CHECKING:
    import cv2

OPENCV = 5  # the oldest version whose descriptors are stored


@dataclass(frozen=True)
class Sift(Extractor):
    """OpenCV's SIFT (Lowe, IJCV 2004); the fields are the arguments of ``cv2.SIFT_create``, with its defaults."""

    name: ClassVar[str] = "sift"
    dim: ClassVar[int] = 128
    dtype: ClassVar[str] = "uint8"

    nfeatures: int = option(0, "keep only the strongest keypoints; 0 keeps all", low=0, high=2**31 - 1)
    n_octave_layers: int = option(3, "layers in each octave", low=1, high=16)
    contrast_threshold: float = option(0.04, "larger: fewer weak keypoints", low=0.0)
    edge_threshold: float = option(10.0, "larger: more keypoints on edges", low=0.0)
    sigma: float = option(1.6, "sigma of the Gaussian at octave 0, in pixels", low=0.01, high=100.0)
    enable_precise_upscale: bool = option(
        False, "true: keypoints lie where they are; false: a quarter of a pixel off, as OpenCV's default", late=True
    )

    @property
    def first_pixel(self) -> float:
        """Return 0.25, by which OpenCV's default is off (https://github.com/opencv/opencv/issues/23123), or 0."""
        return 0.0 if self.enable_precise_upscale else 0.25

    def detect_and_compute(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return keypoints ``(n,)`` and descriptors ``(n, 128)`` uint8 of a BGR image.

        Raises:
            LossyDescriptors: OpenCV gave a value that is not a whole number from 0 to 255.
        """
        keypoints, descriptors = self.compute_float(pixels)
        return keypoints, as_uint8(descriptors)

    def compute_float(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Return keypoints ``(n,)`` and descriptors ``(n, 128)`` float32, as OpenCV gives them.

        Raises:
            MissingDependency: OpenCV is older than 5.
        """
        import cv2

        _refuse_older(cv2.__version__)
        gray = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
        detector = cv2.SIFT.create(
            self.nfeatures,
            self.n_octave_layers,
            self.contrast_threshold,
            self.edge_threshold,
            self.sigma,
            enable_precise_upscale=self.enable_precise_upscale,
        )
        keypoints, descriptors = detector.detectAndCompute(gray, None)
        if descriptors is None:
            return np.empty(0, KEYPOINT), np.empty((0, self.dim), np.float32)
        return as_records(keypoints), descriptors.astype(np.float32, copy=False)


def _refuse_older(version: str) -> None:
    """Check that descriptors are those of OpenCV 5, whichever package provides ``cv2``.

    Raises:
        MissingDependency: it is older. See docs/decisions/0070.
    """
    if int(version.partition(".")[0]) < OPENCV:
        raise MissingDependency(
            f"the module cv2 is of OpenCV {version}, and OpenCV {OPENCV} or newer is needed: older versions give other "
            "descriptors. Uninstall opencv-python and its like, then install opencv-python-headless again"
        )


def as_records(keypoints: Sequence[cv2.KeyPoint]) -> NDArray[Any]:
    """Return OpenCV's keypoints as ``(n,)`` records of dtype `KEYPOINT`."""
    import cv2

    # Column by column, and x and y by OpenCV's own loop: four times as fast as a tuple for each keypoint, which took
    # 2 % of the time of an image.
    records = np.empty(len(keypoints), KEYPOINT)
    records["x"], records["y"] = np.asarray(cv2.KeyPoint.convert(keypoints)).T
    for name in ("size", "angle", "response", "octave"):
        records[name] = np.fromiter(map(attrgetter(name), keypoints), KEYPOINT[name], len(keypoints))
    return records


def as_uint8(descriptors: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return float32 descriptors as uint8, and make sure that nothing is lost.

    Raises:
        LossyDescriptors: a value is not a whole number from 0 to 255.
    """
    with np.errstate(invalid="ignore"):
        whole = descriptors.astype(np.uint8)
    if not np.array_equal(whole, descriptors):
        worst = float(descriptors.flat[np.argmax(whole != descriptors)])
        raise LossyDescriptors(
            f"SIFT gave the value {worst}, which uint8 can't hold without loss; this build of OpenCV computes other "
            "descriptors than the released ones. Install opencv-python-headless from its wheel"
        )
    return whole

"""The base class of extractors: a frozen dataclass of parameters, with a method from pixels to descriptors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import PluginError
from featurestore.rows import KEYPOINT, KEYPOINT_COLUMNS


@dataclass(frozen=True)
class Extractor:
    """A kind of local descriptor.

    Its fields are declared with `featurestore.config.option`. They are its keys in ``[extract.NAME]`` of
    ``featurestore.toml`` and, with its name, its identity.
    """

    name: ClassVar[str]
    dim: ClassVar[int]  # values in a descriptor
    dtype: ClassVar[str]  # of a value, "uint8" or "float32"
    version: ClassVar[int] = 1  # raised when the code of the extractor changes its result
    batch_size: ClassVar[int] = 1  # images that it takes at a time, at most
    bytes_per_pixel: ClassVar[int] = 240  # of memory that a picture needs at most, so that a run bounds large ones
    absent: ClassVar[Mapping[str, float]] = {}  # fields of `KEYPOINT` that it does not give, and what stands there
    imported_by: ClassVar[str] = ""  # the verb that imports its descriptors, if it can't compute any
    table: ClassVar[str] = ""  # of the recipe that has its parameters; empty: that of its own name

    @property
    def first_pixel(self) -> float:
        """Return x and y of the centre of the upper left pixel, as its keypoints count; exports depend on it."""
        return 0.0

    def detect_and_compute(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return keypoints ``(n,)`` and descriptors ``(n, dim)`` of ``dtype``.

        Keypoints are records with the fields of `KEYPOINT`, but for those that are in ``absent``.

        Args:
            pixels: ``(height, width, 3)`` uint8, in OpenCV's order: blue, green, red.
        """
        raise NotImplementedError(f"{type(self).__name__}.detect_and_compute")

    def detect_and_compute_batch(self, images: Sequence[NDArray[np.uint8]]) -> list[tuple[NDArray[Any], NDArray[Any]]]:
        """Return what `detect_and_compute` does of each of at most ``batch_size`` images; by default one by one.

        The result may not depend on which images are together. Where it raises, each image is tried alone.
        """
        return [self.detect_and_compute(pixels) for pixels in images]

    def describe(self, images: Sequence[NDArray[np.uint8]]) -> list[tuple[NDArray[Any], NDArray[Any]]]:
        """Return keypoints of dtype `KEYPOINT` and descriptors of each image, as they are stored.

        Raises:
            PluginError: the extractor gave something else than it promises.
        """
        several = len(images) > 1
        found = self.detect_and_compute_batch(images) if several else [self.detect_and_compute(p) for p in images]
        if len(found) != len(images):
            raise self._broken(f"{len(found)} results for {len(images)} images")
        return [self._checked(keypoints, descriptors) for keypoints, descriptors in found]

    def _checked(self, keypoints: NDArray[Any], descriptors: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        if descriptors.dtype != np.dtype(self.dtype) or descriptors.shape != (len(keypoints), self.dim):
            raise self._broken(
                f"descriptors {descriptors.shape} {descriptors.dtype} for {len(keypoints)} keypoints, and not "
                f"({len(keypoints)}, {self.dim}) {self.dtype}"
            )
        if keypoints.dtype == KEYPOINT:
            return keypoints, descriptors
        given = set(keypoints.dtype.names or ())
        if given | set(self.absent) != set(KEYPOINT_COLUMNS) or given & set(self.absent):
            raise self._broken(
                f"keypoints with the fields {', '.join(sorted(given))}, and {dict(self.absent)} as absent"
            )
        records = np.empty(len(keypoints), KEYPOINT)
        for name in KEYPOINT_COLUMNS:
            records[name] = keypoints[name] if name in given else self.absent[name]
        return records, descriptors

    def _broken(self, what: str) -> PluginError:
        return PluginError(
            f"the extractor {self.name} gave {what}. That is a fault of the plug-in: have it mended, and raise its "
            "version"
        )

"""Small pictures of the store's images, as data URIs, and their keypoints as SVG."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from featurestore.api import FeatureStore
from featurestore.apps.html_report.charts import keypoint_circles
from featurestore.apps.html_report.parts import GalleryImage
from featurestore.errors import FeatureStoreError

LONGEST = 288  # pixels of the longer side
QUALITY = 70  # of the JPEG
MOST_KEYPOINTS = 250  # more could not be told apart


def gallery_image(
    store: FeatureStore,
    filename: str,
    n_descriptors: int,
    *,
    longest: int = LONGEST,
    most: int = MOST_KEYPOINTS,
    stages: Sequence[str | None] = (None, "extract"),
) -> GalleryImage:
    """Return an image with its picture and its largest keypoints, or with the reason why there is no picture.

    Args:
        store: that has the image.
        filename: of the image.
        n_descriptors: of the image; if there are none, no keypoints are looked up.
        longest: pixels of the longer side of the picture, at most.
        most: keypoints.
        stages: whose keypoints; those of the first one that has them. None is the stage that makes the codes.
    """
    try:
        pixels = store.pixels(filename)
    except FeatureStoreError as error:
        return GalleryImage(filename, n_descriptors, why=" ".join(str(error).split()))
    height, width = pixels.shape[:2]
    drawn, n = _keypoints(store, filename, stages, most) if n_descriptors else ("", 0)
    return GalleryImage(filename, n_descriptors, jpeg_uri(pixels, longest), "", width, height, drawn, n)


def jpeg_uri(pixels: NDArray[np.uint8], longest: int = LONGEST) -> str | None:
    """Return a picture ``(height, width, 3)`` uint8 in BGR order as a small JPEG; None if OpenCV can't write it."""
    data = jpeg(pixels, longest)
    return None if data is None else f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


def jpeg(pixels: NDArray[np.uint8], longest: int = LONGEST) -> bytes | None:
    """Return the bytes of `jpeg_uri`."""
    import cv2

    scale = min(1.0, longest / max(pixels.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    small = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA) if scale < 1 else pixels
    done, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return data.tobytes() if done else None


def _keypoints(store: FeatureStore, filename: str, stages: Sequence[str | None], most: int) -> tuple[str, int]:
    """Return the largest keypoints of the first of the stages that has them stored; none where no stage has."""
    for stage in stages:
        try:
            found = store.keypoints(filename, stage)
        except FeatureStoreError:
            continue
        largest = found[np.argsort(-found["size"], kind="stable")[:most]]
        columns = [largest[name].tolist() for name in ("x", "y", "size", "angle")]
        return keypoint_circles(list(zip(*columns, strict=True))), len(largest)
    return "", 0

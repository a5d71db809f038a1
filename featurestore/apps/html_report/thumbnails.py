"""Small pictures of the store's images, as data URIs, and their keypoints as SVG."""

from __future__ import annotations

import base64

import numpy as np
from numpy.typing import NDArray

from featurestore.api import FeatureStore
from featurestore.apps.html_report.charts import keypoint_circles
from featurestore.apps.html_report.parts import GalleryImage
from featurestore.errors import FeatureStoreError

LONGEST = 288  # pixels of the longer side
QUALITY = 70  # of the JPEG
MOST_KEYPOINTS = 250  # more could not be told apart


def gallery_image(store: FeatureStore, filename: str, n_descriptors: int) -> GalleryImage:
    """Return an image with its picture and its largest keypoints, or with the reason why there is no picture."""
    try:
        pixels = store.pixels(filename)
    except FeatureStoreError as error:
        return GalleryImage(filename, n_descriptors, why=" ".join(str(error).split()))
    height, width = pixels.shape[:2]
    drawn, n = _keypoints(store, filename) if n_descriptors else ("", 0)
    return GalleryImage(filename, n_descriptors, jpeg_uri(pixels), "", width, height, drawn, n)


def jpeg_uri(pixels: NDArray[np.uint8], longest: int = LONGEST) -> str | None:
    """Return a picture ``(height, width, 3)`` uint8 in BGR order as a small JPEG; None if OpenCV can't write it."""
    import cv2

    scale = min(1.0, longest / max(pixels.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    small = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA) if scale < 1 else pixels
    done, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}" if done else None


def _keypoints(store: FeatureStore, filename: str) -> tuple[str, int]:
    """Return the largest keypoints that the codes keep, else those of extract; none where neither is stored."""
    for stage in (None, "extract"):
        try:
            found = store.keypoints(filename, stage)
        except FeatureStoreError:
            continue
        largest = found[np.argsort(-found["size"], kind="stable")[:MOST_KEYPOINTS]]
        columns = [largest[name].tolist() for name in ("x", "y", "size", "angle")]
        return keypoint_circles(list(zip(*columns, strict=True))), len(largest)
    return "", 0

"""Pictures for tests: reproducible, small, and with something to see in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def picture(seed: int, *, width: int = 160, height: int = 120) -> NDArray[np.uint8]:
    """Return ``(height, width, 3)`` uint8, blue, green, red: smooth blobs with a grain."""
    import cv2

    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8, width // 8, 3)).astype(np.uint8)
    blobs = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    pixels: NDArray[np.uint8] = np.clip(blobs + rng.integers(-20, 21, blobs.shape), 0, 255).astype(np.uint8)
    return pixels


def write_pictures(folder: Path, *, n: int = 8) -> Path:
    """Write ``n`` pictures, one without anything to see, a file that is none, and their dataset; return the dataset.

    Every fourth is ``test``, the others are ``train``.
    """
    import cv2

    folder.mkdir(parents=True, exist_ok=True)
    images = {f"{number:02d}.png": picture(number) for number in range(n)}
    images["blank.png"] = np.full((60, 80, 3), 128, np.uint8)
    for name, pixels in images.items():
        cv2.imwrite(str(folder / name), pixels)
    (folder / "broken.png").write_bytes(b"no picture")
    lines = [f"{name},{'test' if i % 4 == 3 else 'train'}" for i, name in enumerate([*images, "broken.png"])]
    dataset = folder / "dataset.csv"
    dataset.write_text("\n".join(["filename,subset", *lines]) + "\n", encoding="utf-8")
    return dataset

"""The notebook's chunk files, written as the notebook wrote them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Images = Sequence[tuple[str, NDArray[Any] | None]]


def write_chunk(folder: Path, images: Images, *, start: int = 0, compressed: bool = True) -> Path:
    """Write ``sift_chunk_<start>_to_<end>.npz``: of each image its name, and its descriptors as float32 or None."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"sift_chunk_{start}_to_{start + len(images) - 1}.npz"
    descriptors = [None if found is None else found.astype(np.float32) for _, found in images]
    save = np.savez_compressed if compressed else np.savez
    save(
        path,
        descriptors_list=np.array(descriptors, dtype=object),
        filenames=np.array([name for name, _ in images]),
    )
    return path


def write_chunks(folder: Path, images: Images, *, size: int) -> list[Path]:
    """Write files of ``size`` images each."""
    starts = range(0, len(images), size)
    return [write_chunk(folder, images[start : start + size], start=start) for start in starts]

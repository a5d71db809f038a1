"""The notebook's way, restated: compressed npz files of object arrays, chunk after chunk, one process.

It is as good as its author would have made it: everything is vectorised where the notebook was, files are read once by
each step, and what the notebook did besides, such as printing, is left out. Its results are those of the store, but for
which descriptors are drawn.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import IncrementalPCA

COMPONENTS, BATCH, SAMPLE, TOP = 64, 2000, 1800, 1800
LOW, HIGH, MARGIN = 0.1, 99.9, 0.01

Matrix = NDArray[Any]


def save(path: Path, matrices: list[Matrix | None], names: list[str]) -> None:
    """Write matrices, one an image, as the notebook does."""
    array = np.empty(len(matrices), dtype=object)
    array[:] = matrices
    np.savez_compressed(path, descriptors_list=array, filenames=np.array(names, dtype=object))


def load(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """Read such a file. It is a pickle: only for files that were written here."""
    with np.load(path, allow_pickle=True) as file:
        return file["descriptors_list"], file["filenames"]


def fit(chunks: list[Path], held_out: set[str]) -> IncrementalPCA:
    """Learn the PCA from all images but those held out, in batches across chunks."""
    rng, pca, waiting, n = np.random.default_rng(0), IncrementalPCA(n_components=COMPONENTS), [], 0
    for path in chunks:
        for matrix, name in zip(*load(path), strict=True):
            if name in held_out or matrix is None:
                continue
            drawn = matrix if len(matrix) <= SAMPLE else matrix[rng.choice(len(matrix), SAMPLE, replace=False)]
            waiting.append(drawn)
            n += len(drawn)
            if n >= BATCH:
                pca.partial_fit(np.vstack(waiting))
                waiting, n = [], 0
    if n:
        pca.partial_fit(np.vstack(waiting))
    return pca


def project(chunks: list[Path], pca: IncrementalPCA, folder: Path) -> list[Path]:
    """Project every image and keep its strongest descriptors."""
    made = []
    for path in chunks:
        matrices, names = load(path)
        kept: list[Matrix | None] = []
        for matrix in matrices:
            if matrix is None:
                kept.append(None)
                continue
            projected = pca.transform(matrix)
            norms = np.linalg.norm(projected, axis=1)
            strongest = np.argsort(norms)[-TOP:]
            strongest = strongest[np.argsort(norms[strongest])[::-1]]
            kept.append(projected[strongest].astype(np.float32))
        made.append(folder / f"{path.stem}.pca_selected.npz")
        save(made[-1], kept, list(names))
    return made


def scale(selected: list[Path]) -> tuple[Matrix, Matrix]:
    """Return the bounds of every dimension, with the margin."""
    matrices = [matrix for path in selected for matrix in load(path)[0] if matrix is not None]
    low = np.min([np.percentile(matrix, LOW, axis=0) for matrix in matrices], axis=0)
    high = np.max([np.percentile(matrix, HIGH, axis=0) for matrix in matrices], axis=0)
    span = np.where(high - low < 1e-8, 1.0, high - low)
    return (low - span * MARGIN).astype(np.float32), (high + span * MARGIN).astype(np.float32)


def quantize(selected: list[Path], low: Matrix, high: Matrix, path: Path) -> None:
    """Write the codes of all images into one file."""
    codes: list[Matrix | None] = []
    names: list[str] = []
    for chunk in selected:
        matrices, filenames = load(chunk)
        for matrix in matrices:
            if matrix is None:
                codes.append(None)
                continue
            codes.append(np.rint(np.clip((matrix - low) / (high - low), 0, 1) * 255).astype(np.uint8))
        names += list(filenames)
    save(path, codes, names)


def everything_after_extract(chunks: list[Path], held_out: set[str], folder: Path) -> NDArray[np.uint8]:
    """Go from the chunks of SIFT to one matrix of codes, loaded from the final file."""
    folder.mkdir(parents=True)
    selected = project(chunks, fit(chunks, held_out), folder)
    low, high = scale(selected)
    quantize(selected, low, high, folder / "final.npz")
    return matrix(folder / "final.npz")


def matrix(path: Path) -> NDArray[np.uint8]:
    """Load the final file as one matrix."""
    return np.concatenate([codes for codes in load(path)[0] if codes is not None])

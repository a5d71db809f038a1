"""A codebook of two levels: k-means of descriptors, the nearest word of each, and the signature of what is left.

A word is the centroid nearest to a descriptor, and the signature has one bit for each direction of a random rotation:
whether the residual points that way (Jégou et al. 2008, "Hamming embedding").
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ROUNDS = 10  # of k-means
PER_CENTRE = 256  # descriptors for each centroid of the first level
PROBED = 8  # cells of the first level in which a descriptor's word is looked for
BITS = 64

Floats = NDArray[np.float32]


def learn_words(values: Floats, n_words: int, *, seed: int) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Return the cells, the words in the order of their cells, and where the words of each cell begin.

    Args:
        values: ``(n, dim)`` float32.
        n_words: a power of 4, at most; a cell with few descriptors has fewer words.
        seed: of the first centroids.

    Returns:
        ``(cells, dim)`` float32, ``(words, dim)`` float32 and ``(cells + 1,)`` int64.
    """
    side = max(1, round(n_words**0.5))
    rng = np.random.default_rng(seed)
    some = values[np.sort(rng.permutation(len(values))[: PER_CENTRE * side])]
    cells = k_means(some, side, rng)
    of = nearest(values, cells)
    words = [k_means(values[of == cell], side, rng) for cell in range(len(cells))]
    starts = np.cumsum([0, *map(len, words)], dtype=np.int64)
    return cells, np.concatenate(words), starts


def k_means(values: Floats, k: int, rng: np.random.Generator) -> Floats:
    """Return at most ``k`` centroids ``(k, dim)`` after `ROUNDS` rounds; an empty one stays where it was."""
    distinct = np.unique(values, axis=0)
    centres = distinct[np.sort(rng.permutation(len(distinct))[:k])]
    if len(distinct) <= k:
        return centres
    for _ in range(ROUNDS):
        of = nearest(values, centres)
        order = np.argsort(of, kind="stable")
        present, first = np.unique(of[order], return_index=True)
        sums = np.add.reduceat(values[order].astype(np.float64), first, axis=0)
        counts = np.diff([*first.tolist(), len(values)])
        centres[present] = (sums / counts[:, np.newaxis]).astype(np.float32)
    return centres


def nearest(values: Floats, centres: Floats) -> NDArray[np.int64]:
    """Return the nearest of ``centres`` to each of ``values``, ``(n,)`` int64, in blocks of bounded memory."""
    lengths = np.einsum("ij,ij->i", centres, centres)
    found = np.empty(len(values), np.int64)
    rows = max(1, (1 << 22) // len(centres))
    for start in range(0, len(values), rows):
        squares = values[start : start + rows] @ (-2 * centres.T)
        squares += lengths
        found[start : start + rows] = squares.argmin(axis=1)
    return found


def assign(values: Floats, cells: Floats, words: Floats, starts: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Return the word of each descriptor, ``(n,)`` uint32: the nearest in its `PROBED` nearest cells.

    Args:
        values: ``(n, dim)`` float32.
        cells: ``(cells, dim)`` float32.
        words: ``(words, dim)`` float32.
        starts: ``(cells + 1,)`` int64.
    """
    best = np.full(len(values), np.inf, np.float32)
    found = np.zeros(len(values), np.uint32)
    doubled = -2 * values  # and not the words, which are more: a factor of 2 rounds nothing
    squares = doubled @ cells.T + np.einsum("ij,ij->i", cells, cells)
    n = min(PROBED, len(cells))
    probed = np.argpartition(squares, n - 1, axis=1)[:, :n].ravel()
    order = np.argsort(probed, kind="stable")
    borders = np.searchsorted(probed[order], np.arange(len(cells) + 1))
    for cell in np.flatnonzero((np.diff(borders) > 0) & (np.diff(starts) > 0)).tolist():
        rows = order[borders[cell] : borders[cell + 1]] // n
        own = words[starts[cell] : starts[cell + 1]]
        away = doubled[rows] @ own.T
        away += np.einsum("ij,ij->i", own, own)
        word = away.argmin(axis=1)
        least = away[np.arange(len(rows)), word]
        nearer = least < best[rows]
        best[rows[nearer]] = least[nearer]
        found[rows[nearer]] = word[nearer] + starts[cell]
    return found


def rotation(dim: int, *, seed: int) -> Floats:
    """Return `BITS` random directions ``(dim, BITS)`` float32: orthogonal ones, as far as ``dim`` allows."""
    square = np.random.default_rng(seed).normal(size=(max(dim, BITS), max(dim, BITS)))
    q, r = np.linalg.qr(square)
    q *= np.sign(np.diag(r))
    return np.ascontiguousarray(q[:dim, :BITS]).astype(np.float32)


def signatures(values: Floats, words: Floats, of: NDArray[np.uint32], directions: Floats) -> NDArray[np.uint8]:
    """Return the signature of each descriptor, ``(n, 8)`` uint8: a bit for each direction, the first one highest.

    Args:
        values: ``(n, dim)`` float32.
        words: ``(words, dim)`` float32.
        of: ``(n,)`` uint32, the word of each descriptor.
        directions: ``(dim, 64)`` float32.
    """
    return np.packbits((values - words[of]) @ directions > 0, axis=1)

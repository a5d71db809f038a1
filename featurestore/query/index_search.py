"""Search through the index: a shortlist by votes, in which the quick check by scale and angle comes first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from featurestore.matching import Features, count_inliers
from featurestore.query.exact_search import Shortlist
from featurestore.query.selection import Selection
from featurestore.query.store_index import Rows, StoreIndex
from featurestore.retrieval import LARGE, Neighbours, Votes, count_votes, effort, merge_neighbours, unpack
from featurestore.rows import KEYPOINT

NEIGHBOURS = 32  # entries of the index that a descriptor of the query may vote by
LEAST_NEIGHBOURS = 16  # the same in a large query
MOST_NEIGHBOURS = 1024  # the same, of a search among some of the images
N_WORDS = 3  # whose entries are compared with a descriptor
N_WORDS_OF_FEW = 6  # the same, in an index of fewer words than `MANY`
MANY = 32_768  # a codebook of 65,536 lacks a few, since small cells have fewer words
QUICK = 100  # images that are checked by scale and angle
MOST_MATCHES = 128  # of an image, the nearest, that the quick check looks at: its time grows with their square
LAST = 10  # images that a descriptor votes for by exact distances, of those that are checked
POWER = 4  # of these votes
AGREEING = 8  # inliers of the quick check from which on an image is ranked by them, and not by its votes


def search_index(
    query: Features, selection: Selection, index: StoreIndex, *, most: int, without: int | None = None
) -> Shortlist:
    """Return the images of a selection that most descriptors of the query vote for, those that agree first.

    Args:
        query: with descriptors in the space of the codes.
        selection: of codes.
        index: of the store.
        most: images to return.
        without: the ``image_id`` of an image to leave out.

    Raises:
        MissingDependency: faiss is not installed.
    """
    rows = index.rows(selection)
    itself = _row_of(selection, rows, without)
    n_images = rows.n - (itself >= 0)
    n_missing = int(sum(piece.stop - piece.start for piece in selection.pieces if piece.path is None))
    if not n_images:
        return Shortlist(np.empty(0, np.int64), np.empty(0), 0, n_missing)
    k = effort(NEIGHBOURS, len(query), least=LEAST_NEIGHBOURS)
    k = min(MOST_NEIGHBOURS, max(k, k * index.n_images // n_images))
    near = _neighbours(query, index, rows, itself, k)
    votes = count_votes(near.distances, near.image_ids, near.places, most=max(most, QUICK))
    order = _quick_order(query, selection, index, votes)[:most]
    return Shortlist(votes.rows[order], votes.scores[order], n_images, n_missing)


def _row_of(selection: Selection, rows: Rows, image_id: int | None) -> int:
    """Return the row of an image that is searched; -1 for none."""
    if image_id is None or image_id < 0:
        return -1
    return max((int(some[image_id]) for some in (rows.file, rows.memory) if image_id < len(some)), default=-1)


def _neighbours(query: Features, index: StoreIndex, rows: Rows, itself: int, k: int) -> Neighbours:
    """Return neighbours with rows of the selection in place of image ids; -1 for what does not count."""
    parts = []
    for words, of in ((None if index.file is None else index.file.index, rows.file), (index.memory, rows.memory)):
        if words is None:
            continue
        n_words = probed_words(words.n_words)
        most = n_words * LARGE if n_words == N_WORDS else None  # lists of fewer words are short
        part = words.search(query.descriptors, k=k, n_words=n_words, most=most)
        row = of[part.image_ids].astype(np.int64)
        row[row == itself] = -1
        parts.append(Neighbours(np.where(row < 0, np.float32(np.inf), part.distances), row, part.places))
    return parts[0] if len(parts) == 1 else merge_neighbours(parts, k=k)


def probed_words(n_words: int) -> int:
    """Return the number of words whose entries are compared with a descriptor, in an index of ``n_words``."""
    return N_WORDS if n_words >= MANY else N_WORDS_OF_FEW


def _quick_order(query: Features, selection: Selection, index: StoreIndex, votes: Votes) -> list[int]:
    """Return the order of the voted images: those whose matches agree on a similarity, then the others by votes."""
    first, n = votes.borders[:-1][:QUICK], np.diff(votes.borders)[:QUICK]
    extents = index.extents(selection.image_ids[votes.rows[:QUICK]])
    n = np.where((n < AGREEING) | (extents[:, 0] == 0), 0, np.minimum(n, MOST_MATCHES))
    borders = np.concatenate([[0], np.cumsum(n)])
    at = np.repeat(first - borders[:-1], n) + np.arange(borders[-1])
    theirs = unpack(votes.places[at], np.repeat(extents, n, axis=0), KEYPOINT)
    agreeing = np.zeros(len(votes.rows), np.int64)
    agreeing[: len(n)] = count_inliers(query.keypoints[votes.descriptors[at]], theirs, borders)

    def key(i: int) -> tuple[bool, int, int]:
        enough = agreeing[i] >= AGREEING
        return not enough, -int(agreeing[i]) if enough else 0, i

    return sorted(range(len(agreeing)), key=key)


def nearer_first(squares: Sequence[NDArray[np.float32]]) -> NDArray[np.int64]:
    """Return the order of images whose codes have been compared with the query's, ``(m,)`` int64.

    Signatures tell distances roughly, and now they are known. Each descriptor votes once more, ``(1 - d / d11) ** 4``
    with the distance to the eleventh image, or to the farthest of fewer. The power is for the nearest of images that
    are all similar, and the eleventh leaves room for copies of an image in the store. On a tie the order stays.

    Args:
        squares: of each image ``(n,)`` float32, the squared distance of each descriptor to its nearest in the image.
    """
    if len(squares) < 2:
        return np.arange(len(squares))
    distances = np.sqrt(np.maximum(np.stack(squares, axis=1).astype(np.float64), 0))
    last = min(LAST, len(squares) - 1)
    farthest = np.partition(distances, last, axis=1)[:, [last]]
    shares = np.ones(distances.shape)
    np.divide(distances, farthest, out=shares, where=np.isfinite(farthest) & (farthest > 0))
    return np.argsort(-(np.maximum(0, 1 - shares) ** POWER).sum(axis=0), kind="stable")

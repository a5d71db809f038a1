"""Search through the index: a shortlist by votes, in which the quick check by scale and angle comes first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featurestore.matching import Features, fit_similarity
from featurestore.query.exact_search import Shortlist
from featurestore.query.selection import Selection
from featurestore.query.store_index import StoreIndex
from featurestore.retrieval import Neighbours, Votes, count_votes, merge_neighbours, unpack
from featurestore.rows import KEYPOINT

NEIGHBOURS = 32  # entries of the index that a descriptor of the query may vote by
MOST_NEIGHBOURS = 1024  # the same, of a search among some of the images
N_WORDS = 3  # whose entries are compared with a descriptor
N_WORDS_OF_FEW = 6  # the same, in an index of fewer words than `MANY`
MANY = 32_768  # a codebook of 65,536 lacks a few, since small cells have fewer words
QUICK = 100  # images that are checked by scale and angle
MOST_MATCHES = 128  # of an image, the nearest, that the quick check looks at: its time grows with their square
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
    searched = index.image_ids()
    chosen = np.intersect1d(selection.image_ids, searched)
    if without is not None:
        chosen = chosen[chosen != without]
    n_missing = int(sum(piece.stop - piece.start for piece in selection.pieces if piece.path is None))
    if not len(chosen):
        return Shortlist(np.empty(0, np.int64), np.empty(0), 0, n_missing)
    k = min(MOST_NEIGHBOURS, max(NEIGHBOURS, NEIGHBOURS * len(searched) // len(chosen)))
    near, rows = _neighbours(query, selection, index, chosen, k)
    votes = count_votes(near.distances, rows, near.places, most=max(most, QUICK))
    order = _quick_order(query, selection, index, votes)[:most]
    return Shortlist(votes.rows[order], votes.scores[order], len(chosen), n_missing)


def _neighbours(
    query: Features, selection: Selection, index: StoreIndex, chosen: NDArray[np.int64], k: int
) -> tuple[Neighbours, NDArray[np.int64]]:
    """Return neighbours, and the row of the selection that each belongs to; -1 for what does not count."""
    parts = []
    if index.file is not None:
        part = index.file.index.search(query.descriptors, k=k, n_words=probed_words(index.file.index.n_words))
        parts.append(_masked(part, np.isin(part.image_ids, chosen) & ~index.stale(part.image_ids)))
    if index.memory is not None:
        part = index.memory.search(query.descriptors, k=k, n_words=probed_words(index.memory.n_words))
        parts.append(_masked(part, np.isin(part.image_ids, chosen)))
    near = merge_neighbours(parts, k=k)
    return near, np.where(near.image_ids < 0, -1, np.searchsorted(selection.image_ids, near.image_ids))


def _masked(near: Neighbours, counted: NDArray[np.bool_]) -> Neighbours:
    distances = np.where(counted, near.distances, np.float32(np.inf))
    return Neighbours(distances, np.where(counted, near.image_ids, -1), near.places)


def probed_words(n_words: int) -> int:
    """Return the number of words whose entries are compared with a descriptor, in an index of ``n_words``."""
    return N_WORDS if n_words >= MANY else N_WORDS_OF_FEW


def _quick_order(query: Features, selection: Selection, index: StoreIndex, votes: Votes) -> list[int]:
    """Return the order of the voted images: those whose matches agree on a similarity, then the others by votes."""
    agreeing = np.zeros(len(votes.rows), np.int64)
    for i, (ours, theirs) in enumerate(votes.matches()):
        if i == QUICK:
            break
        if len(ours) < AGREEING:
            continue
        ours, theirs = ours[:MOST_MATCHES], theirs[:MOST_MATCHES]
        extent = index.extent(int(selection.image_ids[votes.rows[i]]))
        found = None if extent is None else fit_similarity(query.keypoints[ours], unpack(theirs, extent, KEYPOINT))
        agreeing[i] = 0 if found is None else int(found.inliers.sum())

    def key(i: int) -> tuple[bool, int, int]:
        enough = agreeing[i] >= AGREEING
        return not enough, -int(agreeing[i]) if enough else 0, i

    return sorted(range(len(agreeing)), key=key)

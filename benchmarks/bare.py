"""Bare OpenCV, and nothing else to import: the floor that extract is measured against."""

from __future__ import annotations

import multiprocessing

import cv2


def floor(files: list[str], workers: int) -> int:
    """Decode and detectAndCompute every file; it starts new processes, as a run of the store does."""
    with multiprocessing.get_context("spawn").Pool(workers, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        return sum(pool.imap_unordered(descriptors_of, files, chunksize=1))


def descriptors_of(path: str) -> int:
    """Return the number of descriptors of one file."""
    picture = cv2.imread(path)
    assert picture is not None
    _, descriptors = cv2.SIFT.create().detectAndCompute(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), None)
    return 0 if descriptors is None else len(descriptors)  # type: ignore[redundant-expr]

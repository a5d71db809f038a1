"""The status of a pair of images, and the numbers of inliers that decide it."""

from __future__ import annotations

from enum import StrEnum

MIN_INLIERS = 10  # of `found`
POSSIBLE = 7  # inliers of `possible`


class Verdict(StrEnum):
    """The status of a pair."""

    FOUND = "found"  # at least `MIN_INLIERS`
    POSSIBLE = "possible"  # at least `POSSIBLE`: look at it
    CANDIDATE = "candidate"  # nothing that chance does not give

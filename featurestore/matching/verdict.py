"""The status of a pair of images, and the numbers of inliers that decide it."""

from __future__ import annotations

from enum import StrEnum

MIN_INLIERS = 10  # of `found`
POSSIBLE = 7  # inliers of `possible`


class Verdict(StrEnum):
    """The status of a pair: how many of its matches agree on one transform."""

    FOUND = "found"  # at least `MIN_INLIERS`
    POSSIBLE = "possible"  # at least `POSSIBLE`: look at it
    CANDIDATE = "candidate"  # nothing that chance does not give

    @property
    def meaning(self) -> str:
        """The meaning of the status, for people."""
        return _MEANINGS[self]


_MEANINGS = {
    Verdict.FOUND: "so many matches agree that it shows the same",
    Verdict.POSSIBLE: f"{POSSIBLE} or more matches agree: too few, on one line, all around or of a pattern; look at it",
    Verdict.CANDIDATE: "similar descriptors, but no more matches agree than chance gives: not a match",
}

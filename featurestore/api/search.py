"""Searching verbs of `FeatureStore`: is this image a part of that one? None of them changes the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featurestore.api.read import Reading
from featurestore.errors import StoreBusy
from featurestore.matching import MIN_INLIERS

if TYPE_CHECKING:
    from featurestore.matching import PairMatch
    from featurestore.query import Given, Named


class Searching(Reading):
    """Searching verbs of `FeatureStore`."""

    def match(self, query: Given, image: Given, *, min_inliers: int = MIN_INLIERS) -> PairMatch:
        """Match two images by their codes, and return the similarity transform that the matches agree on.

        Each of the two is the name of an image in the store, the path of a file, pixels ``(height, width, 3)`` uint8 in
        BGR order, or ``(codes, keypoints)`` as of ``encode(image, keypoints=True)``. What is not in the store is
        encoded with the store's current models. A text that is a name in the store and a path is the name.

        Args:
            query: the image that is looked for, such as a detail.
            image: the one that it may be a part of.
            min_inliers: the least inliers of the status ``found``; with fewer, from 7 on, it is ``possible``.

        Raises:
            QueryError: one is neither in the store nor a file, or the arrays can't be used.
            NotReady: a model or the image's codes have not been computed yet, or the codes have no keypoints.
            NothingUsable: a file can't be used, or has no keypoints; the message says why.
        """
        from featurestore.matching import check_pair
        from featurestore.system import one_blas_thread

        one, other = self._features(query), self._features(image)
        with one_blas_thread():  # several threads would change the last bits
            return check_pair(one.features, other.features, min_inliers=min_inliers)

    def _features(self, given: Given) -> Named:
        from featurestore.query import features_of

        lookup = self._current_lookup()
        try:
            return features_of(lookup, given)
        except StoreBusy:  # a run replaced the partition after the catalog was read
            return features_of(self._current_lookup(other_than=lookup), given)

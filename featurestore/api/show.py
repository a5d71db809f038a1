"""Showing verbs of `FeatureStore`: pictures of its images, with keypoints and with matches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featurestore.api.search import Searching
from featurestore.drawing import LONGEST
from featurestore.matching import MIN_INLIERS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from featurestore.drawing import Picture
    from featurestore.matching import PairMatch
    from featurestore.query import Given


class Showing(Searching):
    """Showing verbs of `FeatureStore`."""

    def show(self, filename: str, stage: str | None = None, *, longest: int = LONGEST) -> Picture:
        """Return an image with its keypoints: each a circle of its size, and a radius in the direction of its angle.

        Example::

            store.show("monet/lilies.jpg")  # a notebook displays it
            store.show("monet/lilies.jpg").save("lilies.png")

        Args:
            filename: of an image in the store.
            stage: whose keypoints. Those of a later stage than ``extract`` are orange, over all that ``extract`` found,
                in blue; None is the stage that makes the codes.
            longest: pixels of the picture's longer side, at most.

        Raises:
            QueryError: there is no such image or stage.
            NotReady: the stage has not been computed for it, or keeps no keypoints.
            NothingUsable: the file can't be used, or is another one than was extracted.
        """
        from featurestore.query import check_count, picture_of

        check_count("longest", "pixels", longest)
        return self._looked_up(lambda lookup: picture_of(lookup, filename, stage=stage, longest=longest))

    def pixels(self, filename: str) -> NDArray[np.uint8]:
        """Return the pixels of an image, ``(height, width, 3)`` uint8 in BGR order: those that were extracted.

        Raises:
            QueryError: there is no such image.
            NothingUsable: the file can't be used, or is another one than was extracted.
        """
        from featurestore.query import pixels_of

        return self._looked_up(lambda lookup: pixels_of(lookup, filename))

    def show_match(
        self,
        query: Given,
        image: Given,
        match: PairMatch | None = None,
        *,
        min_inliers: int = MIN_INLIERS,
        longest: int = LONGEST,
    ) -> Picture:
        """Return two images side by side, with a line for each of the 200 nearest matches that agree.

        The query's outline in the image is green, if they match.

        Args:
            query: as in `match`, but for codes, which have no pixels.
            image: as ``query``.
            match: of the two, like ``hit.match`` of a search; None matches them.
            min_inliers: as in `match`.
            longest: pixels of the longer side of each image, at most.

        Raises:
            QueryError: as in `match`, or one of the two has no pixels.
            NotReady: as in `match`.
            NothingUsable: as in `match`, or a file is another one than was extracted.
        """
        from featurestore.query import check_count, picture_of_match

        check_count("longest", "pixels", longest)
        found = self.match(query, image, min_inliers=min_inliers) if match is None else match
        return self._looked_up(lambda lookup: picture_of_match(lookup, query, image, found, longest=longest))

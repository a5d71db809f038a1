"""Searching verbs of `FeatureStore`: which image is this a part of?

`index` and `keep_pairs` change the store: its recipe, and the file of found pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from featurestore.api.read import Reading
from featurestore.matching import MIN_INLIERS

if TYPE_CHECKING:
    from featurestore.matching import PairMatch
    from featurestore.query import Given, Named, SearchResult


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
        from featurestore.query import check_count
        from featurestore.system import one_blas_thread

        check_count("min_inliers", "inliers", min_inliers)
        one, other = self._features(query), self._features(image)
        with one_blas_thread():  # several threads would change the last bits
            return check_pair(one.features, other.features, min_inliers=min_inliers)

    def search(
        self,
        query: Given,
        *,
        top: int = 10,
        where: str | None = None,
        min_inliers: int = MIN_INLIERS,
        method: Literal["auto", "exact", "index"] = "auto",
    ) -> SearchResult:
        """Search the store for the images that a query shows a part of, best first.

        Every descriptor of the query votes for the images that have descriptors near it. The images with most votes are
        checked as by `match`, and those that pass come first. No check drops an image: if nothing in the store matches,
        ``found`` of the result is empty, and ``hits`` has the candidates. A query from the store does not find itself.

        Example::

            for hit in store.search("detail.jpg", where="artist = 'Claude Monet'").found:
                print(hit.filename, hit.inliers, hit.columns["title"])

        Args:
            query: as in `match`.
            top: hits to return, of which up to 20 are checked.
            where: SQL over the columns of the view ``images``, as in `select`; None searches all.
            min_inliers: as in `match`.
            method: ``exact`` compares the query with every descriptor of the store. ``index`` compares words and
                signatures; the store needs the stages that `index` adds, and faiss. ``auto`` is ``index`` where there
                is one that covers nearly all of the store, else ``exact``.

        Raises:
            MissingDependency: the index was asked for, and faiss is not installed.
            QueryError: the query or ``where`` can't be used.
            NotReady: no codes have been computed yet, or they have no keypoints; or there is no index.
            NothingUsable: the file can't be used, or has no keypoints; the message says why.
        """
        from featurestore.query import check_search, search_store

        check_search(method, top=top, min_inliers=min_inliers)
        return self._looked_up(
            lambda lookup: search_store(lookup, query, top=top, where=where, min_inliers=min_inliers, method=method)
        )

    def index(self, *, quiet: bool = True) -> tuple[str, ...]:
        """Add the stages of an index to the recipe, and return their names; none if it has them already.

        From then on `run` fits ``fit_words`` on the codes of train images, and computes ``words``: the word and the
        64-bit signature of each code, and writes the index file. Nothing that was computed before becomes stale. If
        words have been computed already, the file is made now.

        Args:
            quiet: do not report a wait for another machine's sign of life.

        Raises:
            NotEnoughSpace: the disk is full; the index that was there stays.
            StoreBusy: another process is changing the store.
        """
        from featurestore.api.index_file import assemble_index
        from featurestore.pipeline import add_index
        from featurestore.progress import reporter

        with self._held("index", reporter(quiet=quiet)) as context:
            added = add_index(context)
            if not added:
                assemble_index(context)
            return added

    def keep_pairs(
        self,
        rows: Sequence[tuple[int, int, int, float]],
        *,
        variant: str,
        chunks: Mapping[int, str],
        quiet: bool = True,
    ) -> bool:
        """Keep pairs of images that show the same for the view ``duplicates``, in place of those that were kept before.

        `featurestore.apps.pairs` calls this with what it has found. The view shows a pair as long as both images have
        the codes that were compared.

        Args:
            rows: of each pair the ``image_id`` of the query and of the image that was found for it, the inliers, and
                the votes. Of two rows for the same images the one with more inliers is kept.
            variant: of the codes that were compared.
            chunks: by ``chunk_id`` the payload of each partition of codes that was compared; see the view
                ``partitions``.
            quiet: do not report a wait for another machine's sign of life.

        Returns:
            Whether these are not the pairs that were kept already.

        Raises:
            NotEnoughSpace: the disk is full; the pairs that were there stay.
            NotWritable: this user may not write the store.
            StoreBusy: another process is changing the store.
            UntrustedStore: the store was opened as one, and can't be changed.
        """
        from featurestore.progress import Silent, reporter
        from featurestore.storage import FoundPairs, each_once, find_pairs_file, write_pairs_file

        self._refuse_untrusted("pairs")
        found = FoundPairs(variant, chunks, each_once(rows))
        if find_pairs_file(self._context(Silent()).root, variant) == found.name:
            return False
        with self._held("pairs", reporter(quiet=quiet)) as context:
            write_pairs_file(context.root, found)
        return True

    def _features(self, given: Given) -> Named:
        from featurestore.query import features_of

        return self._looked_up(lambda lookup: features_of(lookup, given))

"""Search: the images of a store that a query shows a part of, checked one by one."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featurestore.arrow_arrays import arrow_array
from featurestore.catalog import HeldCatalog
from featurestore.errors import NotReady, QueryError
from featurestore.formatting import counted
from featurestore.matching import MIN_INLIERS, PairMatch, Verdict, check_matches, mutual_matches
from featurestore.notebook import html_lines, html_table
from featurestore.query.exact_search import Shortlist, search_exactly
from featurestore.query.features import Given, Named, features_of, features_to_match
from featurestore.query.index_search import nearer_first, search_index
from featurestore.query.lookup import Image, Lookup
from featurestore.query.names import check_count
from featurestore.query.result_files import as_json_value
from featurestore.query.selection import Selection, select_images, with_columns
from featurestore.query.store_index import StoreIndex
from featurestore.retrieval import effort, has_faiss
from featurestore.system import command_line, one_blas_thread

THREADS = 4  # that check images, at most
CHECKED = 20  # images of the shortlist whose codes are compared with the query's, at most
LEAST_CHECKED = 10  # the same, at least, of a large query through the index
RANKED = 6  # inliers from which on an image is ranked by them, and not by its votes
METHODS = ("auto", "exact", "index")
IN_MEMORY = 0.1  # of the images: how many the index file may lack before `auto` prefers the exact search
SMALL = 5_000  # images in memory, in place of a file, in which `auto` searches through the index nevertheless
LEAST_CHOSEN = 1 / 32  # of the images, below which `auto` prefers the exact search
HEADER = ("rank", "status", "inliers", "score", "filename")  # of a table of hits
NOT_SHOWN = ("image_id", "filename", "chunk_id")  # columns of the view that are not of the dataset, or apart


@dataclass(frozen=True)
class Hit:
    """One image of a result.

    Args:
        rank: from 1.
        image_id: of the image.
        filename: of the image, in the dataset.
        score: votes of the query's descriptors, each at most 1.
        match: the check of the query against the image; None if it was not checked.
        columns: the dataset's columns of the image.
    """

    rank: int
    image_id: int
    filename: str
    score: float
    match: PairMatch | None
    columns: Mapping[str, Any]

    @property
    def status(self) -> Verdict:
        """``found``, ``possible`` or ``candidate``, which one that was not checked is too."""
        return Verdict.CANDIDATE if self.match is None else self.match.status

    @property
    def inliers(self) -> int:
        """Inliers that count; 0 if it was not checked."""
        return 0 if self.match is None else self.match.inliers

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        checked = {} if self.match is None else self.match.as_dict()
        head = {"rank": self.rank, "image_id": self.image_id, "filename": self.filename}
        own = {"status": str(self.status), "inliers": self.inliers, "score": round(self.score, 4)}
        columns = {name: as_json_value(value) for name, value in self.columns.items()}
        return {**head, **own, **{name: checked[name] for name in checked if name not in own}, "columns": columns}


@dataclass(frozen=True)
class SearchResult:
    """The hits of a query, best first.

    Args:
        query: what the query is called.
        hits: those found, then others by their inliers or votes.
        n_descriptors: of the query.
        n_images: images of the store that were compared.
        n_missing: chosen images that were left out, since their codes have not been computed.
        method: ``exact``, or ``index``.
        seconds: wall time of ``encode``, which is extraction for a file, ``search`` and ``check``.
        note: what makes searches slower than they have to be, in one line; None if nothing does.
    """

    query: str
    hits: tuple[Hit, ...]
    n_descriptors: int
    n_images: int
    n_missing: int
    method: str
    seconds: Mapping[str, float]
    note: str | None = None

    @property
    def found(self) -> tuple[Hit, ...]:
        """Hits with the status ``found``; none if nothing in the store matches."""
        return tuple(hit for hit in self.hits if hit.status is Verdict.FOUND)

    def _repr_html_(self) -> str:
        """Return a table of the hits, for a notebook."""
        hits = [(hit.rank, hit.status, hit.inliers, f"{hit.score:.1f}", hit.filename) for hit in self.hits]
        told = [v for v in Verdict if v is not Verdict.FOUND and any(hit.status is v for hit in self.hits)]
        head = f"{self.query}: {len(self.found):,} found among {counted(self.n_images, 'image')}"
        table = html_table(HEADER, hits, numbers=[name in ("rank", "inliers", "score") for name in HEADER])
        return html_lines([head]) + table + html_lines([f"{verdict}: {verdict.meaning}" for verdict in told])

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "query": self.query,
            "found": [hit.filename for hit in self.found],
            "n_descriptors": self.n_descriptors,
            "n_images": self.n_images,
            "n_missing": self.n_missing,
            "method": self.method,
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "hits": [hit.as_dict() for hit in self.hits],
        }


def check_search(method: str, *, top: int, min_inliers: int) -> None:
    """Check the arguments of a search before anything is read.

    Raises:
        QueryError: there is no such method, or a number is no whole one of at least 1.
    """
    if method not in METHODS:
        raise QueryError(f"there is no method {method!r} of searching; they are {', '.join(METHODS)}")
    check_count("top", "hits", top)
    check_count("min_inliers", "inliers", min_inliers)


def search_store(
    lookup: Lookup,
    given: Given,
    *,
    top: int,
    where: str | None = None,
    min_inliers: int = MIN_INLIERS,
    method: str = "auto",
) -> SearchResult:
    """Search the store for an image; see `FeatureStore.search`.

    Raises:
        MissingDependency: the index was asked for, and faiss is not installed.
        StoreBusy: a run has replaced a partition in the meantime.
        QueryError, NotReady, NothingUsable: see `features_of` and `select_images`.
    """
    times = [time.perf_counter()]
    selection = lookup.whole if where is None else select_images(lookup.context, where=where, allow_missing=True)
    times.append(time.perf_counter())
    query = features_of(lookup, given)
    times.append(time.perf_counter())
    without = None if query.filename is None else lookup.find(query.filename)[0]
    most = max(top, CHECKED)
    with one_blas_thread():  # several threads would change the last bits
        index = _index_for(lookup, selection, method)
        if index is None:
            values, decoder = query.features.descriptors, lookup.decoder(None)
            shortlist = search_exactly(values, selection, decoder, most=most, without=without)
        else:
            shortlist = search_index(query.features, selection, index, most=most, without=without)
        times.append(time.perf_counter())
        candidates = _chosen(selection, shortlist.rows[:CHECKED])
        n = CHECKED if index is None else n_checked(len(query.features), top)
        checked, squares = _checked(lookup, query, candidates[:n], min_inliers)
        n_found = sum(match.status is Verdict.FOUND for match in checked)
        if n < len(candidates) and 2 * n_found >= n:  # as of many copies
            more = _checked(lookup, query, candidates[n:], min_inliers)
            checked, squares = checked + more[0], squares + more[1]
        if index is not None:
            order = nearer_first(squares)
            shortlist, checked = shortlist.reordered(order), [checked[i] for i in order]
    times.append(time.perf_counter())
    chosen, encode, search, check = (times[i + 1] - times[i] for i in range(4))
    seconds = {"encode": encode, "search": chosen + search, "check": check}
    hits = _hits(lookup, selection, shortlist, checked, top)
    return SearchResult(
        query=query.name,
        hits=hits,
        n_descriptors=len(query.features),
        n_images=shortlist.n_images,
        n_missing=shortlist.n_missing,
        method="exact" if index is None else "index",
        seconds=seconds,
        note=None if method == "exact" else _note(lookup, index),
    )


def _index_for(lookup: Lookup, selection: Selection, method: str) -> StoreIndex | None:
    """Return the index to search through; None for the exact search.

    Raises:
        NotReady: the index was asked for, and the store has none.
        MissingDependency: the index was asked for, and faiss is not installed.
    """
    if method == "exact":
        return None
    coverage = lookup.coverage
    if method == "index":
        if coverage is None:
            store = lookup.context.root.path
            raise NotReady(
                "the store has no index, or its words have not been learnt yet; make it with: "
                f"{command_line('index', store)}, then: {command_line('run', store)}"
            )
        return lookup.index
    if coverage is None or not has_faiss():
        return None
    lacking = coverage.n_images - coverage.n_in_file
    if lacking > max(SMALL, IN_MEMORY * coverage.n_images):
        return None
    return lookup.index if len(selection.images) >= LEAST_CHOSEN * coverage.n_images else None


def _note(lookup: Lookup, index: StoreIndex | None) -> str | None:
    """Return what an index file would save, where there is none, or one that lacks much; None if it lacks little."""
    coverage = lookup.coverage
    if coverage is None or not coverage.old or isinstance(lookup.context.catalog, HeldCatalog) or not has_faiss():
        return None
    how = "compared exactly" if index is None else "indexed in memory, as each process does again"
    n, there = coverage.n_images, coverage.n_in_file
    what = "all images were" if not there else f"{n - there:,} of {counted(n, 'image')} were"
    return f"{what} {how}; make the index file with: {command_line('index', lookup.context.root.path)}"


def n_checked(n_descriptors: int, top: int) -> int:
    """Return the number of candidates of the index whose codes are compared with the query's, from 10 to 20.

    Many descriptors say more than few, and each comparison takes longer, so that a large query has fewer of them. The
    hits that are asked for are among them.

    Args:
        n_descriptors: of the query.
        top: hits that are asked for.
    """
    return min(CHECKED, max(effort(CHECKED, n_descriptors, least=LEAST_CHECKED), top))


def _chosen(selection: Selection, rows: NDArray[np.int64]) -> pa.Table:
    return selection.images.take(arrow_array(rows))


def _checked(
    lookup: Lookup, query: Named, images: pa.Table, min_inliers: int
) -> tuple[list[PairMatch], list[NDArray[np.float32]]]:
    """Return the checks of some images, and of each the squared distances of `Matches`."""
    columns = (images[name].to_pylist() for name in ("image_id", "chunk_id", "filename"))

    def check(image: Image) -> tuple[PairMatch, NDArray[np.float32]]:
        features = features_to_match(lookup, image)
        matches = mutual_matches(query.features.descriptors, features.descriptors)
        return check_matches(query.features, features, matches, min_inliers=min_inliers), matches.squares

    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:  # one reads while another one compares
        found = list(pool.map(check, map(Image, *columns)))
    return [match for match, _ in found], [squares for _, squares in found]


def _hits(
    lookup: Lookup, selection: Selection, shortlist: Shortlist, checked: Sequence[PairMatch], top: int
) -> tuple[Hit, ...]:
    order = ranking(checked, len(shortlist.rows))[:top]
    images = _chosen(selection, shortlist.rows[order])
    columns = _columns(lookup, selection, images)
    return tuple(
        Hit(
            rank=rank,
            image_id=int(images["image_id"][rank - 1].as_py()),
            filename=str(images["filename"][rank - 1].as_py()),
            score=float(shortlist.scores[i]),
            match=checked[i] if i < len(checked) else None,
            columns=columns[int(images["image_id"][rank - 1].as_py())],
        )
        for rank, i in enumerate(order, 1)
    )


def ranking(checked: Sequence[PairMatch], n: int) -> list[int]:
    """Return the order of a shortlist of ``n`` images after its first ones were checked.

    Found ones are first, then those with enough inliers, both by their number; the others stay in the order of their
    votes. None is dropped: a check that fails says less than the votes do.
    """

    def key(i: int) -> tuple[bool, bool, int, int]:
        inliers = checked[i].inliers if i < len(checked) else 0
        found = i < len(checked) and checked[i].status is Verdict.FOUND
        return not found, inliers < RANKED, -inliers if inliers >= RANKED else 0, i

    return sorted(range(n), key=key)


def _columns(lookup: Lookup, selection: Selection, images: pa.Table) -> dict[int, dict[str, Any]]:
    """Return the dataset's columns of each image, by ``image_id``."""
    wanted = [name for name in selection.dataset_columns if name.lower() not in NOT_SHOWN]
    chosen = replace(selection, images=images.sort_by("image_id"))
    table = with_columns(lookup.context, chosen, wanted).images if len(images) else images
    known = [name for name in table.column_names if name in wanted]
    return {row["image_id"]: {name: row[name] for name in known} for row in table.to_pylist()}

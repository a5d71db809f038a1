"""Evaluate searches of a store against a list of pairs: which image each query should find."""

from __future__ import annotations

import csv
import math
import os
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from featurestore.api import FeatureStore
from featurestore.errors import FeatureStoreError, QueryError
from featurestore.system import is_file, why_no_file

DEPTH = 100  # hits of each query
DELIMITERS = ",;\t"  # of a list; the first one where the header has none
DEPTHS = (1, 5, DEPTH)  # among whose first hits a ref is recalled
ALL = "all"
Z = 1.96  # of a 95 % interval


@dataclass(frozen=True)
class Outcome:
    """The result of one query.

    Args:
        query: as in the list.
        kind: its class; ``all`` if there are none.
        refs: the images that show the same, by their filenames in the store; none if nothing does.
        ranks: of those among the first hundred hits, ascending.
        found: of the images with the status ``found`` those in ``refs``.
        wrong: the others with that status.
        seconds: of search and check, without ``encode``.
        encode: seconds to make its codes.
        error: why it could not be searched for; None if it could.
    """

    query: str
    kind: str
    refs: tuple[str, ...]
    ranks: tuple[int, ...] = ()
    found: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    seconds: float = 0.0
    encode: float = 0.0
    error: str | None = None

    def average_precision(self) -> float:
        """Return the mean of the precisions at the rank of each of ``refs``; 0 for one that has none."""
        return sum(i / rank for i, rank in enumerate(self.ranks, 1)) / max(1, len(self.refs))


@dataclass(frozen=True)
class Scores:
    """The scores of a class of queries. Shares are of the queries with ``refs``, and NaN if there are none.

    Args:
        kind: the class; ``all`` for all queries together.
        n: queries with ``refs``; one that can't be searched for counts as not found.
        n_failed: of them, those that can't be searched for.
        recall: shares with one of ``refs`` among the first 1, 5 and 100 hits.
        recall_interval: 95 % interval of recall at 1 (Wilson).
        mean_average_precision: over the first hundred hits.
        found: share with one of ``refs`` found.
        found_interval: its 95 % interval.
        n_wrong: queries for which an image that is not in ``refs`` was found, of all ``n`` and ``n_negative``.
        n_negative: queries without ``refs``, for which nothing should be found.
        seconds: median of search and check.
        encode: median of making the codes.
    """

    kind: str
    n: int
    n_failed: int
    recall: Mapping[int, float]
    recall_interval: tuple[float, float]
    mean_average_precision: float
    found: float
    found_interval: tuple[float, float]
    n_wrong: int
    n_negative: int
    seconds: float
    encode: float


@dataclass(frozen=True)
class Evaluation:
    """The outcomes of all queries, and the scores of each class, those of all queries last.

    Args:
        outcomes: in the order of the list.
        scores: by class.
        absent: refs that are not in the store, whose rows were left out.
    """

    outcomes: tuple[Outcome, ...]
    scores: tuple[Scores, ...]
    absent: tuple[str, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON. A share of no queries is None."""
        none = {"recall": dict.fromkeys(DEPTHS), "mean_average_precision": None, "found": None}
        return {**asdict(self), "scores": [{**asdict(one), **({} if one.n else none)} for one in self.scores]}


def evaluate(
    store: FeatureStore,
    pairs: str | os.PathLike[str],
    *,
    kind: str | None = None,
    method: Literal["auto", "exact", "index"] = "auto",
    say: Callable[[str], None] = lambda line: None,
) -> Evaluation:
    """Search for each query of a list, and compare the hits with the images that it should find.

    Args:
        store: that is searched.
        pairs: a CSV with the columns ``query`` and ``ref``, a row for each pair, separated by commas, semicolons or
            tabs. A query is the name of an image in the
            store or a file, relative to this folder or to that of the list. A ref is the name of an image in the store,
            or a path whose last part is the name of one image. A row without a ref is a query that nothing should be
            found for.
        kind: the column with the class of each query; None is ``class`` if there is one.
        method: of `FeatureStore.search`.
        say: is told of each query that can't be searched for.

    Raises:
        QueryError: the list can't be read, has no such column, or no row with an image of the store.
        NotReady: the store can't be searched yet.
    """
    rows, absent = read_pairs(store, Path(pairs), kind)
    outcomes, told = [], set[str]()
    for query, (of, refs) in rows.items():
        outcome = _ask(store, located_query(query, Path(pairs)), query, of, tuple(refs), method)
        if outcome.error is not None and outcome.error not in told:  # one that is the store's is every query's
            told.add(outcome.error)
            say(outcome.error)
        outcomes.append(outcome)
    if all(outcome.error is not None for outcome in outcomes):
        raise QueryError(f"no query of {pairs} can be searched for; the first: {outcomes[0].error}")
    kinds = sorted({outcome.kind for outcome in outcomes} - {ALL})
    some = [scores_of(one, [outcome for outcome in outcomes if outcome.kind == one]) for one in kinds]
    return Evaluation(tuple(outcomes), (*some, scores_of(ALL, outcomes)), tuple(absent))


def scores_of(kind: str, outcomes: Sequence[Outcome]) -> Scores:
    """Return the scores of some outcomes."""
    asked = [outcome for outcome in outcomes if outcome.refs]
    answered = [outcome for outcome in outcomes if outcome.error is None]
    n = len(asked)

    def count(k: int) -> int:
        return sum(bool(outcome.ranks) and outcome.ranks[0] <= k for outcome in asked)

    n_found = sum(bool(outcome.found) for outcome in asked)
    return Scores(
        kind=kind,
        n=n,
        n_failed=sum(outcome.error is not None for outcome in asked),
        recall={k: _share(count(k), n) for k in DEPTHS},
        recall_interval=wilson(count(1), n),
        mean_average_precision=_share(sum(outcome.average_precision() for outcome in asked), n),
        found=_share(n_found, n),
        found_interval=wilson(n_found, n),
        n_wrong=sum(bool(outcome.wrong) for outcome in outcomes),
        n_negative=len(outcomes) - n,
        seconds=statistics.median([outcome.seconds for outcome in answered] or [0.0]),
        encode=statistics.median([outcome.encode for outcome in answered] or [0.0]),
    )


def _share(count: float, n: int) -> float:
    return count / n if n else math.nan


def wilson(count: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of ``count`` in ``n`` (Wilson 1927); from 0 to 1 if ``n`` is 0."""
    if not n:
        return 0.0, 1.0
    share, square = count / n, Z * Z / n
    middle = (share + square / 2) / (1 + square)
    half = Z * ((share * (1 - share) / n + square / (4 * n)) ** 0.5) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)


def _ask(store: FeatureStore, given: str | Path, query: str, kind: str, refs: tuple[str, ...], method: Any) -> Outcome:
    try:
        result = store.search(given, top=DEPTH, method=method)
    except FeatureStoreError as error:
        return Outcome(query, kind, refs, error=" ".join(str(error).split()))
    found = [hit.filename for hit in result.found]
    return Outcome(
        query,
        kind,
        refs,
        ranks=tuple(hit.rank for hit in result.hits if hit.filename in refs),
        found=tuple(name for name in found if name in refs),
        wrong=tuple(name for name in found if name not in refs),
        seconds=result.seconds["search"] + result.seconds["check"],
        encode=result.seconds["encode"],
    )


def located_query(query: str, pairs: Path) -> str | Path:
    """Return a query as `FeatureStore.search` takes it: a file beside the list is its path."""
    beside = pairs.parent / query
    return beside if not Path(query).is_file() and beside.is_file() else query


def read_pairs(
    store: FeatureStore, pairs: Path, kind: str | None
) -> tuple[dict[str, tuple[str, list[str]]], list[str]]:
    """Return the class and the refs of each query, and the refs that are not in the store."""
    if not is_file(pairs):  # a pipe would be waited for
        raise QueryError(f"{why_no_file(str(pairs))}; name a list of pairs, a CSV file in UTF-8")
    try:
        with pairs.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            file.seek(0)
            reader = csv.DictReader(file, delimiter=max(DELIMITERS, key=header.count))
            columns, lines = list(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise QueryError(f"{pairs} can't be read as a list of pairs ({error}); name a CSV file in UTF-8") from error
    wanted = ["query", "ref", *([kind] if kind is not None else [])]
    if lost := [name for name in wanted if name not in columns]:
        raise QueryError(
            f"{pairs} has no column {lost[0]!r}; its columns are {', '.join(columns) or 'none'}, and a list has the "
            "columns query and ref"
        )
    if not lines:
        raise QueryError(f"{pairs} has no rows; give it one for each query and an image that it should find")
    column = kind or "class"
    names = [name for (name,) in store.sql("SELECT filename FROM images").fetchall()]
    known, last = set(names), defaultdict(list)
    for name in names:
        last[Path(name).name].append(name)
    rows: dict[str, tuple[str, list[str]]] = {}
    absent: list[str] = []
    for line in lines:
        query, ref = line["query"] or "", line["ref"] or ""
        same = [ref] if ref in known else last.get(Path(ref).name, [])
        if ref and len(same) != 1:
            absent.append(ref)
            continue
        _, refs = rows.setdefault(query, (line.get(column) or ALL, []))
        refs += [name for name in same if name not in refs]
    if not rows:
        raise QueryError(f"no row of {pairs} has a ref that is an image of the store; a ref is a filename of it")
    return rows, absent

"""Every image of a store against the others: the pairs that show the same, in a file that grows query by query."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from featurestore.api import FeatureStore
from featurestore.apps.growing_file import GrowingFile, growing
from featurestore.errors import (
    NotEnoughSpace,
    NotReady,
    NotWritable,
    OutputError,
    QueryError,
    StoreBusy,
    UntrustedStore,
)
from featurestore.matching import MIN_INLIERS, Verdict
from featurestore.progress import reporter
from featurestore.query import check_search
from featurestore.system import StrPath, command_line, located

COLUMNS = ("query", "ref", "inliers", "score", "status")
FORMATS = ("csv", "txt")
LOOK = 100  # queries after which the store is compared with what it was

Form = Literal["csv", "txt"]


@dataclass(frozen=True)
class Pairs:
    """The result of `pairs`.

    Args:
        path: of the file.
        n_queries: images with descriptors, all of which were searched for.
        n_before: of them, those that an earlier call had searched for.
        n_found: pairs found; with the format ``txt`` each once, else once for each direction that finds it.
        n_missing: images that were left out, since their codes have not been computed.
        not_kept: why the view ``duplicates`` does not show these pairs; None if it does.
        n_rows: of the file; with the format ``csv`` those of ``possible`` and ``candidate`` hits too. None if an
            earlier version has begun the file.
    """

    path: Path
    n_queries: int
    n_before: int
    n_found: int
    n_missing: int
    not_kept: str | None
    n_rows: int | None = None


@dataclass(frozen=True)
class _Queries:
    """The images to search for, and what decides their results."""

    names: tuple[str, ...]
    ids: tuple[int, ...]
    n_missing: int
    variant: str
    chunks: Mapping[int, str]  # the payload of each chunk of codes
    digest: str


def pairs(
    store: FeatureStore,
    output: StrPath,
    *,
    top: int = 20,
    form: Form = "csv",
    min_inliers: int = MIN_INLIERS,
    method: Literal["auto", "exact", "index"] = "auto",
    force: bool = False,
    quiet: bool = True,
) -> Pairs:
    """Search for every image of a store among the others, and write the hits to a file.

    The file grows by the lines of one query at a time, and ``OUTPUT.progress`` beside it knows how far it is. After a
    kill the same call goes on, and repeats at most the query that was at work; of a file that is complete it does
    nothing. The pairs that are found in a ``csv`` are kept in the store in the end, for the view ``duplicates``.

    Args:
        store: that is searched.
        output: the file. ``csv`` has the columns ``query, ref, inliers, score, status`` and a row for each hit, best
            first. ``txt`` has a line ``query ref`` for each pair that is found, for hloc and COLMAP.
        top: hits of each query.
        form: of the file.
        min_inliers: as of `FeatureStore.search`.
        method: the same.
        force: begin again, whatever the file holds.
        quiet: show no bar.

    Raises:
        NotReady: the store has no codes with keypoints yet, or no index where one is asked for.
        OutputError: the file can't be written, is no unfinished file of these options, or a name has a blank, which
            ``txt`` can't hold; or the store has changed since the file was begun.
        NotEnoughSpace: the disk is full; the same call goes on.
    """
    if form not in FORMATS:
        raise QueryError(f"there is no format {form!r} of pairs; they are {', '.join(FORMATS)}")
    check_search(method, top=top, min_inliers=min_inliers)
    queries = _queries(store)
    if form == "txt":
        refuse_blanks(queries.names)
    made_of = {
        "format": form,
        "top": top,
        "min_inliers": min_inliers,
        "method": method,
        "state of the store": queries.digest,
    }
    path, head = located(output, "a file of pairs"), _line(COLUMNS) if form == "csv" else ""
    with growing(path, made_of=made_of, head=head, store=store.path, force=force) as file:
        before = file.done
        if not before:
            file.notes["n_rows"] = 0
        if not file.complete:
            _search_all(store, file, queries, quiet=quiet)
        n_found, n_rows = file.notes.get("n_found", 0), file.notes.get("n_rows")
        not_kept = _keep(store, path, queries) if form == "csv" else "only pairs of --format csv (form='csv') are kept"
        return Pairs(path, len(queries.names), before, n_found, queries.n_missing, not_kept, n_rows)


def _search_all(store: FeatureStore, file: GrowingFile, queries: _Queries, *, quiet: bool) -> None:
    form, top, min_inliers = (file.made_of[name] for name in ("format", "top", "min_inliers"))
    seen = {frozenset(line.split()) for line in file.read().splitlines()} if form == "txt" else set()
    progress = reporter(quiet=quiet)
    progress.begin("pairs", len(queries.names))
    progress.advance(file.done)
    try:
        for name in queries.names[file.done :]:
            # the first query decides for all of them, so that an index that is made meanwhile changes nothing
            method = file.notes.get("method", file.made_of["method"])
            result = store.search(name, top=top, min_inliers=min_inliers, method=method)
            rows = [(name, hit.filename, hit.inliers, round(hit.score, 4), str(hit.status)) for hit in result.hits]
            found = [row[:2] for row in rows if row[-1] == Verdict.FOUND]
            if form == "txt":
                found = [pair for pair in found if frozenset(pair) not in seen]
                seen |= set(map(frozenset, found))
            file.notes |= {"method": result.method, "n_found": file.notes.get("n_found", 0) + len(found)}
            if "n_rows" in file.notes:
                file.notes["n_rows"] += len(rows if form == "csv" else found)
            file.add("".join(map(_line, rows)) if form == "csv" else "".join(f"{one} {two}\n" for one, two in found))
            progress.advance(1)
            if file.done % LOOK == 0 or file.done == len(queries.names):
                _refuse_change(store, file, queries)
        file.finish()
    finally:
        progress.end(None)


def _queries(store: FeatureStore) -> _Queries:
    images = store.select(allow_missing=True)
    table = images.load(["image_id", "filename", "status", "n_descriptors"])
    rows = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
    with_codes = [(int(image_id), str(name)) for image_id, name, _, n in rows if n]
    if not with_codes:
        raise NotReady(f"no image of the store has codes yet; compute them with: {command_line('run', store.path)}")
    payloads = store.sql(
        f"SELECT chunk_id, payload FROM partitions WHERE stage = '{images.stage}' AND current ORDER BY chunk_id"
    ).fetchall()
    text = json.dumps([images.stage, images.variant, payloads, [row[:2] for row in rows]])
    n_missing = sum(status == "pending" for _, _, status, _ in rows)
    ids, names = zip(*with_codes, strict=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return _Queries(names, ids, n_missing, images.variant, dict(payloads), digest)


def _keep(store: FeatureStore, path: Path, queries: _Queries) -> str | None:
    """Keep the pairs of a complete file for the view ``duplicates``, and return why that was not possible, or None."""
    ids = dict(zip(queries.names, queries.ids, strict=True))
    found: list[tuple[int, int, int, float]] = []
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["status"] == Verdict.FOUND:
                found.append((ids[row["query"]], ids[row["ref"]], int(row["inliers"]), float(row["score"])))
    try:
        store.keep_pairs(found, variant=queries.variant, chunks=queries.chunks)
    except (NotEnoughSpace, NotWritable, StoreBusy, UntrustedStore) as error:
        return str(error)
    return None


def _refuse_change(store: FeatureStore, file: GrowingFile, queries: _Queries) -> None:
    if _queries(store).digest != queries.digest:
        raise OutputError(
            f"the store has changed since {file.path} was begun, so that its lines would not agree; begin it again "
            "with --force (force=True) when no run or ingest is at work"
        )


def refuse_blanks(names: Sequence[str]) -> None:
    """Refuse names that a line of two names can't hold.

    Raises:
        OutputError: one has a blank.
    """
    for name in names:
        if name.split() != [name]:
            raise OutputError(
                f"{name!r} has a blank, and hloc and COLMAP separate the two names of a line by one; rename such "
                "images, and ingest the dataset again, or write a CSV with --format csv (form='csv')"
            )


def _line(row: Sequence[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(row)
    return text.getvalue()

"""Search: degraded parts of pictures among all pictures, and what the index costs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from benchmarks import data
from benchmarks.measure import CORES, Bench, Finding, Spent, at_most, spend, spent
from featurestore import FeatureStore
from featurestore.apps.degraded import KINDS, Kind, Pixels, degraded_part
from featurestore.apps.evaluation import wilson
from featurestore.errors import NothingUsable

AIMS = ((0.97, 0.85), (0.93, 0.80), (0.87, 0.50))  # recall at 1 and share found, by kind of query


def run(bench: Bench) -> list[Finding]:
    """Measure on paintings; queries are parts of them, seeded."""
    n = 6 if bench.quick else 483
    store, cost = indexed(bench.scratch, n)
    (n_codes,) = store.sql("SELECT sum(n_descriptors) FROM partitions WHERE stage = 'words' AND current").fetchall()[0]
    n_bytes = sum(path.stat().st_size for path in (store.path / "index").iterdir())
    findings = [
        Finding(f"fit_words, words and the index file, of {n:,} images", spent([cost])),
        at_most("bytes a descriptor of the index file", [n_bytes / n_codes], 20, " B"),
    ]
    files = list(zip(names(store), data.pictures(bench.scratch)[:n], strict=True))
    for kind, (recall, found) in zip(KINDS, AIMS, strict=True):
        findings += quality(store, files, kind, recall=recall, found=found)
    some = files[:: max(1, n // (2 if bench.quick else 40))]
    return [*findings, *against_exact(store, some), *times(store, some, bench.repetitions)]


def indexed(scratch: Path, n: int) -> tuple[FeatureStore, Spent]:
    """Return a store of the first ``n`` pictures with an index, and what the index took."""
    path = scratch / f"indexed-{n}"
    shutil.rmtree(path, ignore_errors=True)
    store = FeatureStore(shutil.copytree(data.finished(scratch, n).path, path))
    store.index()
    return store, spend(lambda: store.run(workers=CORES))


def names(store: FeatureStore) -> list[str]:
    """Return the names of all images, in the order of the pictures."""
    return [str(name) for (name,) in store.sql("SELECT filename FROM images ORDER BY image_id").fetchall()]


def parts(files: list[tuple[str, Path]], kind: Kind) -> Iterator[tuple[str, Pixels]]:
    """Yield of each picture its name and a degraded part, seeded by its number."""
    for number, (name, path) in enumerate(files):
        picture = cv2.imread(str(path))
        assert picture is not None
        yield name, degraded_part(picture.astype(np.uint8), kind, seed=(number,))


def quality(
    store: FeatureStore, files: list[tuple[str, Path]], kind: Kind, *, recall: float, found: float
) -> list[Finding]:
    """Return recall at 1 and the share of found ones, with 95 % intervals; a query without keypoints is not found."""
    first = n_found = wrong = 0
    for name, pixels in parts(files, kind):
        try:
            result = store.search(pixels, top=5, method="index")
        except NothingUsable:
            continue
        first += result.hits[0].filename == name
        n_found += name in [hit.filename for hit in result.found]
        wrong += any(hit.filename != name for hit in result.found)
    what = f"{len(files):,} parts of {kind.area:.0%} at {kind.side} pixels"
    return [
        share(f"{what}, recall at 1", first, len(files), recall),
        share(f"{what}, found", n_found, len(files), found),
        Finding(f"{what}, for which another picture is found", str(wrong)),
    ]


def share(what: str, count: int, n: int, aim: float) -> Finding:
    """Return the finding that a share should reach ``aim``."""
    low, high = wilson(count, n)
    return Finding(what, f"{count / n:.3f} ({low:.3f} to {high:.3f})", f">= {aim:g}", count / n >= aim)


def against_exact(store: FeatureStore, files: list[tuple[str, Path]]) -> list[Finding]:
    """Return recall at 1 through the index, and that of the exact search, for some queries of the second kind."""
    counts: dict[Literal["index", "exact"], int] = {"index": 0, "exact": 0}
    for name, pixels in parts(files, KINDS[1]):
        for method in counts:
            try:
                counts[method] += store.search(pixels, top=1, method=method).hits[0].filename == name
            except NothingUsable:
                continue
    text = f"{counts['index']} and {counts['exact']} of {len(files)}"
    lost = (counts["exact"] - counts["index"]) / len(files)
    return [Finding("first through the index and by the exact search", text, "<= 0.01 lost", lost <= 0.01)]


def times(store: FeatureStore, files: list[tuple[str, Path]], repetitions: int) -> list[Finding]:
    """Return what a search from stored codes takes, warm, and what the first search of a process takes."""
    store.search(files[0][0], method="index")
    results, costs = [], []
    for name, _ in files * repetitions:
        costs.append(spend(lambda name=name: results.append(store.search(name, method="index"))))  # type: ignore[misc]
    search, check = ([result.seconds[part] * 1000 for result in results] for part in ("search", "check"))
    fresh = [spend(lambda: FeatureStore(store.path).search(files[0][0], method="index")) for _ in range(repetitions)]
    n = len(results)
    return [
        at_most(f"shortlist of {n:,} queries from codes, warm", search, 100, " ms"),
        Finding("the check of its 20 candidates", f"{np.median(check):.3g} ms ({min(check):.3g} to {max(check):.3g})"),
        Finding("a whole search from codes", spent(costs)),
        Finding("the first search of an opened store, faiss being imported", spent(fresh)),
    ]

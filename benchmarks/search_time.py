"""The time of a search among 100,000 images with 180 million descriptors: warm, cold, and with the index on the way.

Each part runs in a process of its own. Cold is after `posix_fadvise(POSIX_FADV_DONTNEED)` of the index file and of all
partitions, in a process that has searched another store before, so that what is read is the data and no library.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import data
from benchmarks.large_store import FULL, make_large
from benchmarks.measure import Bench, Finding, at_most, peak_bytes, python, spend, spread
from benchmarks.search import indexed
from featurestore import FeatureStore
from featurestore.query.features import features_of
from featurestore.query.index_file import open_index_file
from featurestore.query.index_search import search_index
from featurestore.rows import Row
from featurestore.stages import TransformStage
from featurestore.storage import read_arrays
from featurestore.system import one_blas_thread

QUERIES = 20
COLD = 5  # queries of a cold process


def run(bench: Bench) -> list[Finding]:
    """Measure on the large store, which is made on the first run."""
    n, n_words, paintings = (100, 1024, 6) if bench.quick else (100_000, 65_536, 483)
    source, _ = indexed(bench.scratch, paintings)
    store, made = made_large(bench.scratch, source, n, n_words)
    of = f"{n:,} images, {n * FULL / 1e6:,.0f} M descriptors"
    n_bytes = sum(path.stat().st_size for path in (store.path / "index").iterdir())
    warm = asked("warm", store, source, bench.repetitions)
    cold = [asked("cold", store, source, 1) for _ in range(bench.repetitions)]
    first, later = ([one[f"{which}"] for one in cold] for which in ("first", "later"))
    return [
        Finding("made up", of),
        at_most("index file, a descriptor", [n_bytes / (n * FULL)], 20, " B"),
        *cost_findings(made, n),
        at_most("opening the index file, mapped", warm["open"], 50, " ms"),
        Finding(
            "the first question to a store that was just opened, faiss being imported", spread(warm["fresh"], " ms")
        ),
        at_most(f"shortlist, {FULL:,} descriptors of the query, warm: CPU", warm["shortlist_cpu"], 100, " ms"),
        Finding("shortlist, warm: wall", spread(warm["shortlist"], " ms")),
        at_most("with the check of candidates, warm: wall", warm["checked"], 150, " ms"),
        Finding("with the check of candidates, warm: CPU", spread(warm["checked_cpu"], " ms")),
        Finding("of it the check: wall", spread(warm["check"], " ms")),
        Finding("with 20 hits, and so with the check of 20 candidates, warm: wall", spread(warm["twenty"], " ms")),
        Finding("the first query, cold: shortlist", spread([one[0] for one in first], " ms")),
        Finding("the first query, cold: with checks", spread([one[1] for one in first], " ms")),
        Finding("each of the next four, cold: shortlist", spread([one[0] for many in later for one in many], " ms")),
        Finding("each of the next four, cold: with checks", spread([one[1] for many in later for one in many], " ms")),
        Finding("the file that is in memory before and after the cold queries", in_cache(cold)),
        Finding("memory of the process that is no file's, after all warm queries", f"{warm['anonymous'] / 1e6:.0f} MB"),
        Finding("memory of the process that is the file's, after all warm queries", f"{warm['mapped'] / 1e6:,.0f} MB"),
        *words_findings(bench, source, store),
    ]


def made_large(scratch: Path, source: FeatureStore, n: int, n_words: int) -> tuple[FeatureStore, dict[str, float]]:
    """Return the large store, and what assembling its index took, which is kept beside it."""
    kept = scratch / f"large-{n}.json"
    if not kept.is_file():
        store = make_large(scratch, source, n, n_words=n_words)
        text = python("-m", "benchmarks.search_time", "assemble", str(store.path))
        kept.write_text(text.splitlines()[-1], encoding="utf-8")
    return FeatureStore(scratch / f"large-{n}"), json.loads(kept.read_text(encoding="utf-8"))


def cost_findings(made: dict[str, float], n: int) -> list[Finding]:
    """Return what assembling the index file took."""
    text = f"CPU {made['cpu']:.1f} s, wall {made['wall']:.1f} s, {made['peak'] / 1e9:.1f} GB of memory"
    each = made["cpu"] / n * 1000
    return [
        Finding("assembling the index file of its partitions", text),
        Finding("the same, 1,000 images: CPU", f"{each:.2f} s"),
    ]


def words_findings(bench: Bench, source: FeatureStore, store: FeatureStore) -> list[Finding]:
    """Return the CPU time of the stage `words`, for images of 1,800 descriptors, with the codebook of each store."""
    rows = [row for row in data.rows(source, "quantize") if row.n_descriptors == FULL][:50]
    findings = []
    for one in (source, store):
        lookup = one._current_lookup()
        assert lookup.coverage is not None
        stage, arrays = lookup.coverage.stage, read_arrays(lookup.coverage.model)[0]
        seconds = [cpu_of(stage, rows, arrays) / len(rows) * 1000 for _ in range(bench.repetitions)]
        what = f"words of 1,000 images of {FULL:,}, {len(arrays['words']):,} words: CPU"
        findings.append(at_most(what, seconds, 45, " s"))
    return findings


def cpu_of(stage: TransformStage, rows: Sequence[Row], arrays: Any) -> float:
    """Return the CPU seconds of a stage for some rows, on one thread."""
    with one_blas_thread():
        return spend(lambda: [stage.apply(row, arrays) for row in rows]).cpu


def in_cache(cold: Sequence[dict[str, Any]]) -> str:
    """Return how much of the index file was in the page cache before the first cold query, and after the last."""
    before, after = (max(one[name] for one in cold) / 1e6 for name in ("cached_before", "cached_after"))
    return f"{before:,.0f} MB, {after:,.0f} MB"


def asked(what: str, store: FeatureStore, source: FeatureStore, repetitions: int) -> dict[str, Any]:
    """Measure in a process of its own."""
    text = python("-m", "benchmarks.search_time", what, str(store.path), str(source.path), str(repetitions))
    found: dict[str, Any] = json.loads(text.splitlines()[-1])
    return found


def warm(store: FeatureStore, source: FeatureStore, repetitions: int) -> dict[str, Any]:
    """Return milliseconds of queries that have been asked before, and the memory of this process in bytes."""
    queries = some_queries(source, QUERIES)
    found: dict[str, Any] = {"fresh": [spend(lambda: store.search(queries[0], method="index")).wall * 1000]}
    found["open"] = opening(store, repetitions)
    for query in queries:
        store.search(query, method="index")
    names = ("shortlist", "check", "checked", "shortlist_cpu", "checked_cpu", "twenty")
    found |= {name: [] for name in names}
    results: list[Any] = []
    for query in queries * repetitions:
        cost = spend(lambda query=query: results.append(store.search(query, method="index")))  # type: ignore[misc]
        seconds = results[-1].seconds
        found["shortlist"].append(seconds["search"] * 1000)
        found["check"].append(seconds["check"] * 1000)
        found["checked"].append(cost.wall * 1000)
        found["checked_cpu"].append(cost.cpu * 1000)
        found["shortlist_cpu"].append(shortlist_cpu(store, query) * 1000)
        twenty = spend(lambda query=query: store.search(query, top=20, method="index"))  # type: ignore[misc]
        found["twenty"].append(twenty.wall * 1000)
    return found | memory()


def shortlist_cpu(store: FeatureStore, query: Any) -> float:
    """Return the CPU seconds of the shortlist alone."""
    lookup = store._current_lookup()
    features = features_of(lookup, query).features
    with one_blas_thread():
        return spend(lambda: search_index(features, lookup.whole, lookup.index, most=20)).cpu


def opening(store: FeatureStore, repetitions: int) -> list[float]:
    """Return the milliseconds that opening the index file takes."""
    lookup = store._current_lookup()
    assert lookup.coverage is not None
    header = lookup.coverage.header
    assert header is not None
    return [spend(lambda: open_index_file(lookup.context.root, header)).wall * 1000 for _ in range(repetitions)]


def cold(store: FeatureStore, source: FeatureStore) -> dict[str, Any]:
    """Return milliseconds of queries of which nothing is in the page cache but what the earlier ones have read."""
    queries = some_queries(source, COLD)
    for query in queries:
        source.search(query, method="index")  # so that all code has run
    (index,) = (store.path / "index").glob("*.faiss")
    for path in [index, *data.partitions(store, "quantize")]:
        drop(path)
    before = cached(index)
    lookup = store._current_lookup()
    assert lookup.whole.pieces  # the catalog has been read, and no index
    assert lookup.coverage is not None
    costs = []
    for query in queries:
        result = store.search(query, method="index")
        costs.append((result.seconds["search"] * 1000, (result.seconds["search"] + result.seconds["check"]) * 1000))
    return {"first": costs[0], "later": costs[1:], "cached_before": before, "cached_after": cached(index)}


def drop(path: Path) -> None:
    """Drop a file's pages from the page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cached(path: Path) -> int:
    """Return the bytes of a file that are in the page cache."""
    done = subprocess.run(
        ["fincore", "--bytes", "--noheadings", "--output", "RES", str(path)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def some_queries(source: FeatureStore, n: int) -> list[Any]:
    """Return codes and keypoints of paintings with as many descriptors as an image can have."""
    rows = [row for row in data.rows(source, "quantize") if row.n_descriptors == FULL]
    chosen = rows[:: max(1, len(rows) // n)][:n]
    return [(row.descriptors, row.keypoints) for row in chosen]


def memory() -> dict[str, int]:
    """Return the memory of this process: what is no file's, and what is mapped from files."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    anonymous, mapped = (int(re.findall(rf"{name}:\s+(\d+) kB", text)[0]) * 1024 for name in ("RssAnon", "RssFile"))
    return {"anonymous": anonymous, "mapped": mapped}


def assemble(path: Path) -> dict[str, float]:
    """Make the index file of a store; return the seconds, and the peak of memory in bytes."""
    store = FeatureStore(path)
    for old in (path / "index").glob("*"):
        old.unlink()
    cost = spend(store.index)
    return {"cpu": cost.cpu, "wall": cost.wall, "peak": peak_bytes()}


if __name__ == "__main__":
    verb, *paths = sys.argv[1:]
    if verb == "assemble":
        print(json.dumps(assemble(Path(paths[0]))))
    elif verb == "warm":
        print(json.dumps(warm(FeatureStore(paths[0]), FeatureStore(paths[1]), int(paths[2]))))
    else:
        print(json.dumps(cold(FeatureStore(paths[0]), FeatureStore(paths[1]))))

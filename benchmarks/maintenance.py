"""Verify, rebuild, merge and export of real descriptors: wall and CPU seconds, in one process and on all cores."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import data
from benchmarks.measure import CORES, Bench, Finding, Spent, alternate, at_least, at_most, ratios, spend, spent, walls
from benchmarks.stages import replicated
from featurestore import FeatureStore

CHECKS = ("verify", "verify --deep", "rebuild", "merge")
FORMATS = ("npy", "fvecs", "arrow", "parquet", "parquet-flat", "npz")
MISSED = """To start a worker takes half a second of CPU, which counts in a check of a few seconds, and other work
shares the cores. What is read twice are footers and small columns; the catalog is read besides."""
EXPORTED = 4  # of all images, one in so many is exported: an npz takes a minute for a gigabyte


def run(bench: Bench) -> list[Finding]:
    """Measure a store of extract, of about a gigabyte, that no image belongs to."""
    n = 10 if bench.quick else 2000
    store = replicated(bench.scratch, data.extracted(bench.scratch, 6 if bench.quick else 96), n)
    stored = sum(path.stat().st_size for path in data.partitions(store, "extract")) / 1e6
    arms: dict[str, Callable[[], Spent]] = {}
    for verb in CHECKS:
        for workers in (0, CORES):
            arms[f"{verb}, {_processes(workers)}"] = partial(check, bench.scratch, store, verb, workers)
    found = alternate(arms, bench.repetitions)
    findings = [Finding(f"{name}, {stored:,.0f} MB", spent(costs)) for name, costs in found.items()]
    for verb in CHECKS[1:]:  # `verify` alone is as fast as the disk
        one, all_ = (walls(found[f"{verb}, {_processes(workers)}"]) for workers in (0, CORES))
        findings.append(at_least(f"{verb}: times as fast on {CORES} workers", ratios(one, all_), 0.75 * CORES))
    for verb in CHECKS if Path("/proc/self/io").is_file() else ():
        times = read_bytes(partial(check, bench.scratch, store, verb, 0)) / (stored * 1e6)
        findings.append(at_most(f"{verb}: bytes that are read, times the partitions", [times], 1.15))
    where = f"image_id < {max(n // EXPORTED, 1)}"
    written = store.matrix("extract", where).codes.nbytes / 1e6
    reading = {"reading alone": partial(read, store, where)}
    exports = {f"export, {name}": partial(export, bench.scratch, store, name, where) for name in FORMATS}
    found = alternate({**reading, **exports}, bench.repetitions)
    return [
        *findings,
        *(Finding(f"{name}, {written:,.0f} MB of descriptors", spent(costs)) for name, costs in found.items()),
    ]


def _processes(workers: int) -> str:
    return f"{workers} workers" if workers else "one process"


def check(scratch: Path, store: FeatureStore, verb: str, workers: int) -> Spent:
    """Return the seconds of a verb that checks all partitions."""
    if verb == "rebuild":
        return spend(lambda: store.rebuild(workers=workers))
    if verb == "merge":
        return merge(scratch, store, workers)
    return spend(lambda: store.verify(deep=verb == "verify --deep", workers=workers))


def merge(scratch: Path, store: FeatureStore, workers: int) -> Spent:
    """Return the seconds of a merge into a store that has nothing yet."""
    path = scratch / "merged"
    shutil.rmtree(path, ignore_errors=True)
    n = sum(store.status().subsets.values())
    given = scratch / f"runs-{n}.csv"
    into = FeatureStore.create(path, images=scratch / f"runs-{n}-images", dataset=given, chunk_size=_chunk_size(store))
    cost = spend(lambda: into.merge(store.path, workers=workers))
    shutil.rmtree(path)
    return cost


def _chunk_size(store: FeatureStore) -> int:
    return int(store.sql("SELECT max(n) FROM (SELECT count(*) n FROM images GROUP BY chunk_id)").fetchall()[0][0])


def export(scratch: Path, store: FeatureStore, name: str, where: str) -> Spent:
    """Return the seconds of an export of extract."""
    out = scratch / "exported"
    cost = spend(lambda: store.export(out, name, stage="extract", where=where, force=True))
    shutil.rmtree(out) if out.is_dir() else out.unlink()
    return cost


def read_bytes(work: Callable[[], object]) -> int:
    """Return the bytes that this process reads during ``work``, from files and pipes (Linux)."""
    before = _read_so_far()
    work()
    return _read_so_far() - before


def _read_so_far() -> int:
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("rchar"))


def read(store: FeatureStore, where: str) -> Spent:
    """Return the seconds that reading the same descriptors takes."""

    def work() -> None:
        for _ in store.iter_batches(columns=["descriptors"], stage="extract", where=where):
            pass

    return spend(work)

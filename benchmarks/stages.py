"""CPU time of an image at each stage after extract, on runs of real descriptors, with memory kept as workers keep it.

On a machine that does other things too, wall time says little, and CPU time repeats. It is what one more image takes
in a store of many: two chunks of 500 images less a run of one tiny chunk, so that 1,000 images pay for one chunk, as in
chunks of 1,000.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from benchmarks import data
from benchmarks.measure import CORES, ROOT, Bench, Finding, alternate, at_most, spend, spread
from benchmarks.replicate import chunks_of, written
from benchmarks.settings import set_option
from featurestore import FeatureStore
from featurestore.catalog import resolve
from featurestore.engines.local import KEEPING, SINGLE_THREADED
from featurestore.progress import Silent
from featurestore.rows import Row
from featurestore.storage import PartitionFile

FEWEST, MOST = 3000, 5000  # descriptors of an image, where its picture has so many
CHUNK = 500
AIMS = {"fit_pca": 4.0, "project": 4.5, "quantize": 1.1}
MISSED = """What is left of project, by a profile of images of 2,950 descriptors, of which 1,660 are kept, in one
process: a quarter to a third is the product in double precision, on which the notebook's bits depend; SHA-256, once of
the rows and once of the file, is more than a quarter on a processor without instructions for it, and an eighth on one
with them; a tenth is reading, half of that unpacking zstd; a tenth is the order, the percentiles and the gathering of
the kept; and a twelfth is Parquet's writer. Of quantize a third is SHA-256 without such instructions, a quarter
Parquet's writer with zstd, and a sixth each are the arithmetic and reading. The aims are those of another day's
processor; decision [0176](decisions/0176-what-is-left-of-project-and-quantize.md) compares both versions of the
program on one, and says what was tried and gained nothing."""
STAGES = ("fit_pca", "project", "fit_scale", "quantize")
SOLVERS = ("incremental", "covariance", "gram")


def run(bench: Bench) -> list[Finding]:
    """Measure the stages one after the other, in processes of their own."""
    source = data.extracted(bench.scratch, 6 if bench.quick else 96)
    store, small = (replicated(bench.scratch, source, n) for n in (10 if bench.quick else 2 * CHUNK, 5))
    found: dict[str, list[dict[str, float]]] = {solver: [] for solver in SOLVERS}

    def measure(solver: str) -> float:
        found[solver].append(milliseconds(bench.scratch, store, small, solver))
        return found[solver][-1]["fit_pca"]

    fits = alternate({solver: lambda solver=solver: measure(solver) for solver in SOLVERS}, bench.repetitions)  # type: ignore[misc]
    findings = [Finding(f"fit_pca, {solver}, a train image", spread(fits[solver], " ms")) for solver in SOLVERS[:2]]
    findings.append(at_most("fit_pca, gram, a train image", fits["gram"], AIMS["fit_pca"], " ms"))
    for stage in STAGES[1:]:
        values = [one[stage] for solver in SOLVERS for one in found[solver]]
        findings.append(
            at_most(stage, values, AIMS[stage], " ms") if stage in AIMS else Finding(stage, spread(values, " ms"))
        )
    own = [coordinators(bench.scratch, store, small) for _ in range(bench.repetitions)]
    return [*findings, at_most(f"project on {CORES} workers, coordinator's CPU", own, 0.3, " ms")]


def replicated(scratch: Path, source: FeatureStore, n: int) -> FeatureStore:
    """Return a store of ``n`` images with extract done: runs of consecutive descriptors of the source's pictures."""
    path = scratch / f"runs-{n}"
    if not path.is_dir():
        draft = scratch / f".runs-{n}"
        shutil.rmtree(draft, ignore_errors=True)
        images = scratch / f"runs-{n}-images"  # none is ever read, and no store is made where none exists
        images.mkdir(exist_ok=True)
        names = [f"{i:06d}.jpg" for i in range(n)]
        (images / names[0]).touch()
        dataset = data.write_dataset(scratch / f"runs-{n}.csv", names)
        store = FeatureStore.create(draft, images=images, dataset=dataset, chunk_size=CHUNK)
        with PartitionFile(data.partitions(source, "extract")[0]) as file:
            layout = file.layout
        rows = _runs(source, names)
        with store._held("replicate", Silent()) as context:
            with context.catalog.reading() as connection:
                extract = resolve(connection, context.flow)[0]
                chunks = chunks_of(connection)
            for chunk in chunks:
                written(context, extract, chunk, chunk["digest"], list(islice(rows, chunk["n_images"])), layout)
        draft.rename(path)
    return FeatureStore(path)


def _runs(source: FeatureStore, names: list[str]) -> Iterator[Row]:
    rng, n_made = np.random.default_rng(0), 0
    while True:
        for path in data.partitions(source, "extract"):
            for row in data.chunk_rows(path):
                if n_made == len(names):
                    return
                if row.descriptors is None or row.keypoints is None:
                    continue
                n = int(rng.integers(FEWEST, MOST + 1))
                first = int(rng.integers(0, max(1, row.n_descriptors - n + 1)))
                part = slice(first, first + n)
                yield replace(
                    row,
                    image_id=n_made,
                    filename=names[n_made],
                    descriptors=row.descriptors[part],
                    keypoints=row.keypoints[part],
                )
                n_made += 1


def milliseconds(scratch: Path, store: FeatureStore, small: FeatureStore, solver: str) -> dict[str, float]:
    """Return the CPU milliseconds of an image at each stage, without what a run takes that has hardly any images."""
    copies = [scratch / f"stages-{name}" for name in ("large", "first", "small")]
    for path, original in zip(copies, (store, small, small), strict=True):
        shutil.rmtree(path, ignore_errors=True)
        set_option(FeatureStore(shutil.copytree(original.path, path)), "fit_pca", "solver", solver)
    command = [sys.executable, "-m", "benchmarks.stages", *map(str, copies)]
    environment = {**os.environ, **KEEPING, **SINGLE_THREADED}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def coordinators(scratch: Path, store: FeatureStore, small: FeatureStore) -> float:
    """Return the coordinator's CPU milliseconds an image of project, without those of a run that has hardly any."""
    found = []
    for original in (small, small, store):  # the first run imports all modules
        path = scratch / "stages-own"
        shutil.rmtree(path, ignore_errors=True)
        copy = FeatureStore(shutil.copytree(original.path, path))
        copy.run("fit_pca", workers=0)
        found.append(spend(partial(copy.run, "project", workers=CORES)).own)
    return 1000 * (found[2] - found[1]) / (n_images(store, "project") - n_images(small, "project"))


def main() -> None:
    """Run the stages of three stores, the first of which imports all modules; print the milliseconds as JSON."""
    large, first, small = map(FeatureStore, sys.argv[1:])
    found = {}
    for stage in STAGES:
        seconds(first, stage)
        n = n_images(large, stage) - n_images(small, stage)
        found[stage] = 1000 * (seconds(large, stage) - seconds(small, stage)) / n
    print(json.dumps(found))


def seconds(store: FeatureStore, stage: str) -> float:
    """Return the CPU seconds of a stage in this process."""
    begun = time.process_time()
    store.run(stage, workers=0)
    return time.process_time() - begun


def n_images(store: FeatureStore, stage: str) -> int:
    """Return the number of images that a stage reads."""
    subsets = store.status().subsets
    return subsets["train"] if stage == "fit_pca" else sum(subsets.values())


if __name__ == "__main__":
    main()

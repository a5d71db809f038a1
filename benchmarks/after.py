"""Everything after extract, up to one matrix of codes in memory, against the notebook's way."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

import numpy as np
import threadpoolctl
from numpy.typing import NDArray

from benchmarks import data, notebook
from benchmarks.measure import CORES, Bench, Finding, Spent, alternate, at_least, ratios, spend, spent, spread, walls
from benchmarks.settings import set_option
from featurestore import FeatureStore
from featurestore.rows import Row
from featurestore.stages import Quantize
from featurestore.stages.fit_pca import FitPca
from featurestore.stages.fit_scale import FitScale
from featurestore.stages.project import Project

AIM = 10
MISSED = """The second and third row are the limit of one thread: the arithmetic, with nothing read and nothing
written. A store unpacks what extract has written, and hashes, packs and writes the files of two stages more, which is
nearly half of the CPU time of project and four fifths of that of quantize. `gram` learns on one core, as its batches
follow one another, and each worker takes half a second of CPU to start, which counts in a job of a few seconds."""


def run(bench: Bench) -> list[Finding]:
    """Measure one process and all cores, with both solvers."""
    source = data.extracted(bench.scratch, 6 if bench.quick else 483)
    chunks, held_out = npz_chunks(bench.scratch, source)
    rows = data.rows(source, "extract")
    arms = {
        "notebook": lambda: by_notebook(bench.scratch, chunks, held_out),
        "bare": lambda: spend(lambda: arithmetic(rows, held_out, "gram")),
        "bare, covariance": lambda: spend(lambda: arithmetic(rows, held_out, "covariance")),
        "one": lambda: by_store(bench.scratch, source, workers=0),
        "all": lambda: by_store(bench.scratch, source, workers=CORES),
        "one, covariance": lambda: by_store(bench.scratch, source, workers=0, solver="covariance"),
        "all, covariance": lambda: by_store(bench.scratch, source, workers=CORES, solver="covariance"),
    }
    costs = alternate(arms, bench.repetitions)
    found = {name: walls(cost) for name, cost in costs.items()}
    n = sum(source.status().subsets.values())
    findings = [
        Finding(f"the notebook's way, {n} images", spent(costs["notebook"])),
        Finding(
            "times as fast: the arithmetic alone, from memory to memory, one thread",
            spread(ratios(found["notebook"], found["bare"]), "x"),
        ),
        Finding(
            "the same with the covariance solver", spread(ratios(found["notebook"], found["bare, covariance"]), "x")
        ),
    ]
    for name, text in (("one", "one process"), ("all", f"{CORES} workers")):
        for solver, suffix in (("gram", ""), ("covariance", ", covariance")):
            ratio = ratios(found["notebook"], found[name + suffix])
            what = f"{text}, {solver} solver"
            findings.append(Finding(what, spent(costs[name + suffix])))
            findings.append(at_least(f"times as fast, {what}", ratio, AIM))
    return findings


def npz_chunks(scratch: Path, store: FeatureStore) -> tuple[list[Path], set[str]]:
    """Write the notebook's chunks of SIFT descriptors (float32), and return them with the names held out."""
    folder = scratch / f"{store.path.name}-npz"
    names = store.sql("SELECT filename FROM images WHERE subset = 'test'").fetchall()
    if not folder.is_dir():
        draft = scratch / f".{folder.name}"
        draft.mkdir()
        for number, path in enumerate(data.partitions(store, "extract")):
            rows = data.chunk_rows(path)
            matrices = [None if r.descriptors is None else r.descriptors.astype(np.float32) for r in rows]
            notebook.save(draft / f"sift_chunk_{number:03d}.npz", matrices, [r.filename for r in rows])
        draft.rename(folder)
    return sorted(folder.glob("*.npz")), {name for (name,) in names}


def arithmetic(rows: list[Row], held_out: set[str], solver: Literal["gram", "covariance"]) -> NDArray[np.uint8]:
    """Go from descriptors in memory to one matrix of codes, and store nothing: what no store can be faster than."""
    stage, usable = FitPca(solver=solver), [row for row in rows if row.descriptors is not None]
    with threadpoolctl.threadpool_limits(1):
        learner, bounds = stage.learner(None), FitScale().learner(None)
        for row in usable:
            if row.filename not in held_out:
                learner.learn(row)
        model = learner.finish()
        projected = [Project().apply(row, model) for row in usable]
        for row in projected:
            bounds.learn(row)
        scale = bounds.finish()
        codes = [Quantize().apply(row, scale).descriptors for row in projected]
    return np.concatenate([matrix for matrix in codes if matrix is not None])


def by_notebook(scratch: Path, chunks: list[Path], held_out: set[str]) -> Spent:
    """Return the cost of the notebook's way."""
    folder = scratch / "after-notebook"
    shutil.rmtree(folder, ignore_errors=True)
    return spend(lambda: notebook.everything_after_extract(chunks, held_out, folder))


def by_store(scratch: Path, source: FeatureStore, *, workers: int, solver: str = "gram") -> Spent:
    """Return the cost of the store."""
    path = scratch / "after-store"
    shutil.rmtree(path, ignore_errors=True)
    store = FeatureStore(shutil.copytree(source.path, path))
    set_option(store, "fit_pca", "solver", solver)

    def work() -> None:
        store.run(workers=workers)
        store.matrix()

    return spend(work)

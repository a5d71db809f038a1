"""fit_pca: its solvers against bare ``partial_fit`` on rows in memory, and how well each PCA reconstructs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl
from numpy.typing import NDArray
from sklearn.decomposition import IncrementalPCA

from benchmarks import data
from benchmarks.measure import Bench, Finding, Spent, alternate, at_least, at_most, ratios, spend, spent, walls
from benchmarks.settings import set_option
from featurestore import FeatureStore
from featurestore.rows import Row
from featurestore.stages.fit_pca import FitPca
from featurestore.storage import read_arrays

SOLVERS = ("incremental", "gram", "covariance")


def run(bench: Bench) -> list[Finding]:
    """Measure the whole stage, with its reading, its checkpoints and its records."""
    source = data.extracted(bench.scratch, 6 if bench.quick else 483)
    train = {name for (name,) in source.sql("SELECT filename FROM images WHERE subset = 'train'").fetchall()}
    rows = data.rows(source, "extract")
    drawn = [FitPca().sampler.draw(row) for row in rows if row.descriptors is not None and row.filename in train]
    arms = {
        "bare": lambda: spend(lambda: bare(drawn)),
        "incremental": lambda: fit(bench.scratch, source, "incremental"),
        "gram": lambda: fit(bench.scratch, source, "gram"),
        "covariance": lambda: fit(bench.scratch, source, "covariance"),
    }
    bare(drawn[: FitPca().n_components])  # scikit-learn loads more on its first call
    costs = alternate(arms, bench.repetitions)
    found = {name: walls(cost) for name, cost in costs.items()}
    errors = [mean_error(bench.scratch / f"pca-{solver}", rows) for solver in SOLVERS]
    n = sum(map(len, drawn))
    return [
        Finding(f"bare partial_fit, {n:,} rows in memory", spent(costs["bare"])),
        *(Finding(f"{solver}, the whole stage", spent(costs[solver])) for solver in SOLVERS),
        at_most("incremental, times that", ratios(found["incremental"], found["bare"]), 1.1),
        *(
            at_least(f"{solver}, times as fast as incremental", ratios(found["incremental"], found[solver]), 5)
            for solver in SOLVERS[1:]
        ),
        Finding("squared error of reconstruction, incremental", f"{errors[0]:.6g}"),
        *(
            Finding(
                f"squared error of reconstruction, {solver}",
                f"{error:.6g} ({error / errors[0] - 1:+.2%})",
                "not above by 0.01%",
                error <= 1.0001 * errors[0],
            )
            for solver, error in zip(SOLVERS[1:], errors[1:], strict=True)
        ),
    ]


def bare(drawn: list[NDArray[Any]]) -> None:
    """Learn the same batches from memory."""
    estimator, waiting = IncrementalPCA(n_components=FitPca().n_components), []
    with threadpoolctl.threadpool_limits(1):
        for rows in drawn:
            waiting.append(rows)
            if sum(map(len, waiting)) >= FitPca().batch_size:
                estimator.partial_fit(np.vstack(waiting).astype(np.float32))
                waiting = []
        if waiting:
            estimator.partial_fit(np.vstack(waiting).astype(np.float32))


def fit(scratch: Path, source: FeatureStore, solver: str) -> Spent:
    """Return the cost of the stage in a store of its own, which stays for `mean_error`."""
    path = scratch / f"pca-{solver}"
    shutil.rmtree(path, ignore_errors=True)
    store = FeatureStore(shutil.copytree(source.path, path))
    set_option(store, "fit_pca", "solver", solver)
    return spend(lambda: store.run("fit_pca", workers=0))


def mean_error(path: Path, rows: list[Row]) -> float:
    """Return the mean squared distance of a descriptor, test images included, from its reconstruction."""
    (model,) = path.glob("models/fit_pca/*/*.npz")
    arrays, _ = read_arrays(model)
    mean, components = arrays["mean_"], arrays["components_"].astype(np.float64)
    total, n = 0.0, 0
    for row in rows:
        if row.descriptors is not None:
            centred = row.descriptors - mean
            total += float((centred**2).sum() - ((centred @ components.T) ** 2).sum())
            n += len(centred)
    return total / n

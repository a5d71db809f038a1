"""Loading: one matrix of all codes against the notebook's npz, one image by name, and counts by artist."""

from __future__ import annotations

import random
import shutil
from functools import partial
from pathlib import Path

from benchmarks import data, notebook, replicate
from benchmarks.measure import Bench, Finding, Spent, alternate, at_least, in_time, ratios, spend, spent, walls
from featurestore import FeatureStore


def run(bench: Bench) -> list[Finding]:
    """Measure on 10,000 images: the paintings, over and over."""
    n = 20 if bench.quick else 10_000
    store = replicated(bench.scratch, n, pictures=6 if bench.quick else 192)
    final = final_npz(bench.scratch, store)
    costs = alternate(
        {
            "npz": lambda: spend(lambda: notebook.load(final)),
            "concatenated": lambda: spend(lambda: notebook.matrix(final)),
            "store": lambda: spend(lambda: FeatureStore(store.path).matrix()),
        },
        bench.repetitions,
    )
    found = {name: walls(cost) for name, cost in costs.items()}
    return [
        Finding(f"np.load of the notebook's npz, {n:,} images", spent(costs["npz"])),
        Finding("the same and np.concatenate", spent(costs["concatenated"])),
        Finding("matrix()", spent(costs["store"])),
        at_least("matrix(), times as fast", ratios(found["npz"], found["store"]), 5),
        at_least(
            "matrix(), times as fast as np.load and np.concatenate", ratios(found["concatenated"], found["store"]), 5
        ),
        in_time("one image by name", by_name(store, bench.repetitions), 0.02),
        in_time("images and descriptors by artist, in SQL", by_artist(store, bench.repetitions), 1),
    ]


def replicated(scratch: Path, n: int, *, pictures: int) -> FeatureStore:
    """Return a store of ``n`` images whose codes are those of a few pictures, repeated."""
    path = scratch / f"replicated-{n}"
    if not path.is_dir():
        draft = scratch / f".replicated-{n}"
        shutil.rmtree(draft, ignore_errors=True)
        replicate.replicate(data.finished(scratch, pictures), draft, n)
        draft.rename(path)
    return FeatureStore(path)


def final_npz(scratch: Path, store: FeatureStore) -> Path:
    """Write the notebook's final file of the same codes."""
    path = scratch / f"{store.path.name}.npz"
    if not path.is_file():
        rows = data.rows(store, "quantize")
        notebook.save(path, [row.descriptors for row in rows], [row.filename for row in rows])
    return path


def by_name(store: FeatureStore, repetitions: int) -> list[Spent]:
    """Return the cost of each of some images, chosen at random; the store is open."""
    names = [name for (name,) in store.sql("SELECT filename FROM images").fetchall()]
    store.descriptors(names[0])
    chosen = random.Random(0).sample(names, min(len(names), 20 * repetitions))
    return [spend(partial(store.descriptors, name)) for name in chosen]


def by_artist(store: FeatureStore, repetitions: int) -> list[Spent]:
    """Return the cost of a question that joins images and counts."""
    query = (
        "SELECT artist, count(*), sum(n_descriptors) FROM images JOIN descriptor_counts USING (image_id) "
        "WHERE stage = 'quantize' GROUP BY artist"
    )
    return [spend(lambda: store.sql(query)) for _ in range(repetitions)]

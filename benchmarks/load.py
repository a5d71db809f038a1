"""Loading: one matrix of all codes against the notebook's npz, one image by name, and counts by artist."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet as pq

from benchmarks import data, notebook, replicate
from benchmarks.measure import (
    Bench,
    Finding,
    Spent,
    alternate,
    at_least,
    at_most,
    in_time,
    ratios,
    spend,
    spent,
    spread,
    walls,
)
from featurestore import FeatureStore
from featurestore.rows import Compression
from featurestore.storage.blob_pages import find_pages

MISSED = """With zstd no reader can take less than unpacking and one copy, which have a row of their own; codes stay
compressed nevertheless ([0171](decisions/0171-codes-stay-compressed.md)), and a recipe with `compression = "none"`
has them as they are. What is above that floor is the catalog, asked once, and memory that the system clears page by
page before the codes are copied to it.
What a copy of mapped pages costs is up to the system: the same copy took 0.26 s of CPU on this machine at one hour and
1.6 to 5.4 s at another, so that ratios to it tell little. Those to np.load and to unpacking can be compared."""


def run(bench: Bench) -> list[Finding]:
    """Measure on 10,000 images: the paintings, over and over."""
    n = 20 if bench.quick else 10_000
    pictures = 6 if bench.quick else 192
    store, plain = (replicated(bench.scratch, n, pictures=pictures, compression=kind) for kind in ("zstd", "none"))
    final, flat = final_npz(bench.scratch, store), flat_npy(bench.scratch, store)
    costs = alternate(
        {
            "npz": lambda: spend(lambda: notebook.load(final)),
            "concatenated": lambda: spend(lambda: notebook.matrix(final)),
            "store": lambda: spend(lambda: FeatureStore(store.path).matrix()),
            "plain": lambda: spend(lambda: FeatureStore(plain.path).matrix()),
            "mapped": lambda: spend(lambda: np.array(np.load(flat, mmap_mode="r"))),
            "pages": lambda: unpacking(store),
        },
        bench.repetitions,
    )
    found = {name: walls(cost) for name, cost in costs.items()}
    cpu = {name: [cost.cpu for cost in costs[name]] for name in ("store", "plain", "mapped", "pages")}
    floor = [pages + mapped for pages, mapped in zip(cpu["pages"], cpu["mapped"], strict=True)]
    return [
        Finding(f"np.load of the notebook's npz, {n:,} images", spent(costs["npz"])),
        Finding("the same and np.concatenate", spent(costs["concatenated"])),
        Finding("matrix()", spent(costs["store"])),
        Finding("a copy of the same matrix, mapped from one file", spent(costs["mapped"])),
        Finding("unpacking the zstd pages of these codes, and nothing else", spent(costs["pages"])),
        Finding("that and the copy, CPU, times the copy", spread(ratios(floor, cpu["mapped"]), "x")),
        at_most("matrix(), CPU, times the copy", ratios(cpu["store"], cpu["mapped"]), 5),
        at_most("matrix(), CPU, times unpacking and the copy", ratios(cpu["store"], floor), 1.3),
        at_most("matrix() of uncompressed codes, CPU, times the copy", ratios(cpu["plain"], cpu["mapped"]), 2.5),
        at_least("matrix(), times as fast", ratios(found["npz"], found["store"]), 5),
        at_least(
            "matrix(), times as fast as np.load and np.concatenate", ratios(found["concatenated"], found["store"]), 5
        ),
        in_time("one image by name", by_name(store, bench.repetitions), 0.02),
        in_time("images and descriptors by artist, in SQL", by_artist(store, bench.repetitions), 1),
    ]


def replicated(scratch: Path, n: int, *, pictures: int, compression: Compression = "zstd") -> FeatureStore:
    """Return a store of ``n`` images whose codes are those of a few pictures, repeated."""
    path = scratch / f"replicated-{n}-{compression}"
    if not path.is_dir():
        draft = scratch / f".{path.name}"
        shutil.rmtree(draft, ignore_errors=True)
        replicate.replicate(data.finished(scratch, pictures), draft, n, compression=compression)
        draft.rename(path)
    return FeatureStore(path)


def final_npz(scratch: Path, store: FeatureStore) -> Path:
    """Write the notebook's final file of the same codes."""
    path = scratch / f"{store.path.name}.npz"
    if not path.is_file():
        rows = data.rows(store, "quantize")
        notebook.save(path, [row.descriptors for row in rows], [row.filename for row in rows])
    return path


def flat_npy(scratch: Path, store: FeatureStore) -> Path:
    """Write the matrix of all codes to one file, as fast to read as any."""
    path = scratch / f"{store.path.name}.npy"
    if not path.is_file():
        np.save(path, store.matrix().codes)
    return path


def unpacking(store: FeatureStore) -> Spent:
    """Return the cost of unpacking every page of the codes with Arrow's zstd, in one thread; they are in memory."""
    codec, found = pa.Codec("zstd"), Spent(0, 0)
    for path in data.partitions(store, "quantize"):
        pages = list(_pages(path))

        def unpack(pages: list[tuple[bytes, int]] = pages) -> None:
            for page, n_plain in pages:
                codec.decompress(page, n_plain)

        cost = spend(unpack)
        found = Spent(found.wall + cost.wall, found.cpu + cost.cpu)
    return found


def _pages(path: Path) -> Iterator[tuple[bytes, int]]:
    """Yield the pages of a partition's codes as they are on disk, and the bytes of each when it is unpacked."""
    with pa.OSFile(str(path)) as file, pq.ParquetFile(path) as parquet:
        column = parquet.schema_arrow.names.index("descriptors")
        for group in range(parquet.num_row_groups):
            for page in find_pages(file, parquet.metadata.row_group(group).column(column)):
                yield file.read_at(page.n_bytes, page.offset), page.n_plain


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

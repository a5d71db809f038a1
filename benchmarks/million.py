"""A million images: peak memory, wall and CPU seconds of `init`, `ingest`, `verify` and `rebuild`.

Every image has a few real descriptors, so that memory for images shows and not that for row groups.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import cycle
from pathlib import Path

from benchmarks import data, ingest
from benchmarks.measure import AnonymousPeak, Bench, Finding, Spent, Watch, python, spend, spent
from benchmarks.replicate import chunks_of, written
from featurestore import FeatureStore
from featurestore.catalog import resolve
from featurestore.progress import Silent
from featurestore.rows import Row
from featurestore.storage import PartitionFile

VERBS = ("init", "ingest", "verify", "rebuild")
DESCRIPTORS = 2  # of an image
MOST = 2e9  # bytes


def run(bench: Bench) -> list[Finding]:
    """Measure each verb in a process of its own, one after the other, on the same store."""
    n = 300 if bench.quick else 1_000_000
    folder = bench.scratch / f"million-{n}"
    ingest.write(folder, n)
    source = data.extracted(bench.scratch, 6)
    findings = []
    for verb in VERBS:
        if verb == "verify":
            python("-m", "benchmarks.million", "fill", str(folder), str(source.path))
        found = json.loads(python("-m", "benchmarks.million", verb, str(folder)).splitlines()[-1])
        what = f"{verb}, {n:,} images: {spent([Spent(found['wall'], found['cpu'])])}"
        peaks = f"{found['peak'] / 1e6:,.0f} MB, a process that it starts {found['child'] / 1e6:,.0f} MB"
        findings.append(Finding(what, peaks, "<= 2 GB", max(found["peak"], found["child"]) <= MOST))
    shutil.rmtree(folder)
    return findings


def fill(folder: Path, source: FeatureStore) -> None:
    """Write the partitions of extract."""
    store = FeatureStore(folder / "store")
    path = data.partitions(source, "extract")[0]
    rows = cycle([row for row in data.chunk_rows(path) if row.descriptors is not None])
    with PartitionFile(path) as file:
        layout = file.layout
    with store._held("fill", Silent()) as context:
        with context.catalog.reading() as connection:
            extract = resolve(connection, context.flow)[0]
            chunks = chunks_of(connection)
        for chunk in chunks:
            ids = range(chunk["first_image_id"], chunk["first_image_id"] + chunk["n_images"])
            members = list(_members(rows, ids))
            written(context, extract, chunk, chunk["digest"], members, layout)


def _members(rows: Iterator[Row], ids: Iterable[int]) -> Iterator[Row]:
    for image_id, row in zip(ids, rows, strict=False):  # the rows never end
        assert row.descriptors is not None
        assert row.keypoints is not None
        few = slice(DESCRIPTORS)
        yield replace(
            row,
            image_id=image_id,
            filename=ingest.name(image_id),
            descriptors=row.descriptors[few],
            keypoints=row.keypoints[few],
        )


def measure(verb: str, folder: Path) -> dict[str, float]:
    """Return the seconds of a verb, and the peaks in bytes: of this process without mapped files, and of a child."""

    def work() -> None:
        if verb == "init":
            FeatureStore.create(folder / "store", images=folder / "images", dataset=folder / "dataset.csv")
        elif verb == "ingest":
            FeatureStore(folder / "store").ingest()
        elif verb == "verify":
            FeatureStore(folder / "store").verify()
        else:
            FeatureStore(folder / "store").rebuild()

    watch, children = AnonymousPeak(), Watch()
    cost = spend(work)
    return {"wall": cost.wall, "cpu": cost.cpu, "peak": watch.end(), "child": children.end()}


if __name__ == "__main__":
    if sys.argv[1] == "fill":
        fill(Path(sys.argv[2]), FeatureStore(Path(sys.argv[3])))
    else:
        print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]))))

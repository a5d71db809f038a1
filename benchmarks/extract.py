"""extract against the floor: bare OpenCV on the same files, in as many single-threaded processes, nothing stored."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks import bare, data
from benchmarks.measure import CORES, Bench, Finding, alternate, at_least, clock, ratios, spread
from featurestore import FeatureStore


def run(bench: Bench) -> list[Finding]:
    """Measure one chunk of all images, and many of 64."""
    n, largest = (20, 200_000) if bench.quick else (1000, 20_000_000)
    folder = data.mixed(bench.scratch, n, largest=largest)
    files = sorted(map(str, folder.glob("*.jpg")))
    found = alternate(
        {
            "floor": lambda: clock(lambda: bare.floor(files, CORES)),
            "one": lambda: store(bench.scratch, folder, n),
            "many": lambda: store(bench.scratch, folder, data.CHUNK),
        },
        bench.repetitions,
    )
    sizes = f"{n} images of 100 px to {largest / 1e6:g} MP, {CORES} workers"
    one, many = (ratios(found["floor"], found[name]) for name in ("one", "many"))
    return [
        Finding(f"bare OpenCV, {sizes}", spread([n / t for t in found["floor"]], " images/s")),
        at_least("images/s of bare OpenCV, one chunk", one, 0.95),
        at_least(f"images/s of bare OpenCV, chunks of {data.CHUNK}", many, 0.95),
    ]


def store(scratch: Path, folder: Path, chunk_size: int) -> float:
    """Return the seconds that extract takes into a new store."""
    path = scratch / "extract"
    shutil.rmtree(path, ignore_errors=True)
    made = FeatureStore.create(path, images=folder, dataset=folder / "dataset.csv", chunk_size=chunk_size)
    seconds = clock(lambda: made.run("extract", workers=CORES))
    shutil.rmtree(path)
    return seconds

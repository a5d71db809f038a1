"""extract against the floor: bare OpenCV on the same files, in as many single-threaded processes, nothing stored."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks import bare, data
from benchmarks.measure import CORES, Bench, Finding, Spent, alternate, at_least, ratios, spend, spent, spread, walls
from featurestore import FeatureStore


def run(bench: Bench) -> list[Finding]:
    """Measure one chunk of all images, and many of 64."""
    n, largest = (20, 200_000) if bench.quick else (1000, 20_000_000)
    folder = data.mixed(bench.scratch, n, largest=largest)
    files = sorted(map(str, folder.glob("*.jpg")))
    found = alternate(
        {
            "floor": lambda: spend(lambda: bare.floor(files, CORES)),
            "one": lambda: store(bench.scratch, folder, n),
            "many": lambda: store(bench.scratch, folder, data.CHUNK),
        },
        bench.repetitions,
    )
    sizes = f"{n} images of 100 px to {largest / 1e6:g} MP, {CORES} workers"
    one, many = (ratios(walls(found["floor"]), walls(found[name])) for name in ("one", "many"))
    return [
        Finding(f"bare OpenCV, {sizes}", spread([n / t for t in walls(found["floor"])], " images/s")),
        Finding("bare OpenCV, in seconds", spent(found["floor"])),
        Finding("one chunk, in seconds", spent(found["one"])),
        Finding(f"chunks of {data.CHUNK}, in seconds", spent(found["many"])),
        at_least("images/s of bare OpenCV, one chunk", one, 0.95),
        at_least(f"images/s of bare OpenCV, chunks of {data.CHUNK}", many, 0.95),
    ]


def store(scratch: Path, folder: Path, chunk_size: int) -> Spent:
    """Return what extract costs in a new store."""
    path = scratch / "extract"
    shutil.rmtree(path, ignore_errors=True)
    made = FeatureStore.create(path, images=folder, dataset=folder / "dataset.csv", chunk_size=chunk_size)
    cost = spend(lambda: made.run("extract", workers=CORES))
    shutil.rmtree(path)
    return cost

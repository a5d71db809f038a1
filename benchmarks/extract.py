"""extract against the floor: bare OpenCV on the same files, in as many single-threaded processes, nothing stored."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks import bare, data
from benchmarks.measure import (
    CORES,
    Bench,
    Finding,
    Spent,
    alternate,
    at_least,
    at_most,
    ratios,
    spend,
    spent,
    spread,
    walls,
)
from featurestore import FeatureStore

MISSED = """Beside OpenCV a run hashes each file and sees that it is whole, and turns keypoints and descriptors into
columns that are hashed, compressed and written: 3 to 5 ms of CPU an image. A worker takes half a second of CPU to
start. Both are within what repetitions of bare OpenCV differ by on this machine."""
FEW = 10  # images of a run whose costs are those of any run


def run(bench: Bench) -> list[Finding]:
    """Measure one chunk of all images, and many of 64."""
    n, largest = (20, 200_000) if bench.quick else (1000, 20_000_000)
    folder = data.mixed(bench.scratch, n, largest=largest)
    few = data.mixed(bench.scratch, FEW, largest=200_000)
    files = sorted(map(str, folder.glob("*.jpg")))
    found = alternate(
        {
            "floor": lambda: spend(lambda: bare.floor(files, CORES)),
            "one": lambda: store(bench.scratch, folder, n),
            "many": lambda: store(bench.scratch, folder, data.CHUNK),
            "few": lambda: store(bench.scratch, few, FEW),
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
        *(
            at_most(f"coordinator's CPU an image, {name}", _own(costs, found["few"], n), 1.0, " ms")
            for name, costs in (("one chunk", found["one"]), (f"chunks of {data.CHUNK}", found["many"]))
        ),
        at_least("images/s of bare OpenCV, one chunk", one, 0.95),
        at_least(f"images/s of bare OpenCV, chunks of {data.CHUNK}", many, 0.95),
    ]


def _own(costs: list[Spent], few: list[Spent], n: int) -> list[float]:
    """Return the coordinator's CPU milliseconds an image, without those of a run that has hardly any images."""
    return [1000 * (cost.own - least.own) / (n - FEW) for cost, least in zip(costs, few, strict=True)]


def store(scratch: Path, folder: Path, chunk_size: int) -> Spent:
    """Return what extract costs in a new store."""
    path = scratch / "extract"
    shutil.rmtree(path, ignore_errors=True)
    made = FeatureStore.create(path, images=folder, dataset=folder / "dataset.csv", chunk_size=chunk_size)
    cost = spend(lambda: made.run("extract", workers=CORES))
    shutil.rmtree(path)
    return cost

"""Ingest: the memory and the time that a CSV of many rows takes, in ``init`` and read again; no image is read."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from benchmarks.measure import Bench, Finding, Spent, python, spend, spent

SIZES = (100_000, 1_000_000, 4_000_000)
HEADER = "filename,subset,artist,title,year,style"
MOST_BYTES = 100  # an image, beyond what the first million take


def run(bench: Bench) -> list[Finding]:
    """Measure each size in processes of its own."""
    sizes = (100, 200, 400) if bench.quick else SIZES
    findings, peaks = [], {}
    for n in sizes:
        folder = bench.scratch / f"ingest-{n}"
        write(folder, n)
        for verb in ("init", "ingest"):
            wall, cpu, peak = map(float, python("-m", "benchmarks.ingest", verb, str(folder)).split())
            peaks[verb, n] = peak
            findings.append(Finding(f"{verb}, {n:,} images", f"{peak / 1e6:,.0f} MB, {spent([Spent(wall, cpu)])}"))
        shutil.rmtree(folder)
    for verb in ("init", "ingest"):
        each = (peaks[verb, sizes[2]] - peaks[verb, sizes[1]]) / (sizes[2] - sizes[1])
        what = f"{verb}: memory for an image more, from {sizes[1]:,} to {sizes[2]:,}"
        findings.append(Finding(what, f"{each:.0f} bytes", f"<= {MOST_BYTES} bytes", each <= MOST_BYTES))
    return findings


def write(folder: Path, n: int) -> None:
    """Write a CSV of ``n`` paintings, and the file of the first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with (folder / "dataset.csv").open("w", encoding="utf-8") as file:
        file.write(f"{HEADER}\n")
        for i in range(n):
            subset = "test" if i % 10 == 0 else "train"
            file.write(f"{name(i)},{subset},Artist {i // 1000},Painting {i},{1800 + i % 200},style {i % 25}\n")
    (folder / "images" / name(0)).parent.mkdir(parents=True)
    (folder / "images" / name(0)).touch()


def name(i: int) -> str:
    """Return the path of a painting."""
    return f"collection-{i // 100_000:03d}/artist-{i // 1000:05d}/painting-{i:08d}.jpg"


def measure(verb: str, folder: Path) -> tuple[float, float, int]:
    """Return the wall and CPU seconds of a verb, and the most memory: without mapped files, which can be let go."""
    from benchmarks.measure import AnonymousPeak
    from featurestore import FeatureStore

    def work() -> None:
        if verb == "init":
            FeatureStore.create(folder / "store", images=folder / "images", dataset=folder / "dataset.csv")
        else:
            FeatureStore(folder / "store").ingest()

    watch = AnonymousPeak()
    cost = spend(work)
    return cost.wall, cost.cpu, watch.end()


if __name__ == "__main__":
    print(*measure(sys.argv[1], Path(sys.argv[2])))

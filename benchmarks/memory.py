"""Peak memory of the coordinator and of its workers, for chunks of 100, 1000 and 5000 images: all stages, one run."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import cv2

from benchmarks import data
from benchmarks.measure import CORES, Bench, Finding, Watch, peak_bytes, python
from featurestore import FeatureStore

SIDE = 320  # pixels: several hundred descriptors an image


def run(bench: Bench) -> list[Finding]:
    """Run the whole flow in a process of its own for each size of chunk, which is all there is in the store."""
    sizes = (8, 16) if bench.quick else (100, 1000, 5000)
    peaks = {}
    for size in sizes:
        images = pictures(bench.scratch, size)
        text = python("-m", "benchmarks.memory", str(images), str(bench.scratch / "memory"), str(size))
        peaks[size] = json.loads(text.splitlines()[-1])
    findings = []
    for who in ("coordinator", "worker"):
        megabytes = [peaks[size][who] / 1e6 for size in sizes]
        growth = megabytes[-1] / megabytes[0]
        text = ", ".join(f"{m:.0f} MB" for m in megabytes)
        what = f"{who}, chunks of {', '.join(map(str, sizes))}"
        findings.append(Finding(what, f"{text} (x {growth:.2f})", "flat: <= 1.25x", growth <= 1.25))
    return findings


def pictures(scratch: Path, n: int) -> Path:
    """Make a folder of ``n`` pictures of `SIDE` pixels: links to a few dozen files."""
    folder = scratch / f"pictures-{n}"
    if folder.is_dir():
        return folder
    folder.mkdir()
    sources = data.pictures(scratch)[:48]
    for number, source in enumerate(sources):
        picture = cv2.imread(str(source))
        assert picture is not None
        scale = SIDE / max(picture.shape)
        size = (max(round(picture.shape[1] * scale), 8), max(round(picture.shape[0] * scale), 8))
        cv2.imwrite(str(folder / f"source-{number:02d}.png"), cv2.resize(picture, size))
    for i in range(n):
        os.link(folder / f"source-{i % len(sources):02d}.png", folder / f"{i:05d}.png")
    data.write_dataset(folder / "dataset.csv", [f"{i:05d}.png" for i in range(n)])
    return folder


def measure(images: Path, path: Path, chunk_size: int) -> dict[str, int]:
    """Run the whole flow and return the peaks, in bytes."""
    shutil.rmtree(path, ignore_errors=True)
    store = FeatureStore.create(path, images=images, dataset=images / "dataset.csv", chunk_size=chunk_size)
    watch = Watch()
    store.run(workers=CORES)
    worker = watch.end()
    shutil.rmtree(path)
    return {"coordinator": peak_bytes(), "worker": worker}


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))))

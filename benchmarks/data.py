"""What is measured on: paintings where the optional folder of test images is there, else scikit-learn's photographs."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from benchmarks.measure import CORES, ROOT
from featurestore import FeatureStore
from featurestore.cli.samples import make_samples, samples
from featurestore.rows import Row
from featurestore.storage import PartitionFile

CHUNK = 64


def pictures(scratch: Path) -> list[Path]:
    """Return the files of whole pictures, sorted by name."""
    given = os.environ.get("FEATURESTORE_TEST_IMAGES", str(ROOT.parent / "shared" / "images"))
    paintings = sorted(Path(given, "paintings").glob("*.jpg"))
    if paintings:
        return paintings
    folder = scratch / "samples"
    if not folder.is_dir():
        make_samples(folder)
    return [folder / sample.filename for sample in samples()]


def mixed(scratch: Path, n: int, *, largest: int) -> Path:
    """Make a folder of ``n`` JPEGs of 100 to 1200 pixels, and of three large ones: ``largest`` pixels and less.

    Sizes are drawn log-uniformly with a fixed seed; the large ones stand among the others.
    """
    folder = scratch / f"mixed-{n}-{largest}"
    if folder.is_dir():
        return folder
    draft = scratch / f".mixed-{n}"
    draft.mkdir(parents=True)
    sources, rng = pictures(scratch), np.random.default_rng(0)
    sides = np.exp(rng.uniform(np.log(100), np.log(1200), n))
    pixels = {n // 4: largest / 4, n // 2: largest / 2, 3 * n // 4: largest}
    for i, side in enumerate(sides):
        picture = cv2.imread(str(sources[i % len(sources)]))
        assert picture is not None
        height, width = picture.shape[:2]
        scale = (pixels[i] / (height * width)) ** 0.5 if i in pixels else side / max(height, width)
        resized = cv2.resize(picture, (max(round(width * scale), 8), max(round(height * scale), 8)))
        cv2.imwrite(str(draft / f"{i:05d}.jpg"), resized)
    write_dataset(draft / "dataset.csv", [f"{i:05d}.jpg" for i in range(n)])
    draft.rename(folder)
    return folder


def write_dataset(path: Path, names: Sequence[str]) -> Path:
    """Write a dataset CSV in which every fifth image is ``test``, of 40 artists."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["filename", "subset", "artist"])
        table.writerows([name, "test" if i % 5 == 4 else "train", f"artist {i % 40}"] for i, name in enumerate(names))
    return path


def extracted(scratch: Path, n: int) -> FeatureStore:
    """Return a store of the first ``n`` pictures of which extract was run and nothing else. Not to be changed."""
    path = scratch / f"extracted-{n}"
    if not path.is_dir():
        files = pictures(scratch)[:n]
        folder = Path(os.path.commonpath([file.parent for file in files]))
        dataset = write_dataset(scratch / f"dataset-{n}.csv", [file.relative_to(folder).as_posix() for file in files])
        draft = scratch / f".extracted-{n}"
        shutil.rmtree(draft, ignore_errors=True)
        FeatureStore.create(draft, images=folder, dataset=dataset, chunk_size=CHUNK).run("extract", workers=CORES)
        draft.rename(path)
    return FeatureStore(path)


def finished(scratch: Path, n: int) -> FeatureStore:
    """Return a store of the first ``n`` pictures with every stage done. Not to be changed."""
    path = scratch / f"finished-{n}"
    if not path.is_dir():
        draft = scratch / f".finished-{n}"
        shutil.rmtree(draft, ignore_errors=True)
        FeatureStore(shutil.copytree(extracted(scratch, n).path, draft)).run(workers=CORES)
        draft.rename(path)
    return FeatureStore(path)


def partitions(store: FeatureStore, stage: str) -> list[Path]:
    """Return the files of a stage's partitions, in the order of the chunks."""
    return sorted(store.path.glob(f"partitions/{stage}/*/*.parquet"))


def rows(store: FeatureStore, stage: str) -> list[Row]:
    """Return all rows of a stage, in the order of the images."""
    return [row for path in partitions(store, stage) for row in chunk_rows(path)]


def chunk_rows(path: Path) -> list[Row]:
    """Return all rows of a partition."""
    with PartitionFile(path) as file:
        return list(file.rows())

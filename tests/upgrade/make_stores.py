"""Make stores of every kind with the featurestore that is installed here, for `test_earlier_stores` to open.

`make test-upgrade` runs this in the environment of an earlier commit, with that commit's ``tests`` on the path::

    python make_stores.py FOLDER

Whatever it calls has to exist in that commit: the first is 5376c63.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from featurestore import FeatureStore
from tests.notebook import write_chunks
from tests.small import configure, make_small, rows_of, small_store, write_dataset

N = 13  # images, in chunks of 5: 0-4, 5-9, 10-12

# Columns whose values every version reads alike, and two that 5376c63 did not: it took numbers of museums for decimal
# numbers, and days for months.
COLUMNS = "title,year,height_cm,sold,painted,accession,acquired"


def make_images(folder: Path) -> Path:
    """Write the pictures, one of them cut short and one missing, and their CSV."""
    make_small(folder, n=N)
    cut = folder / "004.png"
    cut.write_bytes(cut.read_bytes()[:2000])
    (folder / "007.png").unlink()
    return write_dataset(folder, [f"filename,subset,{COLUMNS}", *(_line(number) for number in range(N))])


def _line(number: int) -> str:
    subset = "test" if number % 4 == 3 else "train"
    year = 1900 + number if number != 5 else ""
    values = (f"Étude No. {number}", year, number + 0.5, "true" if number % 2 else "false", f"1999-01-{number + 1:02d}")
    return ",".join(map(str, (f"{number:03d}.png", subset, *values, f"1910.{number}0", f"01/{number + 1:02d}/2003")))


def make_stores(folder: Path) -> None:
    """Make the stores, each in a folder of its own below ``folder``."""
    images = folder / "images"
    make_images(images)
    sift = _store(folder / "sift", images)
    sift.run(workers=0)
    _store(folder / "begun", images)
    _store(folder / "half", images).run("extract", chunks=[0], workers=0)
    _store(folder / "parts-0", images).run("extract", chunks=[0, 1], workers=0)
    _store(folder / "parts-1", images).run("extract", chunks=[2], workers=0)
    _store(folder / "rootsift", images, extract={"extractor": "rootsift"}).run(workers=0)
    _store(folder / "covariance", images, fit_pca={"solver": "covariance"}).run(workers=0)
    pruned = _store(folder / "pruned", images)
    pruned.run(workers=0)
    pruned.prune("quantize")
    _import(folder, images, sift)
    _grow(folder)


def _store(path: Path, images: Path, **recipe: dict[str, Any]) -> FeatureStore:
    store = small_store(path, images)
    for stage, values in recipe.items():
        configure(store, stage, **values)
    return store


def _import(folder: Path, images: Path, sift: FeatureStore) -> None:
    imported = _store(folder / "imported", images)
    write_chunks(folder / "npz", [(row.filename, row.descriptors) for row in rows_of(sift, "extract")], size=5)
    imported.import_npz(folder / "npz")
    imported.run(workers=0)


def _grow(folder: Path) -> None:
    """Make a store whose dataset has changed: rows came, one left, one moved to test, and the models went on."""
    images = folder / "grown-images"
    lines = make_images(images).read_text(encoding="utf-8").splitlines()
    write_dataset(images, lines[:9])
    grown = _store(folder / "grown", images)
    grown.run(workers=0)
    write_dataset(images, [*lines[:3], lines[3].replace("train", "test"), *lines[5:]])
    grown.ingest()
    grown.run(workers=0, update=True, yes=True)


if __name__ == "__main__":
    make_stores(Path(sys.argv[1]).resolve())

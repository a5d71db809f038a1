"""Sources of images: reading the same pictures from a folder, zip, tar and Parquet, beside bare OpenCV's SIFT."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import cv2
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import data
from benchmarks.measure import Bench, Finding, alternate, at_most, spend, spread
from featurestore.images import open_source

LIMIT = 2**30
DESCRIBED = 12  # pictures whose SIFT is timed
SHARE = 0.02  # of the time of bare OpenCV that reading may take


def run(bench: Bench) -> list[Finding]:
    """Measure CPU time an image: every picture of a source, in its order, opened each time."""
    files = data.pictures(bench.scratch)[: 6 if bench.quick else 200]
    places = {
        "folder": str(files[0].parent),
        "zip": str(zipped(bench.scratch / "pictures.zip", files)),
        "tar": str(tarred(bench.scratch / "pictures.tar", files)),
        "Parquet": str(as_parquet(bench.scratch / "pictures.parquet", files)),
    }
    names = {kind: [entry.name for entry in open_source(where).entries()] for kind, where in places.items()}
    names["folder"] = [file.name for file in files]
    arms = {kind: partial(read, places[kind], names[kind]) for kind in places}
    costs = alternate({kind: partial(spend, arm) for kind, arm in arms.items()}, bench.repetitions)
    described = files[:: len(files) // DESCRIBED + 1]
    bare = [cost.cpu / len(described) for cost in [spend(partial(describe, described))]]
    each = {kind: [cost.cpu / len(files) for cost in found] for kind, found in costs.items()}
    shares = {kind: [seconds / bare[0] for seconds in found] for kind, found in each.items()}
    return [
        Finding(f"bare OpenCV's SIFT of an image, {len(described)} of them", milliseconds(bare)),
        *(Finding(f"reading it from a {kind}", milliseconds(found)) for kind, found in each.items()),
        *(at_most(f"reading from a {kind}, times bare OpenCV", found, SHARE) for kind, found in shares.items()),
    ]


def milliseconds(seconds: Sequence[float]) -> str:
    """Return times with their spread, in milliseconds."""
    return spread([1000 * value for value in seconds], " ms")


def read(where: str, names: Sequence[str]) -> None:
    """Open a source and read all images."""
    source = open_source(where)
    for name in names:
        source.read(name, LIMIT)


def describe(files: Sequence[Path]) -> None:
    """Compute descriptors as the notebook does."""
    sift = cv2.SIFT.create()
    for file in files:
        picture = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
        assert picture is not None
        sift.detectAndCompute(picture, None)


def zipped(path: Path, files: Sequence[Path]) -> Path:
    """Write a zip file as people have it: deflated, although pictures gain nothing."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for file in files:
            target.write(file, file.name)
    return path


def tarred(path: Path, files: Sequence[Path]) -> Path:
    """Write a tar file."""
    with tarfile.open(path, "w") as target:
        for file in files:
            target.add(file, file.name)
    return path


def as_parquet(path: Path, files: Sequence[Path]) -> Path:
    """Write Parquet as Hugging Face's ``datasets`` does, with 100 images in a row group."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": file.read_bytes(), "path": file.name} for file in files], kind)
    pq.write_table(pa.table({"image": images}), path, row_group_size=100)
    return path

"""The pictures that searches are measured on: a collection, and queries whose answers are known.

Paintings, first views of scenes and made pictures are the collection. The queries are crops and other views of these,
degraded parts of the paintings, and pictures of which the collection has none.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from benchmarks import data
from benchmarks.made_pictures import FRAMES, PATTERNS, WALLS, kind_of, made
from benchmarks.measure import ROOT
from featurestore.apps.degraded import Kind, Pixels, degraded_part

CROPS = ("rss_cut", "imgdata_square")
VIEWS = {"graf": "oxford_graf/img{}.png", "boat": "oxford_boat/img{}.pgm", "dogman": "hpatches_v_dogman/img{}.ppm"}
UKBENCH = "ukbench_sample"
LARGEST = 1000  # pixels of the longer side of a picture from a package
PACKAGED = Path(__file__).parent / "negatives.csv"  # package, version, path, sha256


@dataclass(frozen=True)
class Query:
    """A query whose answer is known.

    Args:
        name: of the query, unique in its set.
        kind: of the query, as in the table.
        refs: images of the collection that show the same; none if none does.
        pixels: makes it, ``(height, width, 3)`` uint8 in BGR order; None for the image of the collection itself.
    """

    name: str
    kind: str
    refs: tuple[str, ...]
    pixels: Callable[[], Pixels] | None


def given() -> Path:
    """Return the optional folder of test images."""
    return Path(os.environ.get("FEATURESTORE_TEST_IMAGES", str(ROOT.parent / "shared" / "images")))


def make_collection(scratch: Path, n: int) -> Path:
    """Make the folder of the first ``n`` paintings, of first views and made pictures, and its ``dataset.csv``.

    Only the first four fifths of each five paintings are ``train``: the models know no other picture.
    """
    folder = scratch / f"collection-{n}"
    if folder.is_dir():
        return folder
    draft = scratch / f".collection-{n}"
    names = {f"paintings/{path.name}": path for path in paintings(scratch, n)}
    names |= {f"views/{name}{path.suffix}": path for name, path in first_views().items()}
    for name, path in names.items():
        (draft / name).parent.mkdir(parents=True, exist_ok=True)
        (draft / name).symlink_to(path.resolve())
    families = [f"made/{family:02d}.png" for family in range(FRAMES + WALLS + PATTERNS)]
    (draft / "made").mkdir(exist_ok=True)
    for family, name in enumerate(families):
        cv2.imwrite(str(draft / name), made(family, 0))
    with (draft / "dataset.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["filename", "subset"])
        for number, name in enumerate([*names, *families]):
            learnt = name.startswith("paintings/") and number % 5 != 4
            rows.writerow([name, "train" if learnt else "test"])
    draft.rename(folder)
    return folder


def paintings(scratch: Path, n: int) -> list[Path]:
    """Return the first ``n`` paintings, by name."""
    return data.pictures(scratch)[:n]


def first_views() -> dict[str, Path]:
    """Return the first view of each scene; none without the folder of test images."""
    folder = given() / "groundtruth"
    if not folder.is_dir():
        return {}
    views = {name: folder / path.format(1) for name, path in VIEWS.items()}
    return views | {f"ukbench{objects[0].stem[-5:]}": objects[0] for objects in ukbench()}


def ukbench() -> list[list[Path]]:
    """Return the photographs of each object."""
    objects: dict[str, list[Path]] = {}
    with (given() / "groundtruth" / UKBENCH / "groups.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            objects.setdefault(row["object"], []).append(given() / row["path"])
    return list(objects.values())


def crops() -> Iterator[Query]:
    """Yield crops and rescalings that others made of files among the paintings."""
    for name in CROPS:
        path = given() / "groundtruth" / name / "pairs.csv"
        if not path.is_file():
            return
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                yield Query(row["query"], "crops and rescalings", (row["ref"],), partial(read, given() / row["query"]))


def views() -> Iterator[Query]:
    """Yield the other views of each scene."""
    first = first_views()
    if not first:
        return
    for scene, path in VIEWS.items():
        for number in range(2, 7):
            file = given() / "groundtruth" / path.format(number)
            yield Query(f"{scene}{number}", "views", (f"views/{scene}{file.suffix}",), partial(read, file))
    for objects in ukbench():
        for file in objects[1:]:
            ref = f"views/ukbench{objects[0].stem[-5:]}{objects[0].suffix}"
            yield Query(file.name, "views", (ref,), partial(read, file))


def degraded(scratch: Path, n: int, kind: Kind, *, half: str) -> Iterator[Query]:
    """Yield a degraded part of every other painting: of ``tuning`` or of ``reported`` ones."""
    for number, path in enumerate(paintings(scratch, n)):
        if ("tuning", "reported")[number % 2] != half:
            continue
        yield Query(f"{path.name} 0", kind.name, (f"paintings/{path.name}",), partial(_part, path, kind, (number, 0)))


def _part(path: Path, kind: Kind, seed: tuple[int, int]) -> Pixels:
    return degraded_part(read(path), kind, seed=seed)


def made_negatives(*, half: str) -> Iterator[Query]:
    """Yield pictures that share a frame, a wall or a pattern with one of the collection."""
    counts = {"frame": 4, "wall": 4, "pattern": 3}  # of each family
    start = 1 if half == "tuning" else 101
    for family in range(FRAMES + WALLS + PATTERNS):
        for version in range(start, start + counts[kind_of(family)]):
            yield Query(f"{family:02d} {version}", f"made, {kind_of(family)}", (), partial(made, family, version))


def packaged(scratch: Path) -> Iterator[Query]:
    """Yield the pictures that packages install, of those in ``negatives.csv`` that are in ``scratch/negatives``.

    Raises:
        ValueError: a file has other bytes than the one that was listed.
    """
    with PACKAGED.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            path = scratch / "negatives" / row["package"] / row["path"]
            if not path.is_file():
                continue
            if hashlib.sha256(path.read_bytes()).hexdigest() != row["sha256"]:
                raise ValueError(f"{path} is another version than {row['package']} {row['version']}")
            yield Query(f"{row['package']}/{row['path']}", "from packages", (), partial(read, path, LARGEST))


def others(names: Sequence[str]) -> Iterator[Query]:
    """Yield images of the collection, which do not find themselves."""
    for name in names:
        yield Query(name, "among the others", (), None)


def read(path: Path, largest: int = 100_000) -> Pixels:
    """Return the pixels of a file; a picture with a longer side than ``largest`` is made smaller."""
    picture = cv2.imread(str(path))
    if picture is None:
        raise ValueError(f"{path} is no picture")
    scale = largest / max(picture.shape[:2])
    if scale < 1:
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return picture.astype(np.uint8)

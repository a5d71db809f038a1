"""Sample images, made from the two photographs that scikit-learn installs.

There are 24 crops and rotations of ``china.jpg`` and ``flower.jpg``, one blank image (without keypoints) and one
broken file (a JPEG that ends halfway). The demo and the tests use them, so that no download is needed. The same version
of Pillow gives the same bytes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from featurestore.errors import MissingDependency

PHOTOS = ("china", "flower")
"""The photographs, which are also the names of the samples' subfolders."""

CROPS = {
    "whole": (0.0, 0.0, 1.0, 1.0),
    "left": (0.0, 0.0, 0.7, 0.9),
    "right": (0.35, 0.1, 1.0, 1.0),
    "centre": (0.15, 0.15, 0.85, 0.85),
}
"""Left, top, right and bottom of each crop, as shares of the photograph's width and height."""

ROTATIONS = {0: None, 90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180}
"""Rotations, counter-clockwise in degrees: quarter turns leave no empty corners."""

LONG_SIDE = 720
"""In pixels. SIFT takes 0.1 to 0.3 s an image, and gives china more than 1800 descriptors and flower fewer."""

BLANK = "blank.jpg"
BROKEN = "broken.jpg"


@dataclass(frozen=True)
class Sample:
    """One crop in one rotation."""

    photo: str
    crop: str
    rotation: int

    @property
    def filename(self) -> str:
        """Path below the folder of samples, with forward slashes."""
        return f"{self.photo}/{self.crop}-{self.rotation:03d}.jpg"

    def image(self) -> Image.Image:
        """The picture, 8-bit RGB, with a longer side of ``LONG_SIDE`` pixels."""
        whole = _photograph(self.photo)
        left, top, right, bottom = CROPS[self.crop]
        box = (left * whole.width, top * whole.height, right * whole.width, bottom * whole.height)
        scale = LONG_SIDE / max(box[2] - box[0], box[3] - box[1])
        size = (round((box[2] - box[0]) * scale), round((box[3] - box[1]) * scale))
        cropped = whole.resize(size, Image.Resampling.LANCZOS, box=box)
        turn = ROTATIONS[self.rotation]
        return cropped if turn is None else cropped.transpose(turn)


def samples() -> Iterator[Sample]:
    """Yield the 24 samples, in the order of the dataset CSV."""
    for crop in CROPS:
        for rotation in ROTATIONS:
            for photo in PHOTOS:
                yield Sample(photo, crop, rotation)


def make_samples(folder: Path) -> Path:
    """Write the samples and their ``dataset.csv``.

    Its columns are ``filename``, ``subset`` (every fifth image is ``test``, the others are ``train``), ``photo``,
    ``crop`` and ``rotation`` (degrees). Existing samples are overwritten.

    Args:
        folder: of the samples; made if it does not exist.

    Returns:
        The path of the CSV.

    Raises:
        MissingDependency: scikit-learn's photographs are not where it installs them.
    """
    rows = [(sample.filename, sample.photo, sample.crop, sample.rotation) for sample in samples()]
    for sample in samples():
        _write(folder / sample.filename, _jpeg(sample.image()))
    _write(folder / BLANK, _jpeg(Image.new("RGB", (LONG_SIDE, LONG_SIDE * 2 // 3), (128, 128, 128))))
    _write(folder / BROKEN, _halved(_jpeg(Sample("china", "whole", 0).image())))
    rows += [(BLANK, "none", "whole", 0), (BROKEN, "china", "whole", 0)]
    return _write_csv(folder / "dataset.csv", rows)


def make_detail(path: Path) -> Path:
    """Write a part of the photograph china, turned by 20 degrees: a picture to search for. Return its path."""
    whole = Sample("china", "whole", 0).image()
    part = whole.crop((0.3 * whole.width, 0.25 * whole.height, 0.7 * whole.width, 0.75 * whole.height))
    _write(path, _jpeg(part.rotate(20, Image.Resampling.BICUBIC, expand=True)))
    return path


def _write_csv(path: Path, rows: list[tuple[str, str, str, int]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["filename", "subset", "photo", "crop", "rotation"])
        for number, (filename, *rest) in enumerate(rows, start=1):
            table.writerow([filename, "test" if number % 5 == 0 else "train", *rest])
    return path


@lru_cache(maxsize=len(PHOTOS))
def _photograph(name: str) -> Image.Image:
    """Return one of scikit-learn's photographs, without importing scikit-learn (which takes a second)."""
    spec = find_spec("sklearn")
    for place in (spec.submodule_search_locations or []) if spec else []:
        path = Path(place, "datasets", "images", f"{name}.jpg")
        if path.is_file():
            with Image.open(path) as image:
                return image.convert("RGB")
    raise MissingDependency(
        f"scikit-learn's photograph {name}.jpg, which the samples are made of, is not installed: "
        "reinstall it with 'pip install --force-reinstall scikit-learn'"
    )


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _halved(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)

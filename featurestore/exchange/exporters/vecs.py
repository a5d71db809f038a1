"""fvecs and bvecs: the formats of nearest-neighbour benchmarks.

A vector is its dimension as a little-endian int32 and then its values (http://corpus-texmex.irisa.fr). The file does
not say which image a vector belongs to; vectors are in image order, and within an image in the stage's order.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from featurestore.errors import QueryError
from featurestore.exchange.exporters.base import ImageExporter, Job


@dataclass(frozen=True)
class Fvecs(ImageExporter):
    """Values as float32; the codes of quantize become whole numbers from 0 to 255."""

    name: ClassVar[str] = "fvecs"
    about: ClassVar[str] = "float32 vectors, each after its dimension, as the nearest-neighbour benchmarks read"
    values: ClassVar[str] = "<f4"

    def write(self, job: Job, path: Path) -> None:
        """Write the file, about 4 MB of descriptors at a time."""
        record = np.dtype([("dim", "<i4"), ("values", self.values, (job.dim,))])
        with path.open("wb") as file:
            for matrix in job.matrices():
                vectors = np.empty(len(matrix), record)
                vectors["dim"], vectors["values"] = job.dim, matrix
                file.write(vectors.tobytes())


@dataclass(frozen=True)
class Bvecs(Fvecs):
    """Values as bytes."""

    name: ClassVar[str] = "bvecs"
    about: ClassVar[str] = "the same in bytes, for the codes of quantize and the SIFT of extract"
    values: ClassVar[str] = "u1"

    def check(self, job: Job, *, force: bool) -> None:
        """Refuse values that are not bytes."""
        if job.dtype != np.uint8:
            raise QueryError(
                f"bvecs holds bytes, and {job.selection.stage} holds {job.dtype.name}, which would be lost; export "
                "fvecs, or another stage"
            )

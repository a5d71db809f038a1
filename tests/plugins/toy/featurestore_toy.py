"""A plug-in of every kind in one file, as a package outside of featurestore would have them."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from featurestore.plugins import (
    Extractor,
    FitStage,
    ImageExporter,
    Job,
    Layout,
    NothingUsable,
    Row,
    Task,
    TransformStage,
    begin_worker,
    option,
)

CELLS = 4  # in a row of a patch
POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("size", "<f4")])


@dataclass(frozen=True)
class Patches(Extractor):
    """Patches on a grid, each as the mean brightness of its cells."""

    name: ClassVar[str] = "patches"
    dim: ClassVar[int] = CELLS * CELLS
    dtype: ClassVar[str] = "uint8"
    batch_size: ClassVar[int] = 3
    absent: ClassVar[Mapping[str, float]] = {"angle": -1, "response": 0, "octave": 0}

    step: int = option(16, "pixels from patch to patch", low=4)

    def detect_and_compute(self, pixels: Any) -> tuple[Any, Any]:
        return self.detect_and_compute_batch([pixels])[0]

    def detect_and_compute_batch(self, images: Sequence[Any]) -> list[tuple[Any, Any]]:
        return [self._patches(pixels.mean(axis=2)) for pixels in images]

    def _patches(self, gray: Any) -> tuple[Any, Any]:
        side = 4 * CELLS
        rows, columns = (range(0, n - side + 1, self.step) for n in gray.shape)
        found = [
            gray[y : y + side, x : x + side].reshape(CELLS, 4, CELLS, 4).mean(axis=(1, 3))
            for y in rows
            for x in columns
        ]
        points = np.array([(x + side / 2, y + side / 2, side) for y in rows for x in columns], POINT)
        return points, np.array(found).reshape(-1, self.dim).astype(np.uint8)


@dataclass(frozen=True)
class Unit(TransformStage):
    """Descriptors of unit length: a stage without a model."""

    name: ClassVar[str] = "unit"
    reads: ClassVar[str] = "extract"
    view: ClassVar[str] = "normalized"
    typical_bytes: ClassVar[int] = 50_000

    def layout(self, reads: Layout | None, fit: FitStage | None) -> Layout:
        assert reads is not None
        return Layout(reads.dim, "float32", reads.keypoints)

    def apply(self, row: Row, model: Mapping[str, Any]) -> Row:
        length = np.linalg.norm(row.descriptors.astype(np.float64), axis=1, keepdims=True)
        values = (row.descriptors / np.maximum(length, 1e-9)).astype(np.float32)
        return Row(row.image_id, row.filename, "ok", row.error, values, row.keypoints)


@dataclass(frozen=True)
class FitMean(FitStage):
    """The mean of all descriptors of train images."""

    name: ClassVar[str] = "fit_mean"
    reads: ClassVar[str] = "unit"

    def selects(self, subset: str) -> bool:
        return subset == "train"

    def joins(self) -> bool:
        return True

    def learner(self, arrays: Mapping[str, Any] | None) -> Any:
        return Mean(arrays or {})

    def summary(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        return {"n_descriptors": int(arrays["n"])}


class Mean:
    """A count and a sum, in whole numbers, so that every order gives the same."""

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        self.n, self.total = int(arrays.get("n", 0)), arrays.get("total")

    def learn(self, row: Row) -> None:
        whole = np.rint(row.descriptors.astype(np.float64) * 2**20).astype(np.int64)
        self.join({"n": len(whole), "total": whole.sum(axis=0)})

    def join(self, part: Mapping[str, Any]) -> None:
        if part:
            self.n += int(part["n"])
            self.total = part["total"] if self.total is None else self.total + part["total"]

    def state(self) -> dict[str, Any]:
        return {} if self.total is None else {"n": np.array(self.n), "total": self.total}

    def finish(self) -> dict[str, Any]:
        if self.total is None:
            raise NothingUsable("fit_mean found no descriptors to learn from; look at the failures")
        return {**self.state(), "mean": self.total / self.n / 2**20}


@dataclass(frozen=True)
class Signs(TransformStage):
    """Codes: whether a value is above the mean."""

    name: ClassVar[str] = "signs"
    reads: ClassVar[str] = "unit"
    model: ClassVar[str | None] = "fit_mean"
    view: ClassVar[str] = "signed"
    typical_bytes: ClassVar[int] = 20_000
    codes: ClassVar[bool] = True

    above: int = option(1, "what stands for above", low=1, high=255)

    def layout(self, reads: Layout | None, fit: FitStage | None) -> Layout:
        assert reads is not None
        assert fit is not None
        return Layout(fit.dim(reads), "uint8", reads.keypoints, (("n_above", pa.int32()),))

    def apply(self, row: Row, model: Mapping[str, Any]) -> Row:
        codes = np.where(row.descriptors > model["mean"], self.above, 0).astype(np.uint8)
        extra = {"n_above": int(np.count_nonzero(codes))}
        return Row(row.image_id, row.filename, "ok", row.error, codes, row.keypoints, extra)


def run_task(task: Task[Any]) -> list[Any]:
    return task.run()


class Pool:
    """An engine: the standard library's pool of processes."""

    def __init__(self, workers: int) -> None:
        self.workers = max(workers, 1)
        self._pool: ProcessPoolExecutor | None = None

    def submit(self, task: Task[Any]) -> Future[list[Any]]:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.workers, context, begin_worker, (os.getpid(),))
        return self._pool.submit(run_task, task)

    def restart(self) -> None:
        self.close()

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


@dataclass(frozen=True)
class Lines(ImageExporter):
    """A format: a line for each image, with its descriptors in hex."""

    name: ClassVar[str] = "toy"
    about: ClassVar[str] = "a line for each image: its name, and its descriptors in hex"

    def write(self, job: Job, path: Path) -> None:
        with path.open("w", encoding="utf-8") as file:
            for table in job.tables(["filename", "descriptors"]):
                for row in table.to_pylist():
                    file.write(f"{row['filename']} {(row['descriptors'] or b'').hex()}\n")

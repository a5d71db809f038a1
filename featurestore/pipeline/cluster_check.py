"""The check of a cluster before a run: its workers, and how long extract would take on them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from featurestore.catalog import WritableContext, filenames_of
from featurestore.engines import REMOTE, Engine, RemoteEngine, Task, dispatch_tasks, open_engine
from featurestore.images import RunImages
from featurestore.notebook import Tabular
from featurestore.pipeline.extract_run import image_folder
from featurestore.pipeline.image_row import make_rows
from featurestore.pipeline.runner import Options, plan_of
from featurestore.pipeline.terms import agreed_terms
from featurestore.stages import Extract

N_MEASURED = 4  # images for each worker, after one that starts its process


@dataclass(frozen=True)
class ClusterReport(Tabular):
    """The workers that a run would find on a cluster, and their rate."""

    n_workers: int  # threads
    memory: int | None  # bytes of all workers; None: unknown
    n_sampled: int  # images of the sample
    images_per_second: float
    n_images: int  # that extract has to do

    @property
    def seconds(self) -> float:
        """The time that extract would take at this rate."""
        return self.n_images / self.images_per_second if self.n_images else 0.0


@dataclass(frozen=True)
class SampleImages:
    """Images to be extracted without keeping anything."""

    stage: Extract
    folder: RunImages
    images: tuple[tuple[int, str], ...]
    chunk_id: int = 0

    def run(self) -> list[int]:
        """Extract them, and return their number."""
        return [len(make_rows(self.stage, self.images, self.folder))]

    def split(self) -> list[Task[int]]:
        """Return one task an image."""
        return [replace(self, images=(image,)) for image in self.images]

    def crashed(self, reason: str) -> list[int]:
        """Count an image that crashes its worker like any other."""
        return [len(self.images)]


def check_cluster(context: WritableContext, scheduler: str | None) -> ClusterReport:
    """Check the workers of a Dask cluster, and extract a few images on each. Nothing is written.

    Raises:
        EngineLost: the scheduler can't be reached, or has no workers.
        WorkerUnfit: workers have other versions, or not the store or the images.
    """
    engine = open_engine(0, REMOTE, scheduler=scheduler)
    assert isinstance(engine, RemoteEngine)
    with closing(engine), agreed_terms(engine, context):
        n_workers = engine.workers
        plan = plan_of(context, Options())[Extract.name]
        stage, folder = plan.step.stage, image_folder(context, plan)
        assert isinstance(stage, Extract)
        with context.catalog.reading() as connection:
            found = filenames_of(connection, list(range((N_MEASURED + 1) * n_workers)))
        tasks = [SampleImages(stage, folder, (image,)) for image in found.items()]
        _run(engine, tasks[:n_workers])
        begun = time.monotonic()
        measured = tasks[n_workers:] or tasks
        n_sampled = _run(engine, measured)
        rate = n_sampled / (time.monotonic() - begun)
        return ClusterReport(n_workers, engine.memory(), n_sampled, rate, sum(work.n_left for work in plan.todo))


def _run(engine: Engine, tasks: Sequence[SampleImages]) -> int:
    return sum(sum(results) for _, results in dispatch_tasks(engine, tasks))

"""The pace of extract before its first run, from a few images of the store."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from featurestore.catalog import Context, StagePlan, filenames_of
from featurestore.errors import FeatureStoreError
from featurestore.formatting import counted
from featurestore.images import n_pixels
from featurestore.pipeline.estimate import Plan
from featurestore.pipeline.extract_run import image_folder
from featurestore.pipeline.image_row import make_row
from featurestore.stages import Extract

LOG = logging.getLogger("featurestore.pipeline")
N_IMAGES = 9  # the first is for what is slow once, and not counted
SECONDS = 4.0  # of the processor: then the sample ends
MOST_PIXELS = 20_000_000  # of an image of the sample: larger ones take gigabytes


def with_sample(
    context: Context,
    estimates: Plan,
    plans: Mapping[str, StagePlan],
    *,
    workers: int,
    clock: Callable[[], float] = time.process_time,
) -> Plan:
    """Return the estimates with a time for extract, if no earlier run tells and a few images can be tried.

    Args:
        context: of the store.
        estimates: of all stages.
        plans: of all stages.
        workers: processes that the run will have.
        clock: the seconds of the processor that this process has used.
    """
    found = next((e for e in estimates if e.stage == Extract.name), None)
    if found is None or found.seconds is not None:
        return estimates
    try:
        n_sampled, pace = _pace(context, plans[Extract.name], clock)
    except (FeatureStoreError, MemoryError, OSError, RuntimeError) as error:  # the run will say it
        LOG.info("the time of extract is not known: %s", " ".join(str(error).split()))
        return estimates
    if not n_sampled:
        return estimates
    note = f"the time of extract is that of {counted(n_sampled, 'image')}, with {counted(workers, 'worker')}"
    known = replace(found, seconds=pace * found.n_images / max(workers, 1), notes=(*found.notes, note))
    return Plan(known if e is found else e for e in estimates)


def _pace(context: Context, plan: StagePlan, clock: Callable[[], float]) -> tuple[int, float]:
    """Return how many images were tried, and the mean seconds of each."""
    stage = plan.step.stage
    assert isinstance(stage, Extract)
    wanted = [image_id for work in plan.todo[:: len(plan.todo) // N_IMAGES + 1] for image_id in work.wanted]
    with context.catalog.reading() as connection:
        names = filenames_of(connection, wanted[:: len(wanted) // N_IMAGES + 1][:N_IMAGES])
    folder, taken = image_folder(context, plan), list[float]()
    for image_id, name in names.items():
        if n_pixels(folder.file(name), max_pixels=stage.max_pixels) > MOST_PIXELS:
            continue
        begun = clock()
        make_row(stage, image_id, name, folder)
        taken.append(clock() - begun)
        if sum(taken) > SECONDS:
            break
    counted_ones = taken[1:] or taken
    return len(counted_ones), sum(counted_ones) / max(len(counted_ones), 1)

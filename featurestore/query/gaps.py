"""Gaps of the views over partitions: the chunks that they lack, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from duckdb import DuckDBPyConnection

from featurestore.arrow_arrays import numpy_array
from featurestore.catalog import ChunkState, Context, Step, why_missing
from featurestore.formatting import chunk_list, counted
from featurestore.stages import ChunkStage
from featurestore.system import command_line

Part = dict[int, int]  # the number of images of the dataset in each of some chunks


@dataclass(frozen=True)
class Gaps:
    """The chunks that a view over partitions does not have as a run would make them.

    Args:
        stage: whose partitions they are.
        n_images: in the dataset.
        absent: without a partition.
        outdated: whose partition was made from rows that have been replaced since.
        pruned: of whose partition the descriptors and keypoints are gone.
        never: why there is no partition of the first.
    """

    stage: ChunkStage
    n_images: int
    absent: Part
    outdated: Part
    pruned: Part
    never: str

    @property
    def view(self) -> str:
        """The name of the view."""
        return self.stage.view

    def notes(self, context: Context) -> Iterator[str]:
        """Yield what a reader of the view has to know, in one line each."""
        run = command_line("run", context.root.path)
        by_name = command_line("run", context.root.path, self.stage.name)  # as pruned partitions are recomputed
        for part, what, why, way in (
            (self.absent, "lacks", self.never, f"make them with: {run}"),
            (self.outdated, "has outdated rows for", "input changed", f"make them again with: {run}"),
            (self.pruned, "has no descriptors or keypoints for", "pruned", f"make them again with: {by_name}"),
        ):
            if part:
                some = f"{sum(part.values()):,} of {counted(self.n_images, 'image')}"
                yield f"{self.view} {what} {some}: {why} ({chunk_list(part)}); {way}"


def find_gaps(connection: DuckDBPyConnection, step: Step, states: Sequence[ChunkState], removed: pa.Table) -> Gaps:
    """Return what the view over the partitions of a stage lacks.

    Args:
        connection: to the catalog.
        step: the stage.
        states: of all chunks at this stage.
        removed: the ``image_id`` of the images that have left the dataset.
    """
    assert isinstance(step.stage, ChunkStage)
    first = np.array([state.first_image_id for state in states], np.int64)
    end = first + np.array([state.n_images for state in states], np.int64)
    gone = np.sort(numpy_array(removed["image_id"]))
    sizes = (end - first - np.searchsorted(gone, end) + np.searchsorted(gone, first)).tolist()
    absent, outdated, pruned = Part(), Part(), Part()
    for state, n in zip(states, sizes, strict=True):
        if n and state.path is None:
            absent[state.chunk_id] = n
        elif n and not (state.current and state.upstream_current):
            outdated[state.chunk_id] = n
        elif n and state.pruned:
            pruned[state.chunk_id] = n
    never = why_missing(connection, step) if absent else ""
    return Gaps(step.stage, sum(sizes), absent, outdated, pruned, never)

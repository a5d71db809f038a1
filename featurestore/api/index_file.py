"""The index file of a store: made after a run, if too much of the store is not in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featurestore.catalog import StagePlan, WritableContext
from featurestore.formatting import counted
from featurestore.progress import StageSummary
from featurestore.stages import INDEX

if TYPE_CHECKING:
    from featurestore.pipeline import Options


def run_and_index(context: WritableContext, options: Options, today: dict[str, StagePlan]) -> list[StageSummary]:
    """Run stages, and make the index file again if it has grown old; see `run_stages` and `assemble_index`."""
    from featurestore.pipeline import run_stages

    summaries = run_stages(context, options, today)
    assemble_index(context)
    return summaries


def assemble_index(context: WritableContext) -> bool:
    """Make the index file again if it lacks more than a tenth of the store, and return whether it was made.

    Without faiss nothing is made, and searches are exact.

    Raises:
        NotEnoughSpace: the disk is full; the index that was there stays.
        StoreBusy: another process has taken over.
    """
    if INDEX[-1].name not in [stage.name for stage in context.flow]:
        return False
    from featurestore.query import coverage_of, make_index, write_index_file
    from featurestore.retrieval import has_faiss

    coverage = coverage_of(context)
    if coverage is None or not coverage.old or not has_faiss():
        return False
    chunks = [chunk for _, chunk in sorted(coverage.chunks.items()) if chunk.key is not None]
    index, keypoints = make_index(coverage, chunks)
    keys = {chunk.chunk_id: chunk.key for chunk in chunks if chunk.key is not None}
    write_index_file(context.root, coverage.variant, keys, index, keypoints)
    n_images = sum(chunk.n_images for chunk in chunks)
    context.reporter.say(f"made the index of {counted(n_images, 'image')}, with {len(index):,} descriptors")
    return True

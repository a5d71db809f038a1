"""The state of every chunk at every chunk stage of the recipe, from two tables of the catalog.

They are joined here: DuckDB takes longer to plan such a join than Python takes for a few hundred chunks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from duckdb import DuckDBPyConnection

from featurestore.catalog.steps import Step
from featurestore.stages import ChunkStage, FitStage, upstream_of


class ChunkState(NamedTuple):
    """One chunk at one chunk stage. None marks what does not exist."""

    pos: int  # of the stage among the chunk stages
    stage: str
    variant: str | None
    chunk_id: int
    first_image_id: int
    n_images: int
    payload: str | None  # of the committed partition
    path: str | None  # its file
    pruned: bool  # only its index is left
    input_payload: str | None  # its input of today
    input_path: str | None
    input_pruned: bool
    current: bool
    wanted: bool
    upstream_current: bool  # all stages before it are current
    fit_wants: bool  # a fit stage without a model reads it


class _Partition(NamedTuple):
    """The record of a partition; None marks one that does not exist."""

    payload: str | None
    path: str | None
    pruned: bool
    input_payload: str | None


NONE = _Partition(None, None, False, None)
Chunk = tuple[int, int, int, str]  # its id, its first image, its number of images, its digest
Partitions = dict[tuple[str, str | None], dict[int, _Partition]]  # by stage and variant, by chunk


class _AtStage(NamedTuple):
    """All chunks at one stage, each list in the order of the chunks."""

    partitions: list[_Partition]
    before: list[_Partition]  # that the stage reads
    inputs: list[str | None]
    current: list[bool]
    passed: list[bool]  # current, but pruned, so that a later stage can't read it


def chunk_states(connection: DuckDBPyConnection, steps: Sequence[Step]) -> list[ChunkState]:
    """Return every chunk at every chunk stage among ``steps``, in order of the stages."""
    unfitted = {s.stage.reads for s in steps if isinstance(s.stage, FitStage) and s.current_model is None}
    chunk_steps, stages = [s for s in steps if isinstance(s.stage, ChunkStage)], [step.stage for step in steps]
    ways = {s.stage.name: [stage.name for stage in upstream_of(stages, s.stage.name)] for s in chunk_steps}
    query = "SELECT chunk_id, first_image_id, n_images, digest FROM chunks ORDER BY chunk_id"
    chunks: list[Chunk] = connection.execute(query).fetchall()
    partitions = _partitions(connection, chunk_steps)
    at = {s.stage.name: _at_stage(s, chunks, partitions, first=s is chunk_steps[0]) for s in chunk_steps}
    found = list[ChunkState]()
    for pos, step in enumerate(chunk_steps):
        name, here = step.stage.name, at[step.stage.name]
        upstream = [at[stage].current for stage in ways[name][:-1]]
        downstream = [(at[w[-1]].current, _between(at, w, name)) for w in ways.values() if name in w[:-1]]
        for i, ((chunk_id, first, n, _), own, read) in enumerate(
            zip(chunks, here.partitions, here.before, strict=True)
        ):
            current = here.current[i]
            wanted = name in unfitted or any(
                not later[i] and all(passed[i] for passed in between) for later, between in downstream
            )
            ready = all(before[i] for before in upstream)
            known = (pos, name, step.variant, chunk_id, first, n, own.payload, own.path, own.pruned, here.inputs[i])
            found.append(ChunkState(*known, read.path, read.pruned, current, wanted, ready, name in unfitted))
    return found


def _between(at: Mapping[str, _AtStage], way: Sequence[str], name: str) -> list[list[bool]]:
    """Return which chunks have passed the stages after ``name`` and before the end of the way."""
    return [at[stage].passed for stage in way[way.index(name) + 1 : -1]]


def _partitions(connection: DuckDBPyConnection, steps: Sequence[Step]) -> Partitions:
    """Return the partitions of current variants."""
    variants = [step.variant for step in steps if step.variant is not None]
    query = "SELECT stage, variant, chunk_id, payload, path, pruned, input_payload FROM partitions"
    rows = connection.execute(f"{query} WHERE list_contains($variants, variant)", {"variants": variants}).fetchall()
    found: Partitions = {}
    for stage, variant, chunk_id, *values in rows:
        found.setdefault((stage, variant), {})[chunk_id] = _Partition._make(values)
    return found


def _at_stage(step: Step, chunks: Sequence[Chunk], partitions: Partitions, *, first: bool) -> _AtStage:
    own = partitions.get((step.stage.name, step.variant), {})
    read = partitions.get((step.stage.reads, step.reads_variant), {})
    here, before = [own.get(chunk[0], NONE) for chunk in chunks], [read.get(chunk[0], NONE) for chunk in chunks]
    inputs: list[str | None] = [c[3] for c in chunks] if first else [partition.payload for partition in before]
    current = [p is not NONE and p.input_payload == needed for p, needed in zip(here, inputs, strict=True)]
    passed = [p.pruned and there for p, there in zip(here, current, strict=True)]
    return _AtStage(here, before, inputs, current, passed)

"""The state of every chunk at every chunk stage of the recipe, from two tables of the catalog.

They are joined here: DuckDB takes longer to plan such a join than Python takes for a few hundred chunks. It is
done column by column: for ten thousand chunks, an object for each partition would keep the garbage collector busy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any, NamedTuple

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


Chunk = tuple[int, int, int, str]  # its id, its first image, its number of images, its digest
Record = tuple[Any, ...]  # of a partition: payload, path, pruned, input_payload, and what says where it belongs
NONE: Record = (None, None, False, None)
Partitions = dict[tuple[str, str | None], dict[int, Record]]  # by stage and variant, by chunk


class _AtStage(NamedTuple):
    """All chunks at one stage, each column in the order of the chunks."""

    payloads: list[str | None]
    paths: list[str | None]
    pruned: list[bool]
    inputs: Sequence[str | None]
    input_paths: list[str | None]
    inputs_pruned: list[bool]
    current: list[bool]

    def passed(self) -> Iterator[bool]:
        """Yield which chunks are current, but pruned, so that a later stage can't read them."""
        return (pruned and current for pruned, current in zip(self.pruned, self.current, strict=True))


def chunk_states(connection: DuckDBPyConnection, steps: Sequence[Step]) -> list[ChunkState]:
    """Return every chunk at every chunk stage among ``steps``, in order of the stages."""
    unfitted = {s.stage.reads for s in steps if isinstance(s.stage, FitStage) and s.current_model is None}
    chunk_steps, stages = [s for s in steps if isinstance(s.stage, ChunkStage)], [step.stage for step in steps]
    ways = {s.stage.name: [stage.name for stage in upstream_of(stages, s.stage.name)] for s in chunk_steps}
    query = "SELECT chunk_id, first_image_id, n_images, digest FROM chunks ORDER BY chunk_id"
    chunks: list[Chunk] = connection.execute(query).fetchall()
    ids, firsts, sizes = [chunk[0] for chunk in chunks], [chunk[1] for chunk in chunks], [chunk[2] for chunk in chunks]
    digests = [chunk[3] for chunk in chunks]
    partitions = _partitions(connection, chunk_steps)
    at = {s.stage.name: _at_stage(s, ids, partitions, digests if s is chunk_steps[0] else None) for s in chunk_steps}
    found = list[ChunkState]()
    for pos, step in enumerate(chunk_steps):
        name, here = step.stage.name, at[step.stage.name]
        before = [at[stage].current for stage in ways[name][:-1]]
        ready = map(all, zip(*before, strict=True)) if before else repeat(True)
        wanted = repeat(True) if name in unfitted else _wanted(at, ways, name)
        stage = (repeat(pos), repeat(name), repeat(step.variant), ids, firsts, sizes)
        rows = zip(*stage, *here, wanted, ready, repeat(name in unfitted), strict=False)
        found += map(ChunkState._make, rows)
    return found


def _wanted(at: Mapping[str, _AtStage], ways: Mapping[str, Sequence[str]], name: str) -> list[bool]:
    """Return which chunks lack a later stage, and have passed all stages between."""
    wanted = [False] * len(at[name].current)
    for way in ways.values():
        if name not in way[:-1] or all(at[way[-1]].current):
            continue
        between = [at[stage].passed() for stage in way[way.index(name) + 1 : -1]]
        passed = map(all, zip(*between, strict=True)) if between else repeat(True)
        wanted = [w or (p and not c) for w, p, c in zip(wanted, passed, at[way[-1]].current, strict=False)]
    return wanted


def _partitions(connection: DuckDBPyConnection, steps: Sequence[Step]) -> Partitions:
    """Return the partitions of current variants."""
    variants = [step.variant for step in steps if step.variant is not None]
    query = "SELECT payload, path, pruned, input_payload, stage, variant, chunk_id FROM partitions"
    rows = connection.execute(f"{query} WHERE list_contains($variants, variant)", {"variants": variants}).fetchall()
    found: Partitions = {}
    for row in rows:
        found.setdefault((row[4], row[5]), {})[row[6]] = row
    return found


def _at_stage(step: Step, ids: Sequence[int], partitions: Partitions, digests: Sequence[str] | None) -> _AtStage:
    """Return the chunks at a stage; ``digests`` are those of the images, where it reads these."""
    own, read = (
        partitions.get(key, {}) for key in ((step.stage.name, step.variant), (step.stage.reads, step.reads_variant))
    )
    here, before = [own.get(chunk, NONE) for chunk in ids], [read.get(chunk, NONE) for chunk in ids]
    payloads, inputs = [row[0] for row in here], digests or [row[0] for row in before]
    current = [row[0] is not None and row[3] == needed for row, needed in zip(here, inputs, strict=True)]
    paths, pruned = ([row[column] for row in here] for column in (1, 2))
    input_paths, inputs_pruned = ([row[column] for row in before] for column in (1, 2))
    return _AtStage(payloads, paths, pruned, inputs, input_paths, inputs_pruned, current)

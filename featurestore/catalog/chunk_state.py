"""The state of every chunk at every chunk stage of the recipe, by one SQL query over the catalog."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from duckdb import DuckDBPyConnection

from featurestore.catalog.statements import insert_rows
from featurestore.catalog.steps import Step
from featurestore.catalog.table_rows import query_rows
from featurestore.stages import ChunkStage, FitStage, upstream_of

# Every chunk at every chunk stage of the current recipe: its partition, today's input, and whether a missing partition
# needs its file. `flow` is a table of the chunk stages in order, with their current variants.
#
#   current   a committed partition of this variant was made from today's input
#   wanted    a later stage is missing, and all stages between are pruned, so recomputing it needs this file, even if
#             the file is all that is lost here
#
# The flow says which stages are upstream and downstream of each, and which stand between: a join of all stages with
# each other takes forty times as long on ten thousand chunks.
STATE = """
WITH joined AS (
    SELECT f.pos, f.stage, f.variant, c.chunk_id, c.first_image_id, c.n_images, f.fit_wants, f.upstream, f.downstream,
           p.payload, p.path, coalesce(p.pruned, false) AS pruned,
           CASE WHEN f.pos = 0 THEN c.digest ELSE u.payload END AS input_payload,
           u.path AS input_path, coalesce(u.pruned, false) AS input_pruned,
           p.payload IS NOT NULL
               AND p.input_payload IS NOT DISTINCT FROM CASE WHEN f.pos = 0 THEN c.digest ELSE u.payload END AS current
    FROM flow f
    CROSS JOIN chunks c
    LEFT JOIN partitions p ON p.stage = f.stage AND p.variant = f.variant AND p.chunk_id = c.chunk_id
    LEFT JOIN partitions u ON u.stage = f.reads AND u.variant = f.reads_variant AND u.chunk_id = c.chunk_id
), of_chunk AS (
    SELECT chunk_id, coalesce(list(stage) FILTER (WHERE NOT current), []) AS missing,
           coalesce(list(stage) FILTER (WHERE current AND pruned), []) AS passed
    FROM joined GROUP BY chunk_id
)
SELECT * EXCLUDE (upstream, downstream, missing, passed),
       fit_wants OR len(list_filter(downstream, lambda d: list_contains(missing, d.stage)
                                                          AND list_has_all(passed, d.between))) > 0 AS wanted,
       NOT list_has_any(missing, upstream) AS upstream_current
FROM joined JOIN of_chunk USING (chunk_id)
ORDER BY pos, chunk_id
"""


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


def chunk_states(connection: DuckDBPyConnection, steps: Sequence[Step]) -> list[ChunkState]:
    """Return every chunk at every chunk stage among ``steps``, in order of the stages."""
    _make_flow_table(connection, steps)
    return query_rows(connection, ChunkState, STATE)


def _make_flow_table(connection: DuckDBPyConnection, steps: Sequence[Step]) -> None:
    unfitted = {s.stage.reads for s in steps if isinstance(s.stage, FitStage) and s.current_model is None}
    chunk_steps = [step for step in steps if isinstance(step.stage, ChunkStage)]
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE flow "
        "(pos INT, stage VARCHAR, variant VARCHAR, reads VARCHAR, reads_variant VARCHAR, fit_wants BOOLEAN, "
        "upstream VARCHAR[], downstream STRUCT(stage VARCHAR, between VARCHAR[])[])"
    )
    stages = [step.stage for step in steps]
    ways = {step.stage.name: [stage.name for stage in upstream_of(stages, step.stage.name)] for step in chunk_steps}
    rows = []
    for pos, step in enumerate(chunk_steps):
        name = step.stage.name
        downstream = [
            {"stage": other, "between": way[way.index(name) + 1 : -1]}
            for other, way in ways.items()
            if name in way[:-1]
        ]
        rows.append(
            {
                "pos": pos,
                "stage": name,
                "variant": step.variant,
                "reads": step.stage.reads,
                "reads_variant": step.reads_variant,
                "fit_wants": name in unfitted,
                "upstream": ways[name][:-1],
                "downstream": downstream,
            }
        )
    # One statement: Arrow would be quicker, but DuckDB imports pandas to read it.
    insert_rows(connection, "flow", rows)

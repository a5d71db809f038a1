"""Counts of each stage of the recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from duckdb import DuckDBPyConnection

from featurestore.catalog.steps import Step
from featurestore.catalog.table_rows import query_rows


class StageFacts(NamedTuple):
    """The counts of one variant of a stage."""

    images: Mapping[str, int]  # in the dataset, by status, the most frequent first
    n_descriptors: int = 0  # of these images
    n_bytes: int = 0  # of partitions that are not pruned
    n_clipped: int | None = None
    n_values: int | None = None  # in all descriptors
    n_pruned: int = 0  # partitions
    versions: Sequence[Mapping[str, str]] = ()  # of the libraries, distinct


class _Results(NamedTuple):
    stage: str
    variant: str
    status: str
    n: int


class _Removed(NamedTuple):
    stage: str
    variant: str
    status: str
    n: int
    n_descriptors: int


class _Partitions(NamedTuple):
    """Partitions that the same versions of the libraries made, pruned or not."""

    stage: str
    variant: str
    pruned: bool
    text: str  # of the versions
    n: int
    n_descriptors: int
    n_bytes: int
    n_clipped: int | None
    n_values: int


# They count every variant, which is faster than filtering ten million rows by the current one.
_RESULTS = "SELECT stage, variant, status, count(*) AS n FROM results GROUP BY ALL ORDER BY n DESC"
_REMOVED = """
SELECT stage, variant, status, count(*) AS n, CAST(sum(n_descriptors) AS BIGINT) AS n_descriptors
FROM results SEMI JOIN (SELECT image_id FROM images WHERE removed_by IS NOT NULL) USING (image_id)
GROUP BY ALL
"""
# Without FILTER and list(DISTINCT), which take DuckDB longer to plan than what is left to add up takes Python.
_PARTITIONS = """
SELECT stage, variant, pruned, CAST(versions AS VARCHAR) AS text, count(*) AS n,
       CAST(sum(n_descriptors) AS BIGINT) AS n_descriptors, CAST(sum(n_bytes) AS BIGINT) AS n_bytes,
       CAST(sum(n_clipped) AS BIGINT) AS n_clipped, CAST(sum(n_descriptors * dim) AS BIGINT) AS n_values
FROM partitions GROUP BY ALL
"""


def stage_facts(connection: DuckDBPyConnection, steps: Sequence[Step], *, n_removed: int) -> dict[str, StageFacts]:
    """Return the counts of each step, by the stage's name; ``n_removed`` images have left the dataset."""
    results = query_rows(connection, _Results, _RESULTS)
    gone = query_rows(connection, _Removed, _REMOVED) if n_removed else []
    removed = {(row.stage, row.variant, row.status): row for row in gone}
    partitions = query_rows(connection, _Partitions, _PARTITIONS)
    facts = {}
    for step in steps:
        images, n_lost = dict[str, int](), 0
        for row in results:
            if (row.stage, row.variant) == (step.stage.name, step.variant):
                left = removed.get((row.stage, row.variant, row.status))
                images[row.status] = row.n - (left.n if left else 0)
                n_lost += left.n_descriptors if left else 0
        images = {status: n for status, n in images.items() if n}
        found = [row for row in partitions if (row.stage, row.variant) == (step.stage.name, step.variant)]
        facts[step.stage.name] = _with_partitions(images, n_lost, found)
    return facts


def _with_partitions(images: Mapping[str, int], n_removed: int, found: Sequence[_Partitions]) -> StageFacts:
    if not found:
        return StageFacts(images)
    clipped = [row.n_clipped for row in found if row.n_clipped is not None]
    return StageFacts(
        images,
        n_descriptors=sum(row.n_descriptors for row in found) - n_removed,
        n_bytes=sum(row.n_bytes for row in found if not row.pruned),
        n_clipped=sum(clipped) if clipped else None,
        n_values=sum(row.n_values for row in found),
        n_pruned=sum(row.n for row in found if row.pruned),
        versions=[json.loads(text) for text in dict.fromkeys(row.text for row in found)],
    )

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
    stage: str
    variant: str
    n_descriptors: int
    n_bytes: int
    n_clipped: int | None
    n_values: int
    n_pruned: int
    texts: list[str]  # of versions


# They count every variant, which is faster than filtering ten million rows by the current one.
_RESULTS = "SELECT stage, variant, status, count(*) AS n FROM results GROUP BY ALL ORDER BY n DESC"
_REMOVED = """
SELECT stage, variant, status, count(*) AS n, CAST(sum(n_descriptors) AS BIGINT) AS n_descriptors
FROM results SEMI JOIN (SELECT image_id FROM images WHERE removed_by IS NOT NULL) USING (image_id)
GROUP BY ALL
"""
_PARTITIONS = """
SELECT stage, variant, CAST(sum(n_descriptors) AS BIGINT) AS n_descriptors,
       CAST(coalesce(sum(n_bytes) FILTER (WHERE NOT pruned), 0) AS BIGINT) AS n_bytes,
       CAST(sum(n_clipped) AS BIGINT) AS n_clipped, CAST(sum(n_descriptors * dim) AS BIGINT) AS n_values,
       count(*) FILTER (WHERE pruned) AS n_pruned, list(DISTINCT versions) AS texts
FROM partitions GROUP BY ALL
"""


def stage_facts(connection: DuckDBPyConnection, steps: Sequence[Step]) -> dict[str, StageFacts]:
    """Return the counts of each step, by the stage's name."""
    results = query_rows(connection, _Results, _RESULTS)
    removed = {(row.stage, row.variant, row.status): row for row in query_rows(connection, _Removed, _REMOVED)}
    partitions = {(row.stage, row.variant): row for row in query_rows(connection, _Partitions, _PARTITIONS)}
    facts = {}
    for step in steps:
        images, n_removed = dict[str, int](), 0
        for row in results:
            if (row.stage, row.variant) == (step.stage.name, step.variant):
                left = removed.get((row.stage, row.variant, row.status))
                images[row.status] = row.n - (left.n if left else 0)
                n_removed += left.n_descriptors if left else 0
        images = {status: n for status, n in images.items() if n}
        found = partitions.get((step.stage.name, step.variant or ""))
        facts[step.stage.name] = _with_partitions(images, n_removed, found)
    return facts


def _with_partitions(images: Mapping[str, int], n_removed: int, found: _Partitions | None) -> StageFacts:
    if found is None:
        return StageFacts(images)
    return StageFacts(
        images,
        n_descriptors=found.n_descriptors - n_removed,
        n_bytes=found.n_bytes,
        n_clipped=found.n_clipped,
        n_values=found.n_values,
        n_pruned=found.n_pruned,
        versions=[json.loads(text) for text in found.texts],
    )

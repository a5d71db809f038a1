"""Past runs: killed ones, those of another store, and those known only from manifests."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from duckdb import DuckDBPyConnection

from featurestore.catalog.runs import utc_now
from featurestore.catalog.statements import insert_arrow, insert_row, query_arrow, query_value, update_rows
from featurestore.catalog.table_rows import Outcome, query_rows

_TOLD = """
SELECT p.stage, p.variant, CAST(p.versions AS VARCHAR) AS versions, CAST(any_value(v.parameters) AS VARCHAR)
       AS parameters, count(*) AS n_chunks, CAST(sum(p.n_images) AS BIGINT) AS n_images,
       CAST(sum(p.n_descriptors) AS BIGINT) AS n_descriptors, CAST(sum(p.n_bytes) AS BIGINT) AS n_bytes,
       list(p.path) AS paths
FROM partitions p JOIN variants v ON v.variant = p.variant GROUP BY ALL ORDER BY ALL
"""


class ManifestRun(NamedTuple):
    """A run as far as the manifests of a variant's partitions tell: one for each set of library versions."""

    stage: str
    variant: str
    versions: dict[str, str]
    parameters: dict[str, Any]
    n_chunks: int
    n_images: int
    n_descriptors: int
    n_bytes: int
    paths: list[str]  # of the partitions


def runs_of_manifests(connection: DuckDBPyConnection) -> list[ManifestRun]:
    """Return the runs that follow from the manifests of the recorded partitions."""
    return query_rows(connection, ManifestRun, _TOLD)


def record_rebuilt_run(
    connection: DuckDBPyConnection, number: int, told: ManifestRun, *, begun: datetime, ended: datetime
) -> None:
    """Record a run that is known only from manifests; ``begun`` and ``ended`` are UTC, naive."""
    facts = {name: value for name, value in told._asdict().items() if name != "paths"}
    unknown = {"run_id": f"rebuilt-{number:04d}", "host": "unknown", "pid": 0, "workers": 0, "seconds": 0.0}
    end = {"outcome": Outcome.REBUILT, "message": "told by the manifests of its partitions"}
    insert_row(connection, "runs", {**facts, **unknown, **end, "started": begun, "ended": ended})


def count_unfinished_runs(connection: DuckDBPyConnection) -> int:
    """Return the number of runs recorded as running."""
    return int(query_value(connection, f"SELECT count(*) FROM runs WHERE outcome = '{Outcome.RUNNING}'"))


def end_dead_runs(connection: DuckDBPyConnection) -> None:
    """Record the runs that are recorded as running as killed."""
    killed = {"outcome": Outcome.KILLED, "ended": utc_now()}
    update_rows(connection, "runs", killed, where={"outcome": Outcome.RUNNING})


def finished_runs(connection: DuckDBPyConnection, variants: Collection[str]) -> pa.Table:
    """Return the records of ended runs of some variants."""
    query = f"SELECT * FROM runs WHERE list_contains($variants, variant) AND outcome <> '{Outcome.RUNNING}'"
    return query_arrow(connection, query, {"variants": sorted(variants)})


def restore_runs(connection: DuckDBPyConnection, runs: pa.Table) -> None:
    """Record the runs of an old catalog in an empty one."""
    insert_arrow(connection, "runs", runs)


def add_runs(connection: DuckDBPyConnection, runs: pa.Table) -> None:
    """Record runs of another catalog, from `finished_runs`; known ones are skipped."""
    known = query_arrow(connection, "SELECT run_id FROM runs")["run_id"]
    new = pc.invert(pc.is_in(runs["run_id"], known))
    insert_arrow(connection, "runs", runs.filter(new))

"""The catalog made anew from the store's files: it is an index, and all of it but ``runs`` follows from them."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow.parquet as pq
import sqlalchemy as sa

from featurestore.catalog import HeldCatalog, arrow, insert_arrow
from featurestore.child import run_child
from featurestore.context import Context
from featurestore.errors import CorruptFile, FormatError
from featurestore.index import is_index
from featurestore.ingest import replay
from featurestore.ledger import Described, check_partition, record, record_model
from featurestore.stages import FLOW
from featurestore.storage import CATALOG, Root
from featurestore.tables import Run

COPY = "put back a copy of it"
Watch = Callable[[str], None]
Key = tuple[str, str, int]  # stage, variant, chunk
PARTITION_FILE = re.compile(r"partitions/[^/]+/[^/]+/(?:chunk|index)-(\d+)[-.].*parquet")


@dataclass(frozen=True)
class RebuildReport:
    """What the new catalog knows."""

    n_images: int
    n_partitions: int
    n_models: int
    n_runs: int
    notes: tuple[str, ...]  # what was left out, what was chosen, and what could not be told


def rebuild(context: Context) -> RebuildReport:
    """Make the catalog anew beside the old one, and put it in its place in one step. Only under the run lock.

    Raises:
        CorruptFile: a dataset file is gone or damaged; nothing else says which images there are.
    """
    root = context.root
    root.sweep()
    with root.temporary(CATALOG) as draft, root.temporary("runs.parquet") as salvaged:
        with HeldCatalog(root, draft) as catalog:
            notes = fill(root, catalog, watch=lambda name: None)
            notes += _restore_runs(root, catalog, salvaged)
            with catalog.reading() as connection:
                counts = {f"n_{t}": _count(connection, t) for t in ("images", "partitions", "models", "runs")}
        context.catalog.replace(draft)
    return RebuildReport(**counts, notes=tuple(notes))


def fill(root: Root, catalog: HeldCatalog, *, watch: Watch) -> list[str]:
    """Record every file of the store in an empty catalog; return what people should know of it.

    Args:
        root: of the store.
        catalog: to be filled.
        watch: is told the name of each file before it is read.

    Raises:
        CorruptFile: a dataset file is gone or damaged.
    """
    catalog.migrate()
    if not root.files("dataset", ".parquet"):
        raise CorruptFile(
            f"{root.local('dataset')} holds no file, and nothing else says which images there are; {COPY}"
        )
    for number, name in enumerate(root.files("dataset", ".parquet"), start=1):
        watch(name)
        if PurePosixPath(name).name != f"{number:06d}.parquet":
            raise CorruptFile(f"dataset/{number:06d}.parquet is missing, and {name} builds on it; {COPY}")
        replay(root, catalog, name)
    notes = _record_models(root, catalog, watch)
    with catalog.reading() as connection:
        chunks = arrow(connection, "SELECT chunk_id, digest FROM chunks").to_pylist()
    payloads: dict[Key, str] = {("", "", chunk["chunk_id"]): chunk["digest"] for chunk in chunks}
    known = {chunk["chunk_id"] for chunk in chunks}
    for key, names in _in_order(root):
        notes += _record_one(root, catalog, names, payloads, watch, known=key[2] in known)
    return notes


def _record_models(root: Root, catalog: HeldCatalog, watch: Watch) -> list[str]:
    notes = []
    for name in root.files("models", ".npz"):
        if PurePosixPath(name).name == "state.npz":
            continue
        watch(name)
        try:
            record_model(root, catalog, name)
        except (CorruptFile, FormatError) as error:
            notes.append(f"left out: {error}")
    return notes


def _in_order(root: Root) -> Iterator[tuple[Key, list[str]]]:
    """Yield the files of each chunk at each stage and variant, upstream first, so that it is known what each read."""
    order = {stage.name: place for place, stage in enumerate(FLOW)}
    found: dict[Key, list[str]] = defaultdict(list)
    for name in root.files("partitions", ".parquet"):
        match = PARTITION_FILE.fullmatch(name)
        parts = PurePosixPath(name).parts
        found[parts[1], parts[2] if len(parts) > 2 else "", int(match[1]) if match else -1].append(name)
    yield from sorted(found.items(), key=lambda item: (order.get(item[0][0], len(order)), item[0]))


def _record_one(
    root: Root, catalog: HeldCatalog, names: list[str], payloads: dict[Key, str], watch: Watch, *, known: bool
) -> list[str]:
    """Record the one file of a chunk that is current, of those that hold what they promise."""
    notes, whole = [], []
    for name in names:
        watch(name)
        try:
            whole.append(check_partition(root, name))
        except (CorruptFile, FormatError) as error:
            notes.append(f"left out: {error}")
    if not whole:
        return notes
    if not known:
        return [*notes, f"left out: {names[0]} is of a chunk that is not in the dataset"]
    best = max(whole, key=lambda described: _rank(root, described, payloads))
    values = best.values
    payloads[values["stage"], values["variant"], values["chunk_id"]] = values["payload"]
    record(catalog, best)
    others = [described.values["path"] for described in whole if described is not best]
    return [*notes, *(f"chosen: {values['path']} rather than {other}" for other in others)]


def _rank(root: Root, described: Described, payloads: Mapping[Key, str]) -> tuple[Any, ...]:
    """Return how likely it is that a partition was the current one of its chunk.

    It is the one made from what is upstream today; then a whole one rather than an index, the one with the most usable
    images (a retry makes it more), and the newest.
    """
    manifest, values = described.manifest, described.values
    reads = next((stage.reads for stage in FLOW if stage.name == manifest["stage"]), "")
    upstream = ("", "", manifest["chunk_id"]) if reads == "images" else _upstream(reads, manifest)
    usable = sum(status in ("ok", "empty") for status in described.results["status"].to_pylist())
    modified = root.local(values["path"]).stat().st_mtime_ns
    return payloads.get(upstream) == values["input_payload"], not is_index(values["path"]), usable, modified


def _upstream(reads: str, manifest: Mapping[str, Any]) -> Key:
    return reads, manifest["reads_variant"], manifest["chunk_id"]


def _restore_runs(root: Root, catalog: HeldCatalog, salvaged: Path) -> list[str]:
    """Take the runs from the old catalog if it can be read, in a process that may crash; else from the manifests."""
    if root.local(CATALOG).is_file():
        try:
            run_child("salvage", root.local(CATALOG), salvaged)
            runs = pq.read_table(salvaged)
            with catalog.transaction() as connection:
                insert_arrow(connection, Run.__tablename__, runs)
            return []
        except (CorruptFile, OSError) as error:
            reason = str(error)
    else:
        reason = "there is no old catalog"
    with catalog.transaction() as connection:
        for run in _told_by_manifests(root, connection):
            connection.execute(sa.insert(Run).values(**run))
    return [f"runs are as far as the manifests tell, without hosts and durations: {reason}"]


def _told_by_manifests(root: Root, connection: sa.Connection) -> list[dict[str, Any]]:
    """Return a run for each variant and set of library versions; when it was is told by the files' times."""
    query = """
        SELECT p.stage, p.variant, CAST(p.versions AS VARCHAR) AS versions, CAST(any_value(v.parameters) AS VARCHAR)
               AS parameters, count(*) AS n_chunks, CAST(sum(p.n_images) AS BIGINT) AS n_images,
               CAST(sum(p.n_descriptors) AS BIGINT) AS n_descriptors, CAST(sum(p.n_bytes) AS BIGINT) AS n_bytes,
               list(p.path) AS paths
        FROM partitions p JOIN variants v ON v.variant = p.variant GROUP BY ALL ORDER BY ALL"""
    runs = []
    for number, row in enumerate(arrow(connection, query).to_pylist()):
        times = [root.local(path).stat().st_mtime for path in row.pop("paths")]
        begun, ended = (datetime.fromtimestamp(t, UTC).replace(tzinfo=None) for t in (min(times), max(times)))
        told = {"run_id": f"rebuilt-{number:04d}", "host": "unknown", "pid": 0, "workers": 0, "seconds": 0.0}
        documents = {name: json.loads(row[name]) for name in ("versions", "parameters")}
        end = {"outcome": "rebuilt", "message": "told by the manifests of its partitions"}
        runs.append({**row, **documents, **told, **end, "started": begun, "ended": ended})
    return runs


def _count(connection: sa.Connection, table: str) -> int:
    return int(connection.execute(sa.text(f"SELECT count(*) FROM {table}")).scalar_one())

"""Growth: catalogs of a million and of ten million images, written straight into the tables; no image is read."""

from __future__ import annotations

import json
import shutil
import statistics
import sys
from collections.abc import Sequence
from dataclasses import astuple
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from duckdb import DuckDBPyConnection

from benchmarks.measure import Bench, Finding, Spent, Watch, in_time, peak_bytes, python, spend, walls
from featurestore import FeatureStore
from featurestore.catalog import Context, PartitionRow, WritableContext, make_plan, resolve
from featurestore.catalog.records import record_partition
from featurestore.catalog.statements import DATASET_COLUMNS, insert_arrow, query_value
from featurestore.maintenance.sandbox import run_child
from featurestore.progress import Silent
from featurestore.storage import CATALOG, CONFIG

CHUNK = 1000
PCA, SCALE = "a" * 16, "b" * 16  # ids of models
BY_ARTIST = (
    "SELECT artist, count(*), sum(n_descriptors) FROM images JOIN descriptor_counts USING (image_id) "
    "WHERE stage = 'quantize' GROUP BY artist"
)


def run(bench: Bench) -> list[Finding]:
    """Measure each catalog in a process of its own."""
    small, large = (2, 4) if bench.quick else (1000, 10_000)
    found = {n: _measured(bench, n) for n in (small, large)}
    findings = []
    for n, limits in ((small, (1, 1, 1, 1)), (large, (3, 1, 1, 10))):
        for name, limit in zip(("status", "plan", "commit", "sql"), limits, strict=True):
            what = f"{TEXTS[name]}, {n * CHUNK:,} images in {n:,} chunks"
            findings.append(in_time(what, _costs(found[n][name]), limit))
    growth = _median(found[large]["commit"]) / _median(found[small]["commit"])
    findings.append(
        Finding("commit: the larger catalog against the smaller", f"{growth:.2f}x", "<= 1.5x", growth <= 1.5)
    )
    for n in (small, large):
        peak = found[n]["peak"][0] / 1e9
        findings.append(
            Finding(f"peak memory of all this, {n * CHUNK:,} images", f"{peak:.2f} GB", "<= 2 GB", peak <= 2)
        )
    children = [found[n]["child"][0] for n in (small, large)]
    text = " and ".join(
        f"{n * CHUNK:,} images: {peak / 1e6:.0f} MB" for n, peak in zip((small, large), children, strict=True)
    )
    what = "peak memory of the process that reads the catalog before verify and rebuild"
    findings.append(Finding(what, text, "bounded: <= 1500 MB", max(children) <= 1.5e9))
    return findings


TEXTS = {
    "status": "status",
    "plan": "planning what is missing",
    "commit": "committing one partition",
    "sql": "counts by artist, in SQL",
}


def _costs(pairs: Sequence[Sequence[float]]) -> list[Spent]:
    return [Spent(wall, cpu) for wall, cpu in pairs]


def _median(pairs: Sequence[Sequence[float]]) -> float:
    return statistics.median(walls(_costs(pairs)))


def _measured(bench: Bench, n_chunks: int) -> dict[str, list[Any]]:
    path = bench.scratch / f"catalog-{n_chunks}"
    python("-m", "benchmarks.growth", "make", str(path), str(n_chunks))
    text = python("-m", "benchmarks.growth", "measure", str(path), str(bench.repetitions))
    shutil.rmtree(path)
    found: dict[str, list[Any]] = json.loads(text.splitlines()[-1])
    return found


def make(path: Path, n_chunks: int) -> None:
    """Make a store in which all is done but the last chunk of quantize."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    (path / CONFIG).write_text("", encoding="utf-8")
    with FeatureStore(path)._held("make", Silent()) as context:
        context.catalog.migrate()
        _fill(context, n_chunks)


def _fill(context: WritableContext, n_chunks: int) -> None:
    variants = _variants(context)
    with context.catalog.transaction() as connection:
        kind = "image_id BIGINT, artist VARCHAR"
        connection.execute(f"CREATE TABLE IF NOT EXISTS {DATASET_COLUMNS} ({kind})")
        for first in range(0, n_chunks, 1000):
            _write_images(connection, variants, np.arange(first, min(first + 1000, n_chunks), dtype=np.int32))
        _write_chunks(connection, variants, np.arange(n_chunks, dtype=np.int32))
        _write_models(connection, context, variants, n_chunks * CHUNK)


def _variants(context: Context) -> dict[str, str]:
    extract, fit_pca, project, fit_scale, quantize = context.flow
    found = {"extract": extract.variant(reads="", model_id=None)}
    found["fit_pca"] = fit_pca.variant(reads=found["extract"], model_id=None)
    found["project"] = project.variant(reads=found["extract"], model_id=PCA)
    found["fit_scale"] = fit_scale.variant(reads=found["project"], model_id=None)
    found["quantize"] = quantize.variant(reads=found["project"], model_id=SCALE)
    return found


def _texts(prefix: str, numbers: Any) -> pa.Array:
    return pa.array(np.char.add(prefix, numbers.astype(str)))


def _same(value: Any, n: int, kind: pa.DataType | None = None) -> pa.Array:
    return pa.array([value] * n, kind)


def _write_images(connection: DuckDBPyConnection, variants: dict[str, str], chunks: Any) -> None:
    chunk = np.repeat(chunks, CHUNK)
    ids = np.arange(len(chunk), dtype=np.int64) + int(chunks[0]) * CHUNK
    subsets = pa.array(np.where(ids % 5 == 4, "test", "train"))
    names = _texts("folder/", ids)
    insert_arrow(
        connection, "images", pa.table({"image_id": ids, "chunk_id": chunk, "filename": names, "subset": subsets})
    )
    insert_arrow(
        connection, DATASET_COLUMNS, pa.table({"image_id": ids, "artist": _texts("artist ", ids * 7919 % 5000)})
    )
    for stage in ("extract", "project", "quantize"):
        results = {
            **{"stage": _same(stage, len(ids)), "variant": _same(variants[stage], len(ids)), "chunk_id": chunk},
            **{"image_id": ids, "status": _same("ok", len(ids)), "error": pa.nulls(len(ids), pa.string())},
            **{"n_descriptors": (ids * 31 % 4000).astype(np.int32), "pixels": pa.nulls(len(ids), pa.int64())},
        }
        insert_arrow(connection, "results", pa.table(results))
    for model, learnt in ((PCA, ids[ids % 5 != 4]), (SCALE, ids)):
        insert_arrow(
            connection, "training_images", pa.table({"model_id": _same(model, len(learnt)), "image_id": learnt})
        )


def _write_chunks(connection: DuckDBPyConnection, variants: dict[str, str], chunks: Any) -> None:
    n = len(chunks)
    first = chunks.astype(np.int64) * CHUNK
    table = {"chunk_id": chunks, "first_image_id": first, "n_images": _same(CHUNK, n, pa.int32())}
    insert_arrow(connection, "chunks", pa.table({**table, "digest": _texts("digest", chunks)}))
    made_from = {"extract": "digest", "project": "extract", "quantize": "project"}
    for stage, source in made_from.items():
        done = chunks[: n - (stage == "quantize")]
        constant = {
            **{"stage": stage, "variant": variants[stage], "checksum": "c" * 64, "n_bytes": 10**6, "n_images": CHUNK},
            **{"n_descriptors": 10**6, "dim": 64, "n_clipped": 5, "pruned": False, "origin": "run", "versions": "{}"},
        }
        columns = {name: _same(value, len(done)) for name, value in constant.items()}
        columns |= {"chunk_id": pa.array(done), "payload": _texts(stage, done), "input_payload": _texts(source, done)}
        columns["path"] = _texts(f"partitions/{stage}/{variants[stage]}/chunk-", done)
        insert_arrow(connection, "partitions", pa.table(columns))


def _write_models(connection: DuckDBPyConnection, context: Context, variants: dict[str, str], n_images: int) -> None:
    for stage, model in (("fit_pca", PCA), ("fit_scale", SCALE)):
        row = {
            **{"model_id": model, "stage": stage, "variant": variants[stage], "generation": 0, "partial": False},
            **{"path": "x", "checksum": "x", "n_bytes": 1, "n_images": n_images, "summary": "{}"},
        }
        insert_arrow(connection, "models", pa.Table.from_pylist([row]))


def measure(path: Path, repetitions: int) -> dict[str, list[Any]]:
    """Return the wall and CPU seconds of each question, and the peak memory of all of them, in bytes."""
    store = FeatureStore(path)
    context = store._context(Silent())
    store.sql("SELECT 1")  # what is imported on the first use of anything
    found: dict[str, list[Any]] = {"status": [astuple(spend(store.status)) for _ in range(repetitions)]}
    found["plan"] = [astuple(spend(lambda: _plan(context))) for _ in range(repetitions)]
    with context.catalog.reading() as connection:
        last = int(query_value(connection, "SELECT max(chunk_id) FROM chunks"))
    with store._held("measure", Silent()) as held:
        found["commit"] = [astuple(spend(partial(_commit, held, chunk))) for chunk in range(last, last + repetitions)]
    found["sql"] = [astuple(spend(lambda: store.sql(BY_ARTIST))) for _ in range(repetitions)]
    found["peak"] = [peak_bytes()]
    found["child"] = [_peak_of_child(path)]
    return found


def _peak_of_child(path: Path) -> int:
    """Return the memory of the process that reads a catalog before `verify` and `rebuild` do, in bytes."""
    watch = Watch()
    run_child("salvage", path / CATALOG, path / "runs.parquet")
    return watch.end()


def _plan(context: Context) -> None:
    with context.catalog.reading() as connection:
        make_plan(connection, resolve(connection, context.flow))


def _commit(context: WritableContext, chunk: int) -> None:
    """Record a partition of quantize that is not there yet, of the last chunk or of one after it."""
    with context.catalog.transaction() as connection:
        row = PartitionRow(
            stage="quantize",
            variant=_variants(context)["quantize"],
            chunk_id=chunk,
            payload="new",
            input_payload=f"project{chunk}",
            path="new",
            checksum="",
            n_bytes=1,
            n_images=CHUNK,
            n_descriptors=1,
            dim=64,
            n_clipped=0,
            pruned=False,
            origin="run",
            versions={},
        )
        results = pa.table(
            {
                "image_id": np.arange(chunk * CHUNK, (chunk + 1) * CHUNK),
                "status": _same("ok", CHUNK),
                "error": pa.nulls(CHUNK, pa.string()),
                "n_descriptors": np.ones(CHUNK, np.int32),
                "pixels": pa.nulls(CHUNK, pa.int64()),
            }
        )
        record_partition(connection, row, results)


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        print(json.dumps(measure(Path(sys.argv[2]), int(sys.argv[3]))))

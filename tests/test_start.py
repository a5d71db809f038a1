"""What is loaded to begin with: nothing that the verb does not need."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from featurestore import FeatureStore
from tests.small import copy

LEARNING = {"cv2", "sklearn", "scipy", "joblib"}
SCHEMA = {"sqlalchemy", "alembic", "duckdb_engine"}
QUERIES = (
    "SELECT stage, outcome FROM runs",
    "SELECT * FROM images",
    "SELECT * FROM missing",
    "SHOW TABLES",
    "SELECT count(*), sum(descriptor[1]) FROM quantized_descriptors",
)
VERBS = """
import json, sys
from featurestore.cli import main
loaded = []
for line in json.loads(sys.argv[1]):
    sys.argv = ["featurestore", *line]
    try:
        main()
    except SystemExit as end:
        assert not end.code, line
    loaded.append(list(sys.modules))
print()
print(json.dumps(loaded))
"""
# What workers import: tasks, and the module of a plug-in, which may have an exporter in it too.
WORKER = """
import sys, featurestore.pipeline.image_block, featurestore.pipeline.tasks
print(*sys.modules)
from featurestore.plugins import *
print(*sys.modules)
"""


def loaded_by(*lines: Sequence[str]) -> list[set[str]]:
    """Return the names of all modules after each verb, in one process that begins with none."""
    done = subprocess.run([sys.executable, "-c", VERBS, json.dumps(lines)], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return [set(modules) for modules in json.loads(done.stdout.splitlines()[-1])]


def test_help_needs_neither_a_database_nor_arrays() -> None:
    (modules,) = loaded_by(["--help"])
    assert "featurestore.cli.program" in modules
    assert modules & {*LEARNING, *SCHEMA, "duckdb", "numpy", "pyarrow", "pandas", "tqdm"} == set()


def test_questions_need_neither_images_nor_learning(finished: FeatureStore) -> None:
    """Each verb comes after those that need less: what it loads and should not is named with it."""
    path, first = str(finished.path), finished.load(columns=["filename"])["filename"][0].as_py()
    status, info, *queries = loaded_by(
        ["status", path], ["info", path, first], *(["sql", path, query] for query in QUERIES)
    )
    never = {*LEARNING, *SCHEMA, "pandas", "tqdm"}
    assert "duckdb" in status
    assert status & {*never, "pyarrow.parquet", "pyarrow.compute"} == set()
    assert info & {*never, "featurestore.query.lookup"} == set(), "info needs the names of all images"
    for query, modules in zip(QUERIES, queries, strict=True):
        assert modules & never == set(), query


def test_only_a_migration_needs_sqlalchemy(tiny: FeatureStore, tmp_path: Path) -> None:
    """Beside `run`, questions need none either: see above. Nor does a new catalog."""
    verbs = (["run", "--dry-run"], ["ingest"], ["run"], ["verify"])
    store, images = copy(tiny, tmp_path / "store"), tiny.path.parent / "images"
    found = loaded_by(
        ["init", str(tmp_path / "new"), "--images", str(images), "--dataset", str(images / "dataset.csv")],
        *([verb, str(store.path), *options] for verb, *options in verbs),
    )
    for verb, modules in zip((["init"], *verbs), found, strict=True):
        assert "duckdb" in modules
        assert modules & SCHEMA == set(), verb


def test_what_is_written_needs_no_pandas(fresh: FeatureStore) -> None:
    (modules,) = loaded_by(["run", str(fresh.path), "extract", "--chunks", "0", "--workers", "0", "--quiet"])
    assert {"cv2", "pyarrow.parquet"} <= modules
    assert modules & {*SCHEMA, "pandas"} == set()
    assert list((fresh.path / "partitions").rglob("*.parquet"))


def test_descriptors_are_read_without_pandas(finished: FeatureStore, tmp_path: Path) -> None:
    first = finished.load(columns=["filename"])["filename"][0].as_py()
    read = """
import sys
from featurestore import FeatureStore
store, (first, target) = FeatureStore(sys.argv[1]), sys.argv[2:]
store.matrix()
store.descriptors(first)
store.export(target, format="npy")
print(*sys.modules)
"""
    command = [sys.executable, "-c", read, str(finished.path), first, str(tmp_path / "out")]
    modules = set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert "pyarrow.compute" in modules
    assert modules & {*SCHEMA, "pandas"} == set()


def test_a_worker_needs_no_database() -> None:
    done = subprocess.run([sys.executable, "-c", WORKER], capture_output=True, text=True, check=True)
    tasks, with_plugins = (set(line.split()) for line in done.stdout.splitlines())
    assert "pyarrow" in tasks
    assert tasks & {*LEARNING, *SCHEMA, "duckdb", "pandas"} == set()
    assert "featurestore.exchange.exporters.base" in with_plugins
    assert with_plugins & {*SCHEMA, "duckdb", "pandas", "pyarrow.compute"} == set()

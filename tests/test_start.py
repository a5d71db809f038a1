"""What is loaded to begin with: nothing that the verb does not need."""

from __future__ import annotations

import subprocess
import sys

import pytest

from featurestore import FeatureStore

LEARNING = {"cv2", "sklearn", "scipy", "joblib"}
SCHEMA = {"sqlalchemy", "alembic", "duckdb_engine"}
VERB = """
import sys
from featurestore.cli import main
sys.argv = ["featurestore", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    assert not end.code
print(*sys.modules)
"""


def loaded_by(*arguments: str) -> set[str]:
    """Return the names of all modules after a verb in a process of its own."""
    command = [sys.executable, "-c", VERB, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_help_needs_neither_a_database_nor_arrays() -> None:
    modules = loaded_by("--help")
    assert "featurestore.cli.program" in modules
    assert modules & {*LEARNING, *SCHEMA, "duckdb", "numpy", "pyarrow", "pandas", "tqdm"} == set()


def test_status_needs_neither_images_nor_learning(finished: FeatureStore) -> None:
    modules = loaded_by("status", str(finished.path))
    assert "duckdb" in modules
    assert modules & {*LEARNING, *SCHEMA, "pandas", "pyarrow.parquet", "pyarrow.compute", "tqdm"} == set()


@pytest.mark.parametrize(
    "query",
    [
        "SELECT stage, outcome FROM runs",
        "SELECT * FROM images",
        "SELECT * FROM missing",
        "SHOW TABLES",
        "SELECT count(*), sum(descriptor[1]) FROM quantized_descriptors",
    ],
)
def test_sql_needs_pandas_for_no_question(finished: FeatureStore, query: str) -> None:
    modules = loaded_by("sql", str(finished.path), query)
    assert "duckdb" in modules
    assert modules & {*LEARNING, *SCHEMA, "pandas", "tqdm"} == set()


def test_info_needs_neither_pandas_nor_the_names_of_all_images(finished: FeatureStore) -> None:
    first = finished.load(columns=["filename"])["filename"][0].as_py()
    modules = loaded_by("info", str(finished.path), first)
    assert modules & {*LEARNING, *SCHEMA, "pandas", "featurestore.query.lookup"} == set()


@pytest.mark.parametrize(
    "verb",
    [
        ["run", "--dry-run"],
        ["sql", "SELECT stage, outcome FROM runs"],
        ["sql", "SELECT count(*) FROM images"],
        ["info", "{first}"],
        ["ingest"],
        ["run"],
    ],
    ids=" ".join,
)
def test_only_a_migration_needs_sqlalchemy(store: FeatureStore, verb: list[str]) -> None:
    first = store.load(columns=["filename"])["filename"][0].as_py()
    modules = loaded_by(verb[0], str(store.path), *(word.format(first=first) for word in verb[1:]))
    assert "duckdb" in modules
    assert modules & SCHEMA == set()

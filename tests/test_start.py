"""What is loaded to begin with: nothing that the verb does not need."""

from __future__ import annotations

import subprocess
import sys

from featurestore import FeatureStore

HEAVY = ("cv2", "sklearn", "scipy", "pandas", "alembic", "joblib", "pyarrow.parquet", "pyarrow.compute", "tqdm")


def loaded(code: str) -> set[str]:
    """Return the names of all modules after running some code in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_help_needs_neither_a_database_nor_arrays() -> None:
    modules = loaded("import featurestore.cli")
    assert modules & {*HEAVY, "duckdb", "sqlalchemy", "numpy", "pyarrow"} == set()


def test_status_needs_neither_images_nor_learning(finished: FeatureStore) -> None:
    code = "from featurestore import FeatureStore as S; from featurestore.cli import text\n"
    code += f"text.status_text(S({str(finished.path)!r}).status())"
    modules = loaded(code)
    assert "duckdb" in modules
    assert modules & set(HEAVY) == set()

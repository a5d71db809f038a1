"""The recipes of docs/export.md for other programs, as they stand there, on files that were exported."""

from __future__ import annotations

import re
import shutil
import subprocess
import types
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from featurestore import FeatureStore

TEXT = (Path(__file__).parent.parent / "docs" / "export.md").read_text(encoding="utf-8")
SECTION = TEXT.partition("### From DuckDB, polars and R")[2].partition("\n## ")[0]


def recipe(language: str) -> str:
    """The recipe in a language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", SECTION, re.DOTALL)
    return str(found)


@pytest.fixture
def store(finished: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    """The store, whose files the recipes name are in the working directory."""
    monkeypatch.chdir(tmp_path)
    finished.export("codes.parquet", "parquet")
    finished.export("flat.parquet", "parquet-flat")
    return finished


def test_duckdb(store: FeatureStore) -> None:
    with duckdb.connect() as connection:
        counts, points, values = (connection.execute(one).fetchall() for one in recipe("sql").split(";")[:3])
    own = """SELECT subset, count(*), sum(n_descriptors) FROM images JOIN descriptor_counts USING (image_id, subset)
             WHERE stage = 'quantize' GROUP BY subset ORDER BY subset"""
    assert counts == store.sql(own).fetchall()
    codes = store.matrix().codes
    assert len(points) == len(codes)
    assert [value for _, _, value in values] == codes[:, 0].tolist()


def test_polars(store: FeatureStore) -> None:
    pytest.importorskip("polars", reason="polars is not installed: pip install 'featurestore[polars]'")
    found: dict[str, Any] = {}
    types.FunctionType(compile(recipe("python"), "export.md", "exec"), found)()
    codes = store.matrix().codes
    np.testing.assert_array_equal(found["matrix"], codes)
    np.testing.assert_array_equal(np.concatenate([one for one in found["codes"] if one is not None]), codes)
    assert found["points"].shape == (len(codes), 3)


def test_r(store: FeatureStore, tmp_path: Path) -> None:
    rscript = shutil.which("Rscript")
    if rscript is None or subprocess.run([rscript, "-e", "library(arrow)"], capture_output=True).returncode:
        pytest.skip("R and its package arrow are not installed")
    said = recipe("r") + 'writeBin(as.raw(t(matrix)), "matrix")\nwriteBin(as.raw(t(do.call(rbind, codes))), "codes")\n'
    (tmp_path / "recipe.R").write_text(said, encoding="utf-8")
    subprocess.run([rscript, "recipe.R"], check=True)
    for name in ("matrix", "codes"):
        assert (tmp_path / name).read_bytes() == store.matrix().codes.tobytes()

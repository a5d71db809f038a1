"""Plots of a store: their numbers are those of the store, and what is drawn is written as the suffix says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from featurestore import FeatureStore
from featurestore.apps import plot, save_plot
from featurestore.apps.plots import KINDS
from featurestore.cli.program import cli
from featurestore.errors import FeatureStoreError, MissingDependency, NotReady, OutputError, QueryError
from tests.small import copy, current_model

pytest.importorskip("matplotlib", reason="the extra plot is not installed")

MAGIC = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}


def test_counts_are_those_of_all_images(finished: FeatureStore) -> None:
    from matplotlib.figure import Figure

    mine = Figure().add_subplot()
    ax = plot(finished, "counts", ax=mine)
    assert ax is mine
    assert sum(bar.get_height() for bar in ax.patches) == 26  # type: ignore[attr-defined]


def test_counts_by_a_column(finished: FeatureStore) -> None:
    ax = plot(finished, "counts", by="PHOTO", stage="quantize")
    groups = "SELECT photo, count(*) FROM images GROUP BY photo ORDER BY count(*) DESC, photo"
    expected = [f"{name} ({n})" for name, n in finished.sql(groups)]
    assert [label.get_text() for label in ax.get_yticklabels()] == expected[::-1]
    assert ax.get_xlabel() == "descriptors of quantize"


def test_cells_are_no_formulas(finished: FeatureStore, tmp_path: Path) -> None:
    store = copy(finished, tmp_path / "store")
    images = store.sql("SELECT filename, subset FROM images").fetchall()
    lines = ["filename,subset,price", *(f"{name},{subset},$\\frac{{1$ \x1b[2J" for name, subset in images)]
    (dataset := tmp_path / "d.csv").write_text("\n".join(lines), encoding="utf-8")
    store.ingest(dataset, yes=True)
    ax = plot(store, "counts", by="price")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["$\\frac{1$ \\x1b[2J (26)"]
    save_plot(ax, tmp_path / "price.svg")


def test_the_spectrum_is_that_of_the_model(finished: FeatureStore) -> None:
    ax = plot(finished, "spectrum")
    shares = [bar.get_height() for bar in ax.patches]  # type: ignore[attr-defined]
    explained = current_model(finished, "fit_pca").summary["explained_variance_ratio"]
    assert sum(shares) == pytest.approx(explained)
    assert shares == sorted(shares, reverse=True)
    assert np.asarray(ax.lines[0].get_ydata())[-1] == pytest.approx(explained)


def test_the_clipped_values_are_those_that_quantize_counted(finished: FeatureStore) -> None:
    shares = [bar.get_height() / 100 for bar in plot(finished, "bounds").patches]  # type: ignore[attr-defined]
    counted = "SELECT sum(n_clipped) / sum(n_descriptors * dim) FROM partitions WHERE stage = 'quantize' AND current"
    assert len(shares) == 64
    assert np.mean(shares) == pytest.approx(finished.sql(counted).fetchall()[0][0])


def test_progress_ends_with_all_images(finished: FeatureStore) -> None:
    ax = plot(finished, "progress")
    done = {str(line.get_label()): int(np.asarray(line.get_ydata())[-1]) for line in ax.lines}
    assert list(done) == ["extract", "fit_pca", "project", "fit_scale", "quantize"]
    assert (done["extract"], done["quantize"]) == (26, 26)


@pytest.mark.parametrize("kind", KINDS)
def test_before_a_run_there_is_nothing_to_draw(begun: FeatureStore, kind: str) -> None:
    with pytest.raises(NotReady, match="yet; run"):
        plot(begun, kind)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "by", "says"),
    [
        ("pie", None, "there is no plot 'pie'; the plots are counts, spectrum, bounds, progress"),
        ("counts", "style", "images has no column 'style'; its columns are image_id, filename"),
        ("bounds", "photo", "only counts are drawn by a column, and this is bounds"),
    ],
)
def test_what_can_not_be_drawn(finished: FeatureStore, kind: str, by: str | None, says: str) -> None:
    with pytest.raises(QueryError, match=says):
        plot(finished, kind, by=by)  # type: ignore[arg-type]


def test_without_matplotlib(finished: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependency, match=r"pip install 'featurestore\[plot\]'"):
        plot(finished, "counts")


def typed(*words: object) -> tuple[str, FeatureStoreError | None]:
    ended = CliRunner().invoke(cli, list(map(str, words)))
    error = ended.exception if isinstance(ended.exception, FeatureStoreError) else None
    return ended.output, error


@pytest.mark.parametrize("suffix", MAGIC)
def test_the_suffix_chooses_the_format(finished: FeatureStore, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"spectrum{suffix}"
    assert typed("plot", finished.path, "spectrum", "-o", path) == (f"{path}: spectrum\n", None)
    assert path.read_bytes().startswith(MAGIC[suffix])


def test_a_file_is_not_replaced_and_has_a_known_suffix(finished: FeatureStore, tmp_path: Path) -> None:
    (path := tmp_path / "a.svg").write_text("mine")
    assert "exists" in str(typed("plot", finished.path, "counts", "-o", path)[1])
    assert path.read_text() == "mine"
    assert typed("plot", finished.path, "counts", "-o", path, "--force", "--by", "photo")[1] is None
    _, refused = typed("plot", finished.path, "counts", "-o", tmp_path / "a.jpg")
    assert isinstance(refused, OutputError)
    assert "ends in none of .png, .svg, .pdf" in str(refused)

"""People give types to columns: they hold whatever the text looks like, and the recipe keeps them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import FeatureStore
from featurestore.dataset import read_dataset
from featurestore.errors import ConfigError, ConfirmationNeeded, DatasetError
from featurestore.storage import CONFIG
from tests.small import configure


def read(folder: Path, cells: list[str], types: Mapping[str, str]) -> Any:
    path = folder / "dataset.csv"
    path.write_text("filename,subset,x,Status\n" + "".join(f"{i},train,{c},1\n" for i, c in enumerate(cells)))
    return read_dataset(path, types=types)


@pytest.mark.parametrize(
    ("kind", "cells", "values"),
    [
        ("BIGINT", ["007", "+5", "1889.0", "", "-0"], ["7", "5", "1889", None, "0"]),
        ("DOUBLE", ["1910.10", "1e5", "3"], ["1910.1", "100000", "3"]),
        ("BOOLEAN", ["yes", "0", "True"], ["true", "false", "true"]),
        ("DATE", ["2020-1-2", "2020/03/04"], ["2020-01-02", "2020-03-04"]),
        (
            "TIMESTAMP",
            ["2020-01-02", "2020-01-02T03:04:05Z"],
            ["2020-01-02 00:00:00.000000", "2020-01-02 03:04:05.000000"],
        ),
        ("VARCHAR", ["1", "2"], ["1", "2"]),
        ("TEXT", ["true", "false"], ["true", "false"]),
    ],
)
def test_a_given_type_holds_whatever_the_text_looks_like(
    tmp_path: Path, kind: str, cells: list[str], values: list[str | None]
) -> None:
    column = read(tmp_path, cells, {"X": kind})["x"]
    assert column.cast(pa.string()).to_pylist() == values
    names = {
        "BIGINT": "int64",
        "DOUBLE": "double",
        "BOOLEAN": "bool",
        "DATE": "date32[day]",
        "TIMESTAMP": "timestamp[us]",
    }
    assert str(column.type) == names.get(kind, "string")


@pytest.mark.parametrize(
    ("kind", "cell"),
    [
        ("BIGINT", "1.5"),
        ("BIGINT", "1_000"),
        ("BIGINT", "0x1f"),
        ("BIGINT", "9223372036854775808"),
        ("DOUBLE", "1,5"),
        ("DOUBLE", "1_0.5"),
        ("BOOLEAN", "perhaps"),
        ("DATE", "01/02/2003"),
        ("DATE", "2020-01-02 13:00"),
        ("DATE", "2021-02-29"),
        ("DATE", "infinity"),
        ("DATE", "0000-01-01"),
        ("TIMESTAMP", "2020-01-02T03:04:05+02:00"),
        ("TIMESTAMP", "24:00"),
    ],
)
def test_a_cell_that_does_not_fit_is_refused(tmp_path: Path, kind: str, cell: str) -> None:
    with pytest.raises(DatasetError) as caught:
        read(tmp_path, ["", f'"{cell}"', "n/a"], {"x": kind})
    assert str(caught.value) == (
        f"Row 2 of the dataset: {cell!r} in column 'x' is not a {kind} (1 other cell neither). Correct it, or give the "
        "column another type (--type, or types in [store] of featurestore.toml)."
    )


def test_a_column_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"^There is no column 'y' that could be DATE .* filename, subset, x, S"):
        read(tmp_path, ["1"], {"y": "DATE"})
    with pytest.raises(DatasetError, match=r"^The column 'filename' holds the filenames, which are text\."):
        read(tmp_path, ["1"], {"filename": "BIGINT"})


def test_a_renamed_column_goes_by_both_names(tmp_path: Path) -> None:
    for name in ("status", "csv_status"):
        assert read(tmp_path, ["1"], {name: "VARCHAR"})["csv_Status"].to_pylist() == ["1"]


def test_the_split_sees_the_given_type(tmp_path: Path) -> None:
    path = tmp_path / "dataset.csv"
    path.write_text("filename,year\na,0900\nb,1900\n")
    table = read_dataset(path, types={"year": "BIGINT"}, split="if(year > 1000, 'test', 'train')")
    assert table["subset"].to_pylist() == ["train", "test"]


def test_a_column_of_parquet_can_have_another_type(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    pq.write_table(pa.table({"filename": ["a"], "subset": ["train"], "year": [1889.0], "code": [7]}), path)
    table = read_dataset(path, types={"year": "BIGINT", "code": "VARCHAR"})
    assert (table["year"].to_pylist(), table["code"].to_pylist()) == ([1889], ["7"])


# The recipe


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images")


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Such a folder and a store of it, in which no type was given. Not to be changed: see `store`."""
    folder = tmp_path_factory.mktemp("made")
    images = write_images(folder / "images")
    store = FeatureStore.create(folder / "s", images=images, dataset=images / "dataset.csv")
    configure(store, "store", images="../images", dataset="../images/dataset.csv")
    return folder


@pytest.fixture
def store(made_once: Path, tmp_path: Path) -> FeatureStore:
    """Such a store, with its folder ``images`` beside it, which the test may change."""
    shutil.copytree(made_once, tmp_path, dirs_exist_ok=True)
    return FeatureStore(tmp_path / "s")


def write_images(folder: Path) -> Path:
    folder.mkdir()
    (folder / "a.jpg").touch()
    (folder / "b.jpg").touch()
    write(folder, "007", "1")
    return folder


def write(folder: Path, *codes: str) -> None:
    rows = "".join(f"{name}.jpg,train,{code},1\n" for name, code in zip("ab", codes, strict=True))
    (folder / "dataset.csv").write_text("filename,subset,code,n\n" + rows)


def types_of(store: FeatureStore) -> tuple[Any, ...]:
    return store.sql("SELECT typeof(code), typeof(n), code FROM images WHERE filename = 'a.jpg'").fetchall()[0]


def test_the_recipe_keeps_given_types_for_later_ingests(images: Path, tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path / "s", images=images, dataset=images / "dataset.csv", types={"code": "BIGINT"})
    assert types_of(store) == ("BIGINT", "BIGINT", 7)
    recipe = (store.path / CONFIG).read_text()
    assert 'types = {code = "BIGINT"} # types of columns' in recipe
    write(images, "0008", "2")
    store.ingest()
    assert types_of(store) == ("BIGINT", "BIGINT", 8)
    (store.path / CONFIG).write_text("# of people\n" + recipe)
    report = store.ingest(types={"n": "VARCHAR", "CODE": "VARCHAR"})
    assert types_of(store) == ("VARCHAR", "VARCHAR", "0008")
    assert len(report.columns) == 2
    after = (store.path / CONFIG).read_text()
    assert after == "# of people\n" + recipe.replace('{code = "BIGINT"}', '{code = "VARCHAR", n = "VARCHAR"}')
    assert store.ingest().ingest_id is None


def test_a_recipe_of_before_gets_the_key_when_it_is_needed(store: FeatureStore) -> None:
    path = store.path / CONFIG
    old = "".join(line for line in path.read_text().splitlines(keepends=True) if not line.startswith("types ="))
    path.write_text(old)
    assert store.ingest().ingest_id is None
    assert path.read_text() == old
    store.ingest(types={"code": "BIGINT"})
    assert [line for line in path.read_text().splitlines() if line not in old.splitlines()] == [
        'types = {code = "BIGINT"}'
    ]
    assert types_of(store) == ("BIGINT", "BIGINT", 7)


def test_types_in_a_table_of_their_own_keep_their_comments(store: FeatureStore) -> None:
    path = store.path / CONFIG
    lines = [line for line in path.read_text().splitlines() if not line.startswith("types =")]
    at = lines.index("[extract]")
    lines[at:at] = ["[store.types]", 'code = "BIGINT" # they are numbers', ""]
    path.write_text("\n".join(lines) + "\n")
    store.ingest(types={"n": "DOUBLE"})
    assert types_of(store) == ("BIGINT", "DOUBLE", 7)
    lines.insert(at + 2, 'n = "DOUBLE"')
    assert path.read_text().splitlines() == lines


def test_what_is_refused_changes_neither_recipe_nor_store(store: FeatureStore) -> None:
    dataset = store.path.parent / "images" / "dataset.csv"
    before = (store.path / CONFIG).read_text()
    with pytest.raises(DatasetError, match="is not a DATE"):
        store.ingest(types={"code": "DATE"})
    with pytest.raises(ConfigError, match=r"--type code is 'NUMBER', and can be VARCHAR or TEXT or BIGINT"):
        store.ingest(types={"code": "NUMBER"})
    dataset.write_text("filename,subset,code,n\na.jpg,train,7,1\n")
    with pytest.raises(ConfirmationNeeded):
        store.ingest(types={"code": "BIGINT"})
    assert (store.path / CONFIG).read_text() == before
    assert types_of(store) == ("VARCHAR", "BIGINT", "007")


def test_a_folder_without_a_dataset_has_no_columns(images: Path, tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path / "s", images=images)
    with pytest.raises(DatasetError, match="There is no dataset, so no column can have a type"):
        store.ingest(types={"code": "DATE"})

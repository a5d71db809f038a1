"""Ingest: ids and chunks never change, columns are kept, and the catalog follows from the dataset files."""

from __future__ import annotations

import hashlib
import shutil
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import FeatureStore
from featurestore.catalog import column_types, replay
from featurestore.catalog.catalog import StoreCatalog
from featurestore.dataset import read_dataset
from featurestore.errors import ConfirmationNeeded, CorruptFile, FormatError
from featurestore.pipeline import IngestReport
from featurestore.pipeline.ingest import ingest_rows
from featurestore.storage import CATALOG, Root
from tests.catalogs import rows, tables
from tests.small import Unlocked

Values = list[tuple[Any, ...]]


class Dataset:
    """A catalog without images, and a CSV that changes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = Unlocked(path)
        self.catalog = StoreCatalog(self.root)

    def ingest(self, text: str, *, chunk_size: int = 2, split: str = "subset", agree: bool = True) -> IngestReport:
        csv = self.path.parent / "dataset.csv"
        csv.write_text(text, encoding="utf-8")
        with self.catalog.reading() as connection:
            known = column_types(connection)
        rows = read_dataset(csv, known=known, split=split)
        options: dict[str, Any] = {"computed": split != "subset", "confirm": lambda question: agree}
        return ingest_rows(self.root, self.catalog, rows, chunk_size=chunk_size, **options)

    def replay_format_1(self, name: str, rows: pa.Table) -> None:
        """Take over a dataset file as it was written before types were those of the text."""
        metadata = {"featurestore": '{"format": 1, "kind": "dataset"}'}
        kinds = {"image_id": pa.int64(), "chunk_id": pa.int32()}
        for column, kind in kinds.items():
            rows = rows.set_column(rows.column_names.index(column), column, rows[column].cast(kind))
        self.root.local(name).parent.mkdir(exist_ok=True)
        pq.write_table(rows.replace_schema_metadata(metadata), self.root.local(name), write_page_checksum=True)
        replay(self.root, self.catalog, name)

    def query(self, query: str) -> Values:
        return rows(self.path, query)

    @property
    def images(self) -> Values:
        return self.query("SELECT image_id, chunk_id, filename, subset FROM images ORDER BY ALL")

    @property
    def chunks(self) -> Values:
        return self.query("SELECT chunk_id, first_image_id, n_images FROM chunks ORDER BY ALL")

    def column(self, name: str) -> list[Any]:
        quoted = name.replace('"', '""')
        return [value for (value,) in self.query(f'SELECT "{quoted}" FROM dataset_columns ORDER BY image_id')]

    def types(self) -> dict[str, str]:
        query = "SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = 'dataset_columns'"
        return dict(self.query(query))

    @property
    def files(self) -> list[str]:
        return self.root.files("dataset", ".parquet")


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog without images. Not to be changed."""
    root = Unlocked(tmp_path_factory.mktemp("empty"))
    StoreCatalog(root).migrate()
    return root.path


@pytest.fixture
def dataset(empty: Path, tmp_path: Path) -> Dataset:
    return Dataset(shutil.copytree(empty, tmp_path / "store"))


@pytest.fixture
def again(empty: Path, tmp_path: Path) -> Dataset:
    return Dataset(shutil.copytree(empty, tmp_path / "again"))


def csv_of(names: str, *, header: str = "filename,subset", value: str = "train") -> str:
    return "\n".join([header, *(f"{name}.jpg,{value}" for name in names)]) + "\n"


def test_ids_and_chunks_follow_the_csv(dataset: Dataset) -> None:
    report = dataset.ingest(csv_of("cabde"))
    assert (report.ingest_id, report.n_new, report.n_changed, report.n_removed) == (1, 5, 0, 0)
    assert (report.n_images, report.n_chunks, report.subsets) == (5, 3, {"train": 5})
    assert [(i, chunk, name) for i, chunk, name, _ in dataset.images] == [
        *((0, 0, "c.jpg"), (1, 0, "a.jpg"), (2, 1, "b.jpg"), (3, 1, "d.jpg"), (4, 2, "e.jpg"))
    ]
    assert dataset.chunks == [(0, 0, 2), (1, 2, 2), (2, 4, 1)]


def test_new_rows_are_new_chunks_wherever_they_stand(dataset: Dataset) -> None:
    dataset.ingest(csv_of("abc"))
    before = dataset.images
    report = dataset.ingest(csv_of("xaybcz"), chunk_size=3)
    assert (report.ingest_id, report.n_new, report.n_changed, report.n_images) == (2, 3, 0, 6)
    assert dataset.images[:3] == before
    assert [(i, chunk, name) for i, chunk, name, _ in dataset.images[3:]] == [
        *((3, 2, "x.jpg"), (4, 2, "y.jpg"), (5, 2, "z.jpg"))
    ]
    assert dataset.chunks == [(0, 0, 2), (1, 2, 1), (2, 3, 3)]  # the last chunk of the first ingest stays closed


def test_nothing_new_writes_nothing(dataset: Dataset) -> None:
    text = "filename,subset,artist,year,ratio,born\na,train,,1,0.5,1990-01-02\nb,test,Gris,,1.25,\n"
    dataset.ingest(text)
    before = dataset.files
    report = dataset.ingest(text)
    assert (report.ingest_id, report.n_new, report.n_changed) == (None, 0, 0)
    assert dataset.files == before == ["dataset/000001.parquet"]


def test_known_images_get_their_new_values(dataset: Dataset) -> None:
    dataset.ingest("filename,subset,artist\na,train,Gris\nb,train,Goya\nc,test,Dix\n")
    ids = [(i, chunk, name) for i, chunk, name, _ in dataset.images]
    report = dataset.ingest("filename,subset,artist,year\nb,train,Goya,1799\nc,train,Dix,\na,test,,\n")
    assert (report.n_new, report.n_changed, report.subsets) == (0, 3, {"test": 1, "train": 2})
    assert [(i, chunk, name) for i, chunk, name, _ in dataset.images] == ids
    assert [subset for *_, subset in dataset.images] == ["test", "train", "train"]
    assert dataset.column("artist") == [None, "Goya", "Dix"]
    assert dataset.column("year") == [None, 1799, None]
    assert pq.read_table(dataset.path / "dataset/000002.parquet")["image_id"].to_pylist() == [0, 1, 2]


def test_only_what_changed_is_written(dataset: Dataset) -> None:
    dataset.ingest("filename,subset,artist\na,train,Gris\nb,train,Goya\nc,test,Dix\n")
    assert dataset.ingest("filename,subset,artist\na,train,Gris\nb,train,\nd,test,Dix\n").n_changed == 1
    record = pq.read_table(dataset.path / "dataset/000002.parquet")
    assert record.select(["filename", "status"]).to_pylist() == [
        *({"filename": "b", "status": None}, {"filename": "c", "status": "removed"}, {"filename": "d", "status": None})
    ]


def test_a_column_that_left_the_dataset_leaves_and_comes_back(dataset: Dataset) -> None:
    dataset.ingest("filename,subset,artist,year\na,train,Gris,1913\n")
    report = dataset.ingest("filename,subset,year\na,train,1913\n")
    assert (report.ingest_id, report.n_new, report.n_changed) == (2, 0, 0)
    assert report.columns == ("no longer in the dataset, and so in no view: artist",)
    assert dataset.types() == {"image_id": "BIGINT", "year": "BIGINT"}
    assert pq.read_table(dataset.path / "dataset/000001.parquet")["artist"].to_pylist() == ["Gris"]
    report = dataset.ingest("filename,subset,artist,year\na,train,Gris,1913\nb,train,,1914\n")
    assert (report.n_new, report.n_changed, report.columns) == (1, 1, ())
    assert (dataset.column("artist"), dataset.column("year")) == (["Gris", None], [1913, 1914])


def test_many_columns_that_left_are_one_line(dataset: Dataset) -> None:
    names = [f"c{i}" for i in range(14)]
    dataset.ingest(f"filename,subset,{','.join(names)}\na,train{',1' * 14}\n")
    (line,) = dataset.ingest("filename,subset\na,train\n").columns
    assert line.endswith(f"{', '.join(names[:10])} and 4 more")


# What a column holds in two ingests, its type in the end, and its values in the end.
WIDENED: list[tuple[str, str, str, list[Any]]] = [
    ("1", "x", "VARCHAR", ["1", "x"]),
    ("x", "1", "VARCHAR", ["x", "1"]),
    ("1", "2", "BIGINT", [1, 2]),
    ("1", "2.5", "DOUBLE", [1.0, 2.5]),
    ("2.5", "1", "DOUBLE", [2.5, 1.0]),
    ("2.5", "2.50", "VARCHAR", ["2.5", "2.50"]),
    ("2020-01-02", "3", "VARCHAR", ["2020-01-02", "3"]),
    ("2020-01-02", "2020-1-3", "VARCHAR", ["2020-01-02", "2020-1-3"]),
    ("true", "0.5", "VARCHAR", ["true", "0.5"]),
    ("1", "", "BIGINT", [1, None]),
    ("", "1", "VARCHAR", [None, "1"]),
    ("", "", "VARCHAR", [None, None]),
]


@pytest.mark.parametrize("known", [False, True], ids=["new row", "known row"])
def test_types_that_differ_widen(dataset: Dataset, known: bool) -> None:
    names = ",".join(f"v{i}" for i in range(len(WIDENED)))
    first, second = (",".join(str(column[place]) for column in WIDENED) for place in (0, 1))
    head = f"filename,subset,{names}\na,train,{first}\n"
    dataset.ingest(head + (f"b,train,{first}\n" if known else ""))
    dataset.ingest(head + f"b,train,{second}\n")
    kinds = dataset.types()
    for i, (_, _, kind, values) in enumerate(WIDENED):
        assert (kinds[f"v{i}"], dataset.column(f"v{i}")) == (kind, values), WIDENED[i]
    files = dataset.files
    dataset.ingest(head + f"b,train,{second}\n")
    assert dataset.files == files  # the widened values do not count as changed for ever


def test_what_widens_has_the_text_of_the_csv_again(dataset: Dataset) -> None:
    """True, a T before the time and a whole number among fractions are not what DuckDB would write."""
    head = "filename,subset,photo,taken,height,year\n"
    row = "a,train,True,2020-01-02T03:04:05,7,1889\n"
    dataset.ingest(head + row + "b,train,False,2020-01-02T06:00:00,7.5,1890\n")
    kinds = {"image_id": "BIGINT", "photo": "BOOLEAN", "taken": "TIMESTAMP", "height": "DOUBLE", "year": "BIGINT"}
    assert dataset.types() == kinds
    report = dataset.ingest(head + row + "b,train,perhaps,long,7.50,1890.0\n")
    assert report.columns == (
        "photo is VARCHAR now, and was BOOLEAN, since 'perhaps' would not come back from a BOOLEAN as it is written",
        "taken is VARCHAR now, and was TIMESTAMP, since 'long' would not come back from a TIMESTAMP as it is written",
        "height is VARCHAR now, and was DOUBLE, since '7.50' would not come back from a DOUBLE as it is written",
        "year is VARCHAR now, and was BIGINT, since '1890.0' would not come back from a BIGINT as it is written",
    )
    assert dataset.query("SELECT * EXCLUDE (image_id) FROM dataset_columns ORDER BY image_id") == [
        ("True", "2020-01-02T03:04:05", "7", "1889"),
        ("perhaps", "long", "7.50", "1890.0"),
    ]


def test_a_year_stays_a_number(dataset: Dataset) -> None:
    """pandas writes whole numbers as fractions once one of them is absent."""
    whole, fractions = "a,train,1889\nb,train,1890\n", "a,train,1889.0\nb,train,1890.0\nc,train,\n"
    dataset.ingest(f"filename,subset,year\n{whole}")
    report = dataset.ingest(f"filename,subset,year\n{fractions}")
    assert report.columns == ("year is DOUBLE now, and was BIGINT",)
    assert (report.n_new, report.n_changed) == (1, 0)
    assert dataset.column("year") == [1889.0, 1890.0, None]
    assert dataset.ingest(f"filename,subset,year\n{whole}c,train,\n").ingest_id is None
    assert dataset.types()["year"] == "DOUBLE"


def old_rows(**columns: list[Any]) -> pa.Table:
    n = len(columns["filename"])
    return pa.table({"image_id": list(range(n)), "chunk_id": [0] * n, **columns, "subset": ["train"] * n})


def test_dataset_files_of_format_1_mean_what_they_meant(dataset: Dataset) -> None:
    dataset.replay_format_1(
        "dataset/000001.parquet", old_rows(filename=["a", "b"], year=[1889, 1890], artist=["x", "y"])
    )
    dataset.replay_format_1("dataset/000002.parquet", old_rows(filename=["a"], year=[1889.5]))
    assert dataset.types() == {"image_id": "BIGINT", "year": "VARCHAR", "artist": "VARCHAR"}
    assert (dataset.column("year"), dataset.column("artist")) == (["1889.5", "1890"], ["x", "y"])


def test_a_store_with_guessed_types_changes_them_only_where_its_csv_shows_a_loss(dataset: Dataset) -> None:
    columns: dict[str, list[Any]] = {
        "accession": [1910.1, 1910.1],
        "acquired": [date(2003, 2, 1), date(2005, 4, 3)],
        "made": [date(2003, 2, 1), None],
        "opens": [time(12, 30), None],
        "number": [Decimal("12345678901234567890"), Decimal(7)],
        "year": [1889, 1890],
        "ratio": [0.5, 1.0],
    }
    dataset.replay_format_1("dataset/000001.parquet", old_rows(filename=["a", "b"], **columns))
    before = dataset.types()
    report = dataset.ingest(
        "filename,subset,accession,acquired,made,opens,number,year,ratio\n"
        "a,train,1910.10,01/02/2003,2003-02-01,12:30:00,12345678901234567890,1889,0.5\n"
        "b,train,1910.100,03/04/2005,,,7,1890,1\n"
    )
    assert report.columns == (
        "accession is VARCHAR now, and was DOUBLE, since '1910.10' would not come back from a DOUBLE as it is written",
        "acquired is VARCHAR now, and was DATE, since '01/02/2003' would not come back from a DATE as it is written",
    )
    assert dataset.column("accession") == ["1910.10", "1910.100"]
    assert dataset.column("acquired") == ["01/02/2003", "03/04/2005"]
    assert dataset.types() == before | {"accession": "VARCHAR", "acquired": "VARCHAR"}


def test_another_type_that_moves_images_between_train_and_test_asks(dataset: Dataset) -> None:
    split = "CASE WHEN CAST(acquired AS VARCHAR) < '2004' THEN 'test' ELSE 'train' END"
    columns = {"acquired": [date(2003, 2, 1), date(2005, 4, 3)]}
    dataset.replay_format_1("dataset/000001.parquet", old_rows(filename=["a", "b"], **columns))
    text = "filename,acquired\na,01/02/2003\nb,31/12/2005\nc,2003\n"
    before = tables(dataset.path, without=("runs",))
    with pytest.raises(ConfirmationNeeded) as caught:
        dataset.ingest(text, split=split, agree=False)
    assert str(caught.value) == (
        "acquired is VARCHAR now, and was DATE, since '01/02/2003' would not come back from a DATE as it is written: "
        "with that, 1 known image would change the subset, for example a from train to test. Correct the dataset "
        "or the split, or agree with --yes"
    )
    assert (dataset.files, tables(dataset.path, without=("runs",))) == (["dataset/000001.parquet"], before)
    assert dataset.ingest(text, split=split).subsets == {"test": 2, "train": 1}


def test_who_moves_images_in_the_csv_is_not_asked(dataset: Dataset) -> None:
    dataset.replay_format_1("dataset/000001.parquet", old_rows(filename=["a", "b"], acquired=[date(2003, 2, 1), None]))
    report = dataset.ingest("filename,subset,acquired\na,test,01/02/2003\nb,train,\n", agree=False)
    assert (report.subsets, len(report.columns)) == ({"test": 1, "train": 1}, 1)


def test_a_dataset_with_1100_columns(dataset: Dataset) -> None:
    """More than DuckDB nests expressions, and nothing may take time that grows with the square of the columns."""
    names = ",".join(f"c{i}" for i in range(1100))
    head = f"filename,subset,{names}\n"
    dataset.ingest(f"{head}a,train{',1' * 1100}\n")
    report = dataset.ingest(f"{head}a,train{',x' * 1100}\nb,train{',2' * 1100}\n")
    assert (report.n_new, report.n_changed, len(report.columns)) == (1, 1, 1100)
    assert dataset.query("SELECT c0, c1099 FROM dataset_columns ORDER BY image_id") == [("x", "x"), ("2", "2")]


def test_an_empty_column_widens_nothing(dataset: Dataset) -> None:
    dataset.ingest("filename,subset,year\na,train,1913\n")
    dataset.ingest("filename,subset,year\na,train,\nb,train,\n")
    assert (dataset.types()["year"], dataset.column("year")) == ("BIGINT", [None, None])


NAMES = [
    *(
        "n",
        "differs",
        "known_id",
        "known_chunk",
        "known_subset",
        "position",
        "Position_",
        "csv position",
        "t",
        "i",
        "d",
    ),
    *('say "when"', "it's", "a:b", ":name", "100%", "%s", "a%(b)s", "$1", "?", "Größe", "画家", "select", "a.b", "a;b"),
    *("filename_", "artist name", "\\", "{x}", "1", "k", "numbered", "incoming"),
]


def test_columns_can_have_any_name(dataset: Dataset) -> None:
    header = ",".join(["filename", "subset", *('"' + name.replace('"', '""') + '"' for name in NAMES)]) + "\n"
    values = {first: ",".join(str(first + i) for i in range(len(NAMES))) for first in (0, 100, 200)}
    dataset.ingest(f"{header}a,train,{values[0]}\n")
    report = dataset.ingest(f"{header}a,test,{values[100]}\nb,train,{values[200]}\n")
    assert (report.n_new, report.n_changed) == (1, 1)
    for i, name in enumerate(NAMES):
        assert dataset.column(name) == [100 + i, 200 + i], name
    assert dataset.ingest(f"{header}a,test,{values[100]}\nb,train,{values[200]}\n").ingest_id is None


def test_columns_named_like_those_of_the_query_decide_nothing(dataset: Dataset) -> None:
    text = f"filename,subset,{','.join(NAMES[:6])}\na,train{',7' * 6}\nb,train{',0' * 6}\n"
    dataset.ingest(text)
    assert dataset.images == [(0, 0, "a", "train"), (1, 0, "b", "train")]
    assert dataset.ingest(text).ingest_id is None


def test_columns_whose_names_change_their_case(dataset: Dataset) -> None:
    dataset.ingest("filename,subset,Artist,ÉCOLE,É\na,train,1,2,3\n")
    text = "filename,subset,artist,École,é\na,train,4,5,6\n"
    dataset.ingest(text)
    assert [dataset.column(name) for name in ("artist", "École", "é")] == [[4], [5], [6]]
    assert dataset.ingest(text).ingest_id is None


def test_columns_named_like_ours_are_kept(dataset: Dataset) -> None:
    dataset.ingest("filename,subset,image_id,status,Chunk_ID\na,train,7,ok,9\n")
    assert [dataset.column(name) for name in ("csv_image_id", "csv_status", "csv_Chunk_ID")] == [[7], ["ok"], [9]]
    assert dataset.images == [(0, 0, "a", "train")]


def test_chunks_are_named_by_their_images(dataset: Dataset) -> None:
    dataset.ingest(csv_of("abc"))
    digests = [digest for (digest,) in dataset.query("SELECT digest FROM chunks ORDER BY chunk_id")]
    assert digests == [
        hashlib.sha256(text.encode()).hexdigest()[:16] for text in ("0\ta.jpg\n1\tb.jpg\n", "2\tc.jpg\n")
    ]
    dataset.ingest(csv_of("abc").replace("a.jpg,train", "a.jpg,test"))  # the subset is no part of it
    assert [digest for (digest,) in dataset.query("SELECT digest FROM chunks ORDER BY chunk_id")] == digests


def test_the_catalog_follows_from_the_files(dataset: Dataset, again: Dataset) -> None:
    dataset.ingest("filename,subset,artist\na,train,Gris\nb,train,\nc,test,3\n")
    dataset.ingest("filename,subset,year\na,test,1\nd,train,x\n")
    dataset.ingest("filename,subset,year,artist\na,train,2,Juan\n")
    shutil.copytree(dataset.path / "dataset", again.path / "dataset")
    for name in dataset.files:
        replay(again.root, again.catalog, name)
    assert tables(again.path) == tables(dataset.path)
    assert len(dataset.files) == 3


def test_a_file_without_a_record_is_taken_over(fresh: FeatureStore, tmp_path: Path) -> None:
    """Killed between the file and the catalog: the next one to change the store records it."""
    images = fresh.sql("SELECT filename, subset FROM images").fetchall()
    lines = ["filename,subset", *(f"{name},{subset}" for name, subset in images), "late.jpg,train"]
    (tmp_path / "new.csv").write_text("\n".join(lines), encoding="utf-8")
    before, catalog = tables(fresh.path), (fresh.path / CATALOG).read_bytes()
    fresh.ingest(tmp_path / "new.csv")
    after = tables(fresh.path)
    (fresh.path / CATALOG).write_bytes(catalog)  # as if it had never heard of it
    assert tables(fresh.path) == before != after
    report = fresh.ingest(tmp_path / "new.csv")
    assert (report.ingest_id, report.n_new, report.n_images) == (None, 0, 27)
    assert tables(fresh.path) == after


def test_a_damaged_dataset_file_is_one_line(dataset: Dataset) -> None:
    dataset.ingest(csv_of("ab"))
    path = dataset.root.local("dataset/000001.parquet")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CorruptFile, match=r"^dataset/000001.parquet can't be read \(.+\); put back a copy of it$"):
        replay(dataset.root, dataset.catalog, "dataset/000001.parquet")


def test_a_dataset_file_of_the_future_is_refused(dataset: Dataset) -> None:
    metadata = {"featurestore": '{"format": 3}'}
    path = dataset.root.local("000001.parquet")
    pq.write_table(pa.table({"a": [1]}).replace_schema_metadata(metadata), path)
    with pytest.raises(FormatError, match=r"^000001.parquet is of format 3, and this version knows 2; use a newer"):
        replay(dataset.root, dataset.catalog, "000001.parquet")


def test_a_dataset_file_without_a_column_is_refused(dataset: Dataset) -> None:
    dataset.ingest(csv_of("ab"))
    path = dataset.root.local("dataset/000001.parquet")
    table = pq.read_table(path)
    for column in ("image_id", "chunk_id", "filename", "subset"):
        pq.write_table(table.drop_columns([column]), path)
        with pytest.raises(CorruptFile, match=rf"has no column {column} of \w+ in every row; put back a copy of it$"):
            replay(dataset.root, dataset.catalog, "dataset/000001.parquet")


def test_dataset_files_come_in_order(dataset: Dataset, again: Dataset) -> None:
    dataset.ingest(csv_of("abc"))
    dataset.ingest(csv_of("abcde"))
    with pytest.raises(CorruptFile, match=r"does not go on where the dataset files before it end; put back copies"):
        replay(Root(dataset.path), again.catalog, "dataset/000002.parquet")
    assert again.images == []


def test_a_hundred_thousand_rows(dataset: Dataset) -> None:
    lines = [f"{i:06d}.jpg,{'test' if i % 10 == 0 else 'train'},painter {i % 999},{i}" for i in range(100_000)]
    report = dataset.ingest("\n".join(["filename,subset,artist,year", *lines]), chunk_size=1000)
    assert (report.n_new, report.n_chunks, report.subsets) == (100_000, 100, {"test": 10_000, "train": 90_000})
    lines[500:600] = [line.replace("painter", "master") for line in lines[500:600]]
    report = dataset.ingest("\n".join(["filename,subset,artist,year", *lines, "new.jpg,train,,"]), chunk_size=1000)
    assert (report.n_new, report.n_changed, report.n_chunks) == (1, 100, 101)
    assert dataset.images[-1] == (100_000, 100, "new.jpg", "train")


def test_a_trained_image_that_is_held_out_later_is_said_to_leak(store: FeatureStore, tmp_path: Path) -> None:
    images = store.sql("SELECT filename, subset FROM images ORDER BY image_id").fetchall()
    moved = [(name, "test" if i in (0, 1) else subset) for i, (name, subset) in enumerate(images)]
    (tmp_path / "new.csv").write_text(
        "filename,subset\n" + "".join(f"{name},{subset}\n" for name, subset in moved), encoding="utf-8"
    )
    assert [stage.notes for stage in store.status().stages[1:2]] == [()]
    assert store.ingest(tmp_path / "new.csv").n_changed == 2
    (note,) = store.status().stages[1].notes
    assert note.startswith("leakage: the model learnt from 2 images that the current split holds out; another seed in")
    assert store.plan() == []  # the split is no part of a variant

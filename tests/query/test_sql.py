"""Questions in SQL: the views, what is refused, and that nothing can be changed or held up."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from featurestore import FeatureStore
from featurestore.errors import MissingDependency, QueryError
from featurestore.query import sql as query
from featurestore.query.descriptor_views import vectors
from featurestore.query.explain import explain
from featurestore.query.views import every_view, partition_views
from featurestore.rows import Layout
from featurestore.stages import flow_from
from featurestore.storage import Root, exclusive
from tests.conftest import Samples

ROOT = Path(__file__).parent.parent.parent
COUNTS = "SELECT stage, count(*), sum(n_descriptors) FROM descriptor_counts GROUP BY stage ORDER BY stage"

EVERY_VIEW = every_view(flow_from({}))
PARTITION_VIEWS = partition_views(flow_from({}))
DESCRIPTOR_VIEWS = {f"{view}_descriptors": view for view in PARTITION_VIEWS}


def columns_of(store: FeatureStore, view: str) -> list[str]:
    return [str(row[0]) for row in store.sql(f"DESCRIBE {view}").fetchall()]


def documented() -> Iterator[tuple[str, list[str]]]:
    """Every view of docs/views.md with the columns that it names."""
    text = (ROOT / "docs" / "views.md").read_text(encoding="utf-8")
    for section in text.split("\n## ")[1:]:
        title, _, body = section.partition("\n")
        cells = re.findall(r"^\| (`.+?) \|", body, re.MULTILINE)
        for view in title.split(", "):
            yield view, [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]


def test_a_snapshot_is_of_one_state(store: FeatureStore, samples: Samples, tmp_path: Path) -> None:
    fewer = tmp_path / "fewer.csv"
    fewer.write_text("\n".join(samples.dataset.read_text(encoding="utf-8").splitlines()[:-1]) + "\n", encoding="utf-8")
    count = "SELECT count(*) FROM images"
    with store.snapshot() as sql:
        assert sql(count).fetchall() == [(26,)]
        store.ingest(fewer, yes=True)
        assert store.sql(count).fetchall() == [(25,)]
        assert sql(count).fetchall() == sql("SELECT $n::HUGEINT", n=26).fetchall() == [(26,)]
        assert sql("SELECT count(*) FROM extracted").fetchall() == [(25,)]  # a view over partitions, of its own moment


def test_a_snapshot_ends_with_its_block(finished: FeatureStore) -> None:
    with finished.snapshot() as sql:
        sql("SELECT 1")
    for text in ("SELECT 1", "FROM extracted"):
        with pytest.raises(QueryError, match="this snapshot is over; ask it within its `with` block"):
            sql(text)


def test_a_snapshot_answers_as_sql_does(finished: FeatureStore) -> None:
    asked = (
        COUNTS,
        "DESCRIBE images",
        "DESCRIBE extracted",
        "SHOW TABLES",
        "SELECT max(ended) FROM runs",
        "FROM missing",
        "SELECT image_id, quantized_vectors(descriptors)[1] FROM quantized ORDER BY ALL LIMIT 3",
    )
    with finished.snapshot() as sql:
        for text in asked:
            assert sql(text).table.equals(finished.sql(text).table), text
        for wrong in ("FROM imagess", "SELECT styl FROM images", "DROP TABLE _flow", f"FROM '{__file__}'", "SELECT $x"):
            with pytest.raises(QueryError) as alone:
                finished.sql(wrong)
            with pytest.raises(QueryError, match=re.escape(str(alone.value))):
                sql(wrong)


def test_the_documentation_names_every_view() -> None:
    assert {view for view, _ in documented()} - {"Formats of a result"} == set(EVERY_VIEW)


def test_the_documentation_names_every_column(finished: FeatureStore) -> None:
    described, found = dict(documented()), {view: columns_of(finished, view) for view in EVERY_VIEW}
    for view in set(EVERY_VIEW) - set(PARTITION_VIEWS):
        more = ["photo", "crop", "rotation"] if view in ("images", "removed_images") else []
        assert found[view] == [*described[view], *more], view
    # these share one table in the document, with the columns that only one has
    of_partitions = sorted({name for view in PARTITION_VIEWS for name in found[view]})
    assert {view: sorted(described[view]) for view in PARTITION_VIEWS} == dict.fromkeys(PARTITION_VIEWS, of_partitions)


@pytest.mark.parametrize("listing", ["SHOW TABLES", "show all tables;", "DESCRIBE", " Show  views "])
def test_the_views_can_be_listed(finished: FeatureStore, listing: str) -> None:
    found = dict(finished.sql(listing).fetchall())
    assert set(found) == set(EVERY_VIEW)
    assert found["failures"] == "image_id, filename, subset, stage, status, error"


@pytest.mark.parametrize(
    "question",
    [
        "SELECT count(*) FROM images",
        "FROM images SELECT count(*);",
        "-- how many?\nWITH i AS (FROM images) SELECT count(*) FROM i",
        "SELECT count(*) FROM Images",
        "SELECT count(*) FROM information_schema.tables WHERE table_name = 'images' HAVING count(*) > 0 "
        "UNION ALL SELECT 25 ORDER BY 1 DESC LIMIT 1 OFFSET 0",
    ],
)
def test_questions_of_many_kinds(finished: FeatureStore, question: str) -> None:
    assert finished.sql(question).fetchall()[0][0] in (26, 25)


def test_more_kinds_of_questions(finished: FeatureStore) -> None:
    assert finished.sql("PIVOT (SELECT subset FROM images) ON subset USING count(*)").columns == ["test", "train"]
    assert finished.sql("SUMMARIZE images").fetchall()[0][0] == "image_id"
    assert finished.sql("VALUES (1, 'a')").fetchall() == [(1, "a")]
    assert "photo" in finished.sql("EXPLAIN SELECT photo FROM images").fetchall()[0][1]


def test_an_answer_in_every_form(finished: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = finished.sql("SELECT subset, count(*) AS n, sum(image_id) AS s FROM images GROUP BY 1 ORDER BY 1")
    assert answer.columns == ["subset", "n", "s"]
    assert answer.arrow().schema.types == [pa.string(), pa.int64(), pa.int64()]
    assert answer.fetchall() == [("test", 5, 70), ("train", 21, 255)]
    frame = answer.df()
    assert frame["s"].sum() == 325
    assert isinstance(frame, pd.DataFrame)
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(MissingDependency, match=r"polars is not installed; pip install 'featurestore\[polars\]'"):
        answer.pl()


def test_polars(finished: FeatureStore) -> None:
    pytest.importorskip("polars", reason="polars is an optional dependency")
    assert finished.sql("SELECT 1 AS n").pl()["n"].to_list() == [1]


def test_columns_that_are_named_alike(finished: FeatureStore) -> None:
    answer = finished.sql("SELECT 1 AS a, 2 AS a, 3 AS a_1, 4 AS a")
    assert answer.columns == ["a", "a_2", "a_1", "a_3"]
    assert answer.fetchall() == [(1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("question", "says"),
    [
        ("", 'there is no question in this; ask one like "SELECT count(*) FROM images"'),
        (" ; ", "there is no question in this"),
        ("SELECT 1; SELECT 2", "sql takes one query, and this is 2; ask them one after the other"),
        ("SELCT 1", 'Parser Error: syntax error at or near "SELCT"; a query begins with SELECT, FROM, WITH, VALUES'),
        (" .tables", "DESCRIBE, SUMMARIZE, SHOW or EXPLAIN, and SHOW TABLES lists the views"),
        ("SELECT * FROM image", "there is no view image; did you mean images? the views are images, descriptor_counts"),
        ("SELECT * FROM nowhere", "there is no view nowhere; the views are images"),
        ("SELECT artist FROM images", 'Binder Error: Referenced column "artist" not found in FROM clause. Candidate'),
        ("SELECT 1 // 0", "Division by zero in expression (1 // 0). Use TRY(...) to return NULL for this expression"),
        ("SELECT CAST('a' AS INT)", "Conversion Error: Could not convert string 'a' to INT32"),
        ("SELECT quantized_vectors('abc'::BLOB)", "a BLOB that is not a whole number of 64 uint8 values each"),
        ("SELECT * FROM store", "there is no view store"),
        ("SELECT * FROM context", "there is no view context"),
        (
            "SELECT * FROM read_text('/etc/hostname')",
            "nothing but the store's views, and '/etc/hostname' is another file",
        ),
        ("SELECT * FROM glob('/*')", "nothing but the store's views, and '/*' is another file; SHOW TABLES lists them"),
        ("FROM 'dataset.csv'", "images has the columns of the dataset. To join a file, write an answer with --output"),
        ("FROM 'a.xlsx'", "nothing but the store's views, and this needs an extension of DuckDB; SHOW TABLES"),
        ("SELECT * FROM '/etc/hostname'", "there is no view"),
        ("WITH n AS (INSERT INTO images VALUES (1)) SELECT 1", "Error"),
    ],
)
def test_what_is_refused_in_one_line(finished: FeatureStore, question: str, says: str) -> None:
    with pytest.raises(QueryError) as caught:
        finished.sql(question)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("question", ["SELECT 1 +", "SELECT SELECT 1"])
def test_a_mistake_after_the_beginning_has_no_advice_about_it(finished: FeatureStore, question: str) -> None:
    with pytest.raises(QueryError, match=r"^Parser Error: syntax error") as caught:
        finished.sql(question)
    assert "begins with" not in str(caught.value)


def test_variables_of_python_are_no_tables(finished: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query, "secret", pa.table({"a": [1]}), raising=False)
    with pytest.raises(QueryError, match="there is no view secret"):
        finished.sql("SELECT * FROM secret")


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM images",
        "DROP VIEW images",
        "CREATE TABLE t (a INT)",
        "UPDATE images SET subset = 'train'",
        "INSERT INTO images VALUES (1)",
        "COPY (SELECT 1) TO '/tmp/x.csv'",
        "ATTACH 'catalog.duckdb'",
        "SET threads = 1",
        "PRAGMA version",
        "INSTALL httpfs",
        "EXPORT DATABASE '/tmp/x'",
        "CALL range(3)",
    ],
)
def test_only_questions_are_answered(finished: FeatureStore, statement: str) -> None:
    with pytest.raises(QueryError, match=r"sql only answers questions, and this is \w+; begin with SELECT, FROM, WITH"):
        finished.sql(statement)


def test_a_refusal_names_every_beginning_that_works(finished: FeatureStore) -> None:
    with pytest.raises(QueryError) as refused:
        finished.sql("DELETE FROM images")
    named = set(re.findall("[A-Z]{4,}", str(refused.value).partition("begin with ")[2]))
    for question in (
        *("SELECT 1", "FROM images", "WITH i AS (FROM images) FROM i", "VALUES (1)", "DESCRIBE images", "SHOW TABLES"),
        *("PIVOT (SELECT subset FROM images) ON subset USING count(*)", "UNPIVOT (SELECT 1 AS a, 2 AS b) ON a, b"),
        *("SUMMARIZE images", "EXPLAIN SELECT 1"),
    ):
        assert len(finished.sql(question)) > 0
        named.remove(question.split()[0])
    assert not named


def test_nothing_of_the_store_is_changed(finished: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by what is asked, nor by the asking: no lock is taken where the store can't be written."""

    def state() -> dict[str, tuple[int, int]]:
        paths = [path for path in finished.path.rglob("*") if path.is_file()]
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in paths}

    monkeypatch.setattr(Root, "writable", property(lambda self: False))
    (finished.path / "catalog.lock").unlink(missing_ok=True)
    before = state()
    assert len(finished.sql("SELECT count(*), max(x[1]) FROM images JOIN quantized USING (image_id)").fetchall()) == 1
    finished.descriptors("china/whole-000.jpg")
    assert len(finished.matrix().image_ids) == 26
    assert state() == before


def test_counts_read_no_descriptors(store: FeatureStore) -> None:
    expected = store.sql(COUNTS).fetchall()
    plan = store.sql("EXPLAIN SELECT count(*), sum(n_descriptors) FROM quantized WHERE status = 'ok'").fetchall()[0][1]
    assert "descriptors" not in re.sub(r"n_\s*descriptors", "", plan)
    assert "n_descriptors" in plan
    for path in store.path.glob("partitions/**/*.parquet"):
        path.unlink()
    assert store.sql(COUNTS).fetchall() == expected
    with pytest.raises(
        QueryError,
        match=r"If a run has just recomputed the chunk, or a prune deleted it, ask again; else the file is damaged",
    ):
        store.sql("SELECT count(*) FROM quantized")


def test_while_a_run_holds_the_store(store: FeatureStore) -> None:
    with exclusive(Root(store.path), "run"):
        assert store.sql("SELECT count(*) FROM images").fetchall() == [(26,)]
        assert len(store.load(columns=["image_id"])) == 26


def test_views_are_of_the_current_recipe(store: FeatureStore) -> None:
    before = dict(store.sql("SELECT stage, count(*) FROM descriptor_counts GROUP BY 1").fetchall())
    assert before == {"extract": 26, "project": 26, "quantize": 26}
    path = store.path / "featurestore.toml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("top = 200", "top = 100"), encoding="utf-8")
    assert dict(store.sql("SELECT stage, count(*) FROM descriptor_counts GROUP BY 1").fetchall()) == {"extract": 26}
    assert store.sql("SELECT count(*) FROM quantized").fetchall() == [(0,)]
    assert store.sql("SELECT DISTINCT stage FROM partitions WHERE NOT current ORDER BY 1").fetchall() == [
        ("project",),
        ("quantize",),
    ]
    assert store.sql("SELECT DISTINCT stage, why FROM missing ORDER BY ALL").fetchall()[0] == (
        "project",
        "parameters changed (top: 200 -> 100)",
    )


def test_before_anything_was_run(fresh: FeatureStore) -> None:
    for view in EVERY_VIEW:
        n = fresh.sql(f"SELECT count(*) FROM {view}").fetchall()[0][0]
        assert n == {"images": 26, "image_counts": 26, "chunks": 4, "missing": 12}.get(view, 0)
    kinds = dict(fresh.sql("SELECT column_name, column_type FROM (DESCRIBE quantized_descriptors)").fetchall())
    assert kinds["descriptor"] == "FLOAT[64]"


def test_a_dataset_without_other_columns(samples: Any, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("filename,subset\nblank.jpg,train\n", encoding="utf-8")
    store = FeatureStore.create(tmp_path / "s", images=samples.images, dataset=tmp_path / "d.csv")
    assert store.sql("FROM images").fetchall() == [(0, "blank.jpg", "train", 0)]


@pytest.mark.parametrize("view", PARTITION_VIEWS)
def test_descriptors_are_arrays(finished: FeatureStore, view: str) -> None:
    stage = PARTITION_VIEWS[view]
    rows = finished.sql(f"SELECT filename, {view}_vectors(descriptors) AS v FROM {view} ORDER BY image_id").fetchall()
    assert len(rows) == 26
    for filename, found in rows:
        if filename == "broken.jpg":
            assert found is None
        elif found is None:
            assert filename == "blank.jpg"
        else:
            stored = finished.descriptors(filename, stage)
            assert np.array_equal(np.array(found, stored.dtype), stored)


@pytest.mark.parametrize("view", DESCRIPTOR_VIEWS)
def test_one_row_per_descriptor(finished: FeatureStore, view: str) -> None:
    name, stage = "flower/left-090.jpg", PARTITION_VIEWS[DESCRIPTOR_VIEWS[view]]
    frame = finished.sql(f"SELECT * FROM {view} WHERE filename = '{name}' ORDER BY position").df()
    assert frame["position"].tolist() == list(range(len(frame)))
    assert np.array_equal(np.stack(frame["descriptor"].tolist()), finished.descriptors(name, stage).astype(np.float32))
    keypoints = finished.keypoints(name, stage)
    for column in ("x", "y", "size", "angle", "response", "octave"):
        assert np.array_equal(frame[column].to_numpy(), keypoints[column])


def test_distances_between_descriptors(finished: FeatureStore) -> None:
    name = "china/left-000.jpg"
    nearest = finished.sql(
        f"""SELECT d.filename, min(array_distance(d.descriptor, q.descriptor)) AS distance
            FROM quantized_descriptors d,
                 (SELECT descriptor FROM quantized_descriptors WHERE filename = '{name}' AND position = 0) q
            GROUP BY d.filename ORDER BY distance"""
    ).df()
    query = finished.descriptors(name)[0].astype(float)
    for row in nearest.itertuples():
        distances = np.linalg.norm(finished.descriptors(str(row.filename)).astype(float) - query, axis=1)
        assert row.distance == pytest.approx(distances.min(), abs=1e-3)
    assert nearest["filename"][0] == name


def test_one_image_reads_one_row_group(finished: FeatureStore) -> None:
    plan = finished.sql("EXPLAIN ANALYZE SELECT descriptor FROM quantized_descriptors WHERE image_id = 3").fetchall()
    assert re.search(r"Row Groups Scanned: 1 / \d", plan[0][1])


def test_without_keypoints(store: FeatureStore) -> None:
    path = store.path / "featurestore.toml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("keypoints = true", "keypoints = false"), encoding="utf-8")
    store.run(workers=0)
    assert "x" not in columns_of(store, "quantized")
    assert columns_of(store, "quantized_descriptors") == columns_of(store, "projected_descriptors")
    found = store.sql("SELECT count(*), count(x), count(octave) FROM quantized_descriptors").fetchall()
    assert found == [(len(store.matrix().codes), 0, 0)]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_blobs_as_lists_of_arrays(kind: pa.DataType) -> None:
    layout = Layout(dim=2, dtype="float32")
    values = np.arange(8, dtype="<f4")
    blobs = pa.array([values[:2].tobytes(), b"", values[2:6].tobytes(), values[6:].tobytes()], kind)
    assert vectors(blobs, layout).to_pylist() == [[[0, 1]], [], [[2, 3], [4, 5]], [[6, 7]]]
    assert vectors(blobs.slice(2), layout).to_pylist() == [[[2, 3], [4, 5]], [[6, 7]]]
    chunked = pa.chunked_array([blobs.slice(2, 1), blobs.slice(3)])
    assert vectors(chunked, layout).to_pylist() == [[[2, 3], [4, 5]], [[6, 7]]]
    assert vectors(blobs.slice(0, 0), layout).to_pylist() == []
    with pytest.raises(ValueError, match="not a whole number of 2 float32 values"):
        vectors(pa.array([b"1234"], kind), layout)


def test_an_answer_that_is_larger_than_memory(finished: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query, "free_memory", lambda: 1_000_000)
    with pytest.raises(QueryError) as caught:
        finished.sql("FROM range(10000000)")
    assert str(caught.value) == (
        "the answer is larger than the memory that is free (1.0 MB); ask for less of it, or write it to a file: "
        f"featurestore sql {finished.path} QUERY --output FILE.parquet"
    )
    with finished.answer("FROM range(10000000)") as answer:
        assert sum(len(batch) for batch in answer.batches) == 10_000_000


def test_descriptors_come_in_small_batches(finished: FeatureStore) -> None:
    with finished.answer("SELECT x[1:2] FROM extracted, range(100)") as answer:
        assert max(len(batch) for batch in answer.batches) <= query.WIDE_ROWS
    with finished.answer("SELECT descriptors FROM extracted") as answer:
        assert answer.schema.types == [pa.large_binary()]  # 256 images can have more than 2 GiB of descriptors
    with finished.answer("SELECT n_descriptors FROM extracted, range(100)") as answer:
        assert max(len(batch) for batch in answer.batches) == 2600


def test_the_rest_of_an_answer_may_be_left_unread(finished: FeatureStore) -> None:
    # The second table is small: DuckDB holds all of it before the first row comes.
    endless = "SELECT a.range FROM range(10000000000) a, range(1000) b WHERE hash(a.range + b.range) % 7 = 1"
    with finished.answer(endless) as answer:
        assert len(next(answer.batches)) > 0
    threads = [thread.name for thread in threading.enumerate()]
    assert not [name for name in threads if name.startswith("ThreadPoolExecutor")]


def test_an_interrupt_while_the_thread_starts_loses_no_query(
    finished: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, started = threading.Thread.start, list[threading.Thread]()

    def start(thread: threading.Thread) -> None:
        begin(thread)
        started.append(thread)
        if len(started) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(KeyboardInterrupt):
        finished.sql("SELECT count(*) FROM range(100000) a, range(5000) b WHERE hash(a.range + b.range) % 7 = 1")
    started[0].join(timeout=60)  # it has nothing to do, and ends
    assert not started[0].is_alive()


@pytest.mark.parametrize("notice", ["main thread", "other thread"])
def test_an_endless_question_can_be_interrupted(finished: FeatureStore, notice: str) -> None:
    """A signal that another thread takes wakes the main thread no more than one that comes right before it waits."""
    endless = "SELECT count(*) FROM range(1000000000) a, range(1000000000) b WHERE hash(a.range + b.range) % 7 = 1"
    code = (
        f"import signal, threading; from featurestore import FeatureStore\n"
        f"store = FeatureStore({str(finished.path)!r})\n"
        f"from featurestore.query import sql as query\n"
        f"reader = query._reader\n"
        f"def begin(*arguments):\n"
        f"    if {notice == 'other thread'}: signal.pthread_kill(threading.get_ident(), signal.SIGINT)\n"
        f"    print('begun', flush=True)\n"
        f"    return reader(*arguments)\n"
        f"query._reader = begin\n"
        f"store.sql({endless!r})"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    guard = threading.Timer(60, process.kill)  # instead of hanging, the test fails
    guard.start()
    try:
        assert process.stdout.readline() == "begun\n"
        if notice == "main thread":
            process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    finally:
        guard.cancel()
        process.kill()
    assert said.rstrip().endswith("KeyboardInterrupt")


def test_parameters(finished: FeatureStore) -> None:
    counted = "SELECT count(*) FROM images WHERE subset = $subset AND crop IN $crops AND photo <> $photo"
    found = finished.sql(counted, subset="train", crops=["whole", "half"], photo="'; DROP TABLE images")
    again = "SELECT count(*) FROM images WHERE subset = 'train' AND crop IN ('whole', 'half')"
    assert found.fetchall() == finished.sql(again).fetchall() != [(0,)]
    assert finished.sql("SELECT $a + 1 AS b, $nothing IS NULL", A=1, nothing=None).fetchall() == [(2, True)]
    with finished.answer("FROM range($n)", {"n": 3}, as_text=True) as answer:
        assert [row for batch in answer.batches for row in batch["range"].to_pylist()] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("question", "values", "says"),
    [
        ("SELECT $a, $b", {"a": 1}, r"needs a value for \$b; give it with -p b=VALUE \(in Python b=VALUE\)"),
        ("SELECT $a, $b", {"a": 1, "b": 2, "c": 3}, r"has no parameter \$c; it has \$a, \$b"),
        ("SELECT '$a'", {"a": 1}, r"has no parameter \$a; it has none"),
    ],
)
def test_parameters_must_be_those_of_the_query(
    finished: FeatureStore, question: str, values: dict[str, Any], says: str
) -> None:
    with pytest.raises(QueryError, match=says):
        finished.sql(question, **values)


@pytest.mark.parametrize("question", ["SELECT PHOTO FROM descriptor_counts", "SELECT c.photo FROM failures c"])
def test_a_column_of_the_csv_is_in_images(finished: FeatureStore, question: str) -> None:
    view = question.split("FROM ")[1].split()[0]
    says = rf"photo is a column of images: FROM images JOIN {view} USING \(image_id\)$"
    with pytest.raises(QueryError, match=re.compile(says, re.IGNORECASE)) as refused:
        finished.sql(question)
    assert refused.value.__suppress_context__
    with pytest.raises(QueryError) as other:
        finished.sql("SELECT nonsense FROM descriptor_counts")
    assert "images" not in str(other.value)


@pytest.mark.parametrize(
    "question",
    [
        "SELECT artist, sum(n_descriptors) FROM images JOIN descriptor_counts USING (image_id) GROUP BY 1",
        "SELECT i.artist FROM images i, descriptor_counts",
        "SELECT * FROM images JOIN descriptor_counts USING (artist)",
    ],
)
def test_a_column_that_does_not_exist_is_answered_with_those_that_do(finished: FeatureStore, question: str) -> None:
    with pytest.raises(QueryError) as refused:
        finished.sql(question)
    says = str(refused.value)
    assert '"artist"' in says
    for view in ("images", "descriptor_counts"):
        assert f". {view} has {', '.join(finished.sql(f'SELECT * FROM {view} LIMIT 0').columns)}" in says


def test_counts_by_image(finished: FeatureStore) -> None:
    one = "SELECT image_id, extract, project, quantize FROM image_counts ORDER BY image_id"
    every = """PIVOT (SELECT image_id, stage, n_descriptors FROM descriptor_counts)
               ON stage IN ('extract', 'project', 'quantize') USING max(n_descriptors) ORDER BY image_id"""
    assert finished.sql(one).fetchall() == finished.sql(every).fetchall()
    assert len(finished.sql(one)) == 26


def test_counts_by_image_before_a_run(begun: FeatureStore) -> None:
    assert begun.sql("SELECT count(*), count(extract), count(quantize) FROM image_counts").fetchall() == [(26, 0, 0)]


def test_a_result_is_iterated(finished: FeatureStore) -> None:
    result = finished.sql("SELECT image_id, filename FROM images ORDER BY 1")
    assert list(result) == result.fetchall()


def test_a_query_that_lacks_memory_says_what_helps() -> None:
    config: dict[str, Any] = {"memory_limit": "1MB", "temp_directory": ""}
    with duckdb.connect(config=config) as connection, pytest.raises(duckdb.OutOfMemoryException) as caught:
        connection.execute("SELECT list(range) FROM range(1000000)")
    said = explain(caught.value, flow_from({}))
    assert re.fullmatch(r"Out of Memory Error: .+\. Give this process more memory, then ask again", said)

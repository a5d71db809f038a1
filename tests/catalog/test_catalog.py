"""The catalog: its schema is that of the models, a transaction is all or nothing, and a refusal says why."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy.pool import NullPool

from featurestore import FeatureStore
from featurestore.catalog import Catalog, ModelRow, PartitionRow
from featurestore.catalog import catalog as module
from featurestore.catalog.catalog import StoreCatalog
from featurestore.catalog.records import record_partition
from featurestore.catalog.revisions import HEAD, migration_sql, migrations_folder, new_catalog, revision, upgrade
from featurestore.catalog.schema import Base
from featurestore.catalog.statements import insert_arrow, query_arrow, upsert
from featurestore.catalog.table_rows import query_rows
from featurestore.errors import CorruptFile, NotEnoughSpace, StoreBusy
from featurestore.storage import CATALOG, Root
from tests.catalogs import change
from tests.faults import largest_file
from tests.small import Unlocked

HOLD = """
import sys
from pathlib import Path
from featurestore.catalog.catalog import StoreCatalog
from featurestore.storage import Writer
class Unlocked(Writer):  # that of tests.small, whose imports take most of a second
    def check(self):
        pass
with StoreCatalog(Unlocked(Path(sys.argv[1]))).transaction() as connection:
    print("held", flush=True)
    sys.stdin.read()
    connection.execute("INSERT INTO chunks VALUES (7, 0, 1, 'late')")
"""
RUN = """
import sys
from pathlib import Path
from featurestore.catalog.catalog import StoreCatalog
from featurestore.storage import Root, exclusive
with exclusive(Root(Path(sys.argv[1])), "run") as writer, StoreCatalog(writer).transaction():
    print("held", flush=True)
    sys.stdin.read()
"""
FOREIGN_READER = """
import sys, duckdb
with duckdb.connect(sys.argv[1], read_only=True):
    print("held", flush=True)
    sys.stdin.read()
"""
FOREIGN = """
import sys, duckdb
with duckdb.connect(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""
SCHEMA = {
    "columns": """SELECT table_name, column_name, data_type, is_nullable, column_default FROM duckdb_columns()
                  WHERE NOT internal AND table_name <> 'alembic_version' ORDER BY ALL""",
    "constraints": """SELECT table_name, constraint_type, constraint_column_names, expression FROM duckdb_constraints()
                      WHERE table_name <> 'alembic_version' ORDER BY ALL""",
    "indexes": "SELECT table_name, index_name, sql FROM duckdb_indexes() ORDER BY ALL",
}


@pytest.fixture
def catalog(tmp_path: Path) -> StoreCatalog:
    made = StoreCatalog(Unlocked(tmp_path))
    made.migrate()
    return made


@contextmanager
def another_process(code: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that does ``code`` to ``path`` until its stdin is closed."""
    checkout, arguments = Path(__file__).parent.parent.parent, [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(arguments, cwd=checkout, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


def chunk(chunk_id: int, **values: Any) -> dict[str, Any]:
    return {"chunk_id": chunk_id, "first_image_id": 0, "n_images": 1, "digest": "d", **values}


def chunks(catalog: StoreCatalog) -> list[int]:
    with catalog.reading() as connection:
        numbers = query_arrow(connection, "SELECT chunk_id FROM chunks ORDER BY chunk_id")["chunk_id"]
    return [int(n) for n in numbers.to_pylist()]


def schema(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    with duckdb.connect(path, read_only=True) as connection:
        return {what: connection.sql(query).fetchall() for what, query in SCHEMA.items()}


def declared(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """The schema that the models declare."""
    engine = sa.create_engine(f"duckdb:///{path}", poolclass=NullPool)
    with engine.begin() as connection:
        Base.metadata.create_all(connection)
    return schema(path)


def test_the_migrations_make_what_the_models_declare(catalog: StoreCatalog, tmp_path: Path) -> None:
    made, wanted = schema(catalog.path), declared(tmp_path / "declared.duckdb")
    assert len(wanted["columns"]) > 60
    for what in SCHEMA:
        assert made[what] == wanted[what], what
    with duckdb.connect(catalog.path) as connection:  # and the comparison sees a difference
        connection.execute("ALTER TABLE chunks ALTER digest DROP NOT NULL")
    assert schema(catalog.path)["columns"] != wanted["columns"]


def test_a_new_catalog_is_made_by_sql_that_alembic_has_written() -> None:
    assert list(migrations_folder().glob("*.sql")) == [new_catalog()]
    written = migration_sql(command.upgrade, "base:head")
    assert new_catalog().read_text(encoding="utf-8").split() == written.split(), "make migrations writes it"


def test_down_and_up_again(catalog: StoreCatalog) -> None:
    before = schema(catalog.path)
    with catalog.transaction() as connection:
        connection.execute(migration_sql(command.downgrade, f"{HEAD}:base"))
    assert schema(catalog.path) == {"columns": [], "constraints": [], "indexes": []}
    with catalog.transaction() as connection:
        connection.execute("DROP TABLE IF EXISTS alembic_version")
        upgrade(connection, None)
    assert schema(catalog.path) == before


def test_every_migration_alone_goes_down_and_up(catalog: StoreCatalog) -> None:
    script = ScriptDirectory(str(migrations_folder()))
    for step in script.walk_revisions():
        after = schema(catalog.path)
        with catalog.transaction() as connection:
            before = str(step.down_revision) if step.down_revision else None
            down = migration_sql(command.downgrade, f"{step.revision}:{before or 'base'}")
            connection.execute(down)
            if before is None:
                connection.execute("DROP TABLE IF EXISTS alembic_version")
            upgrade(connection, before, step.revision)
        assert schema(catalog.path) == after
        with catalog.transaction() as connection:
            connection.execute(down)


def test_the_newest_migration_is_the_one_we_know(catalog: StoreCatalog) -> None:
    assert ScriptDirectory(str(migrations_folder())).get_heads() == [HEAD]
    with catalog.reading() as connection:
        assert revision(connection) == HEAD


def test_what_is_up_to_date_is_not_migrated(catalog: StoreCatalog) -> None:
    code = f"""
import sys
from pathlib import Path
from featurestore.catalog.catalog import StoreCatalog
from featurestore.storage import Root, exclusive
with exclusive(Root(Path({str(catalog.path.parent)!r})), "run") as writer:
    StoreCatalog(writer).migrate()
print('alembic' in sys.modules)
"""
    checkout = Path(__file__).parent.parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_transaction_is_all_or_nothing(catalog: StoreCatalog) -> None:
    with pytest.raises(KeyError):
        _fail_after(catalog)
    assert chunks(catalog) == []
    with catalog.transaction() as connection:
        upsert(connection, "chunks", chunk(3))
    assert chunks(catalog) == [3]


def _fail_after(catalog: StoreCatalog) -> None:
    with catalog.transaction() as connection:
        upsert(connection, "chunks", chunk(1))
        insert_arrow(connection, "chunks", pa.Table.from_pylist([chunk(2)]))
        assert len(query_arrow(connection, "SELECT * FROM chunks")) == 2
        raise KeyError


def test_an_upsert_said_twice_is_said_once(catalog: StoreCatalog) -> None:
    values: dict[str, Any] = {"stage": "fit_pca", "variant": "v", "parent_id": None, "generation": 0, "partial": False}
    values |= {
        "model_id": "m",
        "path": "p",
        "checksum": "c",
        "n_bytes": 2**40,
        "n_images": 1,
        "summary": {"ä": [1, {"b": None}]},
    }
    for changed in ({}, {}, {"n_images": 5, "summary": {}}):
        with catalog.transaction() as connection:
            upsert(connection, "models", {**values, **changed})
            found = query_rows(connection, ModelRow, "SELECT * FROM models")
        assert [vars(row) for row in found] == [{**values, **changed}]


PARTITION = PartitionRow(
    stage="extract",
    variant="v",
    chunk_id=0,
    payload="a",
    input_payload="i",
    path="old",
    checksum="c",
    n_bytes=1,
    n_images=2,
    n_descriptors=3,
    dim=128,
    n_clipped=None,
    pruned=False,
    origin="run",
    versions={},
)


def results(*statuses: str) -> pa.Table:
    rows = [{"image_id": i, "status": s, "error": None, "n_descriptors": i} for i, s in enumerate(statuses)]
    return pa.Table.from_pylist(rows).append_column("pixels", pa.nulls(len(rows), pa.int64()))


def test_recording_a_partition_replaces_the_one_before(catalog: StoreCatalog) -> None:
    for path, statuses, replaced in (
        ("old", ("missing", "ok"), None),
        ("old", ("missing", "ok"), None),  # committed, although its process was killed before it knew
        ("new", ("ok", "ok"), "old"),
    ):
        with catalog.transaction() as connection:
            assert record_partition(connection, replace(PARTITION, path=path), results(*statuses)) == replaced
            record_partition(connection, replace(PARTITION, chunk_id=1, path="other"), results("empty"))
        with catalog.reading() as connection:
            paths = query_arrow(connection, "SELECT path FROM partitions ORDER BY chunk_id")["path"]
            assert paths.to_pylist() == [path, "other"]
            found = query_arrow(connection, "SELECT chunk_id, image_id, status FROM results ORDER BY ALL").to_pylist()
        assert [tuple(row.values()) for row in found] == [
            *((0, i, status) for i, status in enumerate(statuses)),
            (1, 0, "empty"),
        ]


def test_readers_wait_for_a_writer(catalog: StoreCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []
    with another_process(HOLD, catalog.path.parent) as process:
        with monkeypatch.context() as patch:
            patch.setattr(module, "LOCK_SECONDS", 0.2)
            with pytest.raises(StoreBusy) as caught:
                chunks(catalog)
        reader = threading.Thread(target=lambda: found.extend(chunks(catalog)))
        reader.start()
        process.communicate()  # closes its stdin: it commits and ends
        reader.join()
    assert found == [7]  # it has waited for the commit
    assert str(caught.value) == (
        f"the catalog of {catalog.path.parent} was in use by other processes for 0 seconds; "
        "wait for them to end, then run the same command again"
    )


def test_a_foreign_program_is_named(catalog: StoreCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCK_SECONDS", 0.0)
    with another_process(FOREIGN, catalog.path) as process:
        with pytest.raises(StoreBusy) as caught:
            chunks(catalog)
        with pytest.raises(StoreBusy, match="is open in a program that is not featurestore"):
            catalog.migrate()
        process.communicate()
    said = str(caught.value)
    assert said.startswith(
        f"{catalog.path} is open in a program that is not featurestore, for 0 seconds by now (IO Error: "
    )
    assert f"PID {process.pid}" in said
    assert said.endswith("; wait for it to end, or stop it")
    assert "\n" not in said
    assert chunks(catalog) == []


@pytest.mark.parametrize(
    "content", [b"", b"not a database", bytes(20_000), None], ids=["empty", "text", "zeros", "cut"]
)
def test_a_damaged_file_is_one_line(catalog: StoreCatalog, content: bytes | None) -> None:
    data = catalog.path.read_bytes()
    catalog.path.write_bytes(data[: len(data) // 2] if content is None else content)
    with pytest.raises(CorruptFile) as caught:
        chunks(catalog)
    said = str(caught.value)
    assert said.startswith(f"{catalog.path} ")
    assert said.endswith(f"make it again from the store's other files: featurestore rebuild {catalog.path.parent}")
    assert "\n" not in said


def test_a_store_that_cannot_be_written_is_read_without_a_lock(
    catalog: StoreCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    with catalog.transaction() as connection:
        upsert(connection, "chunks", chunk(1))
    catalog.path.with_name("catalog.lock").unlink()
    before = sorted(path.name for path in catalog.path.parent.iterdir())
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    assert chunks(catalog) == [1]
    assert sorted(path.name for path in catalog.path.parent.iterdir()) == before


@pytest.mark.parametrize("verb", ["reading", "transaction"])
@pytest.mark.parametrize("inner", ["reading", "transaction"])
def test_what_would_wait_for_itself_is_an_error_at_once(catalog: StoreCatalog, verb: str, inner: str) -> None:
    with getattr(catalog, verb)(), pytest.raises(RuntimeError, match=r"this thread has .* open already"):
        _open(catalog, inner)
    assert chunks(catalog) == []


def _open(catalog: StoreCatalog, verb: str) -> None:
    with getattr(catalog, verb)():
        pass


def test_another_thread_waits_its_turn(catalog: StoreCatalog) -> None:
    found: list[int] = []
    with catalog.transaction() as connection:
        reader = threading.Thread(target=lambda: found.extend(chunks(catalog)))
        reader.start()
        upsert(connection, "chunks", chunk(3))
    reader.join()
    assert found == [3]


@pytest.fixture
def met(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Is set when the catalog was found locked."""
    event, attached = threading.Event(), Catalog._attached

    def watched(self: Catalog, **options: bool) -> object:
        found = attached(self, **options)
        if found is None:
            event.set()
        return found

    monkeypatch.setattr(Catalog, "_attached", watched)
    return event


def test_a_reader_that_may_not_lock_waits_for_the_writer(
    catalog: StoreCatalog, met: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with another_process(HOLD, catalog.path.parent) as process:
        reader = threading.Thread(target=lambda: found.extend(chunks(catalog)))
        reader.start()
        assert met.wait(60)
        process.communicate()  # closes its stdin: it commits and ends
        reader.join()
    assert found == [7]


def test_a_writer_waits_for_a_reader_that_may_not_lock(catalog: StoreCatalog, met: threading.Event) -> None:
    with another_process(FOREIGN_READER, catalog.path) as process:
        writer = threading.Thread(target=lambda: _write(catalog, 4))
        writer.start()
        assert met.wait(60)
        process.communicate()
        writer.join()
    assert chunks(catalog) == [4]


def _write(catalog: StoreCatalog, number: int) -> None:
    with catalog.transaction() as connection:
        upsert(connection, "chunks", chunk(number))


def test_who_is_at_work_is_named_where_the_catalog_stays_locked(
    catalog: StoreCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOCK_SECONDS", 0.0)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with another_process(RUN, catalog.path.parent) as process:
        with pytest.raises(StoreBusy, match=rf"is in use by featurestore run \(pid {process.pid} on .*wait for it"):
            chunks(catalog)
        process.communicate()


@pytest.fixture
def no_room(catalog: StoreCatalog, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No file can grow beyond what the catalog has now: what a full disk does, for this process alone."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # modules imported now would be cut off
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with largest_file(catalog.path.stat().st_size):
        yield
    signal.signal(signal.SIGXFSZ, handler)


# The first does not fit into the log when it is committed, the second not even into the database before.
@pytest.mark.parametrize("n", [100_000, 1_000_000])
def test_a_full_disk_is_said_and_nothing_has_happened(catalog: StoreCatalog, no_room: None, n: int) -> None:
    ids = pa.array(range(n), pa.int32())
    digests = pa.array([f"{i * 2654435761 % 2**32:08x}" for i in range(n)])
    rows = pa.table({"chunk_id": ids, "first_image_id": ids.cast(pa.int64()), "n_images": ids, "digest": digests})
    with pytest.raises(NotEnoughSpace) as caught, catalog.transaction() as connection:
        insert_arrow(connection, "chunks", rows)
    assert str(caught.value).startswith(
        f"{os.strerror(errno.EFBIG)}: {CATALOG} could not be written; nothing half-written is recorded. "
    )
    assert chunks(catalog) == []


def test_a_mistake_in_our_own_sql_is_no_damage(finished: FeatureStore) -> None:
    """A table or a column that is not there is damage only if it should be there."""
    catalog = StoreCatalog(Unlocked(finished.path))
    for query in ("SELECT * FROM imagse", "SELECT filenaem FROM images", "SELECT no_such_function(1)"):
        with pytest.raises((duckdb.CatalogException, duckdb.BinderException)), catalog.reading() as connection:
            query_arrow(connection, query)
        with pytest.raises(duckdb.Error), catalog.transaction() as connection:
            connection.execute(query)


@pytest.mark.parametrize(
    ("statement", "lacks"),
    [
        ("DROP TABLE runs", r"runs\.\w+ of \w+"),
        ("ALTER TABLE images DROP COLUMN filename", "images.filename of VARCHAR"),
        ("ALTER TABLE images RENAME COLUMN filename TO name", "images.filename of VARCHAR"),
    ],
)
def test_a_catalog_of_another_schema_is_damaged(store: FeatureStore, statement: str, lacks: str) -> None:
    change(store.path, statement)
    catalog = Catalog(Root(store.path))
    with pytest.raises(CorruptFile, match=f"is damaged: it has no {lacks}; make it again from"), catalog.reading() as c:
        query_arrow(c, "SELECT filename, (SELECT count(*) FROM runs) FROM images")

"""Stores of other formats: an older catalog is read from a copy, and migrated by the next change of the store."""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
import pytest

from featurestore import FeatureStore
from featurestore.catalog import revisions
from featurestore.catalog.revisions import HEAD, migrations_folder
from featurestore.errors import CorruptFile, FormatError
from featurestore.storage import CATALOG, CONFIG
from featurestore.system import file_digest
from tests.catalogs import tables
from tests.fixtures.format_1 import make_store

NUMBER = f"{int(HEAD) + 1:04d}"
NEXT = f'''"""A column more."""

import sqlalchemy as sa
from alembic import op

revision = "{NUMBER}"
down_revision = "{HEAD}"


def upgrade() -> None:
    op.add_column("chunks", sa.Column("colour", sa.String(), server_default="red"))


def downgrade() -> None:
    op.drop_column("chunks", "colour")
'''


@pytest.fixture
def next_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let the code be of a version that is one migration further."""
    folder = shutil.copytree(migrations_folder(), tmp_path / "migrations")
    (folder / "versions" / f"{NUMBER}_next.py").write_text(NEXT, encoding="utf-8")
    monkeypatch.setattr(revisions, "migrations_folder", lambda: folder)
    monkeypatch.setattr(revisions, "HEAD", NUMBER)
    return NUMBER


def revision_of(path: Path) -> str:
    with duckdb.connect(path, read_only=True) as connection:
        return str(connection.sql("SELECT version_num FROM alembic_version").fetchall()[0][0])


def test_a_reader_migrates_a_copy_in_memory(store: FeatureStore, next_version: str) -> None:
    before = file_digest(store.path / CATALOG)
    assert store.sql("SELECT DISTINCT colour FROM chunks").fetchall() == [("red",)]
    assert store.status().stages[-1].n_done == 4
    assert file_digest(store.path / CATALOG) == before
    assert revision_of(store.path / CATALOG) == HEAD != next_version


def test_the_next_change_migrates_the_store(store: FeatureStore, next_version: str) -> None:
    assert store.run(workers=0) == []
    assert revision_of(store.path / CATALOG) == next_version
    assert store.sql("SELECT DISTINCT colour FROM chunks").fetchall() == [("red",)]


def test_a_catalog_from_the_future_is_refused(store: FeatureStore) -> None:
    with duckdb.connect(store.path / CATALOG) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0099'")
    message = f"^the catalog is of revision 0099, and this version of featurestore knows {HEAD}; upgrade featurestore$"
    with pytest.raises(FormatError, match=message):
        store.status()
    with pytest.raises(FormatError, match=message):
        store.run(workers=0)


def test_a_store_from_the_future_is_refused(store: FeatureStore) -> None:
    recipe = store.path / CONFIG
    recipe.write_text(recipe.read_text(encoding="utf-8").replace("format = 1", "format = 2"), encoding="utf-8")
    with pytest.raises(FormatError, match=r"^this store is of format 2, and this version of featurestore knows 1; "):
        FeatureStore(store.path)


@pytest.mark.parametrize("verb", ["status", "run"])
def test_a_missing_catalog_is_not_taken_for_an_empty_one(store: FeatureStore, verb: str) -> None:
    (store.path / CATALOG).unlink()
    with pytest.raises(CorruptFile, match=rf"is missing; make it again .*: featurestore rebuild {store.path}$"):
        getattr(store, verb)()
    assert not (store.path / CATALOG).exists()


def test_an_empty_database_is_not_taken_for_a_catalog(store: FeatureStore) -> None:
    (store.path / CATALOG).unlink()
    duckdb.connect(store.path / CATALOG).close()
    with pytest.raises(CorruptFile, match=r"catalog.duckdb holds no catalog; make it again .*: featurestore rebuild"):
        store.status()


def test_a_damaged_catalog_is_one_line(store: FeatureStore) -> None:
    data = bytearray((store.path / CATALOG).read_bytes())
    data[4096:12288] = bytes(8192)
    (store.path / CATALOG).write_bytes(data)
    with pytest.raises(CorruptFile, match=r"catalog.duckdb can't be read: .*; make it again .*: featurestore rebuild"):
        store.status()
    with pytest.raises(CorruptFile, match=r"catalog.duckdb can't be read: "):
        store.run(workers=0)


@pytest.fixture(scope="session")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the first format, half done. Not to be changed."""
    return make_store(tmp_path_factory.mktemp("format-1"))


def test_a_store_of_the_first_format_opens_and_resumes(old: Path, tmp_path: Path) -> None:
    shutil.copytree(old.parent, tmp_path / "old")
    store = FeatureStore(tmp_path / "old" / "store")
    assert store.status().stages[0].n_done == 1
    assert store.verify(deep=True).problems == []
    extracted = next((store.path / "partitions" / "extract").rglob("chunk-000000-*"))
    before = extracted.read_bytes()
    done = {summary.stage: summary.n_chunks for summary in store.run(workers=0)}
    assert done == {"extract": 1, "fit_pca": 2, "project": 2, "fit_scale": 2, "quantize": 2}
    assert extracted.read_bytes() == before
    assert store.load(columns=["filename", "painter"]).num_rows == 4
    assert store.verify(deep=True).problems == []
    assert revision_of(store.path / CATALOG) == HEAD


def test_what_is_extracted_today_is_what_the_first_format_holds(old: Path, tmp_path: Path) -> None:
    """The same payload: old partitions are as good as new ones, and are found by the same name."""
    again = FeatureStore.create(tmp_path / "again", images=old.parent / "images", chunk_size=2)
    again.run("extract", workers=0)
    name = next((old / "partitions").rglob("*.parquet")).relative_to(old)
    assert (again.path / name).is_file()


def test_a_store_of_the_first_format_is_rebuilt_and_read_untrusted(old: Path, tmp_path: Path) -> None:
    shutil.copytree(old.parent, tmp_path / "old")
    store = FeatureStore(tmp_path / "old" / "store")
    assert store.run("extract", chunks=[0], workers=0) == []  # but its catalog is brought up to date
    before = tables(store.path)
    (store.path / CATALOG).write_bytes(b"")
    opened = FeatureStore.open_untrusted(store.path)
    assert opened.left_out == ()
    assert opened.status().stages[0].n_done == 1
    store.rebuild()
    assert tables(store.path, without=("runs",)) == {name: rows for name, rows in before.items() if name != "runs"}

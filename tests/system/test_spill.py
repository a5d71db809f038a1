"""Tables that are mapped from disk: the same rows, nothing left behind, and memory that does not grow with them."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from featurestore import FeatureStore, errors
from featurestore.system import IN_MEMORY, ROWS_TOGETHER, Spill
from featurestore.system.spill import noticing_no_room
from tests.small import Unlocked, make_small

QUERY = f"SELECT range AS i, 'row ' || range AS name FROM range({3 * ROWS_TOGETHER}) ORDER BY i"


def test_a_table_on_disk_is_that_in_memory_and_leaves_nothing(tmp_path: Path) -> None:
    with duckdb.connect() as con:
        kept = Spill(tmp_path).table(con.sql(QUERY))
        assert kept.equals(IN_MEMORY.table(con.sql(QUERY)))
        mask = pc.equal(pc.bit_wise_and(kept["i"], 1), 1)
        assert Spill(tmp_path).filter(kept, mask).equals(kept.filter(mask))
        assert Spill(tmp_path).table(con.sql(f"{QUERY} LIMIT 0")).schema == kept.schema
    assert list(tmp_path.iterdir()) == []


def test_what_is_mapped_is_no_memory_of_ours(tmp_path: Path) -> None:
    batches = (pa.record_batch({"a": pa.array([b"x" * 10**6] * 10)}) for _ in range(20))
    before = pa.total_allocated_bytes()
    kept = Spill(tmp_path).keep(batches, pa.schema({"a": pa.binary()}))
    assert kept.nbytes > 200 * 10**6
    assert pa.total_allocated_bytes() - before < 50 * 10**6


def test_duckdb_sorts_more_than_its_memory_on_disk(tmp_path: Path) -> None:
    spill = Spill(tmp_path)
    with duckdb.connect() as con, spill.bounding(con, columns=1):
        assert con.sql("SELECT current_setting('temp_directory')").fetchall()[0][0].startswith(f"{tmp_path}/.tmp-")
        con.execute("SET memory_limit = '30MB'")
        con.execute("SET threads = 1")
        found = con.sql("SELECT md5(range::VARCHAR) AS a FROM range(600000) ORDER BY a")
        assert len(spill.table(found)) == 600_000
        with spill.bounding(con, columns=2):  # again, for what comes next
            assert len(spill.table(con.sql(QUERY))) == 3 * ROWS_TOGETHER
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_ingest_had_on_disk_is_swept(tmp_path: Path) -> None:
    left = [tmp_path / f".tmp-{i:012x}-{name}" for i, name in enumerate(("duckdb", "rows.arrow"))]
    left[0].mkdir()
    (left[0] / "duckdb_temp_storage_DEFAULT-0.tmp").touch()
    left[1].touch()
    assert sorted(Unlocked(tmp_path).sweep()) == [path.name for path in left]
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    says = "No space left on device: what an ingest keeps on disk"
    with pytest.raises(errors.NotEnoughSpace, match=says), noticing_no_room():
        raise duckdb.IOException("Could not write file: No space left on device")
    with pytest.raises(duckdb.IOException, match="odd"), noticing_no_room():
        raise duckdb.IOException("odd")


def test_an_ingest_leaves_nothing_in_the_store(tmp_path: Path) -> None:
    csv = make_small(tmp_path / "images", n=3)
    store = FeatureStore.create(tmp_path / "s", images=csv.parent, dataset=csv)
    store.ingest()
    assert [path.name for path in store.path.rglob(".*")] == []

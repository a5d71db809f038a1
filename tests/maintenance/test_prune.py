"""Room given back: what goes, what it frees, what it would cost, and that resume stays right."""

from __future__ import annotations

import pytest

from featurestore import FeatureStore
from featurestore.errors import ConfigError, StoreBusy, UntrustedStore
from featurestore.storage import CATALOG, CONFIG, Root, exclusive
from tests.catalogs import change, rows, tables


def edit_recipe(store: FeatureStore, old: str, new: str) -> None:
    recipe = store.path / CONFIG
    text = recipe.read_text(encoding="utf-8")
    assert old in text
    recipe.write_text(text.replace(old, new), encoding="utf-8")


def size(store: FeatureStore, *folders: str) -> int:
    return sum(p.stat().st_size for folder in folders for p in (store.path / folder).rglob("*") if p.is_file())


def test_there_is_nothing_to_prune_in_a_finished_store(store: FeatureStore) -> None:
    before = tables(store.path)
    report = store.prune()
    assert report.items == []
    assert report.notes == []
    assert tables(store.path) == before


def test_old_variants_go_without_a_trace(store: FeatureStore, finished: FeatureStore) -> None:
    before, total = tables(store.path, without=("runs",)), size(store, "partitions", "models")
    edit_recipe(store, "top = 200", "top = 150")
    store.run(workers=0)
    edit_recipe(store, "top = 150", "top = 200")
    promised = store.prune(dry_run=True)
    report = store.prune()
    assert report.items == promised.items
    assert [item.what.split()[0] for item in report.items] == ["project", "quantize", "model"]
    assert all(item.seconds is not None and item.seconds > 0 for item in report.items)
    assert size(store, "partitions", "models") == total
    assert tables(store.path, without=("runs",)) == before
    assert len(list((store.path / "partitions" / "project").iterdir())) == 1
    assert store.run(workers=0) == []
    assert store.verify(deep=True).ok


def test_a_dry_run_changes_nothing(store: FeatureStore) -> None:
    before, total = tables(store.path), size(store, ".")
    report = store.prune("quantize", dry_run=True)
    assert report.n_bytes > 0
    assert (tables(store.path), size(store, ".")) == (before, total)


def test_what_nothing_has_replaced_is_kept(store: FeatureStore) -> None:
    edit_recipe(store, "top = 200", "top = 150")
    store.run("project", chunks=[0, 1], workers=0)
    report = store.prune()
    assert [(item.what.split(",")[1], item.n_files) for item in report.items] == [(" an old variant", 2)]
    assert [note.split(", ")[1] for note in report.notes] == [
        "chunks 2-3: the current recipe has made nothing in its place yet",
        "chunks 0-3: the current recipe has made nothing in its place yet",
    ]
    assert rows(store.path, "SELECT count(*) FROM models") == [(2,)]  # fit_scale of the old variant, still in use
    edit_recipe(store, "top = 150", "top = 200")
    assert [summary.n_chunks for summary in store.run(workers=0)] == [2]


def test_pruned_upstream_is_not_missing(store: FeatureStore) -> None:
    before = tables(store.path, without=("runs", "partitions"))
    status = store.status()
    report = store.prune("quantize")
    assert [item.what.split()[:3] for item in report.items] == [
        ["descriptors", "of", "extract"],
        ["descriptors", "of", "project"],
    ]
    names = sorted(path.name for path in (store.path / "partitions" / "extract").rglob("*.parquet"))
    assert names == [f"index-{chunk:06d}.parquet" for chunk in range(4)]
    assert size(store, "partitions/extract", "partitions/project") < report.n_bytes / 20
    assert store.run(workers=0) == []
    assert tables(store.path, without=("runs", "partitions")) == before
    after = store.status()
    assert [stage.n_done for stage in after.stages] == [stage.n_done for stage in status.stages]
    assert "pruned: 4 partitions" in after.stages[0].notes
    assert store.verify(deep=True).ok
    assert store.prune("quantize").items == []


def test_a_pruned_store_is_rebuilt(store: FeatureStore) -> None:
    store.prune("quantize")
    before = tables(store.path, without=("runs",))
    (store.path / CATALOG).unlink()
    store.rebuild()
    assert tables(store.path, without=("runs",)) == before
    assert store.run(workers=0) == []


def test_what_is_needed_again_is_made_again(store: FeatureStore, finished: FeatureStore) -> None:
    store.prune("quantize")
    lost = next((store.path / "partitions" / "quantize").rglob("chunk-000002-*"))
    data = lost.read_bytes()
    lost.unlink()
    assert store.verify(repair=True).ok
    done = store.run(workers=0)
    assert [(summary.stage, summary.n_chunks) for summary in done] == [("extract", 1), ("project", 1), ("quantize", 1)]
    assert lost.read_bytes() == data
    assert not list((store.path / "partitions" / "extract").rglob("index-000002*"))
    store.run("extract", workers=0)  # asked for by name: all that is pruned
    assert not list((store.path / "partitions" / "extract").rglob("index-*"))
    assert store.verify(deep=True).ok


def test_a_damaged_index_is_found_and_dropped(store: FeatureStore) -> None:
    store.prune("quantize")
    index = next((store.path / "partitions" / "project").rglob("index-000001.parquet"))
    data = bytearray(index.read_bytes())
    data[40] ^= 8
    index.write_bytes(data)
    assert [problem.name for problem in store.verify().problems] == [index.relative_to(store.path).as_posix()]
    assert store.verify(repair=True).ok
    assert store.rebuild().notes == ()


def test_rows_of_an_index_are_checked_without_the_catalog(store: FeatureStore) -> None:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from tests.tampering import our_metadata

    store.prune("quantize")
    index = next((store.path / "partitions" / "extract").rglob("index-000001.parquet"))
    table, metadata = pq.read_table(index), our_metadata(index)
    place = table.column_names.index("width")
    table = table.set_column(place, "width", pc.add(table["width"], pc.cast(1, "int32")))
    pq.write_table(table.replace_schema_metadata(metadata), index)
    assert store.rebuild().notes == (
        "left out: index-000001.parquet does not hold the rows that its manifest promises",
    )


def test_chunks_that_are_not_finished_keep_what_they_need(store: FeatureStore) -> None:
    lost = next((store.path / "partitions" / "quantize").rglob("chunk-000002-*"))
    damaged = next((store.path / "partitions" / "quantize").rglob("chunk-000003-*"))
    lost.unlink()
    store.verify(repair=True)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    report = store.prune(["quantize"])
    assert report.notes == [
        "kept: upstream of chunk 2: quantize is not up to date for it",
        f"kept: upstream of {damaged.relative_to(store.path).as_posix()}, which is damaged: "
        f"featurestore verify {store.path} --repair",
    ]
    assert [item.n_files for item in report.items] == [2, 2]


def test_a_dry_run_reads_no_partition_and_a_real_one_reads_what_is_kept(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = next((store.path / "partitions" / "quantize").rglob("chunk-000003-*"))
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    with monkeypatch.context() as patch:
        patch.setattr("featurestore.storage.partitions.file_digest", lambda path: pytest.fail(f"{path} was read"))
        assert [item.n_files for item in store.prune("quantize", dry_run=True).items] == [4, 4]
    report = store.prune("quantize")
    assert [item.n_files for item in report.items] == [3, 3]
    assert report.notes == [
        f"kept: upstream of {damaged.relative_to(store.path).as_posix()}, which is damaged: "
        f"featurestore verify {store.path} --repair"
    ]


def test_project_can_be_kept_too(store: FeatureStore) -> None:
    assert [item.what.split()[2] for item in store.prune(["project", "quantize"]).items] == ["extract"]
    assert store.prune("extract").items == []


def test_files_without_a_record_go(store: FeatureStore) -> None:
    whole = next((store.path / "partitions" / "extract").rglob("chunk-000001-*"))
    orphan = whole.with_name("chunk-000001-0123456789abcdef.parquet")
    orphan.write_bytes(whole.read_bytes()[:5000])
    mine = store.path / "models" / "notes.txt"
    mine.write_text("mine", encoding="utf-8")
    state = store.path / "models" / "fit_pca" / ("0" * 16) / "state.npz"
    state.parent.mkdir()
    state.write_bytes(b"of another variant")
    promised = {item.what: item.n_bytes for item in store.prune(dry_run=True).items}
    assert promised["files without a record, those that are not whole"] == 5004
    freed = {item.what: item.n_bytes for item in store.prune().items}
    assert freed == {"files without a record": 5000, f"models/fit_pca/{'0' * 16}/state.npz, of an old variant": 18}
    assert mine.exists()
    assert not orphan.exists()
    assert not state.parent.exists()


def test_a_crash_between_the_index_and_its_record_is_harmless(store: FeatureStore) -> None:
    from featurestore.storage import write_index

    before = tables(store.path)
    whole = next((store.path / "partitions" / "extract").rglob("chunk-000001-*"))
    write_index(whole, whole.with_name("index-000001.parquet"))
    assert store.run(workers=0) == []
    assert not whole.with_name("index-000001.parquet").exists()
    assert tables(store.path) == before


def test_without_runs_the_cost_is_not_known(store: FeatureStore) -> None:
    change(store.path, "DELETE FROM runs")
    assert {item.seconds for item in store.prune("quantize", dry_run=True).items} == {None}


def test_what_has_no_partitions_can_not_be_kept(store: FeatureStore) -> None:
    text = "^'fit_pca' is no stage with partitions to keep; those are extract project quantize$"
    with pytest.raises(ConfigError, match=text):
        store.prune("fit_pca")


def test_prune_takes_its_turn(store: FeatureStore) -> None:
    with exclusive(Root(store.path), "run"), pytest.raises(StoreBusy, match=r"is in use by featurestore run \(pid"):
        store.prune()


def test_an_untrusted_store_is_not_pruned(store: FeatureStore) -> None:
    with pytest.raises(UntrustedStore, match="was opened as untrusted, so prune can't change it"):
        FeatureStore.open_untrusted(store.path).prune()

"""The view of found pairs: what holds for the codes of today, each pair once, with groups."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from featurestore import FeatureStore
from featurestore.errors import UntrustedStore
from featurestore.query.duplicates import groups
from tests.once import copied
from tests.small import configure, copy, invoke, make_small, small_store, write_dataset

NAMES = [f"{number:03d}.png" for number in range(6)]  # 3 is of the subset test; two in a chunk
ROWS = [(0, 1, 12, 5.0), (1, 0, 30, 2.0), (3, 1, 20, 1.0), (4, 5, 11, 9.0)]
ALL = [(0, "001.png", "000.png", 30, False), (0, "003.png", "001.png", 20, True), (4, "004.png", "005.png", 11, False)]
QUERY = "SELECT group_id, query, ref, inliers, across_subsets FROM duplicates ORDER BY query_id"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A store with pairs. Not to be changed."""

    def make(folder: Path) -> None:
        store = small_store(folder / "store", make_small(folder / "images", n=6).parent, chunk_size=2)
        configure(store, "project", top=20)
        store.run(workers=0)
        assert keep(store)

    return FeatureStore(copied(tmp_path_factory, "kept-pairs", make) / "store")


@pytest.fixture
def store(made: FeatureStore, tmp_path: Path) -> FeatureStore:
    """A store with pairs that the test may change."""
    return copy(made, tmp_path / "changed")


def keep(store: FeatureStore, *, other: tuple[int, ...] = ()) -> bool:
    """Keep `ROWS`, as found with the codes of today but in the chunks ``other``."""
    found = store.sql(
        "SELECT variant, chunk_id, payload FROM partitions WHERE stage = 'quantize' AND current"
    ).fetchall()
    chunks = {chunk: "another" if chunk in other else payload for _, chunk, payload in found}
    return store.keep_pairs(ROWS, variant=found[0][0], chunks=chunks)


def shown(store: FeatureStore) -> tuple[list[tuple[object, ...]], str]:
    result = store.sql(QUERY)
    return result.fetchall(), " ".join(result.notes)


def files(store: FeatureStore) -> list[Path]:
    return sorted((store.path / "pairs").iterdir())


def test_each_pair_is_shown_once_with_its_group(made: FeatureStore) -> None:
    assert shown(made) == (ALL, "")
    assert not keep(made), "the same pairs are there already"
    together = (
        "SELECT list_sort(list_distinct(flatten(list([query, ref])))) FROM duplicates GROUP BY group_id ORDER BY 1"
    )
    assert [row[0] for row in made.sql(together).fetchall()] == [["000.png", "001.png", "003.png"], NAMES[4:]]


def test_images_can_be_selected_by_it(made: FeatureStore) -> None:
    where = "subset = 'test' AND image_id IN (SELECT query_id FROM duplicates WHERE across_subsets)"
    assert made.select(where=where).load(["filename"])["filename"].to_pylist() == ["003.png"]


def test_pairs_of_other_codes_are_not_shown(store: FeatureStore) -> None:
    keep(store, other=(1,))
    rows, note = shown(store)
    assert rows == [ALL[0], ALL[2]]
    assert note.startswith("duplicates is of 4 of 6 images; the others are new or have changed since")
    assert len(files(store)) == 1, "the file that was there before is gone"


def test_removed_images_are_not_shown_and_new_ones_are_counted(store: FeatureStore) -> None:
    images = store.path.parent / "images"
    lines = make_small(images, n=8).read_text().splitlines()
    dataset = write_dataset(images, [*lines[:2], *lines[3:]])
    configure(store, "store", images=str(images), dataset=str(dataset))
    store.ingest(yes=True)
    rows, note = shown(store)
    assert rows == [ALL[2]], "1 connected 0 and 3, and has left"
    assert note.startswith("duplicates is of 5 of 7 images")


def test_a_recipe_has_its_own_pairs(store: FeatureStore) -> None:
    configure(store, "project", top=19)
    assert shown(store)[0] == []
    assert (
        "duplicates is empty: no pairs have been searched for with the codes of the current recipe" in shown(store)[1]
    )
    configure(store, "project", top=20)
    assert shown(store) == (ALL, "")
    configure(store, "project", top=19)
    store.run(workers=0)
    assert keep(store)
    assert len(files(store)) == 2
    assert "found pairs of old codes" in [item.what for item in store.prune().items]
    assert len(files(store)) == 1
    assert shown(store) == (ALL, "")


def test_a_damaged_file_is_told_and_dropped(store: FeatureStore) -> None:
    (path,) = files(store)
    data = bytearray(path.read_bytes())
    column = pq.read_metadata(path).row_group(0).column(2)
    data[column.data_page_offset + column.total_compressed_size - 8] ^= 1  # in the page of inliers
    path.write_bytes(data)
    rows, note = shown(store)
    assert rows == []
    assert note.startswith(f"duplicates is empty: pairs/{path.name} can't be read (")
    (problem,) = store.verify().problems
    assert str(problem).startswith(f"search: pairs/{path.name}: ")
    assert store.verify(repair=True).ok
    assert not files(store)
    assert "no pairs have been searched for" in shown(store)[1]


def test_a_file_of_another_name_is_not_believed(store: FeatureStore) -> None:
    (path,) = files(store)
    path.rename(path.with_name(f"{path.name[:17]}{'0' * 16}.parquet"))
    assert "has not the content that its name stands for" in shown(store)[1]


def test_pairs_of_an_untrusted_store_are_not_used(made: FeatureStore) -> None:
    untrusted = FeatureStore.open_untrusted(made.path)
    rows, note = shown(untrusted)
    assert rows == []
    assert note.startswith("duplicates is empty: the pairs of an untrusted store are not used")
    with pytest.raises(UntrustedStore, match="pairs can't change it"):
        keep(untrusted)


def test_rebuild_keeps_them(store: FeatureStore) -> None:
    store.rebuild()
    assert shown(store) == (ALL, "")


def test_the_command_line_has_the_note_on_stderr(store: FeatureStore) -> None:
    assert invoke("sql", store.path, "FROM duplicates", "--csv").stderr == ""
    for path in files(store):
        path.unlink()
    result = invoke("sql", store.path, "SELECT count(*) AS n FROM duplicates", "--csv")
    assert (result.exit_code, result.stdout) == (0, "n\n0\n")
    assert result.stderr.startswith("note: duplicates is empty: no pairs have been searched for")
    assert f"fill it with: featurestore pairs {store.path} OUT.csv\n" in result.stderr


def test_groups_are_connected_over_any_number_of_pairs() -> None:
    chain = np.random.default_rng(0).permutation(1001)
    one, other = np.concatenate([chain[:-1], [5000, 7000]]), np.concatenate([chain[1:], [4000, 5000]])
    assert groups(one, other).tolist() == [0] * 1000 + [4000, 4000]
    assert groups(np.empty(0, np.int64), np.empty(0, np.int64)).tolist() == []

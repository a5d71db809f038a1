"""A dataset file that has changed since it was read is noticed, and read again where that is asked for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from featurestore import FeatureStore
from tests.catalogs import change, rows
from tests.small import invoke, make_small, small_store


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which nothing was run, and its images. Not to be changed; it is used where it was made."""
    place = tmp_path_factory.mktemp("intake") / "own"
    make_small(place / "images", n=4, size=(80, 60))
    small_store(place / "store", place / "images")
    return place.rename(place.with_name("begun"))


@pytest.fixture
def csv(begun: Path) -> Iterator[Path]:
    """A dataset that the test may change, where it was read."""
    place = shutil.copytree(begun, begun.with_name("own"))
    yield place / "images" / "dataset.csv"
    shutil.rmtree(place)


@pytest.fixture
def own(csv: Path) -> FeatureStore:
    """A store of it that the test may change."""
    return FeatureStore(csv.parent.with_name("store"))


def add_row(csv: Path, row: str = "000.png,train") -> None:
    csv.write_text(csv.read_text(encoding="utf-8") + f"{row}\n", encoding="utf-8")


def test_a_changed_dataset_is_noticed_until_it_is_read(own: FeatureStore, csv: Path) -> None:
    assert own.status().notes == ()
    add_row(csv, "new.png,train")
    note = (
        f"the dataset {csv} has changed since it was read; to read it: featurestore ingest {own.path}, or run --ingest"
    )
    assert own.status().notes == (note,)
    assert note in invoke("status", own.path).output
    assert own.status().as_dict()["notes"] == (note,)
    own.ingest()
    assert own.status().notes == ()


def test_a_run_says_so_and_goes_on(own: FeatureStore, csv: Path) -> None:
    add_row(csv, "new.png,train")
    ended = invoke("run", own.path, "extract", "--workers", 0)
    assert ended.exit_code == 0
    assert ended.stderr.count("has changed since it was read") == 1
    assert "extract    4 images (4 ok)" in ended.stdout
    assert invoke("run", own.path, "extract", "--workers", 0, "--quiet").stderr == ""


def test_a_run_can_read_it_first(own: FeatureStore, csv: Path) -> None:
    (csv.parent / "new.png").write_bytes((csv.parent / "000.png").read_bytes())
    add_row(csv, "new.png,train")
    ended = invoke("run", own.path, "extract", "--workers", 0, "--ingest")
    assert ended.exit_code == 0
    assert "has changed" not in ended.stderr
    assert ended.stdout.startswith("1 image new, 0 changed; 5 images (1 test, 4 train) in 2 chunks\n")
    assert "extract    5 images (5 ok)" in ended.stdout
    add_row(csv, "late.png,train")
    own.run("extract", workers=0, ingest=True)
    assert own.status().n_images == 6


def test_what_changes_nothing_reads_nothing(own: FeatureStore) -> None:
    ended = invoke("run", own.path, "--dry-run", "--ingest")
    assert (ended.exit_code, "--dry-run changes nothing; leave out --ingest" in ended.output) == (2, True)


def test_a_file_that_was_only_touched_has_not_changed(own: FeatureStore, csv: Path) -> None:
    os.utime(csv, ns=(1, 1))
    assert own.status().notes == ()


def test_a_change_that_keeps_the_size_is_noticed(own: FeatureStore, csv: Path) -> None:
    text = csv.read_text(encoding="utf-8")
    csv.write_text(text.replace("test", "tost"), encoding="utf-8")
    os.utime(csv, ns=(1, 1))
    assert "has changed" in own.status().notes[0]


def test_a_file_of_the_distant_future_is_known_again(own: FeatureStore, csv: Path) -> None:
    csv.write_text(csv.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    os.utime(csv, ns=(1, 10**19))  # of the year 2286: nanoseconds that have no place in 64 bits with a sign
    own.ingest()
    assert own.status().notes == ()


def test_an_ingest_without_news_remembers_the_file(own: FeatureStore, csv: Path) -> None:
    csv.write_text(csv.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert "has changed" in own.status().notes[0]
    assert own.ingest().ingest_id is None
    assert own.status().notes == ()


def test_another_file_that_was_ingested_is_no_change_of_the_recipes(
    own: FeatureStore, csv: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.csv"
    other.write_text(csv.read_text(encoding="utf-8") + "new.png,train\n", encoding="utf-8")
    own.ingest(other)
    assert own.status().notes == ()
    assert rows(own.path, "SELECT path FROM dataset_files ORDER BY path") == [(str(csv),), (str(other),)]


def test_a_recipe_that_names_another_file(own: FeatureStore, csv: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_bytes(csv.read_bytes())
    recipe = own.path / "featurestore.toml"
    recipe.write_text(recipe.read_text(encoding="utf-8").replace(f'"{csv}"', f'"{other}"'), encoding="utf-8")
    assert own.status().notes == ()  # moved, and the same
    add_row(other, "new.png,train")
    assert own.status().notes[0].startswith(f"the dataset {other} has not been read yet; ")


def test_what_can_not_be_told_is_not_said(own: FeatureStore, csv: Path, tmp_path: Path) -> None:
    add_row(csv, "new.png,train")
    change(own.path, "DELETE FROM dataset_files")  # as in a store that was made before they were kept
    assert own.status().notes == ()
    own.ingest()
    csv.unlink()
    assert own.status().notes == ()
    scanned = FeatureStore.create(tmp_path / "scanned", images=csv.parent)
    assert scanned.status().notes == ()

"""`FeatureStore` as people use it: what is redone and what is not, and what a run says of itself."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from featurestore import FeatureStore, FeatureStoreError, errors
from tests.conftest import Samples
from tests.small import configure, copy


def edit(store: FeatureStore, before: str, after: str) -> None:
    """Change the recipe as a person would."""
    recipe = store.path / "featurestore.toml"
    text = recipe.read_text(encoding="utf-8")
    assert text.count(before) == 1
    recipe.write_text(text.replace(before, after), encoding="utf-8")


def stages(store: FeatureStore, **arguments: object) -> list[str]:
    """Run, and return the stages that had something to do."""
    return [summary.stage for summary in store.run(workers=0, **arguments)]  # type: ignore[arg-type]


def files(store: FeatureStore) -> set[str]:
    """Every partition of the store."""
    return {path.relative_to(store.path).as_posix() for path in store.path.glob("partitions/*/*/*")}


def test_create_gives_a_store_and_its_report(samples: Samples, tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path / "s", images=samples.images, dataset=samples.dataset)
    assert store.ingested is not None
    assert (store.ingested.n_new, store.ingested.n_chunks, store.ingested.subsets) == (26, 1, {"test": 5, "train": 21})
    assert FeatureStore(store.path).status().n_images == 26


def test_an_empty_folder_can_become_a_store(samples: Samples, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    assert FeatureStore.create(tmp_path / "s", images=samples.images).status().n_images == 26


def test_a_split_in_sql(samples: Samples, tmp_path: Path) -> None:
    split = "CASE WHEN md5_number_lower(filename) % 10 = 0 THEN 'test' ELSE 'train' END"
    store = FeatureStore.create(tmp_path / "s", images=samples.images, dataset=samples.dataset, split=split)
    assert store.sql(f"SELECT count(*) FROM images WHERE subset = {split}").fetchall() == [(26,)]


def test_a_second_run_does_nothing(store: FeatureStore) -> None:
    before = files(store)
    assert store.run() == []
    assert store.plan() == []
    assert files(store) == before


def test_new_rows_cost_only_their_own_chunks(store: FeatureStore, samples: Samples, tmp_path: Path) -> None:
    images = Path(shutil.copytree(samples.images, tmp_path / "images"))
    shutil.copy(images / "china" / "left-000.jpg", images / "new.jpg")
    edit(store, str(samples.images) + '" #', str(images) + '" #')
    dataset = images / "dataset.csv"
    dataset.write_text(dataset.read_text(encoding="utf-8") + "new.jpg,train,china,left,0\n", encoding="utf-8")
    before = files(store)
    report = store.ingest(dataset)
    assert (report.n_new, report.n_changed, report.n_chunks) == (1, 0, 5)
    assert [(e.stage, e.chunks, e.n_images) for e in store.plan()] == [
        (stage, (4,), 1) for stage in ("extract", "project", "quantize")
    ]
    assert stages(store) == ["extract", "project", "quantize"]
    assert before < files(store)
    assert len(files(store) - before) == 3
    assert store.status().stages[1].notes == (
        f"1 image is new to the model; to learn what is new: featurestore run {store.path} fit_pca --update",
    )


@pytest.mark.parametrize(
    ("before", "after", "redone", "why"),
    [
        ("keypoints = true", "keypoints = false", ["quantize"], "parameters changed (keypoints: True -> False)"),
        ("margin = 0.01", "margin = 0.02", ["fit_scale", "quantize"], ""),
        ("top = 200", "top = 100", ["project", "fit_scale", "quantize"], "parameters changed (top: 200 -> 100)"),
    ],
)
def test_a_changed_parameter_redoes_its_stage_and_what_follows(
    store: FeatureStore, before: str, after: str, redone: list[str], why: str
) -> None:
    old = files(store)
    edit(store, before, after)
    reasons = [reason for e in store.plan() for reason, _ in e.why]
    assert not why or why in reasons
    assert stages(store) == redone
    assert old < files(store)  # beside the old variant, which stays
    edit(store, after, before)
    assert store.run() == []  # and is current again at once


def test_the_folder_of_images_is_no_part_of_the_identity(store: FeatureStore, samples: Samples, tmp_path: Path) -> None:
    moved = shutil.copytree(samples.images, tmp_path / "elsewhere")
    edit(store, str(samples.images) + '" #', str(moved) + '" #')
    assert store.plan() == []


def test_a_store_that_is_moved_goes_on_working(store: FeatureStore, tmp_path: Path) -> None:
    moved = FeatureStore(shutil.move(store.path, tmp_path / "moved"))
    assert moved.sql("SELECT count(*) FROM extracted").fetchall() == [(26,)]
    assert moved.run() == []


@pytest.fixture
def small(tiny: FeatureStore, tmp_path: Path) -> FeatureStore:
    """A store of three pictures in which every stage is stale."""
    store = copy(tiny, tmp_path / "small")
    configure(store, "extract", sift={"n_octave_layers": 4})
    return store


def test_one_stage_alone(small: FeatureStore) -> None:
    assert stages(small) == ["extract", "fit_pca", "project", "fit_scale", "quantize"]
    assert small.run("extract", workers=0) == []


def test_each_stage_by_name_in_order(small: FeatureStore) -> None:
    for stage in ("extract", "fit_pca", "project", "fit_scale", "quantize"):
        assert [summary.stage for summary in small.run(stage, workers=0)] == [stage]
    assert small.plan() == []


def test_chunks_of_one_stage(fresh: FeatureStore) -> None:
    done = fresh.run("extract", chunks=[1, 3], workers=0)
    assert [(summary.n_chunks, summary.n_images) for summary in done] == [(2, 10)]
    assert [e.chunks for e in fresh.plan() if e.stage == "extract"] == [(0, 2)]


def test_every_image_failing_is_an_error(fresh: FeatureStore, samples: Samples, tmp_path: Path) -> None:
    """More images than are equal failures in a row, which these are not."""
    texts = tmp_path / "texts"
    for path in samples.images.rglob("*.*"):
        (texts / path.relative_to(samples.images)).parent.mkdir(parents=True, exist_ok=True)
        (texts / path.relative_to(samples.images)).write_text("no image")
    edit(fresh, str(samples.images) + '" #', f'{texts}" #')
    why = r"not one of 26 images could be used \(26 unreadable; SELECT \* FROM failures says why\); is .* right"
    with pytest.raises(errors.NothingUsable, match=why):
        fresh.run(workers=0)
    edit(fresh, f'"{texts}"', f'"{samples.images}"')
    assert fresh.run("extract", workers=0, retry_failed=True)[0].statuses["ok"] == 24


def test_a_run_is_recorded(finished: FeatureStore) -> None:
    runs = finished.sql("SELECT stage, outcome, n_chunks, n_images, host, pid, versions FROM runs ORDER BY started")
    rows = runs.arrow().to_pylist()
    assert [row["stage"] for row in rows] == ["extract", "fit_pca", "project", "fit_scale", "quantize"]
    assert {row["outcome"] for row in rows} == {"done"}
    assert (rows[0]["n_chunks"], rows[0]["n_images"]) == (4, 26)
    assert '"numpy"' in rows[0]["versions"]


def test_no_room_is_said_before_the_work(fresh: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featurestore.storage.root.Root.free_bytes", lambda self: 1_000_000)
    with pytest.raises(errors.NotEnoughSpace, match=r"will write about 40.\d MB, and .* has 1.0 MB free; make room"):
        fresh.run(workers=0)
    assert files(fresh) == set()


def test_the_time_it_will_take_comes_from_earlier_runs(store: FeatureStore) -> None:
    edit(store, "sigma = 1.6", "sigma = 1.5")
    by_stage = {e.stage: e for e in store.plan()}
    assert list(by_stage) == ["extract", "fit_pca", "project", "fit_scale", "quantize"]
    assert by_stage["extract"].why == (("parameters changed (sift.sigma: 1.6 -> 1.5)", "chunks 0-3"),)
    seconds = by_stage["extract"].seconds
    assert seconds is not None
    assert seconds > 0
    extracted = sum(path.stat().st_size for path in store.path.glob("partitions/extract/*/*"))
    assert by_stage["extract"].n_bytes == pytest.approx(extracted, rel=0.01)


def test_nothing_held_out_is_a_warning(samples: Samples, tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path / "s", images=samples.images)
    assert store.ingested is not None
    assert store.ingested.warnings == ["there is no dataset CSV, so every image is train, and none is test"]


def test_without_a_train_image_nothing_is_made(samples: Samples, tmp_path: Path) -> None:
    with pytest.raises(errors.DatasetError, match=r"makes no image 'train' \(\d+ test images\)"):
        FeatureStore.create(tmp_path / "s", images=samples.images, dataset=samples.dataset, split="'test'")
    assert not (tmp_path / "s").exists()


def test_other_names_than_train_and_test_are_said(samples: Samples, tmp_path: Path) -> None:
    split = "if(subset = 'test', 'validation', subset)"
    store = FeatureStore.create(tmp_path / "s", images=samples.images, dataset=samples.dataset, split=split)
    assert store.ingested is not None
    n = store.ingested.subsets["validation"]
    what = f"the split gives other names than train and test ({n} validation); nothing is learnt from these"
    assert store.ingested.warnings == [what]


def test_csv_columns_beside_the_image(finished: FeatureStore) -> None:
    query = "SELECT photo, crop, rotation FROM images WHERE filename = 'china/left-090.jpg'"
    assert finished.sql(query).fetchall() == [("china", "left", 90)]


def test_every_error_is_of_one_family() -> None:
    found = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(found) > 10
    assert all(issubclass(kind, FeatureStoreError) for kind in found)
    drawn = errors.__doc__ or ""
    assert all(kind.__name__ in drawn for kind in found)


Check = Callable[[FeatureStore], object]


@pytest.mark.parametrize("verb", [lambda s: s.sql("SELECT 1"), lambda s: s.run(), lambda s: s.matrix()])
def test_a_store_that_was_moved_is_not_called_damaged(store: FeatureStore, verb: Check) -> None:
    store.path.rename(store.path.with_name("elsewhere"))
    with pytest.raises(errors.NotAStore, match="does not exist any more; if the store was moved, open it where it is"):
        verb(store)
    assert not store.path.exists()


@pytest.mark.parametrize(
    "verb", [lambda s: s.status(), lambda s: s.plan(), lambda s: s.sql("SELECT 1"), lambda s: s.run()]
)
def test_a_recipe_that_cannot_be_used_is_said_by_every_verb(store: FeatureStore, verb: Check) -> None:
    edit(store, "[quantize]", "[quantise]")
    with pytest.raises(errors.ConfigError, match=r"unknown table \[quantise\]; the tables are store, extract, fit_pca"):
        verb(store)

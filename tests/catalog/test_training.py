"""Which images a model has learnt and which it has not, against the joins that would say the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from featurestore import FeatureStore
from featurestore.catalog import TrainingSet, resolve
from tests.once import copied
from tests.small import configure, context_of, copy, invoke, make_small, small_store, write_dataset


@pytest.fixture(scope="module")
def growing(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A finished store of 13 images in chunks of 5, then 9 more that were extracted and not learnt. Not to be changed.

    The images are beside it.
    """

    def make(folder: Path) -> None:
        images = folder / "images"
        lines = make_small(images).read_text(encoding="utf-8").splitlines()
        store = small_store(folder / "store", images)
        configure(store, "store", images="../images", dataset="../images/dataset.csv")
        store.run(workers=0)
        lines += make_small(images, n=9, first=13).read_text(encoding="utf-8").splitlines()[1:]
        (images / "014.png").unlink()  # this one has no descriptors
        write_dataset(images, lines)
        store.ingest()
        store.run("extract", workers=0)

    return FeatureStore(copied(tmp_path_factory, "growing", make) / "store")


def test_unseen_images_are_counted_by_chunk(growing: FeatureStore) -> None:
    context = context_of(growing)
    with context.catalog.reading() as connection:
        step = resolve(connection, context.flow)[1]
        found = TrainingSet(connection, step).unseen()
    expected = growing.sql(
        """SELECT r.chunk_id, count(*) FROM descriptor_counts r0 JOIN images r USING (image_id)
           WHERE r0.stage = 'extract' AND r0.n_descriptors > 0 AND r.subset = 'train'
             AND r.image_id NOT IN (SELECT image_id FROM training_images) GROUP BY 1"""
    ).fetchall()
    assert len(expected) == 2  # 13 images fill three chunks, the others two
    assert found == dict(expected)


def test_the_masks_are_over_all_images(growing: FeatureStore) -> None:
    context = context_of(growing)
    with context.catalog.reading() as connection:
        step = resolve(connection, context.flow)[1]
        learning = TrainingSet(connection, step)
        learnt, selected = learning.learnt, learning.selected
    train = np.array([i % 4 != 3 for i in range(22)])
    assert selected.tolist() == train.tolist()
    assert learnt.tolist() == (train & (np.arange(22) < 13)).tolist()


@pytest.fixture
def leaking(growing: FeatureStore, tmp_path: Path) -> FeatureStore:
    """The same store, of which an image that was learnt is held out by the next ingest."""
    images = Path(shutil.copytree(growing.path.parent / "images", tmp_path / "images"))
    lines = (images / "dataset.csv").read_text(encoding="utf-8").splitlines()
    write_dataset(images, [line.replace("002.png,train", "002.png,test") for line in lines])
    return copy(growing, tmp_path / "store")


LEAKAGE = (
    "leakage: the model learnt from 1 image that the current split holds out; another seed in [fit_pca] of "
    "featurestore.toml, and a run, make models without them"
)


def test_an_image_that_was_learnt_and_is_held_out_today_is_reported(leaking: FeatureStore) -> None:
    leaking.ingest()
    notes = {stage.stage: stage.notes for stage in leaking.status().stages}
    assert LEAKAGE in notes["fit_pca"]
    assert not any("leakage" in note for note in notes["fit_scale"])
    configure(leaking, "fit_scale", over="train")
    assert leaking.status().stages[3].model is None


def test_an_ingest_and_the_runs_after_it_say_so_until_the_model_is_another(leaking: FeatureStore) -> None:
    line = f"fit_pca: {LEAKAGE}\n"
    assert invoke("ingest", leaking.path).stderr == f"warning: {line}"
    assert invoke("ingest", leaking.path).stderr == f"warning: {line}"
    assert invoke("run", leaking.path, "--workers", 0).stderr == line
    idle = invoke("run", leaking.path, "--workers", 0)
    assert (idle.stdout.startswith("everything is up to date"), idle.stderr) == (True, line)
    assert invoke("run", leaking.path, "extract", "--workers", 0).stderr == ""  # which uses no model
    assert invoke("run", leaking.path, "--quiet", "--workers", 0).stderr == ""
    configure(leaking, "fit_pca", seed=1)
    assert invoke("run", leaking.path, "--workers", 0).stderr == ""
    assert invoke("ingest", leaking.path).stderr == ""


def test_a_run_that_reads_the_dataset_first_says_so_once(leaking: FeatureStore) -> None:
    assert invoke("run", leaking.path, "--ingest", "--workers", 0).stderr == f"warning: fit_pca: {LEAKAGE}\n"

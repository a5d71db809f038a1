"""Fits through the store: the same model whatever the chunks, the kills and the workers, and never an image twice."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from featurestore import FeatureStore
from featurestore.errors import ConfirmationNeeded, NothingUsable, NotReady
from featurestore.pipeline import Options, fit_run, run_stages
from featurestore.progress import StageSummary
from featurestore.storage import from_bitmap, read_arrays, write_arrays
from tests.catalogs import change
from tests.conftest import LONG
from tests.once import copied
from tests.small import (
    Listening,
    StopAfter,
    configure,
    context_of,
    copy,
    current_model,
    digests,
    make_small,
    rows_of,
    small_store,
    write_dataset,
)

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def images(thirteen: FeatureStore) -> Path:
    """Thirteen small pictures. Not to be changed."""
    return thirteen.path.parent / "images"


@pytest.fixture(scope="module")
def extracted(images: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A store of them in chunks of 3, with extract done. Not to be changed."""

    def make(folder: Path) -> None:
        small_store(folder / "store", images, chunk_size=3).run("extract", workers=0)

    store = FeatureStore(copied(tmp_path_factory, "extracted", make) / "store")
    configure(store, "store", images=str(images), dataset=str(images / "dataset.csv"))
    return store


@pytest.fixture(scope="module")
def fitted(extracted: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> tuple[FeatureStore, StageSummary]:
    """The same store with fit_pca done, and what its run has told. Not to be changed."""
    store = copy(extracted, tmp_path_factory.mktemp("fitted") / "store")
    (summary,) = store.run("fit_pca", workers=0)
    assert summary.n_chunks == 5
    return store, summary


@pytest.fixture(scope="module")
def straight(fitted: tuple[FeatureStore, StageSummary]) -> dict[str, str]:
    """The digests of the model of a fit that was not interrupted."""
    return digests(fitted[0], "models/**/*")


@pytest.fixture
def store(extracted: FeatureStore, tmp_path: Path) -> FeatureStore:
    """A store with extract done, which the test may change."""
    return copy(extracted, tmp_path / "store")


@pytest.fixture(scope="module")
def done(thirteen: FeatureStore) -> FeatureStore:
    """A store of them in chunks of 5, with every stage done. Not to be changed: see `growing`."""
    return thirteen


@pytest.fixture
def growing(done: FeatureStore, images: Path, tmp_path: Path) -> FeatureStore:
    """A finished store that the test may change, with an image folder to which it may add."""
    folder = shutil.copytree(images, tmp_path / "images")
    store = copy(done, tmp_path / "growing")
    configure(store, "store", images=str(folder), dataset=str(folder / "dataset.csv"))
    return store


def grow(store: FeatureStore, *, n: int = 4, first: int = 13) -> None:
    """Add pictures to the folder and to the dataset."""
    folder = store.path.parent / "images"
    before = (folder / "dataset.csv").read_text(encoding="utf-8").splitlines()
    make_small(folder, n=n, first=first)
    after = (folder / "dataset.csv").read_text(encoding="utf-8").splitlines()
    write_dataset(folder, before + after[1:])
    store.ingest()


@pytest.fixture(scope="module")
def grown_once(done: FeatureStore, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished store to whose dataset four pictures have come, with its image folder. Not to be changed."""

    def make(folder: Path) -> None:
        shutil.copytree(images, folder / "images")
        store = copy(done, folder / "growing")
        configure(store, "store", images="../images", dataset="../images/dataset.csv")
        grow(store)

    return copied(tmp_path_factory, "grown", make)


@pytest.fixture
def grown(grown_once: Path, tmp_path: Path) -> FeatureStore:
    """Such a store, which the test may change."""
    return FeatureStore(shutil.copytree(grown_once, tmp_path / "grown") / "growing")


@pytest.fixture(scope="module")
def interrupted(extracted: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A store whose fit was ended after two of five chunks. Not to be changed."""
    store = copy(extracted, tmp_path_factory.mktemp("interrupted") / "store")
    with pytest.raises(KeyboardInterrupt):
        run_stages(context_of(store, StopAfter(2)), Options(stages=("fit_pca",), workers=0))
    return store


def learnt(store: FeatureStore, model_id: str) -> list[int]:
    found = store.sql(f"SELECT image_id FROM training_images WHERE model_id = '{model_id}' ORDER BY 1")
    return [image_id for (image_id,) in found.fetchall()]


def train_images(store: FeatureStore) -> list[int]:
    found = store.sql(
        "SELECT image_id FROM descriptor_counts WHERE stage = 'extract' AND subset = 'train' AND n_descriptors > 0 "
        "ORDER BY image_id"
    )
    return [image_id for (image_id,) in found.fetchall()]


def refusing(asked: list[str]) -> Callable[[str], bool]:
    """A user who notes the question, and says no."""

    def answer(question: str) -> bool:
        asked.append(question)
        return False

    return answer


def state_of(store: FeatureStore) -> list[Path]:
    return list(store.path.glob("models/fit_pca/*/state.npz"))


def test_the_model_is_the_same_for_every_chunk_size(
    images: Path, straight: dict[str, str], done: FeatureStore, tmp_path: Path
) -> None:
    """In chunks of 3, of 5 and of all."""
    store = small_store(tmp_path / "26", images, chunk_size=26)
    store.run("extract", "fit_pca", workers=0)
    assert len(straight) == 1
    assert [digests(of, "models/fit_pca/**/*") for of in (done, store)] == [straight] * 2


def test_a_killed_fit_goes_on_where_it_was_after_every_chunk(
    extracted: FeatureStore, straight: dict[str, str], tmp_path: Path
) -> None:
    for stop in range(1, 6) if LONG else (2, 5):  # the next test stops after each of them
        store = copy(extracted, tmp_path / f"killed-{stop}")
        with pytest.raises(KeyboardInterrupt):
            run_stages(context_of(store, StopAfter(stop)), Options(stages=("fit_pca",), workers=0))
        assert len(state_of(store)) == 1
        assert store.sql("SELECT model_id FROM models").fetchall() == []
        listening = Listening()
        (rest,) = run_stages(context_of(store, listening), Options(stages=("fit_pca",), workers=0))
        assert rest.n_chunks == 5 - stop, "no chunk is learnt twice"
        assert listening.said == []
        assert digests(store, "models/**/*") == straight, f"killed after chunk {stop}"


def test_a_fit_that_is_killed_again_and_again_is_done_in_the_end(store: FeatureStore, straight: dict[str, str]) -> None:
    for _ in range(5):
        with pytest.raises(KeyboardInterrupt):
            run_stages(context_of(store, StopAfter(1)), Options(stages=("fit_pca",), workers=0))
    (rest,) = store.run("fit_pca", workers=0)
    assert rest.n_chunks == 0
    assert digests(store, "models/**/*") == straight


# A process that has not imported scikit-learn yet. Where scikit-learn fits, the BLAS that comes with SciPy is loaded in
# the middle of the run; in the end it is limited too.
FIT = """
import sys
from threadpoolctl import threadpool_limits
from featurestore import FeatureStore
for solver in ("gram", "incremental"):
    assert "sklearn" not in sys.modules
    FeatureStore(solver).run("fit_pca", workers=0)
    assert ("sklearn" in sys.modules) == (solver == "incremental")
with threadpool_limits(1):
    for solver in ("gram", "incremental"):
        FeatureStore(f"alone/{solver}").run("fit_pca", workers=0)
"""


def test_the_model_does_not_depend_on_the_threads_of_blas(extracted: FeatureStore, tmp_path: Path) -> None:
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(names, "2"), "PYTHONPATH": str(ROOT)}
    stores = {solver: copy(extracted, tmp_path / solver) for solver in ("gram", "incremental")}
    for solver, store in stores.items():
        # smaller batches are the same for any number of threads
        configure(store, "fit_pca", n_components=64, samples_per_image=1800, batch_size=3600, solver=solver)
    alone = {solver: copy(store, tmp_path / "alone" / solver) for solver, store in stores.items()}
    subprocess.run([sys.executable, "-c", FIT], env=environment, cwd=tmp_path, check=True)
    for solver in stores:
        expected = digests(alone[solver], "models/**/*")
        assert len(expected) == 1
        assert digests(stores[solver], "models/**/*") == expected, solver


def test_only_train_images_are_learnt_and_all_of_them(fitted: tuple[FeatureStore, StageSummary]) -> None:
    store, _ = fitted
    model = current_model(store, "fit_pca")
    assert learnt(store, model.model_id) == train_images(store) == [i for i in range(13) if i % 4 != 3]
    assert model.n_images == 10
    arrays, _ = read_arrays(store.path / model.path)
    assert from_bitmap(arrays["images"]).tolist() == train_images(store), "the file tells it too"


def test_test_images_are_excluded_by_their_full_path(images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for place in ("a", "b"):
        shutil.copytree(images, folder / place)
    names = [f"{number:03d}.png" for number in range(4)]
    lines = [f"a/{name},train" for name in names] + [f"b/{name},test" for name in names]
    write_dataset(folder, ["filename,subset", *lines])
    store = small_store(tmp_path / "store", folder)
    store.run("extract", workers=0)
    store.run("fit_pca", workers=0)
    assert learnt(store, current_model(store, "fit_pca").model_id) == [0, 1, 2, 3]


def test_the_explained_variance_is_recorded(fitted: tuple[FeatureStore, StageSummary]) -> None:
    store, summary = fitted
    model = current_model(store, "fit_pca")
    assert model.summary["n_components"] == 16
    sampled = sum(min(row.n_descriptors, 300) for row in rows_of(store, "extract") if row.image_id % 4 != 3)
    assert model.summary["n_descriptors"] == summary.n_descriptors == sampled
    descriptors = np.vstack([np.asarray(row.descriptors, float) for row in rows_of(store, "extract")])
    arrays, _ = read_arrays(store.path / model.path)
    kept = ((descriptors - arrays["mean_"]) @ arrays["components_"].T).var(axis=0).sum() / descriptors.var(axis=0).sum()
    assert model.summary["explained_variance_ratio"] == pytest.approx(kept, abs=0.02)
    assert summary.note == (
        f"model {model.model_id} of 10 images, "
        f"{model.summary['explained_variance_ratio']:.1%} of the variance explained"
    )


def test_a_fit_wants_every_chunk_or_to_be_told(images: Path, tmp_path: Path) -> None:
    store = small_store(tmp_path / "store", images)
    store.run("extract", chunks=[0, 2], workers=0)
    with pytest.raises(NotReady) as raised:
        store.run("fit_pca", workers=0)
    assert str(raised.value) == (
        "fit_pca learns from every chunk, and extract is not up to date for chunk 1; run extract first, or fit without "
        f"them: featurestore run {store.path} fit_pca --partial"
    )
    (summary,) = store.run("fit_pca", workers=0, partial=True)
    assert summary.note.endswith("fitted before all chunks were finished")
    model = current_model(store, "fit_pca")
    assert model.partial is True
    assert learnt(store, model.model_id) == [0, 1, 2, 4, 10, 12]


def test_a_whole_fit_is_not_partial(store: FeatureStore) -> None:
    store.run("fit_pca", workers=0, partial=True)
    assert current_model(store, "fit_pca").partial is False


def test_a_fitted_model_stays_when_images_come_and_an_update_asks_first(grown: FeatureStore) -> None:
    """And what it costs is what it says: later stages are recomputed beside the old."""
    before = current_model(grown, "fit_pca")
    assert [summary.stage for summary in grown.run(workers=0)] == ["extract", "project", "quantize"]
    assert current_model(grown, "fit_pca") == before
    notes = {stage.stage: stage.notes for stage in grown.status().stages}
    assert [note.split(";")[0] for note in notes["fit_pca"]] == ["3 images are new to the model"]
    assert [note.split(";")[0] for note in notes["fit_scale"]] == ["4 images are new to the model"]
    question = (
        "fit_pca will go on with 3 images that its model has not seen. A new model is a new variant: 8 partitions "
        "downstream will be recomputed"
    )
    with pytest.raises(ConfirmationNeeded) as raised:
        grown.run("fit_pca", update=True, workers=0)
    assert str(raised.value) == f"{question}; agree with --yes"
    asked: list[str] = []
    with pytest.raises(ConfirmationNeeded):
        grown.run("fit_pca", update=True, workers=0, yes=refusing(asked))
    assert asked == [question]
    assert current_model(grown, "fit_pca") == before
    files = digests(grown)
    grown.run("fit_pca", update=True, workers=0, yes=lambda text: True)
    assert current_model(grown, "fit_pca") != before
    assert [summary.stage for summary in grown.run(workers=0)] == ["project", "fit_scale", "quantize"]
    assert files.items() <= digests(grown).items()
    assert len(list(grown.path.glob("partitions/quantize/*"))) == 2


def test_an_update_makes_a_child_that_learns_the_unseen_images_only(grown: FeatureStore) -> None:
    parent = current_model(grown, "fit_pca")
    grown.run("extract", workers=0)
    (summary,) = grown.run("fit_pca", update=True, yes=True, workers=0)
    child = current_model(grown, "fit_pca")
    assert (summary.n_chunks, summary.n_images) == (1, 3)
    assert (child.parent_id, child.generation, parent.generation) == (parent.model_id, 1, 0)
    assert child.variant == parent.variant
    assert learnt(grown, child.model_id) == train_images(grown)
    assert len(learnt(grown, parent.model_id)) == 10
    unseen = [row for row in rows_of(grown, "extract") if row.image_id in (13, 14, 16)]
    assert child.summary["n_descriptors"] == parent.summary["n_descriptors"] + 300 * len(unseen)
    assert [stage.notes for stage in grown.status().stages if stage.stage == "fit_pca"] == [()]


def test_a_run_can_update_every_model_on_its_way(grown: FeatureStore) -> None:
    summaries = grown.run(update=True, yes=True, workers=0)
    assert [summary.stage for summary in summaries] == ["extract", "fit_pca", "project", "fit_scale", "quantize"]
    assert current_model(grown, "fit_scale").n_images == 17
    assert grown.run(workers=0) == []


def test_an_update_that_was_killed_goes_on_from_its_parent_and_its_state(growing: FeatureStore) -> None:
    grow(growing, n=8)  # two more chunks
    growing.run("extract", workers=0)
    straight = copy(growing, growing.path.parent / "straight")
    straight.run("fit_pca", update=True, yes=True, workers=0)
    options = Options(stages=("fit_pca",), workers=0, update=True, confirm=lambda question: True)
    with pytest.raises(KeyboardInterrupt):
        run_stages(context_of(growing, StopAfter(1)), options)
    (rest,) = growing.run("fit_pca", update=True, yes=True, workers=0)
    assert rest.n_chunks == 1
    assert digests(growing, "models/fit_pca/**/*") == digests(straight, "models/fit_pca/**/*")


def test_a_state_of_another_fit_is_not_gone_on_from(grown: FeatureStore) -> None:
    grown.run("extract", workers=0)
    straight = copy(grown, grown.path.parent / "straight")
    straight.run("fit_pca", update=True, yes=True, workers=0)
    # What a crash leaves between recording the first model and removing its state
    model = read_arrays(grown.path / current_model(grown, "fit_pca").path)
    state = (grown.path / current_model(grown, "fit_pca").path).with_name("state.npz")
    write_arrays(state, model[0], {**model[1], "chunks": [0, 1, 2, 3]})
    grown.run("fit_pca", update=True, yes=True, workers=0)
    assert digests(grown, "models/fit_pca/**/*") == digests(straight, "models/fit_pca/**/*")


SOLVERS = ("incremental", "gram", "covariance")
# A change is noticed before a solver is asked: in the short form each meets a change, and goes on where there is none,
# which "gram" does in the tests of killed fits.
BEGUN_AGAIN = [
    *(("nothing", solver) for solver in SOLVERS if LONG or solver != "gram"),
    *(("image", "incremental"), ("split", "gram"), ("image", "covariance")),
    *([("image", "gram"), ("split", "incremental"), ("split", "covariance")] if LONG else []),
]


@pytest.mark.parametrize(("change", "solver"), BEGUN_AGAIN)
def test_a_fit_begins_again_where_what_it_has_learnt_has_changed(
    extracted: FeatureStore, images: Path, tmp_path: Path, change: str, solver: str
) -> None:
    folder = Path(shutil.copytree(images, tmp_path / "images"))
    store = copy(extracted, tmp_path / "store")
    configure(store, "store", images=str(folder))
    configure(store, "fit_pca", solver=solver)
    with pytest.raises(KeyboardInterrupt):
        run_stages(context_of(store, StopAfter(2)), Options(stages=("fit_pca",), workers=0))
    if change == "image":
        shutil.copy(folder / "012.png", folder / "001.png")
        store.run("extract", check_images=True, workers=0)
    elif change == "split":
        lines = (folder / "dataset.csv").read_text().splitlines()
        (folder / "dataset.csv").write_text("\n".join(line.replace("001.png,train", "001.png,test") for line in lines))
        store.ingest(folder / "dataset.csv")
    straight = copy(store, tmp_path / "straight")
    for path in state_of(straight):
        path.unlink()
    listening = Listening()
    run_stages(context_of(store, listening), Options(stages=("fit_pca",), workers=0))
    straight.run("fit_pca", workers=0)
    assert digests(store, "models/fit_pca/**/*") == digests(straight, "models/fit_pca/**/*")
    again = ["fit_pca begins again: images or the split have changed since it was interrupted"]
    assert listening.said == ([] if change == "nothing" else again)


def spoil(path: Path, how: str) -> None:
    """Take something from a checkpoint."""
    if how == "bytes":
        path.write_bytes(path.read_bytes()[:-100])
        return
    arrays, manifest = read_arrays(path)
    name = how.split()[-1]
    if how.startswith("key"):
        del manifest[name]
    else:
        del arrays[name]
    if how.startswith("old"):  # of a version that wrote no digest of them
        del manifest["arrays"]
    write_arrays(path, arrays, manifest)


SPOILT = ("bytes", "key chunks", "key parent_id", "array images", "array pending", "old array mean_")


@pytest.mark.parametrize("how", SPOILT)
def test_a_checkpoint_that_is_damaged_is_not_gone_on_from(
    interrupted: FeatureStore, straight: dict[str, str], tmp_path: Path, how: str
) -> None:
    store = copy(interrupted, tmp_path / "store")
    (state,) = state_of(store)
    spoil(state, how)
    if how == "array pending":
        assert [problem.kind for problem in store.verify().problems] == ["state"]
    listening = Listening()
    run_stages(context_of(store, listening), Options(stages=("fit_pca",), workers=0))
    (said,) = listening.said
    assert re.fullmatch(r"fit_pca begins again: models/fit_pca/\w+/state\.npz is damaged \(.+\)", said)
    assert digests(store, "models/**/*") == straight


@pytest.mark.parametrize(("seconds", "n_left"), [(3600.0, 4), (0.0, 2)])  # of five
def test_after_many_chunks_there_is_a_checkpoint_from_time_to_time(
    store: FeatureStore, straight: dict[str, str], monkeypatch: pytest.MonkeyPatch, seconds: float, n_left: int
) -> None:
    monkeypatch.setattr(fit_run, "EACH_OF", 1)
    monkeypatch.setattr(fit_run, "CHECKPOINT_SECONDS", seconds)
    with pytest.raises(KeyboardInterrupt):
        run_stages(context_of(store, StopAfter(3)), Options(stages=("fit_pca",), workers=0))
    (summary,) = store.run("fit_pca", workers=0)
    assert summary.n_chunks == n_left
    assert digests(store, "models/**/*") == straight


def test_a_checkpoint_without_a_digest_is_gone_on_from(interrupted: FeatureStore, tmp_path: Path) -> None:
    """As earlier versions wrote it."""
    store = copy(interrupted, tmp_path / "store")
    (state,) = state_of(store)
    arrays, manifest = read_arrays(state)
    del manifest["arrays"]
    write_arrays(state, arrays, manifest)
    (summary,) = store.run("fit_pca", workers=0)
    assert summary.n_chunks == 3  # of five


def test_an_update_learns_of_a_chunk_only_the_image_that_failed_before(images: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(images, tmp_path / "images"))
    (folder / "004.png").rename(folder / "away")
    store = small_store(tmp_path / "store", folder)
    store.run("extract", workers=0)
    store.run("fit_pca", workers=0)
    parent = current_model(store, "fit_pca")
    assert learnt(store, parent.model_id) == [i for i in range(13) if i % 4 != 3 and i != 4]
    (folder / "away").rename(folder / "004.png")
    store.run("extract", retry_failed=True, workers=0)
    (summary,) = store.run("fit_pca", update=True, yes=True, workers=0)
    child = current_model(store, "fit_pca")
    assert (summary.n_chunks, summary.n_images) == (1, 1)
    assert child.summary["n_descriptors"] == parent.summary["n_descriptors"] + 300
    assert learnt(store, child.model_id) == train_images(store)


def test_there_is_nothing_to_update_where_every_image_was_learnt(growing: FeatureStore) -> None:
    listening = Listening()
    assert run_stages(context_of(growing, listening), Options(stages=("fit_pca",), workers=0, update=True)) == []
    assert listening.said == ["fit_pca: the model has seen every image; there is nothing to update"]


def test_an_update_of_unfinished_chunks_says_so_before_it_asks(grown: FeatureStore) -> None:
    asked: list[str] = []
    with pytest.raises(NotReady, match="extract is not up to date for chunk 3; run extract first"):
        grown.run("fit_pca", update=True, workers=0, yes=refusing(asked))
    assert asked == []


def test_a_partial_update_without_a_new_image_makes_no_model(grown: FeatureStore) -> None:
    before = current_model(grown, "fit_pca")
    assert grown.run("fit_pca", update=True, partial=True, yes=True, workers=0) == []
    assert current_model(grown, "fit_pca") == before


def test_too_few_descriptors_are_no_model_and_more_images_make_one(images: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(images, tmp_path / "images"))
    write_dataset(folder, ["filename,subset", "000.png,train", "003.png,test"])
    store = small_store(tmp_path / "store", folder, recipe={"extract": {"sift": {"nfeatures": 10}}})
    configure(store, "fit_pca", n_components=25)
    store.run("extract", workers=0)
    n = rows_of(store, "extract")[0].n_descriptors
    message = (
        f"fit_pca has {n} descriptors of train images to learn 25 components from; it needs at least as many. Check "
        "the split and the failures, or lower n_components in [fit_pca]"
    )
    with pytest.raises(NothingUsable, match=re.escape(message)):
        store.run("fit_pca", workers=0)
    assert state_of(store) == []
    lines = [f"00{number}.png,{'test' if number == 3 else 'train'}" for number in range(6)]
    write_dataset(folder, ["filename,subset", *lines])
    store.ingest()
    assert [summary.stage for summary in store.run(workers=0)] == [
        "extract",
        "fit_pca",
        "project",
        "fit_scale",
        "quantize",
    ]
    assert learnt(store, current_model(store, "fit_pca").model_id) == train_images(store)


def test_without_train_images_the_fit_says_to_check_the_split(images: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(images, tmp_path / "images"))
    write_dataset(folder, ["filename,subset", "000.png,train", "001.png,test"])
    store = small_store(tmp_path / "store", folder)
    change(store.path, "UPDATE images SET subset = 'test'")  # as stores of earlier versions may have it
    message = "fit_pca has 0 descriptors of train images to learn 16.*Check the split"
    with pytest.raises(NothingUsable, match=message) as caught:
        store.run(workers=0)
    assert [stage.missing for stage in store.status().stages if stage.is_fit] == [
        ((f"failed: {caught.value}", ""),),
        (("waits for project", ""),),
    ]


def losing(images: Path, folder: Path, lost: set[int]) -> FeatureStore:
    """Make a store, extracted, of which some images were broken or missing: 10 of 13 are train."""
    folder = Path(shutil.copytree(images, folder / "images"))
    for number in lost:
        path = folder / f"{number:03d}.png"
        path.unlink() if number % 2 else path.write_bytes(b"not an image")
    store = small_store(folder.parent / "store", folder)
    store.run("extract", workers=0)
    return store


@pytest.fixture(scope="module")
def most_lost(images: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """Such a store that lost six train images. Not to be changed."""
    folder = copied(tmp_path_factory, "most-lost", lambda folder: losing(images, folder, {0, 1, 2, 4, 5, 6}))
    return FeatureStore(folder / "store")


def test_a_fit_of_which_most_images_failed_is_refused(most_lost: FeatureStore, tmp_path: Path) -> None:
    store = copy(most_lost, tmp_path / "store")
    with pytest.raises(NotReady) as caught:
        store.run(workers=0)
    assert str(caught.value) == (
        "fit_pca would learn from less than half of its 10 images, since 6 failed (4 unreadable, 2 missing; SELECT * "
        "FROM failures says why). Put that right and run with --retry-failed, or fit without them: featurestore run "
        f"{store.path} fit_pca --partial"
    )
    assert store.sql("SELECT * FROM models").fetchall() == []
    store.run(workers=0, partial=True)
    assert learnt(store, current_model(store, "fit_pca").model_id) == [8, 9, 10, 12]
    assert store.run(workers=0) == []  # models that are there stay


def test_of_every_stage_its_own_images_count(most_lost: FeatureStore, tmp_path: Path) -> None:
    """Of ten train images six failed, of all thirteen that is less than half."""
    store = copy(most_lost, tmp_path / "store")
    store.run("fit_pca", workers=0, partial=True)
    store.run("project", "fit_scale", workers=0)
    configure(store, "fit_scale", over="train")
    with pytest.raises(NotReady, match="fit_scale would learn from less than half of its 10 images, since 6 failed"):
        store.run("fit_scale", workers=0)


def test_half_of_the_images_are_enough(images: Path, tmp_path: Path) -> None:
    store = losing(images, tmp_path, {0, 1, 2, 4, 5, 3, 7, 11})  # the last three are test
    store.run("fit_pca", workers=0)
    assert learnt(store, current_model(store, "fit_pca").model_id) == [6, 8, 9, 10, 12]


def test_an_update_counts_what_its_parent_has_learnt(growing: FeatureStore) -> None:
    """Of the new images nearly all failed; of all those that the model then knows, at first just half."""
    growing_without(growing, range(14, 29), n=16, first=13)
    growing.run("fit_pca", workers=0, update=True, yes=True)
    assert learnt(growing, current_model(growing, "fit_pca").model_id) == train_images(growing)
    growing_without(growing, range(30, 33), n=4, first=29)
    with pytest.raises(NotReady, match=r"less than half of its 25 images, since 13 failed \(13 missing;"):
        growing.run("fit_pca", workers=0, update=True, yes=True)


def growing_without(store: FeatureStore, lost: range, **more: int) -> None:
    """Add pictures to the dataset, of which some are lost before they are extracted."""
    grow(store, **more)
    for number in lost:
        (store.path.parent / "images" / f"{number:03d}.png").unlink()
    store.run("extract", workers=0)


def test_bounds_over_train_images_only(growing: FeatureStore) -> None:
    both = read_arrays(growing.path / current_model(growing, "fit_scale").path)[0]
    configure(growing, "fit_scale", over="train")
    assert [summary.stage for summary in growing.run(workers=0)] == ["fit_scale", "quantize"]
    model = current_model(growing, "fit_scale")
    arrays = read_arrays(growing.path / model.path)[0]
    lows = [row.extra["low"] for row in rows_of(growing, "project") if row.image_id % 4 != 3]
    assert model.n_images == 10
    assert arrays["least_low"].tolist() == np.min(lows, axis=0).tolist()
    assert np.all(arrays["least_low"] >= both["least_low"])
    assert np.any(arrays["least_low"] > both["least_low"])
    assert learnt(growing, model.model_id) == train_images(growing)

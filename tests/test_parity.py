"""The notebook's arithmetic, restated, gives the numbers that the store holds.

The restatement is plain NumPy, OpenCV and scikit-learn over lists of arrays in memory, without anything of the store.
It differs from the notebook where the store does so on purpose:

- What is drawn of an image with more than 1800 descriptors: the notebook calls ``np.random.choice`` without a seed;
  here it is drawn as the store draws it, so that everything after it can be compared exactly.
- Test images are left out of the PCA by their path below the folder of images; the notebook goes by the base name, and
  would leave out a train image because of a test image of the same name in another folder.
- A truncated JPEG, which OpenCV fills up with grey, is refused by the store; such images are left out here too.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from featurestore import FeatureStore
from featurestore.cli.samples import CROPS, ROTATIONS, make_samples
from featurestore.rows import Row
from featurestore.storage import read_arrays
from tests.conftest import LONG
from tests.once import copied
from tests.small import current_model, rows_of, write_dataset

if TYPE_CHECKING:
    from sklearn.decomposition import IncrementalPCA

COMPONENTS = 64
PER_IMAGE = 1800
BATCH = 2000

Matrix = NDArray[Any]


def describe(path: Path) -> Matrix | None:
    """SIFT of a file, float32 n x 128; None if it can't be read or has no keypoints."""
    image = cv2.imread(str(path))
    if image is None:
        return None
    found: Any = cv2.SIFT.create().detectAndCompute(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), None)[1]
    return found if found is None else np.asarray(found)


def draw(descriptors: Matrix, image_id: int) -> Matrix:
    """What the PCA learns of an image."""
    if len(descriptors) <= PER_IMAGE:
        return descriptors
    chosen = np.random.default_rng([0, image_id]).choice(len(descriptors), PER_IMAGE, replace=False)
    return descriptors[chosen]


def batches(samples: Sequence[Matrix]) -> Iterator[Matrix]:
    """Whole images, until there are enough rows; what is left comes last."""
    batch: list[Matrix] = []
    for sample in samples:
        batch.append(sample)
        if sum(len(part) for part in batch) >= BATCH:
            yield np.concatenate(batch)
            batch = []
    if batch:
        yield np.concatenate(batch)


def learn(samples: Sequence[Matrix]) -> IncrementalPCA:
    from sklearn.decomposition import IncrementalPCA  # late: it takes a second of CPU time

    pca = IncrementalPCA(n_components=COMPONENTS)
    for batch in batches(samples):
        pca.partial_fit(batch)
    return pca


def select(descriptors: Matrix, pca: IncrementalPCA) -> Matrix:
    """The projections of largest norm, largest first, float32."""
    projected = pca.transform(descriptors)
    order = np.argsort(np.linalg.norm(projected, axis=1))[::-1]
    strongest: Matrix = projected[order[:PER_IMAGE]].astype(np.float32)
    return strongest


def bounds(selected: Sequence[Matrix]) -> tuple[Matrix, Matrix]:
    """Of every dimension the least 0.1th and the greatest 99.9th percentile of an image, and 1 % of the span beyond."""
    low = np.min([np.percentile(matrix, 0.1, axis=0) for matrix in selected], axis=0)
    high = np.max([np.percentile(matrix, 99.9, axis=0) for matrix in selected], axis=0)
    span = np.where(high - low < 1e-8, 1, high - low)
    return (low - 0.01 * span).astype(np.float32), (high + 0.01 * span).astype(np.float32)


def encode(matrix: Matrix, low: Matrix, high: Matrix) -> Matrix:
    """One byte a value."""
    span = np.where(high == low, 1, high - low)
    return np.rint(255 * np.clip((matrix - low) / span, 0, 1)).astype(np.uint8)


@dataclass(frozen=True)
class Compared:
    """What the store holds and what the restatement makes, image by image, for every image that both accept."""

    store: FeatureStore
    refused: list[str]  # by the store alone
    train: list[int]
    sift: list[tuple[Row, Matrix]]
    pca: IncrementalPCA
    model: dict[str, Matrix]
    selected: list[tuple[Row, Matrix]]
    scale: dict[str, Matrix]
    bounds: tuple[Matrix, Matrix]
    codes: list[tuple[Row, Matrix]]


def compare(store: FeatureStore, images: Path, dataset: Path) -> Compared:
    """Restate everything from the image files on."""
    with dataset.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    theirs = [describe(images / row["filename"]) for row in rows]
    ours = {stage: rows_of(store, stage) for stage in ("extract", "project", "quantize")}
    both = [i for i, row in enumerate(ours["extract"]) if row.status == "ok" and theirs[i] is not None]
    refused = [rows[i]["filename"] for i, found in enumerate(theirs) if found is not None and i not in both]
    sift: dict[int, Matrix] = {i: matrix for i in both if (matrix := theirs[i]) is not None}
    train = [i for i in both if rows[i]["subset"] == "train"]
    with threadpool_limits(1):  # threads of BLAS that wait for each other double the time beside other tests
        pca = learn([draw(sift[i], i) for i in train])
    models = {s: read_arrays(store.path / current_model(store, s).path)[0] for s in ("fit_pca", "fit_scale")}
    # the sign of a component is arbitrary: it is taken from the store's
    signs = np.sign((pca.components_ * models["fit_pca"]["components_"]).sum(axis=1))
    pca.components_ = pca.components_ * signs[:, None]
    selected = {i: select(sift[i], pca) for i in both}
    low, high = bounds(list(selected.values()))
    return Compared(
        store=store,
        refused=refused,
        train=train,
        sift=[(ours["extract"][i], sift[i]) for i in both],
        pca=pca,
        model=models["fit_pca"],
        selected=[(ours["project"][i], selected[i]) for i in both],
        scale=models["fit_scale"],
        bounds=(low, high),
        codes=[(ours["quantize"][i], encode(selected[i], low, high)) for i in both],
    )


def tied(matrix: Matrix) -> NDArray[np.bool_]:
    """Which rows have the norm of a neighbour: their order means nothing. The last may tie with one left out."""
    norms = np.linalg.norm(matrix.astype(np.float64), axis=1)
    same = abs(norms[1:] - norms[:-1]) <= 1e-6 * norms[1:]
    ties: NDArray[np.bool_] = np.append(False, same) | np.append(same, len(matrix) == PER_IMAGE)
    return ties


@pytest.fixture(scope="module")
def paintings(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[FeatureStore, Path, Path]:
    """The 10 smallest of the paintings, or 40 in the long form, in chunks of 4."""
    source = image_folder / "paintings"
    with (source / "dataset.csv").open(encoding="utf-8", newline="") as file:
        subsets = {row["filename"]: row["subset"] for row in csv.DictReader(file)}
    chosen = sorted(subsets, key=lambda name: ((source / name).stat().st_size, name))[: 40 if LONG else 10]

    def make(folder: Path) -> None:
        (folder / "images").mkdir()
        for name in chosen:
            shutil.copy(source / name, folder / "images")
        dataset = write_dataset(folder, ["filename,subset", *(f'"{name}",{subsets[name]}' for name in chosen)])
        create_and_run(folder / "store", folder / "images", dataset)

    folder = copied(tmp_path_factory, "parity-paintings", make)
    return FeatureStore(folder / "store"), folder / "images", folder / "dataset.csv"


def create_and_run(path: Path, images: Path, dataset: Path) -> None:
    FeatureStore.create(path, images=images, dataset=dataset, chunk_size=4).run(workers=0)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> tuple[FeatureStore, Path, Path]:
    """The samples of the demo, in its size, in chunks of 4; a third of them but in the long form."""

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            if not LONG:
                patch.setattr("featurestore.cli.samples.CROPS", {name: CROPS[name] for name in ("whole", "centre")})
                patch.setattr("featurestore.cli.samples.ROTATIONS", {turn: ROTATIONS[turn] for turn in (0, 90)})
            dataset = make_samples(folder / "images")
        create_and_run(folder / "store", folder / "images", dataset)

    folder = copied(tmp_path_factory, "parity-samples", make)
    return FeatureStore(folder / "store"), folder / "images", folder / "images" / "dataset.csv"


@pytest.fixture(scope="module", params=["samples", pytest.param("paintings", marks=pytest.mark.slow)])
def compared(request: pytest.FixtureRequest) -> Compared:
    return compare(*request.getfixturevalue(request.param))


def test_the_comparison_has_in_it_what_it_is_for(compared: Compared) -> None:
    assert compared.store.status().n_chunks >= 3
    sizes = [len(matrix) for _, matrix in compared.sift]
    assert min(sizes) < PER_IMAGE < max(sizes), "images that are drawn from and images that are taken whole"
    assert len(compared.train) < len(compared.sift), "images that are held out"


def test_the_same_images_are_accepted_but_for_truncated_ones(compared: Compared) -> None:
    status = {row.filename: row.status for row in rows_of(compared.store, "extract")}
    assert [status[name] for name in compared.refused] == ["truncated"] * len(compared.refused)
    assert len(compared.sift) + len(compared.refused) >= sum(s not in ("empty", "missing") for s in status.values())


def test_the_same_images_are_learnt(compared: Compared) -> None:
    model_id = current_model(compared.store, "fit_pca").model_id
    found = compared.store.sql(f"SELECT image_id FROM training_images WHERE model_id = '{model_id}' ORDER BY 1")
    assert [image_id for (image_id,) in found.fetchall()] == compared.train


def test_the_descriptors_are_equal(compared: Compared) -> None:
    assert [row.filename for row, theirs in compared.sift if not np.array_equal(row.descriptors, theirs)] == []  # type: ignore[arg-type]


def test_the_pca_is_the_same(compared: Compared) -> None:
    pca, model = compared.pca, compared.model
    assert pca.n_samples_seen_ == model["n_samples_seen_"]
    np.testing.assert_allclose(model["components_"], pca.components_, rtol=0, atol=1e-4)
    np.testing.assert_allclose(model["mean_"], pca.mean_, rtol=0, atol=1e-4)
    np.testing.assert_allclose(model["var_"], pca.var_, rtol=1e-4)
    np.testing.assert_allclose(model["singular_values_"], pca.singular_values_, rtol=1e-4)
    summary = current_model(compared.store, "fit_pca").summary
    assert summary["explained_variance_ratio"] == pytest.approx(pca.explained_variance_ratio_.sum(), abs=1e-6)


def test_the_same_descriptors_are_selected_but_for_ties(compared: Compared) -> None:
    n_tied = 0
    for row, theirs in compared.selected:
        assert row.descriptors is not None
        assert row.descriptors.shape == theirs.shape
        assert row.descriptors.dtype == np.float32
        norms = np.linalg.norm(row.descriptors, axis=1)
        np.testing.assert_allclose(norms, np.linalg.norm(theirs, axis=1), rtol=1e-4)
        ties = tied(theirs)
        n_tied += int(ties.sum())
        np.testing.assert_allclose(row.descriptors[~ties], theirs[~ties], rtol=0, atol=0.05, err_msg=row.filename)
    assert n_tied < 0.05 * sum(len(theirs) for _, theirs in compared.selected), "too little was compared"


def test_the_bounds_are_the_same(compared: Compared) -> None:
    low, high = compared.bounds
    span = high - low
    assert np.all(abs(compared.scale["low"] - low) <= 1e-4 * span)
    assert np.all(abs(compared.scale["high"] - high) <= 1e-4 * span)


def test_the_codes_are_equal_but_for_one_in_a_thousand_and_never_off_by_more_than_one(compared: Compared) -> None:
    n_bytes = n_equal = worst = 0
    for (row, theirs), (_, selected) in zip(compared.codes, compared.selected, strict=True):
        assert row.descriptors is not None
        assert row.descriptors.dtype == np.uint8
        ties = tied(selected)
        difference = abs(row.descriptors[~ties].astype(int) - theirs[~ties])
        n_bytes += difference.size
        n_equal += int((difference == 0).sum())
        worst = max(worst, int(difference.max()))
    assert n_equal >= 0.999 * n_bytes
    assert worst <= 1

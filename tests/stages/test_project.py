from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from featurestore.errors import ConfigError, NotReady
from featurestore.rows import KEYPOINT, Layout, Row
from featurestore.stages import flow_from
from featurestore.stages.fit_pca import FitPca
from featurestore.stages.project import BLOCK, KERNELS, SHAPE, Project, blocks, project, strongest
from featurestore.system import blas_kernels
from tests.conftest import LONG

IDENTITY = {"components_": np.eye(3), "mean_": np.zeros(3)}


def image(descriptors: Any, *, keypoints: bool = True, dtype: str = "uint8") -> Row:
    """A row whose keypoints have their number as x."""
    matrix = np.asarray(descriptors, dtype)
    numbered = np.zeros(len(matrix), KEYPOINT)
    numbered["x"] = range(len(matrix))
    return Row(7, "a.jpg", "ok", None, matrix, numbered if keypoints else None)


def kept(row: Row) -> list[int]:
    """Which keypoints a row of `image` still has, in order."""
    assert row.keypoints is not None
    return [int(x) for x in row.keypoints["x"]]


def random_model(rng: np.random.Generator, dim: int = 128, n_components: int = 8) -> dict[str, NDArray[Any]]:
    basis, _ = np.linalg.qr(rng.normal(size=(dim, n_components)))
    return {"components_": np.ascontiguousarray(basis.T), "mean_": rng.normal(size=dim) * 20}


def test_the_largest_norms_come_first_and_their_keypoints_with_them() -> None:
    row = Project(top=2).transform(image([[1, 0, 0], [0, 3, 0], [0, 0, 2]]), IDENTITY)
    assert row.descriptors is not None
    assert row.descriptors.dtype == np.float32
    assert row.descriptors.tolist() == [[0, 3, 0], [0, 0, 2]]
    assert kept(row) == [1, 2]
    assert (row.image_id, row.filename, row.status) == (7, "a.jpg", "ok")


def test_the_norm_is_that_of_the_projection_not_of_the_descriptor() -> None:
    model = {"components_": np.array([[1.0, 0, 0]]), "mean_": np.array([10.0, 0, 0])}
    row = Project(top=2).transform(image([[10, 200, 0], [0, 0, 0], [12, 0, 0]]), model)
    assert row.descriptors is not None
    assert row.descriptors.tolist() == [[-10], [2]]
    assert kept(row) == [1, 2]


def test_ties_are_broken_by_keypoint_order() -> None:
    descriptors = [[5, 0, 0]] * 3 + [[9, 0, 0]] + [[0, 5, 0]] * 3
    assert kept(Project(top=5).transform(image(descriptors), IDENTITY)) == [3, 0, 1, 2, 4]


@given(norms=st.lists(st.integers(0, 5), min_size=1, max_size=60), top=st.integers(1, 70))
def test_strongest_is_a_stable_sort(norms: list[int], top: int) -> None:
    expected = sorted(range(len(norms)), key=lambda i: (-norms[i], i))[:top]
    assert strongest(np.array(norms, float).reshape(-1, 1), top).tolist() == expected


@given(
    n=st.integers(1, 200),
    top=st.integers(1, 220),
    scale=st.sampled_from([1e-300, 1e-160, 1e-140, 1, 1e6, 1e150, 1e200]),
    apart=st.sampled_from([0, 1e-16, 1e-15, 1e-14, 1e-12, 1e-6, 1]),
    n_equal=st.sampled_from([0, 0, 2, 50]),
    seed=st.integers(0, 9),
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_strongest_is_the_order_of_the_norms_whatever_lies_between_them(
    n: int, top: int, scale: float, apart: float, n_equal: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    row = rng.normal(size=64)
    turned = rng.permuted(np.tile(row, (n, 1)), axis=1)  # of equal norm, but for what adding in another order changes
    rows = turned * scale * (1 + apart * rng.normal(size=(n, 1)))
    rows[rng.integers(0, n, n_equal)] = rows[0]
    expected = np.argsort(-np.linalg.norm(rows, axis=1), kind="stable")[:top]
    assert strongest(rows, top).tolist() == expected.tolist()


def test_norms_that_differ_by_rounding_alone_decide_themselves() -> None:
    rng, n_rounded = np.random.default_rng(0), 0
    for _ in range(500):
        rows = rng.permuted(np.tile(rng.normal(size=64), (3, 1)), axis=1)
        norms = np.linalg.norm(rows, axis=1)
        assert strongest(rows, 3).tolist() == np.argsort(-norms, kind="stable").tolist()
        n_rounded += len(set(norms.tolist())) > 1
    assert n_rounded > 100, "the order of adding up matters"


def test_norms_that_are_apart_are_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).normal(size=(4000, 64)) * 40
    expected = np.argsort(-np.linalg.norm(rows, axis=1), kind="stable")[:1800]
    monkeypatch.delattr(np.linalg, "norm")
    assert strongest(rows, 1800).tolist() == expected.tolist()


def test_fewer_descriptors_than_are_kept() -> None:
    row = Project(top=1800).transform(image([[1, 0, 0], [2, 0, 0]]), IDENTITY)
    assert row.n_descriptors == 2
    assert kept(row) == [1, 0]


def test_an_image_of_one_descriptor() -> None:
    row = Project().transform(image([[1, 2, 3]]), IDENTITY)
    assert row.descriptors is not None
    assert row.descriptors.tolist() == [[1, 2, 3]]
    assert row.extra["low"].tolist() == row.extra["high"].tolist() == [1, 2, 3]


def test_without_keypoints_there_are_none_afterwards() -> None:
    row = Project(top=1).transform(image([[1, 0, 0], [2, 0, 0]], keypoints=False), IDENTITY)
    assert row.keypoints is None
    assert row.n_descriptors == 1


@pytest.mark.parametrize(
    ("select", "expected"), [("scale", [1, 2]), ("response", [0, 1]), ("mix", [1, 0]), ("grid", [0, 1])]
)
def test_a_selection_by_keypoints_keeps_descriptors_and_keypoints_in_its_order(
    select: Any, expected: list[int]
) -> None:
    row = image([[1, 0, 0], [2, 0, 0], [3, 0, 0]])
    assert row.keypoints is not None
    row.keypoints["size"], row.keypoints["response"] = [1, 9, 5], [0.3, 0.2, 0.1]
    made = Project(top=2, select=select).transform(row, IDENTITY)
    assert kept(made) == expected
    assert made.descriptors is not None
    assert made.descriptors[:, 0].tolist() == [i + 1 for i in expected]
    assert made.extra["high"][0] == pytest.approx(max(expected) + 1, abs=0.01), "the percentiles are those of the kept"


def test_a_selection_by_keypoints_needs_them() -> None:
    with pytest.raises(NotReady, match=r"'a.jpg' have no keypoints, .* select = \"scale\" in \[project\]"):
        Project(select="scale").transform(image([[1, 0, 0]], keypoints=False), IDENTITY)


@pytest.mark.parametrize("status", ["empty", "unreadable", "crashed"])
def test_an_image_without_descriptors_goes_on_as_it_is(status: str) -> None:
    row = Row(3, "b.jpg", status, "why", extra={"width": 4})
    assert Project().transform(row, IDENTITY) == Row(3, "b.jpg", status, "why")


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_it_is_what_scikit_learn_makes_of_them(dtype: str) -> None:
    from sklearn.decomposition import IncrementalPCA

    rng = np.random.default_rng(0)
    descriptors = rng.integers(0, 256, (500, 128)).astype(dtype)
    estimator = IncrementalPCA(n_components=64)
    for batch in np.array_split(descriptors.astype(np.float32), 2):
        estimator.partial_fit(batch)
    model = {"components_": estimator.components_, "mean_": estimator.mean_}
    expected = estimator.transform(descriptors.astype(np.float32))
    np.testing.assert_allclose(project(descriptors, model), expected, rtol=0, atol=1e-9)


def test_the_percentiles_are_those_of_the_selection_as_it_is_stored() -> None:
    rng = np.random.default_rng(1)
    stage = Project(top=300, low_percentile=1.5, high_percentile=97.0)
    row = stage.transform(image(rng.integers(0, 256, (700, 128))), random_model(rng))
    assert row.descriptors is not None
    assert row.descriptors.shape == (300, 8)
    assert np.array_equal(row.extra["low"], np.percentile(row.descriptors, 1.5, axis=0))
    assert np.array_equal(row.extra["high"], np.percentile(row.descriptors, 97.0, axis=0))
    assert row.extra["low"].dtype == row.extra["high"].dtype == np.float32, "what is stored is what was computed"


def test_the_layout_follows_the_model_and_what_is_read() -> None:
    layout = Project().layout(Layout(dim=128, dtype="uint8", keypoints=False), FitPca(n_components=5))
    assert (layout.dim, layout.dtype, layout.keypoints) == (5, "float32", False)
    assert [name for name, _ in layout.extra] == ["low", "high"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"low_percentile": 99.0, "high_percentile": 1.0}, r"\[project\] low_percentile 99.0 is not below high_perc"),
        ({"low_percentile": 50, "high_percentile": 50}, "low_percentile 50.0 is not below high_percentile 50.0"),
        ({"high_percentile": 101.0}, r"\[project\] high_percentile is 101.0, and should be at least 0 and at most 100"),
        ({"select": "size"}, r"\[project\] select is 'size', and can be norm or scale or response or mix or grid"),
        ({"top": 0}, r"\[project\] top is 0, and should be at least 1"),
    ],
)
def test_parameters_that_make_no_sense(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        flow_from({"project": table})


COMPARE = """
import json, sys
import numpy as np
from featurestore.stages.project import SHAPE, blocks
from featurestore.system import blas_kernels

step = int(sys.argv[1])
rng = np.random.default_rng(0)
dim, n_components = SHAPE
turned = np.linalg.qr(rng.normal(size=SHAPE))[0].T.copy().T
values = rng.integers(0, 256, (5000, dim)).astype(np.float64)
differ, n_parted = [], 0
for n in range(1, 5001, step):
    whole, parts = values[:n] @ turned, blocks(n, SHAPE)
    n_parted += len(parts) > 1
    if b"".join((values[part].copy() @ turned).tobytes() for part in parts) != whole.tobytes():
        differ.append(n)
print(json.dumps([sorted(blas_kernels()), n_parted, differ]))
"""


@pytest.mark.skipif(not blas_kernels() or bool(blas_kernels() - KERNELS), reason="images are projected at once")
@pytest.mark.parametrize("kernel", ["SkylakeX", "Haswell", "Zen", "Sandybridge", "Nehalem", "Katmai"])
def test_products_of_blocks_have_the_bits_of_one_product_on_each_kernel_of_openblas(kernel: str) -> None:
    environment = {**os.environ, "OPENBLAS_CORETYPE": kernel, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", COMPARE, "1" if LONG else "49"]  # of 49: each remainder of 48, and then again
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == -signal.SIGILL:
        pytest.skip(f"the processor does not have the instructions of {kernel}")
    loaded, n_parted, differ = json.loads(done.stdout)
    assert set(loaded) <= KERNELS
    assert n_parted > 80
    assert differ == []


def test_blocks_are_large_and_have_every_row_once() -> None:
    for n in [1, BLOCK, 2 * BLOCK - 1, 2 * BLOCK, 2 * BLOCK + 1, 3 * BLOCK - 1, 3 * BLOCK, 5000]:
        found = blocks(n, SHAPE)
        assert [i for part in found for i in range(n)[part]] == list(range(n))
        assert all(part.start % BLOCK == 0 for part in found)
        assert len(found) == 1 or all(BLOCK <= part.stop - part.start < 2 * BLOCK for part in found)


@pytest.mark.parametrize("kernels", [set(), {"neoversen1"}, {"Haswell", "neoversen1"}])
def test_an_image_is_projected_at_once_on_other_kernels(monkeypatch: pytest.MonkeyPatch, kernels: set[str]) -> None:
    monkeypatch.setattr("featurestore.stages.project.blas_kernels", lambda: kernels)
    assert blocks(5000, SHAPE) == [slice(0, 5000)]


def test_an_image_is_projected_at_once_by_components_of_another_shape() -> None:
    assert blocks(5000, (128, 32)) == [slice(0, 5000)]


@pytest.mark.parametrize("n_equal", [0, 3])
def test_a_large_image_has_the_values_and_the_order_of_one_product(n_equal: int) -> None:
    rng = np.random.default_rng(1)
    model = random_model(rng, n_components=64)
    descriptors = rng.integers(0, 256, (3000, 128)).astype(np.uint8)
    descriptors[1000 : 1000 + n_equal] = descriptors[0]
    row = Project(top=2900).transform(image(descriptors), model)
    projected = project(descriptors, model)
    order = np.argsort(-np.linalg.norm(projected, axis=1), kind="stable")[:2900]
    assert row.descriptors is not None
    assert row.descriptors.tobytes() == projected[order].astype(np.float32).tobytes()
    assert kept(row) == order.tolist()

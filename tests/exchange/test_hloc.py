"""A file of features is what hloc reads: keypoints where COLMAP has them, descriptors that its matcher compares."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from featurestore import FeatureStore
from featurestore.errors import MissingDependency, NotEnoughSpace, QueryError
from featurestore.exchange.exporters import hloc
from tests.broken_images import picture, saved
from tests.exchange.test_colmap import features, make_views
from tests.faults import largest_file
from tests.once import copied
from tests.small import invoke, rows_of

h5py = pytest.importorskip("h5py")
NAMES = ["a b/turned.png", "exif.png", "flat.png", "view.png"]


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """The store of the tests of COLMAP. Not to be changed."""
    return FeatureStore(copied(tmp_path_factory, "colmap-views", make_views) / "store")


@pytest.fixture(scope="module")
def exported(views: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hloc") / "features.h5"
    views.export(path, "hloc")
    return path


def names_in(file: Any) -> list[str]:
    """The images of a file, as hloc lists them: the groups above datasets."""
    found: set[str] = set()
    file.visititems(lambda _, one: found.add(one.parent.name.strip("/")) if isinstance(one, h5py.Dataset) else None)
    return sorted(found)


def test_an_image_has_what_hloc_reads(exported: Path, views: FeatureStore) -> None:
    rows = {row.filename: row for row in rows_of(views, "extract")}
    with h5py.File(exported) as file:
        assert names_in(file) == NAMES
        for name in NAMES:
            n, group = rows[name].n_descriptors, file[name]
            shapes = {key: (value.shape, value.dtype.name) for key, value in group.items()}
            assert shapes == {
                "keypoints": ((n, 2), "float32"),
                "descriptors": ((128, n), "float16"),
                "scores": ((n,), "float32"),
                "scales": ((n,), "float32"),
                "oris": ((n,), "float32"),
                "image_size": ((2,), "int64"),
            }
            assert group["keypoints"].attrs["uncertainty"] == 1
        assert file["exif.png"]["image_size"][()].tolist() == [320, 240]
        view, keypoints = file["view.png"], rows["view.png"].keypoints
        assert keypoints is not None
        np.testing.assert_array_equal(view["scores"], keypoints["response"])
        np.testing.assert_allclose(view["keypoints"][:, 0], keypoints["x"] - 0.25, rtol=1e-5)


def test_keypoints_are_those_of_colmap_after_hloc_has_added_its_half_pixel(
    views: FeatureStore, exported: Path, tmp_path: Path
) -> None:
    views.export(tmp_path / "colmap.db", "colmap")
    expected = features(tmp_path / "colmap.db")
    with h5py.File(exported) as file:
        for name in NAMES:
            np.testing.assert_allclose(file[name]["keypoints"][()] + 0.5, expected[name][0][:, :2], rtol=1e-5)
            np.testing.assert_allclose(np.radians(file[name]["oris"]), expected[name][0][:, 3], rtol=1e-5, atol=1e-5)


def test_descriptors_are_rootsift_of_unit_length(exported: Path) -> None:
    with h5py.File(exported) as file:
        one, other = (file[name]["descriptors"][()].astype(np.float32) for name in ("view.png", "exif.png"))
        points = [file[name]["keypoints"][()] for name in ("view.png", "exif.png")]
    np.testing.assert_allclose(np.linalg.norm(one, axis=0), 1, atol=1e-3)
    near = one.T @ other  # hloc's matcher: the dot product is the cosine
    best = near.argmax(axis=1)
    mutual = near.argmax(axis=0)[best] == np.arange(len(best))
    away = np.abs(points[0] - points[1][best]).max(axis=1)
    assert np.mean(away[mutual & (near.max(axis=1) > 0.98)] < 0.1) > 0.9


def test_a_tiff_is_turned_as_hloc_sees_it(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # by 180 degrees
    path = tmp_path / "images" / "turned.tif"
    path.parent.mkdir()
    path.write_bytes(saved("TIFF", Image.fromarray(picture()), exif=exif))
    shown, asked = (cv2.imread(str(path), cv2.IMREAD_COLOR | flag) for flag in (0, cv2.IMREAD_IGNORE_ORIENTATION))
    assert shown is not None
    assert asked is not None
    np.testing.assert_array_equal(shown, asked, "hloc asks OpenCV not to turn pictures, and gets it turned")
    store = FeatureStore.create(tmp_path / "store", images=path.parent)
    store.run("extract", workers=0)
    store.export(tmp_path / "out.h5", "hloc")
    ((row,), file) = rows_of(store, "extract"), h5py.File(tmp_path / "out.h5")
    with file:
        assert row.keypoints is not None
        np.testing.assert_allclose(file["turned.tif"]["keypoints"][:, 0], row.keypoints["x"] - 0.25, rtol=1e-5)


def test_only_the_strongest_of_too_many_are_written(
    views: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hloc, "MOST", 100)
    result = invoke("export", views.path, tmp_path / "few.h5", "--format", "hloc", "--where", "filename = 'view.png'")
    assert "hloc takes 100 keypoints of an image: of 1 image only the strongest are written" in result.output
    (row,) = (row for row in rows_of(views, "extract") if row.filename == "view.png")
    assert row.keypoints is not None
    with h5py.File(tmp_path / "few.h5") as file:
        scores = file["view.png"]["scores"][()]
        assert file["view.png"]["descriptors"].shape == (128, 100)
    np.testing.assert_array_equal(np.sort(scores), np.sort(row.keypoints["response"])[-100:])


def test_codes_are_refused(finished: FeatureStore, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match=r"^hloc holds descriptors of extract, and none of quantize; choose them with"):
        finished.export(tmp_path / "out.h5", "hloc", stage="quantize")


def test_without_h5py(views: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingDependency, match=r"pip install 'featurestore\[hloc\]'"):
        views.export(tmp_path / "out.h5", "hloc")


def test_a_full_disk_is_one_line(
    views: FeatureStore,
    exported: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Wherever the disk is full, h5py prints nothing, and HDF5 still works in this process."""
    original, out, size = hloc._file, tmp_path / "out.h5", exported.stat().st_size
    for limit in (50_000, size - 3000, size - 500, size - 1):

        @contextmanager
        def limited(path: Path, limit: int = limit) -> Iterator[Any]:
            with largest_file(limit), original(path) as file:
                yield file

        monkeypatch.setattr(hloc, "_file", limited)
        with pytest.raises(NotEnoughSpace, match=rf"^File too large: {re.escape(str(out))} could not be written"):
            views.export(out, "hloc")
        assert os.listdir(tmp_path) == []  # noqa: PTH208
        assert capfd.readouterr().err == ""
    monkeypatch.undo()
    views.export(out, "hloc")
    with h5py.File(out) as file:
        assert names_in(file) == NAMES

"""A model is read exactly as it was written, is named by its content, and can't run code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.errors import CorruptFile, FormatError
from featurestore.storage import from_bitmap, model_id, read_arrays, to_bitmap, write_arrays

ARRAYS: dict[str, Any] = {
    "components_": np.random.default_rng(0).normal(size=(3, 5)),
    "mean_": np.array([0.1, np.nan, -np.inf, 1e-320], np.float64),
    "low": np.linspace(0, 1, 7, dtype=np.float32),
    "n_samples_seen_": np.array(12),
    "pending": np.empty((0, 128), np.uint8),
    "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "flags": np.array([True, False]),
}


def test_arrays_are_read_exactly(tmp_path: Path) -> None:
    write_arrays(tmp_path / "m.npz", ARRAYS, {"stage": "fit_pca", "what": "Gemälde"})
    arrays, manifest = read_arrays(tmp_path / "m.npz")
    assert manifest == {"format": 1, "stage": "fit_pca", "what": "Gemälde"}
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert (arrays[name].dtype, arrays[name].shape) == (array.dtype, array.shape), name
        assert arrays[name].tobytes() == np.ascontiguousarray(array).tobytes(), name
    assert model_id("v", arrays) == model_id("v", ARRAYS)


def test_the_same_arrays_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "other"):
        write_arrays(tmp_path / name, ARRAYS, {"b": 1, "a": 2} if name == "one" else {"a": 2, "b": 1})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_the_name_is_the_content() -> None:
    base = {"a": np.arange(6.0), "b": np.zeros(2, np.float32)}
    reordered = {"b": base["b"], "a": base["a"]}
    others = [
        {**base, "a": np.nextafter(np.arange(6.0), 9)},
        {**base, "a": np.arange(6)},
        {**base, "a": np.arange(6.0).reshape(2, 3)},
        {**base, "a": np.arange(6.0).reshape(3, 2)},
        {"a": base["a"], "c": base["b"]},
        {"a": base["a"]},
        {**base, "c": np.empty(0)},
        {**base, "b": np.zeros(2, np.int32)},
    ]
    assert model_id("v", reordered) == model_id("v", base) == model_id("v", dict(base))
    found = {model_id("v", base), model_id("w", base), *(model_id("v", other) for other in others)}
    assert len(found) == 2 + len(others)
    assert all(len(name) == 16 for name in found)


class Trap:
    """What a pickle of it would do."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("sprung",)


def test_a_pickle_is_never_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "m.npz").open("wb") as file:
        np.savez(file, manifest=np.zeros(2, np.uint8), trap=np.array([Trap()], dtype=object))
    with pytest.raises(CorruptFile, match=r"^m.npz can't be read as a model \(it holds an array of object "):
        read_arrays(tmp_path / "m.npz")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("keep", [0, 10, -1, -30])
def test_a_file_that_ends_early_is_damaged(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "m.npz"
    write_arrays(path, ARRAYS, {})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CorruptFile, match=r"^m.npz can't be read as a model \(.+\)$"):
        read_arrays(path)


def test_changed_bytes_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    write_arrays(path, {"a": np.random.default_rng(0).integers(0, 256, 500, np.uint8)}, {})
    data = bytearray(path.read_bytes())
    place = data.index(b"a.npy") + 300
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptFile, match=r"^m.npz can't be read as a model \("):
        read_arrays(path)


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorruptFile, match=r"^m.npz can't be read as a model \(.*No such file"):
        read_arrays(tmp_path / "m.npz")


def test_arrays_of_another_program_are_no_model(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", a=np.zeros(3))
    with pytest.raises(CorruptFile, match=r"^m.npz can't be read as a model \('manifest'\)$"):
        read_arrays(tmp_path / "m.npz")


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    write_arrays(tmp_path / "m.npz", {}, {"format": 2})
    with pytest.raises(
        FormatError, match=r"^m.npz is of model format 2, and this version knows 1; use a newer featurestore$"
    ):
        read_arrays(tmp_path / "m.npz")


@settings(deadline=None, database=None)
@given(ids=st.sets(st.integers(0, 2000)))
def test_images_survive_the_bitmap(ids: set[int]) -> None:
    bitmap = to_bitmap(np.array(sorted(ids), np.int64))
    assert bitmap.dtype == np.uint8
    assert len(bitmap) == (max(ids) // 8 + 1 if ids else 0)
    assert from_bitmap(bitmap).tolist() == sorted(ids)


def test_ten_million_images_are_a_megabyte() -> None:
    assert to_bitmap(np.array([0, 9_999_999])).nbytes == 1_250_000

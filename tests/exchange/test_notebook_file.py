"""The notebook's files are read as data: what is in them is got out exactly, and what could run does not."""

from __future__ import annotations

import io
import os
import pickle
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from featurestore.errors import CorruptFile, DatasetError
from featurestore.exchange.importers import pickle_reader as unpickle
from featurestore.exchange.importers.notebook_file import NotebookFile
from featurestore.exchange.importers.pickle_reader import Bounded, read_objects
from tests.notebook import write_chunk


def sift(n: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).integers(0, 256, (n, 128)).astype(np.float32)


def save(path: Path, descriptors: Any, filenames: Any) -> NotebookFile:
    np.savez_compressed(path, descriptors_list=descriptors, filenames=filenames)
    return NotebookFile(path)


def as_objects(values: list[Any]) -> NDArray[Any]:
    """One dimension, whatever the values are."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def check(file: NotebookFile, names: list[str], descriptors: list[NDArray[Any] | None]) -> None:
    assert file.filenames() == names
    found = list(file.descriptors(names))
    assert [one is None for one in found] == [one is None for one in descriptors]
    for one, other in zip(found, descriptors, strict=True):
        np.testing.assert_array_equal(one, other) if other is not None else None


def names(n: int) -> list[str]:
    return [f"monet/lilies-{i}.jpg" for i in range(n)]


SEVERAL: dict[str, list[NDArray[Any] | None]] = {
    "different": [sift(2), None, sift(3), np.empty((0, 128), np.float32)],
    "equal shapes, which NumPy makes three-dimensional": [sift(4, 1), sift(4, 2), sift(4, 3)],
    "one image": [sift(5)],
    "one descriptor each": [sift(1, 1), sift(1, 2)],
    "nothing found": [None, None],
    "more than a batch of the pickle": [sift(2, i) if i % 3 else None for i in range(2100)],
    "exactly one more than a batch": [*(sift(1 + i % 2, i) for i in range(1000)), None],
    "the same numbers twice": [sift(2), sift(2), sift(3)],
}


@pytest.mark.parametrize("case", SEVERAL)
def test_what_numpy_wrote_is_read(tmp_path: Path, case: str) -> None:
    images = SEVERAL[case]
    check(
        NotebookFile(write_chunk(tmp_path, list(zip(names(len(images)), images, strict=True)))),
        names(len(images)),
        images,
    )


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("case", ["different", "equal shapes, which NumPy makes three-dimensional"])
def test_older_pickles(protocol: int, case: str) -> None:
    array = np.array(SEVERAL[case], dtype=object)
    data = pickle.dumps(array, protocol=protocol)
    found = list(read_objects(Bounded(io.BytesIO(data), len(data)), array.shape))
    for one, other in zip(found, array.ravel().tolist(), strict=True):
        np.testing.assert_array_equal(one, other)


NONE = np.empty((0, 128), np.float32)
NO_KEYPOINTS: dict[str, tuple[Any, list[NDArray[Any] | None]]] = {
    "an empty array": (as_objects([sift(2), np.array([], np.float32), sift(1)]), [sift(2), NONE, sift(1)]),
    "an empty array of floats": (as_objects([np.array([]), sift(2)]), [NONE, sift(2)]),
    "no rows": (as_objects([np.empty((0, 128), np.float32), sift(2)]), [NONE, sift(2)]),
    "an empty list": (as_objects([sift(2), [], None, []]), [sift(2), NONE, None, NONE]),
    "one empty list": (as_objects([[]]), [NONE]),
    "an empty list after a full batch": (as_objects([*[None] * 1000, []]), [*[None] * 1000, NONE]),
    "the same empty list twice": (as_objects([[]] * 3), [NONE] * 3),
    "nothing but empty lists": (np.array([[], []], object), [NONE, NONE]),
    "nothing but empty arrays": (np.array([np.array([]), np.array([])]), [NONE, NONE]),
    "no image": (np.array([]), []),
    "no image, of objects": (as_objects([]), []),
}


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("case", NO_KEYPOINTS)
def test_an_image_without_keypoints_has_no_rows(tmp_path: Path, case: str, protocol: int) -> None:
    array, expected = NO_KEYPOINTS[case]
    described = header(array.dtype.str, array.shape)
    data = described + (pickle.dumps(array, protocol=protocol) if array.dtype.hasobject else array.tobytes())
    titles = np.array(names(len(expected)) or [])  # of an empty list NumPy makes numbers
    file = with_members(tmp_path / "f.npz", descriptors_list=data, filenames=npy(titles))
    check(file, names(len(expected)), expected)


@pytest.mark.parametrize(
    "lists", [[[1.0]], [[1.0, 2.0]], [[], [1.0]], [None, [1.0]], [[1.0], None], [*[None] * 1000, [1.0]], [[[]]]]
)
def test_lists_that_hold_something_are_refused(tmp_path: Path, lists: list[Any]) -> None:
    file = save(tmp_path / "f.npz", as_objects(lists), np.array(names(len(lists))))
    with pytest.raises(CorruptFile, match=r"it holds lists, at the image 'monet/lilies-\d+\.jpg'"):
        list(file.descriptors(names(len(lists))))


def test_a_file_of_protocol_2_takes_the_memory_of_one_image() -> None:
    array = as_objects([sift(20_000, i) for i in range(8)])
    data = pickle.dumps(array, protocol=2)
    with memory() as most:
        assert sum(len(one) for one in read_objects(Bounded(io.BytesIO(data), len(data)), array.shape)) == 160_000
    assert most() < 8 * array[0].nbytes  # of all there would be three times as much


def test_old_names_of_numpy_are_known() -> None:
    array = as_objects([sift(2), None])
    data = pickle.dumps(array, protocol=3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    found = list(read_objects(Bounded(io.BytesIO(data), len(data)), array.shape))
    np.testing.assert_array_equal(found[0], sift(2))


@pytest.mark.parametrize(
    ("form", "make"),
    [
        ("text", np.array),
        ("objects", lambda texts: np.array(texts, dtype=object)),
        ("objects of NumPy's text", lambda texts: as_objects([np.str_(text) for text in texts])),
        ("bytes", lambda texts: np.array([text.encode() for text in texts])),
        ("objects of bytes", lambda texts: as_objects([text.encode() for text in texts])),
        ("objects of NumPy's bytes", lambda texts: as_objects([np.bytes_(text.encode()) for text in texts])),
        ("one object many times", lambda texts: as_objects([texts[0]] * len(texts))),
    ],
)
def test_filenames(tmp_path: Path, form: str, make: Callable[[list[str]], NDArray[Any]]) -> None:
    texts = ["a.jpg", "mönet/ß.jpg", "很/长.jpg"]
    file = save(tmp_path / "f.npz", as_objects([None] * 3), make(texts))
    assert file.filenames() == ([texts[0]] * 3 if form.startswith("one") else texts)


def test_names_of_another_encoding_are_refused(tmp_path: Path) -> None:
    file = save(tmp_path / "f.npz", as_objects([None]), np.array(["ä.jpg".encode("latin1")]))
    with pytest.raises(CorruptFile, match=r"filenames holds the bytes b'\\xe4\.jpg', which are not UTF-8"):
        file.filenames()


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "u1", "<i8"])
@pytest.mark.parametrize("objects", [True, False])
def test_every_kind_of_number(tmp_path: Path, dtype: str, objects: bool) -> None:
    images: list[NDArray[Any] | None] = [sift(3, i).astype(dtype) for i in range(2)]
    array = as_objects(images) if objects else np.stack([one for one in images if one is not None])
    check(save(tmp_path / "f.npz", array, np.array(names(2))), names(2), images)


def test_columns_first(tmp_path: Path) -> None:
    check(save(tmp_path / "f.npz", as_objects([np.asfortranarray(sift(3))]), np.array(["a"])), ["a"], [sift(3)])


@contextmanager
def memory() -> Iterator[Callable[[], int]]:
    """Yield a function that tells the most that was allocated within, in bytes."""
    peak = 0
    tracemalloc.start()
    try:
        yield lambda: peak
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# What must not be run, and how it would be made to.


class Calls:
    """Pickles as a call of ``function``."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def attacks(mark: Path) -> dict[str, Any]:
    return {
        "os.system": Calls(os.system, f"touch {mark}"),
        "builtins.eval": Calls(eval, f"open({str(mark)!r}, 'w')"),
        "builtins.exec": Calls(exec, f"open({str(mark)!r}, 'w')"),
        "builtins.getattr": Calls(getattr, "os", "system"),
        "numpy.load": Calls(np.load, str(mark)),
        "numpy.save": Calls(np.save, str(mark), np.zeros(1)),
        "numpy.fromfile": Calls(np.fromfile, str(mark)),
        "numpy.memmap": Calls(np.memmap, str(mark), "uint8", "w+", 0, (8,)),
        "numpy.lib": Calls(np.lib.format.open_memmap, str(mark)),
        "pathlib": Path("a"),
        "a plain dictionary": {},
        "a set": {1},
        "a list": [sift(1)],
        "an array of objects": as_objects([sift(1), None]),
        "an array of records": np.zeros(2, [("a", "f4")]),
        "an array of dates": np.zeros(2, "M8[s]"),
        "a date": np.datetime64("2020-01-01"),
        "bytes": b"123",
        "text": "text",
        "a tuple": (1, 2),
        "a number": 3.5,
        "an array of one dimension": np.zeros(128, np.float32),
    }


TEXTS = ("text", "bytes")


@pytest.mark.parametrize(
    ("member", "attack"),
    # text and bytes are what filenames are
    [(m, a) for a in attacks(Path("x")) for m in ("descriptors", "filenames") if m != "filenames" or a not in TEXTS],
)
def test_nothing_is_run_and_nothing_else_is_read(tmp_path: Path, member: str, attack: str) -> None:
    mark = tmp_path / "it-ran"
    bad, good = as_objects([attacks(mark)[attack]]), as_objects(["a"] if member == "descriptors" else [None])
    file = save(tmp_path / "f.npz", *((bad, good) if member == "descriptors" else (good, bad)))
    with pytest.raises(CorruptFile, match=r"^f\.npz can't be read .* Nothing in it was run; put back a copy"):
        list(file.descriptors(["a.jpg"])) if member == "descriptors" else file.filenames()
    assert not mark.exists()


def test_an_object_in_the_array_s_place(tmp_path: Path) -> None:
    mark = tmp_path / "it-ran"
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    pickle.dump(Calls(os.system, f"touch {mark}"), buffer)
    with zipfile.ZipFile(tmp_path / "f.npz", "w") as archive:
        archive.writestr("descriptors_list.npy", buffer.getvalue())
        archive.writestr("filenames.npy", npy(np.array(["a"])))
    with pytest.raises(CorruptFile, match=r"it names (posix|nt)\.system, and may name nothing but NumPy arrays"):
        list(NotebookFile(tmp_path / "f.npz").descriptors(["a.jpg"]))
    assert not mark.exists()


def npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


# Files that lie about their size.


def with_members(path: Path, **members: bytes) -> NotebookFile:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return NotebookFile(path)


def header(descr: str, shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


HUGE = 10**13
GOOD = npy(np.array(["a"]))
# A pickle whose bytes are said to be a gigabyte or four, or 2**62.
LONG_BYTES = [b"\x80\x04B" + (4 << 28).to_bytes(4, "little"), b"\x80\x04\x8e" + (1 << 62).to_bytes(8, "little")]


@pytest.mark.parametrize(
    ("descriptors", "reason"),
    [
        (header("<f4", (1, HUGE, 128)), "claims an item of"),
        (header("|O", (1, HUGE, 128)) + pickle.dumps(np.array([[[1.0]]], dtype=object)), "its header claims"),
        (header("|O", (HUGE,)), "there are 1 filenames"),
        *((header("|O", (1,)) + data, "claims an item of") for data in LONG_BYTES),
        (header("|O", (1,)) + b"\x80\x04(" + b"N" * 3_000_000, "piles up more"),
        (header("|O", (1,)) + b"\x80\x04" + b"(N\x85" * 1_000_000, "piles up more"),
        (header("<f4", (1, 2, 128)) + b"\0" * 100, "claims an item of"),
        (b"\x93NUMPY\x02\x00" + (1 << 31).to_bytes(4, "little"), "claims an item of"),
        (b"\x93NUMPY\x03\x00\x00\x00", "its format is 3.0"),
        (b"not an array", "magic"),
        (b"", "claims an item of"),
    ],
)
def test_a_lie_about_size_fills_no_memory(tmp_path: Path, descriptors: bytes, reason: str) -> None:
    file = with_members(tmp_path / "f.npz", descriptors_list=descriptors, filenames=GOOD)
    with memory() as peak, pytest.raises(CorruptFile, match=reason):
        list(file.descriptors(["a.jpg"]))
    assert peak() < 20_000_000


@pytest.mark.parametrize(
    ("descriptors", "reason"),
    [
        (header("<f4", (1, 1, 128)) + b"\0" * 500, "it ends early: 500 of 512 bytes are there"),
        (b"\x93NUMPY\x01\x00\x0c\x00{1:2, 'a':3}\n", "its header makes no sense"),
        (header("|O", (1,)) + pickle.dumps(as_objects([None, None])), "goes on after the last image"),
        (header("|O", (1,)) + b"\x80\x04\x85.", "its pickle makes no sense"),
        (header("|O", (1,)) + pickle.dumps(as_objects([[1.0]])), "it holds lists"),
        (header("|O", (1,)) + b"\x80\x04NNa.", "it holds lists"),
    ],
)
def test_what_makes_no_sense_is_named(tmp_path: Path, descriptors: bytes, reason: str) -> None:
    file = with_members(tmp_path / "f.npz", descriptors_list=descriptors, filenames=GOOD)
    with pytest.raises(CorruptFile, match=reason):
        list(file.descriptors(["a.jpg"]))


def test_a_bomb_of_filenames_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featurestore.exchange.importers.notebook_file.MOST_NAME_BYTES", 1_000_000)
    file = with_members(tmp_path / "f.npz", descriptors_list=GOOD, filenames=npy(np.array(["a" * 300_000])))
    with pytest.raises(CorruptFile, match=r"filenames claims 1,200,128 bytes"):
        file.filenames()


def test_an_item_may_not_be_larger_than_any_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpickle, "LARGEST", 1000)
    file = NotebookFile(write_chunk(tmp_path, [("a", sift(2)), ("b", None)]))
    with pytest.raises(CorruptFile, match="claims an item of 1,024 bytes"):
        list(file.descriptors(["a.jpg", "b.jpg"]))


def test_memory_is_that_of_an_image_and_not_of_the_file(tmp_path: Path) -> None:
    images = [sift(2000 + i, i) for i in range(40)]  # a megabyte each
    file = NotebookFile(write_chunk(tmp_path, list(zip(names(40), images, strict=True)), compressed=False))
    with memory() as peak:
        assert sum(1 for _ in file.descriptors(names(40))) == 40
    assert peak() < 5_000_000


# Files that are damaged, or something else.


@pytest.mark.parametrize("compressed", [True, False])
def test_a_flipped_bit_is_noticed_at_the_end(tmp_path: Path, compressed: bool) -> None:
    path = write_chunk(tmp_path, [("a", sift(50)), ("b", None)], compressed=compressed)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptFile):
        list(NotebookFile(path).descriptors(["a.jpg", "b.jpg"]))


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_is_named_whatever_packed_the_file(tmp_path: Path, method: int) -> None:
    path = tmp_path / "f.npz"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("descriptors_list.npy", npy(as_objects([sift(50), None])))
        archive.writestr("filenames.npy", GOOD)
    data = bytearray(path.read_bytes())
    data[2000:2400] = b"\x5a" * 400
    path.write_bytes(data)
    with pytest.raises(CorruptFile, match=r"f\.npz can't be read as a chunk file of the notebook"):
        list(NotebookFile(path).descriptors(["a.jpg", "b.jpg"]))


def test_a_header_of_nothing_but_nesting_is_damage_in_one_short_line(tmp_path: Path) -> None:
    text = "(" * 4000 + ")" * 4000
    data = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()
    with pytest.raises(CorruptFile) as refused:
        list(with_members(tmp_path / "f.npz", descriptors_list=data, filenames=GOOD).descriptors(["a.jpg"]))
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize("keep", [0, 0.1, 0.5])
def test_a_file_that_ends_early(tmp_path: Path, keep: float) -> None:
    path = write_chunk(tmp_path, [("a", sift(50)), ("b", None)])
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(CorruptFile, match=r"sift_chunk_0_to_1\.npz can't be read"):
        NotebookFile(path)


def test_a_pickle_that_is_cut_anywhere(tmp_path: Path) -> None:
    data = npy(as_objects([sift(1), None]))
    for end in range(len(data) - 1):
        file = with_members(tmp_path / "f.npz", descriptors_list=data[:end], filenames=GOOD)
        with pytest.raises(CorruptFile):
            list(file.descriptors(["a.jpg", "b.jpg"]))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the text that the changed bytes happen to make
def test_no_byte_can_be_changed_into_a_crash(tmp_path: Path) -> None:
    data = npy(as_objects([sift(1), None]))
    rng, refused = np.random.default_rng(0), 0
    for _ in range(400):
        broken = bytearray(data)
        broken[int(rng.integers(0, 330))] = int(rng.integers(0, 256))
        file = with_members(tmp_path / "f.npz", descriptors_list=bytes(broken), filenames=GOOD)
        try:
            list(file.descriptors(["a.jpg", "b.jpg"]))
        except (CorruptFile, DatasetError):
            refused += 1
    assert refused > 200


def test_another_npz_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "global_pca_scale.npz", gmin=np.zeros(64), gmax=np.ones(64))
    with pytest.raises(DatasetError, match=r"global_pca_scale\.npz holds gmin, gmax, and a chunk file .* move it to"):
        NotebookFile(tmp_path / "global_pca_scale.npz")


def test_descriptors_after_the_pca_are_not_sift(tmp_path: Path) -> None:
    file = save(tmp_path / "f.npz", as_objects([np.zeros((3, 64), np.float32)]), np.array(["a"]))
    with pytest.raises(
        DatasetError, match=r"descriptors of 64 values, at the image 'a\.jpg', and those of SIFT are of 128"
    ):
        list(file.descriptors(["a.jpg"]))


@pytest.mark.parametrize(
    ("descriptors", "filenames", "reason"),
    [
        (as_objects([None]), np.array(["a", "b"]), r"has the shape \(1,\), and there are 2 filenames"),
        (np.zeros((1, 128), np.float32), np.array(["a"]), r"has the shape \(1, 128\)"),
        (np.zeros(1), np.array(["a"]), "is of float64, and should be arrays"),
        (as_objects([None]), np.array([["a"]]), r"filenames has the shape \(1, 1\), and should be a list"),
        (as_objects([None]), np.array([3]), "filenames is of int64, and should be text"),
        (as_objects([None]), as_objects([3]), "filenames holds something that is not text"),
        (np.asfortranarray(np.zeros((2, 3, 128), object)), np.array(["a", "b"]), "in Fortran's order"),
        (np.full((2, 3, 128), None), np.array(["a", "b"]), "something that is not a number"),
    ],
)
def test_what_the_notebook_never_wrote(tmp_path: Path, descriptors: Any, filenames: Any, reason: str) -> None:
    file = save(tmp_path / "f.npz", descriptors, filenames)
    with pytest.raises(CorruptFile, match=reason):
        list(file.descriptors(file.filenames()))


def test_an_array_that_stands_twice_is_refused(tmp_path: Path) -> None:
    one = sift(2)
    with pytest.raises(CorruptFile, match="one array stands in it twice"):
        list(save(tmp_path / "f.npz", as_objects([one, one]), np.array(["a", "b"])).descriptors(["a.jpg", "b.jpg"]))

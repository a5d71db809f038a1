"""A zip file as a source of images, as a folder is one; whatever is wrong with it is a row, or a sentence."""

from __future__ import annotations

import os
import shutil
import stat
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from featurestore import FeatureStore
from featurestore.errors import DatasetError, ImagesGone, UnreadableFile
from featurestore.images import image_at, look_for_images, n_pixels, open_images, open_source, read_image, source_at
from featurestore.images.image_container import Member
from featurestore.images.sources.base import Damaged, Missing, Source, TooLarge
from featurestore.images.sources.zip_file import ZipArchive
from featurestore.rows import Status
from tests.broken_images import encoded, picture
from tests.faults import ordinary_user
from tests.small import change_recipe, context_of, invoke, make_small, rows_of

LIMIT = 2**20


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A zip file of three members, the second deflated, the last one not an image."""
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("wiki/b.png", encoded(".png", picture(seed=1)))
        file.writestr("wiki/a.png", encoded(".png", picture(seed=2)), zipfile.ZIP_DEFLATED)
        file.writestr("wiki/notes.txt", "no image")
    return path


def source_of(path: Path) -> Source:
    return open_source(str(path))


def test_members_have_names_sizes_and_crcs_in_the_order_of_the_file(packed: Path) -> None:
    source = source_of(packed)
    entries = list(source.entries())
    assert [entry.name for entry in entries] == ["wiki/b.png", "wiki/a.png"]
    for entry in entries:
        data = source.read(entry.name, LIMIT)
        assert (entry.n_bytes, entry.version) == (len(data), zlib.crc32(data))
        assert source.stat(entry.name) == entry
    assert source.read("wiki/notes.txt", LIMIT) == b"no image", "a dataset may name what a scan leaves out"


def test_a_prefix_leaves_the_folder_out_of_the_names(packed: Path) -> None:
    source = open_source(f"{packed}!wiki")
    assert [entry.name for entry in source.entries()] == ["b.png", "a.png"]
    assert source.read("a.png", LIMIT) == source_of(packed).read("wiki/a.png", LIMIT)
    with pytest.raises(Missing, match=r"images\.zip has no member of this name"):
        source.stat("wiki/a.png")


@pytest.mark.parametrize(
    ("name", "there", "hint"),
    [
        ("monet\\a.png", "monet/a.png", r"'monet\\a.png' is 'monet/a.png' there: write the names as they are there"),
        ("monet/a.png", "monet\\a.png", r"'monet/a.png' is 'monet\\a.png' there: write the names as they are there"),
        ("a.jpg", "a.png", "'a.jpg' is 'a.png' there: write the names as they are there"),
        ("A.PNG", "a.png", "they are there with other upper and lower case, as 'a.png': correct the dataset"),
        ("\u00e9.png", "e\u0301.png", "they are there in another Unicode form: convert the dataset to NFD"),
        ("e\u0301.png", "\u00e9.png", "they are there in another Unicode form: convert the dataset to NFC"),
    ],
)
def test_hints_for_names_that_look_alike(tmp_path: Path, name: str, there: str, hint: str) -> None:
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as file:
        file.writestr("first.png", b"")
        file.writestr(there, b"")
    assert look_for_images(source_of(tmp_path / "images.zip"), [name]).hint == hint


def test_several_files_begin_names_with_their_stem(tmp_path: Path) -> None:
    for stem in ("01", "00"):
        with zipfile.ZipFile(tmp_path / f"{stem}.zip", "w") as file:
            file.writestr("a.png", stem)
    source = open_source(str(tmp_path / "0*.zip"))
    assert [entry.name for entry in source.entries()] == ["00/a.png", "01/a.png"]
    assert source.read("01/a.png", LIMIT) == b"01"
    for name in ("02/a.png", "a.png"):
        with pytest.raises(Missing, match="no file of"):
            source.read(name, LIMIT)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_links_are_no_images(packed: Path) -> None:
    with zipfile.ZipFile(packed, "a") as file:
        for name in ("wiki/b.png", "c.png"):  # the first takes the place of a picture
            link = zipfile.ZipInfo(name)
            link.external_attr = (stat.S_IFLNK | 0o777) << 16
            file.writestr(link, "wiki/a.png")
    source = source_of(packed)
    assert [entry.name for entry in source.entries()] == ["wiki/a.png"]
    for name in ("wiki/b.png", "c.png"):
        with pytest.raises(Missing, match=r"images\.zip has no member of this name, but a link; make the zip again"):
            source.read(name, LIMIT)


def test_one_part_of_several_is_refused(packed: Path) -> None:
    data = bytearray(packed.read_bytes())
    entry = data.index(b"PK\1\2")
    struct.pack_into("<H", data, entry + 34, 1)  # the number of the part in which the member begins
    packed.write_bytes(data)
    with pytest.raises(DatasetError, match=r"is the last part of a zip file .*: zip -s 0 images\.zip --out whole\.zip"):
        list(source_of(packed).entries())


def test_names_never_lead_out(tmp_path: Path) -> None:
    path = tmp_path / "names.zip"
    with zipfile.ZipFile(path, "w") as file:
        for name in ("../../up.png", "/etc/root.png", "./here.png", "a//b/../c.png", ".hidden.png", "__MACOSX/d.png"):
            file.writestr(name, name)
    source = source_of(path)
    assert [entry.name for entry in source.entries()] == ["up.png", "etc/root.png", "here.png", "a/b/c.png"]
    assert source.read("up.png", LIMIT) == b"../../up.png"


def test_a_damaged_member_is_a_row(packed: Path) -> None:
    data = bytearray(packed.read_bytes())
    with zipfile.ZipFile(packed) as file:
        stored, deflated = (file.getinfo(f"wiki/{name}.png") for name in "ba")
        stored_at, deflated_at = (m.header_offset + 30 + len(m.filename) + 50 for m in (stored, deflated))
    data[stored_at] ^= 1
    data[deflated_at : deflated_at + 40] = b"\xff" * 40
    packed.write_bytes(data)
    for name in ("wiki/b.png", "wiki/a.png"):
        image = read_image(image_at(str(packed), name), max_pixels=LIMIT, truncated="refuse")
        assert image.status == Status.DAMAGED
        assert str(image.message).startswith("the zip file is damaged at this member (")


@pytest.mark.parametrize("size", [3, 3_000_000_000])
def test_a_directory_that_lies_about_a_size(tmp_path: Path, size: int) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.png", b"\0" * 5_000_000)
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack("<L", 5_000_000), struct.pack("<L", size)))
    with pytest.raises(TooLarge if size > LIMIT else Damaged) as found:
        source_of(path).read("a.png", LIMIT)
    assert size < LIMIT or len(found.value.head) == LIMIT, "the first bytes, to measure the picture"  # type: ignore[attr-defined]


def test_a_picture_that_is_too_large_is_measured(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featurestore.images.image_file.EXTRA_BYTES", -7)
    image = read_image(image_at(str(packed), "wiki/a.png"), max_pixels=1, truncated="refuse")
    height, width = picture(seed=2).shape[:2]
    assert (image.status, image.width, image.height) == (Status.TOO_LARGE, width, height)
    assert n_pixels(image_at(str(packed), "wiki/a.png"), max_pixels=1) == width * height


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_inflate_without_a_limit_are_refused(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as file:
        file.writestr("a.png", b"\0" * 5_000_000)
    with pytest.raises(Damaged, match="make the file again with deflate") as found:
        source_of(tmp_path / "a.zip").read("a.png", 2**30)
    assert found.value.status == Status.UNREADABLE


def test_half_a_file_is_no_source(packed: Path) -> None:
    packed.write_bytes(packed.read_bytes()[:-100])
    with pytest.raises(DatasetError, match=r"images\.zip is not a whole zip file .* get it again"):
        list(source_of(packed).entries())


def test_cut_and_changed_bytes_never_end_it(packed: Path) -> None:
    whole = packed.read_bytes()
    for at in range(0, len(whole), 997):
        packed.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            source = source_of(packed)
            for entry in source.entries():
                source.read(entry.name, LIMIT)
        except (DatasetError, Damaged, TooLarge):
            continue


def test_a_file_that_changes_ends_the_run(packed: Path, tmp_path: Path) -> None:
    images = open_images(source_of(packed), read=[], wanted=["wiki/a.png"])
    image = images.file("wiki/a.png")
    assert read_image(image, max_pixels=LIMIT, truncated="refuse").status == Status.OK
    images.refuse_if_gone("wiki/c.png", "missing")
    os.utime(packed, ns=(1, 1))
    with pytest.raises(ImagesGone, match="have changed since the run began"):
        read_image(image, max_pixels=LIMIT, truncated="refuse")
    with pytest.raises(ImagesGone, match="have changed since the run began"):
        images.refuse_if_gone("wiki/c.png", "missing")
    packed.unlink()
    with pytest.raises(ImagesGone, match="there is no file"):
        read_image(image, max_pixels=LIMIT, truncated="refuse")
    with pytest.raises(ImagesGone, match="there is no file"):
        images.refuse_if_gone("wiki/c.png", "missing")


def test_a_run_does_not_begin_without_one_of_its_images(packed: Path) -> None:
    with pytest.raises(ImagesGone, match=r"there are none in .*images\.zip by any of 1 name"):
        open_images(source_of(packed), read=[], wanted=["c.png"])


def test_a_run_that_can_not_begin_says_what_is_wrong_with_the_file(packed: Path) -> None:
    os.truncate(packed, 100)
    with pytest.raises(DatasetError, match="is not a whole zip file"):
        open_images(source_of(packed), read=["wiki/a.png"], wanted=["wiki/b.png"])
    packed.chmod(0o000)
    with ordinary_user(), pytest.raises(UnreadableFile, match="can't be read: Permission denied"):
        open_images(source_of(packed), read=["wiki/a.png"], wanted=["wiki/b.png"])


def test_a_process_opens_a_file_once_and_again_when_it_has_changed(packed: Path) -> None:
    first = source_at(str(packed))
    assert source_at(str(packed)) is first
    os.utime(packed, ns=(1, 1))
    assert source_at(str(packed)) is not first


def test_a_process_that_worked_before_reads_the_file_of_this_run(packed: Path) -> None:
    """A worker process may have opened the file for an earlier run, before the file was replaced."""
    source_at(str(packed))
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("wiki/a.png", data := encoded(".png", picture(seed=3)))
    image = open_images(source_of(packed), read=[], wanted=[]).file("wiki/a.png")
    assert isinstance(image, Member)
    assert image.state() == (len(data), zlib.crc32(data))
    assert image.read(LIMIT) == data
    os.utime(packed, ns=(1, 1))
    with pytest.raises(ImagesGone, match="have changed since the run began"):
        image.read(LIMIT)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("a.png", "they are in 'wiki' there: give --images '{}!wiki'"),
        ("x/wiki/a.png", "without 'x/' before them the names exist: remove it from the dataset"),
        ("c.png", "the names are those in {}, which holds 'wiki/b.png', 'wiki/a.png': is it the right file?"),
    ],
)
def test_hints_for_names_that_are_not_there(packed: Path, name: str, hint: str) -> None:
    found = look_for_images(source_of(packed), [name])
    assert (found.n_absent, found.hint) == (1, hint.format(packed))


def payloads(store: FeatureStore) -> list[tuple[object, ...]]:
    query = "SELECT variant, chunk_id, payload FROM partitions WHERE stage = 'extract' ORDER BY ALL"
    return store.sql(query).fetchall()


def zipped(folder: Path, path: Path, *, below: str = "") -> Path:
    """Return a zip file of a folder's pictures, the last one first."""
    with zipfile.ZipFile(path, "w") as file:
        for picture_file in sorted(folder.glob("*.png"), reverse=True):
            file.write(picture_file, f"{below}{picture_file.name}")
    return path


def test_a_folder_and_a_zip_of_it_give_the_same_payloads(tiny: FeatureStore, tmp_path: Path) -> None:
    """The same names, so the same rows: the source is no part of a variant."""
    folder = Path(context_of(tiny).images)
    where = zipped(folder, tmp_path / "tiny.zip", below="wiki/")
    store = FeatureStore.create(
        tmp_path / "store", images=f"{where}!wiki", dataset=folder / "dataset.csv", chunk_size=5
    )
    change_recipe(store, {"fit_pca": {"n_components": 4}, "project": {"top": 20}})
    store.run(workers=2)
    assert payloads(store) == payloads(tiny)
    assert store.verify(deep=True).problems == []


def test_init_without_a_dataset_then_repair_and_move_to_a_folder(tmp_path: Path) -> None:
    make_small(tmp_path / "images", n=3)
    where = zipped(tmp_path / "images", tmp_path / "images.zip")
    made = invoke("init", tmp_path / "store", "--images", where)
    assert made.exit_code == 0, made.output
    store = FeatureStore(tmp_path / "store")
    names = [name for (name,) in store.sql("SELECT filename FROM images ORDER BY image_id").fetchall()]
    change_recipe(store, {"fit_pca": {"n_components": 4}, "project": {"top": 20}})
    assert names == ["002.png", "001.png", "000.png"], "in the order of the container"
    store.run("extract", workers=0)
    (tmp_path / "images" / "001.png").write_bytes((tmp_path / "images" / "000.png").read_bytes())
    zipped(tmp_path / "images", where)
    (problem,) = store.verify().problems
    assert problem.name == "001.png"
    store.run("extract", check_images=True, workers=0)
    assert store.verify(deep=True).problems == []
    change_recipe(store, {"store": {"images": str(tmp_path / "images")}})
    where.unlink()
    assert store.verify(deep=True).problems == [], "what was read from one source is checked in another"
    assert [row.status for row in rows_of(store, "extract")] == [Status.OK] * 3


def test_only_members_of_another_crc_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(tmp_path / "images", n=4)
    for number in (1, 2):  # of the same number of bytes
        pixels = np.full((60, 80), 60 * number, np.uint8)
        (tmp_path / "images" / f"00{number}.png").write_bytes(encoded(".bmp", pixels))
    names = ["000.png", "001.png", "002.png", "003.png"]
    first, second = ((tmp_path / "images" / name).read_bytes() for name in names[1:3])
    assert len(first) == len(second)
    where = zipped(tmp_path / "images", tmp_path / "images.zip")
    store = FeatureStore.create(tmp_path / "store", images=where, dataset=tmp_path / "images" / "dataset.csv")
    store.run("extract", workers=0)
    with zipfile.ZipFile(where) as file:
        crcs = [(name, file.getinfo(name).CRC) for name in names]
    assert store.sql("SELECT filename, source_version FROM extracted ORDER BY filename").fetchall() == crcs

    read: list[str] = []
    original = ZipArchive.read

    def counted(archive: ZipArchive, name: str, limit: int) -> bytes:
        read.append(name)
        return original(archive, name, limit)

    monkeypatch.setattr(ZipArchive, "read", counted)
    zipped(tmp_path / "images", where)  # another file of the same members
    assert store.verify().problems == []
    assert store.run("extract", check_images=True, workers=0) == []
    assert read == []
    (tmp_path / "images" / "001.png").write_bytes(second)
    zipped(tmp_path / "images", where)
    (problem,) = store.verify().problems
    assert (problem.name, read) == ("001.png", ["001.png"])
    assert store.run("extract", check_images=True, workers=0)[0].n_images == 1
    assert store.verify().problems == []


def test_verify_reports_half_a_file_beside_what_else_is_wrong(tmp_path: Path) -> None:
    make_small(tmp_path / "images", n=2)
    where = zipped(tmp_path / "images", tmp_path / "images.zip")
    store = FeatureStore.create(tmp_path / "store", images=where)
    store.run("extract", workers=0)
    os.truncate(where, where.stat().st_size // 2)
    (tmp_path / "store" / "partitions" / "stray.parquet").write_bytes(b"")
    stray, images = store.verify().problems
    assert (stray.kind, images.kind, images.name) == ("orphan", "image", str(where))
    assert str(images).startswith(f"image: {where}: not every image was checked: {where} is not a whole zip file (")
    assert str(images).endswith(": get it again; then verify again")


def test_a_file_that_is_not_there_is_passed_over(tmp_path: Path) -> None:
    make_small(tmp_path / "images", n=2)
    where = zipped(tmp_path / "images", tmp_path / "images.zip")
    store = FeatureStore.create(tmp_path / "store", images=where)
    shutil.move(where, tmp_path / "away.zip")
    assert store.verify().notes == [f"the image files were not checked: {where} is not there"]
    assert store.status().stages
    with pytest.raises(ImagesGone, match=r"there is no file .*images\.zip"):
        store.run(workers=0)


@pytest.mark.parametrize("name", ["images.zip", "*.zip"])
def test_a_folder_that_may_not_be_entered(packed: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    packed.rename(folder / "images.zip")
    store = FeatureStore.create(tmp_path / "store", images=folder / name)
    folder.chmod(0o000)
    try:
        with ordinary_user():
            (problem,) = store.verify().problems
            assert (problem.kind, problem.name) == ("unreadable", str(folder / name))
            for refused in (
                lambda: store.run(workers=0),
                lambda: FeatureStore.create(tmp_path / "other", images=folder / name),
                lambda: FeatureStore.create(tmp_path / "other", images=tmp_path, dataset=folder / "d.csv"),
            ):
                with pytest.raises(UnreadableFile, match=r"can't be read: Permission denied; nothing is known"):
                    refused()
    finally:
        folder.chmod(0o700)


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.parquet", "*.zip"])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name.replace("*", "b"))
    with pytest.raises(DatasetError, match=r"[ab]\.\w+ is a pipe, .*, not a file, .*; give --images a file"):
        FeatureStore.create(tmp_path / "store", images=tmp_path / name)


def test_a_folder_that_fits_a_pattern_is_refused(packed: Path) -> None:
    (packed.parent / "more.zip").mkdir()
    with pytest.raises(DatasetError, match=r"more\.zip is a folder, not a file"):
        source_of(packed.parent / "*.zip")


@pytest.mark.parametrize("name", ["a.zip", "*.zip", "a.tar.gz", "a.tgz", "a.tar.zst"])
def test_init_refuses_what_is_not_there_or_compressed(tmp_path: Path, name: str) -> None:
    reason = "file of images .* does not exist" if name.endswith(".zip") else "is compressed as a whole"
    with pytest.raises(DatasetError, match=reason):
        FeatureStore.create(tmp_path / "store", images=tmp_path / name)
    assert not (tmp_path / "store").exists()

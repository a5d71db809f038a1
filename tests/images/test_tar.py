"""A tar file as a source of images: by its own index, whatever its headers say."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from featurestore import FeatureStore
from featurestore.errors import DatasetError, ImagesGone
from featurestore.images import image_at, look_for_images, open_images, open_source, read_image, source_at
from featurestore.images.sources.base import Damaged, Missing, TooLarge
from featurestore.maintenance import replaced_images
from featurestore.rows import Status
from tests.broken_images import encoded, picture
from tests.small import Listening, context_of, rows_of

LIMIT = 2**20
PICTURES = {f"{name}.png": encoded(".png", picture(seed=i)) for i, name in enumerate("cab")}


def write_tar(path: Path, members: dict[str, bytes], *, kind: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=kind) as tar:
        for name, data in members.items():
            add(tar, name, data)
    return path


def add(tar: tarfile.TarFile, name: str, data: bytes, **fields: object) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for field, value in fields.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(data))


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    return write_tar(tmp_path / "images.tar", {**PICTURES, "c.json": b"{}"})


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_in_the_order_of_the_file(tmp_path: Path, kind: int) -> None:
    long = {f"{'d' * 90}/{'é' * 20}/{name}": data for name, data in PICTURES.items()}
    source = open_source(str(write_tar(tmp_path / "images.tar", long, kind=kind)))
    entries = list(source.entries())
    assert [entry.name for entry in entries] == list(long)
    assert [entry.n_bytes for entry in entries] == [len(data) for data in long.values()]
    assert {name: source.read(name, LIMIT) for name in reversed(long)} == long
    assert source.stat(entries[1].name) == entries[1]


def test_shards_are_named_by_their_stems(tmp_path: Path) -> None:
    for stem in ("00001", "00000"):
        write_tar(tmp_path / f"{stem}.tar", PICTURES)
    source = open_source(str(tmp_path / "00*.tar"))
    assert [entry.name for entry in source.entries()] == [f"{s}/{n}" for s in ("00000", "00001") for n in PICTURES]
    assert source.read("00001/a.png", LIMIT) == PICTURES["a.png"]


def test_only_what_follows_the_folders_that_exist_is_a_pattern(tmp_path: Path) -> None:
    (tmp_path / "data[1]").mkdir()
    write_tar(tmp_path / "data[1]" / "00000.tar", PICTURES)
    source = open_source(str(tmp_path / "data[1]" / "0*.tar"))
    assert [entry.name for entry in source.entries()] == [f"00000/{name}" for name in PICTURES]
    nested = open_source(str(tmp_path / "d*" / "0*.tar"))
    assert list(nested.entries()) == list(source.entries())
    with pytest.raises(ImagesGone, match=r"there is no file .*1\*\.tar"):
        open_source(str(tmp_path / "data[1]" / "1*.tar"))


def test_a_shard_that_is_new_is_seen_where_the_others_are_open(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", PICTURES)
    where = str(tmp_path / "?.tar")
    assert len(list(source_at(where).entries())) == 3
    images = open_images(source_at(where), read=[], wanted=[])
    write_tar(tmp_path / "1.tar", PICTURES)
    assert len(list(source_at(where).entries())) == 6
    with pytest.raises(ImagesGone, match="have changed since the run began"):
        images.refuse_if_gone("1/a.png", "missing")
    new = open_images(open_source(where), read=[], wanted=[]).file("1/a.png")
    assert read_image(new, max_pixels=LIMIT, truncated="refuse").status == Status.OK


def test_only_regular_members_and_the_last_of_a_name(tmp_path: Path) -> None:
    path = tmp_path / "images.tar"
    with tarfile.open(path, "w") as tar:
        add(tar, "./a.png", b"old")
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            add(tar, f"kind{kind.decode()}.png", b"", type=kind, linkname="../../etc/passwd")
        add(tar, "sparse.png", b"", type=tarfile.GNUTYPE_SPARSE)
        add(tar, "../../b.png", b"up")
        add(tar, "/etc/c.png", b"root")
        add(tar, "a.png", b"new")
    source = open_source(str(path))
    assert [entry.name for entry in source.entries()] == ["b.png", "etc/c.png", "a.png"]
    assert source.read("a.png", LIMIT) == b"new"
    for name, why in (("sparse.png", ", but a sparse file; "), ("kind1.png", ", but a link; "), ("kind6.png", "$")):
        with pytest.raises(Missing, match=rf"images\.tar has no member of this name{why}"):
            source.read(name, LIMIT)


def test_a_link_takes_the_place_of_a_file(tmp_path: Path) -> None:
    """As it does where the tar is unpacked."""
    path = write_tar(tmp_path / "images.tar", PICTURES)
    with tarfile.open(path, "a") as tar:
        add(tar, "a.png", b"", type=tarfile.SYMTYPE, linkname="b.png")
    source = open_source(str(path))
    assert [entry.name for entry in source.entries()] == ["c.png", "b.png"]
    with pytest.raises(Missing, match=r"images\.tar has no member of this name, but a link; make the tar again with"):
        source.read("a.png", LIMIT)


def test_a_tar_that_is_cut_between_two_members_is_not_whole(packed: Path) -> None:
    with tarfile.open(packed) as tar:
        at = tar.getmember("b.png").offset
    os.truncate(packed, at)
    source = open_source(str(packed))
    assert source.read("a.png", LIMIT) == PICTURES["a.png"]
    with pytest.raises(DatasetError, match=rf"ends at byte {at:,} without the mark of its end, after 2 members\. Get"):
        list(source.entries())


def test_a_tar_behind_another_is_not_left_out_in_silence(packed: Path, tmp_path: Path) -> None:
    more = write_tar(tmp_path / "more.tar", {"d.png": PICTURES["a.png"]})
    at = packed.stat().st_size
    packed.write_bytes(packed.read_bytes() + more.read_bytes())
    why = f"another tar begins at byte {at:,}, which tar --ignore-zeros unpacks"
    with pytest.raises(DatasetError, match=why):
        list(open_source(str(packed)).entries())
    with pytest.raises(Missing, match=f"has no member of this name; it is damaged: {why}"):
        open_source(str(packed)).stat("d.png")


def test_a_large_member_is_not_read(packed: Path) -> None:
    size = len(PICTURES["a.png"])
    with pytest.raises(TooLarge) as found:
        open_source(str(packed)).read("a.png", size - 1)
    assert found.value.n_bytes == size
    assert found.value.head.startswith(PICTURES["a.png"])


def test_a_cut_tar_keeps_what_is_whole(packed: Path) -> None:
    at = packed.read_bytes().index(PICTURES["b.png"])
    os.truncate(packed, at + 100)
    source = open_source(str(packed))
    assert source.read("a.png", LIMIT) == PICTURES["a.png"]
    image = read_image(image_at(str(packed), "b.png"), max_pixels=LIMIT, truncated="refuse")
    assert (image.status, image.message) == (Status.DAMAGED, "the tar file ends in the middle of this member")
    with pytest.raises(Missing, match="it is damaged: what follows byte"):
        source.stat("c.json")
    with pytest.raises(DatasetError, match=r"images\.tar is damaged: .* after 3 members.* Get it again"):
        list(source.entries())


def test_a_dataset_names_the_whole_images_of_a_cut_tar(packed: Path, tmp_path: Path) -> None:
    os.truncate(packed, packed.read_bytes().index(PICTURES["a.png"]) + 100)
    names = ["c.png", "a.png", "b.png"]
    (tmp_path / "d.csv").write_text("filename,subset\n" + "".join(f"{name},train\n" for name in names))
    store = FeatureStore.create(tmp_path / "store", images=packed, dataset=tmp_path / "d.csv")
    store.run("extract", workers=0)
    assert [row.status for row in rows_of(store, "extract")] == [Status.OK, Status.DAMAGED, Status.MISSING]
    found = str(look_for_images(open_source(str(packed)), names))
    assert found.startswith("1 of the 3 images that were looked for does not exist, for example 'b.png'; ")
    assert "; images.tar has no member of this name; it is damaged: what follows byte " in found


def test_a_damaged_header_is_not_the_end(packed: Path) -> None:
    data = bytearray(packed.read_bytes())
    with tarfile.open(packed) as tar:
        at = tar.getmember("b.png").offset
    data[at + 100] ^= 0xFF
    packed.write_bytes(data)
    with pytest.raises(DatasetError, match=f"what follows byte {at:,} can't be listed"):
        list(open_source(str(packed)).entries())


def header(name: str, size: bytes, kind: bytes = tarfile.REGTYPE) -> bytes:
    """Return a header whose size is the twelve bytes given, with the right checksum."""
    member = tarfile.TarInfo(name)
    member.type = kind
    block = bytearray(member.tobuf(tarfile.USTAR_FORMAT))
    block[124:136] = size
    block[148:156] = b"        "
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


HOSTILE = {
    "a size that leads back": header("a.png", b"\xff" * 11 + b"\x00") * 3,
    "a name of 8 GB": header("././@LongLink", b"77777777777\0", tarfile.GNUTYPE_LONGNAME),
    "a name of a negative size": header("././@LongLink", b"\xff" * 10 + b"\x00\x00", tarfile.GNUTYPE_LONGNAME),
    "thousands of names of names": header("././@LongLink", b"00000000000\0", tarfile.GNUTYPE_LONGNAME) * 3000,
    "a member of 8 GB": header("a.png", b"77777777777\0"),
    "a sparse map without an end": header("pax", b"%011o\0" % 40, tarfile.XHDTYPE)
    + b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n".ljust(512, b"\0")
    + header("a.png", b"00000001000\0")
    + b"999999999\n".ljust(512, b"\0"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_headers(tmp_path: Path, what: str) -> None:
    path = tmp_path / "images.tar"
    path.write_bytes(write_tar(tmp_path / "first.tar", {"first.png": b"x"}).read_bytes()[:1024] + HOSTILE[what])
    source = open_source(str(path))
    assert source.read("first.png", LIMIT) == b"x"
    with pytest.raises((Missing, Damaged, TooLarge)):
        source.read("a.png", LIMIT)
    with pytest.raises(DatasetError, match="is damaged"):
        list(source.entries())


@pytest.mark.parametrize("compression", ["gz", "bz2", "xz"])
def test_a_compressed_tar_is_refused_whatever_its_name(tmp_path: Path, compression: str) -> None:
    with tarfile.open(tmp_path / "images.tar", f"w:{compression}") as tar:  # type: ignore[call-overload]
        add(tar, "a.png", b"x")
    with pytest.raises(DatasetError, match="is compressed as a whole"):
        FeatureStore.create(tmp_path / "store", images=tmp_path / "images.tar")


@pytest.mark.parametrize("data", [b"", b"no tar" * 200])
def test_another_file_is_no_tar(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "images.tar").write_bytes(data)
    with pytest.raises(DatasetError, match=r"images\.tar is not a tar file"):
        FeatureStore.create(tmp_path / "store", images=tmp_path / "images.tar")


def test_changed_bytes_never_end_it(tmp_path: Path) -> None:
    whole = bytearray(write_tar(tmp_path / "a.tar", {"a.png": b"1" * 600, "b.png": b"2" * 10}).read_bytes()[:4096])
    path = tmp_path / "b.tar"
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            for entry in open_source(str(path)).entries():
                open_source(str(path)).read(entry.name, LIMIT)
        except (DatasetError, Damaged, TooLarge):
            continue


def test_files_are_closed_when_there_are_many(tmp_path: Path) -> None:
    for number in range(40):
        write_tar(tmp_path / f"{number:02d}.tar", {"a.png": b"%d" % number})
    source, before = open_source(str(tmp_path / "*.tar")), len(list(Path("/proc/self/fd").iterdir()))
    assert [source.read(f"{n:02d}/a.png", LIMIT) for n in range(40)] == [b"%d" % n for n in range(40)]
    assert len(list(Path("/proc/self/fd").iterdir())) - before <= 32


def test_verify_tells_damage_from_a_disk_that_fails(packed: Path, tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path / "store", images=packed)
    store.run("extract", workers=0)
    os.truncate(packed, packed.read_bytes().index(PICTURES["b.png"]) + 100)
    why = "the image can't be read any more (the tar file ends in the middle of this member); what was extracted"
    (problem,) = store.verify().problems
    assert (problem.kind, problem.name, problem.what) == ("image", "b.png", f"{why} from it is kept")
    assert problem.remedy.startswith("put it back, or remove its row from the dataset and run: featurestore ingest ")
    reporter = Listening()
    assert replaced_images(context_of(store, reporter)) == {}
    assert reporter.said == [f"b.png: {why} from it is kept"]


def test_a_tar_of_the_distant_future(packed: Path, tmp_path: Path) -> None:
    os.utime(packed, ns=(1, 10**19))  # nanoseconds that have no place in 64 bits with a sign
    store = FeatureStore.create(tmp_path / "store", images=packed)
    store.run("extract", workers=0)
    assert store.verify().problems == []
    versions = store.sql("SELECT DISTINCT source_version FROM extracted").fetchall()
    assert versions == [(10**19 - 2**64,)]


def test_a_store_of_shards(tiny: FeatureStore, tmp_path: Path) -> None:
    """Rows are those of the same pictures in a folder; a damaged one is a row with a status."""
    folder = Path(context_of(tiny).images)
    members = {path.name: path.read_bytes() for path in sorted(folder.glob("*.png"))}
    write_tar(tmp_path / "0.tar", {**members, "bad.png": b"no picture"})
    store = FeatureStore.create(tmp_path / "store", images=tmp_path / "?.tar")
    store.run("extract", workers=0)
    made, ours = rows_of(store, "extract"), rows_of(tiny, "extract")
    assert [row.filename for row in made] == [*(f"0/{row.filename}" for row in ours), "0/bad.png"]
    assert [row.extra["source_hash"] for row in made[:3]] == [row.extra["source_hash"] for row in ours]
    assert [row.n_descriptors for row in made[:3]] == [row.n_descriptors for row in ours]
    assert made[3].status == Status.UNREADABLE
    assert store.verify(deep=True).problems == []

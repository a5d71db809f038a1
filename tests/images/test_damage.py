from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path
from typing import Any

import duckdb
import pytest
from PIL import Image

from featurestore.images import LOSSY_SQL
from featurestore.images.damage import LOST, picture_is_lost
from featurestore.stages import Extract
from tests.broken_images import cuttable, encoded, hollow, picture, saved
from tests.images.test_image_file import put, read, same_as_imread
from tests.small import configure, make_small, small_store

JPEGS = [name for name in cuttable() if name.endswith(".jpg")]

# What the decoders say, and whether part of the picture is lost: at least one for each line of the table.
WORDS = {
    "Corrupt JPEG data: premature end of data segment": True,
    "JPEGLib: Corrupt JPEG data: premature end of data segment": True,
    "Premature end of JPEG file": True,
    "LibJpeg: Premature end of JPEG data": True,
    "Corrupt JPEG data: bad Huffman code": True,
    "Corrupt JPEG data: bad arithmetic code": True,
    "Corrupt JPEG data: found marker 0xd5 instead of RST3": True,
    "Inconsistent progression sequence for component 1 coefficient 5": True,
    "Corrupt JPEG data: 1 extraneous bytes before marker 0xd0": True,
    "Corrupt JPEG data: 12 extraneous bytes before marker 0xc4": True,
    "Corrupt JPEG data: 3 extraneous bytes before marker 0x9c": True,
    "Corrupt JPEG data: 8 extraneous bytes before marker 0xd9": True,
    "Corrupt JPEG data: 1403 extraneous bytes before marker 0xd9": True,
    "Corrupt JPEG data: 7 extraneous bytes before marker 0xd9": False,  # pads the data to a word
    "Corrupt JPEG data: 16 extraneous bytes before marker 0xe1": False,  # in the header
    "Corrupt JPEG data: 4096 extraneous bytes before marker 0xdb": False,
    "Corrupt JPEG data: 80 extraneous bytes before marker 0xfe": False,
    "Corrupt JPEG data: bad ICC marker": False,
    "Warning: unknown JFIF revision number 0.00": False,
    "Unknown Adobe color transform code 3": False,
    "Invalid SOS parameters for sequential JPEG": False,  # an encoder's fault, in numbers that are not used
    "LZWDecode: Not enough data at scanline 0 (short 40 bytes)": True,
    "PackBitsDecode: Terminating PackBitsDecode due to lack of data.": True,
    "ZIPDecode: Decoding error at scanline 3, invalid distance code": True,
    "Using code not yet in table": True,
    "TIFFFillStrip: Read error at scanline 8; got 3 bytes, expected 9": True,
    "WebPDecode: Unable to decode WebP data: less lines than expected.": True,
    "Fax4Decode: Bad code word at line 63 of strip 0 (x 90)": True,
    "Fax3Decode1D: Bad line length (EOL) has already been reached 20 times within that strip": True,
    "Fax3Decode1D: Try to decode (read) fax Group 3 data without EOL at line 119 of strip 0 (x 0)": False,
    "LZWDecode: Strip 3 not terminated with EOI code": False,
    "PackBitsDecode: Discarding 90 bytes to avoid buffer overrun": False,
    "TIFFReadDirectory: Unknown field with tag 42112 (0xa480) encountered": False,
    "TIFFFetchNormalTag: IO error during reading of Artist; tag ignored": False,
    "libpng warning: IDAT: CRC error": True,
    "libpng warning: IDAT: Extra compressed data": False,
    "libpng warning: iCCP: known incorrect sRGB profile": False,
    "libpng warning: tEXt: CRC error": False,
    "libpng warning: fdAT: CRC error": False,  # a later frame; OpenCV returns the first
    "OpenJPEG2000: read: segment too long (9) with max (4) for codeblock 0 (p=0, b=0, r=0, c=0)": True,
    "OpenJPEG2000: Stream does not end with EOC": True,
}


@pytest.mark.parametrize(("words", "lost"), WORDS.items())
def test_words_are_sorted_into_lost_and_harmless(words: str, lost: bool) -> None:
    assert picture_is_lost(words) == picture_is_lost(f"something else; {words}") == lost


def test_every_line_of_the_table_has_its_words() -> None:
    assert [p for p, _ in LOST if not any(re.search(p, words) for words, lost in WORDS.items() if lost)] == []


def test_duckdb_judges_as_python_does() -> None:
    sql = f"SELECT {LOSSY_SQL} FROM (SELECT $words AS error)"
    assert {words: duckdb.execute(sql, {"words": words}).fetchall() for words in WORDS} == {
        words: [(lost,)] for words, lost in WORDS.items()
    }


@pytest.mark.parametrize("name", JPEGS)
def test_a_hollow_jpeg_is_damaged(tmp_path: Path, name: str) -> None:
    for how, data in hollow(cuttable()[name]).items():
        path = put(tmp_path, name, data)
        found = read(path)
        assert found.status == "damaged", how
        assert found.message is not None
        assert found.message.startswith("part of the picture is lost (Corrupt JPEG data: "), how
        kept = read(path, keep=True)
        assert (kept.status, same_as_imread(kept, path)) == ("ok", True), how
        assert kept.message is not None
        assert kept.message.startswith("damaged, kept: part of the picture is lost; Corrupt JPEG data: "), how


def test_a_damaged_strip_of_a_tiff_is_damage(tmp_path: Path) -> None:
    tiff = bytearray(cuttable()["lzw.tif"])
    middle = len(tiff) // 2
    tiff[middle : middle + 100] = b"\xff" * 100
    assert read(put(tmp_path, "a.tif", bytes(tiff))).status == "damaged"


def test_a_harmless_warning_does_not_hide_damage(tmp_path: Path) -> None:
    """libjpeg warns of one thing only, the first."""
    whole = cuttable()["progressive.jpg"]
    frame = whole.index(b"\xff\xdb")
    odd = whole[:frame] + bytes(16) + whole[frame:]
    assert read(put(tmp_path, "odd.jpg", odd)).message == "Corrupt JPEG data: 16 extraneous bytes before marker 0xdb"
    found = read(put(tmp_path, "both.jpg", odd[: len(odd) // 2] + b"\xff\xd9"))
    words = (
        "Corrupt JPEG data: 16 extraneous bytes before marker 0xdb; Corrupt JPEG data: premature end of data segment"
    )
    assert (found.status, found.message) == ("damaged", f"part of the picture is lost ({words})")


def harmless() -> dict[str, bytes]:
    """Whole pictures with something to warn of."""
    image = Image.fromarray(picture()[:, :, ::-1].copy())
    png, jpeg = saved("PNG", image), saved("JPEG", image)
    profile = b"x\0\0" + zlib.compress(b"no profile at all" * 10)
    chunk = struct.pack(">I", len(profile)) + b"iCCP" + profile + struct.pack(">I", zlib.crc32(b"iCCP" + profile))
    tables = jpeg.index(b"\xff\xdb")
    return {
        "profile.png": png[:33] + chunk + png[33:],
        "gap.jpg": jpeg[:tables] + bytes(16) + jpeg[tables:],
        "padded.jpg": jpeg[:-2] + bytes(3) + jpeg[-2:],
        "revision.jpg": jpeg.replace(b"JFIF\0\1", b"JFIF\0\0", 1),
    }


@pytest.mark.parametrize("name", harmless())
def test_harmless_warnings_stay_ok(tmp_path: Path, name: str) -> None:
    path = put(tmp_path, name, harmless()[name])
    found, kept = read(path), read(path, keep=True)
    assert found.status == "ok"
    assert found.message
    assert found.message == kept.message
    assert same_as_imread(found, path)


def test_damaged_pictures_are_refused_or_kept_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = tmp_path / "images"
    dataset = make_small(images, n=4)
    jpeg = encoded(".jpg", picture())
    (images / "half.jpg").write_bytes(jpeg[: len(jpeg) // 2] + b"\xff\xd9")
    (images / "gap.jpg").write_bytes(harmless()["gap.jpg"])
    dataset.write_text(dataset.read_text() + "half.jpg,train\ngap.jpg,train\n")
    store = small_store(tmp_path / "store", images)
    summary = store.run("extract", workers=0)[0]
    assert (summary.statuses, summary.n_warned) == ({"ok": 5, "damaged": 1}, 1)
    assert store.run("extract", workers=0) == []
    configure(store, "extract", truncated="keep")
    summary = store.run("extract", workers=0)[0]  # of the rows that the policy decides, and no others
    assert (summary.statuses, summary.n_warned) == ({"ok": 1}, 1)
    assert store.run("extract", workers=0) == []
    configure(store, "extract", truncated="refuse")
    assert store.run("extract", workers=0)[0].statuses == {"damaged": 1}


@pytest.mark.parametrize(
    ("status", "error", "policy", "stale"),
    [
        ("ok", "Corrupt JPEG data: premature end of data segment", "refuse", True),  # of an older program
        ("empty", "Corrupt JPEG data: premature end of data segment", "refuse", True),
        ("ok", "Corrupt JPEG data: premature end of data segment", "keep", False),
        ("ok", "Corrupt JPEG data: 16 extraneous bytes before marker 0xe1", "refuse", False),
        ("ok", "damaged, kept: part of the picture is lost; Using code not yet in table", "refuse", True),
        ("damaged", "part of the picture is lost (Using code not yet in table)", "refuse", False),
        ("damaged", "part of the picture is lost (Using code not yet in table)", "keep", True),
        ("truncated", "the file ends before its picture does", "keep", True),
        ("truncated", "the file ends before its picture does (PNG input buffer is incomplete)", "keep", False),
        ("unreadable", "not an image that OpenCV can read (libpng error: IDAT: CRC error)", "refuse", False),
        ("ok", None, "refuse", False),
    ],
)
def test_only_rows_that_the_policy_decides_are_stale(status: str, error: str, policy: Any, stale: bool) -> None:
    assert is_stale(status, error, policy) == stale


def is_stale(status: str, error: str | None, policy: Any) -> bool:
    row = "(SELECT $status AS status, $error AS error, 9 AS pixels)"
    extract = Extract(truncated=policy)
    sql = f"SELECT coalesce({extract.stale_rows()}, false), coalesce({extract.perhaps_stale_rows()}, false) FROM {row}"
    ((stale, perhaps),) = duckdb.execute(sql, {"status": status, "error": error}).fetchall()
    assert perhaps or not stale
    return bool(stale)


@pytest.mark.parametrize("name", ["plain.png", "animated.png", "lossy.webp", "plain.bmp", "baseline.jpg"])
def test_a_cut_file_is_tried_once_under_the_policy_to_keep(tmp_path: Path, name: str) -> None:
    """What OpenCV makes no picture of is not tried again by every run."""
    data = cuttable()[name]
    found = read(put(tmp_path, name, data[: len(data) * 9 // 10]), keep=True)
    assert not is_stale(found.status, found.message, "keep")

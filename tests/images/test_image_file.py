from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from featurestore.images import ImageFile, read_image
from tests.broken_images import NOT_IMAGES, bomb_png, bombs, cuts, cuttable, encoded, picture, unusual, with_thumbnail

ROOT = Path(__file__).parent.parent.parent
LIMIT = 100_000_000
CUTTABLE, UNUSUAL, BOMBS = cuttable(), unusual(), bombs()

# The rest of that folder is ok.
REAL_BROKEN = {
    "exif_samples_image00971.jpg": "ok",  # its source says "invalid"; the picture is whole
    "image_bad_reallybig.bmp": "too_large",
    "image_bad_shortfile.bmp": "truncated",
    "image_oss_fuzz_36829.jpeg": "truncated",
    "image_png_x_ihdr_missing.png": "unreadable",
    "image_png_x_issue_214.png": "truncated",
    "image_png_x_unexpected_eof.png": "unreadable",
    "image_size_sample.png": "unreadable",
    "image_zero_loop_count.gif": "unreadable",
    "kapture_01.jpg": "unreadable",
    "kapture_1602074877390449152.png": "unreadable",
    "largescaleimaging_bark1.png": "unreadable",
    "pillow_broken.png": "unreadable",
    "pillow_broken_data_stream.png": "unreadable",
    "pillow_crash_1152ec2d1a1a71395b6f2ce6721c38924d025bf3.tif": "truncated",
    "pillow_crash_754d9c7ec485ffb76a90eeaab191ef69a2a3a3cd.sgi": "unreadable",
    "pillow_decompression_bomb.gif": "too_large",
    "pillow_decompression_bomb.ico": "unreadable",
    "pillow_hopper_bad_exif.jpg": "damaged",  # every second row of blocks has the wrong brightness
    "pillow_negative_size.ppm": "unreadable",
    "pillow_oom_225817ca0f8c663be7ab4b9e717b02c661e66834.tif": "truncated",
    "pillow_pngtest_bad_png.bin": "unreadable",
    "sharp_65536_uint32_limit.png": "too_large",
    "sharp_check.svg": "unreadable",
    "sharp_corrupt_header.jpg": "truncated",
    "sharp_truncated.jpg": "truncated",
    "sharp_truncated.png": "truncated",
}

# Runs in a process of its own: reads the files named in argv, prints what became of each and the peak of its memory.
READER = """
import json, resource, sys
import cv2, numpy, PIL.Image
from featurestore.images.decoder import decode_here
from featurestore.images.image_file import read_image
decode_here()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = {}
for path in sys.argv[1:]:
    read = read_image(path, max_pixels=100_000_000, truncated="keep")
    found[path] = [read.status, read.message, read.source_hash]
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps({"found": found, "kilobytes": grown}))
"""


def test_images() -> Path:
    """The folder of real images; skips the test where there is none."""
    folder = Path(os.environ.get("FEATURESTORE_TEST_IMAGES", ROOT / "../shared/images"))
    if not folder.is_dir():
        pytest.skip("no real images: set FEATURESTORE_TEST_IMAGES to a folder with paintings/ and broken/")
    return folder


test_images.__test__ = False  # type: ignore[attr-defined]


def read(path: Path | str, *, keep: bool = False, max_pixels: int = LIMIT) -> ImageFile:
    found = read_image(str(path), max_pixels=max_pixels, truncated="keep" if keep else "refuse")
    assert (found.pixels is not None) == (found.status == "ok")
    assert found.message is not None or found.status == "ok"
    assert found.message is None or (found.message.isprintable() and len(found.message) < 420)
    return found


def put(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def same_as_imread(found: ImageFile, path: Path) -> bool:
    expected = cv2.imread(str(path))
    if expected is None or found.pixels is None:
        return expected is None and found.pixels is None
    return np.array_equal(found.pixels, expected) and (found.height, found.width) == expected.shape[:2]


def in_a_process(paths: list[str], **environment: str) -> dict[str, Any]:
    command = [sys.executable, "-c", READER, *paths]
    ran = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    result: dict[str, Any] = json.loads(ran.stdout)
    return result


@pytest.mark.parametrize("name", [*CUTTABLE, *UNUSUAL])
def test_whole_file_is_what_imread_reads(tmp_path: Path, name: str) -> None:
    data = (CUTTABLE | UNUSUAL)[name]
    path = put(tmp_path, name, data)
    found = read(path)
    assert (found.status, found.message) == ("ok", None)
    assert same_as_imread(found, path)
    assert (found.source_bytes, found.source_hash) == (len(data), hashlib.sha256(data).hexdigest())
    assert found.pixels is not None
    assert found.pixels.dtype == np.uint8


@pytest.mark.parametrize("name", ["rotated.jpg", "rotated.png", "rotated.webp"])
def test_size_is_that_of_the_rotated_picture(tmp_path: Path, name: str) -> None:
    found = read(put(tmp_path, name, UNUSUAL[name]))
    assert (found.width, found.height) == (120, 160)


@pytest.mark.parametrize("name", CUTTABLE)
def test_cut_file_is_truncated(tmp_path: Path, name: str) -> None:
    for where, data in cuts(CUTTABLE[name]).items():
        path = put(tmp_path, name, data)
        found = read(path)
        assert found.status == "truncated", where
        assert found.message is not None
        assert found.message.startswith("the file ends before its picture does")
        assert found.source_hash == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("name", CUTTABLE)
def test_cut_file_is_kept_where_opencv_makes_a_picture_of_it(tmp_path: Path, name: str) -> None:
    kept = 0
    for where, data in cuts(CUTTABLE[name]).items():
        path = put(tmp_path, name, data)
        found = read(path, keep=True)
        assert same_as_imread(found, path), where
        assert found.status == ("truncated" if found.pixels is None else "ok"), where
        if found.status == "ok":
            kept += 1
            assert found.message is not None
            assert found.message.startswith("truncated, kept: ")
    assert (kept > 0) == name.endswith(".jpg")


def test_a_missing_end_marker_is_noticed_where_opencv_does_not(tmp_path: Path) -> None:
    jpeg = encoded(".jpg", picture(170, 130), cv2.IMWRITE_JPEG_RST_INTERVAL, 1)
    for whole in (jpeg, with_thumbnail(jpeg, CUTTABLE["baseline.jpg"])):
        assert cv2.imdecode(np.frombuffer(whole[:-2], np.uint8), cv2.IMREAD_COLOR) is not None
        assert read(put(tmp_path, "a.jpg", whole[:-2])).status == "truncated"


def test_an_end_marker_in_a_comment_is_none(tmp_path: Path) -> None:
    jpeg = CUTTABLE["progressive.jpg"]
    second_scan = jpeg.index(b"\xff\xc4", jpeg.index(b"\xff\xda"))
    cut = jpeg[:second_scan] + b"\xff\xfe\0\4\xff\xd9" + jpeg[second_scan:-500]
    path = put(tmp_path, "a.jpg", cut)
    assert read(path).status == "truncated"
    assert read(path, keep=True).status == "ok"
    assert same_as_imread(read(path, keep=True), path)


def test_a_cut_in_the_second_picture_leaves_the_first_whole(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jpg", UNUSUAL["two_pictures.jpg"][:-1000])
    assert read(path).status == "ok"
    assert same_as_imread(read(path), path)


@pytest.mark.parametrize("name", NOT_IMAGES)
def test_not_an_image(tmp_path: Path, name: str) -> None:
    path = put(tmp_path, name, NOT_IMAGES[name])
    assert read(path).status == read(path, keep=True).status == "unreadable"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("empty.jpg", "the file is empty (0 bytes)"),
        ("pointer.png", "not an image that OpenCV can read (the file is a Git LFS pointer)"),
        ("page.jpg", "not an image that OpenCV can read (the file is a web page)"),
        ("text.jpg", "not an image that OpenCV can read (the file is text)"),
    ],
)
def test_the_message_says_what_the_file_is(tmp_path: Path, name: str, words: str) -> None:
    assert read(put(tmp_path, name, NOT_IMAGES[name])).message == words


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_is_too_large(tmp_path: Path, name: str) -> None:
    found = read(put(tmp_path, name, BOMBS[name]))
    words = "30000x30000 px = 900 megapixels, over the limit of 100 megapixels"
    assert (found.status, found.message) == ("too_large", words)
    assert (found.width, found.height) == (30_000, 30_000)
    assert found.source_hash is not None


@pytest.mark.parametrize(
    ("width", "height", "max_pixels", "words"),
    [
        (3_000_000, 2_000_000, 50_000_000, "6,000,000 megapixels, over the limit of 50 megapixels"),
        (50_000, 24_690, 10**9, "1234.5 megapixels, over the limit of 1000 megapixels"),
        (3_000_000, 2_000_000, 10**12, "6,000,000 megapixels, over the limit of 1,000,000 megapixels"),
        (10, 10, 99, "0.0001 megapixels, over the limit of 0.000099 megapixels"),
    ],
)
def test_numbers_of_pixels_have_no_exponents(
    tmp_path: Path, width: int, height: int, max_pixels: int, words: str
) -> None:
    found = read(put(tmp_path, "a.png", bomb_png(width, height)), max_pixels=max_pixels)
    assert (found.status, found.message) == ("too_large", f"{width}x{height} px = {words}")


def test_the_limit_is_inclusive(tmp_path: Path) -> None:
    path = put(tmp_path, "a.png", CUTTABLE["plain.png"])
    assert read(path, max_pixels=160 * 120).status == "ok"
    assert read(path, max_pixels=160 * 120 - 1).status == "too_large"


def test_a_picture_that_can_not_be_measured_beforehand(tmp_path: Path) -> None:
    path = put(tmp_path, "a.pam", encoded(".pam", picture()))
    assert same_as_imread(read(path), path)
    found = read(path, max_pixels=160 * 120 - 1)
    assert (found.status, found.width, found.height) == ("too_large", 160, 120)


def test_opencv_has_a_limit_of_its_own(tmp_path: Path) -> None:
    found = read(put(tmp_path, "a.png", bomb_png(65_536, 65_536)), max_pixels=10**12)
    assert found.status == "unreadable"
    assert "CV_IO_MAX_IMAGE" in str(found.message)


def test_what_pillow_refuses_and_opencv_reads(tmp_path: Path) -> None:
    path = put(tmp_path, "a.png", bomb_png(20, 10, text=bytes(PngImagePlugin.MAX_TEXT_CHUNK + 1)))
    with pytest.raises(ValueError, match="too large"):
        Image.open(path)
    assert same_as_imread(read(path), path)
    assert read(path).status == "ok"


@pytest.mark.parametrize("start", [b"", CUTTABLE["baseline.jpg"]])
def test_a_huge_file_is_not_read(tmp_path: Path, start: bytes) -> None:
    path = put(tmp_path, "huge.jpg", start)
    os.truncate(path, 2 * 10**9)  # sparse: takes no room
    found = read(path)
    assert (found.status, found.source_bytes, found.source_hash) == ("too_large", 2 * 10**9, None)
    assert found.width == (160 if start else None)


def test_pillow_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 12_345)
    for name in ("bomb.gif", "bomb.ppm"):
        assert read(put(tmp_path, name, BOMBS[name])).status == "too_large"
    assert Image.MAX_IMAGE_PIXELS == 12_345


def test_missing(tmp_path: Path) -> None:
    (tmp_path / "link.jpg").symlink_to("nothing.jpg")
    file = put(tmp_path, "file", b"")
    assert (read(tmp_path / "a.jpg").status, read(tmp_path / "a.jpg").message) == ("missing", "the file does not exist")
    assert read(tmp_path / "link.jpg").message == "a link to a file that does not exist"
    assert read(file / "a.jpg").status == "missing"
    assert read(f"{tmp_path}/a\0.jpg").status == "missing"
    assert read(f"{tmp_path}/a\ud800.jpg").status == "missing"


def test_links_that_go_in_circles(tmp_path: Path) -> None:
    (tmp_path / "link.jpg").symlink_to("link.jpg")
    assert read(tmp_path / "link.jpg").status == "unreadable"


def test_not_a_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")  # a reader would wait for a writer
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(tmp_path)  # the path of a socket must be short
        try:
            server.bind("socket.jpg")
        finally:
            os.chdir(here)
        for path in (tmp_path / "pipe.jpg", tmp_path / "socket.jpg", Path("/dev/null")):
            found = read(path)
            assert (found.status, found.message) == ("unreadable", "a pipe, a socket or a device, not a file")
    assert read(tmp_path).message == "a folder, not a file"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_permission_denied(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jpg", CUTTABLE["baseline.jpg"])
    path.chmod(0)
    assert (read(path).status, read(path).message) == ("unreadable", "the file can't be read (Permission denied)")


def test_stderr_becomes_the_message(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    jpeg = CUTTABLE["baseline.jpg"]
    path = put(tmp_path, "a.jpg", jpeg[:2] + b"\0" * 16 + jpeg[2:])
    frame = jpeg.index(b"\xff\xdb")
    path.write_bytes(jpeg[:frame] + b"\0" * 16 + jpeg[frame:])
    found = read(path)
    assert found.status == "ok"
    assert found.message == "Corrupt JPEG data: 16 extraneous bytes before marker 0xdb"
    os.write(2, b"stderr is back\n")
    assert capfd.readouterr().err == "stderr is back\n"


def test_no_file_descriptor_is_lost(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jpg", CUTTABLE["baseline.jpg"])
    read(path)
    before = os.listdir("/dev/fd")  # noqa: PTH208
    for _ in range(20):
        read(path)
    assert len(os.listdir("/dev/fd")) == len(before)  # noqa: PTH208


def test_messages_do_not_depend_on_process_order_or_log_level(tmp_path: Path) -> None:
    everything = {**CUTTABLE, **UNUSUAL, **NOT_IMAGES, **BOMBS}
    everything |= {f"cut_{name}": data[: len(data) // 2] for name, data in everything.items()}
    paths = [str(put(tmp_path, name, data)) for name, data in everything.items()]
    first = in_a_process(paths)["found"]
    again = in_a_process([*paths[::-1], *paths], OPENCV_LOG_LEVEL="SILENT")["found"]
    assert first == again
    messages = [message for _, message, _ in first.values() if message]
    assert not [message for message in messages for part in (str(tmp_path), ".cpp", "opencv_temp") if part in message]


def test_threads_take_turns(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    names = [name for name in CUTTABLE if name != "animated.png"]
    paths = [put(tmp_path, name, CUTTABLE[name][: -len(CUTTABLE[name]) // 3]) for name in names] * 5
    alone = [read(path, keep=True).message for path in paths]
    with ThreadPoolExecutor(4) as threads:
        together = [found.message for found in threads.map(lambda path: read(path, keep=True), paths)]
    assert together == alone
    os.write(2, b"stderr is back\n")
    assert capfd.readouterr().err == "stderr is back\n"


def test_too_little_memory(tmp_path: Path) -> None:
    path = put(tmp_path, "large.jpg", encoded(".jpg", np.full((3600, 3600, 3), 128, np.uint8)))
    code = """
import resource, sys
import cv2, numpy
from featurestore.images.decoder import decode_here
from featurestore.images.image_file import read_image
decode_here()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**25, -1))
try:
    read_image(sys.argv[1], max_pixels=10**8, truncated="keep")
except MemoryError as error:
    print(error)
"""
    if not sys.platform.startswith("linux"):
        pytest.skip("reads the size of the process from /proc")
    ran = subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("not enough memory to decode the picture\n", "")


@pytest.mark.parametrize("policy", ["", "drop"])
def test_a_wrong_call_raises(policy: Any) -> None:
    with pytest.raises(ValueError, match="policy"):
        read_image("a.jpg", max_pixels=LIMIT, truncated=policy)
    with pytest.raises(ValueError, match="max_pixels=0"):
        read_image("a.jpg", max_pixels=0, truncated="keep")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(sorted(CUTTABLE)),
    changes=st.lists(st.tuples(st.integers(0, 800), st.integers(0, 255)), max_size=6),
)
def test_damaged_headers_never_raise(tmp_path: Path, name: str, changes: list[tuple[int, int]]) -> None:
    data = bytearray(CUTTABLE[name])
    for at, byte in changes:
        data[at] = byte
    path = put(tmp_path, name, bytes(data))
    read(path, keep=True, max_pixels=1_000_000)


def test_real_broken_files() -> None:
    folder = test_images() / "broken"
    for path in sorted(folder.iterdir()):
        if path.suffix != ".csv":
            found = read(path)
            assert found.status == REAL_BROKEN.get(path.name, "ok"), path.name
            assert found.status != "ok" or same_as_imread(found, path), path.name


def test_real_broken_files_need_little_memory() -> None:
    paths = [str(path) for path in sorted((test_images() / "broken").iterdir()) if path.suffix != ".csv"]
    assert in_a_process(paths)["kilobytes"] < 150_000  # the largest picture decodes to 24 MB


def test_real_paintings() -> None:
    for path in sorted((test_images() / "paintings").glob("*.jpg"))[::12]:
        found = read(path)
        assert (found.status, found.message) == ("ok", None), path.name
        assert same_as_imread(found, path), path.name

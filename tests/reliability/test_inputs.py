"""Whatever stands in the folder of images: it becomes a row with a status and a message, and the run goes on."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from featurestore import FeatureStore
from featurestore.errors import ConfigError
from tests.broken_images import NOT_IMAGES, bombs, cuts, cuttable, hollow, unusual
from tests.crash.harness import ROOT, run
from tests.crash.test_workers import SILENT
from tests.small import configure

ROWS = "SELECT filename, status, error, n_descriptors FROM extracted ORDER BY image_id"
# Of the real files, those that can't be used; all others are ok or, having no keypoints, empty.
REAL = {
    "too_large": "image_bad_reallybig.bmp pillow_decompression_bomb.gif sharp_65536_uint32_limit.png",
    "truncated": "image_bad_shortfile.bmp image_oss_fuzz_36829.jpeg image_png_x_issue_214.png sharp_corrupt_header.jpg "
    "pillow_crash_1152ec2d1a1a71395b6f2ce6721c38924d025bf3.tif sharp_truncated.jpg sharp_truncated.png "
    "pillow_oom_225817ca0f8c663be7ab4b9e717b02c661e66834.tif",
    "damaged": "pillow_hopper_bad_exif.jpg",
    "unreadable": "image_png_x_ihdr_missing.png image_png_x_unexpected_eof.png image_size_sample.png kapture_01.jpg "
    "image_zero_loop_count.gif kapture_1602074877390449152.png largescaleimaging_bark1.png pillow_broken.png "
    "pillow_broken_data_stream.png pillow_crash_754d9c7ec485ffb76a90eeaab191ef69a2a3a3cd.sgi "
    "pillow_decompression_bomb.ico pillow_negative_size.ppm pillow_pngtest_bad_png.bin sharp_check.svg",
}
FAILED = {name: status for status, names in REAL.items() for name in names.split()}
# What a worker may hold: SIFT's 240 bytes and more for each pixel of the largest picture, and the libraries.
BYTES_PER_PIXEL, LIBRARIES = 300, 500_000_000


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def listed(folder: Path, path: Path, names: list[str]) -> Path:
    """Write a dataset CSV of these files, in which every second is train."""
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["filename", "subset"])
        table.writerows([name, "test" if i % 2 else "train"] for i, name in enumerate(names))
    return path


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder of everything that can be wrong with a file, and the status that each is to have."""
    folder = tmp_path_factory.mktemp("hostile")
    expected: dict[str, str] = {}
    for name, data in cuttable().items():
        write(folder, {f"whole/{name}": data})
        write(folder, {f"cut/{share}/{name}": piece for share, piece in cuts(data).items()})
        expected |= {f"whole/{name}": "ok"} | {f"cut/{share}/{name}": "truncated" for share in cuts(data)}
    for kind, files, status in (("not", NOT_IMAGES, "unreadable"), ("bomb", bombs(), "too_large")):
        write(folder, {f"{kind}/{name}": data for name, data in files.items()})
        expected |= {f"{kind}/{name}": status for name in files}
    write(folder, {f"odd/{name}": data for name, data in unusual().items()})
    expected |= {f"odd/{name}": "ok" for name in unusual()}
    expected["odd/1x1.png"] = "empty"
    for name, data in cuttable().items():
        damaged = {f"hollow/{how}/{name}": piece for how, piece in hollow(data).items() if name.endswith(".jpg")}
        write(folder, damaged)
        expected |= dict.fromkeys(damaged, "damaged")
    (folder / "folder.jpg").mkdir()
    os.mkfifo(folder / "pipe.jpg")
    (folder / "dangling.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "circle.jpg").symlink_to(folder / "circle.jpg")
    expected |= {"folder.jpg": "unreadable", "pipe.jpg": "unreadable", "circle.jpg": "unreadable"}
    return folder, expected | {"dangling.jpg": "missing", "absent.jpg": "missing"}


# Runs the command line and says how many bytes the largest of its processes held.
MEASURED = """
import resource, subprocess, sys
code = subprocess.run([sys.executable, "-m", "featurestore", *sys.argv[1:]], stdout=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
sys.exit(code)
"""


def run_with_bounded_memory(store: FeatureStore) -> None:
    command = [sys.executable, "-c", MEASURED, "run", str(store.path), "--workers", "2", "--partial", *SILENT]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    query = "SELECT max(width::BIGINT * height) FROM extracted WHERE status IN ('ok', 'empty')"
    ((pixels,),) = store.sql(query).fetchall()
    assert int(ended.stdout) < BYTES_PER_PIXEL * pixels + LIBRARIES


def test_every_hostile_file_in_one_store(hostile: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    folder, expected = hostile
    dataset = listed(folder, tmp_path / "dataset.csv", list(expected))
    path = tmp_path / "store"
    assert run("init", path, "--images", folder, "--dataset", dataset, "--chunk-size", "50").code == 0
    run_with_bounded_memory(FeatureStore(path))
    rows = {name: (status, error) for name, status, error, _ in FeatureStore(path).sql(ROWS).fetchall()}
    assert {name: status for name, (status, _) in rows.items()} == expected
    assert [name for name, (status, error) in rows.items() if status not in ("ok", "empty") and not error] == []
    # Every stage has a row for every image.
    counts = "SELECT stage, count(*) FROM descriptor_counts GROUP BY 1 ORDER BY 1"
    assert FeatureStore(path).sql(counts).fetchall() == [(s, len(expected)) for s in ("extract", "project", "quantize")]


def test_real_broken_files(image_folder: Path, tmp_path: Path) -> None:
    """Statuses as they were judged one by one; what OpenCV can read is ok, whatever else is wrong with it."""
    path = tmp_path / "store"
    with (image_folder / "broken" / "broken.csv").open() as file:
        names = [row["path"].removeprefix("broken/") for row in csv.DictReader(file)]
    dataset = listed(image_folder / "broken", tmp_path / "dataset.csv", names)
    store = FeatureStore.create(path, images=image_folder / "broken", dataset=dataset, chunk_size=30)
    configure(store, "extract", sift={"nfeatures": 500})  # the largest picture has 10,000
    run_with_bounded_memory(store)
    rows = {name: (status, error, n) for name, status, error, n in store.sql(ROWS).fetchall()}
    assert set(rows) == set(names)
    assert {name: status for name, (status, _, _) in rows.items() if status not in ("ok", "empty")} == FAILED
    assert all(error for status, error, _ in rows.values() if status not in ("ok", "empty"))
    assert all((n > 0) == (status == "ok") for status, _, n in rows.values())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the store of `partly` and its images."""
    tmp_path = tmp_path_factory.mktemp("partly")
    images = tmp_path / "images"
    whole = cuttable()["plain.png"]
    write(images, {f"{i}.png": whole for i in range(5)} | {"4.png": whole[: len(whole) // 2]})
    dataset = listed(images, tmp_path / "dataset.csv", [f"{i}.png" for i in range(6)])
    (tmp_path / "whole.png").write_bytes(whole)
    FeatureStore.create(tmp_path / "store", images=images, dataset=dataset, chunk_size=3).run(workers=0)
    return tmp_path


@pytest.fixture
def partly(made: Path, tmp_path: Path) -> FeatureStore:
    """A store of six images of which one is missing and one truncated, run to its end."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    recipe = tmp_path / "store" / "featurestore.toml"
    recipe.write_text(recipe.read_text("utf-8").replace(str(made), str(tmp_path)), "utf-8")
    return FeatureStore(tmp_path / "store")


def statuses(store: FeatureStore, view: str) -> list[str]:
    return [status for (status,) in store.sql(f"SELECT status FROM {view} ORDER BY image_id").fetchall()]


def test_what_was_missing_is_tried_again(partly: FeatureStore, tmp_path: Path) -> None:
    assert statuses(partly, "quantized") == ["ok"] * 4 + ["truncated", "missing"]
    rows = "SELECT filename, hash(descriptors), hash(x), source_hash FROM extracted WHERE image_id < 4 ORDER BY 1"
    before, files = partly.sql(rows).fetchall(), set(partly.path.rglob("*.parquet"))
    shutil.copy(tmp_path / "whole.png", tmp_path / "images" / "5.png")
    shutil.copy(tmp_path / "whole.png", tmp_path / "images" / "4.png")
    assert partly.run(workers=0) == []  # without a question
    (done, *_) = partly.run(workers=0, retry_failed=["missing"])
    assert (done.stage, done.n_images, done.n_chunks) == ("extract", 1, 1)
    assert statuses(partly, "extracted") == ["ok"] * 4 + ["truncated", "ok"]
    assert statuses(partly, "quantized") == ["ok"] * 4 + ["truncated", "ok"]  # what is downstream has followed
    assert partly.sql(rows).fetchall() == before
    first = {path for path in files if "chunk-000000" in path.name}
    assert first <= set(partly.path.rglob("*.parquet"))
    partly.run(workers=0, retry_failed=True)
    assert statuses(partly, "quantized") == ["ok"] * 6


def test_nothing_to_try_again(partly: FeatureStore) -> None:
    ended = run("run", partly.path, "--workers", "0", "--retry-failed", "--status", "crashed,too_large")
    failed = "1 missing, 1 truncated: see the view failures (run --retry-failed tries them again)"
    assert (ended.code, ended.out) == (0, f"everything is up to date; {failed}\n")


def test_a_status_that_there_is_not(partly: FeatureStore) -> None:
    with pytest.raises(ConfigError) as caught:
        partly.run(workers=0, retry_failed=["missing", "lost"])
    assert str(caught.value) == (
        "there is no failed status 'lost'; they are missing, unreadable, truncated, damaged, too_large, crashed, "
        "unknown"
    )
    ended = run("run", partly.path, "--status", "missing")
    assert (ended.code, "--status goes with --retry-failed" in ended.err) == (2, True)


def test_a_folder_that_is_not_mounted(partly: FeatureStore, tmp_path: Path) -> None:
    """When the disk of images is gone, the run says so and records nothing; when it is back, a run makes good."""
    fresh = FeatureStore.create(
        tmp_path / "fresh", images=tmp_path / "images", dataset=tmp_path / "dataset.csv", chunk_size=3
    )
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    ended = run("run", fresh.path, "--workers", "0", "--quiet")
    assert (ended.code, ended.err) == (
        1,
        f"error: the folder of images is gone: there are no images in {tmp_path / 'images'} by any of 6 names. "
        "Nothing is recorded; put it back, or correct `images` in featurestore.toml, and run the same command again\n",
    )
    (tmp_path / "elsewhere").rename(tmp_path / "images")
    fresh.run(workers=0)
    assert fresh.sql(ROWS).fetchall() == partly.sql(ROWS).fetchall()

"""Images are decoded in a process of their own, which leaves the process that asks as it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import threadpoolctl
from PIL import Image

from featurestore import FeatureStore
from featurestore.images import ImageFile, decoder, decoding, read_image
from featurestore.rows import Status
from tests.broken_images import NOT_IMAGES, bombs, cuttable, encoded, hollow, picture, unusual

ROOT = Path(__file__).parent.parent.parent
DEADLINE = 20.0


def read(path: Path) -> ImageFile:
    return read_image(str(path), max_pixels=10**8, truncated="keep")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Some of everything, much of which the decoders complain of."""
    folder = tmp_path_factory.mktemp("files")
    jpeg = cuttable()["baseline.jpg"]
    named = {**cuttable(), **NOT_IMAGES, **bombs(), **unusual()}
    named |= {f"{name}.jpg": data for name, data in hollow(jpeg).items()}
    for name, data in named.items():
        (folder / name).write_bytes(data)
    return sorted(folder.iterdir())


@pytest.fixture
def healthy(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(".png", picture()))
    return path


def as_values(found: ImageFile) -> tuple[Any, ...]:
    pixels = None if found.pixels is None else (found.pixels.shape, found.pixels.tobytes())
    return found.status, found.message, pixels, found.width, found.height, found.source_hash


def test_it_gives_what_a_worker_makes_of_the_same_bytes(files: list[Path]) -> None:
    for path in files:
        data, found = path.read_bytes(), read(path)
        known = ImageFile(Status.OK, source_bytes=found.source_bytes, source_hash=found.source_hash)
        assert as_values(found) == as_values(decoding.judge(known, data, 10**8, keep=True)), path.name


def state_of_the_process() -> dict[str, Any]:
    return {
        "BLAS": [library["num_threads"] for library in threadpoolctl.threadpool_info()],
        "log level": cv2.utils.logging.getLogLevel(),
        "Pillow": Image.MAX_IMAGE_PIXELS,
        "warnings": list(warnings.filters),
        "folder": Path.cwd(),
        "environment": dict(os.environ),
        "files": sorted(os.readlink(f"/dev/fd/{fd}") for fd in os.listdir("/dev/fd") if int(fd) < 3),  # noqa: PTH115, PTH208
        "open": len(os.listdir("/dev/fd")),  # noqa: PTH208
    }


def chatter(done: threading.Event) -> int:
    """Print until ``done``, as other threads of the process do, and look whether anything is not as it was."""
    level, limit, filters = cv2.utils.logging.getLogLevel(), Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    count = 0
    while not done.is_set():
        os.write(2, f"line {count}\n".encode())
        now = cv2.utils.logging.getLogLevel(), Image.MAX_IMAGE_PIXELS, list(warnings.filters)
        assert now == (level, limit, filters)
        count += 1
    return count


def beside_others(work: Callable[[Any], Any], items: list[Any]) -> tuple[list[Any], int]:
    """Do the work in 8 threads, while another prints; return the results, and how many lines that one has printed."""
    done = threading.Event()
    with ThreadPoolExecutor(9) as threads:
        talk = threads.submit(chatter, done)
        try:
            results = list(threads.map(work, items))
        finally:
            done.set()
        return results, talk.result()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /dev/fd")
def test_other_threads_keep_their_stderr(files: list[Path], capfd: pytest.CaptureFixture[str]) -> None:
    alone = [as_values(read(path)) for path in files]
    before = state_of_the_process()
    together, count = beside_others(lambda path: as_values(read(path)), files)
    assert together == alone
    assert capfd.readouterr().err == "".join(f"line {i}\n" for i in range(count))
    assert state_of_the_process() == before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /dev/fd")
def test_eight_threads_ask_one_store(finished: FeatureStore, samples: Any, capfd: pytest.CaptureFixture[str]) -> None:
    table = finished.load(columns=["filename", "status"]).to_pylist()
    names = [row["filename"] for row in table if row["status"] == "ok"][::2]
    store = FeatureStore(finished.path)
    codes = {name: store.encode(samples.images / name) for name in names}
    matrix = store.matrix()
    before = state_of_the_process()

    def ask(name: str) -> bool:
        same = np.array_equal(store.encode(samples.images / name), codes[name])
        same &= np.array_equal(store.descriptors(name), codes[name])
        return same and all(map(np.array_equal, store.matrix(), matrix))

    answers, count = beside_others(ask, names)
    assert all(answers)
    assert capfd.readouterr().err == "".join(f"line {i}\n" for i in range(count))
    after = state_of_the_process()
    assert after.pop("open") <= before.pop("open") + 8  # partitions that a store keeps open
    assert after == before


def test_a_decoder_that_was_killed_is_replaced(healthy: Path) -> None:
    expected = as_values(read(healthy))
    process: Any = decoder._Here.decoder
    os.kill(process._process.pid, signal.SIGKILL)
    assert as_values(read(healthy)) == expected


def test_an_image_that_kills_the_decoder_is_crashed(healthy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder._end()
    die = "import os, signal, sys; sys.stdin.buffer.read(9); os.kill(os.getpid(), signal.SIGSEGV)"
    with monkeypatch.context() as patch:
        patch.setattr(decoder, "python_command", lambda *_: [sys.executable, "-c", die])
        found = read(healthy)
        assert (found.status, found.message) == ("crashed", "the decoder died on this image (SIGSEGV)")
        assert (found.source_bytes, found.pixels) == (healthy.stat().st_size, None)
    assert read(healthy).status == "ok"


def test_ctrl_c_in_the_middle_of_an_answer(healthy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = as_values(read(healthy))

    def interrupted(stream: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(decoder, "_receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            read(healthy)
    assert as_values(read(healthy)) == expected  # and not the answer that was left there


def test_what_the_decoder_raises_is_raised_here(healthy: Path) -> None:
    with pytest.raises(RuntimeError, match="nowhere"):
        decoder.size_of("/nowhere/a.jpg")
    assert read(healthy).status == "ok"


def test_a_process_that_was_forked_has_a_decoder_of_its_own(healthy: Path) -> None:
    expected = as_values(read(healthy))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 advises against a fork beside threads
        pid = os.fork()
    if not pid:
        os._exit(0 if as_values(read(healthy)) == expected else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert as_values(read(healthy)) == expected


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("ends", ["os.kill(os.getpid(), 9)", "pass"])
def test_the_decoder_ends_with_the_process_that_started_it(healthy: Path, ends: str) -> None:
    code = f"""
import os
from featurestore.images import decoder
from featurestore.images.image_file import read_image
from featurestore.rows import Status
read_image({str(healthy)!r}, max_pixels=10**6, truncated="keep")
print(decoder._Here.decoder._process.pid, flush=True)
{ends}
"""
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.stderr == ""
    until = time.monotonic() + DEADLINE
    while exists(int(ran.stdout)) and time.monotonic() < until:
        time.sleep(0.02)
    assert not exists(int(ran.stdout))


def test_no_temporary_file_is_left_where_there_is_no_memory_for_files(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    expected = [read(path).message for path in files]
    read_so_far = ImageFile(Status.OK)
    assert [decoding.judge(read_so_far, path.read_bytes(), 10**8, keep=True).message for path in files] == expected
    assert list(tmp_path.iterdir()) == []

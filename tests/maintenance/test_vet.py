"""An untrusted store: all it says is checked, no code in it runs, and no path leads out of it."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from featurestore import FeatureStore
from featurestore.errors import CorruptFile, FeatureStoreError, UnreadableFile, UntrustedStore
from featurestore.maintenance.sandbox import MEMORY, run_child
from featurestore.storage import CATALOG, CONFIG
from tests.catalogs import rows, tables
from tests.conftest import LONG
from tests.tampering import our_metadata, partition_manifest, rewrite_partition
from tests.warm import run_warm

CHECKOUT = Path(__file__).parent.parent.parent
CATALOGS = 12 if LONG else 6


def partition(store: Path, stage: str, chunk: int) -> Path:
    return next((store / "partitions" / stage).rglob(f"chunk-{chunk:06d}-*.parquet"))


def test_it_reads_as_a_trusted_one(finished: FeatureStore, tmp_path: Path) -> None:
    path = shutil.copytree(finished.path, tmp_path / "sent")
    (path / CATALOG).write_bytes(b"another database")
    store = FeatureStore.open_untrusted(path)
    assert store.left_out == ()
    assert store.status().stages == finished.status().stages
    question = "SELECT stage, status, sum(n_descriptors) FROM descriptor_counts GROUP BY ALL ORDER BY ALL"
    assert store.sql(question).fetchall() == finished.sql(question).fetchall()
    assert store.sql("SELECT count(*) FROM quantized").fetchall() == [(26,)]
    assert store.load().equals(finished.load())
    filename = "china/left-000.jpg"
    assert np.array_equal(store.descriptors(filename), finished.descriptors(filename))
    assert store.verify(deep=True).ok
    assert (path / CATALOG).read_bytes() == b"another database"
    (path / CATALOG).unlink()
    assert FeatureStore.open_untrusted(path).info(filename).as_dict() == finished.info(filename).as_dict()


def test_the_constructor_names_what_opens_it(tmp_path: Path) -> None:
    with pytest.raises(UntrustedStore) as caught:
        FeatureStore(tmp_path / "none", untrusted=True)  # type: ignore[arg-type]
    assert str(caught.value) == (
        "FeatureStore(path, untrusted=True) does not open untrusted stores any more; open this one with "
        "FeatureStore.open_untrusted(path)"
    )


def test_it_can_not_be_changed(store: FeatureStore) -> None:
    before = sorted(os.walk(store.path))
    opened = FeatureStore.open_untrusted(store.path)
    for verb in ("run", "ingest", "prune", "rebuild", "merge"):
        text = f"was opened as untrusted, so {verb} can't change it; if you trust it, open it without --untrusted"
        with pytest.raises(UntrustedStore, match=text):
            getattr(opened, verb)()
    with pytest.raises(UntrustedStore, match="was opened as untrusted, so verify --repair can't change it"):
        opened.verify(repair=True)
    assert sorted(os.walk(store.path)) == before


def test_what_is_not_what_it_promises_is_left_out(store: FeatureStore) -> None:
    path = partition(store.path, "quantize", 1)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    opened = FeatureStore.open_untrusted(store.path)
    assert len(opened.left_out) == 1
    assert opened.left_out[0].startswith("left out: ")
    assert opened.sql("SELECT count(*) FROM quantized").fetchall() == [(18,)]
    problems = opened.verify().problems
    assert [problem.kind for problem in problems] == ["untrusted", "orphan"]


def test_links_are_refused(store: FeatureStore, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    for name in ("partitions/extract/out", "dataset/000002.parquet", "run.lock.json", "models/m.npz"):
        link = store.path / name
        kept = link.read_bytes() if link.exists() else None
        link.unlink(missing_ok=True)
        link.symlink_to(secret)
        with pytest.raises(
            UntrustedStore, match=f"{name} is a link, and an untrusted store may hold files and folders"
        ):
            FeatureStore.open_untrusted(store.path)
        link.unlink()
        if kept is not None:
            link.write_bytes(kept)
    os.mkfifo(store.path / "models" / "pipe.npz")
    with pytest.raises(UntrustedStore, match=r"pipe.npz is a pipe, a socket or a device, and an untrusted store may"):
        FeatureStore.open_untrusted(store.path)


def test_a_recipe_that_is_a_link_is_not_read(store: FeatureStore, tmp_path: Path) -> None:
    (store.path / CONFIG).rename(tmp_path / "secret.toml")
    (store.path / CONFIG).symlink_to(tmp_path / "secret.toml")
    with pytest.raises(UntrustedStore, match=r"featurestore.toml is a link"):
        FeatureStore.open_untrusted(store.path)


def test_no_path_in_a_manifest_leads_out(store: FeatureStore) -> None:
    entries = ("stage", "variant", "payload")
    for chunk, entry in enumerate(entries):
        path = partition(store.path, "extract", chunk)
        rewrite_partition(path, {"featurestore": json.dumps({**partition_manifest(path), entry: "../../secret"})})
    opened = FeatureStore.open_untrusted(store.path)
    assert len(opened.left_out) == len(entries)
    for entry in entries:
        assert sum(f"whose {entry} is '../../secret'" in line for line in opened.left_out) == 1


@pytest.mark.usefixtures("cold_sandbox")  # in a warm one, Arrow's own allocator would keep what it has freed
def test_a_partition_that_unpacks_to_more_than_memory_is_left_out(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A third of a megabyte that a dictionary blows up to 100 GB: no number in its metadata says so."""
    path = partition(store.path, "extract", 0)
    n, table = 1000, pq.read_table(path)
    columns = {name: table[name].take([0] * n) for name in table.column_names}
    blob = pa.array([bytes(100 << 20)], pa.binary())
    columns["descriptors"] = pa.DictionaryArray.from_arrays(pa.array([0] * n, pa.int32()), blob)
    columns["image_id"] = pa.array(range(n), pa.int64())
    metadata = {name.decode(): value.decode() for name, value in our_metadata(path).items()}
    metadata["featurestore"] = json.dumps({**partition_manifest(path), "n_images": n})
    bomb = pa.table(columns)
    # Without Arrow's own schema, so that the column reads as plain BLOBs.
    with pq.ParquetWriter(path, bomb.schema, compression="zstd", store_schema=False, write_statistics=False) as writer:
        writer.write_table(bomb)
        writer.add_key_value_metadata(metadata)
    assert path.stat().st_size < 1 << 20
    # A quarter of the limit is filled in a quarter of the time.
    monkeypatch.setattr("featurestore.maintenance.vet.run_child", partial(run_child, memory=MEMORY // 4))
    [line] = FeatureStore.open_untrusted(store.path).left_out
    assert line.startswith(f"left out: {path} can't be read: Cannot allocate memory; ")


def test_the_modules_of_the_current_folder_are_not_run(store: FeatureStore) -> None:
    for name in ("featurestore", "duckdb", "json"):
        (store.path / f"{name}.py").write_text("raise SystemExit('taken over')", encoding="utf-8")
    command = [sys.executable, str(CHECKOUT / "cli.py"), "status", ".", "--untrusted"]
    done = subprocess.run(command, cwd=store.path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "extract         4/4" in done.stdout


def test_a_dataset_file_that_makes_the_reader_fail_is_one_line(store: FeatureStore) -> None:
    (store.path / "dataset" / "000001.parquet").write_bytes(b"PAR1" + b"\xff" * 100 + b"PAR1")
    done = run_warm("featurestore", "status", store.path, "--untrusted")
    assert done.returncode == 1
    assert re.fullmatch(r"error: dataset/000001.parquet can't be read \(.*\); put back a copy of it\n", done.stderr)


@pytest.mark.usefixtures("cold_sandbox")
def test_a_child_that_crashes_is_one_line(store: FeatureStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\nif 'vet' in sys.argv: print('partitions/x'); sys.stdout.flush(); "
        "os.kill(os.getpid(), signal.SIGSEGV)\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(
        CorruptFile, match=r"^the process that reads \S+ ended with SIGSEGV.*; the file is damaged, or was"
    ):
        FeatureStore.open_untrusted(store.path)


@pytest.mark.usefixtures("cold_sandbox")
def test_a_child_without_memory_is_one_line(store: FeatureStore, tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match=r"^\S+ can't be read: "):
        run_child("vet", store.path, tmp_path / CATALOG, memory=400 << 20)


TOML_VALUES: st.SearchStrategy[Any] = st.sampled_from(
    [
        *("1", "-1", "0", "1e400", "nan", "inf", "9" * 400, "true", '""', '"x"', '"\\u0000"', "[]", "[[1]]", "{}"),
        *('"../../.."', '"~no-such-user"', "1979-05-27", "9223372036854775808", '"\\U0010FFFF"', "{a = {}}"),
    ]
)


@example(line=32, value="9" * 400, noise=None, place=0)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(line=st.integers(0, 40), value=TOML_VALUES, noise=st.none() | st.binary(max_size=8), place=st.integers(0, 1500))
def test_no_recipe_is_more_than_one_line_of_error(
    finished: FeatureStore, tmp_path: Path, line: int, value: str, noise: bytes | None, place: int
) -> None:
    lines = (finished.path / CONFIG).read_text(encoding="utf-8").splitlines()
    settings_at = [i for i, text in enumerate(lines) if re.match(r"\w+ = ", text)]
    at = settings_at[line % len(settings_at)]
    lines[at] = f"{lines[at].split(' = ')[0]} = {value}"
    data = "\n".join(lines).encode()
    folder = tmp_path / "other"
    folder.mkdir(exist_ok=True)
    (folder / CONFIG).write_bytes(data if noise is None else data[:place] + noise + data[place:])
    try:
        store = FeatureStore(folder)
    except FeatureStoreError as error:
        assert len(str(error)) < 1000  # noqa: PT017 - most mutations are refused, and some are recipes
        return
    shutil.copy(finished.path / CATALOG, folder / CATALOG)
    try:
        store.status()
        store.plan()
    except FeatureStoreError:
        pass  # also a right answer: what counts is that nothing else is raised


@pytest.mark.parametrize("text", ["a = " + "[" * 50_000, "x = 1\n" * 300_000])
def test_a_recipe_of_nothing_but_brackets_is_refused(store: FeatureStore, text: str) -> None:
    (store.path / CONFIG).write_text(text, encoding="utf-8")
    with pytest.raises(FeatureStoreError, match=r"^featurestore.toml can't be read: .*Correct the file, or put back a"):
        FeatureStore(store.path)


@pytest.mark.usefixtures("cold_sandbox")  # whose crash is one of the right answers
def test_a_mutated_catalog_is_right_or_one_line(store: FeatureStore) -> None:
    """Each is opened in a process of its own, which may not crash; what is not refused says what it said before."""
    rng, whole = random.Random(7), (store.path / CATALOG).read_bytes()
    expected = run_warm("featurestore", "status", store.path).stdout
    refused = 0
    for number in range(CATALOGS):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 6)):
            start = rng.randrange(len(data) if number % 2 else 20_000)
            data[start : start + 8] = rng.randbytes(8)
        (store.path / CATALOG).write_bytes(data if number % 5 else data[: rng.randrange(len(data))])
        done = run_warm("featurestore", "status", store.path)
        if done.returncode == 0:
            assert done.stdout == expected
        else:
            refused += 1
            assert done.returncode == 1, done
            assert re.fullmatch(rf"error: .*featurestore rebuild {store.path}\n", done.stderr), done
    assert refused > CATALOGS // 3
    (store.path / CATALOG).write_bytes(bytes(data))
    before = tables(store.path, without=("runs",)) if done.returncode == 0 else None
    store.rebuild()
    assert rows(store.path, "SELECT count(*) FROM partitions") == [(12,)]
    assert before is None or tables(store.path, without=("runs",)) == before

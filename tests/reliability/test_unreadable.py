"""A file, a folder or a catalog that can't be read is said to be unreadable: never damaged, deleted or left out."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from featurestore import FeatureStore
from featurestore.errors import CorruptFile, NotEnoughSpace, StoreBusy, UnreadableFile
from featurestore.exchange.importers.npz import notebook_files
from featurestore.maintenance import recover_store
from featurestore.maintenance.sandbox import run_child
from featurestore.storage import CATALOG, CONFIG
from tests.catalogs import change, tables
from tests.faults import EIO, forbidden, largest_file, no_open_files, ordinary_user
from tests.once import copied
from tests.small import Listening, configure, context_of, copy, digests, make_small, small_store
from tests.warm import start_server


@pytest.fixture(scope="module", autouse=True)
def _server_of_root() -> None:
    start_server()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A small store with every stage done. Not to be changed: see `small`."""

    def make(folder: Path) -> None:
        make_small(folder / "images", n=6)
        small_store(folder / "store", folder / "images", chunk_size=2).run(workers=0)

    store = FeatureStore(copied(tmp_path_factory, "unreadable", make) / "store")
    images = store.path.parent / "images"
    # Its own images, since tests hide them
    configure(store, "store", images=str(images), dataset=str(images / "dataset.csv"))
    return store


@pytest.fixture
def small(made: FeatureStore, tmp_path: Path) -> FeatureStore:
    return copy(made, tmp_path / "store")


def partition(store: FeatureStore, stage: str, chunk: int) -> Path:
    return next((store.path / "partitions" / stage).rglob(f"chunk-{chunk:06d}-*.parquet"))


def model(store: FeatureStore, stage: str) -> Path:
    return next((store.path / "models" / stage).rglob("*.npz"))


def name_of(store: FeatureStore, path: Path) -> str:
    return path.relative_to(store.path).as_posix()


def test_a_rebuild_lists_what_it_can_not_read_and_leaves_the_catalog(small: FeatureStore) -> None:
    before, catalog = digests(small), (small.path / CATALOG).read_bytes()
    hidden = [partition(small, "quantize", 1), model(small, "fit_pca"), partition(small, "project", 0).parent]
    with forbidden(*hidden), pytest.raises(UnreadableFile) as caught:
        small.rebuild()
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("the catalog is left as it was")
    for path in hidden:
        assert f"{name_of(small, path)} can't be read: Permission denied" in str(caught.value)
    assert str(caught.value).endswith(
        ". Make it readable, or move what you do not need out of the store, then rebuild again"
    )
    assert (small.path / CATALOG).read_bytes() == catalog
    assert digests(small) == before
    assert small.rebuild().notes == ()


def test_a_rebuild_of_a_folder_whose_files_are_listed_and_can_not_be_opened(small: FeatureStore) -> None:
    folder = partition(small, "project", 0).parent
    mode = folder.stat().st_mode
    with ordinary_user():
        folder.chmod(0o444)
        try:
            with pytest.raises(UnreadableFile, match="can't be read: Permission denied") as caught:
                small.rebuild()
        finally:
            folder.chmod(mode)
    assert "\n" not in str(caught.value)
    assert small.rebuild().notes == ()


def test_a_rebuild_keeps_a_catalog_that_it_can_not_read(small: FeatureStore) -> None:
    """Its record of runs is nowhere else."""
    before = tables(small.path)
    with (
        forbidden(small.path / CATALOG),
        pytest.raises(UnreadableFile, match=r"catalog\.duckdb can't be read: Permission"),
    ):
        small.rebuild()
    assert tables(small.path) == before


def test_a_rebuild_without_a_dataset_file_it_can_read(small: FeatureStore) -> None:
    for path in (small.path / "dataset", small.path / "dataset" / "000001.parquet"):
        with forbidden(path), pytest.raises(UnreadableFile, match=f"^{path} can't be read: Permission denied; "):
            small.rebuild()


def orphans(store: FeatureStore) -> list[Path]:
    """A partition and a model of which the catalog knows nothing, as after a kill."""
    which = "WHERE stage = 'quantize' AND chunk_id = 1"
    change(store.path, f"DELETE FROM partitions {which}", f"DELETE FROM results {which}")
    change(
        store.path,
        "DELETE FROM models WHERE stage = 'fit_scale'",
        "DELETE FROM training_images WHERE model_id NOT IN (SELECT model_id FROM models)",
    )
    return [partition(store, "quantize", 1), model(store, "fit_scale")]


@pytest.mark.parametrize("whole", [False, True])
def test_recovery_leaves_alone_what_it_can_not_read(small: FeatureStore, whole: bool) -> None:
    """Not even a damaged file is deleted before it has been read."""
    before = tables(small.path)
    found = orphans(small)
    if not whole:
        for path in found:
            path.write_bytes(path.read_bytes()[:100])
    listening = Listening()
    with forbidden(*found):
        recover_store(context_of(small, listening))
    assert all(path.exists() for path in found)
    assert [line.partition(";")[0] for line in listening.said] == [
        f"left alone: {path} can't be read: Permission denied" for path in reversed(found)
    ]
    recover_store(context_of(small))
    assert [path.exists() for path in found] == [whole, whole]
    assert (tables(small.path) == before) == whole


def test_a_pipe_with_the_name_of_a_file_keeps_nobody_waiting(small: FeatureStore) -> None:
    """To open a pipe takes until somebody writes into it."""
    partitions, models = orphans(small)
    for path in (partitions, models):
        path.unlink()
        os.mkfifo(path)
    names = [path.relative_to(small.path).as_posix() for path in (models, partitions)]
    listening = Listening()
    recover_store(context_of(small, listening))
    what = "a pipe, a device or a link to no file"
    assert listening.said == [f"left alone: {small.path / name} is {what}; remove it" for name in names]
    found = [str(problem) for problem in small.verify(repair=True).problems if problem.name in names]
    assert sorted(found) == [f"orphan: {name}: it is {what}; remove it" for name in names]
    notes = small.rebuild().notes
    assert f"left out: {names[0]} is {what}" in notes
    assert f"left out: {names[1]}: the file is missing" in notes
    os.mkfifo(small.path / "dataset" / "000002.parquet")
    with pytest.raises(CorruptFile, match=rf"^dataset/000002\.parquet is {what}; put back a copy of it$"):
        small.rebuild()


def test_recovery_says_which_folders_it_can_not_list(small: FeatureStore) -> None:
    found = orphans(small)
    listening = Listening()
    folders = sorted((path.parent for path in found), key=str)
    with forbidden(*folders):
        recover_store(context_of(small, listening))
    assert [line.split(" can't")[0] for line in listening.said] == [f"left alone: {folder}" for folder in folders]
    assert all(path.exists() for path in found)


def test_recovery_stops_at_a_dataset_file_that_it_can_not_read(small: FeatureStore) -> None:
    path = small.path / "dataset" / "000001.parquet"
    change(small.path, "DELETE FROM ingests")
    with forbidden(path), pytest.raises(UnreadableFile, match="Permission denied"):
        recover_store(context_of(small))


def test_a_run_does_not_replace_what_it_can_not_read(small: FeatureStore) -> None:
    path = partition(small, "quantize", 1)
    data = path.read_bytes()
    change(small.path, "DELETE FROM partitions WHERE stage = 'quantize' AND chunk_id = 1")
    with forbidden(path), pytest.raises(UnreadableFile, match="Permission denied"):
        small.run(workers=0)
    assert path.read_bytes() == data


def test_what_a_stage_reads_can_not_be_read(small: FeatureStore) -> None:
    path = partition(small, "project", 1)
    partition(small, "quantize", 1).unlink()
    change(small.path, "DELETE FROM partitions WHERE stage = 'quantize' AND chunk_id = 1")
    with forbidden(path), pytest.raises(UnreadableFile, match=f"{path} can't be read: Permission denied"):
        small.run(workers=0)
    with forbidden(path), pytest.raises(UnreadableFile, match=f"{path} can't be read: Permission denied"):
        small.load("project")


def places(store: FeatureStore) -> dict[str, Path]:
    return {
        "partition": partition(store, "quantize", 1),
        "model": model(store, "fit_pca"),
        "dataset": store.path / "dataset" / "000001.parquet",
        "folder": partition(store, "project", 0).parent,
        "models": store.path / "models",
    }


@pytest.mark.parametrize("names", ["partition model dataset folder", "models"])
@pytest.mark.parametrize("deep", [False, True])
def test_verify_goes_on_where_it_can_not_read(small: FeatureStore, names: str, deep: bool) -> None:
    paths, damaged = [places(small)[name] for name in names.split()], partition(small, "extract", 2)
    before = digests(small, "partitions/**/*", "models/**/*", "dataset/*")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with forbidden(*paths):
        report = small.verify(deep=deep)
    kinds = {problem.kind for problem in report.problems}
    assert kinds == {"unreadable", "partition"}
    assert any(problem.name == name_of(small, damaged) for problem in report.problems)
    found = [problem for problem in report.problems if problem.kind == "unreadable"]
    assert {name_of(small, path) for path in paths} <= {problem.name for problem in found}
    assert {problem.what for problem in found} == {"it can't be read: Permission denied"}
    with forbidden(*paths):
        mended = small.verify(deep=deep, repair=True)
    assert {problem.kind for problem in mended.problems} == {"unreadable"}
    assert mended.repaired == [f"{name_of(small, damaged)}: dropped"]
    small.run(workers=0)
    assert digests(small, "partitions/**/*", "models/**/*", "dataset/*") == before
    assert small.verify().ok


def test_verify_of_a_catalog_that_can_not_be_read(small: FeatureStore) -> None:
    with forbidden(small.path / CATALOG):
        report = small.verify(repair=True)
    (problem,) = report.problems
    assert (problem.kind, problem.name) == ("unreadable", CATALOG)
    assert "rebuild" not in str(problem)


def test_image_files_that_can_not_be_read(made: FeatureStore, tmp_path: Path) -> None:
    """What was extracted from them stays, and an image of which a run has said so is no news."""
    images = made.path.parent / "images"
    store = copy(made, tmp_path / "store")
    with forbidden(images / "003.png"):
        assert [(p.kind, p.name) for p in store.verify(deep=True).problems] == [("unreadable", "003.png")]
        before = digests(store)
        assert store.run("extract", check_images=True, workers=0) == []
    with forbidden(images):
        assert {(p.kind, p.what) for p in store.verify().problems} == {
            ("unreadable", "it can't be read: Permission denied")
        }
    assert digests(store) == before


READERS: dict[str, Callable[[FeatureStore], object]] = {
    "status": FeatureStore.status,
    "sql": lambda store: store.sql("SELECT * FROM images"),
    "load": FeatureStore.load,
    "run": lambda store: store.run(workers=0),
    "plan": FeatureStore.plan,
    "ingest": FeatureStore.ingest,
}


@pytest.mark.parametrize("verb", READERS)
def test_a_catalog_that_can_not_be_read(small: FeatureStore, verb: str) -> None:
    with forbidden(small.path / CATALOG), pytest.raises(UnreadableFile) as caught:
        READERS[verb](small)
    assert str(caught.value).startswith(f"{small.path / CATALOG} can't be read: Permission denied; ")
    assert "rebuild" not in str(caught.value)


@pytest.mark.parametrize("verb", READERS)
def test_too_many_open_files(small: FeatureStore, verb: str) -> None:
    READERS[verb](small)  # so that everything is imported
    small.status()
    with no_open_files(), pytest.raises(UnreadableFile, match=r"Too many open files.*ulimit -n") as caught:
        READERS[verb](small)
    assert "rebuild" not in str(caught.value)


def test_single_images_with_too_many_open_files(small: FeatureStore) -> None:
    small.descriptors("000.png")  # so that everything is imported
    other = FeatureStore(small.path)
    with no_open_files(), pytest.raises(UnreadableFile, match="Too many open files"):
        other.descriptors("005.png")
    assert len(other.descriptors("005.png"))


def test_a_store_whose_recipe_can_not_be_read(small: FeatureStore) -> None:
    for path in (small.path, small.path / CONFIG):
        with forbidden(path), pytest.raises(UnreadableFile, match="Permission denied"):
            FeatureStore(small.path)
    (small.path / CONFIG).unlink()
    (small.path / CONFIG).symlink_to(EIO)
    with pytest.raises(UnreadableFile, match="Input/output error"):
        FeatureStore(small.path)


def test_a_merge_with_files_that_can_not_be_read(small: FeatureStore, made: FeatureStore, tmp_path: Path) -> None:
    other = copy(made, tmp_path / "other")
    change(
        small.path, "DELETE FROM partitions WHERE stage = 'quantize'", "DELETE FROM results WHERE stage = 'quantize'"
    )
    shutil.rmtree(small.path / "partitions" / "quantize")
    path = partition(other, "quantize", 2)
    with forbidden(path), pytest.raises(UnreadableFile, match=f"^{path} can't be read: Permission denied"):
        small.merge(other.path)
    assert [path for path in (small.path / "partitions" / "quantize").rglob("*") if path.is_file()] == []


def test_the_notebooks_files(tmp_path: Path) -> None:
    path = tmp_path / "sift_chunk_0.npz"
    path.write_bytes(b"PK")
    for hidden in (path, tmp_path):
        with forbidden(hidden), pytest.raises(UnreadableFile, match=f"^{hidden} can't be read: Permission denied"):
            notebook_files(tmp_path)


def test_untrusted_stores(small: FeatureStore) -> None:
    path = partition(small, "quantize", 1)
    with forbidden(path):
        opened = FeatureStore.open_untrusted(small.path)
    assert [line.partition(";")[0] for line in opened.left_out] == [
        f"left out: {path} can't be read: Permission denied"
    ]
    with (
        forbidden(small.path / "models"),
        pytest.raises(UnreadableFile, match="models can't be read: Permission denied"),
    ):
        FeatureStore.open_untrusted(small.path)


@pytest.fixture
def child(cold_sandbox: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Let the child do something else than its job."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder))

    def does(code: str) -> None:
        script = f"import sys\nif 'salvage' in sys.argv:\n    {code}\n"
        (folder / "sitecustomize.py").write_text(script, encoding="utf-8")

    yield does
    assert sys.executable


@pytest.mark.parametrize(
    ("code", "error", "text"),
    [
        (f"import os; os.kill(os.getpid(), {signal.SIGKILL})", UnreadableFile, "ended with SIGKILL; nothing is known"),
        (f"import os; os.kill(os.getpid(), {signal.SIGSEGV})", CorruptFile, "ended with SIGSEGV"),
        ("sys.stderr.write('MemoryError'); sys.exit(1)", UnreadableFile, "Cannot allocate memory; nothing is known"),
        (
            "import os; sys.stderr.write('std::bad_alloc\\\\n'); sys.stderr.flush(); os.abort()",
            UnreadableFile,
            "memory",
        ),
        ("""print('["StoreBusy", "x", {}]'); import os; sys.stdout.flush(); os._exit(3)""", StoreBusy, "^x$"),
    ],
)
def test_how_a_child_ends(
    small: FeatureStore, child: Callable[[str], None], code: str, error: type[Exception], text: str
) -> None:
    """A crash is the file's fault, and what ends the process from outside is not."""
    child(code)
    with pytest.raises(error, match=text):
        run_child("salvage", small.path / CATALOG, small.path / "runs.parquet")


def test_a_rebuild_that_lacks_open_files_does_not_blame_the_catalog(
    small: FeatureStore, child: Callable[[str], None]
) -> None:
    child("sys.stderr.write('OSError: [Errno 24] Too many open files'); sys.exit(1)")
    with pytest.raises(UnreadableFile) as caught:
        small.rebuild()
    assert str(caught.value).endswith(
        f"{CATALOG} can't be read: Too many open files. Raise the limit of open files (ulimit -n), then rebuild again"
    )


def test_a_child_without_room_says_so(
    small: FeatureStore, cold_sandbox: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")  # cut off, it would be read by every later process
    catalog, target = small.path / CATALOG, tmp_path / "runs.parquet"
    message = f"^File too large: what is read of {catalog} could not be written; .* Make room on the disk"
    with largest_file(1000), pytest.raises(NotEnoughSpace, match=message):
        run_child("salvage", catalog, target)

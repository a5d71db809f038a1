"""A service can follow what the library does, and the command line can write it down."""

from __future__ import annotations

import ast
import logging
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import featurestore
from featurestore import FeatureStore
from featurestore.cli.log import log_records
from featurestore.engines import Task, dispatch_tasks
from featurestore.engines.inline import InlineEngine
from featurestore.errors import StoreBusy
from featurestore.progress import Bar, Events, Lines, Reporter, Summaries
from featurestore.storage import block_names
from tests.small import configure, context_of, invoke, make_small, small_store

PACKAGE = Path(featurestore.__file__).parent
ROOMS = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARNING|ERROR) \d+ (featurestore\S*): \S.*")


@pytest.fixture(scope="module")
def six_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder ``images``, and a store of it in which nothing was run. Not to be changed: see `copied`."""
    folder = tmp_path_factory.mktemp("six")
    make_small(folder / "images", n=6)
    store = small_store(folder / "store", folder / "images", chunk_size=3)
    configure(store, "store", images="../images", dataset="../images/dataset.csv")
    return folder


def copied(six_pictures: Path, folder: Path) -> FeatureStore:
    """Return a copy of the store below ``folder``, with the images beside it."""
    shutil.copytree(six_pictures, folder, dirs_exist_ok=True)
    return FeatureStore(folder / "store")


@pytest.fixture(scope="module")
def ran(six_pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    store = copied(six_pictures, tmp_path_factory.mktemp("log"))
    store.run("extract", workers=0)
    return store


LOGGER = "logging.getLogger"
PRINTS = {"print", "click.echo", "warnings.warn", "logging.basicConfig", "sys.stdout.write", "sys.stderr.write"}
NAMES = {called.rpartition(".")[2] for called in (LOGGER, *PRINTS)}


@cache
def calls() -> list[tuple[Path, str, list[ast.expr]]]:
    """Return calls by these names: their files below the package, the text of what is called, and a logger's name."""
    return [
        (path.relative_to(PACKAGE), called := ast.unparse(node.func), node.args if called == LOGGER else [])
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", None)) in NAMES
    ]


def test_every_room_has_one_logger() -> None:
    for path, called, arguments in calls():
        if called == LOGGER and len(path.parts) > 1 and path.parts[0] != "cli":
            if not isinstance(arguments[0], ast.Constant):  # the loggers of Dask, which are silenced
                assert path.as_posix() == "engines/dask_client.py"
                continue
            assert path.parts[0] in ROOMS
            assert ast.literal_eval(arguments[0]) == f"featurestore.{path.parts[0]}", path


def test_the_library_prints_nothing() -> None:
    found = {str(path) for path, called, _ in calls() if called in PRINTS and path.parts[0] != "cli"}
    # The program, the reporter that the command line shows, and a child process that answers its parent.
    assert found == {"__main__.py", "progress.py", "maintenance/sandboxed.py"}


def test_a_service_that_configures_nothing_sees_nothing(ran: FeatureStore, capfd: pytest.CaptureFixture[str]) -> None:
    assert [type(handler) for handler in logging.getLogger("featurestore").handlers] == [logging.NullHandler]
    ran.run("extract", workers=0, retry_failed=True)
    assert capfd.readouterr() == ("", "")


def test_a_run_can_be_followed(six_pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = copied(six_pictures, tmp_path)
    caplog.set_level(logging.INFO, "featurestore")
    store.run(workers=0)
    said = [f"{record.name.removeprefix('featurestore.')}: {record.getMessage()}" for record in caplog.records]
    for wanted in (
        r"storage: run holds the run lock of .*",
        r"progress: extract: begins with 6 images",
        r"catalog: run \w{32} of extract begins: variant \w{16}, 0 workers",
        r"catalog: recorded partitions/extract/\w+/chunk-000001-\w+\.parquet: 3 images, [\d,]+ descriptors, \d+ bytes",
        r"catalog: run \w{32} of extract ends after \d+\.\d s, done, .*'n_images': 6.*",
        r"progress: extract +6 images \(6 ok\), .*",
        r"catalog: recorded models/fit_pca/\w+/\w+\.npz: a model of 5 images",
        r"storage: run releases the run lock after \d+\.\d s",
    ):
        assert len([line for line in said if re.fullmatch(wanted, line)]) == 1, (wanted, said)


def test_a_failed_run_is_a_warning(six_pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = copied(six_pictures, tmp_path)
    for path in (tmp_path / "images").glob("*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(featurestore.FeatureStoreError):
        store.run("extract", workers=0)
    found = [record for record in caplog.records if record.name == "featurestore.catalog"]
    assert [record.levelname for record in found] == ["WARNING"]
    assert "of extract ends after" in found[0].getMessage()
    assert "failed: not one of" in found[0].getMessage()


@dataclass(frozen=True)
class Greedy:
    """A task that lacks memory."""

    chunk_id: int = 7

    def run(self) -> list[str]:
        raise MemoryError

    def split(self) -> list[Task[str]]:
        return [self]

    def crashed(self, reason: str) -> list[str]:
        return [reason]


def test_an_image_that_crashes_its_worker_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert len(list(dispatch_tasks(InlineEngine(), [Greedy()]))) == 1
    assert [(record.name, record.levelname) for record in caplog.records] == [("featurestore.engines", "WARNING")] * 2
    assert "a task of chunk 7 crashes its worker" in caplog.records[1].getMessage()


def test_recovery_is_logged(ran: FeatureStore, caplog: pytest.LogCaptureFixture) -> None:
    context = context_of(ran)
    partition = min(context.root.files("partitions", ".parquet"))
    with context.catalog.transaction() as connection:
        connection.execute("DELETE FROM results")
        connection.execute("DELETE FROM partitions")
        connection.execute("UPDATE runs SET outcome = 'running'")
    caplog.set_level(logging.INFO, "featurestore")
    ran.run("extract", workers=0)
    said = caplog.text
    assert "run as killed" in said
    assert f"recorded {partition}" in said
    assert block_names(context.root) == []


def test_a_slow_transaction_is_a_warning(
    ran: FeatureStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("featurestore.catalog.lock.SLOW_SECONDS", 0.0)
    with context_of(ran).catalog.transaction():
        pass
    assert re.search(r"WARNING .*a transaction took \d+\.\d s; other processes waited for it", caplog.text)


def test_a_log_file_is_appended_to(ran: FeatureStore, tmp_path: Path) -> None:
    log = tmp_path / "a log"
    for verb in ("verify", "verify"):
        assert invoke(verb, ran.path, "--log-file", log).exit_code == 0
    lines = log.read_text(encoding="utf-8").splitlines()
    assert all(LINE.fullmatch(line) for line in lines)
    assert sum("verify holds the run lock" in line for line in lines) == 2


def test_a_level_alone_logs_to_stderr(ran: FeatureStore) -> None:
    ended = invoke("status", ran.path, "--log-level", "DEBUG")
    assert all(LINE.fullmatch(line) for line in ended.stderr.splitlines())
    assert " DEBUG " in ended.stderr
    assert invoke("status", ran.path, "--log-level", "info").stderr == ""


@pytest.mark.parametrize("kind", [Summaries, Bar, Lines, Events])
def test_what_is_shown_is_not_logged_to_stderr_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: Callable[[], Reporter]
) -> None:
    reporter, log = kind(), tmp_path / "log"
    with log_records("info", None), log_records("info", log):
        reporter.begin("extract", 2)
        reporter.say("the lamp is on")
        reporter.end(None)
    assert capsys.readouterr().err.count("the lamp is on") == 1
    assert log.read_text(encoding="utf-8").count("the lamp is on") == 1


def test_a_record_is_one_line(tmp_path: Path) -> None:
    with log_records("info", tmp_path / "log"):
        logging.getLogger("featurestore.images").warning("two\nlines of %s", "a\x1b[31m.png")
    assert LINE.fullmatch((tmp_path / "log").read_text(encoding="utf-8").rstrip("\n"))


def test_an_error_is_in_the_log(tmp_path: Path) -> None:
    with pytest.raises(StoreBusy), log_records(None, tmp_path / "log"):
        raise StoreBusy("another process has it")
    assert (
        (tmp_path / "log").read_text(encoding="utf-8").endswith("featurestore.cli: StoreBusy: another process has it\n")
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--log-level", "loud"), "'loud' is not one of 'debug', 'info', 'warning', 'error'"),
        (("--log-file", "none/here"), "can't be written: No such file or directory; choose another --log-file"),
        (("--log-file", "store/catalog.duckdb"), "would lie in the store"),
    ],
)
def test_a_log_that_can_not_be(
    ran: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, str], says: str
) -> None:
    monkeypatch.chdir(ran.path.parent)
    before = (ran.path / "catalog.duckdb").read_bytes()
    ended = invoke("status", ran.path, *options)
    assert ended.exit_code != 0
    assert (ran.path / "catalog.duckdb").read_bytes() == before
    said: Any = ended.exception if ended.exception and str(ended.exception) not in ("1", "2") else ended.stderr
    assert says in " ".join(str(said).split())


def test_a_full_disk_under_the_log_is_one_warning(ran: FeatureStore) -> None:
    ended = invoke("verify", ran.path, "--log-level", "debug", "--log-file", "/dev/full")
    assert ended.exit_code == 0
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("warning: /dev/full is incomplete")

"""Ctrl-C and SIGTERM: a verb ends in order, says how to go on, and nothing of it is left."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import uuid
from pathlib import Path
from typing import Any

import pytest

from featurestore import FeatureStore
from featurestore.catalog import Catalog
from featurestore.catalog.catalog import StoreCatalog
from featurestore.catalog.statements import query_arrow
from featurestore.storage import Root
from featurestore.system import SIGNALS, Interrupt, held_back, interruptible
from featurestore.system.signals import ECHO
from tests.crash.conftest import Ground
from tests.crash.harness import left_alive, left_in_session, photograph, run, runs, sabotage
from tests.small import Unlocked, in_blocks, note_extractions

CODES = {"SIGINT": 130, "SIGTERM": 143}


def test_a_run_is_stopped_in_order_wherever_it_is(ground: Ground, tmp_path: Path) -> None:
    store, log, mark = ground.store(tmp_path / "store"), tmp_path / "log", uuid.uuid4().hex
    stops: list[tuple[str, str, str, dict[str, Any]]] = [
        ("SIGINT", "extract", "2", {"stage": "extract", "seconds": 0.1}),  # while workers start
        ("SIGTERM", "extract", "2", {"points": ["published partitions/extract"]}),
        ("SIGINT", "fit_pca", "2", {"points": ["renamed models/fit_pca/state.npz"]}),
        ("SIGINT", "project", "1", {"points": ["written partitions/project"]}),  # while the worker writes the next
        ("SIGINT", "quantize", "2", {"points": ["uncommitted partitions/quantize"]}),
    ]
    for name, stage, workers, plan in stops:
        verb = ("run", store, "--workers", workers)
        marked = mark if "seconds" in plan else ""  # with a mark, workers start as users' do
        ended = sabotage(log, plan.pop("points", ()), *verb, mark=marked, signal=name, **plan)
        assert ended.code == CODES[name], (name, stage, ended)
        assert ended.err.strip() == f"stopped; finished work is kept. To continue: featurestore run {store}"
        assert [(record["stage"], record["outcome"]) for record in runs(store)][-1] == (stage, "interrupted")
        assert left_in_session(ended) == left_alive(mark) == []
        assert not list(store.rglob(".tmp-*"))
    FeatureStore(store).run(workers=0)
    assert photograph(store) == ground.expected


def test_however_a_run_ends_its_finished_blocks_stay(
    ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C, SIGTERM and SIGKILL, one run after the other in one large chunk, then a run to the end that counts."""
    store = FeatureStore.create(tmp_path / "store", images=ground.images, dataset=ground.dataset, chunk_size=26)
    expected = shutil.copytree(store.path, tmp_path / "expected")
    FeatureStore(expected).run("extract", workers=0)
    verb, before, mark = ("run", store.path, "--workers", "2"), set[int](), uuid.uuid4().hex
    for name, code in {**CODES, "SIGKILL": -9}.items():
        signal_name = None if name == "SIGKILL" else name
        marked = mark if signal_name is None else ""  # with a mark, workers start as users' do
        ended = sabotage(tmp_path / "log", ["published blocks/extract"], *verb, mark=marked, signal=signal_name)
        assert ended.code == code
        assert left_in_session(ended) == left_alive(mark) == []
        found = set(in_blocks(store))
        assert found > before, name
        before = found
    assert before < set(range(26)), "nothing is left to do"
    assert store.status().stages[0].n_in_blocks == len(before)
    extracted = note_extractions(monkeypatch)
    store.run("extract", workers=0)
    assert sorted(extracted) == sorted(set(range(26)) - before)
    assert photograph(store.path) == photograph(expected)


def test_an_init_that_is_stopped_leaves_nothing(ground: Ground, tmp_path: Path) -> None:
    verb = ("init", tmp_path / "store", "--images", ground.images, "--dataset", ground.dataset)
    ended = sabotage(tmp_path / "log", ["published dataset"], *verb, signal="SIGTERM")
    assert (ended.code, ended.err.strip()) == (143, "stopped; no store was made")
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_an_ingest_that_is_stopped_is_taken_over(ground: Ground, tmp_path: Path) -> None:
    store, longer = ground.store(tmp_path / "store"), tmp_path / "longer.csv"
    lines = ground.dataset.read_text().splitlines()
    longer.write_text("\n".join([*lines, lines[1].replace("china", "nowhere", 1)]) + "\n")
    verb = ("ingest", store, "--dataset", longer)
    ended = sabotage(tmp_path / "log", ["published dataset"], *verb, signal="SIGINT")
    assert ended.code == 130
    assert f"stopped; the dataset may not have been read; to read it: featurestore ingest {store}" in ended.err
    assert "nothing is new or changed" in run(*verb).out  # the file was there, and the catalog followed from it
    with Catalog(Root(store)).reading() as connection:
        assert query_arrow(connection, "SELECT count(*) AS n FROM images")["n"].to_pylist() == [27]


def test_a_second_signal_ends_at_once(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt, codes = Interrupt(), list[int]()
    monkeypatch.setattr(os, "_exit", codes.append)
    with pytest.raises(KeyboardInterrupt):
        interrupt.ask(signal.SIGINT, None)
    interrupt.ask(signal.SIGINT, None)  # the echo of the first
    assert codes == []
    interrupt._asked -= 2 * ECHO
    interrupt.ask(signal.SIGTERM, None)
    assert (codes, interrupt.exit_code) == ([143], 130)
    assert capfd.readouterr().err == "stopped immediately; finished work is kept\n"


def test_short_work_is_ended_first() -> None:
    done = list[str]()
    with interruptible() as interrupt:
        with pytest.raises(KeyboardInterrupt):
            signalled_in_the_middle(done)
        with held_back():
            done.append("later")
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert (done, interrupt.exit_code) == (["inner", "outer", "later"], 130)


def signalled_in_the_middle(done: list[str]) -> None:
    with held_back():
        os.kill(os.getpid(), signal.SIGINT)
        with held_back():
            done.append("inner")
        done.append("outer")


def test_ignored_signals_stay_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible():
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_in_the_middle_of_a_query(ground: Ground, tmp_path: Path) -> None:
    catalog = StoreCatalog(Unlocked(ground.store(tmp_path / "store")))
    # DuckDB looks for signals when a query ends, and raises a RuntimeError.
    query = "SELECT count(*) FROM range(100000) a, range(1000) b WHERE a.range + b.range = -1"
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        in_transaction(catalog, query)
    timer.join()
    with catalog.reading() as connection:
        assert query_arrow(connection, "SELECT count(*) AS n FROM chunks")["n"].to_pylist() == [3]


def in_transaction(catalog: StoreCatalog, statement: str) -> None:
    with catalog.transaction() as connection:
        connection.execute(statement)

"""The run lock: a process that is refused is told who holds it, and a dead one holds nothing."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from featurestore.catalog.catalog import StoreCatalog
from featurestore.catalog.statements import query_arrow
from featurestore.errors import NotWritable, StoreBusy
from featurestore.storage import Root, Writer, exclusive, lease, living_holder
from featurestore.storage.lease import HOLDER, read_signature
from featurestore.storage.lock import holder
from tests.small import make_small, small_store

HOLD = """
import sys
from pathlib import Path
from featurestore.storage.lock import exclusive
from featurestore.storage import Root
with exclusive(Root(Path(sys.argv[1])), "run"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path)


@contextmanager
def another_process(root: Root, code: str = HOLD) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the store until its stdin is closed."""
    checkout = Path(__file__).parent.parent.parent
    command = [sys.executable, "-c", code, str(root.path)]
    with subprocess.Popen(command, cwd=checkout, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


def take(root: Root) -> bool:
    with exclusive(root, "ingest", say=lambda line: pytest.fail(line)):
        return True


def test_the_second_is_told_who_is_first(root: Root) -> None:
    with another_process(root) as process:
        who = (
            rf"featurestore run \(pid {process.pid} on {re.escape(socket.gethostname())}, "
            r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC\)"
        )
        text = f"^{re.escape(str(root.path))} is in use by {who}; wait for it to end, or stop it$"
        with pytest.raises(StoreBusy, match=text):
            take(root)
        assert re.fullmatch(who, living_holder(root) or "")
        process.communicate()
    assert process.returncode == 0
    assert living_holder(root) is None
    assert not root.local(HOLDER).exists()
    assert take(root)


def test_the_dead_hold_nothing(root: Root) -> None:
    with another_process(root) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert root.local(HOLDER).exists()  # it could not tidy up
    assert living_holder(root) is None
    assert take(root)


def test_it_is_free_after_an_exception(root: Root) -> None:
    with pytest.raises(KeyError), exclusive(root, "run"):
        raise KeyError
    assert take(root)


def test_one_process_takes_it_once(root: Root) -> None:
    with exclusive(root, "run"), pytest.raises(StoreBusy, match=rf"featurestore run \(pid {os.getpid()} on "):
        take(root)


def signed(pid: object, host: str) -> str:
    return json.dumps({"verb": "run", "pid": pid, "host": host, "since": "today"})


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "3", '{"pid": 3}', "[" * 5000, *(signed(pid, "elsewhere") for pid in (0, -1, 2**70, "1", None))],
)
def test_a_holder_that_has_just_begun_is_another_process(root: Root, content: str) -> None:
    root.local(HOLDER).write_text(content, encoding="utf-8")
    assert holder(root) == "another process"
    assert living_holder(root) is None


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds between machines takes parts of one."""
    monkeypatch.setattr(lease, "STALE_SECONDS", 0.2)
    monkeypatch.setattr(lease, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.01)


# Another machine: it has another name and another kernel, and no lock of it can be seen from here.
ELSEWHERE = """
import socket, sys
from pathlib import Path
from featurestore.storage import lease
from featurestore.storage import Root
socket.gethostname = lambda: "elsewhere"
lease.boot_id = lambda: "another"
lease.BEAT_SECONDS = 0.02
with lease.Lease(Root(Path(sys.argv[1])), "run").held():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_pid_of_a_dead_holder_may_be_another_process_by_now(root: Root) -> None:
    """As 5376c63 left it: without a token, and without a beat."""
    root.local(HOLDER).write_text(signed(os.getpid(), socket.gethostname()), encoding="utf-8")
    assert living_holder(root) is None
    assert take(root)


@pytest.mark.parametrize("boot", [None, "another"])
def test_a_signature_that_was_carried_here_is_waited_for_and_then_taken_over(
    root: Root, quick: None, boot: str | None
) -> None:
    carried = {**json.loads(signed(7, "elsewhere")), **({} if boot is None else {"boot": boot, "token": "t"})}
    root.local(HOLDER).write_text(json.dumps(carried), encoding="utf-8")
    found, said = "featurestore run (pid 7 on elsewhere, since today)", list[str]()
    assert living_holder(root) == (
        f"{found}, unless that has died: there was no sign of life for 0 s. A verb that changes the store waits 0 s "
        "for one, and then takes over"
    )
    with exclusive(root, "ingest", say=said.append):
        now = read_signature(root)
        assert now is not None
        assert (now.verb, now.pid) == ("ingest", os.getpid())
    assert said == [
        f"{root.path} was signed by {found}; waiting up to 0 s for a sign of life from there",
        "there was no sign of life from elsewhere for 0 s; this ingest takes over",
    ]
    assert not root.local(HOLDER).exists()


def test_a_holder_on_another_machine_that_lives_is_busy(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.01)  # and it may be watched for a minute, as ever
    with another_process(root, ELSEWHERE) as process:
        who = rf"featurestore run \(pid {process.pid} on elsewhere, since [^)]*\)"
        assert re.fullmatch(who, living_holder(root) or "")
        busy = pytest.raises(StoreBusy, match=rf"is in use by {who}; wait for it to end, or stop it$")
        with busy, exclusive(root, "ingest"):
            pass
        process.communicate()
    assert living_holder(root) is None
    assert take(root)


def test_a_holder_that_ends_while_it_is_waited_for_is_no_obstacle(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    root.local(HOLDER).write_text(signed(7, "elsewhere"), encoding="utf-8")
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.0)
    said: list[str] = []

    def end(line: str) -> None:
        said.append(line)
        root.local(HOLDER).unlink(missing_ok=True)

    with exclusive(root, "run", say=end):
        assert len(said) == 1


def test_a_heart_beats_in_place(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.001)
    with exclusive(root, "run"):
        file = root.local(HOLDER).stat()
        found = read_signature(root)
        assert found is not None
        while (now := read_signature(root)) is None or now.beat < found.beat + 3:
            assert now is not None
        assert (now.token, now.pid, now.since) == (found.token, found.pid, found.since)
        assert (root.local(HOLDER).stat().st_ino, root.local(HOLDER).stat().st_size) == (file.st_ino, file.st_size)
    assert sorted(path.name for path in root.path.iterdir()) == ["run.lock"]


def superseded(root: Root) -> str:
    """Sign the store as another machine does that took the holder for dead."""
    content = signed(7, "elsewhere")
    root.local(HOLDER).unlink()
    root.local(HOLDER).write_text(content, encoding="utf-8")
    return content


TAKEN_OVER = (
    r"was taken over by featurestore run \(pid 7 on elsewhere, since today\), since this run gave no sign of life for "
    r"a while; it records nothing more"
)


def test_a_holder_that_was_taken_for_dead_changes_nothing_more(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.001)
    (root.path / "x").write_text("old", encoding="utf-8")
    with exclusive(root, "run") as writer:
        catalog = StoreCatalog(writer)
        catalog.migrate()
        content = superseded(root)
        for change in (
            publish,
            record,
            lambda writer, _: writer.remove("x"),
            lambda writer, _: writer.sweep(),
            replace,
        ):
            with pytest.raises(StoreBusy, match=TAKEN_OVER):
                change(writer, catalog)
    with catalog.reading() as connection:
        assert query_arrow(connection, "SELECT * FROM chunks").num_rows == 0
    assert (root.path / "x").read_text(encoding="utf-8") == "old"
    assert root.local(HOLDER).read_text(encoding="utf-8") == content  # nor does its heart beat in it


def publish(writer: Writer, catalog: StoreCatalog) -> None:
    with writer.publishing("x") as temporary:
        temporary.write_text("new", encoding="utf-8")


def record(writer: Writer, catalog: StoreCatalog) -> None:
    with catalog.transaction() as connection:
        connection.execute("INSERT INTO chunks VALUES (7, 0, 1, 'late')")


def replace(writer: Writer, catalog: StoreCatalog) -> None:
    draft = writer.path / "draft"
    draft.write_bytes(b"")
    catalog.replace(draft)


def test_a_run_that_was_taken_over_ends_in_one_line(
    quick: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make_small(tmp_path / "images", n=6)
    store = small_store(tmp_path / "store", tmp_path / "images", chunk_size=2)
    original, signed = Writer.publish, list[str]()

    def publish(writer: Writer, temporary: Path, name: str) -> None:
        original(writer, temporary, name)
        if name.startswith("partitions/") and not signed:
            signed.append(superseded(writer))

    monkeypatch.setattr(Writer, "publish", publish)
    with pytest.raises(StoreBusy, match=TAKEN_OVER):
        store.run(workers=0)
    assert len(Root(store.path).files("partitions", ".parquet")) == 1
    assert store.sql("SELECT count(*) FROM partitions").fetchall() == [(0,)]
    assert [(store.path / HOLDER).read_text(encoding="utf-8")] == signed


def test_a_holder_whose_signature_is_gone_changes_nothing_more(root: Root) -> None:
    with exclusive(root, "run") as writer:
        root.local(HOLDER).unlink()
        with pytest.raises(StoreBusy, match=r"was released: run.lock.json is gone, since this run"):
            writer.remove("x")


def test_those_who_ask_are_not_taken_for_the_holder(root: Root) -> None:
    assert take(root)
    with root.local("run.lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # as one who asks has it at the same moment
        assert living_holder(root) is None


def test_those_who_ask_do_not_keep_a_writer_out(root: Root) -> None:
    over, asked = threading.Event(), list[str | None]()

    def ask() -> None:
        while not over.is_set():
            asked.append(living_holder(root))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(50):
            assert take(root)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert asked


def test_a_store_that_cannot_be_written_is_said_to_be(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(NotWritable, match=r"belongs to \S+ and can't be written by \S+; work on a copy"):
        take(root)
    assert list(root.path.iterdir()) == []

"""Standard streams that are closed, full, broken or of few characters: the work is done, and the exit code is right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from featurestore import FeatureStore
from tests.conftest import LONG
from tests.small import configure, copy
from tests.warm import run_warm

FULL = Path("/dev/full")
ROOT = Path(__file__).parent.parent.parent
needs_full = pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")


def typed(redirection: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Type a command into a shell, with a redirection after it."""
    command = [sys.executable, "-m", "featurestore", *map(str, arguments)]
    script = f'exec "$@" {redirection}'
    return subprocess.run(
        ["/bin/sh", "-c", script, "sh", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def typed_warm(how: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    """Type a command in a process that starts warm; see `tests.reliability.redirected`."""
    return run_warm("tests.reliability.redirected", json.dumps(how), *arguments, cwd=ROOT)


def typed_into_full(verb: str, store: Path, *rest: str) -> subprocess.CompletedProcess[str]:
    """Type a command whose output goes to a full disk: a run and ``status`` from the start of Python to its end."""
    if verb in ("run", "status") and "--dry-run" not in rest:
        return typed("> /dev/full", verb, store, *rest)
    return typed_warm({"stdout": str(FULL)}, verb, store, *rest)


def with_work_to_do(store: FeatureStore, path: Path) -> FeatureStore:
    made = copy(store, path)
    configure(made, "fit_scale", margin=0.5)
    return made


@pytest.mark.parametrize("closed", [*(["<&-", ">&-"] if LONG else []), "2>&-", "<&- >&- 2>&-"])
def test_a_run_is_done_whatever_is_closed(tiny: FeatureStore, tmp_path: Path, closed: str) -> None:
    store = with_work_to_do(tiny, tmp_path / "s")
    workers = 2 if closed == "2>&-" else 0
    ended = typed(closed, "run", store.path, "--workers", workers)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert store.run(workers=0) == []
    assert store.verify().ok


@needs_full
@pytest.mark.parametrize("verb", [["run", "--workers", "0"], ["prune"], ["rebuild"], ["ingest"]])
def test_work_whose_report_is_lost_is_done_and_says_so(tiny: FeatureStore, tmp_path: Path, verb: list[str]) -> None:
    store = with_work_to_do(tiny, tmp_path / "s")
    ended = typed_into_full(verb[0], store.path, *verb[1:])
    said = "warning: the work is done, and its report could not be printed: No space left on device\n"
    assert (ended.returncode, ended.stderr) == (0, said)
    assert bool(store.run(workers=0)) == (verb[0] != "run")


ASKING = {
    "status": ["status"],
    "info": ["info", "000.png"],
    "verify": ["verify"],
    "dry run": ["run", "--dry-run"],
    "table": ["sql", "FROM images"],
    "csv": ["sql", "FROM range(100000)", "--csv"],
    "json": ["sql", "FROM images", "--json"],
}


SAYS = {"> /dev/full": "No space left on device", ">&-": "stdout is closed, so the answer can't be"}


# That a stream is closed is found in one place, for tables and for other answers.
@pytest.mark.parametrize(
    ("where", "verb"),
    [("> /dev/full", verb) for verb in ASKING] + [(">&-", verb) for verb in (ASKING if LONG else ["status", "csv"])],
)
def test_an_answer_that_can_not_be_printed_is_an_error(
    tiny: FeatureStore, verb: str, where: str, tmp_path: Path
) -> None:
    if "full" in where and not FULL.exists():
        pytest.skip("there is no /dev/full")
    name, *rest = ASKING[verb]
    ended = typed_into_full(name, tiny.path, *rest) if "full" in where else typed(where, name, tiny.path, *rest)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: ")
    assert SAYS[where] in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_the_exit_code_is_right_where_no_error_can_be_said(tiny: FeatureStore, tmp_path: Path) -> None:
    for closed in ("2>&-", "2>/dev/full" if FULL.exists() else "2>&-"):
        assert typed(closed, "status", tmp_path / "none").returncode == 1
        assert typed(closed, "status").returncode == 2
        assert typed(closed, "status", tiny.path).returncode == 0


def test_a_run_goes_on_when_its_reader_has_seen_enough(tiny: FeatureStore, tmp_path: Path) -> None:
    store = with_work_to_do(tiny, tmp_path / "s")
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "featurestore", "run", str(store.path), "--workers", "0"]
    ended = subprocess.run(command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert store.run(workers=0) == []


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", None), ("latin-1", r"\u674e"), *([("cp1252", r"\u674e")] if LONG else [])]
)
def test_what_a_terminal_has_no_character_for_is_escaped(
    tiny: FeatureStore, tmp_path: Path, encoding: str, shown: str | None
) -> None:
    (tmp_path / "李").mkdir()
    store = with_work_to_do(tiny, tmp_path / "李" / "s")

    def type_in(*arguments: object) -> tuple[int, str, str]:
        if arguments[0] == "status" and (LONG or encoding == "ascii"):  # one is read by Python at its start
            ended = typed("", *arguments, PYTHONIOENCODING=encoding)
        else:
            ended = typed_warm({"encoding": encoding}, *arguments)
        return ended.returncode, ended.stdout, ended.stderr

    expected = "李" if shown is None else shown  # click prints UTF-8 where Python takes the terminal for one of ASCII
    code, out, err = type_in("status", store.path)
    assert (code, expected in out, err) == (0, True, "")
    code, out, err = type_in("sql", store.path, "SELECT chr(26446) AS name")
    assert (code, expected in out, err) == (0, True, "")
    code, out, err = type_in("run", store.path, "--workers", "0")
    assert (code, err) == (0, "")
    code, out, err = type_in("init", tmp_path / "李" / "n", "--images", tiny.path.parent / "images")
    assert (code, expected in out, (tmp_path / "李" / "n").is_dir()) == (0, True, True)
    code, out, err = type_in("status", tmp_path / "李")
    assert (code, out, err.count("\n")) == (1, "", 1)


def test_files_that_are_opened_do_not_become_a_closed_stream(tiny: FeatureStore) -> None:
    code = """
import os
for number in range(3):
    os.close(number)
from featurestore.system import streams
streams.prepare_streams()
import sys
print("lost")
opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]
os._exit(0 if min(opened) > 2 and sys.stdin.read() == "" and all(map(os.get_inheritable, range(3))) else 1)
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0

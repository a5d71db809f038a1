"""Running the command line in processes of its own, killing them, and looking at what is left."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from featurestore.catalog import Catalog
from featurestore.catalog.statements import query_arrow
from featurestore.storage import Root
from featurestore.system import file_digest
from tests.warm import MARK, WarmProcess

ROOT = Path(__file__).parent.parent.parent
SIGKILLED = -9
PATIENCE = 120.0  # seconds after which a process that should have ended is taken to hang
TABLES = ("images", "chunks", "ingests", "dataset_columns", "variants", "partitions", "results", "models")


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int
    out: str
    err: str
    points: tuple[str, ...] = ()  # that it passed, the fatal one last
    session: int = 0  # in which it and its workers were

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended it."""
        return self.code == SIGKILLED


def start(*arguments: str | Path, module: str = "featurestore", mark: str = "", **environment: str) -> WarmProcess:
    """Start the command line in a process of its own, at the head of a process group of its own."""
    environment = {**os.environ, MARK: mark, **environment}
    return WarmProcess(module, [str(argument) for argument in arguments], cwd=ROOT, environment=environment)


def finish(process: WarmProcess, *, points: Sequence[str] = (), patience: float = PATIENCE) -> Ended:
    """Wait for a process to end by itself, and for what still holds its pipes, as the tracker of workers does."""
    return Ended(*process.finish(patience), tuple(points), process.pid)


def run(*arguments: str | Path, mark: str = "", **environment: str) -> Ended:
    """Run the command line to its end."""
    return finish(start(*arguments, mark=mark, **environment))


def sabotage(
    log: Path,
    points: Collection[str],
    *arguments: str | Path,
    mark: str = "",
    environment: Mapping[str, str] | None = None,
    **plan: Any,
) -> Ended:
    """Run the command line until it reaches one of ``points``, where it kills itself, or to its end.

    Args:
        log: a file for the points that were passed.
        points: where to die; see `tests.crash.sabotage`.
        arguments: of the command line.
        mark: see `left_alive`.
        environment: more variables of it.
        plan: more of what `tests.crash.sabotage` understands.
    """
    log.unlink(missing_ok=True)
    text = json.dumps({"log": str(log), "points": sorted(points), **plan})
    ended = finish(start(text, *arguments, module="tests.crash.sabotage", mark=mark, **(environment or {})))
    passed = tuple(log.read_text().splitlines()) if log.is_file() else ()
    return replace(ended, err=without_leaks(ended.err), points=passed)


def without_leaks(err: str) -> str:
    """Leave out what DuckDB's binding says at exit: functions that were put in place of others hold its objects."""
    noise = ("nanobind: ", " - leaked ", " - ... skipped", "See https://nanobind")
    return "".join(line for line in err.splitlines(keepends=True) if not line.startswith(noise))


def kill_now_and_then(rng: random.Random, times: int, *arguments: str | Path, mark: str, longest: float) -> int:
    """Run the command line to its end, with SIGKILL at random moments on the way; return how often it was killed.

    Args:
        rng: chooses the moments.
        times: after so many kills it is left in peace.
        arguments: of the command line.
        mark: see `left_alive`.
        longest: seconds that it lives at most until it is killed.
    """
    for kills in range(times):
        process = start(*arguments, mark=mark)
        try:
            ended = finish(process, patience=rng.uniform(0.1, longest))
        except TimeoutError:
            process.kill()
            ended = finish(process)
        if not ended.killed:
            assert (ended.code, ended.err) == (0, "")
            return kills
    ended = run(*arguments, mark=mark)
    assert (ended.code, ended.err) == (0, "")
    return times


def left_alive(mark: str) -> list[str]:
    """Return the processes that still run with this mark, once they had the time that a watchdog needs."""
    wanted = f"{MARK}={mark}".encode()
    return _still_there(lambda process: wanted in (process / "environ").read_bytes().split(b"\0"))


def left_in_session(ended: Ended) -> list[str]:
    """Return the processes that still run in the session of one that has ended: its workers, also if they were forked.

    Those that wait for their parent to notice their end run no more.
    """
    session = str(ended.session)

    def is_in_it(process: Path) -> bool:
        state, _, _, found, *_ = (process / "stat").read_text().rpartition(") ")[2].split()
        return found == session and state != "Z"

    return _still_there(is_in_it)


def _still_there(wanted: Callable[[Path], bool]) -> list[str]:
    deadline = time.monotonic() + 20
    while (found := list(_processes(wanted))) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def _processes(wanted: Callable[[Path], bool]) -> Iterator[str]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted(folder):
                yield (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:  # it has just ended, or belongs to another user
            continue


def left_behind(store: Path) -> list[Path]:
    """Return the temporary files and the blocks in a store."""
    return [*store.rglob(".tmp-*"), *store.glob("blocks")]


def photograph(store: Path) -> dict[str, Any]:
    """Return all that must be the same, whatever happened on the way: every file, and every row but those of runs."""
    files = {
        path.relative_to(store).as_posix(): file_digest(path)
        for folder in ("dataset", "partitions", "models")
        for path in sorted((store / folder).rglob("*"))
        if path.is_file()
    }
    # The catalog's bytes differ from run to run, its rows do not.
    names = {path.name for path in store.iterdir()} - {"catalog.duckdb.wal"}
    return {"files": files, "names": names, **tables(store)}


def tables(store: Path) -> dict[str, Any]:
    """Return the catalog's tables, each sorted by all of its columns; duplicates stay."""
    with Catalog(Root(store)).reading() as connection:
        queries = {name: f"SELECT * FROM {name} ORDER BY ALL" for name in (*TABLES, "training_images")}
        return {name: query_arrow(connection, query).to_pylist() for name, query in queries.items()}


def runs(store: Path) -> list[dict[str, Any]]:
    """Return the records of runs, oldest first."""
    with Catalog(Root(store)).reading() as connection:
        return list(query_arrow(connection, "SELECT * FROM runs ORDER BY started, ended").to_pylist())

"""The command line in a process that kills itself: at named points of its work, or some seconds into a stage.

``python -m tests.crash.sabotage PLAN run STORE ...``, where PLAN is JSON:

- ``log``: a file; every point that is passed is appended to it, the fatal one last.
- ``points``: at the first of these, the process kills itself with SIGKILL.
- ``stage`` and ``seconds``: it also does so that many seconds after the stage has begun.
- ``signal``: instead of SIGKILL, its whole process group gets this signal, once, as from a terminal.

A point is called ``renamed partitions/extract``: what was just done, and to what. Nothing of this is in the product:
its functions are replaced here, in this process.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from duckdb import DuckDBPyConnection

import featurestore
from featurestore.catalog import WritableCatalog, recorded_run
from featurestore.cli import main
from featurestore.pipeline import chunk_run
from featurestore.pipeline import fit_run as fits
from featurestore.storage import Writer
from featurestore.storage import writer as storage

PACKAGE = Path(featurestore.__file__).parent


class Saboteur:
    """Counts the points that are passed, and kills the process at the first fatal one."""

    def __init__(
        self, log: Path, points: Collection[str], *, stage: str | None, seconds: float, name: str | None
    ) -> None:
        self.log, self.points, self.stage, self.seconds = log, set(points), stage, seconds
        self.signal = name
        self.newest = ""  # the kind of the file that was published last

    def passes(self, done: str, what: str) -> None:
        point = f"{done} {what}"
        with self.log.open("a") as log:
            log.write(point + "\n")
        if point in self.points:
            self.points.clear()
            self.strike()

    def strike(self) -> None:
        """End this process: by SIGKILL nothing of it runs any more, neither handlers nor `finally`."""
        if self.signal is None:
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            os.killpg(0, signal.Signals[self.signal])

    def lie_in_wait(self) -> None:
        """Put the traps where files are published and removed, and where the catalog is changed."""
        Writer.publish = self._publish()  # type: ignore[method-assign]
        Writer.remove = self._remove()  # type: ignore[method-assign]
        WritableCatalog.transaction = self._transaction()  # type: ignore[method-assign]
        Path.replace = self._replace()  # type: ignore[method-assign]
        timed = self._timed()
        fits.recorded_run = chunk_run.recorded_run = timed  # type: ignore[attr-defined]

    def _publish(self) -> Any:
        original, flush = Writer.publish, vars(storage)["flush"]

        def publish(root: Writer, temporary: Path, name: str) -> None:
            self.passes("written", kind(name))
            original(root, temporary, name)
            self.newest = kind(name)
            self.passes("published", self.newest)

        def flushed(path: Path) -> None:
            flush(path)
            if path.is_file():
                self.passes("flushed", kind(path.as_posix()))

        vars(storage)["flush"] = flushed
        return publish

    def _replace(self) -> Any:
        original = Path.replace

        def replace(path: Path, target: Path) -> Path:
            self.passes("renaming", kind(Path(target).as_posix()))
            found = original(path, target)
            self.passes("renamed", kind(Path(target).as_posix()))
            return found

        return replace

    def _remove(self) -> Any:
        original = Writer.remove

        def remove(root: Writer, name: str) -> None:
            self.passes("removing", kind(name))
            original(root, name)
            self.passes("removed", kind(name))

        return remove

    def _transaction(self) -> Any:
        original = WritableCatalog.transaction

        @contextmanager
        def transaction(catalog: WritableCatalog) -> Iterator[DuckDBPyConnection]:
            caller = self._caller()
            with original(catalog) as connection:
                self.passes("begun", caller)
                yield connection
                self.passes("uncommitted", caller)
            self.passes("committed", caller)

        return transaction

    def _timed(self) -> Any:
        @contextmanager
        def timed(context: Any, step: Any, **options: Any) -> Iterator[dict[str, Any]]:
            with recorded_run(context, step, **options) as counts:
                if step.stage.name == self.stage:
                    timer = threading.Timer(self.seconds, self.strike)
                    timer.daemon = True
                    timer.start()
                yield counts
                self.passes("ending", step.stage.name)

        return timed

    def _caller(self) -> str:
        """What a transaction is about: the record of a stage's run, or the file that was published last."""
        frame = sys._getframe(1)
        while (frame := frame.f_back) is not None:  # type: ignore[assignment]
            path = Path(frame.f_code.co_filename)
            if PACKAGE in path.parents and path.name != "catalog.py":
                if frame.f_code.co_name == "recorded_run":
                    return f"run of {frame.f_locals['step'].stage.name}"
                break
        return self.newest


def kind(name: str) -> str:
    """``partitions/extract`` and ``blocks/extract`` for any of these; the name alone for what there is only one of."""
    path = Path(name)
    if path.name.startswith(".tmp-"):
        path = path.with_name(path.name[len(".tmp-0123456789ab-") :])
    for folder in ("blocks", "partitions", "models"):
        if folder in path.parts:
            stage = path.parts[path.parts.index(folder) + 1]
            return f"{folder}/{stage}" + ("/state.npz" if path.name.endswith("state.npz") else "")
    return "dataset" if path.parent.name == "dataset" else "a store" if not path.suffix else path.name


if __name__ == "__main__":
    plan = json.loads(sys.argv[1])
    saboteur = Saboteur(
        Path(plan["log"]),
        plan.get("points", ()),
        stage=plan.get("stage"),
        seconds=plan.get("seconds", 0.0),
        name=plan.get("signal"),
    )
    saboteur.lie_in_wait()
    sys.argv = ["featurestore", *sys.argv[2:]]
    main()

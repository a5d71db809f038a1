"""Dask clusters on this machine: in threads of this process, and in processes as on many machines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.warm import MARK

ROOT = Path(__file__).parent.parent
PATIENCE = 60.0  # seconds for a process to start, or to end


@contextmanager
def cluster_of_threads(n: int) -> Iterator[str]:
    """Yield the address of a cluster with ``n`` workers of one thread, all in this process."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=n, threads_per_worker=1, processes=False, dashboard_address=":0") as cluster:
        yield cluster.scheduler_address


@dataclass
class Cluster:
    """A scheduler and workers, each a process at the head of a group of its own, with its log in ``folder``."""

    folder: Path
    mark: str = ""
    host: str = "127.0.0.1"  # on which the scheduler listens
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)  # the scheduler first

    @property
    def file(self) -> Path:
        """The file with the scheduler's address."""
        return self.folder / "scheduler.json"

    @property
    def address(self) -> str:
        """The scheduler's address."""
        return str(json.loads(self.file.read_text())["address"])

    def start_scheduler(self, **environment: str) -> None:
        """Start the scheduler, and wait until it can be reached."""
        self.file.unlink(missing_ok=True)
        options = ("--host", self.host, "--port", "0", "--no-dashboard", "--no-show", "--scheduler-file", self.file)
        process = self._start("scheduler", *options, **environment)
        deadline = time.monotonic() + PATIENCE
        while not (self.file.is_file() and self.file.read_text().rstrip().endswith("}")):
            assert process.poll() is None, self.logs()
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.05)

    def start_worker(self, *options: str, within: Sequence[str] = (), **environment: str) -> subprocess.Popen[bytes]:
        """Start a worker with one thread and no nanny, by a command like ``unshare`` if one is given."""
        more = ("--no-nanny", "--nthreads", "1", "--no-dashboard", "--death-timeout", "60", "--scheduler-file")
        return self._start("worker", *more, self.file, *options, within=within, **environment)

    def _start(
        self, verb: str, *options: str | Path, within: Sequence[str] = (), **environment: str
    ) -> subprocess.Popen[bytes]:
        command = [*within, sys.executable, "-m", "dask", verb, *map(str, options)]
        local = ("--local-directory", str(self.folder)) if verb == "worker" else ()
        with (self.folder / f"{verb}-{len(self.processes)}.log").open("wb") as log:
            process = subprocess.Popen(
                [*command, *local],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": str(ROOT), MARK: self.mark, **environment},
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def logs(self) -> str:
        """Return what all processes have logged."""
        return "\n".join(f"{path.name}:\n{path.read_text()}" for path in sorted(self.folder.glob("*.log")))

    def close(self) -> None:
        """Kill all processes, and their children."""
        for process in self.processes:
            kill(process)


def kill(process: subprocess.Popen[Any], number: int = signal.SIGKILL) -> None:
    """Send a signal to a process and its children, and wait for its end."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        pass
    process.wait(PATIENCE)


@contextmanager
def cluster_of_processes(
    folder: Path, *, n_workers: int, mark: str = "", host: str = "127.0.0.1", **environment: str
) -> Iterator[Cluster]:
    """Yield a cluster whose files are in ``folder``; the environment is that of the scheduler."""
    folder.mkdir(parents=True, exist_ok=True)
    cluster = Cluster(folder, mark, host)
    try:
        cluster.start_scheduler(**environment)
        for _ in range(n_workers):
            cluster.start_worker()
        yield cluster
    finally:
        cluster.close()

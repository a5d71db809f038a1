"""Processes of this machine: joblib's loky executor, whose workers are started anew and never forked."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Future
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from featurestore.engines.base import T, Task, run_task
from featurestore.errors import ConfigError, EngineLost
from featurestore.images import decode_here
from featurestore.system import SIGNALS, allow_limits, end_with, readable

LOG = logging.getLogger("featurestore.engines")

# Threads would compete with the workers beside them, and BLAS with several threads differs in the last bits.
SINGLE_THREADED = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

# SIFT takes hundreds of megabytes for an image and gives them back. By default glibc returns them to the system, and
# fetching them again, zeroed page by page, is a quarter of a worker's time. It may keep half a gigabyte (mallopt(3));
# no other C library reads these. See docs/decisions/0063.
KEEPING = {
    name: os.environ.get(name, str(size))
    for name, size in {"MALLOC_MMAP_THRESHOLD_": 128 << 20, "MALLOC_TRIM_THRESHOLD_": 512 << 20}.items()
}

# What killed a worker stands in the row of its image; loky would print a page about it. An empty value says no.
SILENT = {"PYTHONFAULTHANDLER": os.environ.get("PYTHONFAULTHANDLER", "")}


class LocalEngine:
    """``workers`` processes, started on the first task."""

    def __init__(self, workers: int) -> None:
        """Take the number of processes; none is started yet."""
        self.workers = workers
        self._executor: Any = None
        self._begun = False

    def submit(self, task: Task[T]) -> Future[list[T]]:
        """Begin a task in a worker.

        Raises:
            EngineLost: the system has no memory or no processes left for workers.
        """
        try:
            with nullcontext() if self._begun else _starting():
                if self._executor is None:
                    self._executor = self._open()
                future: Future[list[T]] = self._executor.submit(run_task, task)  # the first one starts the workers
        except BrokenExecutor:
            raise  # is dealt with where the task came from
        except (OSError, RuntimeError) as error:  # the latter: no thread can be started, or loky nests too deep
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())
            raise EngineLost(
                f"{self.workers} worker processes could not be started ({reason}). Whatever was finished is "
                "kept; run the same command again with fewer --workers, or with --workers 0"
            ) from error
        self._begun = True
        return future

    def restart(self) -> None:
        """End what is left of the pool; the next task starts another."""
        self.close()

    def close(self) -> None:
        """Kill all workers at once."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, kill_workers=True)
            self._executor, self._begun = None, False
            LOG.debug("ended the worker processes")

    def _open(self) -> Any:
        if multiprocessing.current_process().daemon:
            raise EngineLost(
                "this process is daemonic, as those of a multiprocessing.Pool are, and may start no worker processes; "
                "work in it with workers=0, or start the run from another process"
            )
        from joblib.externals.loky import ProcessPoolExecutor

        LOG.info("starting %d worker processes", self.workers)

        return ProcessPoolExecutor(
            max_workers=self.workers,
            initializer=begin_worker,
            initargs=(os.getpid(),),
            env={**SINGLE_THREADED, **KEEPING, **SILENT},
        )


@contextmanager
def _starting() -> Iterator[None]:
    with _silent_tracker(), _deaf_offspring():
        yield


@contextmanager
def _silent_tracker() -> Iterator[None]:
    """Keep loky's resource tracker, which outlives a run that is killed, from warning of what it then tidies up."""
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [before, "ignore:resource_tracker"]))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before


@contextmanager
def _deaf_offspring() -> Iterator[None]:
    """Let the processes that are started here be deaf to Ctrl-C and SIGTERM from their first moment: they inherit that.

    A signal to the whole process group, as a terminal sends it, is for the coordinator, which ends its workers in
    order. A worker that died of it would print a traceback, and be taken for the victim of its image.
    """
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # which lets the signals through again, so not later
    # Held back and not ignored: what arrives meanwhile reaches the coordinator a moment later.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def begin_worker(parent: int) -> None:
    """Prepare a worker: one thread, a limit on its time, no ear for Ctrl-C, and gone when its parent is.

    Args:
        parent: the coordinator's pid. It is given, since asking in the worker would race with the parent's death.
    """
    import cv2
    import threadpoolctl

    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    allow_limits()
    cv2.setNumThreads(1)
    threadpoolctl.threadpool_limits(1)
    decode_here()
    end_with(parent)


def all_cores() -> int:
    """Return the number of cores that this process may use, in a container too.

    Raises:
        ConfigError: a variable of the environment keeps joblib from saying so.
        UnreadableFile: what the system says of that can't be read.
    """
    try:
        import joblib

        with readable(Path("/sys/fs/cgroup")):  # where it looks for a container's share of them
            return int(joblib.cpu_count())
    except (ImportError, ValueError) as error:
        given = [f"{name}={value}" for name, value in os.environ.items() if name.startswith("LOKY_")]
        if not given:
            raise
        reason = " ".join(str(error).split())
        raise ConfigError(f"joblib can't work with {', '.join(given)} ({reason}); unset what is wrong") from error

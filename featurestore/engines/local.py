"""The local engine: worker processes of this machine, by joblib's loky executor, which never forks."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import queue
import signal
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Future
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, ClassVar

from featurestore.engines.base import T, Task, run_task
from featurestore.errors import ConfigError, EngineLost
from featurestore.images import decode_here
from featurestore.system import KEPT, SIGNALS, allow_limits, end_with, readable, signals_blocked

LOG = logging.getLogger("featurestore.engines")

# Threads would compete with the other workers, and BLAS with several threads differs in the last bits.
SINGLE_THREADED = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

# Workers keep memory between images, see `KEPT`. What the user has set in the environment stays.
KEEPING = {name: os.environ.get(name, value) for name, value in KEPT.items()}

# The row of an image says what killed its worker; loky's long report is not needed. An empty value turns it off.
SILENT = {"PYTHONFAULTHANDLER": os.environ.get("PYTHONFAULTHANDLER", "")}

# Errors of making a semaphore, which is a file in /dev/shm; where a process can't be started they are others.
_OF_SEMAPHORES = frozenset({errno.ENOSPC, errno.EROFS})

_LOCK = threading.Lock()  # the environment and the resource tracker are the process's, and threads may have engines


class LocalEngine:
    """Runs tasks in ``workers`` processes, started by the first task."""

    environment: ClassVar[dict[str, str]] = {**SINGLE_THREADED, **KEEPING, **SILENT}  # of the workers

    def __init__(self, workers: int) -> None:
        """Set the number of processes; none is started yet.

        Raises:
            ConfigError: it is 0.
        """
        if workers < 1:
            raise ConfigError("the engine local needs a worker at least; give --workers 1 or more, or --engine inline")
        self.workers = workers
        self._executor: Any = None
        self._begun = False

    def submit(self, task: Task[T]) -> Future[list[T]]:
        """Start a task in a worker.

        Raises:
            EngineLost: the system has no memory or no processes left for workers.
        """
        try:
            with nullcontext() if self._begun else _starting():
                if self._executor is None:
                    self._executor = self._open()
                future: Future[list[T]] = self._executor.submit(run_task, task)  # the first one starts the workers
        except BrokenExecutor:
            raise  # `dispatch` handles it
        except (OSError, RuntimeError) as error:  # RuntimeError: no thread can be started, or loky is nested too deep
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())
            shared = isinstance(error, OSError) and error.errno in _OF_SEMAPHORES
            raise EngineLost(
                f"{self.workers} worker processes could not be started ({reason}{': /dev/shm' if shared else ''}). "
                "Finished work is kept; run the same command again with "
                f"{'room in that folder' if shared else 'fewer --workers'}, or with --workers 0"
            ) from error
        self._begun = True
        return future

    def restart(self) -> None:
        """End the pool; the next task starts a new one."""
        self.close()

    def close(self) -> None:
        """Kill all workers immediately."""
        if self._executor is not None:
            _drop_waiting(self._executor)
            _kill_unwatched(self._executor)
            self._executor.shutdown(wait=True, kill_workers=True)
            self._executor, self._begun = None, False
            LOG.debug("ended the worker processes")

    def _open(self) -> Any:
        if multiprocessing.current_process().daemon:
            raise EngineLost(
                "this process is daemonic, as those of a multiprocessing.Pool are, and may start no worker processes; "
                "work in it with workers=0, or start the run from another process"
            )
        _import_joblib()
        from joblib.externals.loky import ProcessPoolExecutor

        LOG.info("starting %d worker processes", self.workers)
        executor = ProcessPoolExecutor(
            max_workers=self.workers,
            initializer=_begin_loky_worker,
            initargs=(os.getpid(),),
            env=self.environment,
        )
        with executor._call_queue._notempty:  # here the error is caught; later it would end loky's thread in silence
            executor._call_queue._start_thread()
        return executor


def _drop_waiting(executor: Any) -> None:
    """Take the tasks back that no worker has got: loky's thread forgets them first, and then fails with a KeyError."""
    with suppress(queue.Empty):
        while True:
            executor._work_ids.get_nowait()


def _kill_unwatched(executor: Any) -> None:
    """Kill the workers of a pool whose thread could not be started: loky has none that would end them."""
    thread = executor._executor_manager_thread
    if thread is not None and thread.ident is not None:
        return
    executor._executor_manager_thread = None
    executor._call_queue.close()
    for process in executor._processes.values():
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        process.join()
    executor._processes.clear()


@contextmanager
def _starting() -> Iterator[None]:
    with _LOCK, _silent_tracker(), _signals_blocked_in_children():
        yield


@contextmanager
def _silent_tracker() -> Iterator[None]:
    """Silence loky's resource tracker, which outlives a killed run and warns about the resources it cleans up."""
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
def _signals_blocked_in_children() -> Iterator[None]:
    """Block Ctrl-C and SIGTERM in child processes from their start: they inherit the signal mask.

    A terminal signals the whole process group, but only the coordinator must react: it ends its workers. A worker that
    died of the signal would print a traceback, and its image would be blamed.
    """
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # first, since it unblocks the signals
    with signals_blocked():
        yield


def begin_worker(parent: int) -> None:
    """Initialise a worker: one thread, time limits, Ctrl-C ignored; it ends with its parent.

    Args:
        parent: the coordinator's pid. The coordinator passes it: asking in the worker would race with its death.
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


def _begin_loky_worker(parent: int) -> None:
    """Initialise a worker of loky and let it live: where psutil is installed, loky ends one that has kept 300 MB.

    That is no leak: workers keep the memory of a large picture for the next one, see `KEPT`.
    """
    from joblib.externals.loky import process_executor

    process_executor._USE_PSUTIL = False
    begin_worker(parent)


def all_cores() -> int:
    """Return the number of cores that this process may use, also in a container.

    Raises:
        ConfigError: an environment variable keeps joblib from counting.
        UnreadableFile: the system's files about cores can't be read.
    """
    try:
        joblib = _import_joblib()
        with readable(Path("/sys/fs/cgroup")):  # joblib reads a container's share of the cores there
            return int(joblib.cpu_count())
    except (ImportError, ValueError) as error:
        given = [f"{name}={value}" for name, value in os.environ.items() if name.startswith("LOKY_")]
        if not given:
            raise
        reason = " ".join(str(error).split())
        raise ConfigError(f"joblib can't work with {', '.join(given)} ({reason}); unset what is wrong") from error


def _import_joblib() -> Any:
    """Import joblib without its warning of a machine without semaphores: `submit` says so if workers are wanted."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*joblib will operate in serial mode")
        import joblib
    return joblib

"""Processes of this machine: joblib's loky executor, whose workers are started anew and never forked."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import Future
from typing import Any

from featurestore.engines.engine import Task, run_task
from featurestore.partition import Row

# Threads would compete with the workers beside them, and BLAS with several threads differs in the last bits.
SINGLE_THREADED = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class LocalEngine:
    """``workers`` processes, started on the first task."""

    def __init__(self, workers: int) -> None:
        """Take the number of processes; none is started yet."""
        self.workers = workers
        self._executor: Any = None

    def submit(self, task: Task) -> Future[list[Row]]:
        """Begin a task in a worker."""
        if self._executor is None:
            self._executor = self._open()
        future: Future[list[Row]] = self._executor.submit(run_task, task)
        return future

    def restart(self) -> None:
        """End what is left of the pool; the next task starts another."""
        self.close()

    def close(self) -> None:
        """Kill all workers at once."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, kill_workers=True)
            self._executor = None

    def _open(self) -> Any:
        from joblib.externals.loky import ProcessPoolExecutor

        return ProcessPoolExecutor(
            max_workers=self.workers, initializer=begin_worker, initargs=(os.getpid(),), env=SINGLE_THREADED
        )


def begin_worker(parent: int) -> None:
    """Prepare a worker: one thread, deaf to Ctrl-C, and gone when its parent is.

    Args:
        parent: the coordinator's pid. It is given, since asking in the worker would race with the parent's death.
    """
    import cv2
    import threadpoolctl

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the coordinator gets it too, and ends its workers in order
    cv2.setNumThreads(1)
    threadpoolctl.threadpool_limits(1)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while _alive(parent):
        time.sleep(0.5)
    os._exit(1)


def _alive(pid: int) -> bool:
    return os.getppid() == pid

"""Handing out tasks: how much of the workers is in use while single images take fifty times as long as the others.

Workers are threads that sleep, so that any number of them can be simulated on a machine with few cores; the dispatcher
is the one that every run uses.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from benchmarks.measure import Bench, Finding, at_least, spread
from featurestore.engines import Task, dispatch_tasks

WORKERS = (8, 64)
SECONDS = 0.1  # of a task. It stands for a block of half a second, so that all times are a fifth of what they stand for
SLOW = 50  # times as long
A_WORKER = 100  # tasks: the slow ones end before the run does


def run(bench: Bench) -> list[Finding]:
    """Simulate 8 and 64 workers."""
    findings = []
    for workers in (2,) if bench.quick else WORKERS:
        runs = [simulated(workers, SECONDS / (20 if bench.quick else 1)) for _ in range(bench.repetitions)]
        used, cpu = [100 * used for used, _ in runs], [1000 * cpu for _, cpu in runs]
        findings += [
            at_least(f"{workers} workers, in use while an image takes 25 s", used, 90, " %"),
            Finding(f"{workers} workers: CPU of the dispatcher a task", spread(cpu, " ms")),
        ]
    return findings


def simulated(workers: int, seconds: float) -> tuple[float, float]:
    """Return the share of workers in use while two tasks are slow, and the dispatcher's CPU seconds a task."""
    n = workers * A_WORKER
    slow = {n // 10, n // 4}
    tasks = [Sleep(i, seconds * (SLOW if i in slow else 1)) for i in range(n)]
    engine, cpu = Threads(workers), time.process_time()
    spans = {task.chunk_id: spans[0] for task, spans in dispatch_tasks(engine, tasks)}
    cpu = time.process_time() - cpu
    engine.close()
    begun, ended = min(spans[i][0] for i in slow), max(spans[i][1] for i in slow)
    worked = sum(max(0.0, min(stop, ended) - max(start, begun)) for start, stop in spans.values())
    return worked / (workers * (ended - begun)), cpu / n


@dataclass(frozen=True)
class Sleep:
    """A task that sleeps, and says from when to when."""

    chunk_id: int
    seconds: float

    def run(self) -> list[tuple[float, float]]:
        """Sleep."""
        begun = time.perf_counter()
        time.sleep(self.seconds)
        return [(begun, time.perf_counter())]

    def split(self) -> list[Task[tuple[float, float]]]:
        """Return the task itself."""
        return [self]

    def crashed(self, reason: str) -> list[tuple[float, float]]:
        """Refuse to crash."""
        raise AssertionError(reason)


@dataclass
class Threads:
    """An engine whose workers are threads."""

    workers: int
    _pool: ThreadPoolExecutor = field(init=False)

    def __post_init__(self) -> None:
        """Make the pool."""
        self._pool = ThreadPoolExecutor(self.workers)

    def submit(self, task: Task[Any]) -> Future[list[Any]]:
        """Start a task."""
        return self._pool.submit(task.run)

    def restart(self) -> None:
        """Refuse: threads do not die."""
        raise AssertionError("a thread died")

    def close(self) -> None:
        """Wait for the threads."""
        self._pool.shutdown()

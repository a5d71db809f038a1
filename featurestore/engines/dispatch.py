"""The one way work is handed out: a bounded window of tasks, and outcomes as values.

When a worker dies, every task in flight is suspect. Suspects are run again one at a time, then image by image, so that
only the image that kills its worker is blamed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass, field

from featurestore.engines.engine import Engine, Task
from featurestore.partition import Row

WINDOW = 2  # tasks in flight for every worker: one at work, one waiting
LOOKAHEAD = 64  # tasks that may be finished out of order, waiting for a slow one before them


@dataclass
class _Flight:
    """The tasks in flight, in the order they were submitted."""

    futures: dict[Future[list[Row]], tuple[int, Task]] = field(default_factory=dict)

    def oldest(self) -> int:
        return min(number for number, _ in self.futures.values())


def dispatch(engine: Engine, tasks: Iterable[Task]) -> Iterator[tuple[Task, list[Row]]]:
    """Yield every task with its rows, in the order they finish.

    Raises:
        FeatureStoreError: a task raised one; tasks in flight are left to `Engine.close`.
    """
    waiting = enumerate(tasks)
    flight = _Flight()
    following = next(waiting, None)
    while following is not None or flight.futures:
        while following is not None and _has_room(engine, flight, following[0]):
            try:
                flight.futures[engine.submit(following[1])] = following
            except BrokenExecutor:  # a worker died while idle or on a task whose future is about to say so
                yield from _run_suspects(engine, flight)
                continue
            following = next(waiting, None)
        if flight.futures:
            yield from _collect(engine, flight)


def _has_room(engine: Engine, flight: _Flight, number: int) -> bool:
    if not flight.futures:
        return True
    return (
        len(flight.futures) < WINDOW * max(engine.workers, 1) and number - flight.oldest() < LOOKAHEAD + engine.workers
    )


def _collect(engine: Engine, flight: _Flight) -> Iterator[tuple[Task, list[Row]]]:
    done, _ = wait(flight.futures, return_when=FIRST_COMPLETED)
    for future in done:
        if isinstance(future.exception(), BrokenExecutor):
            yield from _run_suspects(engine, flight)
            return
        _, task = flight.futures.pop(future)
        yield task, future.result()


def _run_suspects(engine: Engine, flight: _Flight) -> Iterator[tuple[Task, list[Row]]]:
    suspects = sorted(flight.futures.items(), key=lambda item: item[1][0])
    flight.futures.clear()
    engine.restart()
    for future, (_, task) in suspects:
        finished = future.done() and not future.cancelled() and future.exception() is None
        yield task, future.result() if finished else _run_alone(engine, task)


def _run_alone(engine: Engine, task: Task) -> list[Row]:
    try:
        return engine.submit(task).result()
    except BrokenExecutor as error:
        engine.restart()
        parts = task.split()
        if len(parts) == 1:
            return task.crashed(_cause(error))
        return [row for part in parts for row in _run_alone(engine, part)]


def _cause(error: BrokenExecutor) -> str:
    # the same image must give the same message in every run, so only the signal is taken from the error's text
    signal = re.search(r"SIG[A-Z]+", str(error))
    causes = {"SIGSEGV": "segmentation fault", "SIGKILL": "killed, most likely out of memory"}
    return f"{signal[0]}: {causes.get(signal[0], 'ended by a signal')}" if signal else "it ended without a word"

"""Dispatching tasks to an engine: two in flight for each worker, and crashes as results.

When a worker dies, or runs out of memory, open files or threads, every task in flight is a suspect. Suspects run again
one at a time, then image by image, so that only the image that crashes its worker is blamed. On engines whose workers
die apart from each other, a task that dies with its worker runs again, and then in parts, beside the other tasks.
"""

from __future__ import annotations

import logging
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from featurestore.engines.absent import refuse_absent_module
from featurestore.engines.base import Engine, Parts, T, Task, TaskDied
from featurestore.errors import EngineLost
from featurestore.system import MEMORY, advice_for, lacking, limit_met

LOG = logging.getLogger("featurestore.engines")
WINDOW = 2  # tasks in flight for each worker: one running, one queued
ATTEMPTS = 4  # at a task that dies alone: a machine may be switched off, which is no fault of the task


class _Flight(dict[Future[list[T]], Task[T]]):
    """The tasks in flight, in the order of submission, and how often each of them has died alone.

    Futures report that they are done: to ask all of them takes milliseconds where there are thousands.
    """

    def __init__(self) -> None:
        super().__init__()
        self._deaths = Counter[int]()  # by the `id` of the task
        self._done = SimpleQueue[Future[list[T]]]()

    def add(self, future: Future[list[T]], task: Task[T]) -> None:
        """Add a task that was submitted."""
        self[future] = task
        future.add_done_callback(self._done.put)

    def wait(self) -> list[Future[list[T]]]:
        """Wait until a task is done, and return all that are."""
        done = [self._done.get()]
        while not self._done.empty():
            done.append(self._done.get())
        return done

    def died(self, task: Task[T]) -> bool:
        """Count a death of a task; return whether it has died too often to be tried again."""
        self._deaths[id(task)] += 1
        return self._deaths[id(task)] >= ATTEMPTS

    def land(self, future: Future[list[T]]) -> Task[T]:
        """Remove a task that is done with, and return it."""
        task = self.pop(future)
        self._deaths.pop(id(task), None)
        return task

    def clear(self) -> None:
        """Remove all tasks."""
        super().clear()
        self._deaths.clear()
        self._done = SimpleQueue()  # those that are removed report to the old one


def dispatch_tasks(engine: Engine, tasks: Iterable[Task[T] | None]) -> Iterator[tuple[Task[T], list[T]]]:
    """Yield every task with its results, in the order they finish; of one that kills its worker, the parts instead.

    A slow task holds no other task up. Callers that keep results until an earlier task is done bound what they keep.

    Args:
        engine: that runs them.
        tasks: that are drawn when there is room for them; None where the next one has to wait for tasks in flight.

    Raises:
        EngineLost: workers die without any work, or can't be started.
        PluginError: workers lack what a task is made of.
        FeatureStoreError: a task raised one; tasks in flight are left to `Engine.close`.
    """
    waiting = iter(tasks)
    flight = _Flight[T]()
    following = next(waiting, None)
    while following is not None or flight:
        while following is not None and _has_room(engine, flight):
            try:
                flight.add(engine.submit(following), following)
            except BrokenExecutor:  # a worker died while idle, or on a task whose future will report it
                idle = not flight
                yield from _run_suspects(engine, flight)
                if idle:
                    _refuse_dead_engine(engine)
                continue
            following = next(waiting, None)
        if flight:
            yield from _collect(engine, flight)
        if following is None:
            following = next(waiting, None)


def dispatch_in_order(
    engine: Engine, tasks: Iterable[Task[T]], *, most: int, size: Callable[[list[T]], int] = len
) -> Iterator[tuple[Task[T], list[T]]]:
    """Yield every task with its results, in the order of the tasks, none of which has parts; see `dispatch_tasks`.

    Args:
        engine: that runs them.
        tasks: that are drawn when there is room for them and for their results.
        most: of what waits for an earlier task. While more waits, no task is drawn.
        size: of the results of a task, in the unit of ``most``.
    """
    order, found = deque[Task[T]](), dict[int, list[T]]()  # results by the `id` of their task

    def drawn() -> Iterator[Task[T] | None]:
        for task in tasks:
            while sum(map(size, found.values())) > most:
                yield None
            order.append(task)
            yield task

    for task, results in dispatch_tasks(engine, drawn()):
        found[id(task)] = results
        while order and id(order[0]) in found:
            first = order.popleft()
            yield first, found.pop(id(first))


def _has_room(engine: Engine, flight: _Flight[Any]) -> bool:
    return len(flight) < max(WINDOW * engine.workers, 1)


def _collect(engine: Engine, flight: _Flight[T]) -> Iterator[tuple[Task[T], list[T]]]:
    for future in flight.wait():
        error = future.exception()
        refuse_absent_module(error)
        if isinstance(error, TaskDied):
            yield from _resubmit(engine, flight, future, error)
        elif _must_be_tried_alone(error):
            yield from _run_suspects(engine, flight)
            return
        else:
            yield from _results(flight.land(future), future.result())


def _results(task: Task[T], found: list[T]) -> Iterable[tuple[Task[T], list[T]]]:
    return found if isinstance(found, Parts) else [(task, found)]


def _resubmit(
    engine: Engine, flight: _Flight[T], future: Future[list[T]], error: TaskDied
) -> Iterator[tuple[Task[T], list[T]]]:
    """Submit a task that died alone once more; in parts if it died often; or yield its result as that of a crash."""
    task, cause = flight[future], _cause(error)
    if not flight.died(task):
        LOG.warning("a task of chunk %d died with its worker (%s): trying it again", task.chunk_id, cause)
        again = engine.submit(task)
        flight.add(again, flight.pop(future))
        return
    flight.land(future)
    parts = task.split()
    if len(parts) > 1:
        LOG.warning("a task of chunk %d died %d times: trying its %d parts", task.chunk_id, ATTEMPTS, len(parts))
        for part in parts:
            flight.add(engine.submit(part), part)
    else:
        _refuse_dead_engine(engine)
        LOG.warning("a task of chunk %d crashes its worker (%s); its result says so", task.chunk_id, cause)
        yield task, task.crashed(cause)


def _must_be_tried_alone(error: BaseException | None) -> bool:
    """Whether the error may have been caused by another task: a worker died, or a shared resource ran out."""
    return error is not None and (isinstance(error, BrokenExecutor) or lacking(error) is not None)


def _run_suspects(engine: Engine, flight: _Flight[T]) -> Iterator[tuple[Task[T], list[T]]]:
    suspects = list(flight.items())
    flight.clear()
    for future, _ in suspects:
        refuse_absent_module(future.exception() if future.done() and not future.cancelled() else None)
    out_of_time = any(_is_out_of_time(future.exception()) for future, _ in suspects if future.done())
    LOG.warning("a worker died, or the machine lacked something: trying %d tasks again, one at a time", len(suspects))
    engine.restart()
    for future, task in suspects:
        if future.done() and not future.cancelled() and future.exception() is None:
            yield from _results(task, future.result())
        elif out_of_time:  # the whole task would take as long again
            yield from _run_apart(engine, task)
        else:
            yield from _run_alone(engine, task)


def _run_alone(engine: Engine, task: Task[T], *, again: bool = True) -> Iterator[tuple[Task[T], list[T]]]:
    """Run a task while no other one is at work, in parts if it fails.

    A part for which something lacks is tried ``again``: others on the machine may have taken what it lacked.
    """
    try:
        found = engine.submit(task).result()
    except Exception as error:
        refuse_absent_module(error)
        if not _must_be_tried_alone(error):
            raise
        engine.restart()
        if len(task.split()) > 1:
            yield from _run_apart(engine, task)
            return
        if again and lacking(error) is not None:
            yield from _run_alone(engine, task, again=False)
            return
        _refuse_dead_engine(engine)
        cause = _cause(error)
        LOG.warning("a task of chunk %d crashes its worker (%s); its result says so", task.chunk_id, cause)
        found = task.crashed(cause)
    yield from _results(task, found)


def _run_apart(engine: Engine, task: Task[T]) -> Iterator[tuple[Task[T], list[T]]]:
    for part in task.split():
        yield from _run_alone(engine, part)


@dataclass(frozen=True)
class _Nothing:
    """A task without work: a worker that dies of it can't work at all."""

    chunk_id: int = -1

    def run(self) -> list[Any]:
        return []

    def split(self) -> list[Task[Any]]:
        return []

    def crashed(self, reason: str) -> list[Any]:
        return []


def _refuse_dead_engine(engine: Engine) -> None:
    """Check that workers survive a task without work, so that an image is to blame and not the engine.

    Raises:
        EngineLost: they die.
    """
    try:
        engine.submit(_Nothing()).result()
    except BrokenExecutor as error:
        raise EngineLost(
            f"the worker processes die before they get to work ({_cause(error)}), so no image is to blame. Finished "
            "work is kept; when the machine has memory and processes to spare, run the same command again, with fewer "
            "--workers or with --workers 0, which shows the error"
        ) from error


def _cause(error: BaseException) -> str:
    """Return why a single image failed when it was tried alone.

    Raises:
        EngineLost: the machine lacks a resource that no image uses up.
    """
    reason = lacking(error)
    if reason is not None and reason != MEMORY:
        raise EngineLost(
            f"{reason}, although no other task was running, so no image is to blame. Finished work is kept: "
            f"{advice_for(reason)}, then run the same command again"
        ) from error
    # Only the signal of the error's text, so that an image gives the same message in every run. It is recorded in rows.
    signal = re.search(r"SIG[A-Z]+", str(error))
    causes = {"SIGSEGV": "segmentation fault", "SIGKILL": "killed, most likely out of memory"}
    died = f"{signal[0]}: {causes.get(signal[0], 'ended by a signal')}" if signal else "it ended without a word"
    return reason or died


def _is_out_of_time(error: BaseException | None) -> bool:
    return isinstance(error, BrokenExecutor) and limit_met(str(error)) is not None

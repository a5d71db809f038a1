"""Slots: threads of a remote worker, each with a child process that does the work.

A task that kills its process kills the child and never the worker. The slot then finds the image that is to blame, by
`dispatch_tasks`, as a run on one machine does. Nothing here knows the engine that sends the tasks.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.util import Finalize
from typing import Any, ClassVar

from featurestore.engines.base import T, Task, Terms
from featurestore.engines.dispatch import dispatch_tasks
from featurestore.engines.local import SILENT, SINGLE_THREADED, LocalEngine
from featurestore.errors import EngineLost, FeatureStoreError
from featurestore.system import KEPT


@dataclass(frozen=True)
class Report:
    """The result of a task in a slot."""

    done: tuple[tuple[Task[Any] | None, list[Any]], ...] = ()  # with each part its results; None is the task itself
    error: Exception | None = None  # instead
    misfit: str | None = None  # instead: why this process can't work for the run


def run_in_slot(token: str, task: Task[Any], terms: Terms | None = None) -> Report:
    """Run a task of the run ``token`` in the slot of this thread, and return its results, or its error."""
    if terms is not None:
        misfit = misfit_here(token, terms)
        if misfit is not None:
            return Report(misfit=misfit)
        _end_when_over(token, terms)
    try:
        return Report(tuple(_slot_of_thread().run(token, task)))
    except (FeatureStoreError, ImportError) as error:
        return Report(error=error.with_traceback(None))


def misfit_here(token: str, terms: Terms) -> str | None:
    """Return why this process can't work for a run, None if it can. It is checked once for each run."""
    with _LOCK:
        if token in _WATCHED or token in _ENDED:
            return None
    return terms.misfit()


def _end_when_over(token: str, terms: Terms) -> None:
    """End what this process does for a run as soon as that is over, whether or not it could say so."""
    with _LOCK:
        if token in _WATCHED or token in _ENDED:
            return
        _WATCHED.add(token)
    threading.Thread(target=_watch, args=(token, terms), name="featurestore-terms", daemon=True).start()


def _watch(token: str, terms: Terms) -> None:
    while not terms.is_over():
        with _CHANGED:
            if _CHANGED.wait_for(lambda: token in _ENDED, WATCH_SECONDS):
                return
    end_run(token)


def end_run(token: str) -> None:
    """End what slots of this process do for a run, and the child processes of idle slots."""
    with _CHANGED:
        _ENDED.add(token)
        _WATCHED.discard(token)
        _CHANGED.notify_all()
        slots = list(_SLOTS)
    for slot in slots:
        slot.end(token)


class _Child(LocalEngine):
    """The child process of a slot."""

    # Whatever the environment says: Dask's nanny sets one of these for its own good.
    environment: ClassVar = {**SINGLE_THREADED, **KEPT, **SILENT}

    token = ""  # of the run that it works for

    def submit(self, task: Task[T]) -> Future[list[T]]:
        """Start a task, unless the run has ended: then its death was no accident.

        Raises:
            EngineLost: the run has ended, or no process can be started.
        """
        _refuse_ended(self.token)
        return super().submit(task)

    def kill(self) -> None:
        """Kill the process, from another thread: the engine is not used for that."""
        for pid in list(getattr(self._executor, "_processes", {})):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


class _Slot:
    """A thread that runs tasks, one at a time."""

    def __init__(self) -> None:
        _allow_children()
        self._child = _Child(1)
        self._busy = threading.Lock()
        # Before multiprocessing waits for its children, at the exit of a worker that is one of its processes itself.
        Finalize(None, self._child.close, exitpriority=100)

    def run(self, token: str, task: Task[T]) -> list[tuple[Task[T] | None, list[T]]]:
        """Return each part of the task with its results.

        Raises:
            EngineLost: the run has ended, or no child process can live here.
        """
        with self._busy:
            self._child.token = token
            try:
                return [
                    (None if part is task else part, results) for part, results in dispatch_tasks(self._child, [task])
                ]
            except BaseException:
                self._child.close()
                raise

    def end(self, token: str) -> None:
        """Kill the child of a slot that works for a run, or for none."""
        if self._busy.acquire(blocking=False):
            try:
                self._child.close()
            finally:
                self._busy.release()
        elif self._child.token == token:
            self._child.kill()


WATCH_SECONDS = 2.0  # between two looks whether a run is over
NOTICE_SECONDS = WATCH_SECONDS + 1  # after which a worker has seen it, and has killed what works for the run
_LOCK = threading.Lock()
_CHANGED = threading.Condition(_LOCK)
_WATCHED = set[str]()  # runs whose terms this process meets
_ENDED = set[str]()  # runs
_SLOTS = list[_Slot]()
_OF_THREAD = threading.local()


def _slot_of_thread() -> _Slot:
    slot: _Slot | None = getattr(_OF_THREAD, "slot", None)
    if slot is None:
        slot = _OF_THREAD.slot = _Slot()
        with _LOCK:
            _SLOTS.append(slot)
    return slot


def _refuse_ended(token: str) -> None:
    with _LOCK:
        if token in _ENDED:
            raise EngineLost("the run that this task is part of has ended")


def _allow_children() -> None:
    """Let this process have children although it is daemonic, as the workers of Dask's nanny are: they watch it."""
    vars(multiprocessing.current_process())["_config"]["daemon"] = False

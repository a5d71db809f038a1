"""Slots: threads of a remote worker, each with a child process that does the work.

A task that kills its process kills the child and never the worker. The slot then finds the image that is to blame, by
`dispatch_tasks`, as a run on one machine does. Nothing here knows the engine that sends the tasks.
"""

from __future__ import annotations

import multiprocessing
import threading
from dataclasses import dataclass
from multiprocessing.util import Finalize
from typing import Any, ClassVar

from featurestore.engines.base import T, Task
from featurestore.engines.dispatch import dispatch_tasks
from featurestore.engines.local import SILENT, SINGLE_THREADED, LocalEngine
from featurestore.errors import EngineLost, FeatureStoreError
from featurestore.system import KEPT_BYTES


@dataclass(frozen=True)
class Report:
    """The result of a task in a slot."""

    done: tuple[tuple[Task[Any] | None, list[Any]], ...] = ()  # with each part its results; None is the task itself
    error: Exception | None = None  # instead


def run_in_slot(token: str, task: Task[Any]) -> Report:
    """Run a task of the run ``token`` in the slot of this thread, and return its results, or its error."""
    try:
        return Report(tuple(_slot_of_thread().run(token, task)))
    except (FeatureStoreError, ImportError) as error:
        return Report(error=error.with_traceback(None))


def end_run(token: str) -> None:
    """End what slots of this process do for a run, and the child processes of idle slots."""
    with _LOCK:
        _ENDED.add(token)
        slots = list(_SLOTS)
    for slot in slots:
        slot.end(token)


class _Child(LocalEngine):
    """The child process of a slot."""

    # Whatever the environment says: Dask's nanny sets one of these for its own good.
    environment: ClassVar = {**SINGLE_THREADED, **{name: str(size) for name, size in KEPT_BYTES.items()}, **SILENT}

    def kill(self) -> None:
        """Kill the process, from another thread: the engine is not used for that."""
        for process in list(getattr(self._executor, "_processes", {}).values()):
            process.kill()


class _Slot:
    """A thread that runs tasks, one at a time."""

    def __init__(self) -> None:
        _allow_children()
        self._child, self._token = _Child(1), ""
        self._busy = threading.Lock()
        # Before multiprocessing waits for its children, at the exit of a worker that is one of its processes itself.
        Finalize(None, self._child.close, exitpriority=100)

    def run(self, token: str, task: Task[T]) -> list[tuple[Task[T] | None, list[T]]]:
        """Return each part of the task with its results.

        Raises:
            EngineLost: the run has ended, or no child process can live here.
        """
        with self._busy:
            self._token = token
            _refuse_ended(token)
            try:
                return [
                    (None if part is task else part, results) for part, results in dispatch_tasks(self._child, [task])
                ]
            except BaseException:
                self._child.close()
                _refuse_ended(token)  # its child was killed for that
                raise

    def end(self, token: str) -> None:
        """Kill the child of a slot that works for a run, or for none."""
        if self._busy.acquire(blocking=False):
            try:
                self._child.close()
            finally:
                self._busy.release()
        elif self._token == token:
            self._child.kill()


_LOCK = threading.Lock()
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

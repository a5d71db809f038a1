"""Workers that die apart from each other, and come and go: a death costs its own task another attempt, and no other."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import Future

import pytest

from featurestore.engines import WINDOW, Task, dispatch_tasks
from featurestore.engines.base import T, TaskDied
from featurestore.engines.dispatch import ATTEMPTS
from featurestore.engines.inline import InlineEngine
from featurestore.errors import EngineLost
from featurestore.testing.tasks import Squares


class Mortal(InlineEngine):
    """An engine on which tasks die: each of these numbers takes the tasks that it is part of with it, so many times."""

    workers = 2

    def __init__(self, deadly: dict[int, int], *, dead: bool = False) -> None:
        self.left, self.dead = Counter(deadly), dead
        self.handed: list[tuple[int, ...]] = []

    def submit(self, task: Task[T]) -> Future[list[T]]:
        numbers = getattr(task, "numbers", ())
        self.handed.append(numbers)
        killing = [number for number in numbers if self.left[number] > 0]
        if not killing and not self.dead:
            return super().submit(task)
        self.left.subtract(killing)
        future: Future[list[T]] = Future()
        future.set_exception(TaskDied("its worker was killed: SIGKILL(-9)"))
        return future

    def restart(self) -> None:
        raise AssertionError("the other tasks are still at work")


TASKS = [Squares((1, 2)), Squares((6, 7, 8)), Squares((3, 4))]


def found_by(engine: Mortal) -> list[tuple[int, str | None]]:
    return sorted((row.image_id, row.error) for _, rows in dispatch_tasks(engine, TASKS) for row in rows)


def test_a_task_that_dies_with_its_worker_runs_again_as_it_is() -> None:
    engine = Mortal({7: ATTEMPTS - 1})
    assert found_by(engine) == [(number, str(number**2)) for number in (1, 2, 3, 4, 6, 7, 8)]
    assert Counter(engine.handed) == {(1, 2): 1, (3, 4): 1, (6, 7, 8): ATTEMPTS}


def test_a_task_that_always_dies_runs_in_parts_and_one_image_is_blamed() -> None:
    engine = Mortal({7: 1000})
    found = dict(found_by(engine))
    assert found.pop(7) == "SIGKILL: killed, most likely out of memory"
    assert found == {number: str(number**2) for number in (1, 2, 3, 4, 6, 8)}
    assert Counter(engine.handed) == {
        (): 1,  # whether workers live at all
        (1, 2): 1,
        (3, 4): 1,
        (6, 7, 8): ATTEMPTS,
        (6,): 1,
        (7,): ATTEMPTS,
        (8,): 1,
    }


def test_no_image_is_blamed_where_workers_die_of_anything() -> None:
    with pytest.raises(EngineLost, match=r"^the worker processes die before they get to work \(SIGKILL: "):
        found_by(Mortal({}, dead=True))


class Growing(InlineEngine):
    """An engine that gets another worker with every task."""

    def __init__(self) -> None:
        self.flying: dict[int, Future[list[object]]] = {}
        self.peaks: list[int] = []

    @property
    def workers(self) -> int:  # type: ignore[override]  # read-only, as engines may have it
        return 1 + len(self.peaks) // 4

    def submit(self, task: Task[T]) -> Future[list[T]]:
        future: Future[list[T]] = Future()
        self.flying[task.chunk_id] = future  # type: ignore[assignment]
        self.peaks.append(len(self.flying))
        if len(self.flying) == WINDOW * self.workers or task.chunk_id == 19:
            for chunk_id, waiting in self.flying.items():
                waiting.set_result([chunk_id])
            self.flying.clear()
        return future


def test_workers_that_come_late_get_tasks_too() -> None:
    engine = Growing()
    found = [task.chunk_id for task, _ in dispatch_tasks(engine, [Squares((i,), chunk_id=i) for i in range(20)])]
    assert sorted(found) == list(range(20))
    assert max(engine.peaks) > WINDOW * 2

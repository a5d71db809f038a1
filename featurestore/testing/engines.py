"""The contract of engines."""

from __future__ import annotations

import errno
import os
from concurrent.futures import Future
from dataclasses import dataclass, replace

import pytest

from featurestore.engines import Engine, Task, dispatch_tasks
from featurestore.errors import EngineLost, LossyDescriptors
from featurestore.rows import Row


@dataclass(frozen=True)
class Squares:
    """Rows whose message is the square of the image's number; a number below 0 raises."""

    numbers: tuple[int, ...]
    chunk_id: int = 0

    def run(self) -> list[Row]:
        """Return a row for each number, whose file name is the process."""
        if min(self.numbers) < 0:
            raise LossyDescriptors(f"{min(self.numbers)} has no square here; use another number")
        return [Row(number, str(os.getpid()), "ok", str(number**2)) for number in self.numbers]

    def split(self) -> list[Task[Row]]:
        """Return a task for each number."""
        return [replace(self, numbers=(number,)) for number in self.numbers]

    def crashed(self, reason: str) -> list[Row]:
        """Return rows that say why."""
        return [Row(number, "", "crashed", reason) for number in self.numbers]


class Poor(Squares):
    """A machine on which something does not suffice for two images at once, nor ever for one whose number is 7."""

    def run(self) -> list[Row]:
        """Return the rows, if there is enough."""
        if len(self.numbers) > 1 or 7 in self.numbers:
            raise self.lack()
        return super().run()

    def lack(self) -> Exception:
        """Return what is raised: a lack of memory."""
        return MemoryError()


class PoorInFiles(Poor):
    """A machine that lacks open files."""

    def lack(self) -> Exception:
        """Return what the system says."""
        return OSError(errno.EMFILE, os.strerror(errno.EMFILE))


class PoorInThreads(Poor):
    """A machine that lacks threads."""

    def lack(self) -> Exception:
        """Return what Python says."""
        return RuntimeError("can't start new thread")


def results(rows: list[Row]) -> list[tuple[int, str | None]]:
    """Return the numbers and their squares."""
    return [(row.image_id, row.error) for row in rows]


class EngineContract:
    """The suite of an engine: give the fixture ``engine``, and close the engine in it."""

    @pytest.fixture
    def engine(self) -> Engine:
        """Yield the engine, and close it."""
        raise NotImplementedError(f"{type(self).__name__}.engine")

    def test_a_task_becomes_its_rows_in_order(self, engine: Engine) -> None:
        future = engine.submit(Squares((3, 1, 2)))
        assert isinstance(future, Future)
        assert results(future.result()) == [(3, "9"), (1, "1"), (2, "4")]

    def test_every_task_comes_back_once(self, engine: Engine) -> None:
        tasks = [Squares((i, i + 100), chunk_id=i) for i in range(25)]
        found = list(dispatch_tasks(engine, tasks))
        assert sorted(task.chunk_id for task, _ in found) == list(range(25))
        assert all(
            results(rows) == [(t.chunk_id, str(t.chunk_id**2)), (t.chunk_id + 100, str((t.chunk_id + 100) ** 2))]
            for t, rows in found
        )

    def test_an_error_of_the_store_comes_back_as_it_is(self, engine: Engine) -> None:
        with pytest.raises(LossyDescriptors, match=r"^-3 has no square here; use another number$"):
            list(dispatch_tasks(engine, [Squares((1,)), Squares((-3,)), Squares((2,))]))

    def test_after_an_error_the_engine_works_on(self, engine: Engine) -> None:
        with pytest.raises(LossyDescriptors):
            list(dispatch_tasks(engine, [Squares((-1,))]))
        assert [results(rows) for _, rows in dispatch_tasks(engine, [Squares((4,))])] == [[(4, "16")]]

    @pytest.mark.parametrize("kind", [Poor, PoorInFiles, PoorInThreads])
    def test_what_the_machine_lacks_is_tried_again_image_by_image(self, engine: Engine, kind: type[Poor]) -> None:
        tasks = [kind((1, 2)), Squares((3, 4)), kind((5, 6))]
        rows = [row for _, rows in dispatch_tasks(engine, tasks) for row in rows]
        assert sorted(results(rows)) == [(i, str(i**2)) for i in range(1, 7)]

    def test_memory_that_does_not_suffice_for_one_image_is_its_fault(self, engine: Engine) -> None:
        rows = [row for _, rows in dispatch_tasks(engine, [Poor((1, 2)), Poor((6, 7, 8))]) for row in rows]
        failed = [(row.image_id, row.status, row.error) for row in rows if row.status != "ok"]
        assert failed == [(7, "crashed", "Cannot allocate memory")]
        assert sorted(row.image_id for row in rows) == [1, 2, 6, 7, 8]

    @pytest.mark.parametrize("kind", [PoorInFiles, PoorInThreads])
    def test_what_no_image_takes_away_ends_the_run(self, engine: Engine, kind: type[Poor]) -> None:
        with pytest.raises(EngineLost, match=r"although no other task was running, so no image is to blame"):
            list(dispatch_tasks(engine, [kind((1, 2)), kind((6, 7, 8))]))

    def test_it_can_be_restarted_and_closed_at_any_time(self, engine: Engine) -> None:
        engine.restart()
        assert results(engine.submit(Squares((2,))).result()) == [(2, "4")]
        engine.restart()
        assert results(engine.submit(Squares((3,))).result()) == [(3, "9")]
        engine.close()
        engine.close()

    def test_nothing_is_begun_before_the_first_task(self, engine: Engine) -> None:
        engine.close()
        assert list(dispatch_tasks(engine, [])) == []

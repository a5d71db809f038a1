"""The contract of engines."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path

import pytest

from featurestore.engines import Engine, dispatch_tasks
from featurestore.errors import EngineLost, LossyDescriptors
from featurestore.rows import Row
from featurestore.testing.tasks import Poor, PoorAtFirst, PoorInFiles, PoorInThreads, Squares


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

    def test_what_others_have_taken_is_asked_for_again(self, engine: Engine, tmp_path: Path) -> None:
        found = list(dispatch_tasks(engine, [PoorAtFirst((3,), attempts=tmp_path)]))
        assert [results(rows) for _, rows in found] == [[(3, "9")]]
        assert len(list(tmp_path.iterdir())) == 3  # with others, alone, and alone again

    def test_memory_that_does_not_suffice_for_one_image_is_its_fault(self, engine: Engine) -> None:
        rows = [row for _, rows in dispatch_tasks(engine, [Poor((1, 2)), Poor((6, 7, 8))]) for row in rows]
        failed = [(row.image_id, row.status, row.error) for row in rows if row.status != "ok"]
        assert failed == [(7, "crashed", "Cannot allocate memory")]
        assert sorted(row.image_id for row in rows) == [1, 2, 6, 7, 8]

    @pytest.mark.parametrize(
        ("kind", "message"),
        [
            (
                PoorInFiles,
                "Too many open files, although no other task was running, so no image is to blame. Finished work is "
                "kept: raise the limit of open files (ulimit -n), then run the same command again",
            ),
            (
                PoorInThreads,
                "can't start new thread, although no other task was running, so no image is to blame. Finished work "
                "is kept: raise the limit of processes (ulimit -u), then run the same command again",
            ),
        ],
    )
    def test_what_no_image_takes_away_ends_the_run(self, engine: Engine, kind: type[Poor], message: str) -> None:
        with pytest.raises(EngineLost) as caught:
            list(dispatch_tasks(engine, [kind((1, 2)), kind((7, 8))]))
        assert str(caught.value) == message

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

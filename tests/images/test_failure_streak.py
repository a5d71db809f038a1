"""Failures that are alike, one after the other: they are not recorded as those of images, and the run ends."""

from __future__ import annotations

import pytest

from featurestore.errors import ImagesGone, NothingUsable
from featurestore.images import Streak, Trouble, trouble_of, unread_twice
from featurestore.images.failure_streak import LONGEST
from featurestore.pipeline.image_row import blamed
from featurestore.rows import Row
from featurestore.stages import Extract
from featurestore.system import MEMORY

ERROR = "ValueError: bad value 1"


def failed(n: int, error: str = ERROR) -> list[Trouble | None]:
    return [Trouble(f"{i}.jpg", error) for i in range(n)]


def recorded(*works: list[Trouble | None]) -> list[int]:
    """Which of these would be recorded, in which order."""
    streak = Streak[int]()
    found = [work for number, troubles in enumerate(works) for work in streak.cleared(number, troubles)]
    return [*found, *streak.rest()]


def test_what_failed_is_held_back_until_something_else_happens() -> None:
    streak = Streak[str]()
    assert list(streak.cleared("a", [None, *failed(2)])) == []
    assert list(streak.cleared("b", failed(3))) == []
    assert list(streak.cleared("c", [])) == []
    assert list(streak.cleared("d", [*failed(1), None])) == ["a", "b", "c", "d"]
    assert list(streak.cleared("e", failed(4))) == []
    assert list(streak.cleared("f", failed(5, "KeyError: 'x'"))) == ["e"]
    assert list(streak.rest()) == ["f"]
    assert list(streak.rest()) == []


def test_twenty_in_a_row_are_no_images_fault_and_nineteen_are() -> None:
    assert recorded(failed(10), failed(9), [None], failed(19)) == [0, 1, 2, 3]
    with pytest.raises(NothingUsable) as caught:
        recorded([None], failed(10), [*failed(10), None])
    assert str(caught.value) == (
        f"the extractor fails on every image: 20 images in a row, from 0.jpg to 9.jpg, gave {ERROR}. Nothing of them "
        "is recorded; correct the extractor or its parameters, and run the same command again"
    )


def test_what_was_cleared_before_the_streak_is_kept() -> None:
    streak = Streak[int]()
    assert list(streak.cleared(0, [*failed(3), None])) == [0]
    assert list(streak.cleared(1, [None, *failed(LONGEST - 1)])) == []
    with pytest.raises(NothingUsable):
        list(streak.cleared(2, failed(1)))


def test_failures_are_alike_when_only_their_numbers_differ() -> None:
    rows = [Row(i, f"{i}.jpg", "crashed", f"ValueError: image {i} of shape ({i}, 3)") for i in range(LONGEST)]
    with pytest.raises(NothingUsable):
        recorded([trouble_of(row) for row in rows])
    words = [Row(i, f"{i}.jpg", "crashed", f"ValueError: {chr(97 + i)}") for i in range(LONGEST)]
    assert recorded([trouble_of(row) for row in words]) == [0]


def test_files_that_can_not_be_read_are_alike_whatever_the_reason() -> None:
    reasons = ["Input/output error", "Stale file handle (NFS)"]
    rows = [Row(i, f"{i}.jpg", "unreadable", unread_twice(reasons[i % 2])) for i in range(LONGEST)]
    with pytest.raises(
        ImagesGone,
        match=r"can't be read: 20 images in a row, from 0.jpg to 19.jpg, gave Stale file handle \(NFS\)\. Nothing",
    ):
        recorded([trouble_of(row) for row in rows])


@pytest.mark.parametrize(
    "row",
    [
        Row(1, "a.jpg", "ok"),
        Row(1, "a.jpg", "missing", "the file does not exist"),
        Row(1, "a.jpg", "unreadable", "the file can't be read (Permission denied)"),
        Row(1, "a.jpg", "truncated", "the file ends before its picture does"),
        blamed(Extract(), 1, "a.jpg", "SIGSEGV: segmentation fault"),
        blamed(Extract(), 1, "a.jpg", "SIGPROF: ended by a signal"),
    ],
    ids=lambda row: str(row.error),
)
def test_what_is_an_images_own_may_happen_to_any_number_of_them(row: Row) -> None:
    assert trouble_of(row) is None


def test_what_the_engine_knows_of_an_image_becomes_its_row() -> None:
    stage, reasons = Extract(max_seconds=30), ("SIGPROF: ended by a signal", "SIGALRM: ended by a signal", MEMORY)
    rows = [blamed(stage, 7, "a.jpg", reason) for reason in reasons]
    assert [(row.image_id, row.status, row.error) for row in rows] == [
        (7, "crashed", "took more than 30 CPU seconds"),
        (7, "unreadable", unread_twice("no answer within 300 seconds")),
        (7, "crashed", "out of memory, with no other image at work"),
    ]
    assert [trouble_of(row) is None for row in rows] == [True, False, False]

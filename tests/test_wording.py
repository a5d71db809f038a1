"""Other programs' words in one line."""

from __future__ import annotations

import pytest

from featurestore import FeatureStore
from featurestore.errors import QueryError
from featurestore.wording import first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("it has no end:\n  row 1\n  row 2"), "it has no end"),
        (ValueError("\n  what is wrong!\nLINE 1: SELECT\n             ^"), "what is wrong"),
        ("Could not read it (why). ", "Could not read it (why)"),
        (ValueError("a\u200bb"), "a\\u200bb"),
        (ValueError(), "ValueError"),
        ("", "unknown error"),
        (None, "unknown error"),
    ],
)
def test_the_first_line_ends_in_no_punctuation(error: BaseException | str | None, line: str) -> None:
    assert first_line(error) == line


def test_an_answer_that_fails_does_not_end_in_a_colon(finished: FeatureStore) -> None:
    with pytest.raises(QueryError) as raised:
        finished.sql("SELECT error('these rows are wrong:' || chr(10) || '  row 1')")
    assert str(raised.value) == "Invalid Input Error: these rows are wrong"

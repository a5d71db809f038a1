"""Tables in the width of the screen, and colours where it has some."""

from __future__ import annotations

import io
import re
import sys
from dataclasses import replace

import click
import pytest

from featurestore import FeatureStore
from featurestore.cli.table import PLAIN, Screen, Table, find_screen
from featurestore.cli.text import info_text, plan_text, status_text, table_text
from tests.small import invoke

NARROW = Screen(80)
RUNS = "FROM runs"


def widest(text: str) -> int:
    return max(map(len, text.splitlines()))


def test_a_table_that_fits_is_unchanged() -> None:
    table = Table(["a", "b"], [["x" * 16, "1"]], (False, True), ids=("a",))
    assert table.fitted(21) == (table, 0)
    assert table.fitted(None) == (table, 0)


def test_identities_are_shortened_before_columns_go() -> None:
    rows = [["577eae8b08f18774", "p" * 20, "7"]]
    table = Table(["variant", "path", "n"], rows, (False, False, True), ids=("variant",), optional=("path",))
    (shortened, _), (dropped, _) = table.fitted(33), table.fitted(32)
    assert shortened.rows == [["577eae8b", "p" * 20, "7"]]
    assert (dropped.header, dropped.rows) == (["variant", "n"], [["577eae8b", "7"]])


def test_the_widest_texts_are_cut_and_numbers_never() -> None:
    table = Table(["a", "b", "n"], [["a" * 50, "b" * 30, "9" * 20]], (False, False, True))
    cut, n_dropped = table.fitted(70)
    (row,) = cut.rows
    assert (widest(cut.text()), n_dropped) == (70, 0)
    assert (row[0][-1], row[1][-1], row[2]) == ("…", "…", "9" * 20)


def test_columns_without_room_are_counted() -> None:
    names = [f"column_{i}" for i in range(30)]
    text = table_text(names, [["some text of a cell"] * 30], screen=NARROW)
    assert widest(text) <= 80
    assert "5 of 30 columns; use --json for all" in " ".join(text.split())


IMAGES = ("image_id", "filename", "chunk_id", "artist", "title", "year", "style", "genre")
IMAGE = (7, "aleks_da_vinci_artwork_2_vitruvian_man.jpg", 0, "Leonardo da Vinci", "Vitruvian Man", 1490, "Realism", "a")


def test_a_filename_is_kept_with_its_end_and_the_last_columns_go() -> None:
    shown = {width: table_text(IMAGES, [IMAGE], screen=Screen(width)).splitlines() for width in (80, 60, 24, 10)}
    assert [shown[width][0].split() for width in shown] == [[*IMAGES[:7]], [*IMAGES[:5]], [*IMAGES[:2]], ["filename"]]
    assert shown[60][2] == "       7  …ian_man.jpg         0  Leonardo da…  Vitruvian M…"
    assert shown[24][2] == "       7  …uvian_man.jpg"
    assert shown[10][2] == "…ian_man.jpg"


def test_long_numbers_go_before_the_last_columns() -> None:
    table = Table(["a", "n", "FILENAME", "c"], [["a", "9" * 60, "f" * 60, "c"]], (False, True, False, False))
    cut, n_dropped = table.fitted(40)
    assert (cut.header, n_dropped, widest(cut.text())) == (["a", "FILENAME", "c"], 1, 40)


def test_one_column_of_text_is_never_cut() -> None:
    assert table_text(["filename"], [["f" * 200]], screen=NARROW).splitlines()[2] == "f" * 200


def test_reports_fit_eighty_columns(finished: FeatureStore, begun: FeatureStore) -> None:
    status = replace(finished.status(), notes=("a note of many words " * 8,))
    told = [
        status_text(status, NARROW),
        plan_text(begun.plan(), NARROW),
        info_text(finished.info("china/whole-000.jpg"), NARROW),
        info_text(finished.info("broken.jpg"), NARROW),
    ]
    path = len(str(finished.path))  # one word
    assert [widest(text) <= max(80, path + 1) for text in told] == [True] * 4
    assert re.search(r"^fit_pca +4/4 +.* [0-9a-f]{16}$", told[0], re.MULTILINE)
    assert re.search(r"^fit_pca +4/4 +.* [0-9a-f]{8}$", status_text(status, Screen(72)), re.MULTILINE)
    assert "project: waits for fit_pca (chunks 0-3)" in told[1]


def test_the_table_of_runs_fits(finished: FeatureStore) -> None:
    runs = finished.sql(RUNS)
    assert widest(table_text(runs.columns, runs.fetchall(), screen=NARROW)) <= 80


def test_elsewhere_nothing_is_cut(finished: FeatureStore) -> None:
    shown = invoke("sql", finished.path, RUNS).stdout
    assert len(shown.splitlines()[0].split()) == len(finished.sql(RUNS).columns)


def test_colours_are_added_and_move_nothing(begun: FeatureStore, finished: FeatureStore) -> None:
    for store, coloured in ((finished, click.style("4/4", fg="green")), (begun, click.style("0/4", fg="yellow"))):
        status = store.status()
        painted = status_text(status, Screen(None, True))
        assert coloured in painted
        assert click.unstyle(painted) == status_text(status, PLAIN)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colours_need_a_terminal_and_no_objection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert find_screen() == PLAIN
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert find_screen() == Screen(70, True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert find_screen() == Screen(70, False)
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert find_screen() == Screen(70, False)


def test_help_is_a_verb_too() -> None:
    assert invoke("help").stdout == invoke("--help").stdout
    of_status = [invoke(*words).stdout.split()[2:] for words in (("help", "status"), ("status", "--help"))]
    assert of_status[0] == of_status[1]
    assert "there is no verb 'nonsense'" in invoke("help", "nonsense").stderr
    assert invoke("-V").stdout == invoke("--version").stdout

"""What a run shows of its progress: a bar, lines or events, and nothing where it was not asked."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from featurestore import FeatureStore
from featurestore.cli.program import cli
from featurestore.errors import ConfigError
from featurestore.pipeline import Options, run_stages
from featurestore.progress import Bar, Events, Lines, Progress, Silent, StageSummary, Summaries, reporter
from tests.small import context_of, make_small, small_store


class Clock:
    """A clock that stands still until it is set."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Moves(Silent):
    """Keeps how far each report of progress went."""

    def __init__(self) -> None:
        self.moves: list[int] = []

    def advance(self, n_images: int) -> None:
        self.moves.append(n_images)


def test_a_line_every_half_minute(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(clock := Clock())
    lines.begin("extract", 1200)
    for n_images in (100, 100, 50, 50):
        clock.now += 20
        lines.advance(n_images)
    assert capsys.readouterr().err.splitlines() == [
        "extract    200 of 1,200 images, 5.0 images/s, about 3 min 20 s left",
        "extract    300 of 1,200 images, 3.8 images/s, about 4 min 00 s left",
    ]


def test_a_slow_stage_has_images_a_minute_and_each_stage_its_own_pace(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(clock := Clock())
    lines.begin("extract", 10)
    clock.now += 25
    lines.begin("project", 9)
    clock.now += 29
    lines.advance(1)
    assert capsys.readouterr().err == ""
    clock.now += 31
    lines.advance(1)
    assert capsys.readouterr().err == "project    2 of 9 images, 2.0 images/min, about 3 min 30 s left\n"


def test_events_are_json(capsys: pytest.CaptureFixture[str]) -> None:
    events = Events(clock := Clock())
    events.begin("extract", 8)
    events.advance(1)  # within a second: no event
    clock.now += 2
    events.advance(3)
    events.say("the lamp is “on”")
    events.end(StageSummary("extract", n_images=8, statuses={"ok": 8}, seconds=4.0))
    events.begin("project", 8)
    events.end(None)
    shown = capsys.readouterr()
    begun, moved, said, ended, _, failed = map(json.loads, shown.err.splitlines())
    assert begun == {"event": "begin", "stage": "extract", "n_images": 8}
    rate = {"images_per_second": 2.0, "seconds_left": 2.0}
    assert moved == {"event": "progress", "stage": "extract", "n_done": 4, "n_images": 8, **rate}
    assert said == {"event": "message", "text": "the lamp is “on”"}
    assert (ended["event"], ended["statuses"], ended["seconds"]) == ("end", {"ok": 8}, 4.0)
    assert failed == {"event": "end", "stage": "project", "summary": None}
    assert shown.out == ""


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("quiet", "progress", "stderr", "kind"),
    [
        (True, None, Screen, Silent),
        (False, None, Screen, Bar),
        (False, None, io.StringIO, Lines),
        (False, "none", Screen, Summaries),
        (True, "none", Screen, Silent),
        (True, "json", io.StringIO, Events),
        (True, "bar", io.StringIO, Bar),
        (False, "lines", Screen, Lines),
    ],
)
def test_the_default_depends_on_where_it_is_shown(
    monkeypatch: pytest.MonkeyPatch,
    quiet: bool,
    progress: Progress | None,
    stderr: Callable[[], io.StringIO],
    kind: type[Silent],
) -> None:
    monkeypatch.setattr(sys, "stderr", stderr())
    assert type(reporter(quiet=quiet, progress=progress)) is kind


def test_a_bar_is_shown_and_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", screen := Screen())
    bar = Bar()
    bar.begin("extract", 4)
    bar.advance(3)
    bar.say("the lamp is on")
    bar.end(None)
    assert "extract  :   0%|" in screen.getvalue()
    assert "the lamp is on\n" in screen.getvalue()
    assert screen.getvalue().endswith("\r")


def test_a_slow_bar_has_images_a_second_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", screen := Screen())
    bar = Bar()
    bar.begin("extract", 1000)
    bar._bar.start_t -= 1000  # seconds ago
    bar._bar.last_print_t -= 1000
    bar.advance(500)
    bar.end(None)
    assert "0.50 images/s]" in screen.getvalue()


@pytest.mark.parametrize("kind", [Bar, Lines, Summaries])
def test_without_summaries_stdout_is_empty(capsys: pytest.CaptureFixture[str], kind: type[Summaries]) -> None:
    for summaries in (False, True):
        shown = kind(summaries=summaries)
        shown.begin("extract", 1)
        shown.end(StageSummary("extract", n_images=1))
        assert capsys.readouterr().out == ("extract    1 image, in 0.0 s\n" if summaries else "")


def one_chunk(folder: Path) -> FeatureStore:
    make_small(folder / "images", n=5)
    return small_store(folder / "store", folder / "images")


def test_a_fit_moves_within_a_large_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featurestore.storage.partition_writer.ROW_GROUP_BYTES", 100_000)  # two images
    store = one_chunk(tmp_path)
    for stage, least in (("extract", 3), ("fit_pca", 3)):
        moves = Moves()
        run_stages(context_of(store, moves), Options(stages=(stage,), workers=0))
        assert sum(moves.moves) == 5, stage
        assert len(moves.moves) >= least, (stage, moves.moves)


def test_the_command_line_shows_what_was_asked(tmp_path: Path) -> None:
    store = one_chunk(tmp_path)
    run = ["run", str(store.path), "extract", "--workers", "0"]
    both = CliRunner().invoke(cli, [*run, "--quiet", "--progress", "bar"])
    assert both.exit_code == 2
    assert "leave out one of --quiet and --progress" in both.stderr
    ended = CliRunner().invoke(cli, [*run, "--progress", "json"])
    events = [json.loads(line)["event"] for line in ended.stderr.splitlines()]
    assert (events[0], events[-1]) == ("begin", "end")
    assert ended.stdout == "done\n"


def test_a_run_and_its_plan_for_programs(tmp_path: Path) -> None:
    store = one_chunk(tmp_path)
    run = ["run", str(store.path), "extract", "--workers", "0", "--json"]
    (planned,) = json.loads(CliRunner().invoke(cli, [*run, "--dry-run"]).stdout)["stages"]
    assert (planned["stage"], planned["n_images"], planned["chunks"]) == ("extract", 5, [0])
    ended = CliRunner().invoke(cli, run)
    done = json.loads(ended.stdout)
    assert [(stage["stage"], stage["statuses"]) for stage in done["stages"]] == [("extract", {"ok": 5})]
    assert done["failed"] == {}
    assert ended.stderr == ""
    assert json.loads(CliRunner().invoke(cli, run).stdout) == {"stages": [], "failed": {}}


def test_python_names_the_ways_to_show_progress(tiny: FeatureStore) -> None:
    with pytest.raises(ConfigError, match="progress is one of bar, lines, json, none, not 'loud'"):
        tiny.run(progress="loud")  # type: ignore[arg-type]

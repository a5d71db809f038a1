"""The benchmarks' own arithmetic, and how their document is written; `make bench-quick` runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import run, start
from benchmarks.measure import ROOT, Bench, Watch, alternate, at_least, at_most, ratios, spread


def test_the_arms_take_turns() -> None:
    order: list[str] = []

    def arm(name: str, seconds: float) -> float:
        order.append(name)
        return seconds

    found = alternate({"a": lambda: arm("a", 2.0), "b": lambda: arm("b", 4.0)}, 3)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert ratios(found["b"], found["a"]) == [2.0, 2.0, 2.0]


def test_a_finding_is_judged_by_its_median() -> None:
    assert spread([3.0, 1.0, 2.0], " s") == "2 s (1 to 3)"
    assert at_least("", [9, 11, 12], 10).met
    assert not at_least("", [9, 9.9, 12], 10).met
    assert at_most("", [0.9, 1.0, 7], 1.0).met
    assert not at_most("", [0.9, 1.1, 1.2], 1.0).met


def test_a_section_that_is_measured_again_takes_its_place_and_the_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "benchmarks.md"
    for name, text in (("start", "first"), ("extract", "fast"), ("start", "again")):
        run.write(path, name, f"## {run.SECTIONS[name]}\n\n{text}\n")
    extract, start = run.SECTIONS["extract"], run.SECTIONS["start"]
    assert path.read_text(encoding="utf-8") == f"{run.HEAD}\n## {extract}\n\nfast\n\n## {start}\n\nagain\n"


def test_what_stands_between_a_section_and_its_aims_is_said_where_one_is_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench, why = Bench(Path(), quick=True, repetitions=1), "The disk is slow."
    monkeypatch.setattr(start, "MISSED", why, raising=False)
    for value, said in ((1.0, False), (2.0, True)):
        monkeypatch.setattr(start, "run", lambda bench, value=value: [at_most("a start", [value], 1.5)])
        assert (f"|\n\n{why}\n\nTimes: " in run.measured("start", bench)) == said


def test_every_section_is_a_module() -> None:
    for name in run.SECTIONS:
        assert (ROOT / "benchmarks" / f"{name}.py").is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_memory_of_children_is_seen() -> None:
    watch = Watch()
    subprocess.run([sys.executable, "-c", "import time; a = b'1' * 200_000_000; time.sleep(0.5)"], check=True)
    assert 200e6 < watch.end() < 300e6

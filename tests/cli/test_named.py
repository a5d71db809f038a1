"""Which store a verb is about, and what a shell completes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from featurestore import FeatureStore
from featurestore.cli.program import cli

COUNT = "SELECT count(*) AS n FROM images"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEATURESTORE_STORE", raising=False)
    return tmp_path


def typed(*words: object) -> Result:
    return CliRunner().invoke(cli, list(map(str, words)))


def n_images(*words: object) -> str:
    ended = typed("sql", *words, "--csv")
    assert ended.exit_code == 0, ended.output
    return ended.stdout.splitlines()[1]


def test_the_store_is_the_first_argument_or_else_the_usual_one(
    tiny: FeatureStore, begun: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert n_images("--store", tiny.path, COUNT) == "3"
    monkeypatch.chdir(begun.path)
    assert n_images(COUNT) == "26"
    assert n_images(tiny.path, COUNT) == "3"
    monkeypatch.setenv("FEATURESTORE_STORE", str(tiny.path))
    assert n_images(COUNT) == "3"
    assert n_images(".", COUNT) == "26"
    assert n_images("--store", begun.path, COUNT) == "26"


def test_what_follows_may_be_one_or_many(tiny: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATURESTORE_STORE", str(tiny.path))
    assert typed("info", "000.png").stdout.startswith("000.png\n")
    assert typed("run", "extract", "project", "--workers", "0").stdout.startswith("everything is up to date")
    assert "there is no stage 'nowhere'" in str(typed("run", "nowhere").exception)
    assert "unexpected extra argument" in typed("status", "--store", tiny.path, tiny.path).stderr


def test_without_any_store() -> None:
    said = "no store is named; give its folder first, or --store, or work in it, or set $FEATURESTORE_STORE"
    assert said in " ".join(typed("status").stderr.split())
    assert typed("status", "--help").exit_code == 0


@pytest.mark.parametrize("verb", ["prune", "rebuild", "verify --repair", "ingest", "index"])
def test_what_changes_more_names_its_store(tiny: FeatureStore, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATURESTORE_STORE", str(tiny.path))
    monkeypatch.chdir(tiny.path)
    ended = typed(*verb.split())
    assert ended.exit_code == 2
    assert "'STORE'" in ended.stderr or "what repairs a store names it" in ended.stderr


def completed(monkeypatch: pytest.MonkeyPatch, *words: object) -> list[str]:
    monkeypatch.setenv("COMP_WORDS", " ".join(["featurestore", *map(str, words)]))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    monkeypatch.setenv("_FEATURESTORE_COMPLETE", "bash_complete")
    ended = CliRunner().invoke(cli, [], prog_name="featurestore")
    return [line.partition(",")[2] for line in ended.stdout.splitlines() if line]


def test_a_shell_completes(tiny: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    assert completed(monkeypatch, "run", tiny.path, "fit_") == ["fit_pca", "fit_scale", "fit_words"]
    assert completed(monkeypatch, "info", tiny.path, "00") == ["000.png", "001.png", "002.png"]
    assert completed(monkeypatch, "export", tiny.path, "out", "--format", "par") == ["parquet", "parquet-flat"]
    assert completed(monkeypatch, "sql", tiny.path, "image_") == ["image_counts"]
    assert completed(monkeypatch, "info", tiny.path / "none", "00") == []


def test_bash_completes(tiny: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real bash, in which the script of the documentation asks the program for the words."""
    bash = shutil.which("bash")
    if bash is None or not (Path(sys.executable).parent / "featurestore").is_file():
        pytest.skip("there is no bash, or featurestore is not beside Python")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    script = """
eval "$(_FEATURESTORE_COMPLETE=bash_source featurestore)"
COMP_WORDS=(featurestore info "$1" 00) COMP_CWORD=3
_featurestore_completion featurestore
printf '%s\n' "${COMPREPLY[@]}"; complete -p featurestore"""
    command = [bash, "--norc", "--noprofile", "-c", script, "bash", str(tiny.path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if "versions older than 4.4" in ended.stderr:
        pytest.skip("completion needs bash 4.4 or newer")
    assert ended.stdout.splitlines() == [
        "000.png",
        "001.png",
        "002.png",
        "complete -o nosort -F _featurestore_completion featurestore",
    ]

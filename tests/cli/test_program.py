"""The command line: what people type, what they read, and how it ends."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from featurestore import FeatureStore
from featurestore.cli import program as cli
from featurestore.cli.common import without_python
from featurestore.cli.demo import _program
from featurestore.cli.samples import CROPS
from tests.conftest import LONG_SIDE, Samples
from tests.small import configure, copy


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


Invoke = Callable[..., Ended]


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Invoke:
    """Type a command."""

    def type_in(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["featurestore", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return Ended(int(ended.value.code or 0), printed.out, printed.err)

    return type_in


def test_a_session_from_init_to_sql(invoke: Invoke, samples: Samples, tmp_path: Path) -> None:
    store = tmp_path / "store"
    begun = invoke("init", store, "--images", samples.images, "--dataset", samples.dataset, "--chunk-size", 8)
    counts = "26 images new, 0 changed; 26 images (5 test, 21 train) in 4 chunks"
    assert (begun.code, begun.err) == (0, "")
    proposal = r"a run of 26 images would write about 28.9 MB, and extract take about [\d.]+ s"
    assert re.fullmatch(rf"{store}: {re.escape(counts)}\n{proposal}\nnext: featurestore run {store}\n", begun.out)
    planned = invoke("run", store, "--dry-run")
    assert planned.code == 0
    assert re.search(r"^extract +4 +26 +11.7 MB +[\d.]+ s +never run \(chunks 0-3\)$", planned.out, re.MULTILINE)
    assert re.search(r"^quantize .* waits for fit_scale \(chunks 0-3\)$", planned.out, re.MULTILINE)

    ran = invoke("run", store, "--workers", 0)
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert [line.split()[0] for line in lines] == ["extract", "fit_pca", "project", "fit_scale", "quantize", "done;"]
    assert re.match(r"extract    26 images \(24 ok, 1 \w+, 1 \w+\), 5,\d+ descriptors, \d+ kB, in \d+", lines[0])
    failed = "1 truncated: see the view failures (run --retry-failed tries them again)"
    assert lines[-1] == f"done; {failed}"
    assert ran.err == ""  # no bar where stderr is not a terminal

    again = invoke("run", store)
    assert again == Ended(0, f"everything is up to date; {failed}\n", "")
    assert invoke("run", store, "--dry-run").out == again.out

    answer = invoke("sql", store, "SELECT subset, count(*) AS n FROM images GROUP BY ALL ORDER BY ALL")
    assert answer.out.split() == ["subset", "n", "--------", "---", "test", "5", "train", "21", "(2", "rows)"]


def test_quiet_says_nothing(invoke: Invoke, tiny: FeatureStore, tmp_path: Path) -> None:
    store = copy(tiny, tmp_path / "store")
    configure(store, "extract", sift={"n_octave_layers": 4})  # every stage is run
    assert invoke("run", store.path, "--workers", 0, "--quiet") == Ended(0, "", "")
    assert invoke("run", store.path, "--dry-run").out.startswith("everything is up to date")


def test_status_for_people(invoke: Invoke, finished: FeatureStore) -> None:
    status = invoke("status", finished.path)
    assert status.code == 0
    assert re.search(r"^extract +4/4 +24 +1 +1 +5,\d+ +\d+ kB +[0-9a-f]{16}$", status.out, re.MULTILINE)
    assert re.search(r"^quantize: 0.\d+% of the values were clipped to the bounds$", status.out, re.MULTILINE)
    assert "extract: 1 truncated; see the view failures" in status.out


def test_status_for_programs(invoke: Invoke, finished: FeatureStore) -> None:
    status = json.loads(invoke("status", finished.path, "--json").out)
    assert status["n_images"] == 26
    assert [stage["stage"] for stage in status["stages"]] == ["extract", "fit_pca", "project", "fit_scale", "quantize"]
    assert status["stages"][0]["images"] == {"ok": 24, "empty": 1, "truncated": 1}


def test_sql_as_csv_and_json(invoke: Invoke, finished: FeatureStore) -> None:
    query = "SELECT filename, subset FROM images ORDER BY image_id LIMIT 2"
    rows = list(csv.DictReader(io.StringIO(invoke("sql", finished.path, query, "--csv").out)))
    assert rows == json.loads(invoke("sql", finished.path, query, "--json").out)
    assert rows[0]["filename"].endswith(".jpg")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("status", "nowhere"), "nowhere --images DIR --dataset CSV"),
        (("status", "."), "is not a store: it has no featurestore.toml; make one with: featurestore init"),
        (("init", "s", "--images", "nowhere"), "the folder of images nowhere does not exist or is not a folder"),
        (("init", "s", "--images", ".", "--dataset", "no.csv"), "no.csv does not exist"),
        (("init", "s", "--images", "."), "no image"),
        (("init", "s", "--images", ".", "--chunk-size", "0"), "error: --chunk-size is 0, and should be at least 1"),
        (("init", "s", "--images", ".", "--type", "a=INT"), "error: --type a is 'INT', and can be VARCHAR or"),
    ],
)
def test_bad_input_is_one_line(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = invoke(*arguments)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("error: ")
    assert says in ended.err
    assert ended.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []  # a failed init leaves nothing behind


def test_a_file_in_place_of_a_store(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "dataset.csv"
    path.write_text("filename,subset\n")
    assert invoke("status", path).err == (
        f"error: {path} is a file, and not the folder of a store; make one with: featurestore init STORE --images DIR "
        "--dataset CSV\n"
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("run", "bogus"), "there is no stage 'bogus'; the stages are extract fit_pca project fit_scale quantize"),
        (
            ("run", "quantize"),
            "quantize needs the model of fit_scale, which has not been fitted yet; run fit_scale first",
        ),
        (
            ("run", "fit_pca"),
            "fit_pca learns from every chunk, and extract is not up to date for chunks 0-3; run extract",
        ),
        (("run", "fit_pca", "--chunks", "0"), "--chunks is for chunk stages, and fit_pca learns from every chunk"),
        (("run", "extract", "--chunks", "2-9"), "there is no chunk 4; this store has chunks 0 to 3"),
        (
            ("run", "--retry-failed", "--status", "lost"),
            "there is no failed status 'lost'; they are missing, unreadable",
        ),
    ],
)
def test_a_run_that_cannot_be(invoke: Invoke, fresh: FeatureStore, arguments: tuple[str, ...], says: str) -> None:
    verb, *rest = arguments
    ended = invoke(verb, fresh.path, *rest)
    assert ended.code == 1
    assert says in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize("chunks", ["x", "3-1", "1,,2", "-3", "1-2-3"])
def test_chunks_that_are_none(invoke: Invoke, fresh: FeatureStore, chunks: str) -> None:
    ended = invoke("run", fresh.path, f"--chunks={chunks}")
    assert ended.code == 2
    assert "is not a chunk or a range of chunks; write them like 0-3,7" in ended.err


@pytest.mark.parametrize("chunks", ["0-99999999999", "0-999999,1000000-1000001", "9" * 5000, "0-" + "9" * 30])
def test_chunks_that_no_store_has_take_no_memory(invoke: Invoke, fresh: FeatureStore, chunks: str) -> None:
    ended = invoke("run", fresh.path, "--chunks", chunks)
    assert ended.code == 2
    assert re.search("no store has a chunk|at most 1,000,000 chunks can be named", ended.err)
    assert "Traceback" not in ended.err


def test_status_without_retry_is_a_usage_error(invoke: Invoke, fresh: FeatureStore) -> None:
    ended = invoke("run", fresh.path, "--status", "missing")
    assert (ended.code, "--status goes with --retry-failed" in ended.err) == (2, True)


def test_a_run_without_failures_has_nothing_to_do(invoke: Invoke, tiny: FeatureStore, tmp_path: Path) -> None:
    store = copy(tiny, tmp_path / "store")
    for options in ((), ("--dry-run",)):
        ended = invoke("run", store.path, *options)
        assert ended == Ended(0, "everything is up to date; there is nothing to do\n", "")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ("run",),
            "no store is named; give its folder first, or --store, or work in it, or set $FEATURESTORE_STORE; see feat",
        ),
        (
            ("run", "s", "--chunk", "1"),
            "No such option '--chunk'. Did you mean '--chunks'? See featurestore run --help",
        ),
        (("export", "s", "out", "--format", "x"), "see featurestore export --help"),
        (("export", "s", "out"), "Missing option '--format'; see featurestore export --help"),
        (
            ("run", "s", "--workers", "-1"),
            "Invalid value for '--workers': -1 is not in the range x>=0; see featurestore run",
        ),
        (("run", "s", "--status", "missing"), "--status goes with --retry-failed; see featurestore run --help"),
        (("walk",), "No such command 'walk'; see featurestore --help"),
        (("--nope",), "No such option '--nope'; see featurestore --help"),
    ],
)
def test_a_usage_error_is_one_line(invoke: Invoke, arguments: tuple[str, ...], says: str) -> None:
    ended = invoke(*arguments)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert ended.err.startswith("error: ")
    assert says in ended.err


def test_without_a_verb_the_help_is_shown(invoke: Invoke) -> None:
    ended = invoke()
    assert ended.code == 2
    assert "Compute what is missing" in ended.err


def test_some_chunks_of_a_fresh_store(invoke: Invoke, fresh: FeatureStore) -> None:
    ended = invoke("run", fresh.path, "--chunks", "0,2", "--workers", 0)
    assert ended.code == 0
    assert "fit_pca waits for extract of chunks 1, 3" in ended.err
    assert fresh.status().stages[0].n_done == 2


def test_what_is_written_in_python_is_not_told_on_the_command_line(
    invoke: Invoke, tiny: FeatureStore, tmp_path: Path
) -> None:
    (tmp_path / "report.html").write_text("mine", encoding="utf-8")
    assert invoke("report", tiny.path, tmp_path / "report.html").err.endswith("or replace it with --force\n")
    for said in ("with --force (force=True)", "--format csv (form='csv')", "-p b=VALUE (in Python b=VALUE)"):
        assert without_python(f"{said} x (y=1)") == f"{said.partition(' (')[0]} x (y=1)"
    assert without_python("--untrusted (in Python: FeatureStore(path))") == "--untrusted"


def test_a_store_is_not_overwritten(invoke: Invoke, finished: FeatureStore, samples: Samples) -> None:
    ended = invoke("init", finished.path, "--images", samples.images)
    assert ended.code == 1
    assert f"{finished.path} exists already; choose another folder" in ended.err


def test_scanning_warns_that_nothing_is_held_out(invoke: Invoke, samples: Samples, tmp_path: Path) -> None:
    ended = invoke("init", tmp_path / "store", "--images", samples.images)
    assert ended.code == 0
    assert ended.err == "warning: there is no dataset CSV, so every image is train, and none is test\n"
    assert "26 images (26 train) in 1 chunk" in ended.out


def test_ingest_again(invoke: Invoke, store: FeatureStore) -> None:
    ended = invoke("ingest", store.path)
    assert ended == Ended(0, "nothing is new or changed; 26 images (5 test, 21 train) in 4 chunks\n", "")


@pytest.mark.parametrize("program", [["-m", "featurestore"], [str(Path(__file__).parent.parent.parent / "cli.py")]])
def test_all_ways_in_are_the_same_program(program: list[str], finished: FeatureStore) -> None:
    command = [sys.executable, *program, "status", str(finished.path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0
    assert "quantize" in ended.stdout
    assert ended.stderr == ""


def test_a_reader_that_has_seen_enough(finished: FeatureStore) -> None:
    query = "SELECT * FROM range(200000)"
    command = f"{sys.executable} -m featurestore sql {finished.path} '{query}' --csv | head -n 1"
    ended = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert (ended.stdout, ended.stderr) == ("range\n", "")


def test_the_demo_runs_in_any_state_of_its_folder(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featurestore.cli.samples.LONG_SIDE", LONG_SIDE)
    monkeypatch.setattr("featurestore.cli.samples.CROPS", {name: CROPS[name] for name in ("whole", "centre")})
    folder = tmp_path / "demo"
    first = invoke("demo", folder)
    assert first.code == 0
    for heading in ("$ featurestore status", "With your own images:", "Which images could not be used, and why?"):
        assert heading in first.out
    offered = first.out.partition("Next, with this store")[2].partition("With your own images:")[0].splitlines()[1:]
    typed = [line.strip() for line in offered if line.strip() and not line.strip().startswith(". ")]
    monkeypatch.chdir(tmp_path)
    assert [line.split()[1] for line in typed] == ["search", "match", "show", "sql", "plot", "report", "view"]
    for line in typed[:-1]:  # view does not end by itself
        assert invoke(*shlex.split(line.partition("featurestore ")[2])).code == 0, line
    for name in ("pair.png", "keypoints.png", "counts.png", "report.html"):
        assert (tmp_path / name).is_file()
    (folder / "store" / "catalog.duckdb").unlink()
    monkeypatch.setattr("featurestore.cli.samples.LONG_SIDE", LONG_SIDE // 2)
    assert invoke("demo", folder).code == 0
    (folder / "thesis.tex").write_text("mine", encoding="utf-8")
    refused = invoke("demo", folder)
    assert refused.code == 1
    assert "holds thesis.tex, which is not of a demo; choose another folder: featurestore demo DIR" in refused.err
    assert (folder / "thesis.tex").exists()


@pytest.mark.parametrize("on_path", [True, False])
@pytest.mark.parametrize("activated_by", ["activate", None])
def test_the_demo_names_the_program_as_it_can_be_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_path: bool, activated_by: str | None
) -> None:
    folder = tmp_path / "it's here" / "bin"
    folder.mkdir(parents=True)
    for name in ("featurestore", *filter(None, [activated_by])):
        (folder / name).touch(mode=0o755)
    monkeypatch.setattr("sys.executable", str(folder / "python"))
    monkeypatch.setenv("PATH", str(folder) if on_path else str(tmp_path))
    monkeypatch.chdir(tmp_path)
    program, activation = _program()
    if on_path:
        assert (program, activation) == ("featurestore", "")
    elif activated_by:
        assert (program, shlex.split(activation)) == ("featurestore", [".", "it's here/bin/activate"])
    else:
        assert shlex.split(program) == [str(folder / "python"), "-m", "featurestore"]
        assert activation == ""


def test_types_of_columns(invoke: Invoke, samples: Samples, tmp_path: Path) -> None:
    store = tmp_path / "s"
    arguments = ("--images", str(samples.images), "--dataset", str(samples.dataset))
    made = invoke("init", str(store), *arguments, "--type", "rotation=double", "--type", "photo=TEXT")
    assert made.code == 0
    query = "SELECT DISTINCT typeof(rotation), typeof(photo) FROM images"
    assert FeatureStore(store).sql(query).fetchall() == [("DOUBLE", "VARCHAR")]
    assert invoke("ingest", str(store), "--type", "rotation=VARCHAR").code == 0
    assert FeatureStore(store).sql(query).fetchall() == [("VARCHAR", "VARCHAR")]
    assert "write them like year=BIGINT" in invoke("ingest", str(store), "--type", "rotation").err
    assert "error: --type rotation is 'INT', and can be" in invoke("ingest", str(store), "--type", "rotation=INT").err

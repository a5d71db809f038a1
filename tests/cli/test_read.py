"""`sql` and `info` as people type them."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from featurestore import FeatureStore
from featurestore.cli import sql as cli_sql
from featurestore.cli.text import table_text
from tests.crash.harness import run
from tests.small import context_of, invoke

COUNT = "SELECT subset, count(*) AS n FROM images GROUP BY 1 ORDER BY 1"


def test_a_table_for_people(finished: FeatureStore) -> None:
    ended = invoke("sql", finished.path, "SELECT filename, descriptors, error, 12345678.25 AS f FROM quantized LIMIT 1")
    assert ended.exit_code == 0
    header, _, row, last = ended.stdout.splitlines()
    assert header.split() == ["filename", "descriptors", "error", "f"]
    assert re.fullmatch(r"china/whole-000.jpg +<12,800 bytes> +NULL +12345678.25", row)
    assert last == "(1 row)"


def test_a_table_that_is_cut_says_so(finished: FeatureStore) -> None:
    ended = invoke("sql", finished.path, "SELECT range AS n FROM range(2500)")
    lines = ended.stdout.splitlines()
    assert len(lines) == 2 + cli_sql.SHOWN + 1
    assert lines[-1] == "(1,000 of 2,500 rows)"
    assert ended.stderr == "only the first 1,000 rows are shown; use --csv, --json or --output for all\n"
    assert invoke("sql", finished.path, "SELECT range AS n FROM range(1000)").stdout.endswith("\n(1,000 rows)\n")


def test_nothing_in_an_answer_redraws_the_terminal() -> None:
    assert "\x1b" not in table_text(["a"], [["\x1b[2Jx\ny\u202e"]])
    assert r"\x1b[2Jx\ny\u202e" in table_text(["a"], [["\x1b[2Jx\ny\u202e"]])


def test_explain_is_drawn(finished: FeatureStore) -> None:
    ended = invoke("sql", finished.path, "EXPLAIN SELECT photo FROM images")
    assert "Projection" in ended.stdout
    assert "explain_value" not in ended.stdout


def test_csv_and_json_on_stdout(finished: FeatureStore) -> None:
    table = invoke("sql", finished.path, COUNT, "--csv").stdout
    assert list(csv.reader(io.StringIO(table))) == [["subset", "n"], ["test", "5"], ["train", "21"]]
    rows = json.loads(invoke("sql", finished.path, COUNT, "--json").stdout)
    assert rows == [{"subset": "test", "n": 5}, {"subset": "train", "n": 21}]
    everything = invoke("sql", finished.path, "FROM range(2500)", "--csv").stdout
    assert len(everything.splitlines()) == 2501


def test_output_to_a_file(finished: FeatureStore, tmp_path: Path) -> None:
    path = tmp_path / "counts.parquet"
    ended = invoke("sql", finished.path, COUNT, "--output", path)
    assert (ended.exit_code, ended.stdout, ended.stderr) == (0, f"{path}: 2 rows\n", "")
    assert pq.read_table(path).to_pylist() == [{"subset": "test", "n": 5}, {"subset": "train", "n": 21}]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--output", "a.xlsx"], "'a.xlsx' ends in none of .csv, .json, .parquet, .arrow, which determine the format"),
        (
            ["--output", "a.csv", "--json"],
            "--json is for the screen, and --output takes the format from the file's extension",
        ),
    ],
)
def test_usage_errors(finished: FeatureStore, arguments: list[str], says: str) -> None:
    ended = invoke("sql", finished.path, COUNT, *arguments)
    assert ended.exit_code == 2
    assert says in ended.stderr


def test_an_error_is_one_line_and_a_code(finished: FeatureStore) -> None:
    ended = run("sql", finished.path, "SELECT * FROM image, quantized")
    assert (ended.code, ended.out) == (1, "")
    assert re.fullmatch(r"error: there is no view image; did you mean images\? the views are [\w, ]+\n", ended.err)


def test_functions_leave_no_traces_on_stderr(finished: FeatureStore) -> None:
    query = "SELECT max(array_distance(descriptor, descriptor)) AS d FROM quantized_descriptors"
    command = [sys.executable, "-m", "featurestore", "sql", str(finished.path), query, "--csv"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "d\n0\n", "")


def test_info_for_people(finished: FeatureStore) -> None:
    text = invoke("info", finished.path, "china/whole-000.jpg").stdout
    assert text.startswith("china/whole-000.jpg\n  image_id  0\n  chunk     0\n  subset    train\n  photo     china\n")
    assert re.search(r"^quantize  ok +200  [0-9a-f]{16}  [0-9a-f]{16}  partitions/quantize/.*parquet$", text, re.M)
    assert re.search(r"^fit_pca: model [0-9a-f]{16} learnt from it$", text, re.M)
    failed = invoke("info", finished.path, "broken.jpg").stdout
    assert re.search(r"^extract   truncated", failed, re.M)
    assert re.search(r"^extract: .*ends before", failed, re.M)


def test_info_of_older_and_pruned(store: FeatureStore) -> None:

    with context_of(store).catalog.transaction() as connection:
        connection.execute("UPDATE partitions SET pruned = true WHERE stage = 'extract'")
    path = store.path / "featurestore.toml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("keypoints = true", "keypoints = false"), encoding="utf-8")
    said = invoke("info", store.path, "china/whole-000.jpg").stdout
    assert re.search(r"^extract +ok .* pruned$", said, re.M)
    assert re.search(r"^quantize +pending +[0-9a-f]{16}  [0-9a-f]{16}$", said, re.M)
    assert re.search(r"^quantize \(older\)  ok ", said, re.M)


def test_info_as_json(finished: FeatureStore) -> None:
    found = json.loads(invoke("info", finished.path, "china/whole-000.jpg", "--json").stdout)
    assert (found["image_id"], found["dataset"]["photo"]) == (0, "china")
    assert [stage["stage"] for stage in found["stages"]] == ["extract", "project", "quantize"]


def test_info_of_an_image_that_is_not_there(finished: FeatureStore) -> None:
    ended = run("info", finished.path, "whole-000.jpg")
    assert ended.code == 1
    assert ended.err == (
        f"error: there is no image 'whole-000.jpg' in {finished.path}; did you mean 'china/whole-000.jpg'?\n"
    )

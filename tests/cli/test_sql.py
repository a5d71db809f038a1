"""`sql` with parameters, from a file and from stdin, and as a shell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from featurestore import FeatureStore
from featurestore.cli.program import cli
from featurestore.cli.shell import MORE, PROMPT, run_shell
from featurestore.cli.table import Screen
from featurestore.errors import QueryError
from tests.small import invoke

ASKED = "SELECT count(*) AS n FROM images WHERE subset = $subset AND image_id < $below"


def test_parameters_are_typed_in(finished: FeatureStore) -> None:
    ended = invoke("sql", finished.path, "-p", "subset=train", "-p", "below=5", ASKED, "--csv")
    direct = ASKED.replace("$subset", "'train'").replace("$below", "5")
    assert ended.stdout == invoke("sql", finished.path, direct, "--csv").stdout
    wrong = invoke("sql", finished.path, "-p", "subset", ASKED)
    assert "names no parameter and value; write them like artist=Monet" in " ".join(wrong.stderr.split())


def test_the_query_is_in_a_file_or_on_stdin(finished: FeatureStore, tmp_path: Path) -> None:
    (file := tmp_path / "q.sql").write_text("SELECT 'é' AS e;\n", encoding="utf-8")
    assert invoke("sql", finished.path, "-f", file, "--csv").stdout == 'e\n"é"\n'
    for dash in (["-"], ["-f", "-"]):
        ended = CliRunner().invoke(cli, ["sql", str(finished.path), *dash, "--csv"], input="SELECT 2 AS n")
        assert ended.stdout == "n\n2\n"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "there is no query; give one, or --file FILE, or - to read it from stdin"),
        (("SELECT 1", "-f", "q.sql"), "the query is in --file already; leave out one of them"),
        (("-f", "none.sql"), "none.sql can't be read: No such file or directory"),
    ],
)
def test_where_the_query_is(finished: FeatureStore, options: tuple[str, ...], says: str) -> None:
    ended = invoke("sql", finished.path, *options)
    assert ended.exit_code == 2
    assert says in " ".join(ended.stderr.split())


class Terminal:
    """What people type: lines, Ctrl-C and at last Ctrl-D; and what was asked."""

    def __init__(self, *typed: str | type[BaseException]) -> None:
        self.typed, self.asked, self.prompts = list(typed), list[str](), list[str]()

    def read(self, prompt: str) -> str:
        self.prompts.append(prompt)
        found = self.typed.pop(0) if self.typed else EOFError
        if isinstance(found, str):
            return found
        raise found

    def run(self, ask: Callable[[str], None] | None = None) -> list[str]:
        run_shell(ask or self.asked.append, views=lambda: {"images": "image_id", "runs": "run_id"}, read=self.read)
        return self.asked


def test_a_query_ends_with_a_semicolon() -> None:
    terminal = Terminal("SELECT 1", "", "  + 1;", "SELECT 2;")
    assert terminal.run() == ["SELECT 1\n+ 1;", "SELECT 2;"]
    assert terminal.prompts == [PROMPT, MORE, MORE, PROMPT, PROMPT]


def test_ctrl_c_cancels_what_was_typed() -> None:
    assert Terminal("SELECT", KeyboardInterrupt, "SELECT 2;").run() == ["SELECT 2;"]


def test_ctrl_c_ends_a_query_and_not_the_shell() -> None:
    def cancelled(query: str) -> None:
        raise KeyboardInterrupt

    terminal = Terminal("SELECT 1;", "SELECT 2;")
    terminal.run(cancelled)
    assert len(terminal.prompts) == 3


def test_quit_ends_it() -> None:
    assert Terminal("SELECT 1;", ".quit", "SELECT 2;").run() == ["SELECT 1;"]


def test_commands_work_in_the_middle_of_a_query(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal("SELECT 'a", ".tables", ".help", "b'", ".upper(),", ".5;", "SELECT 2", ".quit", ";")
    assert terminal.run() == ["SELECT 'a\nb'\n.upper(),\n.5;"]
    shown = capsys.readouterr().out.splitlines()
    assert shown[:2] == ["images", "runs"]
    assert shown[2].startswith("a query ends with a semicolon")
    assert terminal.prompts[-1] == MORE


def test_what_is_left_out_is_told_without_options(finished: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["FROM images;", "FROM range(1001);"]
    monkeypatch.setattr("featurestore.cli.sql._query", lambda query, file: query)  # stdin as a terminal
    monkeypatch.setattr("featurestore.cli.table.find_screen", lambda: Screen(20))
    monkeypatch.setattr("builtins.input", Terminal(*lines).read)
    typed = invoke("sql", finished.path)
    assert "columns; name those that you need)" in " ".join(typed.stdout.split())
    assert typed.stderr == "only the first 1,000 rows are shown; ask for fewer with WHERE or LIMIT\n"
    asked = [invoke("sql", finished.path, line) for line in lines]
    assert "columns; name fewer, or use --csv or --json for all)" in " ".join(asked[0].stdout.split())
    assert asked[1].stderr == "only the first 1,000 rows are shown; use --csv, --json or --output for all\n"


def test_an_error_is_one_line_and_the_shell_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    def refused(query: str) -> None:
        raise QueryError("no\nsense \x1b[2J")

    terminal = Terminal("a;", "b;")
    terminal.run(refused)
    assert capsys.readouterr().err.splitlines() == ["error: no\\nsense \\x1b[2J"] * 2


def test_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal(".tables", ".schema runs", ".schema none", ".nonsense", ".help").run()
    shown = capsys.readouterr()
    assert shown.out.splitlines()[:3] == ["images", "runs", "runs: run_id"]
    assert ".quit" in shown.out
    assert shown.err.splitlines() == [
        "error: there is no view none; .tables lists them",
        "error: there is no command .nonsense; .help lists them",
    ]

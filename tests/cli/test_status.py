"""`status --watch`: the status again and again, until Ctrl-C."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

import pytest
from click.testing import CliRunner

from featurestore.cli.program import cli
from featurestore.cli.status import BELOW, HOME, TO_END_OF_LINE, watch


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def twice() -> Callable[[], None]:
    """Return a wait that Ctrl-C ends the second time."""
    left = [None]

    def wait() -> None:
        if not left:
            raise KeyboardInterrupt
        left.pop()

    return wait


def test_a_terminal_is_redrawn_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", screen := Screen())
    texts = iter(["extract 1\nwaits", "extract 2"])
    watch(lambda: next(texts), wait=twice())
    first, second = f"extract 1{TO_END_OF_LINE}\nwaits{TO_END_OF_LINE}\n", f"extract 2{TO_END_OF_LINE}\n"
    assert screen.getvalue() == f"{HOME}{BELOW}{HOME}{first}{BELOW}\n{HOME}{second}{BELOW}\n\n"


def test_elsewhere_it_is_printed_again(capsys: pytest.CaptureFixture[str]) -> None:
    texts = iter(["extract 1", "extract 2"])
    watch(lambda: next(texts), wait=twice())
    assert capsys.readouterr().out == "extract 1\nextract 2\n\n"


def test_it_is_for_the_screen() -> None:
    ended = CliRunner().invoke(cli, ["status", "anywhere", "--watch", "--json"])
    assert ended.exit_code == 2
    assert "leave out one of --watch and --json" in ended.stderr

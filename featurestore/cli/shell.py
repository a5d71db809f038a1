"""The interactive shell of sql: a query ends with a semicolon, and a line that begins with a dot is a command.

Commands work in the middle of a query too, which then goes on. There other dots are SQL: ``.5``, ``.upper()``.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from featurestore.cli.common import without_python
from featurestore.errors import FeatureStoreError
from featurestore.system import shown

PROMPT, MORE = "featurestore> ", "         ...> "
ENDS = (".quit", ".exit")
COMMANDS = (*ENDS, ".tables", ".schema", ".help")
HISTORY_LINES = 1000
HELP = """a query ends with a semicolon: DESCRIBE images;
...>             the query goes on: end it with a semicolon
.tables          the views
.schema [VIEW]   their columns
.quit            end, as Ctrl-D does; Ctrl-C cancels what was typed"""

Views = Callable[[], dict[str, str]]


def run_shell(ask: Callable[[str], None], *, views: Views, read: Callable[[str], str] | None = None) -> None:
    """Read queries and commands, until Ctrl-D or ``.quit``.

    Args:
        ask: runs a query and prints its result.
        views: returns the views of the store, and the columns of each.
        read: prompts for a line; None reads it from the terminal, with a history.
    """
    if read is None:
        click.echo("a query ends with a semicolon; .help lists the commands")
        with _cancelled_by_ctrl_c(), _history():
            _read_and_ask(ask, views, input)
    else:
        _read_and_ask(ask, views, read)


def _read_and_ask(ask: Callable[[str], None], views: Views, read: Callable[[str], str]) -> None:
    lines: list[str] = []
    while True:
        try:
            line = read(MORE if lines else PROMPT).strip()
            if line.startswith(".") and (not lines or line.split()[0] in COMMANDS):
                if line.split()[0] in ENDS:
                    return
                _run_command(line, views)
                continue
            lines += [line] if line else []
            if line.endswith(";"):
                query, lines = "\n".join(lines), []
                ask(query)
        except EOFError:
            click.echo()
            return
        except KeyboardInterrupt:
            lines = []
            click.echo()
        except FeatureStoreError as error:
            click.echo(f"error: {' '.join(shown(without_python(str(error))).split())}", err=True)


def _run_command(line: str, views: Views) -> None:
    command, *names = line.split()
    match command:
        case ".tables":
            click.echo("\n".join(views()))
        case ".schema":
            found = views()
            if unknown := [name for name in names if name not in found]:
                click.echo(f"error: there is no view {shown(unknown[0])}; .tables lists them", err=True)
            for name in names or found:
                if name in found:
                    click.echo(f"{name}: {shown(found[name])}")
        case ".help":
            click.echo(HELP)
        case _:
            click.echo(f"error: there is no command {shown(command)}; .help lists them", err=True)


@contextmanager
def _cancelled_by_ctrl_c() -> Iterator[None]:
    """Let every Ctrl-C raise KeyboardInterrupt: the handler of the other verbs ends the process at the second one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _history() -> Iterator[None]:
    """Edit lines with readline, and keep them for the next time, where the user's folder for that can be written."""
    try:
        import readline
    except ImportError:  # a Python without it: lines are read plainly
        yield
        return
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    path = state / "featurestore" / "sql_history"
    try:
        readline.read_history_file(path)
    except OSError:
        readline.clear_history()  # the first time
    readline.set_history_length(HISTORY_LINES)
    try:
        yield
    finally:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(path)
        except OSError as error:
            click.echo(f"warning: the history was not kept in {path}: {error.strerror}", err=True)

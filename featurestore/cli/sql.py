"""The verb sql: a query from the command line, a file or stdin, or an interactive shell."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featurestore.cli.common import FORCE, STORE, UNTRUSTED, answer, open_store
from featurestore.cli.named import StoreVerb, complete_view
from featurestore.formatting import counted
from featurestore.system import must_arrive

if TYPE_CHECKING:
    from featurestore.api import FeatureStore

SHOWN = 1000  # rows of a table on the screen
ENDINGS = (".csv", ".json", ".parquet", ".arrow")


class _Output(click.Path):
    """A file whose extension determines its format."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if Path(value).suffix.lower() not in ENDINGS:
            self.fail(f"{str(value)!r} ends in none of {', '.join(ENDINGS)}, which determine the format", param, ctx)
        return super().convert(value, param, ctx)


class _Parameter(click.ParamType[tuple[str, str]]):
    """A parameter of a query and its value: ``artist=Monet``."""

    name = "NAME=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, equals, text = str(value).partition("=")
        if not equals or not re.fullmatch(r"\w+", name):
            self.fail(f"{value!r} names no parameter and value; write them like artist=Monet", param, ctx)
        return name, text


@click.command(cls=StoreVerb, short_help="Run a SQL query.")
@STORE
@click.argument("query", required=False, shell_complete=complete_view)
@click.option(
    "-p",
    "--param",
    "parameters",
    type=_Parameter(),
    multiple=True,
    help="The value of a parameter in the query, like $artist; repeatable.",
)
@click.option("-f", "--file", type=click.Path(path_type=Path, allow_dash=True), help="Read the query from a file.")
@click.option("--csv", "form", flag_value="csv", help="As CSV.")
@click.option("--json", "form", flag_value="json", help="As JSON: a list of objects.")
@click.option("--output", type=_Output(path_type=Path), help=f"Write to a file that ends in {', '.join(ENDINGS)}.")
@FORCE
@UNTRUSTED
def sql(store: Path, query: str | None, file: Path | None, untrusted: bool, **options: Any) -> None:
    """Run a SQL query over the views images, descriptor_counts, failures, partitions, and others.

    QUERY is - for stdin; without one, a terminal becomes a shell. SHOW TABLES lists the views and their columns. A
    query can't change the store, and does not wait for a run.
    """
    if options["form"] and options["output"]:
        form = options["form"]
        raise click.UsageError(f"--{form} is for the screen, and --output takes the format from the file's extension")
    text = _query(query, file)
    if text is None and (options["output"] or options["parameters"]):
        raise click.UsageError("--output and --param go with a query")
    opened = open_store(store, untrusted=untrusted)
    if text is not None:
        _ask(opened, text, **{**options, "parameters": dict(options["parameters"])})
    else:
        from featurestore.cli.shell import run_shell

        run_shell(lambda line: _ask(opened, line, {}, options["form"], in_shell=True), views=lambda: _views(opened))


def _query(query: str | None, file: Path | None) -> str | None:
    """Return the text of the query; None where there is none and people type."""
    if query is not None and file is not None:
        raise click.UsageError("the query is in --file already; leave out one of them")
    if file is not None or query == "-":
        try:
            return sys.stdin.read() if file is None or str(file) == "-" else file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
            raise click.UsageError(f"{file or 'stdin'} can't be read: {why}") from None
    if query is None and not sys.stdin.isatty():
        raise click.UsageError("there is no query; give one, or --file FILE, or - to read it from stdin")
    return query


def _ask(
    store: FeatureStore,
    query: str,
    parameters: Mapping[str, str],
    form: str | None = None,
    output: Path | None = None,
    force: bool = False,
    *,
    in_shell: bool = False,
) -> None:
    from featurestore.query import RESULT_FORMATS, write_result

    with store.answer(query, parameters, as_text=not (form or output)) as found:
        if output is not None:
            n = write_result(found, output, store=store.path, force=force)
            click.echo(f"{output}: {counted(n, 'row')}")
        elif form is not None:
            with must_arrive(), click.open_file("-", "wb") as stdout:
                RESULT_FORMATS[f".{form}"](found, stdout)
        else:
            _show(found, in_shell=in_shell)
        for line in found.notes:
            click.echo(f"note: {line}", err=True)


def _views(store: FeatureStore) -> dict[str, str]:
    """Return the views and the columns of each."""
    return dict(store.sql("SHOW TABLES").fetchall())


def _show(found: Any, *, in_shell: bool) -> None:
    from featurestore.cli.table import find_screen
    from featurestore.cli.text import explain_text, table_text

    rows: list[tuple[Any, ...]] = []
    n = 0
    for batch in found.batches:
        n += len(batch)
        some = batch.slice(0, max(SHOWN - len(rows), 0))
        rows += zip(*(column.to_pylist() for column in some.columns), strict=True)
    names = found.schema.names
    if names == ["explain_key", "explain_value"]:
        answer(explain_text(rows))
        return
    others = "name those that you need" if in_shell else "name fewer, or use --csv or --json for all"
    answer(table_text(names, rows, n_rows=n, numbers=found.numbers, screen=find_screen(), others=others))
    if n > len(rows):
        advice = "ask for fewer with WHERE or LIMIT" if in_shell else "use --csv, --json or --output for all"
        click.echo(f"only the first {SHOWN:,} rows are shown; {advice}", err=True)


VERBS = (sql,)

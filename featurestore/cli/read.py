"""Reading verbs of the command line: sql, info, show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from featurestore.cli.common import FORCE, OUTPUT, STORE, UNTRUSTED, answer, as_json, open_store, refuse_picture
from featurestore.formatting import counted
from featurestore.system import must_arrive

SHOWN = 1000  # rows of a table on the screen
ENDINGS = (".csv", ".json", ".parquet", ".arrow")


class _Output(click.Path):
    """A file whose extension determines its format."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if Path(value).suffix.lower() not in ENDINGS:
            self.fail(f"{str(value)!r} ends in none of {', '.join(ENDINGS)}, which determine the format", param, ctx)
        return super().convert(value, param, ctx)


@click.command(short_help="Run a SQL query.")
@STORE
@click.argument("query")
@click.option("--csv", "form", flag_value="csv", help="As CSV.")
@click.option("--json", "form", flag_value="json", help="As JSON: a list of objects.")
@click.option("--output", type=_Output(path_type=Path), help=f"Write to a file that ends in {', '.join(ENDINGS)}.")
@click.option("--force", is_flag=True, help="With --output: replace an existing file.")
@UNTRUSTED
def sql(store: Path, query: str, form: str | None, output: Path | None, force: bool, untrusted: bool) -> None:
    """Run a SQL query over the views images, descriptor_counts, failures, partitions, and others.

    SHOW TABLES lists the views and their columns. A query can't change the store, and does not wait for a run.
    """
    from featurestore.query import RESULT_FORMATS, write_result

    if form and output:
        raise click.UsageError(f"--{form} is for the screen, and --output takes the format from the file's extension")
    opened = open_store(store, untrusted=untrusted)
    with opened.answer(query, as_text=not (form or output)) as found:
        if output is not None:
            n = write_result(found, output, store=opened.path, force=force)
            click.echo(f"{output}: {counted(n, 'row')}")
        elif form is not None:
            with must_arrive(), click.open_file("-", "wb") as stdout:
                RESULT_FORMATS[f".{form}"](found, stdout)
        else:
            _show(found)


def _show(found: Any) -> None:
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
    answer(table_text(names, rows, n_rows=n, numbers=found.numbers))
    if n > len(rows):
        click.echo(f"only the first {SHOWN:,} rows are shown; use --csv, --json or --output for all", err=True)


@click.command(short_help="Show everything about one image.")
@STORE
@click.argument("filename")
@click.option("--json", "json_wanted", is_flag=True, help="As JSON.")
@UNTRUSTED
def info(store: Path, filename: str, json_wanted: bool, untrusted: bool) -> None:
    """Show everything about one image: its row of the CSV, the result of each stage, the models it trained."""
    found = open_store(store, untrusted=untrusted).info(filename)
    if json_wanted:
        answer(as_json(found.as_dict()))
    else:
        from featurestore.cli.text import info_text

        answer(info_text(found))


@click.command(short_help="Draw an image with its keypoints.")
@STORE
@click.argument("filename")
@click.option("--stage", help="Whose keypoints; default: those of the codes, over all that extract found.")
@OUTPUT
@FORCE
@UNTRUSTED
def show(store: Path, filename: str, stage: str | None, output: Path | None, force: bool, untrusted: bool) -> None:
    """Draw an image of the store with its keypoints: place, size and angle.

    Without -o the picture is NAME-keypoints.png in the current folder, where NAME is that of the image.
    """
    opened = open_store(store, untrusted=untrusted)
    output = output or Path(f"{Path(filename).stem}-keypoints.png")
    refuse_picture(output, opened.path, force=force)
    picture = opened.show(filename, stage)
    picture.save(output, force=force)
    answer(f"{output}: {picture.title}")


VERBS = (sql, info, show)
